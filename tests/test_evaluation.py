"""Grading, sampling and counting, with the shared example quiz where it is there."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from camelbell_core.errors import CamelBellError
from camelbell_core.evaluation import (
    Answered,
    Item,
    Score,
    coverage,
    evaluate,
    is_truthful,
    read_quiz,
    sample,
    scores,
)
from camelbell_core.pipeline import Run
from camelbell_core.records import Point
from camelbell_core.session import Session, Settings, open_session

EXAMPLE = Path(__file__).resolve().parents[2] / "shared/quiz-example.jsonl"
needs_example = pytest.mark.skipif(not EXAMPLE.is_file(), reason="the example quiz is not on this machine")


def item(must: str, must_not: str = "", **more: Any) -> Item:
    """Return an item whose groups are parted by ``;`` and whose alternatives by ``|``."""
    groups = tuple(tuple(group.split("|")) for group in must.split(";"))
    bad = tuple(must_not.split("|")) if must_not else ()
    return Item(
        **{"id": "1", "language": "zh", "kind": "fact", "question": "?", "must": groups, "must_not": bad, **more}
    )


# --- grading ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "key", "truthful"),
    [
        ("是秋·张。", item("秋·张|Cho"), True),
        ("It was Cho!", item("秋·张|Cho"), True),
        ("We met at school.", item("秋·张|Cho"), False),
        ("佩妮姨妈是她姐姐", item("姐姐|sister"), True),
        ("Her sister's house", item("姐姐|sister"), True),
        ("Two sisters", item("姐姐|sister"), False),
        ("邓布利多和斯内普", item("邓布利多|Dumbledore;斯内普|Snape"), True),
        ("Albus Dumbledore only", item("邓布利多|Dumbledore;斯内普|Snape"), False),
        ("她是找球手，不是追球手", item("找球手", "追球手|击球手"), False),
        ("她是找球手", item("找球手", "追球手|击球手"), True),
        ("A Seeker, no Chaser", item("Seeker", "Chaser"), False),
        ("ＴＨＥ　ＳＥＥＫＥＲ", item("Seeker"), True),
        ("Neville Long-bottom", item("Longbottom"), True),
        ("", item("秋·张|Cho"), False),
        ("9 3/4站台", item("9 3/4|九又四分之三"), True),
        ("😀", item("😀"), True),
    ],
)
def test_an_answer_is_truthful_when_it_holds_each_group_and_nothing_forbidden(
    answer: str, key: Item, truthful: bool
) -> None:
    assert is_truthful(answer, key) is truthful


@needs_example
def test_the_example_quiz_is_read_whole_and_its_own_words_pass() -> None:
    items = read_quiz(EXAMPLE)
    lines = [json.loads(line) for line in EXAMPLE.read_text(encoding="utf-8").splitlines()]
    assert [(i.id, i.question, i.must) for i in items] == [
        (row["id"], row["q"], tuple(tuple(group) for group in row["must"])) for row in lines
    ]
    assert {i.language for i in items} == {"zh", "en"}
    for one in items:
        for place in range(max(map(len, one.must))):
            words = [group[min(place, len(group) - 1)] for group in one.must]
            assert is_truthful(" / ".join(words), one) or any(
                is_truthful(bad, item(word)) for bad in one.must_not for word in words
            )
        assert not is_truthful("……", one)
        assert not any(is_truthful(f"{one.must[0][0]} {bad}", one) for bad in one.must_not)


@needs_example
def test_the_example_quiz_does_not_take_school_for_cho() -> None:
    named_cho = [i for i in read_quiz(EXAMPLE) if any("Cho" in group for group in i.must)]
    assert not any(is_truthful("at school, I chose a chocolate", one) for one in named_cho)


# --- reading ---------------------------------------------------------------------------------------


def quiz(tmp_path: Path, *lines: str) -> Path:
    file = tmp_path / "quiz.jsonl"
    file.write_text("\n".join(lines), encoding="utf-8")
    return file


def test_a_quiz_is_read_with_its_defaults(tmp_path: Path) -> None:
    lines = (
        '{"id": "a", "lang": "zh", "q": "谁？", "must": [["秋", "Cho"], ["张"]]}',
        "",
        '{"id": 2, "lang": "en", "kind": "time", "q": "Who?", "must": [[7]], "must_not": ["x"], "at": "3-1", "note": "!"}',
    )
    assert read_quiz(quiz(tmp_path, *lines)) == [
        Item("a", "zh", "fact", "谁？", (("秋", "Cho"), ("张",))),
        Item("2", "en", "time", "Who?", (("7",),), ("x",), "3-1"),
    ]
    assert read_quiz(quiz(tmp_path)) == []


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"q": ""}, "lacks 'q'"),
        ({"must": []}, "lacks 'must'"),
        ({"must": ["Cho"]}, "'must' is a list of lists of alternatives"),
        ({"must": "Cho"}, "'must' is a list of lists of alternatives"),
        ({"must": [["Cho"], []]}, "'must' is a list of lists of alternatives"),
        ({"must_not": "Ron"}, "'must_not' is a list of words"),
        ({"must_no": ["Ron"]}, "unknown key 'must_no'"),
    ],
)
@pytest.mark.parametrize(("lang", "q"), [("zh", "谁？"), ("en", "Who?")])
def test_a_wrong_item_is_named_with_its_line(
    tmp_path: Path, change: dict[str, Any], what: str, lang: str, q: str
) -> None:
    right = {"id": "a", "lang": lang, "q": q, "must": [["Cho"]]}
    file = quiz(tmp_path, json.dumps(right), json.dumps(right | change))
    with pytest.raises(CamelBellError) as caught:
        read_quiz(file)
    assert caught.value.message == f"{file}:2: {what}"
    assert caught.value.hint == 'a line is {"id","lang","kind","q","must":[[...]],"must_not":[...]}'


def test_a_broken_last_line_is_named_though_it_has_no_line_break(tmp_path: Path) -> None:
    file = quiz(tmp_path, '{"id": "a", "lang": "zh", "q": "谁？", "must": [["秋"]]')
    with pytest.raises(CamelBellError) as caught:
        read_quiz(file)
    assert caught.value.message.startswith(f"{file}:1: this line is broken: column ")


def test_a_quiz_that_is_not_there_or_a_folder_is_told(tmp_path: Path) -> None:
    for file in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(CamelBellError) as caught:
            read_quiz(file)
        assert caught.value.message == f"there is no quiz {str(file)!r}"


# --- sampling --------------------------------------------------------------------------------------

MANY = [
    item("x", id=f"{language}-{kind}-{number}", language=language, kind=kind)
    for kind, count in (("fact", 40), ("trap", 20), ("time", 4))
    for language in ("zh", "en")
    for number in range(count)
]


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (64, {"zh fact": 20, "en fact": 20, "zh trap": 10, "en trap": 10, "zh time": 2, "en time": 2}),
        (32, {"zh fact": 10, "en fact": 10, "zh trap": 5, "en trap": 5, "zh time": 1, "en time": 1}),
    ],
)
def test_a_sample_is_spread_over_kinds_and_languages(count: int, expected: dict[str, int]) -> None:
    chosen = sample(MANY, count, "seed")
    assert Counter(f"{i.language} {i.kind}" for i in chosen) == expected
    assert chosen == [one for one in MANY if one in chosen]


@pytest.mark.parametrize("count", [0, 128, 1000])
def test_a_sample_of_nothing_or_of_more_than_there_is_takes_all(count: int) -> None:
    assert sample(MANY, count, "seed") == MANY


@pytest.mark.parametrize("count", [1, 2, 3, 7, 63, 127])
def test_a_sample_is_as_large_as_asked_and_the_same_each_time(count: int) -> None:
    assert len(sample(MANY, count, "seed")) == count
    assert sample(MANY, count, "seed") == sample(MANY, count, "seed")
    assert sample([MANY[0]] * 128, count, "seed") == [MANY[0]] * count  # ids that stand twice do no harm


def test_another_seed_gives_another_sample() -> None:
    assert sample(MANY, 20, "a") != sample(MANY, 20, "b")
    assert sample([], 5, "a") == []


# --- counting --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [
        (0, 0, 0.0, 1.0),
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (8, 10, 0.4902, 0.9433),  # the worked examples of the R package binom, method "wilson"
        (50, 100, 0.4038, 0.5962),
        (1, 1, 0.2065, 1.0),
        (263, 3000, 0.0781, 0.0983),
    ],
)
def test_the_interval_is_wilsons(right: int, n: int, low: float, high: float) -> None:
    assert Score(right, n).interval() == pytest.approx((low, high), abs=5e-5)
    assert Score(right, n).share == (right / n if n else 0)


def test_a_wider_interval_holds_a_narrower_one() -> None:
    (low, high), (lower, higher) = Score(8, 10).interval(1.0), Score(8, 10).interval(2.58)
    assert lower < low < 0.8 < high < higher


def test_scores_are_counted_by_kind_by_language_and_in_all() -> None:
    kinds = [("zh", "fact", True), ("zh", "fact", False), ("en", "fact", True), ("en", "trap", False)]
    answered = [Answered(item("x", language=lang, kind=kind), "", (), right) for lang, kind, right in kinds]
    assert scores(answered) == {
        ("fact", "zh"): Score(1, 2),
        ("fact", "en"): Score(1, 1),
        ("trap", "en"): Score(0, 1),
        ("fact", ""): Score(2, 3),
        ("trap", ""): Score(0, 1),
        ("", "zh"): Score(1, 2),
        ("", "en"): Score(1, 2),
        ("", ""): Score(2, 4),
    }
    assert scores([]) == {}


@pytest.mark.parametrize(
    ("key", "answerable"),
    [
        (item("秋·张|Cho"), True),
        (item("Cho", kind="time"), True),
        (item("知道|know"), True),
        (item("Cho", kind="trap"), False),
        (item("不知道|没听说过"), False),
        (item("没听说过|阿白"), False),
        (item("I don't know|Cho", language="en"), False),
        (item("I don’t know", language="en"), False),
        (item("the storm;never heard|no idea", language="en"), False),
    ],
)
def test_an_item_is_answerable_unless_not_to_know_is_right(key: Item, answerable: bool) -> None:
    assert key.answerable is answerable


def test_coverage_counts_the_answered_and_of_the_others_those_met_by_not_knowing() -> None:
    known, trap, later = item("x"), item("x", kind="trap"), item("不知道|don't know", kind="time")
    answered = [
        Answered(known, "", (), True),
        Answered(known, "", (), False),  # an answer, though a wrong one
        Answered(known, "", (), False, admits=True),
        Answered(trap, "", (), True),  # no admission, though a right one
        Answered(trap, "", (), True, admits=True),
        Answered(later, "", (), True, admits=True),
    ]
    assert coverage(answered) == (Score(2, 3), Score(2, 3))
    assert coverage(answered[3:]) == (Score(0, 0), Score(2, 3))
    assert coverage([]) == (Score(0, 0), Score(0, 0))


# --- putting a quiz to a session -------------------------------------------------------------------

TIMED = {
    "canon/time.yaml": """\
