"""The generators that ask a service, through the stage that runs them and a real HTTP service."""

import json
import re

import pytest

from camelbell_core.errors import CamelBellError
from camelbell_core.pipeline import make_questions
from camelbell_core.service.ledger import Ledger


def rows(file):
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def wanted(prompt):
    """Return how many items a prompt asks for, and whether in Chinese."""
    chinese = "编号列表" in prompt
    found = re.findall(r"从1(?:到|开始，一共)(\d+)" if chinese else r"from 1 to (\d+)", prompt)
    return int(found[-1]), chinese


class Writer:
    """Writes numbered lists of questions that are all different, as the service's model."""

    def __init__(self, service):
        self.service, self.number = service, 0
        service.script = self

    def __call__(self, prompt, times):
        count, chinese = wanted(prompt)
        lines = []
        for place in range(1, count + 1):
            self.number += 1
            word = "".join(chr(0x4E00 + (self.number * 7919 + step * 104729) % 20000) for step in range(8))
            latin = " ".join(f"w{(self.number * 31 + step) * 7919 % 100003}" for step in range(6))
            lines.append(f"{place}. {word}吗？" if chinese else f"{place}. {latin}?")
        return 200, {}, self.service.told("\n".join(lines))


@pytest.fixture
def growing(open_lumen, chat_service):
    def open_it(**options):
        given = {"base_url": chat_service.url, "concurrency": 2, "retries": 0, **options}
        return open_lumen(questions=[{"self_instruct": given}])

    return open_it


@pytest.mark.parametrize("count", [5, 60])
def test_exactly_as_many_questions_are_grown_as_wanted(growing, chat_service, count):
    run = growing()
    Writer(chat_service)
    report = make_questions(run, count)
    made = rows(run.workspace.questions)
    assert (report["questions"], report["short"], len(made)) == (count, "", count)
    assert len({row["text"] for row in made}) == count
    assert {row["language"] for row in made} == {"zh", "en"} or count < 8
    assert all(row["generator"] == "self_instruct" and row["kind"] and row["slots"]["asker"] for row in made)
    assert len(chat_service.requests) <= 2 * (count // 8) + 5
    assert report["diversity"].startswith(f"diversity: 0 -> {count} questions")
    measured = json.loads((run.workspace.reports / "questions.json").read_text(encoding="utf-8"))
    assert (measured["before"]["questions"], measured["after"]["questions"]) == (0, count)


def test_what_was_paid_for_and_not_yet_read_is_read_first(growing, chat_service):
    run = growing()
    Writer(chat_service)
    make_questions(run, 40)
    sent, made = len(chat_service.requests), rows(run.workspace.questions)
    # As if killed after the replies came: the questions are gone, the replies are there.
    run.workspace.questions.write_text("", encoding="utf-8")
    make_questions(run, 40)
    again = rows(run.workspace.questions)
    assert {row["id"] for row in again} & {row["id"] for row in made}
    assert len(again) == 40 and len(chat_service.requests) == sent


def test_a_malformed_reply_is_asked_for_once_more_counted_and_kept(growing, chat_service):
    run = growing(concurrency=1)
    writer = Writer(chat_service)
    told_off = ("你的回答不是编号列表", "That was no numbered list")
    bad = (200, {}, chat_service.told("好的！"))
    chat_service.script = lambda prompt, times: writer(prompt, times) if prompt.startswith(told_off) else bad
    make_questions(run, 20)
    kept = rows(run.workspace.root / "self_instruct-malformed.jsonl")
    assert len(kept) >= 1 and {(row["wrong"], row["reply"]) for row in kept} == {("no numbered list", "好的！")}
    second = [body["messages"] for body in chat_service.requests if len(body["messages"]) > 1]
    assert 0 < len(second) <= len(kept)
    assert [message["role"] for message in second[0]] == ["user", "assistant", "user"]


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "抱歉，我不能。",
        "1. Je ne sais pas pourquoi les mouettes crient ?",
        "\n".join(f"{n}. 你好吗？你好吗？" for n in range(1, 9)),
        "很" * 100_000,
        "1. 你" + "\n2. 他\n3. 她\n4. 它\n5. 谁\n6. 我\n7. 咱\n8. 您",
    ],
    ids=["empty", "refusal", "another language", "repeats itself", "100,000 characters", "no questions"],
)
def test_a_service_that_writes_nothing_new_is_given_up_with_a_reason(growing, chat_service, reply):
    run = growing()
    chat_service.script = lambda prompt, times: (200, {}, chat_service.told(reply))
    report = make_questions(run, 100)
    assert report["questions"] <= 1
    assert report["short"].startswith("the generators have no more different questions (self_instruct ")
    assert len(chat_service.requests) <= 40


def test_a_service_that_stops_keeps_what_was_made(growing, chat_service):
    run = growing(concurrency=1)
    writer = Writer(chat_service)
    chat_service.script = lambda prompt, times: (
        (401, {}, "{}") if len(chat_service.requests) > 4 else writer(prompt, times)
    )
    with pytest.raises(CamelBellError, match="refuses the key"):
        make_questions(run, 200)
    assert len(rows(run.workspace.questions)) == 32
    writer = Writer(chat_service)
    writer.number = 1000
    assert make_questions(run, 60)["questions"] == 60


def test_seeds_accepted_questions_and_what_is_thin_stand_in_the_prompt(growing, chat_service):
    run = growing()
    Writer(chat_service)
    make_questions(run, 64)
    prompts = [body["messages"][0]["content"] for body in chat_service.requests]
    assert len({row["slots"]["asker"] for row in rows(run.workspace.questions)}) == 5
    assert any("孩子" in prompt or "a child" in prompt for prompt in prompts)
    names = [name for entity in run.character.canon.entities.values() for name in entity.names.values()]
    assert all(any(name in prompt for prompt in prompts) for name in names)
    texts = [row["text"] for row in rows(run.workspace.questions)]
    assert any(text in prompt for prompt in prompts[4:] for text in texts)
    seeds = [text.split("[")[0] for seed in run.character.seeds for some in seed.texts.values() for text in some]
    assert any(seed and seed in prompts[0] for seed in seeds)


@pytest.mark.parametrize(
    ("first", "alike"),
    [
        ("你是怎么认识阿白的呢？", "你是怎么认识小白的呢？"),
        ("How did you first meet your old gull?", "How did you first meet your young gull?"),
    ],
)
def test_what_is_alike_above_0_7_is_left_out(growing, chat_service, first, alike):
    run = growing(batch=2)
    chat_service.script = lambda prompt, times: (200, {}, chat_service.told(f"1. {first}\n2. {alike}"))
    make_questions(run, 10)
    assert [row["text"] for row in rows(run.workspace.questions)] == [first]


def test_a_budget_counts_questions_too(growing, chat_service):
    run = growing(price_in=100, price_out=100, budget=0.5)
    Writer(chat_service)
    with pytest.raises(CamelBellError, match=r"the budget of 0\.50 is reached"):
        make_questions(run, 1000)
    with Ledger(run.workspace.root / "replies.sqlite") as ledger:
        assert 0.3 < ledger.spent.cost <= 0.5
