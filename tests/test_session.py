import pytest

from camelbell_core.errors import CamelBellError
from camelbell_core.prompts import build_prompt
from camelbell_core.records import Point, Verdict
from camelbell_core.session import Session, Settings, open_session


@pytest.fixture
def talk(open_lumen, scripted):
    """Open a session of the scaffold's bundle with a model that says the given replies."""

    def open_it(*replies, files=None, config=None, **options):
        run = open_lumen(files, **(config or {}))
        return open_session(run.character, run.registry, scripted(*replies), **options)

    return open_it


STEPS = {"zh": "灯塔有多少级台阶？", "en": "How many steps has the lighthouse?"}
COMPOSED = {"zh": "九十九级，我每天数一遍。", "en": "Ninety-nine. I count them every day."}
GOOD = {
    "zh": (["九十九", "级。我数", "过。", "每天都数"], ["九十九级。", "我数过。", "每天都数"]),
    "en": (["Ninety", "-nine. I", " counted. Every", " day"], ["Ninety-nine.", " I counted.", " Every day"]),
}
MACHINE = {"zh": ("我是AI。", "我是AI"), "en": ("As an AI, I cannot.", "As an AI")}
LANGUAGES = pytest.mark.parametrize("language", ["zh", "en"])


@LANGUAGES
def test_without_a_guard_the_pieces_come_as_the_model_says_them(talk, language):
    pieces, _ = GOOD[language]
    session = talk(pieces, guard=False)
    assert list(session.reply(STEPS[language])) == pieces
    turn = session.turns[0]
    assert (turn.question, turn.language, turn.answer) == (STEPS[language], language, "".join(pieces))
    assert turn.facts[0].id == "steps"
    assert (turn.verdicts, turn.composed) == ((), False)


@LANGUAGES
def test_the_guard_lets_good_sentences_through_one_by_one(talk, language):
    pieces, sentences = GOOD[language]
    session = talk(pieces)
    assert list(session.reply(STEPS[language])) == sentences
    turn = session.turns[0]
    assert (turn.answer, turn.verdicts, turn.composed) == ("".join(pieces), (), False)


@LANGUAGES
def test_a_sentence_is_shown_before_the_model_has_said_the_next_one(talk, language):
    pieces, sentences = GOOD[language]
    session = talk(pieces)
    reply = session.reply(STEPS[language])
    assert next(reply) == sentences[0]
    assert session.model.said == pieces[:2]


@LANGUAGES
def test_a_bad_sentence_ends_a_reply_that_began_well(talk, language):
    (machine, said), (_, sentences) = MACHINE[language], GOOD[language]
    session = talk([sentences[0], f" {machine} ", sentences[1]])
    assert "".join(session.reply(STEPS[language])).strip() == sentences[0]
    turn = session.turns[0]
    assert (turn.answer, turn.composed) == (sentences[0], False)
    assert turn.verdicts == (Verdict("persona_break", f"says {said!r}"),)
    assert len(session.model.prompts) == 1


@LANGUAGES
def test_a_reply_that_begins_badly_is_tried_again_with_the_likeliest_fact_and_no_history(talk, language):
    (machine, said), (pieces, sentences) = MACHINE[language], GOOD[language]
    session = talk(["雾很大。" if language == "zh" else "Fog everywhere."], [machine, machine], pieces)
    list(session.reply("今天有雾吗？" if language == "zh" else "Is it foggy today?"))
    assert list(session.reply(STEPS[language])) == sentences
    turn, (_, first, second) = session.turns[1], session.model.prompts
    persona = session.character.config.persona[language]
    facts = [recall.fact for recall in session.memory.recall(STEPS[language], 3, None, session.history()[:2])]
    assert [fact.id for fact in facts] == ["steps", "pet"]
    assert first == build_prompt(persona, language, STEPS[language], facts, session.history()[:2])
    assert second == build_prompt(persona, language, STEPS[language], facts[:1])
    assert (turn.prompt, turn.facts, turn.composed) == (first, (facts[0],), False)
    assert turn.verdicts == (Verdict("persona_break", f"says {said!r}"),)


@LANGUAGES
def test_when_all_replies_fail_the_facts_answer(talk, language):
    machine, said = MACHINE[language]
    session = talk([machine], [])
    assert list(session.reply(STEPS[language])) == [COMPOSED[language]]
    turn = session.turns[0]
    assert (turn.answer, turn.composed, [fact.id for fact in turn.facts]) == (COMPOSED[language], True, ["steps"])
    assert turn.verdicts == (Verdict("persona_break", f"says {said!r}"),)


