"""The records that travel between the stages; on disk each is one line of JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any, Literal, TypeVar, get_args

Role = Literal["system", "user", "assistant"]
ROLES: tuple[str, ...] = get_args(Role)


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Seed:
    """A question template; ``[slot]`` in a text is filled from the value list of that name."""

    name: str
    kind: str
    texts: dict[str, tuple[str, ...]]  # language -> wordings
    answers: dict[str, str] = field(default_factory=dict)  # language -> a hand-written answer


@dataclass(frozen=True, slots=True, order=True)
class Point:
    """A point in the story, as part and chapter: ``Point(3, 22)`` is written ``3-22``."""

    part: int
    chapter: int

    def __str__(self) -> str:
        return f"{self.part}-{self.chapter}"


@dataclass(frozen=True, slots=True)
class Entity:
    """A person, place or thing that the canon knows, under all its names."""

    id: str
    type: str
    names: dict[str, str]  # language -> canonical name
    aliases: tuple[str, ...] = ()

    def all_names(self) -> tuple[str, ...]:
        """Return every name, the canonical ones first, without repeats."""
        return tuple(dict.fromkeys((*self.names.values(), *self.aliases)))


@dataclass(frozen=True, slots=True)
class Fact:
    """One true statement of the canon, with the words that ask for it and tell it.

    ``answer`` holds what a right answer must contain: each item is an entity id or
    literal alternatives joined by ``|``. A fact counts at story time ``t`` when
    ``known_from <= t`` and ``true_from <= t < true_until``.
    """

    id: str
    about: tuple[str, ...]
    text: dict[str, str]
    voice: dict[str, str] = field(default_factory=dict)
    ask: dict[str, tuple[str, ...]] = field(default_factory=dict)
    answer: tuple[str, ...] = ()
    relation: str = ""
    source: Point | None = None
    known_from: Point | None = None
    true_from: Point | None = None
    true_until: Point | None = None

    @property
    def learned(self) -> Point | None:
        """When the character learns it, as far as that is told."""
        return self.known_from or self.source

    def holds_at(self, at: Point | None) -> bool:
        """Tell whether the character knows this fact, and it is true, at a point of the story; None is its end."""
        if at is None:
            return self.true_until is None
        return (
            (self.learned is None or self.learned <= at)
            and (self.true_from is None or self.true_from <= at)
            and (self.true_until is None or at < self.true_until)
        )

    def told(self, language: str) -> str:
        """Return the fact as the character tells it, or as the canon states it."""
        return self.voice.get(language) or self.text.get(language) or next(iter(self.text.values()))


@dataclass(frozen=True, slots=True)
class Recall:
    """A fact that came to mind, how well it fits (1: the question is asked in its words), and what was said to that.

    ``answer`` is set where the question is put in a known wording that has an answer of its own.
    """

    fact: Fact
    score: float
    answer: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """A question to the character and where it comes from."""

    text: str
    language: str
    kind: str = "open"
    generator: str = ""
    seed: str = ""
    slots: dict[str, str] = field(default_factory=dict)
    facts: tuple[str, ...] = ()  # the facts that it asks for, where that is known
    answer: str = ""  # an answer that came with it (imported rows, dialogues, hand-written seeds)
    at: str = ""  # the story time at which it is asked, such as 3-22
    history: tuple[str, ...] = ()  # what was said before: question, answer, question, answer ...

    @property
    def id(self) -> str:
        """Return the hash of what is asked, when, and after what."""
        return content_id(self.language, self.text, *filter(None, (self.at,)), *self.history)

    @property
    def said(self) -> list[Message]:
        """The history as messages, the visitor's first."""
        return _as_turns(self.history)

    def answered(self, answer: str, facts: Iterable[str], teacher: str, model: str = "") -> Pair:
        """Return the pair that a teacher's answer, resting on facts given by id, makes of this question."""
        return Pair(
            self.text,
            answer,
            self.language,
            self.kind,
            tuple(facts),
            teacher=teacher,
            model=model,
            generator=self.generator,
            seed=self.seed,
            at=self.at,
            history=self.history,
        )


@dataclass(frozen=True, slots=True)
class Pair:
    """A question, its answer, and the facts that the answer rests on."""

    question: str
    answer: str
    language: str
    kind: str = "open"
    facts: tuple[str, ...] = ()
    teacher: str = ""
    model: str = ""
    generator: str = ""
    seed: str = ""
    at: str = ""
    history: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """Return the hash of the question, as ``Question.id``: a question has one answer in a run."""
        return content_id(self.language, self.question, *filter(None, (self.at,)), *self.history)

    @property
    def said(self) -> list[Message]:
        """The history as messages, the visitor's first."""
        return _as_turns(self.history)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a filter says of a pair; ``reason`` is empty when it is kept."""

    filter: str
    reason: str = ""

    @property
    def kept(self) -> bool:
        """Tell whether the pair passed."""
        return not self.reason


R = TypeVar("R", Question, Pair)
_JSON_TYPES: dict[str, tuple[type, str]] = {
    "str": (str, "text"),
    "tuple[str, ...]": (list, "a list"),
    "dict[str, str]": (dict, "an object"),
}


def _as_turns(history: tuple[str, ...]) -> list[Message]:
    roles: tuple[Role, Role] = ("user", "assistant")
    return [Message(roles[place % 2], text) for place, text in enumerate(history)]


def content_id(*parts: str) -> str:
    """Return 16 hexadecimal digits that stand for the texts, in this order."""
    import hashlib

    return hashlib.sha256("\x1f".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def to_row(record: Question | Pair) -> dict[str, Any]:
    """Return the record as a JSON object, its id first; empty fields that need not be there are left out."""
    needed = {f.name for f in fields(record) if f.default is MISSING and f.default_factory is MISSING}
    row = {key: value for key, value in asdict(record).items() if key in needed or value not in ("", (), {})}
    return {"id": record.id, **row}


def from_row(kind: type[R], row: dict[str, Any]) -> R:
    """Return the record of a JSON object; a missing text, a wrong type or an unknown key is a ``ValueError``."""
    types = {f.name: _JSON_TYPES[str(f.type)] for f in fields(kind)}
    unknown = set(row) - set(types) - {"id"}
    if unknown:
        raise ValueError(f"unknown key {sorted(unknown)[0]!r}")
    for name, (json_type, words) in types.items():
        if name in row and not isinstance(row[name], json_type):
            raise ValueError(f"{name!r} must be {words}")
    values: dict[str, Any] = {key: value for key, value in row.items() if key != "id"}
    values |= {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
    try:
        return kind(**values)
    except TypeError as error:
        raise ValueError(str(error).replace(f"{kind.__name__}.__init__()", "the row")) from error


def canonical_json(value: object) -> str:
    """Return JSON that is the same for equal values, for hashing."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
