import pytest

from camelbell_core.records import Pair
from camelbell_plugins.filter_canon import Contradiction, Evasive, UnknownNames

MORE = {
    "canon/more.yaml": """
entities:
  cat: {type: creature, names: {zh: 黑豆, en: Bean}}
  inspector: {type: person, names: {zh: 陈督察, en: Inspector Chen}}
facts:
  - id: visitor
    about: [lumen, inspector]
    answer: [inspector, "春天|spring"]
    text: {zh: 每年春天陈督察来看灯塔。, en: Inspector Chen visits the lighthouse each spring.}
    ask: {zh: [哪位客人何时来看灯塔？], en: [Which visitor comes to see the lighthouse and when?]}
  - id: fear
    about: [gull, cat]
    answer: [cat]
    text: {zh: 阿白怕黑豆。, en: Pebble is afraid of Bean.}
    ask: {zh: [岛上哪只动物让人发抖？], en: [Which animal makes others tremble?]}
  - id: weather
    about: [lumen]
    text: {zh: 岛上常常起雾。, en: Fog is frequent on the island.}
    voice: {zh: 雾什么时候来，谁也不知道。, en: Nobody knows when the fog comes. I don't know either.}
    ask: {zh: [岛上天气怎么样？], en: [How is the weather on the island?]}
"""
}


@pytest.fixture
def reason(open_lumen):
    """Judge a pair of the scaffold's bundle, which knows a cat and an inspector, too."""
    run = open_lumen(MORE)

    def judge(part, question, answer, language="zh", memory=True, **more):
        part.prepare(run.character, run.memory if memory else None)
        verdict = part.judge(Pair(question, answer, language, **more))
        assert verdict.filter == part.name
        return verdict.reason

    return judge


STRANGERS = {
    "zh": ("莫格里斯是谁？", "莫格里斯", "没听说过莫格里斯。"),
    "en": ("Who is Mogris?", "Mogris", "I've never heard of Mogris."),
}


@pytest.mark.parametrize("language", ["zh", "en"])
@pytest.mark.parametrize("answer", ["莫格里斯是我的朋友。", "Mogris is my friend.", "朋友。", "A friend.", ""])
def test_an_answer_that_plays_along_with_a_stranger_is_rejected(reason, language, answer):
    question, name, _ = STRANGERS[language]
    said = f"the question names {name!r}, whom the canon does not know; the answer plays along"
    assert reason(UnknownNames(), question, answer, language) == said


@pytest.mark.parametrize("language", ["zh", "en"])
def test_an_answer_that_does_not_know_a_stranger_passes(reason, language):
    question, _, answer = STRANGERS[language]
    assert reason(UnknownNames(), question, answer, language) == ""


@pytest.mark.parametrize(
    ("question", "answer", "language", "said"),
    [
        ("灯塔有多少级台阶？", "九十九级，塔维娜数的。", "zh", "names '塔维娜', which the canon does not know"),
        ("How many steps?", "99, as Tavina counted.", "en", "names 'Tavina', which the canon does not know"),
        ("灯塔有多少级台阶？", "九十九级，阿白和我数的。", "zh", ""),
        ("How many steps?", "99, as Pebble and Inspector Chen counted. I did, too.", "en", ""),
        ("How many steps?", "I counted ninety-nine, 阿白!", "en", ""),
        ("你好。", "", "zh", ""),
        ("", "😀", "en", ""),
    ],
)
def test_an_answer_names_nobody_whom_the_canon_does_not_know(reason, question, answer, language, said):
    assert reason(UnknownNames(), question, answer, language) == said