@pytest.mark.parametrize(
    ("question", "replies", "filters", "answer"),
    [
        ("莫格里斯是谁？", [["他是我的朋友。"]], ["unknown_names"], "莫格里斯？我没听说过。"),
        ("Who is Mogris?", [["My friend."]], ["unknown_names"], "Mogris? I never heard that name."),
        ("南极有多冷？", [["Very cold."]], ["language"], "这个我不知道。"),
        ("南极有多冷？", [["\ufffd冷。"]], ["language"], "这个我不知道。"),
        ("south pole weather", [["好"]], ["length"], "I don't know that."),
        ("south pole weather", [[]], [], "I don't know that."),
        ("south pole weather", [[" ", "\n\x1b"]], [], "I don't know that."),
    ],
)
def test_what_the_guard_holds_back_becomes_an_admission_of_ignorance(talk, question, replies, filters, answer):
    session = talk(*replies)
    assert list(session.reply(question)) == [answer]
    turn = session.turns[0]
    assert (turn.answer, turn.facts, turn.composed) == (answer, (), True)
    assert [verdict.filter for verdict in turn.verdicts] == filters


def test_a_later_sentence_is_judged_together_with_what_was_said(talk):
    session = talk(["我守灯塔。"] * 9, config={"guard": [{"repetition": {"most": 2}}]})
    assert list(session.reply("你做什么？")) == ["我守灯塔。"] * 2
    assert session.turns[0].verdicts == (Verdict("repetition", "says '我守灯塔' 3 times"),)


def test_closing_quotes_and_repeated_marks_stay_with_their_sentence(talk):
    session = talk(["他说：“好", "。", "”", "真的", "？", "！", "？", "是。"], config={"guard": ["length"]})
    assert list(session.reply("他说什么？")) == ["他说：“好。”", "真的？！？是。"]


@pytest.mark.parametrize(
    ("question", "said"),
    [("莫格里斯是谁？", "莫格里斯？我没听说过。"), ("Who is Mogris?", "Mogris? I never heard that name.")],
)
def test_a_question_in_a_reply_is_judged_and_shown_with_the_sentence_after_it(talk, question, said):
    session = talk([*said], config={"guard": ["unknown_names"]})  # alone, the question would play along
    assert list(session.reply(question)) == [said]


@pytest.mark.parametrize("guard", [True, False])
def test_control_characters_of_a_model_are_not_shown(talk, guard):
    session = talk(["\x1b[31m九十", "\x07九级。\u202e"], guard=guard)
    assert "".join(session.reply(STEPS["zh"])) == "[31m九十九级。" == session.turns[0].answer


@pytest.mark.parametrize(("guard", "shown"), [(True, ["九十九级。"]), (False, ["九十九级。", "我数"])])
def test_stop_ends_the_reply_and_nothing_takes_its_place(talk, guard, shown):
    session = talk(["九十九级。", "我数", "过。", "还有呢。"], guard=guard)
    pieces = []
    for piece in session.reply(STEPS["zh"]):
        pieces.append(piece)
        if len(pieces) == len(shown):
            session.stop()
    assert pieces == shown
    assert (session.turns[0].answer, session.turns[0].composed) == ("".join(shown), False)
    assert "还有呢。" not in session.model.said


def test_a_reply_that_is_stopped_before_its_first_sentence_is_empty(talk):
    session = talk()
    session.model.replies = [["九十", session.stop, "九级。"]]
    assert list(session.reply(STEPS["zh"])) == []
    assert (session.turns[0].answer, session.turns[0].composed) == ("", False)


def test_after_a_stop_the_next_question_is_answered(talk):
    session = talk(["一。", "二。"], ["九十九级。"], guard=False)
    reply = session.reply("数吧？")
    next(reply)
    session.stop()
    assert list(reply) == []
    assert session.ask(STEPS["zh"]) == "九十九级。"


def test_the_prompt_holds_the_last_turns_that_were_answered(talk):
    session = talk(["一。"], [], ["三。"], ["四。"], ["五。"], guard=False, settings=Settings(turns=3))
    session.model.replies[1] = [session.stop, "二。"]
    asked = [session.ask(f"{number}？") for number in range(1, 6)]
    assert asked == ["一。", "", "三。", "四。", "五。"]
    histories = [[message.content for message in prompt.history] for prompt in session.model.prompts]
    assert histories == [
        [],
        ["1？", "一。"],
        ["1？", "一。"],
        ["1？", "一。", "3？", "三。"],
        ["3？", "三。", "4？", "四。"],
    ]
    assert {message.role for message in session.model.prompts[4].history[::2]} == {"user"}
    assert {message.role for message in session.model.prompts[4].history[1::2]} == {"assistant"}


