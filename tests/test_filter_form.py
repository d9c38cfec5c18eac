import pytest

from camelbell_core.records import Pair, Verdict
from camelbell_plugins.filter_form import Language, Length, Repetition


def judged(part, answer, language="zh"):
    verdict = part.judge(Pair("？", answer, language))
    assert verdict.filter == part.name
    return verdict.reason


@pytest.mark.parametrize(
    ("answer", "seen"),
    [
        ("", 0),
        (" \n\t　", 0),
        ("好", 1),
        ("a", 1),
        ("\x1b\x07好\x00", 1),
        ("\u200b\u200b\ufeff好\u202e", 1),
    ],
    ids=["empty", "blank", "chinese", "english", "control characters", "invisible characters"],
)
def test_an_answer_that_is_too_short_is_rejected_by_what_can_be_seen(answer, seen):
    assert judged(Length(), answer) == f"{seen} characters, at least 2 are asked for"


@pytest.mark.parametrize("letter", ["灯", "a", "😀", "𠮷"])
def test_an_answer_is_measured_in_characters_and_the_bounds_belong_to_it(letter):
    part = Length(least=3, most=5)
    reasons = [judged(part, letter * count) for count in (2, 3, 5, 6)]
    assert reasons == ["2 characters, at least 3 are asked for", "", "", "6 characters, at most 5 are allowed"]


def test_a_megabyte_is_too_long():
    assert judged(Length(), "灯塔" * 250_000) == "500000 characters, at most 800 are allowed"


@pytest.mark.parametrize(
    ("language", "answer"),
    [
        ("zh", "九十九级，我每天数一遍。"),
        ("zh", "我最常用的咒语是 Expelliarmus。我每天都要练习它很多次"),
        ("zh", "99。"),
        ("zh", ""),
        ("en", "Ninety-nine."),
        ("en", "Café, naïve, 99 – “yes” 😀。"),
        ("fr", "Bonjour, 你好"),
    ],
)
def test_answers_in_the_language_of_the_question_pass(language, answer):
    assert judged(Language(), answer, language) == ""


@pytest.mark.parametrize(
    ("language", "answer", "reason"),
    [
        ("zh", "Ninety-nine.", "0 of 10 letters are Chinese, the question is in Chinese"),
        ("zh", "我是 Lumen", "2 of 7 letters are Chinese, the question is in Chinese"),
        ("zh", "とうだいです", "0 of 6 letters are Chinese, the question is in Chinese"),
        ("en", "Ninety-nine 级。", "1 letters are Chinese, the question is in English"),
        ("en", "九十九级。", "4 letters are Chinese, the question is in English"),
        ("zh", "九十\ufffd级", "holds a broken character (U+FFFD)"),
        ("en", "Ninety\ufffd", "holds a broken character (U+FFFD)"),
    ],
)
def test_answers_in_another_language_and_broken_ones_are_rejected(language, answer, reason):
    assert judged(Language(), answer, language) == reason


def test_the_share_of_chinese_can_be_set():
    answer = "我是 ab"
    assert [bool(judged(Language(share=share), answer)) for share in (0.4, 0.5, 0.6)] == [False, False, True]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("我守灯塔。" * 5, "says '我守灯塔' 5 times"),
        ("I keep the light. " * 5, "says 'i keep the' 5 times"),
        ("哈哈哈哈哈哈哈哈", "says '哈哈哈哈' 5 times"),
        ("no no no no no no no", "says 'no no no' 5 times"),
        ("灯 light " * 6, "says '灯 light 灯' 5 times"),
    ],
)
def test_an_answer_that_says_one_thing_over_and_over_is_rejected(answer, reason):
    assert judged(Repetition(), answer) == reason


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "好",
        "😀😀😀😀😀😀",
        "我守灯塔。" * 4,
        "I keep the light. " * 4,
        "九十九级，我每天数一遍。",
        "Ninety-nine. I count them.",
    ],
)
def test_answers_that_go_on_pass(answer):
    assert judged(Repetition(), answer) == ""


def test_how_often_can_be_set():
    assert judged(Repetition(most=1), "我守灯塔。我守灯塔。") == "says '我守灯塔' 2 times"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (
            "哈夫尔巴特",
            "那年冬天大雪封了山路，{0}独自守着炉子过夜。天亮以前海上起了大浪，{0}提着油灯爬上塔顶，把玻璃擦得干干净净。"
            "后来春天到了，渔船一艘接一艘回到港口，{0}站在码头上数桅杆，一共十七根。夏天岛上来过几个画家，他们给{0}画像，"
            "画里只有一双靴子和半顶帽子。如今大家还常常谈起这些旧事，都说{0}从来没有让灯熄灭过一个晚上。",
        ),
        (
            "old Mister Quill",
            "One winter the road was closed by snow and {0} spent the night alone beside the stove. Before dawn a heavy sea got up, so "
            "{0} carried an oil lamp to the top and wiped every pane of glass. In spring the boats came home one after another while "
            "{0} stood on the quay counting masts, seventeen in all. Some painters visited that summer; their portrait of {0} shows "
            "boots and half a hat. People here still say that {0} never once let the light go out.",
        ),
    ],
)
def test_a_name_may_come_back_in_a_long_story(name, told):
    story = told.format(name)
    assert judged(Repetition(), story) == ""
    assert judged(Repetition(), f"{name}, " * 6) != ""


@pytest.mark.parametrize("part", [Length(), Language(), Repetition()])
def test_a_verdict_names_its_filter(part):
    assert part.judge(Pair("冷吗？", "不冷，很暖和。", "zh")) == Verdict(part.name)
