"""The ``slots`` question generator: seeds and value lists, expanded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, ClassVar

from camelbell_core import hookimpl
from camelbell_core.phrasing import phrase
from camelbell_core.records import Question, Seed
from camelbell_core.roles import QuestionGenerator
from camelbell_core.slots import Expansion, expand, slot_names
from camelbell_core.text import squash

if TYPE_CHECKING:
    from camelbell_core.character import Character


@dataclass(kw_only=True)
class SlotQuestions(QuestionGenerator):
    """Fills the [slots] of the seeds, each seed in turn; exact and near duplicates are left out.

    Two questions are near duplicates when they ask about the same values and their letters are
    alike to ``near`` (normalised Indel similarity, 0 to 1). ``phrasings`` adds that many framed
    wordings of each question of a seed without slots.
    """

    name: ClassVar[str] = "slots"
    near: float = 0.92
    phrasings: int = 0
    only: tuple[str, ...] = ()

    def generate(self, character: Character, count: int, rng: Random) -> Iterator[Question]:
        """Yield up to ``count`` questions."""
        seeds = [seed for seed in character.seeds if not self.only or seed.kind in self.only]
        streams = [
            self._stream(character, seed, language, template, rng)
            for seed in seeds
            for language, templates in seed.texts.items()
            for template in templates
        ]
        rng.shuffle(streams)
        seen: set[str] = set()
        by_values: dict[tuple[str, ...], list[str]] = {}
        given = 0
        while streams and given < count:
            for stream in list(streams):
                question = self._next_new(stream, seen, by_values)
                if question is None:
                    streams.remove(stream)
                    continue
                yield question
                given += 1
                if given >= count:
                    return

    def _stream(
        self, character: Character, seed: Seed, language: str, template: str, rng: Random
    ) -> Iterator[tuple[Question, tuple[str, ...]]]:
        own = Random(rng.random())
        if not slot_names(template) and self.phrasings:
            texts = [template]
            texts += [phrase(template, language, character.title(language), own) for _ in range(self.phrasings)]
            expansions = iter([Expansion(text) for text in texts])
        else:
            expansions = expand(template, language, character.slots, own)
        fact = (f"seed-{seed.name}",) if seed.answers else ()
        for filled in expansions:
            values = {slot: value.texts[language] for slot, value in filled.values.items()}
            question = Question(
                filled.text, language, seed.kind, self.name, seed.name, values, fact, seed.answers.get(language, "")
            )
            yield question, tuple(sorted(value.entity or value.texts[language] for value in filled.values.values()))

    def _next_new(
        self,
        stream: Iterator[tuple[Question, tuple[str, ...]]],
        seen: set[str],
        by_values: dict[tuple[str, ...], list[str]],
    ) -> Question | None:
        from rapidfuzz.distance import Indel

        for question, values in stream:
            if len(set(values)) < len(values):
                continue  # "Ron and Ron"
            folded, _ = squash(question.text)
            alike = by_values.setdefault(values, []) if values else []
            if folded in seen or any(Indel.normalized_similarity(folded, other) >= self.near for other in alike):
                continue
            seen.add(folded)
            alike.append(folded)
            return question
        return None


@hookimpl
def register_question_generators() -> list[type[QuestionGenerator]]:
    """Offer the slots generator."""
    return [SlotQuestions]
