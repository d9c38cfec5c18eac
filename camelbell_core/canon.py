"""The canon of a character: its entities, its facts and its timeline, read from ``canon/*.yaml``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from camelbell_core.checked_yaml import Document, suggest
from camelbell_core.contradictions import contradicting_facts, contradicting_ties
from camelbell_core.errors import CamelBellError, Problem
from camelbell_core.names import NameIndex, fold_vocabulary
from camelbell_core.records import Entity, Fact, Point, Question
from camelbell_core.relations import Relation, Speller
from camelbell_core.text import mentions

_POINT = re.compile(r"(?:book\s*)?(\d{1,3})(?:\s*[-–.]\s*(\d{1,4}))?", re.IGNORECASE)


_PARTS = {"zh": "第{n}部", "en": "part {n}"}
_CHAPTERS = {"zh": "第{n}章", "en": ", chapter {n}"}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class EntityRow(_Strict):
    """One entry under ``entities:``."""

    type: str
    names: dict[str, str]
    aliases: list[str] = []


class FactRow(_Strict):
    """One entry under ``facts:``."""

    id: str
    about: list[str]
    text: dict[str, str]
    voice: dict[str, str] = {}
    ask: dict[str, list[str]] = {}
    answer: list[str] = []
    relation: str = ""
    source: str = ""
    known_from: str = ""
    true_from: str = ""
    true_until: str = ""


class TimelineRow(_Strict):
    """``timeline:``: how many chapters each part of the story has."""

    chapters: list[int]
    part: dict[str, str] = {}


class CanonFile(_Strict):
    """A file of canon/.

    ``roles``, ``asks`` and ``relations`` are told in relations.py, ``one_at_a_time`` in contradictions.py.
    """

    entities: dict[str, EntityRow] = {}
    facts: list[FactRow] = []
    roles: dict[str, dict[str, list[str]]] = {}
    asks: dict[str, dict[str, list[str]]] = {}
    relations: list[dict[str, str | list[str]]] = []
    one_at_a_time: list[str] = []
    timeline: TimelineRow | None = None


class Canon:
    """All that is true in a character's world."""

    def __init__(
        self,
        entities: Mapping[str, Entity],
        facts: Iterable[Fact],
        chapters: Iterable[int] = (),
        extra: str = "",
        parts: Mapping[str, str] | None = None,
    ) -> None:
        self.entities = dict(entities)
        self.facts = {fact.id: fact for fact in facts}
        self.chapters = tuple(chapters)
        self.parts = {**_PARTS, **(parts or {})}  # language -> what a part of the story is called
        self.questions: list[Question] = []  # those that relations give, with their answers
        self.extra = extra  # text that counts as known beside the facts

    @cached_property
    def names(self) -> NameIndex:
        """The index of every name of every entity."""
        return NameIndex(self.entities.values())

    @cached_property
    def vocabulary(self) -> str:
        """All text of the canon, folded, for telling known words from unknown names."""
        texts = [self.extra]
        for fact in self.facts.values():
            texts += [*fact.text.values(), *fact.voice.values(), *(a for asks in fact.ask.values() for a in asks)]
            texts += fact.answer
        texts += [name for entity in self.entities.values() for name in entity.all_names()]
        return fold_vocabulary(texts)

    def alternatives(self, item: str) -> list[str]:
        """Return the words that satisfy one item of a fact's ``answer``: words, or an entity's every name."""
        words: list[str] = []
        for part in (part.strip() for part in item.split("|")):
            entity = self.entities.get(part)
            words += entity.all_names() if entity else ()
            words += [part] if part and "_" not in part else ()
        return words

    def missing(self, fact: Fact, text: str) -> list[str]:
        """Return what a right answer to the fact's questions must contain and this text does not."""
        return [item for item in fact.answer if not any(mentions(text, word) for word in self.alternatives(item))]

    def point(self, text: str) -> Point:
        """Return a story time from ``3-22``, ``3`` or ``book 3`` (the end of that part), or as ``place`` tells it."""
        match = _POINT.fullmatch(text.strip()) or self._place_pattern.fullmatch(text.strip())
        if not self.chapters:
            raise CamelBellError(f"this character has no timeline, so it has no story time {text!r}")
        if match:
            part, chapter = (next(filter(None, groups), None) for groups in (match.groups()[::2], match.groups()[1::2]))
            if part and 1 <= int(part) <= len(self.chapters):
                last = self.chapters[int(part) - 1]
                if 1 <= int(chapter or last) <= last:
                    return Point(int(part), int(chapter or last))
        last = len(self.chapters)
        raise CamelBellError(
            f"there is no story time {text!r}",
            f"allowed: 1-1 to {last}-{self.chapters[-1]}, as part-chapter, or a part",
        )

    def place(self, point: Point, language: str) -> str:
        """Return a story time in words, such as ``book 3, chapter 22``."""
        part = self.parts.get(language, self.parts["en"]).replace("{n}", str(point.part))
        return part + _CHAPTERS.get(language, _CHAPTERS["en"]).replace("{n}", str(point.chapter))

    @cached_property
    def _place_pattern(self) -> re.Pattern[str]:
        numbered = r"\s*(\d{1,4})\s*"
        words = []
        for language, part in self.parts.items():
            begin, end = (re.escape(half.strip()) for half in f"{part}{{n}}".split("{n}")[:2])
            before, after = (half.strip(" ,") for half in _CHAPTERS.get(language, _CHAPTERS["en"]).split("{n}"))
            words.append(rf"{begin}{numbered}{end}(?:\s*[,，]?\s*{before}{numbered}{after})?")
        return re.compile("|".join(words), re.IGNORECASE)


