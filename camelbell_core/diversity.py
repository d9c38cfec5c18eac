"""How diverse questions are: distinct n-grams, likeness of nearest neighbours, and what they cover."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

from camelbell_core.alike import tokens

if TYPE_CHECKING:
    from camelbell_core.character import Character
    from camelbell_core.records import Question

_SAMPLE, _AMONG = 200, 5000  # questions whose nearest is looked for, and those it is looked for among


@dataclass(frozen=True)
class Diversity:
    """Measures of a set of questions.

    ``distinct_1`` and ``distinct_2`` are different n-grams / all n-grams (Li et al. 2016), over characters for Chinese and
    words for Latin; ``nearest`` is the mean ROUGE-L F of a question with the most alike other one, of a sample. ``entities`` of
    ``known_entities`` are named at least once; ``kinds``, ``askers`` and ``slots`` count questions.
    """

    questions: int
    distinct_1: float
    distinct_2: float
    nearest: float
    entities: int
    known_entities: int
    kinds: dict[str, int] = field(default_factory=dict)
    askers: dict[str, int] = field(default_factory=dict)
    slots: dict[str, int] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """Return the measures as a JSON object."""
        return asdict(self)


def measure(questions: Sequence[Question], character: Character) -> Diversity:
    """Return how diverse the questions to a character are; the sample is the same in every run."""
    split = [tuple(tokens(question.text)) for question in questions]
    named = {entity for question in questions for entity in character.canon.names.ids(question.text)}
    return Diversity(
        len(questions),
        _distinct(split, 1),
        _distinct(split, 2),
        _nearest(split),
        len(named),
        len(character.canon.entities),
        dict(Counter(question.kind for question in questions).most_common()),
        dict(Counter(filter(None, (question.slots.get("asker") for question in questions))).most_common()),
        dict(Counter(slot for question in questions for slot in question.slots if slot != "asker").most_common()),
    )


def told(before: Diversity, after: Diversity) -> str:
    """Return both measures in one line."""
    return (
        f"diversity: {before.questions:,} -> {after.questions:,} questions, "
        f"distinct-1 {before.distinct_1:.3f} -> {after.distinct_1:.3f}, "
        f"distinct-2 {before.distinct_2:.3f} -> {after.distinct_2:.3f}, "
        f"nearest {before.nearest:.2f} -> {after.nearest:.2f}, "
        f"entities {before.entities} -> {after.entities} of {after.known_entities}, "
        f"kinds {len(before.kinds)} -> {len(after.kinds)}"
    )


def _distinct(split: Iterable[tuple[str, ...]], n: int) -> float:
    grams = Counter(words[place : place + n] for words in split for place in range(len(words) - n + 1))
    return len(grams) / max(1, grams.total())


def _nearest(split: Sequence[tuple[str, ...]]) -> float:
    from rapidfuzz.distance import Indel

    rng = Random(len(split))
    places = rng.sample(range(len(split)), min(_SAMPLE, len(split)))
    among = rng.sample(range(len(split)), min(_AMONG, len(split)))
    best = [
        max((Indel.normalized_similarity(split[place], split[o]) for o in among if o != place), default=0.0)
        for place in places
    ]
    return sum(best) / max(1, len(best))