@pytest.mark.parametrize(
    ("question", "answer", "facts", "said"),
    [
        (
            "灯塔有多少级台阶？",
            "九十九级，黑豆数的。",
            ("steps",),
            "names '黑豆', which neither the question nor the facts name",
        ),
        (
            "How many steps?",
            "99, Bean knows.",
            ("steps",),
            "names 'Bean', which neither the question nor the facts name",
        ),
        ("灯塔有多少级台阶？", "九十九级，阿白数的。", ("steps", "pet"), ""),
        ("How many steps?", "99, Pebble counted them.", ("pet",), ""),
        ("黑豆数过台阶吗？", "黑豆数过。", (), ""),
        ("Did 黑豆 count them?", "Bean did.", (), ""),
        ("How many steps?", "I, Lumen, counted them.", (), ""),
        (
            "谁来？",
            "陈督察。",
            ("weather", "no such fact"),
            "names '陈督察', which neither the question nor the facts name",
        ),
    ],
)
def test_in_a_chat_only_names_of_the_question_and_of_its_facts_pass(reason, question, answer, facts, said):
    language = "zh" if "？" in question else "en"
    assert reason(UnknownNames(grounded=True), question, answer, language, facts=facts) == said
    assert reason(UnknownNames(), question, answer, language, facts=facts) == ""


def test_without_a_canon_every_name_passes(open_lumen):
    run = open_lumen({"canon/canon.yaml": "", "seeds/seeds.yaml": ""}, entity="")
    part = UnknownNames(grounded=True)
    part.prepare(run.character)
    assert part.judge(Pair("Who is Mogris?", "Mogris is Tavina's friend.", "en")).kept


ASKED = {
    "fear": {"zh": "岛上哪只动物让人发抖？", "en": "Which animal makes others tremble?"},
    "pet": {"zh": "你的宠物叫什么名字？", "en": "What is your pet called?"},
    "steps": {"zh": "灯塔有多少级台阶？", "en": "How many steps has the lighthouse?"},
    "visitor": {"zh": "哪位客人何时来看灯塔？", "en": "Which visitor comes to see the lighthouse and when?"},
    "weather": {"zh": "岛上天气怎么样？", "en": "How is the weather on the island?"},
}


DEMANDED = {
    "阿白春天来，小灯不来。": "fact visitor: '陈督察' is right",
    "Inspector Chen, in 1999.": "fact visitor: '春天' is right",
    "很多很多级。": "fact steps: '九十九' is right",
    "阿白总在发抖。": "fact fear: '黑豆' is right",
    "Pebble trembles.": "fact fear: '黑豆' is right",
}


@pytest.mark.parametrize("how", ["with its fact", "in its words"])
@pytest.mark.parametrize(
    ("fact", "language", "answer", "said"),
    [
        ("pet", "zh", "我的宠物是黑豆。", "fact pet: '阿白' is right, not '黑豆'"),
        ("pet", "en", "It is Bean.", "fact pet: '阿白' is right, not 'Bean'"),
        ("steps", "zh", "一共１２０级。", "fact steps: '九十九' is right, not '１２０'"),
        ("steps", "en", "It has 120.", "fact steps: '九十九' is right, not '120'"),
        ("visitor", "zh", "阿白春天来，小灯不来。", ""),  # another kind of thing, and the character itself
        ("visitor", "en", "Inspector Chen, in 1999.", ""),  # no number is asked for
        ("pet", "zh", "海鸥阿白。", ""),
        ("pet", "zh", "Pebble the gull。", ""),
        ("pet", "en", "Pebble, not Bean.", ""),
        ("steps", "zh", "99级，不是120级。", ""),
        ("steps", "en", "Ninety-nine.", ""),
        ("steps", "zh", "这个我不知道。", ""),
        ("pet", "en", "I don't know, perhaps Bean.", ""),
        ("steps", "zh", "很多很多级。", ""),
        ("fear", "zh", "阿白总在发抖。", ""),  # whom the fact is about
        ("fear", "en", "Pebble trembles.", ""),
        ("weather", "zh", "阿白和黑豆都不喜欢，每年365天起雾。", ""),
    ],
)
def test_an_answer_against_a_fact_is_rejected_with_what_is_right(reason, fact, language, answer, said, how):
    more = {"generator": "canon", "facts": (fact,)} if how == "with its fact" else {}
    # A question in a fact's own words surely asks for it, and then the answer must hold what the fact demands.
    demanded = DEMANDED.get(answer, said) if how == "in its words" else said
    assert reason(Contradiction(), ASKED[fact][language], answer, language, **more) == demanded