def test_a_session_without_turns_of_history_has_none(talk):
    session = talk(["一。"], ["二。"], guard=False, settings=Settings(turns=0))
    assert [session.ask("1？"), session.ask("2？")] == ["一。", "二。"]
    assert session.model.prompts[1].history == ()


def test_retry_answers_the_last_question_again_and_forgets_the_answer_before(talk):
    session = talk(["一。"], ["二。"], ["三。"], guard=False)
    session.ask("1？")
    session.ask("2？")
    assert "".join(session.retry()) == "三。"
    assert [(turn.question, turn.answer) for turn in session.turns] == [("1？", "一。"), ("2？", "三。")]
    assert session.model.prompts[2] == session.model.prompts[1]


def test_there_is_nothing_to_retry_before_the_first_question(talk):
    with pytest.raises(CamelBellError, match="nothing has been said yet"):
        talk().retry()


@LANGUAGES
def test_an_edited_question_takes_the_place_of_the_last_one(talk, language):
    session = talk(["一。"], ["二。"], ["三。"], guard=False)
    session.ask("1？")
    session.ask("2？")
    assert "".join(session.edit(STEPS[language])) == "三。"
    assert [(turn.question, turn.answer) for turn in session.turns] == [("1？", "一。"), (STEPS[language], "三。")]
    assert [message.content for message in session.model.prompts[2].history] == ["1？", "一。"]
    assert session.model.calls[2] == (96, 0.0)


def test_there_is_nothing_to_edit_before_the_first_question(talk):
    with pytest.raises(CamelBellError, match="nothing has been said yet"):
        talk().edit("1？")


@pytest.mark.parametrize(("count", "left"), [(1, ["1？", "2？"]), (2, ["1？"]), (9, []), (0, ["1？", "2？", "3？"])])
def test_undo_takes_the_last_turns_back(talk, count, left):
    session = talk(["一。"], ["二。"], ["三。"], guard=False)
    asked = ["1？", "2？", "3？"]
    for question in asked:
        session.ask(question)
    assert [turn.question for turn in session.undo(count)] == asked[len(left) :]
    assert [turn.question for turn in session.turns] == left


def test_a_turn_keeps_each_time_that_the_model_was_asked(talk):
    session = talk(["我是AI。"], ["As an AI", ", I cannot."])
    session.ask(STEPS["zh"])
    turn = session.turns[0]
    first, second = turn.tries
    assert (first.prompt, first.said, first.verdict) == (
        turn.prompt,
        "我是AI。",
        Verdict("persona_break", "says '我是AI'"),
    )
    assert (second.prompt, second.said) == (session.model.prompts[1], "As an AI, I cannot.")
    assert turn.verdicts == (first.verdict, second.verdict)
    assert [recall.fact.id for recall in turn.recalls][:2] == ["steps", "pet"]
    assert 0 < first.first <= first.seconds < turn.seconds and 0 < turn.waited <= turn.seconds


def test_a_turn_keeps_what_the_model_said_beyond_the_sentence_held_back(talk):
    session = talk(["九十九级。我是AI。", "还有。"])
    assert session.ask(STEPS["zh"]) == "九十九级。"
    assert session.turns[0].tries[0].said == "九十九级。我是AI。还有。"


@pytest.mark.parametrize("guard", [True, False])
def test_a_reply_that_was_cut_short_says_so(talk, guard):
    session = talk(["一。", "二。"], ["一。", "二。"], ["一。", "二。"], config={"guard": ["length"]}, guard=guard)
    assert session.ask("1？") == "一。二。" and not session.turns[0].stopped
    reply = session.reply("2？")
    next(reply)
    session.stop()
    assert list(reply) == [] and session.turns[1].stopped
    reply = session.reply("3？")
    next(reply)
    reply.close()
    assert (session.turns[2].answer, session.turns[2].stopped) == ("一。", True)


