"""The ``misplaced`` filter: answers that belong to another question of the same run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING, ClassVar

from camelbell_core import hookimpl
from camelbell_core.records import Pair, Verdict
from camelbell_core.roles import Filter, Memory
from camelbell_core.text import bigrams

if TYPE_CHECKING:
    from camelbell_core.character import Character

_COMMON = 0.05  # a word in more than this share of the questions says nothing of one question
_FEWEST = 40  # pairs; in fewer there is no telling which words are common
_LEAST_WEIGHT = 8.0  # nats of inverse document frequency that a question must have to claim an answer


@dataclass(kw_only=True)
class Misplaced(Filter):
    """Rejects an answer that takes up the words of another question and not those of its own.

    A question's own words are those in at most 5 % of the questions, weighed by inverse document
    frequency. The answer must hold less than ``own`` of its question's weight, at least ``other`` of another
    question's, and ``gap`` more of the other's. An answer that holds what a fact in question demands stays,
    and so does an admission of ignorance.
    """

    name: ClassVar[str] = "misplaced"
    own: float = 0.34
    other: float = 0.5
    gap: float = 0.4

    def prepare(self, character: Character, memory: Memory | None = None, pairs: Sequence[Pair] = ()) -> None:
        """Weigh the words of all questions."""
        self._character, self._canon, self._memory = character, character.canon, memory
        self._texts = [pair.question for pair in pairs]
        words = [frozenset(bigrams(text)) for text in self._texts]
        counts = Counter(word for question in words for word in question)
        limit = len(words) * _COMMON
        self._weights = {word: log(len(words) / count) for word, count in counts.items() if count <= limit}
        self._holders: dict[str, list[int]] = {}
        self._totals = [0.0] * len(words)
        for number, question in enumerate(words):
            for word in question & self._weights.keys():
                self._holders.setdefault(word, []).append(number)
                self._totals[number] += self._weights[word]

    def judge(self, pair: Pair) -> Verdict:
        """Compare how much of its own and of any other question the answer takes up."""
        own_words = set(bigrams(pair.question)) & self._weights.keys()
        total = sum(self._weights[word] for word in own_words)
        if len(self._texts) < _FEWEST or not total:
            return Verdict(self.name)
        answer = set(bigrams(pair.answer))
        own = sum(self._weights[word] for word in own_words & answer) / total
        if own >= self.own or self._tells(pair.facts, pair.answer):
            return Verdict(self.name)
        claims: Counter[int] = Counter()
        for word in answer & self._holders.keys():
            for number in self._holders[word]:
                claims[number] += self._weights[word]  # type: ignore[assignment]
        shares = ((claims[n] / self._totals[n], n) for n in claims if self._totals[n] > _LEAST_WEIGHT)
        share, number = max(shares, default=(0.0, -1))
        if share < self.other or share - own <= self.gap or self._texts[number] == pair.question:
            return Verdict(self.name)
        if not self._right(pair):
            return Verdict(self.name, f"answers {self._texts[number]!r} rather than its own question")
        return Verdict(self.name)

    def _right(self, pair: Pair) -> bool:
        from camelbell_core.compose import ANSWERS, admits_ignorance

        if admits_ignorance(pair.answer, self._character, pair.language):
            return True
        recalls = self._memory.recall(pair.question, 2) if self._memory else []
        return self._tells([recall.fact.id for recall in recalls if recall.score >= ANSWERS], pair.answer)

    def _tells(self, facts: Iterable[str], answer: str) -> bool:
        """Tell whether an answer holds what one of the facts demands."""
        known = (self._canon.facts[fact] for fact in facts if fact in self._canon.facts)
        return any(fact.answer and not self._canon.missing(fact, answer) for fact in known)


@hookimpl
def register_filters() -> list[type[Filter]]:
    """Offer the misplaced filter."""
    return [Misplaced]
