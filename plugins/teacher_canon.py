"""The ``canon`` answer teacher: offline, and nothing in its answers is invented."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from random import Random
from typing import ClassVar

from camelbell_core import hookimpl
from camelbell_core.records import Fact, Pair, Question
from camelbell_core.roles import AnswerTeacher, TeacherTools


@dataclass(kw_only=True)
class CanonTeacher(AnswerTeacher):
    """Composes first-person answers from the facts of the canon and admits what it does not know.

    A question that came with an answer keeps it. Questions of the kind ``trap`` ask for what does not exist, those
    of the kind ``unanswerable`` for what the character cannot know.
    """

    name: ClassVar[str] = "canon"
    free: ClassVar[bool] = True
    recall: int = 8

    def answer(self, questions: Iterable[Question], tools: TeacherTools) -> Iterator[Pair]:
        """Yield the pairs in the order of the questions; a question's wording depends on nothing but itself."""
        for question in questions:
            text, facts = self._compose(question, tools, Random(f"{tools.character.name}:{question.id}"))
            yield question.answered(text, facts, self.name)

    def _compose(self, question: Question, tools: TeacherTools, rng: Random) -> tuple[str, tuple[str, ...]]:
        from camelbell_core.compose import compose, voice_of

        character = tools.character
        if question.answer:
            return question.answer, question.facts
        if question.kind == "trap":
            voice = voice_of(character, question.language)
            name = next(iter(question.slots.values()), "")
            texts = [*voice.unknown, *voice.unknown_name * 2] if name else voice.unknown
            text = rng.choice(texts).replace("{name}", name)
            return text[:1].upper() + text[1:], ()
        if question.kind == "unanswerable":
            return rng.choice(voice_of(character, question.language).unknown), ()
        known: list[Fact] = [character.canon.facts[f] for f in question.facts if f in character.canon.facts]
        recalls = [] if known else tools.memory.recall(question.text, self.recall)
        composed = compose(character, question.language, question.text, recalls, rng, known)
        return composed.text, tuple(fact.id for fact in composed.facts)


@hookimpl
def register_answer_teachers() -> list[type[AnswerTeacher]]:
    """Offer the offline teacher."""
    return [CanonTeacher]