def test_a_second_sentence_is_judged_with_the_history_before_its_own_turn(talk):
    session = talk(["一。"], ["二。三。四"], config={"guard": ["length"]})
    pairs = []
    session.ask("1？")
    judge = session.guard[0].judge
    session.guard[0].judge = lambda pair: (pairs.append(pair), judge(pair))[1]
    session.ask("2？")
    assert [(pair.answer, pair.history) for pair in pairs] == [
        ("二。", ("1？", "一。")),
        ("二。三。", ("1？", "一。")),
        ("二。三。四", ("1？", "一。")),
    ]


class Notes:
    def __init__(self):
        self.rows = []

    def add(self, turn, after):
        self.rows.append((turn.question, turn.answer, turn.stopped, after and after.question))

    def back(self, turn):
        self.rows.append(turn and turn.question)


def test_the_log_is_told_each_turn_and_each_step_back(talk):
    session = talk(["一。"], ["二。"], ["三。"], ["四。"], ["五。"], guard=False)
    session.log = Notes()
    session.ask("1？")
    session.ask("2？")
    list(session.retry())
    list(session.edit("4？"))
    session.undo()
    session.undo()
    session.undo()
    session.ask("5？")
    session.reset()
    session.reset()
    assert session.log.rows == [
        ("1？", "一。", False, None),
        ("2？", "二。", False, "1？"),
        ("2？", "三。", False, "1？"),
        ("4？", "四。", False, "1？"),
        "1？",
        None,
        ("5？", "五。", False, None),
        None,
    ]


def test_the_log_is_told_a_reply_that_failed_or_was_left(talk):
    def fail():
        raise CamelBellError("the service is gone")

    session = talk(["一。", fail], ["二。", "三。"], guard=False)
    session.log = Notes()
    with pytest.raises(CamelBellError, match="the service is gone"):
        session.ask("1？")
    next(reply := session.reply("2？"))
    reply.close()
    assert session.log.rows == [("1？", "一。", True, None), ("2？", "二。", True, "1？")]


@LANGUAGES
def test_the_story_time_can_change_within_a_conversation(talk, language):
    session = talk(GOOD[language][0], files=LATER, config={"guard": ["length"]}, settings=Settings(at=Point(1, 1)))
    question, _, unknown = NOT_YET[language]
    assert session.ask(question) == unknown
    session.travel(Point(2, 1))
    assert session.ask(question) == "".join(GOOD[language][1])
    session.travel(None)
    assert ([turn.at for turn in session.turns], session.settings.at) == ([Point(1, 1), Point(2, 1)], None)


def test_control_characters_of_a_question_reach_no_prompt(talk):
    session = talk(["好。"], guard=False)
    session.ask("\x1b[31m灯塔\x07\r\u202e 高吗？")
    assert session.turns[0].question == "[31m灯塔 高吗？" == session.model.prompts[0].question


def test_reset_forgets_the_conversation(talk):
    session = talk(["一。"], ["二。"], guard=False)
    session.ask("1？")
    session.reset()
    assert (session.turns, session.history()) == ([], [])
    session.ask("2？")
    assert session.model.prompts[1].history == ()


def test_the_settings_reach_the_model(talk):
    session = talk(["一。"], settings=Settings(max_tokens=7, temperature=0.5))
    session.ask("1？")
    assert session.model.calls == [(7, 0.5)]


STORY = {
    "canon/story.yaml": """
timeline: {chapters: [3, 3]}
facts:
  - {id: fog, about: [lumen], source: 2-1, text: {zh: 岛上常常起雾。, en: Fog is frequent on the island.}}
"""
}


@pytest.mark.parametrize(("at", "known"), [(None, True), (Point(1, 3), False), (Point(2, 1), True)])
def test_at_a_story_time_the_character_knows_only_what_it_knew_then(talk, at, known):
    session = talk(["一。"], files=STORY, guard=False, settings=Settings(at=at))
    session.ask("岛上常常起雾吗？")
    assert ("fog" in {fact.id for fact in session.turns[0].facts}) is known


LATER = {
    "canon/later.yaml": """
timeline: {chapters: [3, 3]}
entities:
  storm: {type: thing, names: {zh: 大风暴, en: the Great Storm}}
facts:
  - id: storm
    about: [lumen, storm]
    known_from: 2-1
    text: {zh: 大风暴打碎了灯。, en: The Great Storm broke the lamp.}
    ask: {zh: [大风暴打碎了什么？], en: [What did the Great Storm break?]}
  - id: oil
    about: [lumen]
    true_until: 2-2
    text: {zh: 灯烧鲸油。, en: The lamp burns whale oil.}
    ask: {zh: [灯烧什么？], en: [What does the lamp burn?]}
  - id: power
    about: [lumen]
    true_from: 2-2
    text: {zh: 灯用电。, en: The lamp runs on power.}
    ask: {zh: [灯烧什么？], en: [What does the lamp burn?]}
"""
}
NOT_YET = {
    "zh": ("大风暴打碎了什么？", "灯烧什么？", "这个我不知道。"),
    "en": ("What did the Great Storm break?", "What does the lamp burn?", "I don't know that."),
}


