"""The canon: read whole, its mistakes told, and asked in Chinese and English."""

from __future__ import annotations

from pathlib import Path

import pytest

from camelbell_core.canon import Canon, read_canon
from camelbell_core.errors import CamelBellError
from camelbell_core.names import unknown_names
from camelbell_core.records import Entity, Fact, Point

ENTITIES = """\
timeline: {chapters: [2, 3]}
entities:
  lumen:
    type: person
    names: {zh: 小灯, en: Lumen}
  gull:
    type: creature
    names: {zh: 阿白, en: Pebble}
    aliases: [海鸥阿白]
"""
FACTS = """\
facts:
  - id: pet
    about: [lumen, gull]
    relation: pet
    answer: [gull, "海鸥|gull bird"]
    text: {zh: 小灯养着阿白。, en: Lumen keeps Pebble.}
    voice: {zh: 我养着阿白。}
    ask: {zh: [你养什么？], en: [What do you keep?]}
    source: "1"
    known_from: 1-2
    true_from: book 1
    true_until: 2-3
"""


def read(tmp_path: Path, languages: str = "zh en", **files: str | bytes) -> tuple[Canon, list[str]]:
    folder = tmp_path / "canon"
    for name, text in files.items():
        (folder / f"{name}.yaml").parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    canon, problems = read_canon(folder, languages.split())
    return canon, [str(problem).removeprefix(f"{folder}/") for problem in problems]


def test_a_canon_is_read_from_all_its_files(tmp_path: Path) -> None:
    canon, problems = read(tmp_path, facts=FACTS, z_entities=ENTITIES)  # facts come before what they name
    assert problems == []
    assert canon.chapters == (2, 3)
    assert canon.entities == {
        "lumen": Entity("lumen", "person", {"zh": "小灯", "en": "Lumen"}),
        "gull": Entity("gull", "creature", {"zh": "阿白", "en": "Pebble"}, ("海鸥阿白",)),
    }
    assert canon.facts == {
        "pet": Fact(
            id="pet",
            about=("lumen", "gull"),
            text={"zh": "小灯养着阿白。", "en": "Lumen keeps Pebble."},
            voice={"zh": "我养着阿白。"},
            ask={"zh": ("你养什么？",), "en": ("What do you keep?",)},
            answer=("gull", "海鸥|gull bird"),
            relation="pet",
            source=Point(1, 2),
            known_from=Point(1, 2),
            true_from=Point(1, 2),
            true_until=Point(2, 3),
        )
    }


def test_no_folder_and_empty_files_are_an_empty_canon(tmp_path: Path) -> None:
    for files in ({}, {"empty": "", "comment": "# 空\n"}):
        canon, problems = read(tmp_path, **files)
        assert (canon.entities, canon.facts, canon.chapters, problems) == ({}, {}, (), [])


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("about: [lumen, gull]", "about: [lumen, gul]", [
            """facts.yaml:3: facts.0.about: unknown entity 'gul'; did you mean "gull"?""",
        ]),
        ("answer: [gull,", "answer: [sea_gull,", [
            """facts.yaml:5: facts.0.answer: unknown entity 'sea_gull'; did you mean "gull"?""",
        ]),
        ("id: pet", "idd: pet", [
            "facts.yaml:2: facts.0.id: is missing",
            'facts.yaml:2: facts.0.idd: unknown key; did you mean "id"?',
        ]),
        ("text: {zh: 小灯养着阿白。, en: Lumen keeps Pebble.}", "text: {zh: 小灯养着阿白。}", [
            "facts.yaml:6: facts.0.text: lacks the language en",
        ]),
        ("1-2", "1-3", [
            "facts.yaml:10: facts.0.known_from: there is no story time '1-3' (allowed: 1-1 to 2-3, as part-chapter, or a part)",
        ]),
        ("book 1", "第一部", [
            "facts.yaml:11: facts.0.true_from: there is no story time '第一部' (allowed: 1-1 to 2-3, as part-chapter, or a part)",
        ]),
        ('"1"', "1", ["facts.yaml:9: facts.0.source: must be text (YAML reads it as the number 1: put it in quotes)"]),
        ("2-3", "0-1", [
            "facts.yaml:12: facts.0.true_until: there is no story time '0-1' (allowed: 1-1 to 2-3, as part-chapter, or a part)",
        ]),
    ],
)  # fmt: skip
def test_a_wrong_fact_is_told_with_file_and_line(tmp_path: Path, old: str, new: str, expected: list[str]) -> None:
    assert old in FACTS
    assert read(tmp_path, entities=ENTITIES, facts=FACTS.replace(old, new))[1] == expected


def test_ids_and_entities_may_stand_once(tmp_path: Path) -> None:
    second = "entities:\n  gull: {type: bird, names: {zh: 鸥, en: gull}}\n" + FACTS
    _, problems = read(tmp_path, a=ENTITIES, facts=FACTS, second=second)
    assert problems == [
        "second.yaml:2: entities.gull: this entity is already declared",
        "second.yaml:4: facts.0.id: the id 'pet' is already taken",
    ]


def test_an_entity_needs_a_name_in_every_language(tmp_path: Path) -> None:
    _, problems = read(tmp_path, a='entities:\n  x: {type: t, names: {zh: 甲, en: ""}}\n')
    assert problems == ["a.yaml:2: entities.x: has no name in en"]
    assert read(tmp_path, "zh", a="entities:\n  x: {type: t, names: {zh: 甲}}\n")[1] == []


