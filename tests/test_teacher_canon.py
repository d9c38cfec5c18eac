import pytest

from camelbell_core.records import Pair, Question
from camelbell_plugins.teacher_canon import CanonTeacher

PET = {"zh": "陪着我的是海鸥阿白。", "en": "Pebble, my gull, keeps me company."}
UNKNOWN = {
    "zh": {"这个我不知道。", "我一直守着灯塔，这事没听说过。"},
    "en": {"I don't know that.", "I only keep the light; I never heard about that."},
}


@pytest.fixture
def answered(open_lumen, tools_of):
    """Have the teacher answer questions of the scaffold's bundle."""
    return lambda *questions: list(CanonTeacher().answer(questions, tools_of(open_lumen())))


@pytest.mark.parametrize(("language", "text"), [("zh", "你的宠物叫什么名字？"), ("en", "What is your pet called?")])
def test_a_fact_is_told_as_the_character_tells_it(answered, language, text):
    known = Question(text, language, "fact", "canon", "pet", facts=("pet",))
    found = Question(text, language, "open", "slots", "ask")
    assert answered(known, found) == [
        Pair(text, PET[language], language, "fact", ("pet",), "canon", "", "canon", "pet"),
        Pair(text, PET[language], language, "open", ("pet",), "canon", "", "slots", "ask"),
    ]


def test_an_answer_that_came_with_its_question_is_kept(answered):
    question = Question(
        "你的宠物叫什么名字？", "zh", "import", "import", "old:1", facts=("seed-x",), answer="没有宠物。"
    )
    assert answered(question) == [
        Pair(question.text, "没有宠物。", "zh", "import", ("seed-x",), "canon", "", "import", "old:1")
    ]


@pytest.mark.parametrize(("language", "text"), [("zh", "南极有多冷？"), ("en", "what about quantum physics")])
def test_what_no_fact_tells_is_not_known(answered, language, text):
    (pair,) = answered(Question(text, language))
    assert pair.answer in UNKNOWN[language] and pair.facts == ()


@pytest.mark.parametrize(
    ("language", "text", "name"), [("zh", "莫格里斯是谁？", "莫格里斯"), ("en", "Who is Mogris?", "Mogris")]
)
def test_a_stranger_is_not_known_whether_the_question_says_so_or_not(answered, language, text, name):
    by_name = {"zh": f"{name}？我没听说过。", "en": f"{name}? I never heard that name."}[language]
    trap, plain = answered(
        Question(text, language, "trap", "slots", "stranger", {"stranger": name}), Question(text, language)
    )
    assert trap.answer in {*UNKNOWN[language], by_name} and trap.facts == ()
    assert (plain.answer, plain.facts) == (by_name, ())


def test_a_trap_without_a_value_is_not_known(answered):
    (pair,) = answered(Question("你是第一个吗？", "zh", "trap"))
    assert pair.answer in UNKNOWN["zh"]


def test_a_wording_depends_on_the_question_alone(answered):
    questions = [Question(f"南极有多冷？{number}", "zh") for number in range(30)]
    there, back = answered(*questions), answered(*reversed(questions))
    assert there == back[::-1]
    assert {pair.answer for pair in there} == UNKNOWN["zh"]


def test_without_questions_there_are_no_pairs(answered):
    assert answered() == []
