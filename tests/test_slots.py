"""Slot expansion: templates and value lists in, every question once out."""

from __future__ import annotations

from random import Random

import pytest

from camelbell_core.slots import Expansion, Value, combinations, expand, slot_names

PETS = [Value({"zh": "猫", "en": "cat"}, "cat"), Value({"zh": "海鸥", "en": "gull"}), Value({"en": "newt"})]
TIMES = [Value({"zh": f"{n}点", "en": f"{n} o'clock"}) for n in range(1, 13)]
SLOTS = {"pet": PETS, "time": TIMES, "none": [], "big": [Value({"en": str(n)}) for n in range(10**5)]}


def texts(template: str, language: str, seed: int = 0) -> list[str]:
    return [expansion.text for expansion in expand(template, language, SLOTS, Random(seed))]


@pytest.mark.parametrize(
    ("template", "names"),
    [
        ("[pet]几点吃饭？[time]？[pet]？", ["pet", "time"]),
        ("Does [pet] eat at [time]?", ["pet", "time"]),
        ("【pet】［pet］[Pet] [2] [] [pet", []),
        ("", []),
    ],
)
def test_slots_are_lower_case_words_in_square_brackets(template: str, names: list[str]) -> None:
    assert slot_names(template) == names


@pytest.mark.parametrize(
    ("template", "language", "expected"),
    [
        ("你喜欢[pet]吗？", "zh", ["你喜欢海鸥吗？", "你喜欢猫吗？"]),
        ("Do you like [pet]?", "en", ["Do you like cat?", "Do you like gull?", "Do you like newt?"]),
        ("[pet]和[pet]", "zh", ["海鸥和海鸥", "猫和猫"]),
        ("没有空格", "zh", ["没有空格"]),
        ("[none]?", "en", []),
        ("[pet]?", "fr", []),
        ("", "en", [""]),
    ],
)
def test_each_expansion_comes_once(template: str, language: str, expected: list[str]) -> None:
    assert sorted(texts(template, language)) == expected
    assert combinations(template, language, SLOTS) == len(expected)


@pytest.mark.parametrize(("language", "count"), [("zh", 24), ("en", 36)])
def test_every_combination_of_two_lists_comes_once(language: str, count: int) -> None:
    made = texts("[pet] [time]", language)
    wanted = {f"{p.texts[language]} {t.texts[language]}" for p in PETS if language in p.texts for t in TIMES}
    assert len(made) == count
    assert set(made) == wanted


def test_the_order_is_decided_by_the_random_numbers_alone() -> None:
    assert texts("[time]", "zh", 1) == texts("[time]", "zh", 1)
    assert len({tuple(texts("[time]", "zh", seed)) for seed in range(20)}) > 10


def test_an_expansion_says_what_filled_it() -> None:
    made = list(expand("[pet]！", "zh", {"pet": PETS[:1]}, Random(0)))
    assert made == [Expansion("猫！", {"pet": PETS[0]})]


def test_brackets_and_backslashes_in_a_value_stay_as_they_are() -> None:
    odd = {"pet": [Value({"zh": r"\1[time]\g<0>"})], "time": TIMES}
    assert [e.text for e in expand("[pet]", "zh", odd, Random(0))] == [r"\1[time]\g<0>"]


def test_ten_thousand_million_combinations_cost_nothing_until_asked_for() -> None:
    assert combinations("[big] of [big] at [time]", "en", SLOTS) == 12 * 10**5
    pairs = {"a": SLOTS["big"], "b": SLOTS["big"]}
    stream = expand("[a]-[b]", "en", pairs, Random(3))
    assert combinations("[a]-[b]", "en", pairs) == 10**10
    assert len({next(stream).text for _ in range(1000)}) == 1000
