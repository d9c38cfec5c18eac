"""The ``llm_judge`` filter: a service judges answers by a rubric, on top of the canon and never over it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from camelbell_core import hookimpl
from camelbell_core.errors import CamelBellError
from camelbell_core.records import Message, Pair, Verdict
from camelbell_core.roles import Filter, Memory
from camelbell_core.service.endpoint import Endpoint, Request

if TYPE_CHECKING:
    from camelbell_core.character import Character
    from camelbell_core.service.replies import Reply

_PROMPT = {
    "zh": (
        "{who}在回答别人的问题。{persona}\n{facts}\n问：{question}\n答：{answer}\n\n按这个标准给回答打分，1分最差，5分最好：{rubric}\n"
        "第一行只写一个数字，第二行用一句话说明理由。"
    ),
    "en": (
        "{who} is answering a question. {persona}\n{facts}\nQ: {question}\nA: {answer}\n\nGrade the answer from 1 (worst) to 5 (best) by "
        "this rubric: {rubric}\nWrite only a digit on the first line, and one sentence why on the second."
    ),
}
_FACTS = {"zh": "已知的事实：\n{facts}\n", "en": "Known facts:\n{facts}\n"}
_RUBRIC = {
    "zh": "像角色本人说的话；回答了问题；不与事实矛盾；不知道的就承认不知道。",
    "en": "It sounds like the character; it answers the question; it contradicts no fact; it admits what it does not know.",
}
_GRADE = re.compile(r"\D{0,20}?([1-5])(?!\d)(?:\s*(?:/\s*5|分))?[\s.,:：。，)）-]*(.*)", re.DOTALL)


@dataclass(kw_only=True)
class LlmJudge(Endpoint, Filter):
    """Rejects answers that a service grades below ``least`` (1 to 5) by the ``rubric``, a text for each language.

    It stands after the canon's filters and sees only what they keep, so it overrules none of them; how many of ``sample``
    pairs that they rejected it would have rejected, too, is reported. A pair without a grade is kept and counted.
    """

    name: ClassVar[str] = "llm_judge"
    temperature: float = 0.0
    max_tokens: int = 80
    rubric: dict[str, str] = field(default_factory=dict)
    least: int = 3
    sample: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.least <= 5:
            raise CamelBellError(f"llm_judge: least is {self.least}; grades go from 1 to 5")

    def settle(self, folder: Path) -> None:
        """Keep the grades in the workspace."""
        self._folder: Path | None = folder

    def prepare(self, character: Character, memory: Memory | None = None, pairs: Sequence[Pair] = ()) -> None:
        """Note whose answers are judged."""
        self._character = character
        self.ungraded = 0

    def judge(self, pair: Pair) -> Verdict:
        """Ask for the grade of one pair."""
        return next(self.judge_all([pair]))

    def judge_all(self, pairs: Sequence[Pair]) -> Iterator[Verdict]:
        """Ask for all grades at once; yield the verdicts in the order of the pairs."""
        for grade, why in self._grades(pairs):
            low = grade is not None and grade < self.least
            yield Verdict(self.name, f"graded {grade} of 5" + (f": {why}" if why else "") if low else "")

    def second_opinion(self, rejected: Sequence[tuple[Pair, Verdict]]) -> dict[str, Any] | None:
        """Return how many of a sample of pairs that other filters rejected this one would have rejected, by filter."""
        others = [(pair, verdict) for pair, verdict in rejected if verdict.filter != self.name]
        some = others[:: max(1, -(-len(others) // self.sample))] if self.sample else []
        if not some:
            return None
        asked, agreed = Counter(verdict.filter for _, verdict in some), Counter[str]()
        for (_, verdict), mine in zip(some, self.judge_all([pair for pair, _ in some]), strict=True):
            agreed[verdict.filter] += not mine.kept
        by_filter = {name: [agreed[name], count] for name, count in asked.most_common()}
        return {"asked": len(some), "agreed": agreed.total(), "by_filter": by_filter, "ungraded": self.ungraded}

    def _grades(self, pairs: Sequence[Pair]) -> list[tuple[int | None, str]]:
        grades: list[tuple[int | None, str]] = [(None, "")] * len(pairs)
        folder = getattr(self, "_folder", None)
        requests = (self._request(pair, place) for place, pair in enumerate(pairs))
        with self.ledger(folder) as ledger, closing(self.ask_all(requests, ledger, folder)) as replies:
            for request, reply in replies:
                grades[request.context] = read_grade(reply)
        self.ungraded += sum(grade is None for grade, _ in grades)
        return grades

    def _request(self, pair: Pair, place: int) -> Request:
        character, language = self._character, pair.language
        told = [character.canon.facts[f].told(language) for f in pair.facts if f in character.canon.facts]
        facts = _FACTS.get(language, _FACTS["en"]).format(facts="\n".join(f"- {fact}" for fact in told)) if told else ""
        text = _PROMPT.get(language, _PROMPT["en"]).format(
            who=character.title(language),
            persona=" ".join(character.fill(character.config.persona.get(language, ""), language).split()),
            facts=facts,
            question=" / ".join((*pair.history, pair.question)),
            answer=pair.answer,
            rubric=self.rubric.get(language) or _RUBRIC.get(language, _RUBRIC["en"]),
        )
        return self.request([Message("user", text)], place)


def read_grade(reply: Reply) -> tuple[int | None, str]:
    """Return the grade that a reply begins with, and the reason after it; None for a reply of another form."""
    found = _GRADE.match(reply.text)
    return (int(found[1]), " ".join(found[2].split())[:200]) if found else (None, "")


@hookimpl
def register_filters() -> list[type[Filter]]:
    """Offer the judge."""
    return [LlmJudge]
