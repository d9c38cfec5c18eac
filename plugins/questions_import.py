"""The ``import`` question generator: questions, with their answers, from files of other tools."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, ClassVar, TypeGuard

from camelbell_core import hookimpl
from camelbell_core.errors import CamelBellError
from camelbell_core.journal import read_rows
from camelbell_core.records import Question
from camelbell_core.roles import QuestionGenerator
from camelbell_core.slots import slot_names
from camelbell_core.text import language_of

if TYPE_CHECKING:
    from camelbell_core.character import Character


@dataclass(kw_only=True)
class ImportQuestions(QuestionGenerator):
    """Reads Alpaca JSON or JSONL, self-instruct seed tasks, ShareGPT and OpenAI messages.

    ``files`` are paths, relative ones from the bundle's folder. With ``answers: false`` the
    questions come without their answers, to be answered anew.
    """

    name: ClassVar[str] = "import"
    files: tuple[str, ...] = ()
    answers: bool = True

    def generate(self, character: Character, count: int, rng: Random) -> Iterator[Question]:
        """Yield the questions of the files in their order, each once; templates are left out."""
        seen: set[str] = set()
        for name in self.files:
            for number, (text, answer) in enumerate(read_pairs(character.root / name), 1):
                if len(seen) >= count:
                    return
                if not text or text in seen or (slot_names(text) and not answer):
                    continue  # a template has no answer and is no question: put it into seeds/
                seen.add(text)
                language = language_of(text, character.languages)
                yield Question(
                    text, language, "import", self.name, f"{Path(name).name}:{number}", answer=answer * self.answers
                )


def read_pairs(file: Path) -> Iterator[tuple[str, str]]:
    """Yield question and answer of each row, "" where a row has no answer."""
    for number, row in _rows(file):
        pairs = _pairs(row)
        if pairs is None:
            raise CamelBellError(
                f"{file}:{number}: this row is of no known form",
                "known: Alpaca (instruction, input, output), self-instruct (instances), ShareGPT (conversations), "
                "OpenAI (messages)",
            )
        yield from pairs


def _rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    if not file.is_file():
        raise CamelBellError(f"there is no file {str(file)!r} to import")
    with file.open(encoding="utf-8-sig", errors="replace") as source:
        is_list = source.read(1 << 16).lstrip().startswith("[")
    if not is_list:
        yield from read_rows(file, torn=False)
        return
    try:
        rows = json.loads(file.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise CamelBellError(f"{file}: is not JSON: {error}") from error
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise CamelBellError(f"{file}: row {number} is not an object")
        yield number, row


def _pairs(row: dict[str, Any]) -> list[tuple[str, str]] | None:
    """Return the pairs of a row, perhaps none, or None for a row of no known form."""
    turns = row.get("conversations", row.get("messages"))
    if _are_objects(turns):
        return list(_turns(turns))
    instruction = row.get("instruction", row.get("Instruction"))
    if not isinstance(instruction, str):
        return None
    instances = row.get("instances")
    if _are_objects(instances):
        return [_of_seed_task(instruction, instance) for instance in instances]
    return [(_join(instruction, row.get("input")), _text(row.get("output")))]


def _are_objects(value: Any) -> TypeGuard[list[dict[str, Any]]]:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _of_seed_task(instruction: str, instance: dict[str, Any]) -> tuple[str, str]:
    """Return the pair of an instance; what is given as the answer to a template answers no question."""
    question = _join(instruction, instance.get("input"))
    return question, "" if slot_names(question) else _text(instance.get("output"))


def _turns(messages: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """Yield each user turn that an assistant turn follows."""
    roles = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}
    turns = [(roles.get(str(m.get("from", m.get("role")))), _text(m.get("value", m.get("content")))) for m in messages]
    for (role, text), (next_role, answer) in pairwise(turns):
        if role == "user" and next_role == "assistant":
            yield text, answer


def _join(instruction: str, more: Any) -> str:
    return "\n".join(part for part in (_text(instruction), _text(more)) if part)


def _text(content: Any) -> str:
    """Return a content as text, "" for none; of OpenAI's list of parts the texts; half a surrogate pair as ``?``."""
    if isinstance(content, list):
        content = "\n".join(str(part["text"]) for part in content if isinstance(part, dict) and "text" in part)
    return "" if content is None else str(content).encode("utf-8", "replace").decode("utf-8").strip()


@hookimpl
def register_question_generators() -> list[type[QuestionGenerator]]:
    """Offer the importer."""
    return [ImportQuestions]