def read_canon(
    folder: Path, languages: Iterable[str], extra: str = "", entity: str = ""
) -> tuple[Canon, list[Problem]]:
    """Read all files of a canon folder, that of the character ``entity``; what is wrong comes back as problems."""
    documents = [Document(file) for file in sorted(folder.rglob("*.yaml"))]
    rows = [(document, row) for document in documents if (row := document.check(CanonFile)) is not None]
    problems = [problem for document in documents for problem in document.problems]
    timeline = next((row.timeline for _, row in rows if row.timeline), TimelineRow(chapters=[]))
    entities: dict[str, Entity] = {}
    for document, row in rows:
        for key, entry in row.entities.items():
            if key in entities:
                problems.append(document.problem(("entities", key), "this entity is already declared"))
            entities[key] = Entity(key, entry.type, entry.names, tuple(entry.aliases))
            lacking = [language for language in languages if not entry.names.get(language)]
            if lacking:
                problems.append(document.problem(("entities", key), f"has no name in {', '.join(lacking)}"))
    canon = Canon(entities, (), timeline.chapters, extra, timeline.part)
    places: dict[str, tuple[Document, int]] = {}
    for document, row in rows:
        for number, fact_row in enumerate(row.facts):
            _read_fact(canon, document, ("facts", number), fact_row, list(languages), problems)
            places.setdefault(fact_row.id, (document, number))
    alone = [kind for _, row in rows for kind in row.one_at_a_time]
    for told, other in contradicting_facts(canon.facts.values(), alone, canon.entities):
        what = (
            f"{other.id} contradicts {told.id}: the {told.relation} is {told.answer[0]} there, {other.answer[0]} here"
        )
        document, number = places[other.id]
        problems.append(document.problem(("facts", number), what))
    _read_relations(canon, rows, list(languages), entity, problems)
    return canon, problems


_POINTS = ("source", "known_from", "true_from", "true_until")


def _read_relations(
    canon: Canon, rows: list[tuple[Document, CanonFile]], languages: list[str], entity: str, problems: list[Problem]
) -> None:
    """Spell the pairs of all files out as facts and questions of the canon."""
    roles = {name: words for _, row in rows for name, words in row.roles.items()}
    for document, row in rows:
        for name, words in row.roles.items():
            lacking = [language for language in languages if not all(map(str.strip, words.get(language) or [""]))]
            if lacking:
                problems.append(document.problem(("roles", name), f"has no word in {', '.join(lacking)}"))
    asks = {name: texts for _, row in rows for name, texts in row.asks.items()}
    for document, row in rows:
        for name, texts in row.asks.items():
            if name not in roles:
                problems.append(document.problem(("asks", name), f"unknown role {name!r}" + suggest(name, roles)))
            if any("{b}" not in text for some in texts.values() for text in some):
                problems.append(document.problem(("asks", name), "each way to ask names {b}, whose " + name + " it is"))
    relations: list[Relation] = []
    met = _first_met(canon.facts.values())
    lines: dict[tuple[str, str, str], tuple[Document, int]] = {}
    for document, row in rows:
        for number, pair in enumerate(row.relations):
            relation, wrong = _relation(canon, pair, roles, languages)
            problems += [document.problem(("relations", number), what) for what in wrong]
            if relation and not wrong:
                relation = _known_when_met(relation, met)
                relations.append(relation)
                for view in (relation, relation.turned()):
                    lines[view.first, view.role, view.second] = document, number
    alone = [kind for _, row in rows for kind in row.one_at_a_time]
    for one, other in contradicting_ties(relations, alone):
        document, number = lines[other.first, other.role, other.second]
        what = f"{other.second} has {other.first} as {other.role} at a time when it is {one.first}"
        problems.append(document.problem(("relations", number), what))
    facts, canon.questions = Speller(roles, canon.entities, languages, entity, canon.names, asks).spell(relations)
    for fact in facts:
        canon.facts.setdefault(fact.id, fact)


