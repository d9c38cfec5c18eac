"""The memory over the canon: an index of all wordings, and a retriever that learned which fact they ask for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from camelbell_core import hookimpl
from camelbell_core.records import Message, Point, Recall
from camelbell_core.roles import Memory

if TYPE_CHECKING:
    from camelbell_core.character import Character
    from camelbell_core.records import Fact
    from camelbell_plugins.memory_canon.index import Match, Wording, WordingIndex
    from camelbell_plugins.memory_canon.retriever import Retriever
    from camelbell_plugins.memory_canon.words import Words

_FORMAT = 2  # raised when the index file changes
_LONGEST = 4000  # characters of a question that are looked at, its end: SQLite bounds the terms of a query
_SELF = 0.85  # a wording this near to a question, that holds all its words, is the question itself
_SAME = 0.8  # a question this near to a known wording, with the same names, gets that wording's own answer
_NOW = 0.1  # added to the score of a fact that will end, at a story time
_NEAR = 64  # facts that the retriever adds to those of the index
# Where no retriever was trained: the weights of ``Evidence``, and slope and offset from score to probability.
_BARE = ((0.6, 0.0, 0.4, -0.2), 11.0, -6.0)


class Evidence(NamedTuple):
    """What speaks for a fact: the share of the nearest wording, the retriever's cosine, how much of the question all its
    wordings together cover, and against it the share of the question's names that it does not name.
    """

    shared: float
    likeness: float
    covered: float
    lacking: float

    def score(self, weights: Sequence[float]) -> float:
        """Return the weighted sum."""
        return sum(weight * value for weight, value in zip(weights, self, strict=True))


@dataclass(kw_only=True)
class CanonMemory(Memory):
    """Facts of the canon by the names and words of a question, in both languages.

    SQLite's bm25 gives the ``candidates`` among all wordings of all facts; what they share with the question and
    the retriever's cosine, where the bundle has one, put the facts in order. A name counts as its entity, and
    ``name_weight`` is its weight against that of the rarest word. A score is the probability, as fitted on held-out
    questions, that a fact answers.
    """

    name: ClassVar[str] = "canon"
    candidates: int = 240
    name_weight: float = 1.3

    def prepare(self, character: Character, learned: bool = True) -> None:
        """Open the index of the canon's wordings, and write it the first time; ``learned`` with the retriever."""
        from camelbell_plugins.memory_canon.retriever import FILE, read_retriever
        from camelbell_plugins.memory_canon.words import Words

        self._canon = character.canon
        self._words = Words(character.canon, character.config.entity)
        self._file = character.root / "memory" / FILE
        self._retriever = read_retriever(self._file) if learned and self._file.is_file() else None
        self._ids = list(self._canon.facts)
        self._place = {fact: place for place, fact in enumerate(self._ids)}
        self._index, self._vectors = self._open(character)

    def recall(
        self, question: str, count: int, at: Point | None = None, history: Sequence[Message] = (), unseen: bool = False
    ) -> list[Recall]:
        """Return the likeliest facts; a question that names nothing is read with the turn before it.

        ``unseen`` answers as if this very question had never been seen: for training and for measuring.
        """
        best, evidence = self._evidence(question[-_LONGEST:], history, unseen, learned=not unseen)
        weights = self._retriever.weights if self._retriever else _BARE[0]
        words = self._words.of(question[-_LONGEST:])
        facts = self._canon.facts
        scores = {fact: found.score(weights) for fact, found in evidence.items() if facts[fact].holds_at(at)}
        if at is not None:  # what holds only now is told before what held ever since
            scores = {fact: score + _NOW * (facts[fact].true_until is not None) for fact, score in scores.items()}
        ranked = sorted(scores.items(), key=lambda item: (-item[1], item[0]))[:count]
        return [
            Recall(facts[fact], self._probability(score), self._answer(best.get(fact), words, question))
            for fact, score in ranked
        ]

    def evidence(self, question: str, unseen: bool = False) -> dict[str, Evidence]:
        """Return for each fact that comes to mind what speaks for it."""
        return self._evidence(question[-_LONGEST:], (), unseen, learned=True)[1]

    def use(self, retriever: Retriever) -> None:
        """Take another retriever in the place of the bundle's."""
        self._retriever = retriever
        self._vectors = self._make_vectors()

    def _evidence(
        self, question: str, history: Sequence[Message], unseen: bool, learned: bool
    ) -> tuple[dict[str, Match], dict[str, Evidence]]:
        """Return the best wording of each fact that comes to mind, and what speaks for each."""
        words, named = self._words.of(question), self._words.named(question)
        if history and not self._words.names(words):
            said = "\n".join(message.content for message in history[-2:])
            words |= self._words.names(self._words.of(said))
        best: dict[str, Match] = {}
        covered: dict[str, dict[str, float]] = {}
        for match in self._index.search(words, self.candidates):
            if unseen and match.wording.words >= words and match.score > _SELF:
                continue
            fact = match.wording.fact
            covered.setdefault(fact, {}).update(match.shares)
            if fact not in best or match.score > best[fact].score:
                best[fact] = match
        likeness = self._likeness(question, words, best) if learned else dict.fromkeys(best, 0.0)
        told = self._index.names(likeness) if named else {}
        return best, {
            fact: Evidence(
                best[fact].score if fact in best else 0.0,
                like,
                sum(covered.get(fact, {}).values()),
                sum(not owners & told.get(fact, frozenset()) for owners in named) / len(named) if named else 0.0,
            )
            for fact, like in likeness.items()
        }

    def _likeness(self, question: str, words: frozenset[str], found: Iterable[str]) -> dict[str, float]:
        """Return the retriever's cosine for the facts that the index found, and for those nearest to the question."""
        if not self._retriever or not len(self._vectors):
            return dict.fromkeys(found, 0.0)
        import numpy as np

        features = sorted({*self._words.features(question), *self._words.names(words)})
        likeness = self._vectors @ self._retriever.of_question(features)
        near = np.argpartition(-likeness, min(_NEAR, len(likeness)) - 1)[:_NEAR]
        numbers = {self._place[fact] for fact in found}.union(near.tolist())
        return {self._ids[number]: float(likeness[number]) for number in numbers}

    def _probability(self, score: float) -> float:
        from math import exp

        slope, offset = (self._retriever.slope, self._retriever.offset) if self._retriever else _BARE[1:]
        return 1 / (1 + exp(-max(-50.0, min(50.0, slope * score + offset))))

    def _answer(self, match: Match | None, words: frozenset[str], question: str) -> str:
        """Return what was said to the wording that a question repeats."""
        if match is None or not match.wording.answer or match.score < _SAME:
            return ""
        from camelbell_core.text import CJK

        own = match.wording
        same_names = self._words.names(own.words) == self._words.names(words)
        return own.answer if same_names and (own.language == "zh") == bool(CJK.search(question)) else ""

    # --- the index, kept between runs ---------------------------------------------------------------

    def _wordings(self, character: Character) -> Iterator[Wording]:
        from camelbell_plugins.memory_canon.index import Wording
        from camelbell_plugins.memory_canon.words import name_word

        for fact in self._canon.facts.values():
            about = set(map(name_word, fact.about))
            for texts in (fact.text, fact.voice):
                for language, text in texts.items():
                    yield Wording(fact.id, language, self._words.of(text) | about)
            for language, asks in fact.ask.items():
                for ask in asks:
                    yield Wording(fact.id, language, self._words.of(ask) | about)
        for question in character.dialogues:
            for fact_id in question.facts[:1]:
                about = set(map(name_word, self._canon.facts[fact_id].about))
                words = self._words.of(question.text)
                # A mistaken question names what the fact does not tell of; its own names stay as they are.
                about = about if question.kind != "false_premise" else set()
                yield Wording(fact_id, question.language, words | about, question.answer)

    def _named(self) -> dict[str, set[str]]:
        """Return the names that each fact names in its statements and tellings."""
        from camelbell_plugins.memory_canon.words import name_word

        named = {}
        for fact in self._canon.facts.values():
            told = (self._words.of(text) for text in (*fact.text.values(), *fact.voice.values()))
            named[fact.id] = set(map(name_word, fact.about)).union(*map(self._words.names, told))
        return named

    def _open(self, character: Character) -> tuple[WordingIndex, Any]:
        """Open index and vectors from the data folder, made now if they are not there or of another canon."""
        import sqlite3
        from contextlib import suppress

        from camelbell_core.character import data_dir
        from camelbell_plugins.memory_canon.index import WordingIndex

        file = data_dir() / "memory" / f"{character.name}-{self._digest(character)}.sqlite"
        with suppress(sqlite3.Error, OSError, ValueError, EOFError):
            if file.is_file():
                return WordingIndex.open(file, self.name_weight, self._words.me), self._read_vectors(file)
        try:
            return self._write(character, file)
        except (OSError, sqlite3.Error):  # nowhere to keep it: it lives in memory
            index = WordingIndex.build(self._wordings(character), self._named(), None, self.name_weight, self._words.me)
            return index, self._make_vectors()

    def _write(self, character: Character, file: Path) -> tuple[WordingIndex, Any]:
        """Write index and vectors beside the place where they belong, then move them there."""
        import os
        from contextlib import suppress
        from tempfile import TemporaryDirectory

        import numpy as np

        from camelbell_plugins.memory_canon.index import WordingIndex

        file.parent.mkdir(parents=True, exist_ok=True)
        for old in file.parent.glob(f"{character.name}-{'?' * 16}.*"):
            with suppress(OSError):
                old.unlink()
        vectors = self._make_vectors()
        with TemporaryDirectory(dir=file.parent, ignore_cleanup_errors=True) as folder:
            draft = Path(folder) / "draft.sqlite"
            WordingIndex.build(
                self._wordings(character), self._named(), draft, self.name_weight, self._words.me
            ).close()
            if vectors is not None:
                np.save(draft.with_suffix(".npy"), vectors)
                os.replace(draft.with_suffix(".npy"), file.with_suffix(".npy"))
            os.replace(draft, file)
        return WordingIndex.open(file, self.name_weight, self._words.me), vectors

    def _make_vectors(self) -> Any:
        """Return the retriever's vectors of all facts, or None without a retriever."""
        if not self._retriever:
            return None
        return self._retriever.of_facts(fact_features(self._words, fact) for fact in self._canon.facts.values())

    def _read_vectors(self, file: Path) -> Any:
        import numpy as np

        return np.load(file.with_suffix(".npy")) if self._retriever else None

    def _digest(self, character: Character) -> str:
        """Return a hash of all that the index is made of."""
        from camelbell_core.records import content_id

        made_of = [str(_FORMAT), str(self.name_weight), self._words.me, character.digest]
        if self._retriever:
            made_of.append(content_id(self._file.read_bytes().hex()))
        return content_id(*made_of)


