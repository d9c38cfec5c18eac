"""Putting a quiz to a session and counting what is true, by kind and language."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from pathlib import Path
from random import Random
from typing import Any

from camelbell_core.canon import Canon
from camelbell_core.compose import IGNORANCE, admits_ignorance
from camelbell_core.errors import CamelBellError
from camelbell_core.journal import read_rows
from camelbell_core.session import Session
from camelbell_core.text import mentions


@dataclass(frozen=True, slots=True)
class Item:
    """A quiz question: an answer is truthful when every group of ``must`` has an alternative in it
    and nothing of ``must_not`` is."""

    id: str
    language: str
    kind: str
    question: str
    must: tuple[tuple[str, ...], ...]
    must_not: tuple[str, ...] = ()
    at: str = ""

    @property
    def answerable(self) -> bool:
        """Whether a right answer tells something; of the others, not to know is right."""
        return self.kind != "trap" and not any(IGNORANCE.search("; ".join(group)) for group in self.must)


@dataclass(frozen=True, slots=True)
class Answered:
    """An item with the answer that was given, the facts it rests on, and whether it is truthful."""

    item: Item
    answer: str
    facts: tuple[str, ...]
    truthful: bool
    admits: bool = False  # it says that it does not know


@dataclass(frozen=True, slots=True)
class Score:
    """How many of n answers are truthful."""

    right: int
    n: int

    @property
    def share(self) -> float:
        """The share of truthful answers, 0 without answers."""
        return self.right / self.n if self.n else 0.0

    def interval(self, z: float = 1.96) -> tuple[float, float]:
        """Return the Wilson score interval (Wilson 1927), by default at 95 %."""
        if not self.n:
            return 0.0, 1.0
        p, n = self.share, self.n
        middle = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return max(0.0, middle - half), min(1.0, middle + half)


def is_truthful(answer: str, item: Item) -> bool:
    """Grade an answer by the item's key words."""
    return all(any(mentions(answer, word) for word in group) for group in item.must) and not any(
        mentions(answer, word) for word in item.must_not
    )


def read_quiz(file: Path) -> list[Item]:
    """Return the items of a JSONL quiz; a broken line is an error that names it."""
    if not file.is_file():
        raise CamelBellError(f"there is no quiz {str(file)!r}", "name a JSONL file with --quiz")
    return [_item(file, number, row) for number, row in read_rows(file, torn=False)]


def _item(file: Path, number: int, row: dict[str, Any]) -> Item:
    known = {"id", "lang", "kind", "q", "must", "must_not", "at", "note"}
    lacking = [key for key in ("id", "lang", "q", "must") if not row.get(key)]
    unknown = sorted(set(row) - known)
    must = row.get("must")
    if lacking or unknown:
        what = f"lacks {lacking[0]!r}" if lacking else f"unknown key {unknown[0]!r}"
    elif not (isinstance(must, list) and all(isinstance(group, list) and group for group in must)):
        what = "'must' is a list of lists of alternatives"
    elif not isinstance(row.get("must_not") or [], list):
        what = "'must_not' is a list of words"
    else:
        return Item(
            str(row["id"]),
            str(row["lang"]),
            str(row.get("kind", "fact")),
            str(row["q"]),
            tuple(tuple(map(str, group)) for group in row["must"]),
            tuple(map(str, row.get("must_not") or ())),
            str(row.get("at") or ""),
        )
    raise CamelBellError(
        f"{file}:{number}: {what}", 'a line is {"id","lang","kind","q","must":[[...]],"must_not":[...]}'
    )


def sample(items: Sequence[Item], count: int, seed: str) -> list[Item]:
    """Return ``count`` items (all, if 0) spread evenly over kinds and languages, the same each time."""
    if not count or count >= len(items):
        return list(items)
    groups: dict[tuple[str, str], list[int]] = {}
    for place, item in enumerate(items):
        groups.setdefault((item.kind, item.language), []).append(place)
    rng = Random(seed)
    for group in groups.values():
        rng.shuffle(group)
    # An item's place in its group, as a share: the smallest shares are spread over the groups in proportion.
    order = [((number + 0.5) / len(group), place) for group in groups.values() for number, place in enumerate(group)]
    chosen = {place for _, place in sorted(order, key=lambda pair: pair[0])[:count]}
    return [item for place, item in enumerate(items) if place in chosen]


def evaluate(
    session: Session, items: Iterable[Item], canon: Canon, done: Callable[[Answered], None] = lambda answered: None
) -> list[Answered]:
    """Put each item to the session, each in a conversation of its own, and grade the answers."""
    answered = []
    usual = session.settings
    asked = [(item, canon.point(item.at) if item.at else usual.at) for item in items]
    for item, at in asked:
        session.reset()
        session.settings = replace(usual, at=at)
        answer = session.ask(item.question)
        facts = tuple(fact.id for fact in session.turns[-1].facts)
        admits = admits_ignorance(answer, session.character, item.language)
        answered.append(Answered(item, answer, facts, is_truthful(answer, item), admits))
        done(answered[-1])
    session.settings = usual
    return answered


def scores(answered: Sequence[Answered]) -> dict[tuple[str, str], Score]:
    """Return the score of each kind and language, of each kind (language ``""``), and of all (``("", "")``)."""
    counts: dict[tuple[str, str], list[int]] = {}
    for one in answered:
        for key in ((one.item.kind, one.item.language), (one.item.kind, ""), ("", one.item.language), ("", "")):
            tally = counts.setdefault(key, [0, 0])
            tally[0] += one.truthful
            tally[1] += 1
    return {key: Score(right, n) for key, (right, n) in counts.items()}


def coverage(answered: Sequence[Answered]) -> tuple[Score, Score]:
    """Return how many answerable items were answered, and how many others were met by not knowing."""
    answerable = [one for one in answered if one.item.answerable]
    others = [one for one in answered if not one.item.answerable]
    return (
        Score(sum(not one.admits for one in answerable), len(answerable)),
        Score(sum(one.admits for one in others), len(others)),
    )
