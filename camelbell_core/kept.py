"""What was read of a bundle and found right, kept in the user's data folder, so that the next start is quick.

Reading and checking megabytes of YAML takes seconds. What comes of it is kept as JSON under a hash of the bundle's
files, of its seeds and of the code that reads them; whatever of these changes, everything is read and checked again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Container, Iterable
from contextlib import suppress
from functools import cache
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from camelbell_core.canon import Canon
from camelbell_core.records import Entity, Fact, Point, Question, Seed

T = TypeVar("T")
_READERS = "canon character checked_yaml dialogues kept names records relations slots text"
_SUFFIXES = {".yaml", ".jsonl", ".py"}
_FOLDERS = ("canon", "dialogues", "seeds")


class Kept:
    """The files of one bundle in the data folder; nothing is told of one that is missing, damaged or cannot be written."""

    def __init__(self, root: Path, seeds: Iterable[Seed], folder: Path) -> None:
        self.digest = _digest(root, seeds)
        self._place = f"{root.name}-{sha256(str(root).encode('utf-8', 'surrogateescape')).hexdigest()[:8]}"
        self._folder = folder

    def canon(self) -> Canon | None:
        """Return the canon as it was read from the bundle's files."""
        return self._read("canon", _canon_of)

    def dialogues(self) -> list[Question] | None:
        """Return the questions of the bundle's dialogue files."""
        return self._read("dialogues", lambda rows: [_question(row) for row in rows])

    def vocabulary(self) -> str | None:
        """Return the canon's vocabulary."""
        return self._read("vocabulary", lambda words: words if isinstance(words, str) else None)

    def keep(self, canon: Canon, dialogues: list[Question], without: Container[str] = ()) -> None:
        """Keep what was found right, but for some facts, in the place of what an earlier state of the bundle left.

        The dialogues end with the questions of the canon's relations, which are kept with it.
        """
        own = dialogues[: len(dialogues) - len(canon.questions)]
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            for old in self._folder.glob(f"{self._place}-*.json"):
                old.unlink(missing_ok=True)
            self._write("vocabulary", canon.vocabulary)
            self._write("dialogues", [_row(question) for question in own])
            self._write("canon", _canon_row(canon, without))  # last: where it is, the bundle is right

    def _file(self, kind: str) -> Path:
        return self._folder / f"{self._place}-{self.digest[:24]}-{kind}.json"

    def _read(self, kind: str, make: Callable[[Any], T | None]) -> T | None:
        try:
            return make(json.loads(self._file(kind).read_text(encoding="utf-8", errors="surrogatepass")))
        except (OSError, ValueError, TypeError, LookupError, AttributeError):
            return None

    def _write(self, kind: str, value: object) -> None:
        file = self._file(kind)
        with TemporaryDirectory(dir=self._folder, ignore_cleanup_errors=True) as draft:
            new = Path(draft) / file.name
            new.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8", errors="surrogatepass")
            os.replace(new, file)


def _digest(root: Path, seeds: Iterable[Seed]) -> str:
    digest = sha256(_code().encode())
    files = [root / "character.yaml", root / "plugin.py"]
    files += (file for name in _FOLDERS for file in sorted((root / name).rglob("*")))
    for file in files:
        if file.suffix in _SUFFIXES and file.is_file():
            data = file.read_bytes()
            digest.update(f"{file.relative_to(root)}\0{len(data)}\0".encode("utf-8", "surrogateescape"))
            digest.update(data)
    digest.update(repr(list(seeds)).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


@cache
def _code() -> str:
    """Return a hash of the modules that read a bundle."""
    digest = sha256()
    for name in _READERS.split():
        digest.update((Path(__file__).parent / f"{name}.py").read_bytes())
    return digest.hexdigest()


def _canon_row(canon: Canon, without: Container[str]) -> dict[str, Any]:
    return {
        "entities": [[e.id, e.type, e.names, e.aliases] for e in canon.entities.values()],
        "facts": [
            [f.id, f.about, f.text, f.voice, f.ask, f.answer, f.relation, *map(_pair, _points(f))]
            for f in canon.facts.values()
            if f.id not in without
        ],
        "chapters": canon.chapters,
        "parts": canon.parts,
        "extra": canon.extra,
        "questions": [_row(question) for question in canon.questions],
    }


def _canon_of(row: dict[str, Any]) -> Canon:
    entities = {key: Entity(key, kind, names, tuple(aliases)) for key, kind, names, aliases in row["entities"]}
    canon = Canon(entities, map(_fact, row["facts"]), row["chapters"], row["extra"], row["parts"])
    canon.questions = [_question(question) for question in row["questions"]]
    return canon


def _fact(row: list[Any]) -> Fact:
    key, about, text, voice, ask, answer, relation, *points = row
    source, known_from, true_from, true_until = (Point(*point) if point else None for point in points)
    asks = {language: tuple(words) for language, words in ask.items()}
    return Fact(
        key, tuple(about), text, voice, asks, tuple(answer), relation, source, known_from, true_from, true_until
    )


def _points(fact: Fact) -> tuple[Point | None, ...]:
    return fact.source, fact.known_from, fact.true_from, fact.true_until


def _pair(point: Point | None) -> list[int] | None:
    return [point.part, point.chapter] if point else None


def _row(q: Question) -> list[Any]:
    return [q.text, q.language, q.kind, q.generator, q.seed, q.slots, q.facts, q.answer, q.at, q.history]


def _question(row: list[Any]) -> Question:
    text, language, kind, generator, seed, slots, facts, answer, at, history = row
    return Question(text, language, kind, generator, seed, slots, tuple(facts), answer, at, tuple(history))
