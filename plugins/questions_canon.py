"""The ``canon`` question generator: each fact, asked in many phrasings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import TYPE_CHECKING, ClassVar

from camelbell_core import hookimpl
from camelbell_core.phrasing import phrase
from camelbell_core.records import Fact, Question
from camelbell_core.roles import QuestionGenerator

if TYPE_CHECKING:
    from camelbell_core.character import Character


@dataclass(kw_only=True)
class CanonQuestions(QuestionGenerator):
    """Asks for every fact of the canon: first in all its own wordings, then framed in up to ``frames`` ways."""

    name: ClassVar[str] = "canon"
    frames: int = 16

    def generate(self, character: Character, count: int, rng: Random) -> Iterator[Question]:
        """Yield up to ``count`` questions: every fact once before any fact twice."""
        return islice(self._ask_all(character, rng), count)

    def _ask_all(self, character: Character, rng: Random) -> Iterator[Question]:
        facts = [fact for fact in character.canon.facts.values() if any(map(fact.ask.get, character.languages))]
        rng.shuffle(facts)
        seen: set[tuple[str, str]] = set()
        for turn in range(max((self._turns(character, fact) for fact in facts), default=0)):
            for place, fact in enumerate(facts):
                if turn >= self._turns(character, fact):
                    continue
                text, language = self._wording(character, fact, turn, place, rng)
                if (text, _when(fact)) not in seen:
                    seen.add((text, _when(fact)))
                    yield Question(text, language, "fact", self.name, fact.id, facts=(fact.id,), at=_when(fact))

    def _turns(self, character: Character, fact: Fact) -> int:
        """Return how many turns a fact has: one for each of its own wordings, and the frames."""
        asks = [fact.ask[language] for language in character.languages if fact.ask.get(language)]
        return len(asks) * max(map(len, asks)) + self.frames

    def _wording(self, character: Character, fact: Fact, turn: int, place: int, rng: Random) -> tuple[str, str]:
        """Return the wording of a turn and its language; languages and wordings of the fact take turns."""
        languages = [language for language in character.languages if fact.ask.get(language)]
        language = languages[(turn + place) % len(languages)]
        asks = fact.ask[language]
        own = asks[(turn // len(languages)) % len(asks)]
        plain = turn < len(languages) * len(asks)
        return (own if plain else phrase(own, language, character.title(language), rng)), language


def _when(fact: Fact) -> str:
    """Return the story time at which a fact that ends is asked for, "" for one that holds to the end."""
    starts = [point for point in (fact.learned, fact.true_from) if point]
    return str(max(starts)) if fact.true_until and starts else ""


@hookimpl
def register_question_generators() -> list[type[QuestionGenerator]]:
    """Offer the canon generator."""
    return [CanonQuestions]