@LANGUAGES
@pytest.mark.parametrize("at", [Point(1, 1), Point(1, 3)])
def test_what_the_character_learns_only_later_it_does_not_know_yet(talk, language, at):
    question, _, unknown = NOT_YET[language]
    session = talk(files=LATER, settings=Settings(at=at))
    assert list(session.reply(question)) == [unknown]
    turn = session.turns[0]
    assert (turn.later.id, turn.answer, turn.facts, turn.composed, turn.prompt) == ("storm", unknown, (), True, None)
    assert session.model.prompts == []


@LANGUAGES
@pytest.mark.parametrize("at", [None, Point(2, 1)])
def test_once_it_is_learned_the_character_tells_it(talk, language, at):
    session = talk(GOOD[language][0], files=LATER, config={"guard": ["length"]}, settings=Settings(at=at))
    assert list(session.reply(NOT_YET[language][0])) == GOOD[language][1]
    assert (session.turns[0].later, session.turns[0].facts[0].id) == (None, "storm")


@LANGUAGES
@pytest.mark.parametrize(("at", "fact"), [(Point(1, 1), "oil"), (Point(2, 1), "oil"), (Point(2, 2), "power")])
def test_what_is_known_now_is_told_though_it_will_change(talk, language, at, fact):
    session = talk(GOOD[language][0], files=LATER, config={"guard": ["length"]}, settings=Settings(at=at))
    assert list(session.reply(NOT_YET[language][1])) == GOOD[language][1]
    assert (session.turns[0].later, session.turns[0].facts[0].id) == (None, fact)


@LANGUAGES
def test_without_a_guard_the_model_answers_what_lies_in_the_future(talk, language):
    session = talk(["x"], files=LATER, guard=False, settings=Settings(at=Point(1, 1)))
    assert session.ask(NOT_YET[language][0]) == "x"
    assert (session.turns[0].later.id, session.turns[0].composed) == ("storm", False)


@LANGUAGES
def test_a_question_far_from_the_later_fact_is_put_to_the_model(talk, language):
    question = {"zh": "大风暴可怕吗，你说呢？", "en": "Was it frightening on the rocks, with the Great Storm?"}[
        language
    ]
    session = talk(GOOD[language][0], files=LATER, config={"guard": ["length"]}, settings=Settings(at=Point(1, 1)))
    assert session.ask(question) and session.turns[0].later is None
    assert len(session.model.prompts) == 1


@pytest.mark.parametrize(("options", "config"), [({"memory": False}, {}), ({}, {"facts": 0})])
def test_without_a_memory_there_are_no_facts(talk, options, config):
    session = talk(["九十九级。"], config=config, **options)
    assert session.ask(STEPS["zh"]) == "九十九级。"
    assert (session.memory, session.turns[0].facts, session.model.prompts[0].facts) == (None, (), ())


def test_a_plugin_of_the_bundle_can_write_the_persona(talk):
    plugin = """
from camelbell_core import hookimpl

@hookimpl
def build_persona(character, language):
    return "I am   somebody else." if language == "en" else None
"""
    session = talk(["One two."], ["一二。"], files={"plugin.py": plugin}, guard=False)
    session.ask("Who are you?")
    session.ask("你是谁？")
    assert [prompt.persona for prompt in session.model.prompts] == [
        "I am somebody else.",
        session.character.config.persona["zh"],
    ]


def test_a_session_can_be_made_by_hand(open_lumen, scripted):
    character = open_lumen().character
    session = Session(character, scripted(["我是小灯。"]), None)
    assert session.ask("你是谁？") == "我是小灯。"
    assert session.model.prompts[0].persona == character.config.persona["zh"]


@pytest.mark.parametrize("text", ["", "😀", "？", "a" * 1_000_000, "灯塔" * 200_000, "\udcc4\udce3"])
def test_any_text_is_answered(talk, text):
    session = talk(["好的。"], ["好的。"])
    assert session.ask(text)
    assert session.turns[0].question == text.encode("utf-8", "replace").decode("utf-8")