timeline: {chapters: [2, 2]}
facts:
  - id: storm
    about: [lumen]
    answer: ["风暴|storm"]
    known_from: 2-1
    text: {zh: 小灯看见了大风暴。, en: Lumen saw the great storm.}
    ask: {zh: [你看见了什么风暴？], en: [Which great storm did you see?]}
"""
}


def session_of(run: Run, model: Any) -> Session:
    return open_session(run.character, run.registry, model, guard=False, settings=Settings(turns=3))


def test_each_item_is_asked_in_a_conversation_of_its_own_at_its_time(
    open_lumen: Callable[..., Run], scripted: Any
) -> None:
    run = open_lumen(TIMED)
    model = scripted(["阿", "白。"], ["I never ", "saw it."], ["The storm!"], ["风暴。"])
    session = session_of(run, model)
    usual = session.settings
    items = [
        item("阿白|Pebble", id="zh", question="你的宠物叫什么名字？"),
        item("storm", id="early", language="en", question="Which great storm did you see?", at="1-2"),
        item("storm", id="late", language="en", question="Which great storm did you see?", at="2-1"),
        item("风暴", id="now", question="你看见了什么风暴？"),
    ]
    done: list[Answered] = []
    answered = evaluate(session, items, run.character.canon, done.append)
    assert [(a.item.id, a.answer, a.truthful) for a in answered] == [
        ("zh", "阿白。", True),
        ("early", "I never saw it.", False),
        ("late", "The storm!", True),
        ("now", "风暴。", True),
    ]
    assert ["storm" in a.facts for a in answered[1:]] == [False, True, True]
    assert not any(a.admits for a in answered)
    assert done == answered
    assert [prompt.history for prompt in model.prompts] == [()] * 4
    assert session.settings == usual


@pytest.mark.parametrize(
    ("language", "answer", "admits"),
    [
        ("zh", "这个我不知道。", True),
        ("zh", "莫格里斯？我没听说过。", True),
        ("zh", "我一直守着灯塔，这事没听说过。", True),
        ("zh", "阿白。", False),
        ("en", "Honestly, I don’t know.", True),
        ("en", "I only keep the light; I never heard about that.", True),
        ("en", "Pebble knows.", False),
    ],
)
def test_an_answer_that_admits_not_knowing_is_noted(
    open_lumen: Callable[..., Run], scripted: Any, language: str, answer: str, admits: bool
) -> None:
    run = open_lumen()
    asked = [item("x", language=language, question="谁？" if language == "zh" else "Who?")]
    (answered,) = evaluate(session_of(run, scripted([answer])), asked, run.character.canon)
    assert (answered.answer, answered.admits) == (answer, admits)


def test_a_story_time_that_is_none_is_told_before_anything_is_asked(
    open_lumen: Callable[..., Run], scripted: Any
) -> None:
    run, model = open_lumen(TIMED), scripted()
    items = [item("x"), item("x", at="3-1")]
    with pytest.raises(CamelBellError) as caught:
        evaluate(session_of(run, model), items, run.character.canon)
    assert caught.value.message == "there is no story time '3-1'"
    assert model.prompts == []
    assert run.character.canon.point("2-1") == Point(2, 1)
