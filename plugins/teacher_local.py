"""The ``local`` answer teacher: a base model on this machine, with the facts in its prompt."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from camelbell_core import hookimpl
from camelbell_core.prompts import build_prompt
from camelbell_core.records import Pair, Question
from camelbell_core.roles import AnswerTeacher, TeacherTools


@dataclass(kw_only=True)
class LocalTeacher(AnswerTeacher):
    """Lets the base model of the run answer; ``temperature`` 0 is greedy."""

    name: ClassVar[str] = "local"
    max_tokens: int = 96
    temperature: float = 0.7

    def answer(self, questions: Iterable[Question], tools: TeacherTools) -> Iterator[Pair]:
        """Yield the pairs in the order of the questions."""
        model = None
        count = tools.character.config.facts
        for question in questions:
            model = model or tools.load_model()
            facts = [recall.fact for recall in tools.memory.recall(question.text, count)] if count else []
            prompt = build_prompt(tools.persona(question.language), question.language, question.text, facts)
            answer = "".join(model.stream(prompt, self.max_tokens, self.temperature)).strip()
            yield question.answered(answer, (fact.id for fact in facts), self.name, model.name)


@hookimpl
def register_answer_teachers() -> list[type[AnswerTeacher]]:
    """Offer the local teacher."""
    return [LocalTeacher]
