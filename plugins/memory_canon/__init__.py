"""The memory over the canon: an index of all wordings, and a retriever that learned which fact they ask for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from camelbell_core import hookimpl
from camelbell_core.records import Message, Point, Recall
from camelbell_core.roles import Memory

if TYPE_CHECKING:
    from camelbell_core.character import Character
    from camelbell_core.records import Fact
    from camelbell_plugins.memory_canon.index import Match, Wording, WordingIndex
    from camelbell_plugins.memory_canon.retriever import Retriever
    from camelbell_plugins.memory_canon.words import Words

_FORMAT = 1  # raised when the index file changes
_LONGEST = 4000  # characters of a question that are looked at, its end: SQLite bounds the terms of a query
_SELF = 0.85  # a wording this near to a question, that holds all its words, is the question itself
_SAME = 0.8  # a question this near to a known wording, with the same names, gets that wording's own answer
_NOW = 0.1  # added to the score of a fact that will end, at a story time
_NEAR = 64  # facts that the retriever adds to those of the index
_BARE = (11.0, -6.0)  # slope and offset from index score to probability, where no retriever was trained


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

    def prepare(self, character: Character) -> None:
        """Open the index of the canon's wordings, and write it the first time."""
        from camelbell_plugins.memory_canon.retriever import FILE, read_retriever
        from camelbell_plugins.memory_canon.words import Words

        self._canon = character.canon
        self._words = Words(character.canon, character.config.entity)
        self._file = character.root / "memory" / FILE
        self._retriever = read_retriever(self._file) if self._file.is_file() else None
        self._ids = list(self._canon.facts)
        self._place = {fact: place for place, fact in enumerate(self._ids)}
        self._index, self._vectors = self._open(character)

    def recall(
        self, question: str, count: int, at: Point | None = None, history: Sequence[Message] = (), unseen: bool = False
    ) -> list[Recall]:
        """Return the likeliest facts; a question that names nothing is read with the turn before it.

        ``unseen`` answers as if this very question had never been seen: for training and for measuring.
        """
        best, likeness = self._evidence(question[-_LONGEST:], history, unseen, learned=not unseen)
        mix = self._retriever.mix if self._retriever else 0.0
        scores = {fact: (best[fact].score if fact in best else 0.0) + mix * like for fact, like in likeness.items()}
        words = self._words.of(question[-_LONGEST:])
        facts = self._canon.facts
        if at is not None:  # what holds only now is told before what held ever since
            scores = {fact: score + _NOW * (facts[fact].true_until is not None) for fact, score in scores.items()}
        ranked = sorted(scores.items(), key=lambda item: (-item[1], item[0]))
        held = [(fact, score) for fact, score in ranked if facts[fact].holds_at(at)][:count]
        return [
            Recall(facts[fact], self._probability(score), self._answer(best.get(fact), words, question))
            for fact, score in held
        ]

    def evidence(self, question: str, unseen: bool = False) -> dict[str, tuple[float, float]]:
        """Return for each fact that comes to mind what the index and what the retriever say of it."""
        best, likeness = self._evidence(question[-_LONGEST:], (), unseen, learned=True)
        return {fact: (best[fact].score if fact in best else 0.0, like) for fact, like in likeness.items()}

    def use(self, retriever: Retriever) -> None:
        """Take another retriever in the place of the bundle's."""
        self._retriever = retriever
        self._vectors = self._make_vectors()

    def _evidence(
        self, question: str, history: Sequence[Message], unseen: bool, learned: bool
    ) -> tuple[dict[str, Match], dict[str, float]]:
        """Return the best wording of each fact, and for all facts in question the retriever's cosine."""
        words = self._words.of(question)
        if history and not self._words.names(words):
            said = "\n".join(message.content for message in history[-2:])
            words |= self._words.names(self._words.of(said))
        best: dict[str, Match] = {}
        for match in self._index.search(words, self.candidates):
            if unseen and match.wording.words >= words and match.score > _SELF:
                continue
            known = best.get(match.wording.fact)
            if known is None or match.score > known.score:
                best[match.wording.fact] = match
        if not (learned and self._retriever and len(self._vectors)):
            return best, dict.fromkeys(best, 0.0)
        import numpy as np

        features = sorted({*self._words.features(question), *self._words.names(words)})
        likeness = self._vectors @ self._retriever.of_question(features)
        near = np.argpartition(-likeness, min(_NEAR, len(likeness)) - 1)[:_NEAR]
        found = {self._place[fact] for fact in best}.union(near.tolist())
        return best, {self._ids[number]: float(likeness[number]) for number in found}

    def _probability(self, score: float) -> float:
        from math import exp

        slope, offset = (self._retriever.slope, self._retriever.offset) if self._retriever else _BARE
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

        for fact in self._canon.facts.values():
            about = {f"@{entity}" for entity in fact.about}
            for texts in (fact.text, fact.voice):
                for language, text in texts.items():
                    yield Wording(fact.id, language, self._words.of(text) | about)
            for language, asks in fact.ask.items():
                for ask in asks:
                    yield Wording(fact.id, language, self._words.of(ask) | about)
        for question in character.dialogues:
            for fact_id in question.facts[:1]:
                about = {f"@{entity}" for entity in self._canon.facts[fact_id].about}
                words = self._words.of(question.text)
                # A mistaken question names what the fact does not tell of; its own names stay as they are.
                about = about if question.kind != "false_premise" else set()
                yield Wording(fact_id, question.language, words | about, question.answer)

    def _open(self, character: Character) -> tuple[WordingIndex, Any]:
        """Open index and vectors from the data folder, made now if they are not there or of another canon."""
        import sqlite3
        from contextlib import suppress

        from camelbell_core.character import data_dir
        from camelbell_plugins.memory_canon.index import WordingIndex

        file = data_dir() / "memory" / f"{character.name}-{self._digest(character)}.sqlite"
        with suppress(sqlite3.Error, OSError, ValueError):
            if file.is_file():
                return WordingIndex.open(file, self.name_weight, self._words.me), self._read_vectors(file)
        try:
            return self._write(character, file)
        except OSError:  # nowhere to keep it: it lives in memory
            index = WordingIndex.build(self._wordings(character), None, self.name_weight, self._words.me)
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
            WordingIndex.build(self._wordings(character), draft, self.name_weight, self._words.me).close()
            if vectors is not None:
                np.save(draft.with_suffix(".npy"), vectors)
                os.replace(draft.with_suffix(".npy"), file.with_suffix(".npy"))
            os.replace(draft, file)
        return WordingIndex.open(file, self.name_weight, self._words.me), vectors

    def _make_vectors(self) -> Any:
        """Return the retriever's vectors of all facts, or None without a retriever."""
        return self._retriever.of_facts(map(self._told, self._canon.facts.values())) if self._retriever else None

    def _read_vectors(self, file: Path) -> Any:
        import numpy as np

        return np.load(file.with_suffix(".npy")) if self._retriever else None

    def _told(self, fact: Fact) -> list[str]:
        return fact_features(self._words, fact)

    def _digest(self, character: Character) -> str:
        """Return a hash of all that the index is made of."""
        from dataclasses import astuple

        from camelbell_core.records import content_id

        made_of: list[str] = [str(_FORMAT), str(self.name_weight), self._words.me]
        if self._file.is_file():
            made_of.append(content_id(self._file.read_bytes().hex()))
        made_of += (repr(astuple(fact)) for fact in self._canon.facts.values())
        made_of += (f"{q.text}={q.answer}:{q.facts}:{q.kind}" for q in character.dialogues if q.facts)
        made_of += (repr(entity.all_names()) for entity in self._canon.entities.values())
        return content_id(*made_of)


def fact_features(words: Words, fact: Fact) -> list[str]:
    """Return what the retriever reads of a fact: its statements, its tellings and whom it is about."""
    features = {f"@{entity}" for entity in fact.about}
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
