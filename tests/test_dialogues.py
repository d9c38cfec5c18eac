"""Dialogues: questions with their answers and what was said before; every mistake told by file and line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from camelbell_core.canon import Canon
from camelbell_core.character import read_character
from camelbell_core.dialogues import read_dialogues
from camelbell_core.pipeline import Run
from camelbell_core.records import Fact, Question
from camelbell_plugins.questions_dialogues import DialogueQuestions

CANON = Canon({}, [Fact("lamp", (), {"zh": "灯亮着。"}), Fact("gull", (), {"zh": "有只海鸥。"})], [2, 3])


def read(tmp_path: Path, content: str | bytes, name: str = "lamp.jsonl") -> tuple[list[Question], list[str]]:
    folder = tmp_path / "dialogues"
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    questions, problems = read_dialogues(folder, CANON, ["zh", "en"])
    return questions, [str(problem).removeprefix(f"{folder}/") for problem in problems]


def rows(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


# --- good rows -------------------------------------------------------------------------------------


def test_a_row_is_a_question_with_its_answer_its_facts_and_its_time(tmp_path: Path) -> None:
    text = rows(
        {"lang": "zh", "q": " 灯还亮吗？ ", "a": "\t亮着。", "facts": ["lamp", "gull"], "at": "book 1"},
        {"lang": "en", "q": "Is it dark?", "a": "No, it shines.", "kind": "false_premise"},
    )
    assert read(tmp_path, text) == (
        [
            Question("灯还亮吗？", "zh", "fact", "dialogues", "lamp:1", {}, ("lamp", "gull"), "亮着。", "book 1"),
            Question("Is it dark?", "en", "false_premise", "dialogues", "lamp:2", answer="No, it shines."),
        ],
        [],
    )


def test_a_question_that_names_its_facts_needs_no_answer(tmp_path: Path) -> None:
    text = rows({"lang": "zh", "q": "灯呢？", "facts": ["lamp"]}, {"lang": "en", "q": "?", "a": " ", "facts": ["gull"]})
    questions, problems = read(tmp_path, text)
    assert problems == []
    assert [(q.text, q.facts, q.answer) for q in questions] == [("灯呢？", ("lamp",), ""), ("?", ("gull",), "")]


def test_each_turn_is_a_question_after_the_turns_before(tmp_path: Path) -> None:
    turns = [["谁在？", "阿白。 "], [" Who?", "Pebble."], ["它呢？", "飞了。"]]
    questions, problems = read(tmp_path, rows({"lang": "zh", "turns": turns, "facts": ["gull"], "at": "1-2"}))
    assert problems == []
    said = ("谁在？", "阿白。", "Who?", "Pebble.", "它呢？", "飞了。")
    assert [(*q.history, q.text, q.answer) for q in questions] == [said[:2], said[:4], said]
    assert [q.facts for q in questions] == [("gull",), (), ()]  # a follow-up asks for something else
    assert {(q.at, q.seed, q.language) for q in questions} == {("1-2", "lamp:1", "zh")}
    assert len({q.id for q in questions}) == 3


def test_the_same_words_after_others_are_another_question(tmp_path: Path) -> None:
    follow_up = ["And then?", "Night."]
    first, second = ({"lang": "en", "turns": [[word, "Yes."], follow_up]} for word in ("Fog?", "Rain?"))
    questions, _ = read(tmp_path, rows(first, second))
    assert questions[1].text == questions[3].text and questions[1].id != questions[3].id


def test_all_files_are_read_in_order_and_blank_lines_count(tmp_path: Path) -> None:
    read(tmp_path, "\n \n" + rows({"lang": "zh", "q": "三", "a": "3"}), "more/b.jsonl")
    read(tmp_path, "不是对话", "notes.txt")
    questions, problems = read(
        tmp_path, b"\xef\xbb\xbf" + rows({"lang": "zh", "q": "一", "a": "1"}).encode(), "a.jsonl"
    )
    assert ([q.seed for q in questions], problems) == (["a:1", "b:3"], [])


def test_no_folder_and_an_empty_file_are_no_dialogues(tmp_path: Path) -> None:
    assert read_dialogues(tmp_path / "none", CANON, ["zh"]) == ([], [])
    assert read(tmp_path, "") == ([], [])


# --- mistakes --------------------------------------------------------------------------------------

ONE_OR_THE_OTHER = "q: a line holds either a question or turns"
NO_ANSWER = "a: is missing: only a question that names its facts can do without an answer"
TIMES = "(allowed: 1-1 to 2-3, as part-chapter, or a part)"


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"q": "灯？", "facts": ["lamp", "lamb"]}, ["""facts: unknown fact 'lamb'; did you mean "lamp"?"""]),
        ({"q": "灯？", "a": "亮。", "lang": "fr"}, ["lang: 'fr' is not a language of this character"]),
        ({"q": "灯？", "a": "亮。", "turns": [["灯？", "亮。"]]}, [ONE_OR_THE_OTHER]),
        ({"a": "亮。", "turns": [["灯？", "亮。"]]}, [ONE_OR_THE_OTHER]),
        ({"a": "亮。"}, [ONE_OR_THE_OTHER]),
        ({"q": "", "turns": []}, [ONE_OR_THE_OTHER]),
        ({"turns": [["灯？", "亮。"], [" ", "亮。"]]}, ["turns: a turn is a question and its answer"]),
        ({"turns": [["灯？", ""]], "facts": ["lamp"]}, ["turns: a turn is a question and its answer"]),
        ({"turns": [["灯？"]]}, ["turns.0.1: is missing"]),
        ({"q": "灯？"}, [NO_ANSWER]),
        ({"q": "灯？", "a": " "}, [NO_ANSWER]),
        ({"q": "灯？", "a": "亮。", "at": "2-4"}, [f"at: there is no story time '2-4' {TIMES}"]),
        ({"q": "灯？", "a": "亮。", "at": "第一部"}, [f"at: there is no story time '第一部' {TIMES}"]),
        ({"q": "灯？", "a": "亮。", "fact": ["lamp"]}, ["""fact: unknown key; did you mean "facts"?"""]),
        ({"q": "灯？", "a": 7}, ["a: must be text"]),
        ({"q": "灯？", "facts": "lamp"}, ["facts: must be a list"]),
        ({"q": "灯？", "lang": "en", "facts": ["x"], "at": "9"}, ["facts: unknown fact 'x'", f"at: there is no story time '9' {TIMES}"]),
    ],
)  # fmt: skip
def test_a_wrong_row_is_told_with_its_line_and_the_others_are_read(
    tmp_path: Path, row: dict[str, Any], expected: list[str]
) -> None:
    good = {"lang": "en", "q": "Is it lit?", "a": "It is."}
    questions, problems = read(tmp_path, rows(good, {"lang": "zh"} | row, good))
    assert problems == [f"lamp.jsonl:2: {what}" for what in expected]
    assert [q.seed for q in questions] == ["lamp:1", "lamp:3"]


def test_a_row_without_a_language_is_told(tmp_path: Path) -> None:
    assert read(tmp_path, rows({"q": "灯？", "a": "亮。"})) == ([], ["lamp.jsonl:1: lang: is missing"])


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"lang": "zh", "q": ', "this line is broken: column 20: Expecting value"),
        ("[]", "this line is broken: is not a JSON object"),
        ('{"lang": "zh"', "this line is broken: column 14: Expecting ',' delimiter"),
        ('{"q": "灯"}'.encode("gbk"), "this line is broken: 'utf-8' codec can't decode byte 0xb5 in position 7"),
    ],
)
def test_a_broken_line_is_told_and_hides_nothing_of_other_files(
    tmp_path: Path, line: str | bytes, expected: str
) -> None:
    good = rows({"lang": "zh", "q": "灯？", "a": "亮。"})
    read(tmp_path, good, "z: after.jsonl")
    broken = line if isinstance(line, bytes) else line.encode()
    questions, (told,) = read(tmp_path, good.encode() + broken, "a: day.jsonl")
    assert told.startswith(f"a: day.jsonl:2: {expected}")
    assert [q.seed for q in questions] == ["a: day:1", "z: after:1"]


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "dialogues" / "lamp.jsonl").mkdir(parents=True)
    ((told,), name) = read(tmp_path, "", "a.jsonl")[1], tmp_path / "dialogues" / "lamp.jsonl"
    assert told.startswith(f"lamp.jsonl: cannot read {name}: ")


# --- the character's dialogues and their generator -------------------------------------------------

LUMEN = rows(
    {"lang": "zh", "q": "{island}上有几级台阶？", "facts": ["steps"]},
    {"lang": "en", "q": "Are there 98 steps?", "a": "No, 99 on {island}.", "facts": ["steps"], "kind": "false_premise"},
    {"lang": "en", "turns": [["Where is {island}?", "{island}? In the sea."], ["Who lives on {island}?", "Pebble."]]},
)
RELATIONS = "roles:\n  keeper: {zh: [主人], en: [keeper]}\n  pet: {zh: [宠物], en: [pet]}\n"
RELATIONS += "relations:\n  - {keeper: lumen, pet: gull}\n"


@pytest.fixture
def lumen(open_lumen: Callable[..., Run]) -> Run:
    """The lighthouse keeper with dialogues, a pair of the canon, and a value to fill in."""
    files = {"dialogues/lamp.jsonl": LUMEN, "canon/relations.yaml": RELATIONS}
    return open_lumen(files, values={"island": {"zh": "雾岛", "en": "Fog Isle"}})


def test_values_of_the_bundle_are_filled_into_all_that_is_said(lumen: Run) -> None:
    asked = [q for q in lumen.character.dialogues if q.generator == "dialogues"]
    assert [(q.text, q.answer, q.history) for q in asked] == [
        ("雾岛上有几级台阶？", "", ()),
        ("Are there 98 steps?", "No, 99 on Fog Isle.", ()),
        ("Where is Fog Isle?", "Fog Isle? In the sea.", ()),
        ("Who lives on Fog Isle?", "Pebble.", ("Where is Fog Isle?", "Fog Isle? In the sea.")),
    ]


def test_questions_of_the_canons_pairs_stand_among_the_dialogues(lumen: Run) -> None:
    character = lumen.character
    assert character.canon.questions
    assert character.dialogues[4:] == character.canon.questions


def test_a_dialogue_may_name_a_fact_of_a_pair(open_lumen: Callable[..., Run]) -> None:
    row = rows({"lang": "en", "q": "Whose is Pebble?", "facts": ["r-lumen-keeper-gull"]})
    run = open_lumen({"dialogues/lamp.jsonl": row, "canon/relations.yaml": RELATIONS})
    question = run.character.dialogues[0]
    assert run.character.canon.facts[question.facts[0]].told("en") == "I'm Pebble's keeper; Pebble is my pet."


def test_mistakes_of_dialogues_are_mistakes_of_the_bundle(lumen: Run) -> None:
    file = lumen.character.root / "dialogues" / "lamp.jsonl"
    file.write_text(LUMEN.replace("steps", "step", 1), encoding="utf-8")
    problems = read_character(lumen.character.ref).check()
    assert [str(problem) for problem in problems] == [
        f"""{file}:1: facts: unknown fact 'step'; did you mean "steps"?""",
    ]


@pytest.mark.parametrize("count", [0, 1, 3, 100])
def test_the_generator_gives_as_many_as_asked_for_in_mixed_order(lumen: Run, count: int) -> None:
    whole = lumen.character.dialogues

    def generate(seed: str) -> list[Question]:
        return list(DialogueQuestions().generate(lumen.character, count, Random(seed)))

    given = generate("a")
    assert len(given) == len({q.id for q in given}) == min(count, len(whole))
    assert {q.id for q in given} <= {q.id for q in whole}
    assert generate("a") == given
    assert count < 100 or whole != given != generate("b")
    assert lumen.character.dialogues == whole
