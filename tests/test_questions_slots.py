from collections import Counter
from random import Random

import pytest

from camelbell_core.records import Question, content_id
from camelbell_core.text import squash
from camelbell_plugins.questions_slots import SlotQuestions


def generate(run, count=1000, seed="s", **options):
    return list(SlotQuestions(**options).generate(run.character, count, Random(seed)))


def seeds(*rows, slots=""):
    return {"seeds/seeds.yaml": "seeds:\n" + "\n".join(f"  - {row}" for row in rows) + f"\nslots: {{{slots}}}\n"}


THING = "thing: [{zh: 热茶, en: hot tea}, {zh: 暴风雨, en: storms}]"


def test_every_seed_is_filled_with_every_value_in_both_languages(open_lumen):
    texts = sorted(question.text for question in generate(open_lumen()))
    things, strangers = (
        (["阿白", "暴风雨", "热茶"], ["Pebble", "storms", "hot tea"]),
        (["莫格里斯", "塔维娜"], ["Mogris", "Tavina"]),
    )
    wanted = [f"你喜欢{t}吗？" for t in things[0]] + [f"Do you like {t}?" for t in things[1]]
    wanted += [f"{s}是谁？" for s in strangers[0]] + [f"你认识{s}吗？" for s in strangers[0]]
    wanted += [f"Who is {s}?" for s in strangers[1]] + [f"Do you know {s}?" for s in strangers[1]]
    assert texts == sorted(wanted)


def test_a_question_tells_where_it_comes_from(open_lumen):
    run = open_lumen(
        seeds("{name: like, kind: opinion, ask: {zh: ['你喜欢[thing]吗？']}}", slots="thing: [{zh: 热茶}]")
    )
    assert generate(run) == [
        Question("你喜欢热茶吗？", "zh", "opinion", "slots", "like", {"thing": "热茶"}),
    ]
    assert generate(run)[0].id == content_id("zh", "你喜欢热茶吗？")


def test_a_hand_written_answer_comes_with_its_question_and_its_fact(open_lumen):
    row = "{name: who, ask: {zh: [你是谁？], en: [Who are you?]}, answer: {zh: 我是小灯。, en: I am Lumen.}}"
    assert sorted(generate(open_lumen(seeds(row))), key=lambda q: q.language) == [
        Question("Who are you?", "en", "open", "slots", "who", {}, ("seed-who",), "I am Lumen."),
        Question("你是谁？", "zh", "open", "slots", "who", {}, ("seed-who",), "我是小灯。"),
    ]


@pytest.mark.parametrize("count", [0, 1, 2, 7, 13, 14])
def test_exactly_as_many_as_asked_for_all_different(open_lumen, count):
    questions = generate(open_lumen(), count)
    assert len(questions) == len({squash(q.text)[0] for q in questions}) == count


def test_the_same_random_numbers_give_the_same_questions_and_others_another_order(open_lumen):
    run = open_lumen()
    assert generate(run, seed="a") == generate(run, seed="a")
    assert generate(run, seed="a") != generate(run, seed="b")
    assert generate(run, 5, seed="a") == generate(run, 14, seed="a")[:5]
    first = {(question.seed, question.language) for n in range(20) for question in generate(run, 1, seed=str(n))}
    assert first == {(seed, language) for seed in ("like_thing", "stranger") for language in ("zh", "en")}


def test_every_wording_of_every_seed_has_its_turn(open_lumen):
    questions = generate(open_lumen(), 6)
    assert Counter((q.seed, q.language) for q in questions) == {
        ("like_thing", "zh"): 1,
        ("like_thing", "en"): 1,
        ("stranger", "zh"): 2,
        ("stranger", "en"): 2,
    }


def test_near_duplicates_about_the_same_values_are_left_out(open_lumen):
    ask = "['你真的非常非常喜欢[thing]吗？', '你真的非常非常喜欢[thing]么？']"
    run = open_lumen(seeds(f"{{name: like, ask: {{zh: {ask}}}}}", slots=THING))
    assert sorted(q.slots["thing"] for q in generate(run)) == ["暴风雨", "热茶"]
    assert len(generate(run, near=1.0)) == 4


@pytest.mark.parametrize(
    "ask",
    ["{zh: [你好吗？, '你好吗?', '  你好吗？ ']}", "{en: ['How are you?', 'how are you？', \"How  'are' you?\"]}"],
)
def test_wordings_that_differ_in_width_case_and_blanks_alone_are_one(open_lumen, ask):
    assert len(generate(open_lumen(seeds(f"{{name: hello, ask: {ask}}}")))) == 1


def test_no_question_is_about_one_value_twice(open_lumen):
    slots = "a: [{en: Pebble, entity: gull}, {en: tea}], b: [{en: the gull, entity: gull}, {en: tea}, {en: salt}]"
    run = open_lumen(seeds("{name: two, ask: {en: ['[a] and [b]?']}}", slots=slots))
    texts = sorted(question.text for question in generate(run))
    assert texts == ["Pebble and salt?", "Pebble and tea?", "tea and salt?", "tea and the gull?"]


def test_a_value_without_words_in_a_language_is_left_out_there(open_lumen):
    slots = "thing: [{zh: 热茶}, {zh: 盐, en: salt}]"
    run = open_lumen(seeds("{name: like, ask: {zh: ['喜欢[thing]吗？'], en: ['Like [thing]?']}}", slots=slots))
    assert sorted(q.text for q in generate(run)) == ["Like salt?", "喜欢热茶吗？", "喜欢盐吗？"]


def test_only_takes_the_seeds_of_some_kinds(open_lumen):
    assert {q.kind for q in generate(open_lumen(), only=("trap",))} == {"trap"}
    assert generate(open_lumen(), only=("nothing",)) == []


@pytest.mark.parametrize(("language", "text"), [("zh", "灯塔高吗？"), ("en", "Is the lighthouse high?")])
def test_phrasings_frame_a_question_without_slots_and_keep_it_whole(open_lumen, language, text):
    run = open_lumen(seeds(f"{{name: high, ask: {{{language}: ['{text}']}}}}"))
    questions = generate(run, phrasings=8)
    assert len(questions) > 3 and len({q.text for q in questions}) == len(questions)
    assert all(text.rstrip("？?").lower() in q.text.lower() for q in questions)


def test_without_seeds_there_are_no_questions(open_lumen):
    assert generate(open_lumen({"seeds/seeds.yaml": ""})) == []
