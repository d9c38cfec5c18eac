"""Pure ``[slot]`` expansion: templates and value lists in, questions out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

SLOT = re.compile(r"\[([a-z][a-z0-9_]*)\]")


@dataclass(frozen=True, slots=True)
class Value:
    """One entry of a value list: its words by language, its entity and its source."""

    texts: dict[str, str]
    entity: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True)
class Expansion:
    """A filled template and the values that filled it."""

    text: str
    values: dict[str, Value] = field(default_factory=dict)


def slot_names(template: str) -> list[str]:
    """Return the slots of a template, in order, without repeats."""
    return list(dict.fromkeys(SLOT.findall(template)))


def combinations(template: str, language: str, slots: Mapping[str, Sequence[Value]]) -> int:
    """Return how many expansions a template has."""
    total = 1
    for name in slot_names(template):
        total *= sum(language in value.texts for value in slots[name])
    return total


def expand(template: str, language: str, slots: Mapping[str, Sequence[Value]], rng: Random) -> Iterator[Expansion]:
    """Yield every expansion of a template once, in an order that ``rng`` decides.

    The order costs no memory: combination numbers are visited by a step that has no divisor in
    common with their count.
    """
    names = slot_names(template)
    lists = [[value for value in slots[name] if language in value.texts] for name in names]
    total = 1
    for values in lists:
        total *= len(values)
    if total == 0:
        return
    step = _coprime_step(total, rng)
    number = rng.randrange(total)
    for _ in range(total):
        number = (number + step) % total
        rest, chosen = number, {}
        for name, values in zip(names, lists, strict=True):
            rest, place = divmod(rest, len(values))
            chosen[name] = values[place]
        filled = SLOT.sub(lambda m: chosen[m.group(1)].texts[language], template)  # noqa: B023
        yield Expansion(filled, chosen)


def _coprime_step(total: int, rng: Random) -> int:
    from math import gcd

    step = rng.randrange(1, total + 1)
    while gcd(step, total) != 1:
        step = step % total + 1
    return step
