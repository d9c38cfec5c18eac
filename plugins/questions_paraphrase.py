"""The ``paraphrase`` question generator: accepted questions in other words, their facts kept."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from camelbell_core import hookimpl
from camelbell_core.growing import Growing, Wish
from camelbell_core.records import Message, Question
from camelbell_core.roles import QuestionGenerator, QuestionTools
from camelbell_core.service.listed import why_no_question
from camelbell_core.text import squash

if TYPE_CHECKING:
    from camelbell_core.character import Character

_PROMPT = {
    "zh": (
        "把这个问{who}的问题换{count}种说法，意思完全一样，人名、地名和数字都保留，不要回答：\n{question}\n\n"
        "只写编号列表，一行一个，从1到{count}。"
    ),
    "en": (
        "Put this question to {who} in {count} other ways. They must mean exactly the same and keep every name and "
        "number; do not answer it:\n{question}\n\nWrite only a numbered list, one a line, from 1 to {count}."
    ),
}


@dataclass(kw_only=True)
class Paraphrase(Growing):
    """Has a service put accepted questions in other words; one that names other people or numbers is left out.

    Each question without a history is asked about once. What is alike above ``rouge`` (ROUGE-L F) with the question
    itself or another wording of it is no other wording.
    """

    name: ClassVar[str] = "paraphrase"
    batch: int = 4
    rouge: float = 0.85

    def prepare(self, tools: QuestionTools) -> None:
        """Note the run."""
        super().prepare(tools)
        self._wordings: dict[str, Any] = {}
        self._queue: list[Question] | None = None

    def wishes(self, character: Character, count: int, rng: Any) -> Iterator[Wish]:
        """Yield the next questions to be put in other words."""
        if getattr(self, "_queue", None) is None:
            tools = getattr(self, "_tools", QuestionTools())
            questions = [q for q in tools.accepted() if not q.history and q.generator != self.name]
            self._queue = rng.sample(questions, len(questions))
        assert self._queue is not None
        part, self._queue = self._queue[:count], self._queue[count:]
        for question in part:
            prompt = _PROMPT.get(question.language, _PROMPT["en"])
            text = prompt.format(who=character.title(question.language), count=self.batch, question=question.text)
            # What came with the question is kept, its own answer too: it is the same question.
            model = replace(
                question, generator=self.name, seed=question.id, slots={**question.slots, "of": question.text}
            )
            yield Wish((Message("user", text),), self.batch, model)

    def takes(self, character: Character, wish: Wish, text: str) -> str:
        """Return why a wording is not the same question in other words."""
        from camelbell_core.alike import AlikePool

        source, language = wish.model.slots["of"], wish.model.language
        why = why_no_question(text, language, character.languages)
        if why:
            return why
        if _anchors(character, text) != _anchors(character, source):
            return "about something else"
        if source not in self._wordings:
            self._wordings[source] = AlikePool(self.rouge)
            self._wordings[source].keep(source)
        if squash(text) == squash(source) or self._wordings[source].add(text) >= 0:
            return "alike"
        return ""


def _anchors(character: Character, text: str) -> tuple[frozenset[str], frozenset[str]]:
    """Return what a wording must keep: the entities that it names and its numbers."""
    return frozenset(character.canon.names.ids(text)), frozenset(re.findall(r"\d+", text))


@hookimpl
def register_question_generators() -> list[type[QuestionGenerator]]:
    """Offer the paraphrase generator."""
    return [Paraphrase]
