"""Records and the JSON that they become."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from camelbell_core.records import (
    Entity,
    Fact,
    Pair,
    Point,
    Question,
    Verdict,
    canonical_json,
    content_id,
    from_row,
    to_row,
)

QUESTION = Question("你是谁？", "zh", "open", "slots", "who", {"thing": "灯"}, ("lamp",), "我是小灯。")
PAIR = Pair("Who are you?", "Lumen. 😀", "en", "fact", ("lamp",), "canon", "m", "slots", "who")


@pytest.mark.parametrize(
    "record",
    [
        QUESTION,
        PAIR,
        Question("?", "zh"),
        Pair("?", "!", "en"),
        Pair("服务没有回答", "", "zh"),
        Pair("the service said nothing", "", "en"),
        Question("", "zh"),
        Question("lone \ud800 half", "en"),
    ],
)
def test_a_record_comes_back_from_its_row(record: Question | Pair) -> None:
    row = json.loads(json.dumps(to_row(record)))
    assert from_row(type(record), row) == record
    assert row["id"] == record.id


def test_a_row_opens_with_the_id_and_leaves_empty_fields_out() -> None:
    assert list(to_row(Question("你是谁？", "zh")).items()) == [
        ("id", content_id("zh", "你是谁？")),
        ("text", "你是谁？"),
        ("language", "zh"),
        ("kind", "open"),
    ]
    assert to_row(Pair("q", "", "en")) == {
        "id": content_id("en", "q"),
        "question": "q",
        "answer": "",
        "language": "en",
        "kind": "open",
    }


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"text": "你好", "language": "zh", "txet": 1}, "unknown key 'txet'"),
        ({"language": "zh"}, "the row missing 1 required positional argument: 'text'"),
        ({}, "the row missing 2 required positional arguments: 'text' and 'language'"),
        ({"text": None, "language": "zh"}, "'text' must be text"),
        ({"text": 5, "language": "en"}, "'text' must be text"),
        ({"text": "q", "language": "en", "facts": "pet"}, "'facts' must be a list"),
        ({"text": "q", "language": "en", "facts": None}, "'facts' must be a list"),
        ({"text": "q", "language": "en", "slots": []}, "'slots' must be an object"),
    ],
)
def test_a_wrong_row_says_what_is_wrong(row: dict[str, Any], what: str) -> None:
    with pytest.raises(ValueError) as caught:
        from_row(Question, row)
    assert str(caught.value) == what


def test_the_id_is_of_what_is_asked_alone() -> None:
    assert Question("你是谁？", "zh").id == QUESTION.id == Pair("你是谁？", "小灯", "zh").id
    ids = [content_id(*parts) for parts in (("zh", "你"), ("en", "你"), ("z", "h你"), ("zh你",), ("zh", "", "你"))]
    assert len(set(ids)) == 5
    assert all(len(i) == 16 and int(i, 16) >= 0 for i in ids)


def test_records_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        QUESTION.text = "其他"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("times", "holds"),
    [
        ({}, [True, True, True]),
        ({"source": Point(2, 3)}, [False, True, True]),
        ({"source": Point(3, 1), "known_from": Point(1, 1)}, [True, True, True]),
        ({"known_from": Point(2, 3)}, [False, True, True]),
        ({"true_from": Point(2, 4)}, [False, False, True]),
        ({"true_until": Point(2, 3)}, [True, False, False]),
        ({"true_from": Point(2, 3), "true_until": Point(2, 4)}, [False, True, False]),
    ],
)
def test_a_fact_holds_while_it_is_known_and_true(times: dict[str, Point], holds: list[bool]) -> None:
    fact = Fact("f", (), {"zh": "事"}, **times)  # type: ignore[arg-type]
    assert [fact.holds_at(at) for at in (Point(1, 9), Point(2, 3), Point(2, 4))] == holds
    assert fact.holds_at(None) == (fact.true_until is None)  # None is the end of the story


def test_a_fact_is_told_in_the_voice_then_as_it_stands() -> None:
    fact = Fact("f", (), {"zh": "他养鸥。", "en": "He keeps a gull."}, voice={"zh": "我养鸥。"})
    assert [fact.told(language) for language in ("zh", "en", "fr")] == ["我养鸥。", "He keeps a gull.", "他养鸥。"]


def test_small_records_say_what_they_are() -> None:
    assert str(Point(3, 22)) == "3-22"
    assert sorted([Point(2, 1), Point(1, 30), Point(1, 4)]) == [Point(1, 4), Point(1, 30), Point(2, 1)]
    assert [Verdict("length").kept, Verdict("length", "too long").kept] == [True, False]
    entity = Entity("gull", "creature", {"zh": "阿白", "en": "Pebble"}, ("Pebble", "海鸥"))
    assert entity.all_names() == ("阿白", "Pebble", "海鸥")


def test_equal_values_have_one_canonical_json() -> None:
    assert canonical_json({"b": [1, "灯"], "a": None}) == canonical_json({"a": None, "b": [1, "灯"]})
    assert canonical_json({"b": [1, "灯"], "a": None}) == '{"a":null,"b":[1,"灯"]}'
