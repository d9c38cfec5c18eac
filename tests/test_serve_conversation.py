"""From messages to turns: who said what, what is asked, and what cannot be answered."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camelbell_plugins.frontend_serve.conversation import Conversation, read_conversation
from camelbell_plugins.frontend_serve.wire import ChatMessage, Refusal


def messages(*pairs):
    short = {"u": "user", "a": "assistant", "s": "system", "d": "developer", "t": "tool"}
    return [ChatMessage(role=short[role], content=content) for role, content in pairs]


@pytest.mark.parametrize(
    ("said", "turns", "question", "ignored"),
    [
        ([("u", "你是谁？")], (), "你是谁？", ()),
        ([("u", "a"), ("a", "b"), ("u", "c")], (("a", "b"),), "c", ()),
        (
            [("s", "You are a pirate."), ("u", "你好"), ("s", "Stay in role."), ("d", "x")],
            (),
            "你好",
            ("system", "developer"),
        ),
        ([("a", "嘿，我是哈利。"), ("u", "hi")], (), "hi", ()),  # a greeting
        ([("u", "a"), ("u", "b"), ("a", "c"), ("a", "d"), ("u", "e")], (("a\nb", "c\nd"),), "e", ()),
        ([("u", "a"), ("a", ""), ("u", "b")], (), "a\nb", ()),  # a reply that was stopped at once
        ([("u", "a"), ("a", None), ("u", "b")], (), "a\nb", ()),
        ([("u", [{"type": "text", "text": "你好，"}, {"type": "text", "text": "哈利"}])], (), "你好，\n哈利", ()),
        ([("u", " \x1b[31m红\x07\u202e \ud800")], (), "[31m红 ?", ()),
    ],
)
def test_messages_become_turns(said, turns, question, ignored):
    assert read_conversation(messages(*said)) == Conversation(turns, question, ignored)


IMAGE = [{"type": "image_url", "image_url": {"url": "http://127.0.0.1/x.png"}}]


@pytest.mark.parametrize(
    ("said", "code", "param", "words"),
    [
        ([("u", "")], "empty_message", "messages[0]", "empty"),
        ([("u", "  \n\t")], "empty_message", "messages[0]", "empty"),
        ([("u", "\x00\x1b\u202e")], "empty_message", "messages[0]", "empty"),
        ([("u", "a"), ("a", "b"), ("u", None)], "empty_message", "messages[2]", "empty"),
        ([("u", [])], "empty_message", "messages[0]", "empty"),
        ([("s", "x")], "empty_message", "messages", "empty"),
        ([("a", "x")], "empty_message", "messages", "empty"),
        ([("u", "a"), ("a", "b")], "invalid_value", "messages", "the last message must be the user's"),
        ([("u", "a"), ("t", "b"), ("u", "c")], "unsupported", "messages[1]", "no tools"),
        ([("u", IMAGE)], "unsupported", "messages[0]", "no 'image_url'"),
        ([("u", "长" * 11), ("a", "b"), ("u", "c")], "string_above_max_length", "messages[0]", "11 characters"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_a_reason_and_a_place(said, code, param, words):
    with pytest.raises(Refusal) as caught:
        read_conversation(messages(*said), longest=10)
    assert (caught.value.status, caught.value.body.code, caught.value.body.param) == (400, code, param)
    assert words in caught.value.body.message


def test_a_long_system_message_is_no_mistake():
    assert read_conversation(messages(("s", "x" * 50), ("u", "a")), longest=10).question == "a"


@given(st.lists(st.tuples(st.sampled_from("uasd"), st.text(max_size=5)), min_size=1, max_size=12))
def test_any_messages_are_read_or_refused(said):
    try:
        conversation = read_conversation(messages(*said))
    except Refusal as refusal:
        assert refusal.status == 400
    else:
        assert conversation.question.strip()
        assert all(question and answer for question, answer in conversation.turns)
