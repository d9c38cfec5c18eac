"""Facts that cannot be true together: of some things there is one at a time, a father or an owner.

A canon file names them: ``one_at_a_time: [father, owner]``. They are roles of its ``relations:``, or the ``relation`` of its
facts. Two of one kind with different entities, that hold at one time, contradict each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import combinations

from camelbell_core.records import Entity, Fact, Point
from camelbell_core.relations import Relation


def contradicting_ties(relations: Iterable[Relation], alone: Iterable[str]) -> Iterator[tuple[Relation, Relation]]:
    """Yield pairs of ties that give somebody two at one time of what there is one of."""
    kinds = set(alone)
    held: dict[tuple[str, str], list[Relation]] = {}
    for relation in relations:
        for view in (relation, relation.turned()):
            if view.role in kinds:
                held.setdefault((view.role, view.second), []).append(view)
    for views in held.values():
        for one, other in combinations(views, 2):
            if one.first != other.first and _overlap(_window(one), _window(other)):
                yield one, other


def contradicting_facts(
    facts: Iterable[Fact], alone: Iterable[str], entities: dict[str, Entity]
) -> Iterator[tuple[Fact, Fact]]:
    """Yield pairs of facts that name different entities for what there is one of at a time."""
    kinds = set(alone)
    held: dict[tuple[str, str], list[Fact]] = {}
    for fact in facts:
        if fact.relation in kinds and len(fact.answer) == 1 and fact.answer[0] in entities and fact.about:
            held.setdefault((fact.relation, fact.about[0]), []).append(fact)
    for some in held.values():
        for one, other in combinations(some, 2):
            same_kind = entities[one.answer[0]].type == entities[other.answer[0]].type
            if one.answer != other.answer and same_kind and _overlap(_time(one), _time(other)):
                yield one, other


Window = tuple[Point | None, Point | None]


def _window(relation: Relation) -> Window:
    return relation.points.get("true_from"), relation.points.get("true_until")


def _time(fact: Fact) -> Window:
    return fact.true_from, fact.true_until


def _overlap(one: Window, other: Window) -> bool:
    """Tell whether two stretches of the story share a chapter; None is an open end."""
    starts = [start for start, _ in (one, other) if start]
    ends = [end for _, end in (one, other) if end]
    return not starts or not ends or max(starts) < min(ends)
