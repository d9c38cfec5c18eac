import pytest

from camelbell_core.errors import CamelBellError
from camelbell_core.records import Pair
from camelbell_plugins.filter_duplicates import Duplicates


def reasons(*pairs, **options):
    part = Duplicates(**options)
    part.prepare(None)
    return [part.judge(Pair(question, answer, language)).reason for question, answer, language in pairs]


@pytest.mark.parametrize(
    ("first", "again", "language"),
    [
        ("你好吗？", "你好吗?", "zh"),
        ("你好吗？", " 你 好 吗？", "zh"),
        ("How are you?", "HOW ARE  YOU?", "en"),
        ("How’s Pebble?", "How's Pebble?", "en"),
    ],
)
def test_the_same_question_in_other_marks_is_a_duplicate_whatever_its_answer(first, again, language):
    assert reasons((first, "一", language), (again, "two", language)) == ["", f"the same question as {first!r}"]


LONG = {
    "zh": ("你在灯塔里住了多少年，习惯了吗？", "你在灯塔里住了多少年，习惯了么？"),
    "en": ("How many years have you lived in the lighthouse?", "How many years have you lived in this lighthouse?"),
}
ANSWERS = {
    "zh": (
        "我在这里住了三十年，早就习惯了海风。",
        "我在这里住了三十年，早就习惯了海风！",
        "潮水退了以后才看得见礁石。",
    ),
    "en": ("Thirty years, and I like the wind by now.", "Thirty years, and I like the wind now.", "Ask the gull."),
}


@pytest.mark.parametrize("language", ["zh", "en"])
def test_nearly_the_same_question_with_nearly_the_same_answer_is_a_duplicate(language):
    (first, near), (answer, alike, other) = LONG[language], ANSWERS[language]
    said = f"question and answer nearly those of {first!r}"
    assert reasons((first, answer, language), (near, alike, language)) == ["", said]
    assert reasons((first, answer, language), (near, other, language)) == ["", ""]
    assert reasons((first, answer, language), ("？", answer, language)) == ["", ""]


def test_a_rejected_pair_is_no_measure_for_later_ones():
    (first, near), (answer, alike, _) = LONG["en"], ANSWERS["en"]
    said = f"question and answer nearly those of {first!r}"
    assert reasons((first, answer, "en"), *[(near, alike, "en")] * 2) == ["", said, said]


def test_near_duplicates_are_looked_for_in_one_language_only():
    assert reasons(("Lumen 1234567890", "Lumen", "zh"), ("Lumen 123456789", "Lumen", "en")) == ["", ""]


def test_how_alike_can_be_set():
    pairs = [(LONG["en"][0], ANSWERS["en"][0], "en"), (LONG["en"][1], ANSWERS["en"][1], "en")]
    assert reasons(*pairs, threshold=0.99) == ["", ""]


@pytest.mark.parametrize("texts", [("", ""), ("？", "！"), ("😀", "")])
def test_empty_texts_are_no_trouble(texts):
    assert reasons((*texts, "zh"), (*texts, "zh")) == ["", f"the same question as {texts[0]!r}"]


def test_a_new_run_starts_afresh():
    part = Duplicates()
    for _ in range(2):
        part.prepare(None)
        assert part.judge(Pair("你好吗？", "好。", "zh")).kept


@pytest.mark.parametrize(
    ("first", "near", "other", "language"),
    [
        ("你是怎么认识赫敏的？", "你是怎么认识罗恩的？", "海格住在哪里？", "zh"),
        ("How did you first meet Ron?", "How did you first meet Hermione?", "Where does Hagrid live?", "en"),
    ],
)
def test_with_rouge_a_question_of_nearly_the_same_words_is_a_duplicate_whatever_its_answer(
    first, near, other, language
):
    pairs = [(first, "一", language), (near, "two", language), (other, "three", language)]
    assert reasons(*pairs) == ["", "", ""]
    assert reasons(*pairs, rouge=0.7) == ["", f"a question of nearly the same words as {first!r}", ""]


@pytest.mark.parametrize(("question", "language"), [("他后来怎么样了？", "zh"), ("And what became of him?", "en")])
def test_with_rouge_a_question_after_other_words_or_at_another_time_is_another(question, language):
    part = Duplicates(rouge=0.7)
    part.prepare(None)
    asked = [
        Pair(question, "A", language),
        Pair(question, "B", language, history=("罗恩呢？", "Ron!")),
        Pair(question, "C", language, at="3-22"),
        Pair(question + "!", "D", language, at="3-22"),
    ]
    assert [part.judge(pair).kept for pair in asked] == [True, True, True, False]


@pytest.mark.parametrize("options", [{"rouge": 0}, {"rouge": 7}, {"threshold": 0}, {"threshold": 90}])
def test_a_likeness_that_means_nothing_is_refused(options):
    (name,) = options
    with pytest.raises(CamelBellError, match=f"duplicates: {name} is .* at most 1"):
        Duplicates(**options)
