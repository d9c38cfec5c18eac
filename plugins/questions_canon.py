"""The ``canon`` question generator: each fact, asked in many phrasings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
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
    """Asks for every fact of the canon: first in its own wordings, then framed in up to ``frames`` ways."""

    name: ClassVar[str] = "canon"
    frames: int = 16

    def generate(self, character: Character, count: int, rng: Random) -> Iterator[Question]:
        """Yield up to ``count`` questions: every fact once before any fact twice."""
        facts = [fact for fact in character.canon.facts.values() if any(fact.ask.values())]
        rng.shuffle(facts)
        seen: set[str] = set()
        given = 0
        for turn in range(self.frames + 1):
            for place, fact in enumerate(facts):
                for text, language in self._wordings(character, fact, turn, place, rng):
                    if text in seen:
                        continue
                    seen.add(text)
                    yield Question(text, language, "fact", self.name, fact.id, facts=(fact.id,))
                    given += 1
                    if given >= count:
                        return

    def _wordings(
        self, character: Character, fact: Fact, turn: int, place: int, rng: Random
    ) -> Iterator[tuple[str, str]]:
        """Yield one wording a turn, the languages and the wordings of the fact taking turns."""
        languages = [language for language in character.languages if fact.ask.get(language)]
        if not languages:
            return
        language = languages[(turn + place) % len(languages)]
        asks = fact.ask[language]
        own = asks[(turn // len(languages)) % len(asks)]
        plain = turn < len(languages) * len(asks)
        yield (own if plain else phrase(own, language, character.title(language), rng)), language


@hookimpl
def register_question_generators() -> list[type[QuestionGenerator]]:
    """Offer the canon generator."""
    return [CanonQuestions]
