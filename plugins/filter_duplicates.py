"""The ``duplicates`` filter: pairs that say again what another pair says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from camelbell_core import hookimpl
from camelbell_core.records import Pair, Verdict
from camelbell_core.roles import Filter, Memory
from camelbell_core.text import squash

if TYPE_CHECKING:
    from camelbell_core.character import Character


@dataclass(kw_only=True)
class Duplicates(Filter):
    """Rejects a pair whose question is the same as an earlier one, or nearly the same with nearly the same answer.

    Likeness is normalised Indel similarity of the folded characters (2 x longest common subsequence /
    sum of lengths, ROUGE-L's F); both question and answer must reach ``threshold``.
    """

    name: ClassVar[str] = "duplicates"
    threshold: float = 0.9

    def prepare(self, character: Character, memory: Memory | None = None, pairs: Sequence[Pair] = ()) -> None:
        """Forget the pairs of an earlier run."""
        self._questions: dict[str, list[str]] = {}
        self._answers: dict[str, list[str]] = {}
        self._seen: dict[str, str] = {}

    def judge(self, pair: Pair) -> Verdict:
        """Compare with every pair kept before in the same language."""
        from rapidfuzz import process
        from rapidfuzz.distance import Indel

        # The same words at another time of the story, or after other words, are another question.
        context = "".join(f"{said}|" for said in (pair.at, *pair.history) if said)
        question, answer = context + squash(pair.question)[0], squash(pair.answer)[0]
        if question in self._seen:
            return Verdict(self.name, f"the same question as {self._seen[question]!r}")
        questions = self._questions.setdefault(pair.language, [])
        answers = self._answers.setdefault(pair.language, [])
        alike = process.extract(
            question, questions, scorer=Indel.normalized_similarity, score_cutoff=self.threshold, limit=None
        )
        for other, _, place in alike:
            if Indel.normalized_similarity(answer, answers[place]) >= self.threshold:
                return Verdict(self.name, f"question and answer nearly those of {self._seen[other]!r}")
        self._seen[question] = pair.question
        questions.append(question)
        answers.append(answer)
        return Verdict(self.name)


@hookimpl
def register_filters() -> list[type[Filter]]:
    """Offer the duplicates filter."""
    return [Duplicates]
