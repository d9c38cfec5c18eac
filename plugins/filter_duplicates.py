"""The ``duplicates`` filter: pairs that say again what another pair says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from camelbell_core import hookimpl
from camelbell_core.errors import CamelBellError
from camelbell_core.records import Pair, Verdict
from camelbell_core.roles import Filter, Memory
from camelbell_core.text import squash

if TYPE_CHECKING:
    from camelbell_core.alike import AlikePool
    from camelbell_core.character import Character


@dataclass(kw_only=True)
class Duplicates(Filter):
    """Rejects a pair whose question is the same as an earlier one, or nearly the same with nearly the same answer.

    Likeness is normalised Indel similarity of the folded characters (2 x longest common subsequence /
    sum of lengths); both question and answer must reach ``threshold``. With ``rouge`` below 1 a question is rejected,
    whatever its answer, when its ROUGE-L F with an earlier one is above that: 0.7 is the rule of self-instruct and
    Alpaca, here over characters for Chinese and words for Latin. A pair at exactly ``rouge`` is kept.
    """

    name: ClassVar[str] = "duplicates"
    threshold: float = 0.9
    rouge: float = 1.0

    def __post_init__(self) -> None:
        for option in ("threshold", "rouge"):
            if not 0 < getattr(self, option) <= 1:
                raise CamelBellError(
                    f"duplicates: {option} is {getattr(self, option):g}; it must be above 0 and at most 1"
                )

    def prepare(self, character: Character, memory: Memory | None = None, pairs: Sequence[Pair] = ()) -> None:
        """Forget the pairs of an earlier run."""
        self._pools: dict[str, AlikePool] = {}
        self._kept: dict[str, list[tuple[str, str]]] = {}
        self._rouge: dict[tuple[str, str], tuple[AlikePool, list[str]]] = {}
        self._seen: dict[str, str] = {}

    def judge(self, pair: Pair) -> Verdict:
        """Compare with every pair kept before in the same language."""
        # The same words at another time of the story, or after other words, are another question.
        context = "".join(f"{said}|" for said in (pair.at, *pair.history) if said)
        question, answer = context + squash(pair.question)[0], squash(pair.answer)[0]
        if question in self._seen:
            return Verdict(self.name, f"the same question as {self._seen[question]!r}")
        other = self._same_words(pair, context)
        if other is not None:
            return Verdict(self.name, f"a question of nearly the same words as {other!r}")
        other = self._same_pair(pair.language, question, answer)
        if other is not None:
            return Verdict(self.name, f"question and answer nearly those of {other!r}")
        self._keep(pair, context, question, answer)
        return Verdict(self.name)

    def _same_words(self, pair: Pair, context: str) -> str | None:
        """Return the first question whose ROUGE-L F with this one is above ``rouge``."""
        from camelbell_core.alike import AlikePool

        if self.rouge == 1:
            return None
        pool, questions = self._rouge.setdefault((pair.language, context), (AlikePool(self.rouge), []))
        place = next(pool.alike(pair.question), None)
        return None if place is None else questions[place]

    def _same_pair(self, language: str, question: str, answer: str) -> str | None:
        """Return the first question that is nearly this one, with nearly this answer."""
        from rapidfuzz.distance import Indel

        from camelbell_core.alike import AlikePool

        if language not in self._pools:
            self._pools[language] = AlikePool(self.threshold, inclusive=True, split=list)
        kept = self._kept.setdefault(language, [])
        for place in self._pools[language].alike(question):
            other, its_answer = kept[place]
            if Indel.normalized_similarity(answer, its_answer) >= self.threshold:
                return self._seen[other]
        return None

    def _keep(self, pair: Pair, context: str, question: str, answer: str) -> None:
        self._seen[question] = pair.question
        self._pools[pair.language].keep(question)
        self._kept[pair.language].append((question, answer))
        if self.rouge < 1:
            pool, questions = self._rouge[pair.language, context]
            pool.keep(pair.question)
            questions.append(pair.question)


@hookimpl
def register_filters() -> list[type[Filter]]:
    """Offer the duplicates filter."""
    return [Duplicates]
