from random import Random

import pytest

from camelbell_core.records import Question
from camelbell_plugins.questions_canon import CanonQuestions

ASKS = {
    "pet": {
        "你的宠物叫什么名字？",
        "谁在灯塔里陪着你？",
        "What is your pet called?",
        "Who keeps you company in the lighthouse?",
    },
    "steps": {
        "灯塔有多少级台阶？",
        "爬上灯塔要走几级楼梯？",
        "How many steps has the lighthouse?",
        "How many stairs do you climb to the light?",
    },
}


def generate(run, count=1000, seed="s", **options):
    return list(CanonQuestions(**options).generate(run.character, count, Random(seed)))


def test_every_wording_of_every_fact_is_asked_once(open_lumen):
    questions = generate(open_lumen(), frames=0)
    assert {fact: {q.text for q in questions if q.seed == fact} for fact in ASKS} == ASKS
    assert len(questions) == 8


def test_a_question_tells_which_fact_it_asks_for(open_lumen):
    questions = generate(open_lumen({"seeds/seeds.yaml": ""}, languages=["en"]), frames=0)
    assert Question("What is your pet called?", "en", "fact", "canon", "pet", facts=("pet",)) in questions
    assert {q.language for q in questions} == {"en"} and len(questions) == 4


@pytest.mark.parametrize("count", [0, 1, 2, 5, 8, 20])
def test_exactly_as_many_as_asked_for_all_different(open_lumen, count):
    questions = generate(open_lumen(), count)
    assert len(questions) == len({q.text for q in questions}) == count


def test_every_fact_is_asked_once_before_any_fact_twice(open_lumen):
    seeds = [question.seed for question in generate(open_lumen(), 8, frames=0)]
    assert all({*seeds[i : i + 2]} == {"pet", "steps"} for i in range(0, 8, 2))


def test_the_languages_take_turns_among_the_facts_and_among_the_wordings_of_a_fact(open_lumen):
    questions = generate(open_lumen(), 8, frames=0)
    assert all({q.language for q in questions[i : i + 2]} == {"zh", "en"} for i in range(0, 8, 2))
    assert all({q.language for q in questions if q.seed == fact} == {"zh", "en"} for fact in ASKS)


def test_own_wordings_come_before_framed_ones_and_frames_keep_them_whole(open_lumen):
    questions = generate(open_lumen(), frames=10)
    own = {text for asks in ASKS.values() for text in asks}
    assert {q.text for q in questions[:8]} == own
    framed = questions[8:]
    assert len(framed) >= 10
    assert all(any(a.rstrip("？?").lower() in q.text.lower() for a in ASKS[q.seed]) for q in framed)
    assert max(sum(q.seed == fact for q in framed) for fact in ASKS) <= 10


def test_the_same_random_numbers_give_the_same_questions(open_lumen):
    run = open_lumen()
    assert generate(run, seed="a") == generate(run, seed="a") != generate(run, seed="b")


def test_a_fact_that_nobody_asks_for_makes_no_question(open_lumen):
    canon = """
entities: {lumen: {type: person, names: {zh: 小灯, en: Lumen}}}
facts:
  - {id: silent, about: [lumen], text: {zh: 天很蓝。, en: The sky is blue.}}
  - {id: half, about: [lumen], text: {zh: 海很深。, en: The sea is deep.}, ask: {en: [How deep is the sea?]}}
"""
    slots = {"seeds/seeds.yaml": ""}
    run = open_lumen({"canon/canon.yaml": canon, **slots})
    assert [q.text for q in generate(run, frames=0)] == ["How deep is the sea?"]
    assert generate(open_lumen(slots, languages=["zh"])) == []
