"""The ``openai`` answer teacher: any OpenAI-compatible service, many requests at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import ClassVar

from camelbell_core import hookimpl
from camelbell_core.prompts import as_messages, build_prompt
from camelbell_core.records import Pair, Question
from camelbell_core.roles import AnswerTeacher, TeacherTools
from camelbell_core.service.endpoint import Endpoint, Estimate, Request

_SAMPLE = 100  # questions that an estimate is made from


@dataclass(kw_only=True)
class OpenAITeacher(Endpoint, AnswerTeacher):
    """Asks a service that speaks OpenAI's chat API, with the facts of the canon in the prompt."""

    name: ClassVar[str] = "openai"

    def answer(self, questions: Iterable[Question], tools: TeacherTools) -> Iterator[Pair]:
        """Yield each pair as soon as its answer has come; what was answered before comes from the workspace."""
        with self.ledger(tools.folder) as ledger:
            requests = (self._request(question, tools) for question in list(questions))
            with closing(self.ask_all(requests, ledger, tools.folder)) as answered:
                for request, reply in answered:
                    question, facts = request.context
                    tools.note(self.spending(ledger))
                    yield question.answered(reply.text, facts, self.name, self.model)

    def estimate(self, questions: Sequence[Question], tools: TeacherTools) -> Estimate | None:
        """Return what answering takes at most, judged by a sample."""
        sample = [self._request(question, tools) for question in questions[:: max(1, len(questions) // _SAMPLE)]]
        with self.ledger(tools.folder) as ledger:
            return self.estimated(sample, ledger, len(questions))

    def _request(self, question: Question, tools: TeacherTools) -> Request:
        canon, count = tools.character.canon, tools.character.config.facts
        at = canon.point(question.at) if question.at else None
        said = question.said
        facts = [canon.facts[f] for f in question.facts if f in canon.facts]
        recalled = (recall.fact for recall in tools.memory.recall(question.text, count, at, said)) if count else ()
        facts = [*facts, *(fact for fact in recalled if fact not in facts)][: max(count, len(facts))]
        prompt = build_prompt(tools.persona(question.language), question.language, question.text, facts, said)
        return self.request(as_messages(prompt), (question, [fact.id for fact in facts]))


@hookimpl
def register_answer_teachers() -> list[type[AnswerTeacher]]:
    """Offer the OpenAI-compatible teacher."""
    return [OpenAITeacher]
