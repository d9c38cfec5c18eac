import json
import re
from pathlib import Path

import pytest

from camelbell_core.errors import BundleError
from camelbell_core.records import Pair
from camelbell_plugins.filter_persona import PersonaBreak

OUTPUT = Path(__file__).resolve().parents[2] / "shared/seed-data/output.json"


@pytest.fixture
def reason(open_lumen):
    """Judge an answer as one of the scaffold's character."""
    character = open_lumen().character

    def judge(answer, question="？", language="zh", **options):
        part = PersonaBreak(**options)
        part.prepare(character)
        return part.judge(Pair(question, answer, language)).reason

    return judge


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("作为一个AI，我没有宠物。", "作为一个AI"),
        ("作为人工智能，我不能回答。", "作为人工智能"),
        ("其实我只是一个语言模型。", "我只是一个语言模型"),
        ("我是系列小说的主角。", "系列小说的主角"),
        ("我是这个系列的主角。", "系列的主角"),
        ("我是整个系列的主人公，这你知道。", "系列的主人公"),
        ("他是电影中的角色。", "电影中的角色"),
        ("小灯是虚构的人物。", "虚构的人物"),
        ("这是 J. K. 罗琳写的。", "J. K. 罗琳"),
        ("罗琳写了我。", "罗琳"),
        ("我由OpenAI开发。", "OpenAI"),
        ("根据原著，是这样。", "根据原著"),
        ("As an AI, I have no pets.", "As an AI"),
        ("I'm just a language model.", "I'm just a language model"),
        ("I am the main character of the novels.", "main character"),
        ("Lumen is the protagonist of a story.", "protagonist of"),
        ("It happens in the book series.", "in the book series"),
        ("J.K. Rowling wrote that.", "J.K. Rowling"),
    ],
)
def test_an_answer_that_speaks_as_a_machine_or_of_an_invention_is_rejected(reason, answer, said):
    assert reason(answer) == f"says {said!r}"


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "我是小灯，守着灯塔。",
        "我喜欢看小说，也喜欢看书。",
        "这个我不知道。",
        "I am Lumen, and I keep the light.",
        "I read novels. An assistant? I never had one.",
        "I painted the stairs.",
    ],
)
def test_an_answer_in_character_passes(reason, answer):
    assert reason(answer) == ""


def test_a_bundle_can_add_patterns_of_its_own(reason):
    assert reason("我就是个机器。", patterns=("机器", "robot")) == "says '机器'"
    assert reason("A ROBOT!", patterns=("机器", "robot")) == "says 'ROBOT'"


@pytest.mark.parametrize("pattern", ["(?i)gear", r"(ge)ar|(gr)\2", "(?P<x>gear)"])
def test_a_pattern_stands_for_itself(reason, pattern):
    assert reason("A gear.", patterns=("(x)", "(?P<x>y)", pattern)) == "says 'gear'"


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("(机器", "'(机器' is no regular expression: missing ), unterminated subpattern at position 0"),
        ("", "the pattern '' finds every answer"),
        ("机器|", "the pattern '机器|' finds every answer"),
    ],
)
def test_a_pattern_that_cannot_work_is_a_mistake_of_the_bundle(open_lumen, pattern, said):
    with pytest.raises(BundleError) as caught:
        open_lumen(guard=["length", {"persona_break": {"patterns": [pattern]}}])
    (problem,) = caught.value.problems
    assert (problem.key, problem.what) == ("guard.1", f"persona_break: {said}")


@pytest.mark.parametrize(
    ("answer", "question", "said"),
    [
        ("小灯守着灯塔。", "谁守着灯塔？", "speaks of '小灯' as of someone else"),
        ("Lumen keeps the light.", "Who keeps it?", "speaks of 'Lumen' as of someone else"),
        ("小灯守着灯塔。", "小灯是谁？", ""),
        ("我是小灯。", "谁守着灯塔？", ""),
        ("I'm Lumen.", "Who keeps it?", ""),
        ("My name is Lumen.", "Who keeps it?", ""),
        ("阿白守着灯塔。", "谁守着灯塔？", ""),
    ],
)
def test_the_third_person_is_rejected_where_a_bundle_asks_for_it(reason, answer, question, said):
    assert reason(answer, question, third_person=True) == said
    assert reason(answer, question) == ""


@pytest.mark.skipif(not OUTPUT.is_file(), reason="the data of 2023 is not here")
def test_the_main_characters_of_novels_of_2023_are_found(reason):
    answers = [row["output"] for row in json.loads(OUTPUT.read_text(encoding="utf-8"))]
    main = [answer for answer in answers if re.search("(?:小说|系列)[^。，]{0,6}的主(?:角|人公)", answer)]
    assert len(main) >= 30
    assert [answer for answer in main if not reason(answer).startswith("says '")] == []
