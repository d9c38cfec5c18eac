"""Answers made of facts alone, in Chinese and in English."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from camelbell_core.character import BundleRef, Character, read_character
from camelbell_core.compose import ANSWERS, Composed, admits_ignorance, compose, strange_names, voice_of
from camelbell_core.pipeline import Run
from camelbell_core.records import Recall

PET = {"zh": "陪着我的是海鸥阿白。", "en": "Pebble, my gull, keeps me company."}
STEPS = {"zh": "九十九级，我每天数一遍。", "en": "Ninety-nine. I count them every day."}
UNKNOWN = {"zh": "这个我不知道。", "en": "I don't know that."}
ASK = {"zh": "那个怎么样？", "en": "What about that?"}


@pytest.fixture
def lumen(small_bundle: BundleRef) -> Character:
    return read_character(small_bundle)


def recalls(character: Character, **scores: float) -> list[Recall]:
    return [Recall(character.canon.facts[name], score) for name, score in scores.items()]


@pytest.mark.parametrize("language", ["zh", "en"])
def test_the_likeliest_fact_answers_if_it_fits_well_enough(lumen: Character, language: str) -> None:
    pet, steps = lumen.canon.facts["pet"], lumen.canon.facts["steps"]
    fits, fits_not = recalls(lumen, pet=ANSWERS, steps=0.1), recalls(lumen, steps=ANSWERS - 0.01, pet=0.9)
    assert compose(lumen, language, ASK[language], fits) == Composed(PET[language], (pet,))
    assert compose(lumen, language, ASK[language], fits_not) == Composed(UNKNOWN[language])
    assert compose(lumen, language, ASK[language], []) == Composed(UNKNOWN[language])
    both = compose(lumen, language, ASK[language], [], answer_facts=[steps, pet])
    assert both == Composed((STEPS[language] + " " * (language == "en") + PET[language]), (steps, pet))


@pytest.mark.parametrize(
    ("language", "question", "answer"),
    [
        ("zh", "加文·普拉姆特里是谁？", "加文·普拉姆特里？我没听说过。"),
        ("zh", "你知道莫格里斯吗？", "莫格里斯？我没听说过。"),
        ("en", "Who is Tavina?", "Tavina? I never heard that name."),
        ("en", "你认识Mogris吗？", "Mogris? I never heard that name."),
    ],
)
def test_a_name_that_the_canon_does_not_know_is_not_played_along_with(
    lumen: Character, language: str, question: str, answer: str
) -> None:
    assert compose(lumen, language, question, recalls(lumen, pet=1.0)) == Composed(answer)
    pet = lumen.canon.facts["pet"]  # but a fact that is known to answer does
    assert compose(lumen, language, question, [], answer_facts=[pet]) == Composed(PET[language], (pet,))


def test_the_wording_varies_with_the_random_numbers(lumen: Character) -> None:
    said = {compose(lumen, "zh", ASK["zh"], [], Random(seed)).text for seed in range(30)}
    assert said == {"这个我不知道。", "我一直守着灯塔，这事没听说过。"}
    said = {compose(lumen, "en", ASK["en"], [], Random(seed)).text for seed in range(30)}
    assert said == {"I don't know that.", "I only keep the light; I never heard about that."}


ABOUT = {
    language: {"unknown": [unknown], "about": [about]}
    for language, unknown, about in (("zh", "不知道。", "我只知道：{fact}"), ("en", "No idea.", "All I know: {fact}"))
}


@pytest.mark.parametrize(
    ("language", "question", "answer"),
    [
        ("zh", "阿白几岁？", "不知道。"),
        ("zh", "小灯几岁？", "不知道。"),
        ("en", "How old is Pebble?", "No idea."),
    ],
)
def test_without_a_fact_first_about_whom_is_asked_the_character_admits_it(
    open_lumen: Callable[..., Run], language: str, question: str, answer: str
) -> None:
    character = open_lumen(voice=ABOUT).character
    assert compose(character, language, question, recalls(character, pet=0.3, steps=0.2)) == Composed(answer)


@pytest.mark.parametrize(
    ("language", "question", "answer"),
    [
        ("zh", "阿白几岁？", "我只知道：阿白爱吃鱼。"),
        ("en", "How old is Pebble?", "All I know: Pebble loves fish."),
    ],
)
def test_what_else_is_known_of_whom_is_asked_about_is_told(
    open_lumen: Callable[..., Run], language: str, question: str, answer: str
) -> None:
    fish = "facts:\n  - {id: fish, about: [gull], text: {zh: 阿白爱吃鱼。, en: Pebble loves fish.}}\n"
    character = open_lumen({"canon/fish.yaml": fish}, voice=ABOUT).character
    found = recalls(character, pet=0.4, fish=0.3)
    assert compose(character, language, question, found) == Composed(answer, (character.canon.facts["fish"],))


def test_a_bundle_without_a_voice_speaks_plainly(open_lumen: Callable[..., Run]) -> None:
    character = open_lumen(voice={}).character
    assert compose(character, "zh", ASK["zh"], []).text == "这个我不知道。"
    assert compose(character, "en", ASK["en"], []).text == "I don't know that."
    assert compose(character, "zh", "加文·普拉姆特里是谁", []).text == "我从没听说过加文·普拉姆特里。"
    assert compose(character, "en", "Who is Gavin?", []).text == "I've never heard of Gavin."
    assert voice_of(character, "fr") == voice_of(character, "en")


def test_without_words_for_names_the_words_for_the_unknown_do(open_lumen: Callable[..., Run]) -> None:
    character = open_lumen(voice={"zh": {"unknown": ["不清楚。"]}, "en": {"unknown": ["Not sure."]}}).character
    assert compose(character, "zh", "加文·普拉姆特里是谁", []).text == "不清楚。"
    assert compose(character, "en", "Who is Gavin?", []).text == "Not sure."


def test_without_a_canon_no_name_is_strange(open_lumen: Callable[..., Run]) -> None:
    character = open_lumen({"canon/canon.yaml": "", "seeds/seeds.yaml": ""}, entity="").character
    assert strange_names(character, "加文·普拉姆特里 met Gavin") == []
    assert compose(character, "zh", "加文·普拉姆特里是谁", []).text == "这个我不知道。"


def test_strange_names_are_those_that_the_bundle_does_not_know(lumen: Character) -> None:
    assert strange_names(lumen, "阿白和塔维娜, Pebble and Mogris") == ["塔维娜", "Mogris"]


@pytest.mark.parametrize(
    ("text", "admits"),
    [
        ("这个我不知道。", True),
        ("加文·普拉姆特里？我没听说过。", True),
        ("我从没听说过他。", True),
        ("说实话，我答不上来", True),
        ("我不认识这个人", True),
        ("阿白是我的海鸥。", False),
        ("九十九级。", False),
        ("I don't know that.", True),
        ("i  ONLY keep the light;\nI never heard about that", True),
        ("Tavina? I never heard that name.", True),
        ("I don’t remember.", True),
        ("I have no idea, sorry", True),
        ("Pebble keeps me company.", False),
        ("I know Notsure Island", False),
        ("", False),
        ("？", False),
    ],
)
def test_an_admission_of_ignorance_is_known_by_its_words(lumen: Character, text: str, admits: bool) -> None:
    assert admits_ignorance(text, lumen, "zh") is admits
    assert admits_ignorance(text, lumen, "en") is admits


def test_the_words_of_a_bundle_itself_admit_ignorance(open_lumen: Callable[..., Run]) -> None:
    voice: dict[str, Any] = {
        "zh": {"unknown": ["海雾太浓了。"], "unknown_name": ["名叫{name}的船没来过。"]},
        "en": {"unknown": ["The fog is thick."], "unknown_name": ["No ship called {name} came."]},
    }
    character = open_lumen(voice=voice).character
    for language, texts in {
        "zh": ("海雾太浓了", "名叫塔维娜的船没来过！"),
        "en": ("the fog is thick...", "No ship called Tavina came."),
    }.items():
        assert [admits_ignorance(text, character, language) for text in texts] == [True, True]
        assert not admits_ignorance("阿白 Pebble", character, language)