def fact_features(words: Words, fact: Fact) -> list[str]:
    """Return what the retriever reads of a fact: its statements, its tellings and whom it is about."""
    from camelbell_plugins.memory_canon.words import name_word

    features = set(map(name_word, fact.about))
    for text in (*fact.text.values(), *fact.voice.values()):
        features.update(words.features(text))
    return sorted(features)


@hookimpl
def register_memories() -> list[type[Memory]]:
    """Offer the memory over the canon."""
    return [CanonMemory]


@hookimpl
def register_commands(cli: Any) -> None:
    """Add ``camelbell index``."""
    import click

    from camelbell_core.cli import with_places

    @cli.command("index")  # type: ignore[untyped-decorator]
    @click.argument("name")
    @click.option("--epochs", type=click.IntRange(min=1), default=24, show_default=True)
    @click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Default: the bundle's own folder.")
    @with_places
    def index(name: str, epochs: int, out: Path | None, workspace: Path | None, characters: list[Path]) -> None:
        """Train the retriever of NAME on its own wordings: which question asks for which fact."""
        from camelbell_core.cli import open_named_run
        from camelbell_plugins.memory_canon.learn import learn
        from camelbell_plugins.memory_canon.retriever import FILE

        run = open_named_run(name, workspace, characters)
        with run.progress("index") as tick:
            report = learn(run.character, out or run.character.root / "memory" / FILE, epochs, tick)
        click.echo(report)