@pytest.mark.parametrize(
    ("fact", "answer", "said"),
    [
        ("steps", "很多很多级。", "fact steps: '九十九' is right"),
        ("visitor", "陈督察来。", "fact visitor: '春天' is right"),
        ("pet", "黑豆。", "fact pet: '阿白' is right, not '黑豆'"),
        ("pet", "海鸥阿白。", ""),
        ("pet", "我不知道。", ""),
        ("weather", "不告诉你。", ""),
    ],
)
def test_a_strict_bundle_wants_what_the_fact_demands(reason, fact, answer, said):
    assert reason(Contradiction(strict=True), ASKED[fact]["zh"], answer) == said


def test_what_the_question_names_is_no_wrong_answer(reason):
    more = {"generator": "canon", "facts": ("pet",)}
    assert reason(Contradiction(), "黑豆是你的宠物吗？", "黑豆不是。", **more) == ""
    more = {"generator": "canon", "facts": ("steps",)}
    assert reason(Contradiction(), "灯塔有120级台阶吗？", "没有120级。", **more) == ""
    assert (
        reason(Contradiction(), "灯塔有120级台阶吗？", "没有120级，有130级。", **more)
        == "fact steps: '九十九' is right, not '130'"
    )


@pytest.mark.parametrize(
    ("question", "answer"), [("黑豆喜欢台阶吗？", "黑豆走了120级。"), ("Is it cold?", "Bean is 5.")]
)
def test_a_question_that_no_fact_answers_is_not_judged(reason, question, answer):
    assert reason(Contradiction(), question, answer, "zh" if "？" in question else "en") == ""


def test_without_a_memory_only_pairs_that_come_with_a_fact_are_judged(reason):
    question = ASKED["pet"]["zh"]
    assert reason(Contradiction(), question, "黑豆。", memory=False) == ""
    more = {"generator": "canon", "facts": ("pet",)}
    assert reason(Contradiction(), question, "黑豆。", memory=False, **more) == "fact pet: '阿白' is right, not '黑豆'"


def test_how_near_a_question_must_come_to_a_fact_can_be_set(reason):
    question = "小灯，我很好奇你的宠物在岛上叫什么名字？"
    assert reason(Contradiction(asked=0.99), question, "黑豆。") == ""
    assert reason(Contradiction(asked=0.01, nearly=0), question, "黑豆。") == "fact pet: '阿白' is right, not '黑豆'"


EVADED = "admits not knowing, though the question names nothing unknown"


@pytest.mark.parametrize(
    ("question", "answer", "language", "more", "said"),
    [
        ("灯塔有多少级台阶？", "这个我不知道。", "zh", {}, EVADED),
        ("How many steps has the lighthouse?", "I don't know that.", "en", {}, EVADED),
        ("How many steps?", "I have no idea.", "en", {"facts": ("steps",), "kind": "chat"}, EVADED),  # a fact tells
        ("灯塔有多少级台阶？", "九十九级。", "zh", {}, ""),
        ("How many steps has the lighthouse?", "Ninety-nine.", "en", {}, ""),
        ("莫格里斯是谁？", "没听说过莫格里斯。", "zh", {}, ""),  # whom the canon does not know either
        ("Who is Mogris?", "I've never heard of Mogris.", "en", {}, ""),
        ("你会念飞焰碎星咒吗？", "我从没听说过飞焰碎星咒。", "zh", {"kind": "chat"}, ""),
        ("Can you cast the wobbling curse?", "I've never heard of the wobbling curse.", "en", {"kind": "chat"}, ""),
        ("灯塔有多少级台阶？", "灯塔有多少级台阶，我不知道。", "zh", {"kind": "chat"}, EVADED),
        ("会用手机吗？", "我不知道。", "zh", {"kind": "trap"}, ""),
        ("The capital of Mongolia?", "I don't know.", "en", {"kind": "unanswerable"}, ""),
        ("岛上天气怎么样？", "谁也不知道。", "zh", {"facts": ("weather",)}, ""),  # the fact itself tells so
        ("How is the weather?", "I don't know either.", "en", {"facts": ("weather",)}, ""),
    ],
)
def test_not_knowing_is_rejected_where_nothing_is_unknown(reason, question, answer, language, more, said):
    assert reason(Evasive(), question, answer, language, **more) == said