def test_one_mistake_in_an_entity_is_not_told_again_by_each_fact(tmp_path: Path) -> None:
    entities = ENTITIES.replace("aliases", "alias") + "  5: {type: t, names: {zh: 五, en: five}}\n"
    canon, problems = read(tmp_path, entities=entities, facts=FACTS)
    assert problems[0] == 'entities.yaml:9: entities.gull.alias: unknown key; did you mean "aliases"?'
    assert [problem.split(":")[0] for problem in problems] == ["entities.yaml"] * len(problems)
    assert list(canon.facts) == ["pet"]


def test_a_time_without_a_timeline_is_told(tmp_path: Path) -> None:
    _, problems = read(tmp_path, e=ENTITIES.partition("\n")[2], facts=FACTS.replace("    true_until: 2-3\n", ""))
    assert problems == [
        f"facts.yaml:{line}: facts.0.{key}: this character has no timeline, so it has no story time {time!r}"
        for line, key, time in ((9, "source", "1"), (10, "known_from", "1-2"), (11, "true_from", "book 1"))
    ]


CANON = Canon(
    {
        "lumen": Entity("lumen", "person", {"zh": "小灯", "en": "Lumen"}),
        "white_gull": Entity("white_gull", "creature", {"zh": "阿白", "en": "Pebble"}, ("海鸥",)),
    },
    [],
    [2, 3, 10],
    "我守着塔维娜岛 Skerryvore",
)


@pytest.mark.parametrize(
    ("text", "point"),
    [
        ("1-1", Point(1, 1)),
        ("3-10", Point(3, 10)),
        ("3", Point(3, 10)),
        ("book 2", Point(2, 3)),
        ("BOOK2-1", Point(2, 1)),
        (" 2 – 3 ", Point(2, 3)),
        ("2.3", Point(2, 3)),
        ("２-３", Point(2, 3)),
    ],
)
def test_story_times_are_parts_and_chapters(text: str, point: Point) -> None:
    assert CANON.point(text) == point


BOOKS = Canon({}, [], [2, 3, 10], parts={"zh": "第{n}部", "en": "book {n}"})


@pytest.mark.parametrize(
    ("language", "words"), [("zh", "第3部第2章"), ("en", "book 3, chapter 2"), ("fr", "book 3, chapter 2")]
)
def test_a_story_time_is_told_in_words_that_can_be_typed_again(language: str, words: str) -> None:
    assert BOOKS.place(Point(3, 2), language) == words
    assert BOOKS.point(words) == BOOKS.point(words.upper()) == Point(3, 2)


@pytest.mark.parametrize(
    ("text", "point"),
    [
        ("第3部", Point(3, 10)),
        (" 第 3 部 第 2 章 ", Point(3, 2)),
        ("Book 3 Chapter 2", Point(3, 2)),
        ("book 3，chapter 2", Point(3, 2)),
        ("book 2", Point(2, 3)),
    ],
)
def test_story_times_are_also_read_as_the_timeline_calls_its_parts(text: str, point: Point) -> None:
    assert BOOKS.point(text) == point


def test_a_timeline_without_names_has_parts() -> None:
    assert (CANON.place(Point(2, 1), "zh"), CANON.place(Point(2, 1), "en")) == ("第2部第1章", "part 2, chapter 1")


@pytest.mark.parametrize(
    "text", ["", "0", "4", "1-0", "1-3", "3-11", "-1", "1-", "1-1-1", "第一部", "book", "9" * 5000]
)
def test_a_story_time_that_is_not_in_the_timeline_is_told(text: str) -> None:
    with pytest.raises(CamelBellError) as caught:
        CANON.point(text)
    assert caught.value.message == f"there is no story time {text!r}"
    assert caught.value.hint == "allowed: 1-1 to 3-10, as part-chapter, or a part"


@pytest.mark.parametrize(
    ("answer", "text", "missing"),
    [
        (("white_gull",), "是阿白。", []),
        (("white_gull",), "My Pebble!", []),
        (("white_gull",), "小灯", ["white_gull"]),
        (("九十九|99|ninety-nine",), "Ninety nine steps", []),
        (("九十九|99|ninety-nine",), "199 级", ["九十九|99|ninety-nine"]),
        (("white_gull", " lumen | 灯 "), "海鸥和灯", []),
        (("white_gull", "lumen|灯"), "Lumen", ["white_gull"]),
        ((), "", []),
    ],
)
def test_what_a_right_answer_lacks_is_found(answer: tuple[str, ...], text: str, missing: list[str]) -> None:
    assert CANON.missing(Fact("f", (), {}, answer=answer), text) == missing


def test_an_entity_stands_for_all_its_names() -> None:
    assert CANON.alternatives("white_gull|鸥") == ["阿白", "Pebble", "海鸥", "鸥"]
    assert CANON.alternatives("|") == []


def test_every_word_of_the_canon_is_known() -> None:
    for text in ("小灯和阿白", "Lumen met Pebble.", "塔维娜岛在哪儿", "Where is Skerryvore?"):
        assert unknown_names(text, CANON.names, CANON.vocabulary) == []
    assert unknown_names("莫格里斯 met Tavina", CANON.names, CANON.vocabulary) == ["莫格里斯", "Tavina"]
