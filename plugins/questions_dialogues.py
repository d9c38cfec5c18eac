"""The ``dialogues`` question generator: the questions of the bundle's dialogue files, most with their answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import TYPE_CHECKING, ClassVar

from camelbell_core import hookimpl
from camelbell_core.roles import QuestionGenerator

if TYPE_CHECKING:
    from camelbell_core.character import Character
    from camelbell_core.records import Question


@dataclass(kw_only=True)
class DialogueQuestions(QuestionGenerator):
    """Gives the questions of ``dialogues/*.jsonl``, shuffled, so that any number of them is a fair sample."""

    name: ClassVar[str] = "dialogues"

    def generate(self, character: Character, count: int, rng: Random) -> Iterator[Question]:
        """Yield up to ``count`` questions, each once."""
        questions = list(character.dialogues)
        rng.shuffle(questions)
        return islice(questions, count)


@hookimpl
def register_question_generators() -> list[type[QuestionGenerator]]:
    """Offer the dialogues."""
    return [DialogueQuestions]