def _first_met(facts: Iterable[Fact]) -> dict[str, Point]:
    """Return when the character first knows anything of each entity, where its facts tell."""
    met: dict[str, Point] = {}
    for fact in facts:
        if known := fact.learned:
            met |= {entity: min(known, met.get(entity, known)) for entity in fact.about}
    return met


def _known_when_met(relation: Relation, met: Mapping[str, Point]) -> Relation:
    """Return a tie that does not say when it becomes known as known once both are."""
    if relation.points.get("known_from") or relation.points.get("source"):
        return relation
    known = [met[entity] for entity in (relation.first, relation.second) if entity in met]
    return replace(relation, points={**relation.points, "known_from": max(known)}) if known else relation


def _relation(
    canon: Canon, pair: Mapping[str, str | list[str]], roles: Mapping[str, Mapping[str, object]], languages: list[str]
) -> tuple[Relation | None, list[str]]:
    """Return the pair that stands in a line of ``relations:``, or what is wrong with it."""
    wrong = []
    # A canon may hold words of more languages than the character speaks.
    spoken = {*languages, *(language for words in roles.values() for language in words)}
    named = [(key, value) for key, value in pair.items() if key not in (*_POINTS, *spoken)]
    if len(named) == 1 and isinstance(named[0][1], list):  # {friend: [ron_weasley, harry_potter]}
        named = [(named[0][0], value) for value in named[0][1]]
    if len(named) != 2 or not all(isinstance(value, str) for _, value in named):
        return None, ["a relation is two roles with an entity each, or one role with a list of two"]
    for role, who in named:
        if role not in roles:
            wrong.append(f"unknown role {role!r}" + suggest(role, roles))
        if who not in canon.entities:
            wrong.append(f"unknown entity {who!r}" + suggest(str(who), canon.entities))
    points: dict[str, Point | None] = {}
    for key in _POINTS:
        try:
            points[key] = canon.point(str(pair[key])) if pair.get(key) else None
        except CamelBellError as error:
            wrong.append(f"{key}: {error.message} ({error.hint})" if error.hint else f"{key}: {error.message}")
    own = {key: value for key, value in pair.items() if key in spoken}
    words = {key: tuple(value) for key, value in own.items() if isinstance(value, list)}
    if len(words) < len(own) or any(len(value) != 2 or not all(map(str.strip, value)) for value in words.values()):
        wrong.append("the words of a pair are two, one for each role")
    (role, first), (inverse, second) = named
    return Relation(role, str(first), inverse, str(second), words, points), wrong


def _read_fact(
    canon: Canon,
    document: Document,
    place: tuple[int | str, ...],
    row: FactRow,
    languages: list[str],
    problems: list[Problem],
) -> None:
    def wrong(key: str, what: str) -> None:
        problems.append(document.problem((*place, key), what))

    points: dict[str, Point | None] = {}
    for key in _POINTS:
        try:
            points[key] = canon.point(getattr(row, key)) if getattr(row, key) else None
        except CamelBellError as error:
            wrong(key, f"{error.message} ({error.hint})" if error.hint else error.message)
    for entity in row.about:
        if entity not in canon.entities:
            wrong("about", f"unknown entity {entity!r}" + suggest(entity, canon.entities))
    for item in row.answer:
        if re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)+", item) and item not in canon.entities:
            wrong("answer", f"unknown entity {item!r}" + suggest(item, canon.entities))
    for language in languages:
        if not row.text.get(language):
            wrong("text", f"lacks the language {language}")
    if row.id in canon.facts:
        wrong("id", f"the id {row.id!r} is already taken")
    canon.facts[row.id] = Fact(
        id=row.id,
        about=tuple(row.about),
        text=row.text,
        voice=row.voice,
        ask={language: tuple(asks) for language, asks in row.ask.items()},
        answer=tuple(row.answer),
        relation=row.relation,
        source=points.get("source"),
        known_from=points.get("known_from"),
        true_from=points.get("true_from"),
        true_until=points.get("true_until"),
    )
