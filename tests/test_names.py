"""Names that the canon knows, and names that it does not, in Chinese and in English."""

from __future__ import annotations

import pytest

from camelbell_core.names import Mention, NameIndex, fold_vocabulary, unknown_names
from camelbell_core.records import Entity

ENTITIES = [
    Entity("harry", "person", {"zh": "哈利·波特", "en": "Harry Potter"}, ("哈利", "Harry", "波特", "Potter")),
    Entity("ginny", "person", {"zh": "金妮·波特", "en": "Ginny Potter"}, ("Potter", "波特")),
    Entity("ron", "person", {"zh": "罗恩", "en": "Ron"}, ()),
    Entity("chess", "thing", {"zh": "巫师棋", "en": "wizards' chess"}, ("the king’s board",)),
]
INDEX = NameIndex(ENTITIES)
VOCABULARY = fold_vocabulary(
    [
        *(name for entity in ENTITIES for name in entity.all_names()),
        "他们去了斯图尔特的小店，见到了玛丽·安。",
        "They walked across the Galleons of Aunt Zoë to Brighton.",
    ]
)


def found(text: str) -> list[tuple[str, str]]:
    return [(text[m.start : m.end], m.entity) for m in INDEX.find(text)]


def unknown(text: str) -> list[str]:
    return unknown_names(text, INDEX, VOCABULARY)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("哈利·波特是谁？", [("哈利·波特", "harry")]),
        ("哈利波特和罗恩", [("哈利波特", "harry"), ("罗恩", "ron")]),
        ("哈利 · 波特", [("哈利 · 波特", "harry")]),
        ("Who is Harry Potter?", [("Harry Potter", "harry")]),
        ("HARRY and ron", [("HARRY", "harry"), ("ron", "ron")]),
        ("Ｈａｒｒｙ！", [("Ｈａｒｒｙ", "harry")]),
        ("Ron's and Ron’s", [("Ron's", "ron"), ("Ron’s", "ron")]),
        ("Ronald, iron, Harrys", []),
        ("你认识Harry吗", [("Harry", "harry")]),
        ("哈利Harry Potter吗", [("哈利", "harry"), ("Harry Potter", "harry")]),
        ("下巫师棋，wizards' chess", [("巫师棋", "chess"), ("wizards' chess", "chess")]),
        ("The King's board!", [("The King's board", "chess")]),
        ("😀哈利😀", [("哈利", "harry")]),
        ("", []),
        ("·", []),
    ],
)
def test_names_are_found_whole_and_the_longest_wins(text: str, names: list[tuple[str, str]]) -> None:
    assert found(text) == names


@pytest.mark.parametrize("text", ["波特", "Potter"])
def test_a_name_of_two_is_found_for_both(text: str) -> None:
    assert INDEX.find(text) == [Mention("harry", 0, len(text)), Mention("ginny", 0, len(text))]
    assert INDEX.owners(text) == ["harry", "ginny"]


def test_ids_come_in_order_without_repeats() -> None:
    assert INDEX.ids("罗恩和Harry, 哈利和Ron, 罗恩") == ["ron", "harry"]
    assert INDEX.owners("nobody") == INDEX.owners("无名氏") == INDEX.owners("") == []


def test_an_index_of_nothing_finds_nothing() -> None:
    empty = NameIndex([])
    assert empty.find("哈利 Harry") == []
    assert unknown_names("Who is Harry?", empty, fold_vocabulary([])) == ["Harry"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "是谁？"),
        ("你知道", "吗？"),
        ("我知道", "都做了什么"),
        ("跟我讲讲", "的事。"),
        ("你和", "说过话吗"),
        ("", "爱吃什么"),
        ("", "先生住在哪里"),
        ("听说", "夫人很高兴"),
        ("", "什么时候来"),
        ("罗恩和", "，"),
        ("", ""),
    ],
)
@pytest.mark.parametrize("name", ["加文·普拉姆特里", "加文•普拉姆特里", "格温达·马里什", "阿莫斯·约翰·邓莫尔", "秋·张"])
def test_an_unknown_dotted_name_ends_where_no_character_spells_names(before: str, name: str, after: str) -> None:
    assert unknown(before + name + after) == [name]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("奥古斯都·派和加文·普拉姆特里", ["奥古斯都·派", "加文·普拉姆特里"]),
        ("加文·普拉姆特里认识塔维娜吗", ["加文·普拉姆特里", "塔维娜"]),
        ("卢克·天行者是谁", ["卢克·天行者"]),
        ("哈利·普拉姆特里是谁", ["普拉姆特里"]),
        ("你认识莫格里斯吗？", ["莫格里斯"]),
        ("你知道莫格里斯吗？", ["莫格里斯"]),
        ("莫格里斯教授教什么？", ["莫格里斯"]),
        ("塔维先生好", ["塔维"]),
        ("莫格里斯和莫格里斯", ["莫格里斯"]),
        ("Who is Gavin Plumtree?", ["Gavin", "Plumtree"]),
        ("Who is Harry Plumtree?", ["Plumtree"]),
        ("I met Tavina's aunt.", ["Tavina"]),
        ("Gavin Plumtree came.", ["Gavin", "Plumtree"]),
        ("Describe Gavin!", ["Gavin"]),
        ("Do you know Ross?", ["Ross"]),  # though "across" is known
        ("I met O'Brien, McAllister and d'Artagnan.", ["O'Brien", "McAllister", "Artagnan"]),
        ("Ask Éowyn or Anne-Marie.", ["Éowyn", "Anne-Marie"]),
        ("He knows 'Gavin' and “Tavina”", ["Gavin", "Tavina"]),
        ("你认识Gavin吗", ["Gavin"]),
        ("罗恩 met Gavin😀", ["Gavin"]),
    ],
)
def test_what_looks_like_a_name_and_is_not_known_is_told_exactly(text: str, names: list[str]) -> None:
    assert unknown(text) == names


@pytest.mark.parametrize(
    "text",
    [
        "哈利·波特是谁？",
        "哈利波特",
        "斯图尔特是谁",  # stands in the vocabulary
        "玛丽·安好吗",
        "今天天气很好，我喜欢吃巧克力。",
        "这里里面都很普通",
        "Who is Harry Potter?",
        "Whose Galleon is it? Describe it.",
        "I know Brighton and Zoë on Monday.",
        "Nonsense. Really! Stop",
        "my iPhone and your 3D glasses",
        "Describe Harry",
        "",
        "·",
        "😀",
    ],
)
def test_known_and_everyday_words_are_no_unknown_names(text: str) -> None:
    assert unknown(text) == []


def test_a_megabyte_of_names_is_read() -> None:
    text = "加文·普拉姆特里是谁？Who is Gavin? " * 20_000
    assert unknown(text) == ["加文·普拉姆特里", "Gavin"]
