"""What the prompts of self_instruct hold; how the pool grows is tested in test_growing.py."""

import re
from collections import Counter
from random import Random

import pytest

from camelbell_core.records import Question
from camelbell_core.roles import QuestionTools
from camelbell_plugins.questions_self_instruct import ASKERS, SelfInstruct


def wishes(character, count, accepted=(), **options):
    part = SelfInstruct(base_url="http://127.0.0.1:1/v1", **options)
    part.prepare(QuestionTools(accepted=lambda: accepted))
    return list(part.wishes(character, count, Random(0)))


def test_kinds_askers_and_languages_take_turns(open_lumen):
    character = open_lumen().character
    made = wishes(character, 60)
    kinds = {seed.kind for seed in character.seeds}
    assert Counter(wish.model.slots["asker"] for wish in made) == dict.fromkeys(ASKERS, 12)
    assert set(Counter(wish.model.kind for wish in made)) == kinds
    assert min(Counter(wish.model.language for wish in made).values()) > 10


@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("zh", ("你替他们想问题", "编号列表", "从1到5")),
        ("en", ("you think up what they ask", "numbered list", "from 1 to 5")),
    ],
)
def test_a_prompt_is_in_one_language(open_lumen, language, words):
    character = open_lumen().character
    prompt = next(w for w in wishes(character, 30, batch=5) if w.model.language == language).messages[0].content
    assert all(word in prompt for word in words)
    assert character.title(language) in prompt


def test_what_has_few_questions_is_asked_for_first(open_lumen):
    character = open_lumen().character
    entities = character.canon.entities
    common, *rare = entities
    name = entities[common].names["zh"]
    accepted = [Question(f"{name}第{n}次说了什么？", "zh", "talk", slots={"asker": "child"}) for n in range(50)]
    prompts = [wish.messages[0].content for wish in wishes(character, 8, accepted, entities=1)]
    assert not any("孩子" in prompt or "a child" in prompt for prompt in prompts)
    orders = [
        re.search(r"(?:问题里要谈到这些，各至少一个：|Talk about each of these at least once: )(.*)", p)[1]
        for p in prompts
    ]
    assert not any(order.startswith((name, entities[common].names["en"])) for order in orders)
    assert any(order.startswith((entities[rare[0]].names["zh"], entities[rare[0]].names["en"])) for order in orders)


def test_a_question_that_names_an_example_again_is_alike(open_lumen):
    character = open_lumen().character
    part = SelfInstruct(base_url="http://127.0.0.1:1/v1")
    part.prepare(QuestionTools(accepted=lambda: [Question("你晚上在灯塔里做什么？", "zh")]))
    wish = next(wish for wish in part.wishes(character, 40, Random(0)) if wish.model.language == "zh")
    assert part.takes(character, wish, "你晚上在灯塔里做什么呢？") == "alike"
    assert part.takes(character, wish, "海上起大雾的时候怎么办？") == ""
    assert part.takes(character, wish, "海上起大雾的时候怎么办？") == "alike"
    assert part.takes(character, wish, "What about the fog?") == "in another language"
