"""Dialogues of a bundle: questions as people put them, with the answers that the character gives.

``dialogues/*.jsonl`` holds one question a line::

    {"lang": "en", "q": "Who's Buckbeak's owner?", "a": "Hagrid.", "facts": ["c-buckbeak-owner"], "kind": "fact"}
    {"lang": "en", "turns": [["Who is Ron?", "My best mate."], ["And his sister?", "Ginny."]]}

``a`` may be left out where the fact's own telling answers; ``at`` is the story time of a question. A wording that
names its facts is one more way in which the memory finds them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from camelbell_core.canon import Canon
from camelbell_core.checked_yaml import explain, suggest
from camelbell_core.errors import CamelBellError, Problem
from camelbell_core.journal import read_rows
from camelbell_core.records import Question

GENERATOR = "dialogues"


class DialogueRow(BaseModel):
    """One line of a dialogue file."""

    model_config = ConfigDict(extra="forbid")
    lang: str
    q: str = ""
    a: str = ""
    kind: str = "fact"
    facts: list[str] = []
    at: str = ""
    turns: list[tuple[str, str]] = Field(default=[], max_length=16)


def read_dialogues(folder: Path, canon: Canon, languages: Iterable[str]) -> tuple[list[Question], list[Problem]]:
    """Read all files of a dialogues folder; what is wrong comes back as problems."""
    questions: list[Question] = []
    problems: list[Problem] = []
    for file in sorted(folder.rglob("*.jsonl")):
        try:
            for number, row in read_rows(file, torn=False):
                wrong = list(_check(row, canon, list(languages)))
                problems += [Problem(file, number, place, what) for place, what in wrong]
                if not wrong:
                    questions += _questions(DialogueRow.model_validate(row), f"{file.stem}:{number}")
        except CamelBellError as error:
            line, _, what = error.message.removeprefix(f"{file}:").partition(": ")
            known = line.isdecimal()
            problems.append(Problem(file, int(line) if known else 0, "", what if known else error.message))
    return questions, problems


def _check(row: dict[str, Any], canon: Canon, languages: list[str]) -> Iterator[tuple[str, str]]:
    try:
        read = DialogueRow.model_validate(row)
    except ValidationError as error:
        for place, what in explain(error, row, DialogueRow):
            yield ".".join(map(str, place)), what.partition(" (YAML reads")[0]
        return
    if read.lang not in languages:
        yield "lang", f"{read.lang!r} is not a language of this character"
    for fact in read.facts:
        if fact not in canon.facts:
            yield "facts", f"unknown fact {fact!r}" + suggest(fact, canon.facts)
    if bool(read.q.strip()) == bool(read.turns) or (read.a and read.turns):
        yield "q", "a line holds either a question or turns"
    if any(not question.strip() or not answer.strip() for question, answer in read.turns):
        yield "turns", "a turn is a question and its answer"
    if read.q and not read.a.strip() and not read.facts:
        yield "a", "is missing: only a question that names its facts can do without an answer"
    if read.at:
        try:
            canon.point(read.at)
        except CamelBellError as error:
            yield "at", f"{error.message} ({error.hint})" if error.hint else error.message


def _questions(row: DialogueRow, seed: str) -> Iterator[Question]:
    """Yield the question of a row, or one for each of its turns, with the turns before as its history."""
    said: tuple[str, ...] = ()
    for question, answer in row.turns or [(row.q, row.a)]:
        # A follow-up leans on what was said, so the facts of a conversation are those of its first turn.
        facts = () if said else tuple(row.facts)
        yield Question(question.strip(), row.lang, row.kind, GENERATOR, seed, {}, facts, answer.strip(), row.at, said)
        said += (question.strip(), answer.strip())
