"""Ways to put a question, that leave the question whole."""

from __future__ import annotations

from random import Random

import pytest

from camelbell_core.phrasing import phrase

QUESTIONS = {
    "zh": ["你的宠物叫什么名字？", "小灯是谁？", "X？"],
    "en": ["What is your pet called?", "Lumen keeps what?", "Who's Pebble?", "I see?", "Whom?"],
}


def ways(question: str, language: str, who: str) -> list[str]:
    return [phrase(question, language, who, Random(seed)) for seed in range(400)]


@pytest.mark.parametrize(
    ("language", "question", "who"),
    [
        (language, question, who)
        for language, who in (("zh", "小灯"), ("en", "Lumen"))
        for question in QUESTIONS[language]
    ],
)
def test_each_way_holds_the_whole_question(language: str, question: str, who: str) -> None:
    for way in ways(question, language, who):
        assert question.rstrip("？?。.").casefold() in way.casefold()
        assert "{" not in way


def test_questions_in_chinese_are_put_in_nine_ways_with_or_without_a_mark() -> None:
    whole = {way for way in ways("灯塔有多高？", "zh", "小灯") if way.endswith("？")}
    assert whole == {
        "灯塔有多高？",
        "小灯，灯塔有多高？",
        "请问，灯塔有多高？",
        "我想问一下，灯塔有多高？",
        "跟我说说，灯塔有多高？",
        "我一直想知道：灯塔有多高？",
        "哎，灯塔有多高？",
        "你还记得吗，灯塔有多高？",
        "有人问我，灯塔有多高？你怎么说？",
    }
    assert {way + "？" for way in ways("灯塔有多高？", "zh", "小灯")} >= whole


def test_a_question_word_inside_an_english_sentence_is_not_capital_but_a_name_is() -> None:
    asked = set(ways("How tall is it?", "en", "Lumen"))
    assert {
        "Lumen, how tall is it?",
        "Quick question: How tall is it?",
        "Sorry to bother you, but how tall is it?",
    } <= asked
    assert "Lumen, How tall is it?" not in asked
    named = set(ways("Pebble eats what?", "en", "Lumen"))
    assert "Lumen, Pebble eats what?" in named
    assert "Lumen, pebble eats what?" not in named


def test_one_seed_gives_one_way() -> None:
    for language, questions in QUESTIONS.items():
        assert ways(questions[0], language, "小灯") == ways(questions[0], language, "小灯")


def test_an_unknown_language_has_no_frames() -> None:
    assert set(ways("Qui êtes-vous ?", "fr", "Lumen")) == {"Qui êtes-vous ?", "Qui êtes-vous"}


def test_a_question_without_letters_is_left_alone() -> None:
    assert set(ways("", "fr", "")) == {""}
    assert "😀" in ways("😀", "en", "Lumen")
