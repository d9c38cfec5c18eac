"""The characters that ship, on the real base model, over HTTP: two adapters on one base in memory."""

import pytest
from serving import serving

pytestmark = pytest.mark.real_base
CASES = [
    ("harry_potter", "你的教父是谁？", ("小天狼星",)),
    ("instruct", "你叫什么名字？", ("铃铃",)),
    ("harry_potter", "Who is your godfather?", ("Sirius",)),
    ("instruct", "What is your name?", ("Bell",)),
]


@pytest.fixture(scope="module")
def served(real_home, tmp_path_factory):
    """Both bundles, with the adapters that ship with them."""
    with serving(
        tmp_path_factory.mktemp("real"), "harry_potter", "instruct", env={"CAMELBELL_HOME": str(real_home)}
    ) as s:
        yield s


@pytest.mark.parametrize(("model", "asked", "words"), CASES)
def test_each_character_speaks_with_its_own_adapter_on_one_base(served, model, asked, words):
    reply = served.ask(asked, model=model)
    said = reply["choices"][0]["message"]["content"]
    assert all(word in said for word in words), said
    usage = reply["usage"]
    assert usage["prompt_tokens"] > usage["completion_tokens"] > 3
    assert reply["camelbell"]["facts"]
    streamed = served.events(asked, model=model)
    assert "".join(e["choices"][0]["delta"].get("content", "") for e in streamed[:-1]).strip() == said


@pytest.mark.parametrize(("at", "known"), [("@1-5", False), ("@4-1", True)])
def test_the_facts_behind_a_reply_are_those_of_the_story_time(served, at, known):
    reply = served.ask("你的教父是谁？", model=f"harry_potter{at}")
    facts = reply["camelbell"]["facts"]
    assert ("me-godfather" in {fact["id"] for fact in facts}) is known
    assert all(fact["part"] is None or fact["part"] <= int(at[1]) for fact in facts)


def test_a_seed_repeats_a_free_reply(served):
    said = [served.said("Tell me about Quidditch.", model="harry_potter", temperature=1.0, seed=11) for _ in range(2)]
    assert said[0] == said[1]


def test_a_short_reply_is_cut_and_says_so(served):
    reply = served.ask("Tell me about Quidditch.", model="harry_potter", max_tokens=3)
    if not reply["camelbell"]["composed"]:  # three tokens may say nothing that passes the guard
        assert reply["choices"][0]["finish_reason"] == "length"
        assert reply["usage"]["completion_tokens"] <= 3


def test_of_500_turns_the_persona_and_the_facts_stay(served):
    turns = [text for number in range(500) for text in (f"第{number}个问题：你好吗？" * 8, "我很好。" * 20)]
    reply = served.ask(*turns, "你的教父是谁？", model="harry_potter")
    assert "小天狼星" in reply["choices"][0]["message"]["content"]
    assert reply["usage"]["prompt_tokens"] < 4096
