"""Text questions, each with a Chinese and an English answer."""

from __future__ import annotations

import unicodedata

import pytest

from camelbell_core.text import bigrams, language_of, mentions, printable, sentences, squash


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("你是谁？", "zh"),
        ("Who are you?", "en"),
        ("你认识 Hermione Granger 吗？", "zh"),
        ("OK", "en"),
    ],
)
def test_the_language_of_a_text_is_told_by_its_script(text: str, language: str) -> None:
    assert [language_of(text, order) for order in (["zh", "en"], ["en", "zh"])] == [language, language]


@pytest.mark.parametrize(
    "text", ["", "？！", "😀", "X", "What does 魔杖 mean in your language?", "Hermione Granger 是谁？"]
)
def test_in_doubt_the_main_language_counts(text: str) -> None:
    assert [language_of(text, order) for order in (["zh", "en"], ["en", "zh"])] == ["zh", "en"]


def test_a_character_of_one_language_is_always_spoken_to_in_it() -> None:
    assert [language_of(text, ["en"]) for text in ("你是谁？", "Who?", "")] == ["en", "en", "en"]
    assert [language_of(text, ["zh"]) for text in ("你是谁？", "Who?", "")] == ["zh", "zh", "zh"]


def test_a_squashed_text_has_no_blanks_dots_hyphens_or_quotes() -> None:
    assert squash("哈利·波特 “救世主”") == ("哈利波特救世主", [0, 1, 3, 4, 7, 8, 9])
    assert squash("No-one's  Cho") == ("noonescho", [0, 1, 3, 4, 5, 7, 10, 11, 12])
    assert squash("") == ("", [])


def test_places_of_a_squashed_text_are_places_of_the_folded_one() -> None:
    text = "ﬁ Ｘ·Straße"
    folded = unicodedata.normalize("NFKC", text).casefold()
    hay, places = squash(text)
    assert "".join(folded[i] for i in places) == hay == "fixstrasse"


@pytest.mark.parametrize(
    ("text", "word", "there"),
    [
        ("我在霍格沃茨学校", "霍格沃茨", True),
        ("哈利波特来了", "哈利·波特", True),
        ("哈 利 · 波 特", "哈利波特", True),
        ("哈利", "哈利·波特", False),
        ("我喜欢Cho。", "Cho", True),
        ("She is Cho's friend", "cho", True),
        ("at school", "Cho", False),
        ("Choosing", "Cho", False),
        ("school, then Cho", "Cho", True),
        ("JEAN-LUC", "Jean Luc", True),
        ("九十九级", "99", False),
        ("199 steps", "99", False),
        ("99 级", "99", True),
        ("９９级", "99", True),
        ("a café", "caf", False),
        ("a café", "CAFÉ", True),
        ("Ronan", "Ron", False),
        ("Ron和Harry", "Ron", True),
        ("anything", "", False),
        ("", "Cho", False),
        ("", "", False),
        ("anything", "·", False),
    ],
)
def test_a_word_is_mentioned_whole_or_not_at_all(text: str, word: str, there: bool) -> None:
    assert mentions(text, word) is there


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("你好。我是小灯！你呢？", ["你好。", "我是小灯！", "你呢？"]),
        ("“走吧！”他说。“好。”", ["“走吧！”", "他说。", "“好。”"]),
        ("等等……好吧。", ["等等……", "好吧。"]),
        ("Hello. I am Lumen! Who are you?", ["Hello.", " I am Lumen!", " Who are you?"]),
        ("It costs 1.50 pounds. Mr. dot stays.", ["It costs 1.50 pounds.", " Mr. dot stays."]),
        ("no end", ["no end"]),
        ("", []),
    ],
)
def test_sentences_keep_their_marks_and_join_to_the_text(text: str, parts: list[str]) -> None:
    assert sentences(text) == parts
    assert "".join(parts) == text


def test_what_could_command_a_terminal_is_not_printed() -> None:
    assert printable("小灯\x1b[31m红\x07\u202e\n\t好😀") == "小灯[31m红\n\t好😀"
    assert printable("Lu\x00men\x9b0m\r\u2066 ok") == "Lumen0m ok"


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("灯塔有多高", ["灯塔", "塔有", "有多", "多高"]),
        ("灯", ["灯"]),
        ("How tall is it?", ["how", "tall", "is", "it"]),
        ("Harry是谁", ["harry", "是谁"]),
        ("认识Harry吗ＯＫ", ["认识", "harry", "吗", "ok"]),
        ("snake_case 3号", ["snake", "case", "3", "号"]),
        ("", []),
        ("😀！", []),
    ],
)
def test_chinese_is_searched_by_pairs_and_latin_by_words(text: str, tokens: list[str]) -> None:
    assert bigrams(text) == tokens


def test_a_megabyte_of_one_line_is_no_trouble() -> None:
    text = "灯塔 light " * 100_000
    assert mentions(text, "沉船") is False
    assert len(bigrams(text)) == 200_000
    assert sentences(text) == [text]
