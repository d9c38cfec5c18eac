from pathlib import Path

import pytest

from camelbell_core.canon import read_canon

ENTITIES = """\
timeline: {chapters: [5, 5]}
entities:
  ada: {type: person, names: {zh: 艾达, en: Ada}}
  bea: {type: person, names: {zh: 贝娅, en: Bea}}
  fog: {type: creature, names: {zh: 雾, en: Fog}}
  red: {type: house, names: {zh: 红屋, en: Red House}}
roles:
  keeper: {zh: [主人], en: [keeper]}
  pet: {zh: [宠物], en: [pet]}
one_at_a_time: [keeper, house]
"""


def problems_of(tmp_path: Path, lines: str) -> list[str]:
    (tmp_path / "a.yaml").write_text(ENTITIES + lines, encoding="utf-8")
    _, problems = read_canon(tmp_path, ["zh", "en"])
    return [str(problem).removeprefix(f"{tmp_path}/") for problem in problems]


@pytest.mark.parametrize(
    ("first", "second", "wrong"),
    [
        ("", "", True),
        (", true_until: '1-4'", ", true_from: '1-4'", False),
        (", true_until: '1-5'", ", true_from: '1-4'", True),
        (", true_from: '2-1'", ", true_until: '2-1'", False),
        (", true_from: '2-1'", "", True),
    ],
)
def test_two_keepers_at_one_time_contradict_each_other(tmp_path: Path, first: str, second: str, wrong: bool) -> None:
    ties = f"relations:\n  - {{keeper: ada, pet: fog{first}}}\n  - {{pet: fog, keeper: bea{second}}}\n"
    line = "a.yaml:13: relations.1: fog has bea as keeper at a time when it is ada"
    assert problems_of(tmp_path, ties) == ([line] if wrong else [])


def test_one_keeper_may_have_two_pets_and_be_listed_twice(tmp_path: Path) -> None:
    ties = "relations:\n  - {keeper: ada, pet: fog}\n  - {keeper: ada, pet: red}\n  - {pet: fog, keeper: ada}\n"
    assert problems_of(tmp_path, ties) == []


def fact(name: str, answer: str, more: str = "", relation: str = "keeper") -> str:
    return (
        f"  - {{id: {name}, about: [fog], relation: {relation}, answer: [{answer}], text: {{zh: 雾, en: Fog}}{more}}}\n"
    )


def test_two_facts_that_name_different_keepers_contradict_each_other(tmp_path: Path) -> None:
    lines = "facts:\n" + fact("one", "ada") + fact("two", "bea")
    assert problems_of(tmp_path, lines) == [
        "a.yaml:13: facts.1: two contradicts one: the keeper is ada there, bea here",
    ]


@pytest.mark.parametrize(
    "second",
    [
        fact("two", "ada"),
        fact("two", "red"),  # not of the same type: another question
        fact("two", "'贝娅|Bea'"),  # words, not an entity
        fact("two", "bea", relation="friend"),
    ],
)
def test_what_does_not_exclude_each_other_is_no_contradiction(tmp_path: Path, second: str) -> None:
    assert problems_of(tmp_path, "facts:\n" + fact("one", "ada") + second) == []


def test_facts_that_hold_one_after_the_other_are_no_contradiction(tmp_path: Path) -> None:
    lines = fact("one", "ada", ", true_until: '1-3'") + fact("two", "bea", ", true_from: '1-3'")
    assert problems_of(tmp_path, "facts:\n" + lines) == []
