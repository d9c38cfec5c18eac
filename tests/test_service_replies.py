import json

import pytest

from camelbell_core.service.replies import Reply, Trouble, read_reply, retry_after


def read(status, body, **headers):
    raw = body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
    return read_reply("the place", "m-1", "MY_KEY", status, {k.replace("_", "-"): v for k, v in headers.items()}, raw)


def body(content, **more):
    return {"choices": [{"message": {"role": "assistant", "content": content}, "finish_reason": "stop", **more}]}


@pytest.mark.parametrize("text", ["“你好”，😀 𠮷", "Hi there.\nSecond line"])
def test_a_reply_keeps_its_characters_and_its_counts(text):
    row = {**body(f"  {text}\n", finish_reason="length"), "usage": {"prompt_tokens": 5, "completion_tokens": 7}}
    assert read(200, row) == Reply(text, "length", 5, 7)


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": "many", "completion_tokens": -1}])
def test_counts_that_are_none_are_nought(usage):
    assert read(200, {**body("好"), "usage": usage}) == Reply("好", "stop", 0, 0)


def test_what_no_file_can_hold_does_not_come_in():
    assert read(200, '{"choices": [{"message": {"content": "a\\ud83d b"}}]}') == Reply("a? b")


@pytest.mark.parametrize(
    "text",
    [
        *(
            "<html>It works!</html>",
            "",
            "[1]",
            "null",
            '{"ok": 1}',
            '{"choices": [{}]}',
            '{"choices": 3}',
            "[" * 100_000,
        ),
        json.dumps(body(5)),
        json.dumps(body("cut"))[:-4],
        json.dumps(body("半"), ensure_ascii=False).encode().replace("半".encode(), "半".encode()[:2]),
    ],
)
def test_what_is_no_reply_may_be_mended_by_another_try(text):
    trouble = read(200, text)
    assert (trouble.kind, trouble.message) == ("again", "the place does not answer as OpenAI's chat API does")


@pytest.mark.parametrize(
    ("status", "row", "kind", "said"),
    [
        (401, {}, "stop", "the place refuses the key (HTTP 401)"),
        (403, {}, "stop", "the place refuses the key (HTTP 403)"),
        (404, {}, "stop", "the place has no model 'm-1' (HTTP 404)"),
        (402, {}, "stop", "the place says that the quota is used up (HTTP 402)"),
        (
            429,
            {"error": {"code": "insufficient_quota", "message": "You exceeded"}},
            "stop",
            "the place says that the quota is used up (HTTP 429)",
        ),
        (429, {"error": {"message": "slow\ndown"}}, "busy", "the place answers HTTP 429: slow down"),
        (503, "<html>busy", "busy", "the place answers HTTP 503: <html>busy"),
        (500, b"\xff\xfe\x1b[2J", "again", "the place answers HTTP 500: \ufffd\ufffd[2J"),
        (504, "", "again", "the place answers HTTP 504"),
        (400, {"error": "太长了"}, "never", "the place answers HTTP 400: 太长了"),
        (422, {"detail": 1}, "never", "the place answers HTTP 422"),
    ],
)
def test_each_trouble_says_what_it_is_and_whom_it_concerns(status, row, kind, said):
    trouble = read(status, row)
    assert isinstance(trouble, Trouble)
    assert (trouble.kind, trouble.message) == (kind, said)
    assert trouble.hint


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:10 GMT", "date": "Wed, 21 Oct 2015 07:28:00 GMT"}, 10),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:10 GMT"}, 0),
        ({"retry-after": "soon"}, 0),
        ({"retry-after": "-3"}, 0),
        ({"retry-after": "inf"}, 0),
        ({"retry-after": "nan"}, 0),
        ({}, 0),
    ],
)
def test_how_long_to_wait_needs_no_right_clock(headers, seconds):
    assert retry_after(headers) == seconds
