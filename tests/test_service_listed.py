import pytest

from camelbell_core.service.listed import read_list, why_no_question
from camelbell_core.service.replies import Reply


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("1. 你是谁？\n2. 你冷吗？", ("你是谁？", "你冷吗？")),
        ("1、你是谁？\n2、“你冷吗？”", ("你是谁？", "你冷吗？")),
        ("1) Who are you?\n\n2) **Are you cold?**", ("Who are you?", "Are you cold?")),
        ("Here they are:\n1. Who are you?\n2. Are you cold?\nI hope this helps!", ("Who are you?", "Are you cold?")),
        ("**1.** 你是谁？\n**2.** 你冷吗？", ("你是谁？", "你冷吗？")),
    ],
)
def test_a_numbered_list_is_read(text, items):
    listed = read_list(Reply(text), 2)
    assert (listed.items, listed.wrong) == (items, "")


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "no numbered list"),
        ("你是谁？\n你冷吗？", "no numbered list"),
        ("- Who are you?\n- Are you cold?", "no numbered list"),
        ("1. a\n3. b", "numbered 1, 3"),
        ("1. a\n1. b\n1. c", "numbered 1, 1, 1"),
        ("1. a\n好\n不\n好\n2. b", "3 lines are no items"),
        ("1. a", "1 items, 4 were asked for"),
        ("\n".join(f"{n}. gull {n}?" for n in range(1, 6)), "5 items, 4 were asked for"),
        ("0. a\n1. b", "numbered 0, 1"),
    ],
)
def test_a_reply_of_another_form_is_malformed(text, wrong):
    assert (read_list(Reply(text), 4).items, read_list(Reply(text), 4).wrong) == ((), wrong)


@pytest.mark.parametrize(
    ("text", "whole"), [("1. 你是谁？\n2. 你冷吗？\n3. 你在", 2), ("1. Who?\n2. Are you cold?\n3. Wh", 2)]
)
def test_an_item_that_was_cut_off_is_left_out(text, whole):
    assert len(read_list(Reply(text, "length"), 4).items) == whole
    assert len(read_list(Reply(text, "stop"), 4).items) == whole + 1


@pytest.mark.parametrize(
    ("text", "language", "why"),
    [
        ("你住在灯塔里吗？", "zh", ""),
        ("Do you live in the lighthouse?", "en", ""),
        ("谁？", "zh", "too short"),
        ("Why?", "en", "too short"),
        ("很" * 81, "zh", "too long"),
        ("Why " * 80 + "?", "en", "too long"),
        ("Do you live in the lighthouse?", "zh", "in another language"),
        ("你住在灯塔里吗？", "en", "in another language"),
        ("I live in the lighthouse.", "en", "no question"),
        ("Do you like [thing]?", "en", "of another form"),
        ("你喜欢<b>灯塔</b>吗？", "zh", "of another form"),
        ("一个。两个。三个。四个吗？", "zh", "of another form"),
    ],
)
def test_what_is_no_question_is_told(text, language, why):
    assert why_no_question(text, language, ["zh", "en"]) == why
