import json

import pytest

from camelbell_core.errors import CamelBellError
from camelbell_core.journal import write_rows
from camelbell_core.pipeline import filter_pairs
from camelbell_core.records import Pair, to_row
from camelbell_core.service.replies import Reply
from camelbell_plugins.filter_judge import LlmJudge, read_grade

PAIRS = [
    Pair("灯塔有多少级台阶？", "九十九级，我每天数一遍。", "zh", "fact", ("steps",)),
    Pair("What is your pet called?", "Pebble, and she is very loud.", "en", "fact", ("pet",)),
    Pair("你喜欢下雨吗？", "下雨就下雨呗，关我什么事。", "zh"),
    Pair("Do you like rain?", "Whatever, go away and ask someone else.", "en"),
    Pair("你冷吗？", "作为一个AI，我不冷。", "zh"),
    Pair("Are you cold?", "I am an AI and I feel no cold.", "en"),
]


def rows(file):
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def judged(open_lumen, chat_service):
    def judge(grade, filters=("persona_break",), **options):
        chat_service.script = lambda prompt, times: (200, {}, chat_service.told(grade(prompt)))
        run = open_lumen(filters=[*filters, {"llm_judge": {"base_url": chat_service.url, **options}}])
        write_rows(run.workspace.pairs, map(to_row, PAIRS))
        return run, filter_pairs(run)

    return judge


def rude(prompt):
    return "2\n语气不对" if "呗" in prompt else "1 - rude" if "Whatever" in prompt else "5"


def test_low_grades_are_rejected_with_their_reason_in_the_order_of_the_pairs(judged, chat_service):
    run, report = judged(rude, sample=0)
    assert [row["question"] for row in rows(run.workspace.kept)] == [pair.question for pair in PAIRS[:2]]
    reasons = {row["question"]: row["reason"] for row in rows(run.workspace.rejected) if row["filter"] == "llm_judge"}
    assert reasons == {PAIRS[2].question: "graded 2 of 5: 语气不对", PAIRS[3].question: "graded 1 of 5: rude"}
    assert report["filters"]["llm_judge"] == [4, 2]
    assert len(chat_service.requests) == 4  # what the canon's filters reject is not paid for


def test_the_judge_never_overrules_the_other_filters_and_its_agreement_is_told(judged, camelbell):
    run, report = judged(lambda prompt: "1" if "作为" in prompt else "5")
    assert len(rows(run.workspace.kept)) == 4
    assert report["opinions"] == {
        "llm_judge": {"asked": 2, "agreed": 1, "by_filter": {"persona_break": [1, 2]}, "ungraded": 0}
    }


def test_grades_are_kept_and_not_asked_for_again(judged, chat_service):
    run, report = judged(rude)
    asked = len(chat_service.requests)
    assert filter_pairs(run) == report and len(chat_service.requests) == asked


@pytest.mark.parametrize("least", [1, 2, 3])
def test_what_is_low_can_be_set(judged, least):
    _, report = judged(rude, sample=0, least=least)
    assert report["rejected"].get("llm_judge", 0) == {1: 0, 2: 1, 3: 2}[least]


def test_an_answer_without_a_grade_is_kept_and_counted(judged):
    run, report = judged(lambda prompt: "I cannot say." if "persona" not in prompt else "")
    assert len(rows(run.workspace.kept)) == 4
    assert report["opinions"]["llm_judge"]["ungraded"] == 6


@pytest.mark.parametrize(
    ("language", "words"), [("zh", ("只看语气", "九十九级", "数字")), ("en", ("Only tone", "Pebble", "digit"))]
)
def test_rubric_facts_question_and_answer_stand_in_the_prompt(judged, chat_service, language, words):
    judged(rude, sample=0, rubric={"zh": "只看语气", "en": "Only tone"})
    place = 0 if language == "zh" else 1
    prompts = [body["messages"][0]["content"] for body in chat_service.requests]
    (prompt,) = (prompt for prompt in prompts if PAIRS[place].question in prompt)
    assert all(word in prompt for word in (*words, PAIRS[place].answer))


@pytest.mark.parametrize(
    ("text", "grade"),
    [
        ("4", (4, "")),
        ("5\n很像他。", (5, "很像他。")),
        ("3/5: fine", (3, "fine")),
        ("分数：2分，跑题了", (2, "跑题了")),
        ("Grade: 1", (1, "")),
        ("10", (None, "")),
        ("7", (None, "")),
        ("", (None, "")),
        ("It is a very good answer that I would give four", (None, "")),
    ],
)
def test_a_grade_is_read_from_the_beginning(text, grade):
    assert read_grade(Reply(text)) == grade


def test_a_bound_outside_the_grades_is_a_mistake():
    with pytest.raises(CamelBellError, match="grades go from 1 to 5"):
        LlmJudge(least=0)
