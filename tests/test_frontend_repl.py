"""The terminal, typed at through prompt_toolkit's pipe input; and lines without a terminal."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from prompt_toolkit.data_structures import Size
from prompt_toolkit.document import Document
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import ColorDepth, DummyOutput
from prompt_toolkit.output.vt100 import Vt100_Output

from camelbell_core import conversations
from camelbell_core.conversations import Conversation, read_conversation
from camelbell_core.errors import CamelBellError
from camelbell_core.journal import read_records
from camelbell_core.model import loader_for
from camelbell_core.opening import Opener
from camelbell_core.records import Pair, Point
from camelbell_core.session import Settings, open_session
from camelbell_plugins.frontend_repl import Repl
from camelbell_plugins.frontend_repl.plain import talk_plainly
from camelbell_plugins.frontend_repl.terminal import Terminal

HELLO = "小灯 · /help\n你好，我是小灯。\n"
CTRL_C, CTRL_D, CTRL_R, UP, ALT_ENTER, TAB = "\x03", "\x04", "\x12", "\x1b[A", "\x1b\r", "\t"
PASTE = "\x1b[200~{}\x1b[201~"
STEPS = {"zh": "灯塔有多少级台阶？", "en": "How many steps has the lighthouse?"}
LANGUAGES = pytest.mark.parametrize("language", ["zh", "en"])
STORY = {
    "canon/story.yaml": """
timeline: {part: {zh: "第{n}部", en: "book {n}"}, chapters: [3, 3]}
facts:
  - {id: fog, about: [lumen], source: 2-1, text: {zh: 岛上常常起雾。, en: Fog is frequent here.}}
"""
}


class Screen(DummyOutput):
    """Keeps what the chat writes; prompt_toolkit draws its prompt elsewhere."""

    def __init__(self):
        self.text = ""

    def write(self, data):
        self.text += data


@pytest.fixture
def session(open_lumen, scripted):
    """Open a session whose model says the given replies."""

    def open_it(*replies, config=None, files=None, keep=False, **options):
        run = open_lumen(files, **(config or {}))
        opened = open_session(run.character, run.registry, scripted(*replies), **options)
        opened.log = Conversation("lumen", warn=pytest.fail) if keep else None
        return opened

    return open_it


def shown(session, typed, screen=None, keep_history=False, opener=None):
    """Return all that a chat shows when a person types this, and Ctrl-D last."""
    data = (typed if isinstance(typed, bytes) else typed.encode("utf-8")) + CTRL_D.encode()
    with create_pipe_input() as pipe:
        terminal = Terminal(session, opener, keep_history=keep_history, input=pipe, output=DummyOutput())
        terminal.screen.output = screen or Screen()
        typing = threading.Thread(target=pipe.send_bytes, args=(data,))  # a pipe holds 64 KiB
        typing.start()
        terminal.run()
        typing.join()
        return terminal.screen.output.text


def said(session):
    return [(turn.question, turn.answer) for turn in session.turns]


@pytest.fixture(autouse=True)
def plain_surroundings(monkeypatch):
    """A shell that runs the tests in the background lets them ignore Ctrl-C, and has a language of its own."""
    for name in ("LC_ALL", "LC_MESSAGES", "LANG", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupt():
    signal.raise_signal(signal.SIGINT)


class Impatient(Screen):
    """Presses Ctrl-C when it has written a word, as often as it is told to."""

    def __init__(self, word, times=1):
        super().__init__()
        self.word = word
        self.times = times

    def write(self, data):
        super().write(data)
        if data == self.word:
            for _ in range(self.times):
                interrupt()


# --- talking --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "pieces", "answer"),
    [
        ("灯塔有多少级台阶？", ["九十九级。", "我数", "过。"], "九十九级。我数过。\n"),
        ("How many steps has the lighthouse?", ["Ninety-", "nine."], "Ninety-nine.\n"),
    ],
)
def test_what_is_typed_is_answered(session, question, pieces, answer):
    talk = session(pieces)
    assert shown(talk, f"{question}\r") == HELLO + answer
    assert [turn.question for turn in talk.turns] == [question]


def test_a_whole_chat(session):
    talk = session(["九十九级。"], ["陪着我的是", "阿白。"])
    typed = "灯塔有多少级台阶？\r\r   \r你的宠物叫什么名字？\r/quit\rnever read\r"
    assert shown(talk, typed) == HELLO + "九十九级。\n陪着我的是阿白。\n"


def test_the_greeting_is_in_the_main_language_and_may_be_missing(session):
    english = {"languages": ["en"], "values": {"sea": "North Sea"}, "greeting": {"en": "Hello from the {sea}."}}
    assert (
        shown(session(config=english, files={"seeds/seeds.yaml": ""}), "")
        == "Lumen · /help\nHello from the North Sea.\n"
    )
    assert shown(session(config={"languages": ["zh", "en"], "greeting": {}}), "") == "小灯 · /help\n"


@pytest.mark.parametrize(
    ("name", "value", "hello"),
    [
        ("LANG", "en_GB.UTF-8", "Lumen · /help\nHello, I am Lumen.\n"),
        ("LC_ALL", "zh_CN.UTF-8", HELLO),
        ("LANG", "C.UTF-8", HELLO),
        ("LC_MESSAGES", "fr_FR.UTF-8", HELLO),
    ],
)
def test_the_greeting_is_in_the_language_of_the_terminal_if_the_character_speaks_it(
    session, monkeypatch, name, value, hello
):
    monkeypatch.setenv(name, value)
    talk = session(config={"greeting": {"zh": "你好，我是小灯。", "en": "Hello, I am Lumen."}})
    assert shown(talk, "") == hello


def test_ctrl_d_leaves_and_quit_does_too(session):
    assert shown(session(), "") == shown(session(), "/quit\r你好\r") == shown(session(), "/quit now\r你好\r") == HELLO


@pytest.mark.parametrize(
    "typed", ["\r", "   \r", "\u3000\r", PASTE.format("\x07\x1b\x00") + "\r", PASTE.format("\n\n") + "\r"]
)
def test_an_empty_message_and_one_of_control_characters_are_not_sent(session, typed):
    talk = session(["好。"], guard=False)
    assert shown(talk, f"{typed}你好\r") == HELLO + "好。\n"
    assert [turn.question for turn in talk.turns] == ["你好"]


@LANGUAGES
def test_alt_enter_begins_a_new_line_and_enter_sends_them_all(session, language):
    talk = session(["好。"], guard=False)
    shown(talk, f"{STEPS[language]}{ALT_ENTER}第二行 two\r")
    assert [turn.question for turn in talk.turns] == [f"{STEPS[language]}\n第二行 two"]


def test_several_pasted_lines_are_one_question(session):
    talk = session(["好。"], guard=False)
    shown(talk, PASTE.format("第一行\r\n第二行\r第三行\n/quit") + "\r")
    assert [turn.question for turn in talk.turns] == ["第一行\n第二行\n第三行\n/quit"]
    assert talk.model.prompts[0].question == "第一行 第二行 第三行 /quit"


@pytest.mark.parametrize("text", ["灯塔" * 250_000, "why? " * 200_000, "a line\n" * 150_000])
def test_a_pasted_megabyte_is_refused_in_one_line_and_the_chat_goes_on(session, text):
    talk = session(["好。"], guard=False)
    refused = f"the message has {len(text):,} characters; at most 20,000 are read\n  say it shorter\n"
    assert shown(talk, PASTE.format(text) + "你好\r") == HELLO + refused + "好。\n"
    assert [turn.question for turn in talk.turns] == ["你好"]


def test_two_pastes_that_are_too_long_together_are_refused_when_they_are_sent(session):
    talk = session(["好。"], guard=False)
    half = PASTE.format("灯" * 15_000)
    refused = "the message has 30,000 characters; at most 20,000 are read\n  say it shorter\n"
    assert shown(talk, f"{half}{half}\r你好\r") == HELLO + refused + "好。\n"


def test_a_message_that_begins_with_a_slash_is_typed_with_two(session):
    talk = session(["好。"], ["好。"], guard=False)
    shown(talk, "//etc 是什么？\r／／etc\r")
    assert [turn.question for turn in talk.turns] == ["/etc 是什么？", "／etc"]


def test_bytes_that_are_no_utf_8_do_not_end_the_chat(session):
    talk = session(["好。"], ["好。"], guard=False)
    assert shown(talk, "你好\r".encode("gbk") + "你好\r".encode(), keep_history=True) == HELLO + "好。\n好。\n"
    assert [turn.question for turn in talk.turns] == ["????", "你好"]


def test_a_control_character_never_reaches_the_terminal_raw(session):
    written = io.StringIO()
    terminal = Vt100_Output(
        written, lambda: Size(rows=40, columns=80), term="dumb", default_color_depth=ColorDepth.DEPTH_1_BIT
    )
    terminal.text = ""
    talk = session(["\x1b[2J好。\x9b"], config={"greeting": {"zh": "\x1b]0;title\x07你好"}}, guard=False)
    shown(talk, PASTE.format("/\x1b[31mred") + "\r你好\r", terminal)
    text = written.getvalue()
    for ours in ("\x1b[0m", "\x1b[0;1m", "\x1b[?2004h", "\x1b[?2004l", "\x1b[3D", "\x1b[K", "..."):
        text = text.replace(ours, "")
    assert text == "小灯 · /help\n]0;title你好\nthere is no /[31mred\n  /help lists the commands\n[2J好。\n"


def test_without_colours_nothing_is_coloured(session, monkeypatch):
    outputs = []
    for no_color in ("", "1"):
        monkeypatch.setenv("NO_COLOR", no_color)
        written = io.StringIO()
        depth = ColorDepth.from_env()  # as create_output does
        terminal = Vt100_Output(
            written, lambda: Size(rows=40, columns=80), term="xterm-256color", default_color_depth=depth
        )
        terminal.text = ""
        shown(session(["好。"], guard=False), "你好\r/nothing\r", terminal)
        outputs.append(written.getvalue())
    assert [("\x1b[0;91m" in text, "\x1b[0;31m" in text) for text in outputs] == [(False, True), (False, False)]
    assert all(f";3{digit}" not in outputs[1] and f";9{digit}" not in outputs[1] for digit in range(8))


# --- stopping -------------------------------------------------------------------------------------


def test_ctrl_c_stops_the_answer_and_not_the_program(session):
    talk = session(["一", interrupt, "二"], ["九十九级。"], guard=False)
    assert shown(talk, "数吧\r灯塔有多少级台阶？\r") == HELLO + "一 …\n九十九级。\n"
    assert [(turn.answer, turn.stopped) for turn in talk.turns] == [("一", True), ("九十九级。", False)]
    assert talk.model.said == ["一", "九十九级。"]


def test_a_second_ctrl_c_interrupts_a_model_that_is_slow_to_notice(session):
    talk = session(["一", "二", "三"], ["好。"], guard=False)
    talk.stop = lambda: None
    assert shown(talk, "数吧\r你好\r", Impatient("一", times=2)) == HELLO + "一 …\n好。\n"
    assert [(turn.answer, turn.stopped) for turn in talk.turns] == [("一", True), ("好。", False)]


def test_ctrl_c_while_the_answer_is_written_stops_it_too(session):
    talk = session(["一", "二", "三"], ["好。"], guard=False)
    assert shown(talk, "数吧\r你好\r", Impatient("一")) == HELLO + "一 …\n好。\n"
    assert talk.turns[0].answer == "一"


def test_ctrl_c_before_the_first_sentence_shows_nothing_of_it(session):
    talk = session(["一", interrupt, "二。三"], ["好的。"])
    assert shown(talk, "数吧\r你好\r") == HELLO + "(stopped)\n好的。\n"


def test_ctrl_c_at_the_prompt_clears_the_line(session):
    assert shown(session(["好。"], guard=False), f"/quit{CTRL_C}你好\r") == HELLO + "好。\n"


def test_ctrl_c_is_the_programs_own_again_after_an_answer(session):
    shown(session(["好。"], guard=False), "你好\r")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_error_of_the_model_is_one_line_and_the_chat_goes_on(session):
    def fail():
        raise CamelBellError("the service is gone", "start it again")

    talk = session(["一。", fail], ["二。"], guard=False)
    assert shown(talk, "数吧\r/retry\r") == HELLO + "一。\nthe service is gone\n  start it again\n二。\n"
    assert said(talk) == [("数吧", "二。")]


# --- what was typed -------------------------------------------------------------------------------


@LANGUAGES
def test_what_was_typed_is_found_again_in_the_next_chat(session, own_home, language):
    shown(session(["好。"], guard=False), f"{STEPS[language]}\r", keep_history=True)
    file = own_home / "history" / "lumen.txt"
    assert file.read_text(encoding="utf-8").splitlines()[-1] == f"+{STEPS[language]}"
    talk = session(["好。"], guard=False)
    shown(talk, f"{UP}！\r", keep_history=True)
    assert [turn.question for turn in talk.turns] == [f"{STEPS[language]}！"]


@LANGUAGES
def test_ctrl_r_searches_what_was_typed_in_earlier_chats(session, language):
    shown(session(["好。"], ["好。"], guard=False), f"{STEPS[language]}\r第二句 two\r", keep_history=True)
    talk = session(["好。"], guard=False)
    shown(talk, f"{CTRL_R}{STEPS[language][2:5]}\r\r", keep_history=True)
    assert [turn.question for turn in talk.turns] == [STEPS[language]]


def test_lines_of_one_message_come_back_together(session):
    shown(session(["好。"], guard=False), f"一{ALT_ENTER}二\r", keep_history=True)
    talk = session(["好。"], guard=False)
    shown(talk, f"{UP}\r", keep_history=True)
    assert [turn.question for turn in talk.turns] == ["一\n二"]


def test_a_long_text_is_not_kept_for_the_arrow_keys(session, own_home):
    shown(session(["好。"], guard=False), PASTE.format("灯" * 5000) + "\r", keep_history=True)
    assert "灯" not in (own_home / "history" / "lumen.txt").read_text(encoding="utf-8")


def test_where_no_history_can_be_written_the_chat_goes_on(session, own_home):
    talk = session(["好。"], guard=False)
    (own_home / "history").write_text("a file in the way", encoding="utf-8")
    assert shown(talk, "你好\r", keep_history=True) == HELLO + "好。\n"


def test_without_history_nothing_is_written(session, own_home):
    shown(session(["好。"], guard=False), "你好\r")
    # The index of the bundle's wordings, and the bundle as it was read.
    assert {path.name for path in own_home.iterdir()} <= {"memory", "bundles"}


# --- commands -------------------------------------------------------------------------------------


def test_help_lists_every_command(session):
    assert shown(session(), "/help\r") == HELLO + (
        "/help       what you can type\n"
        "/character  talk to another character: /character NAME\n"
        "/at         go to a point of the story: /at 3-22, or back to its end: /at end\n"
        "/facts      what the last answer rests on\n"
        "/why        how the last answer came about: prompt, tries, guard\n"
        "/retry      answer the last question again\n"
        "/undo       take the last turn back, or the last ones: /undo 3\n"
        "/edit       ask the last question in other words\n"
        "/load       go on with an earlier conversation: /load lists them, /load 2\n"
        "/save       write this conversation to a JSONL file: /save FILE\n"
        "/export     write it as training pairs: /export FILE\n"
        "/model      talk on with another base model: /model NAME\n"
        "/reset      begin a new conversation\n"
        "/quit       leave (Ctrl-D does too)\n"
        "Enter sends, Alt-Enter begins a new line, Ctrl-C stops an answer, Ctrl-R searches what was typed,\n"
        "Ctrl-X Ctrl-E opens your editor; a message that begins with a slash is typed with two\n"
    )


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("/hlep", 'there is no /hlep; did you mean "/help"?\n'),
        ("/fact 你好", 'there is no /fact; did you mean "/facts"?\n'),
        ("/事实", "there is no /事实\n"),
        ("/", "there is no /\n"),
        ("／事实", "there is no /事实\n"),
    ],
)
def test_an_unknown_command_is_named_and_the_nearest_is_offered(session, typed, said):
    assert shown(session(), f"{typed}\r") == HELLO + said + "  /help lists the commands\n"


@pytest.mark.parametrize("typed", ["/AT", "／at", " /at "])
def test_a_command_is_known_in_capitals_and_with_the_slash_of_a_chinese_keyboard(session, typed):
    assert shown(session(files=STORY), f"{typed}\r") == HELLO + "the story is over; /at 1-1 to /at 2-3\n"


def test_facts_shows_what_the_last_answer_rests_on_with_its_place_in_the_story(session):
    talk = session(["是的。"], ["Yes."], files=STORY, config={"facts": 1})
    text = shown(talk, "/facts\r岛上常常起雾吗？\r/facts\rIs fog frequent here?\r/facts\r")
    zh, en = (turn.recalls[0].score for turn in talk.turns)
    assert text == HELLO + (
        "nothing has been said yet\n  ask something first\n"
        f"是的。\n- 岛上常常起雾。  [第2部第1章]  fits {zh:.2f}\n"
        f"Yes.\n- Fog is frequent here.  [book 2, chapter 1]  fits {en:.2f}\n"
    )


def test_facts_tells_that_something_was_held_back(session):
    talk = session(["我是AI。"], ["Ninety-nine."], ["南极？"], ["好"], ["九十九级。我是AI。好"])
    text = shown(talk, f"{STEPS['zh']}\r/facts\r/reset\r南极冷吗？\r/facts\r{STEPS['zh']}\r/facts\r")
    steps = f"- 小灯的灯塔有九十九级台阶。  fits {talk.turns[-1].recalls[0].score:.2f}\n"
    assert text.startswith(HELLO + f"九十九级，我每天数一遍。\n{steps}composed without the model; /why tells\n")
    assert "a new conversation\n南极？\nthe last answer rests on no fact\n九十九级。\n" in text
    assert text.endswith("the guard held something back; /why tells\n")


def masked(text):
    """Return the text with seconds as 0.0 s."""
    import re

    return re.sub(r"\d+\.\d s", "0.0 s", text)


@LANGUAGES
def test_why_shows_prompt_tries_and_verdicts(session, language):
    replies = {"zh": ["你好。"], "en": ["Hello."]}[language], ["我是AI。"], ["As an AI", ", no."]
    hello = {"zh": "你好", "en": "hello there"}[language]
    talk = session(*replies, files=STORY, config={"guard": ["persona_break"]}, settings=Settings(at=Point(2, 1)))
    text = masked(shown(talk, f"{hello}\r{STEPS[language]}\r/why\r"))
    turn = talk.turns[1]
    place = {"zh": "第2部第1章", "en": "book 2, chapter 1"}[language]
    first, *others = turn.prompt.facts
    times = "0.0 s to the first piece, 0.0 s in all"
    assert text.partition(turn.answer + "\n")[2] == (
        "prompt\n"
        f"  persona  {talk.character.config.persona[language]}\n"
        f"  facts    - {first}\n" + "".join(f"           - {fact}\n" for fact in others) + f"  history  > {hello}\n"
        f"           {replies[0][0]}\n"
        f"  question {STEPS[language]}\n"
        f"  at       {place}\n"
        f"try 1: {1 + len(others)} facts, temperature 0, {times}\n"
        "  the model said: 我是AI。\n"
        "  held back by persona_break: says '我是AI'\n"
        f"try 2: 1 fact, no history, temperature 0, {times}\n"
        "  the model said: As an AI, no.\n"
        "  held back by persona_break: says 'As an AI'\n"
        "shown: composed from the facts alone\n"
    )


@pytest.mark.parametrize(
    ("reply", "guard", "ends"),
    [
        (["九十九级。"], True, "shown: try 1, whole\n"),
        (["九十九级。我是AI。", "好"], True, "shown: try 1, up to the sentence that was held back\n"),
        (["九十", interrupt, "九"], False, "shown: what had been said when it was stopped\n"),
        ([], False, "the model said: nothing\nshown: composed from the facts alone\n"),
    ],
)
def test_why_tells_what_was_shown(session, reply, guard, ends):
    assert shown(session(reply, guard=guard), f"{STEPS['zh']}\r/why\r").endswith(ends)


@LANGUAGES
def test_why_tells_of_what_is_learned_only_later(session, language):
    question = {"zh": "岛上常常起雾吗？", "en": "Is fog frequent here?"}[language]
    place = {"zh": "第2部第1章", "en": "book 2, chapter 1"}[language]
    talk = session(files=STORY, settings=Settings(at=Point(1, 1)))
    text = shown(talk, f"{question}\r/why\r/facts\r")
    fact = {"zh": "岛上常常起雾。", "en": "Fog is frequent here."}[language]
    assert text == HELLO + (
        f"{talk.turns[0].answer}\n"
        f"shown: an admission of not knowing: what is asked for is learned only later, in {place}\n"
        f"not known yet: {fact}  [{place}]\nthe last answer rests on no fact\ncomposed without the model; /why tells\n"
    )


def test_retry_answers_the_last_question_again(session):
    talk = session(["一。"], ["二。"], ["三。"], guard=False)
    assert shown(talk, "数吧\r/retry\r/retry\r") == HELLO + "一。\n二。\n三。\n"
    assert said(talk) == [("数吧", "三。")]


def test_edit_puts_the_last_question_into_the_line(session):
    talk = session(["一。"], ["二。"], ["三。"], guard=False)
    assert shown(talk, "数吧\r/edit\r到三\r/edit Count to three.\r") == HELLO + "一。\n二。\n三。\n"
    assert said(talk) == [("Count to three.", "三。")]
    assert [prompt.question for prompt in talk.model.prompts] == ["数吧", "数吧到三", "Count to three."]


@pytest.mark.parametrize("leave", [CTRL_C, "\x15\r", f"\x15{CTRL_D}"])
def test_an_edit_that_is_left_changes_nothing(session, leave):
    talk = session(["一。"], ["好。"], guard=False)
    assert shown(talk, f"数吧\r/edit\r{leave}你好\r") == HELLO + "一。\n好。\n"
    assert said(talk) == [("数吧", "一。"), ("你好", "好。")]


def test_undo_takes_turns_back(session):
    talk = session(["一。"], ["二。"], ["三。"], ["四。"], guard=False)
    typed = "一\r二\r三\r/undo\r/undo 2\r/undo\r四\r/undo x\r/undo 0\r/undo -1\r"
    wrong = "is no number of turns\n  /undo takes the last one back, /undo 3 the last three\n"
    assert shown(talk, typed) == HELLO + (
        "一。\n二。\n三。\ntaken back: 三\ntaken back: 一\ntaken back: 二\nnothing has been said yet\n四。\n"
        f"'x' {wrong}'0' {wrong}'-1' {wrong}"
    )
    assert said(talk) == [("四", "四。")] and talk.model.prompts[3].history == ()


@pytest.mark.parametrize("command", ["/retry", "/edit", "/facts", "/why"])
def test_before_anything_was_said_there_is_nothing_to_explain_or_repeat(session, command):
    assert shown(session(), f"{command}\r") == HELLO + "nothing has been said yet\n  ask something first\n"


def test_at_moves_within_the_story(session):
    talk = session(files=STORY)
    text = shown(talk, "/at\r/at 1-2\r/at\r/at 第2部第1章\r/at book 1\r/at 9-9\r/at end\r")
    assert text == HELLO + (
        "the story is over; /at 1-1 to /at 2-3\n"
        "the story is at 第1部第2章 (1-2)\nthe story is at 第1部第2章 (1-2)\nthe story is at 第2部第1章 (2-1)\n"
        "the story is at 第1部第3章 (1-3)\n"
        "there is no story time '9-9'\n  allowed: 1-1 to 2-3, as part-chapter, or a part\n"
        "the story is over; /at 1-1 to /at 2-3\n"
    )


@LANGUAGES
def test_what_was_not_known_before_is_known_after_going_on_in_the_story(session, language):
    question = {"zh": "岛上常常起雾吗？", "en": "Is fog frequent here?"}[language]
    talk = session(["是的。" if language == "zh" else "Yes."], files=STORY, config={"guard": ["length"]})
    shown(talk, f"/at 1-1\r{question}\r/at 2-1\r{question}\r")
    assert [(turn.later is not None, "fog" in {fact.id for fact in turn.facts}) for turn in talk.turns] == [
        (True, False), (False, True),
    ]  # fmt: skip


def test_a_character_without_a_timeline_has_no_story_time(session):
    assert shown(session(), "/at 1-1\r/at\r") == HELLO + (
        "this character has no timeline, so it has no story time '1-1'\nthe story is over\n"
    )


# --- conversations --------------------------------------------------------------------------------


def test_a_chat_is_kept_and_taken_up_by_load(session):
    talk = session(["一。"], ["二。"], ["三。"], guard=False, keep=True)
    shown(talk, "1\r/reset\r2\r/load 2\r3\r")
    assert said(talk) == [("1", "一。"), ("3", "三。")]
    assert [message.content for message in talk.model.prompts[2].history] == ["1", "一。"]
    kept = list(conversations.conversations("lumen"))
    assert [[row["question"] for row in one.turns.values()] for one in kept] == [["1", "3"], ["2"]]


def test_load_lists_the_conversations_and_shows_the_end_of_the_one_it_takes_up(session):
    talk = session(*([f"{n}。"] for n in range(5)), guard=False, keep=True)
    shown(talk, "".join(f"第{n}句\r" for n in range(5)) + "/undo\r")
    when = read_conversation(talk.log.file).started[:16].replace("T", " ")
    again = session(keep=True)
    assert shown(again, "/load\r/load 1\r/load 9\r/load nope\r") == HELLO + (
        f"  1  {when}  4 turns, 2 branches  第0句\n"
        "/load NUMBER goes on with one\n"
        "(1 earlier turns)\n> 第1句\n1。\n> 第2句\n2。\n> 第3句\n3。\n"
        "another branch: /load 1.2  5 turns  第4句 → 4。\n"
        "there is no conversation with lumen '9'\n  see `camelbell conversations lumen`\n"
        "there is no conversation with lumen 'nope'\n  see `camelbell conversations lumen`\n"
    )
    assert [turn.question for turn in again.turns] == ["第0句", "第1句", "第2句", "第3句"]


def test_load_takes_a_branch_up(session):
    talk = session(["一。"], ["贰。"], ["三。"], guard=False, keep=True)
    text = shown(talk, "1\r/retry\r/load 1\r/load 1.2\r3\r/load 1.3\r/load 1.x\r")
    assert text == HELLO + (
        "一。\n贰。\n> 1\n贰。\nanother branch: /load 1.2  1 turn  1 → 一。\n"
        "> 1\n一。\nanother branch: /load 1.1  1 turn  1 → 贰。\n三。\n"
        "it has no branch '3'\n  branches: 1 to 2\nit has no branch 'x'\n  branches: 1 to 2\n"
    )
    assert said(talk) == [("1", "一。"), ("3", "三。")]


def test_load_says_when_no_conversation_is_kept(session):
    assert shown(session(), "/load\r") == HELLO + "no conversation is kept yet\n"


def test_a_conversation_that_is_taken_up_begins_with_its_last_turns(session):
    talk = session(["一。"], guard=False, keep=True)
    shown(talk, "1\r")
    again = session(["二。"], guard=False, keep=True)
    kept = next(conversations.conversations("lumen"))
    conversations.resume(again, kept, kept.head)
    assert shown(again, "2\r") == "小灯 · /help\n> 1\n一。\n二。\n"


CHAT = [
    {"role": "user", "content": "你好，“阿白”😀"},
    {"role": "assistant", "content": "好。"},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hi."},
]


@pytest.mark.parametrize("name", ["chat.jsonl", "新 文件夹/谈话.jsonl", ""])
def test_save_writes_the_conversation(session, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    talk = session(["好。"], ["Hi."], guard=False)
    file = name or "lumen-chat.jsonl"
    typed = f"{CHAT[0]['content']}\r{CHAT[2]['content']}\r/save {name}\r"
    assert shown(talk, typed) == HELLO + f"好。\nHi.\n2 turns written to {file}\n"
    text = (tmp_path / file).read_text(encoding="utf-8")
    assert text == json.dumps({"messages": CHAT}, ensure_ascii=False) + "\n"


def test_a_saved_conversation_can_be_imported(session, tmp_path):
    from camelbell_plugins.questions_import import read_pairs

    talk = session(["好。"], ["Hi."], guard=False)
    shown(talk, f"你好\rHi\r/save {tmp_path / 'chat.jsonl'}\r")
    assert list(read_pairs(tmp_path / "chat.jsonl")) == [("你好", "好。"), ("Hi", "Hi.")]


def test_export_writes_training_pairs(session, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    talk = session(["好。"], ["Hi", interrupt, "."], ["九十九级。"], guard=False)
    text = shown(talk, f"你好\rHi\r{STEPS['zh']}\r/export\r")
    assert text.endswith(
        "九十九级。\n2 pairs written to lumen-pairs.jsonl; camelbell train lumen --pairs lumen-pairs.jsonl\n"
    )
    pairs = read_records(tmp_path / "lumen-pairs.jsonl", Pair)
    assert pairs == conversations.training_pairs(talk.turns)
    assert [(pair.question, pair.answer) for pair in pairs] == [("你好", "好。"), (STEPS["zh"], "九十九级。")]


def test_save_goes_to_the_home_folder_by_its_sign(session, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert shown(session(), "/save ~/chat.jsonl\r") == HELLO + f"0 turns written to {tmp_path}/chat.jsonl\n"
    assert (tmp_path / "chat.jsonl").read_text(encoding="utf-8") == '{"messages": []}\n'


@pytest.mark.parametrize("command", ["/save", "/export"])
@pytest.mark.parametrize(
    ("name", "said"),
    [
        (".", ". is a folder; name a file\n"),
        ("file/chat.jsonl", "cannot write file/chat.jsonl: "),
        ("a" * 300, f"cannot write {'a' * 300}: "),
        ("~no_such_user/chat.jsonl", "cannot write ~no_such_user/chat.jsonl: "),
    ],
)
def test_a_file_that_cannot_be_written_is_named_and_the_chat_goes_on(
    session, tmp_path, monkeypatch, command, name, said
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    text = shown(session(["好。"], guard=False), f"{command} {name}\r你好\r")
    assert text.startswith(HELLO + said) and text.endswith("\n好。\n") and text.count("\n") == 4
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"


# --- other characters and models ------------------------------------------------------------------


@pytest.fixture
def opener(open_lumen, parrot):
    """Open the scaffold's character for real: a model of transformers that the hub loader opens."""
    run = open_lumen({}, guard=["length"])

    def open_run(name):
        if name != "lumen":
            raise CamelBellError(f"there is no character {name!r}", "see `camelbell characters`")
        return run

    def open_model(run, base):
        folder = str(parrot(base or "是的。"))
        return loader_for(run.registry, folder).load(folder)

    return Opener(
        open_run=open_run,
        open_model=open_model,
        characters=lambda: [("lumen", "小灯 / Lumen")],
        bases=lambda: [("embedded", "Gemma 3 270M")],
        settings=Settings(max_tokens=8),
        warn=pytest.fail,
    )


@LANGUAGES
def test_a_real_base_model_answers_what_is_typed(opener, language):
    talk = opener.open("lumen", {"zh": "九十九级。", "en": "Ninety-nine."}[language])
    with create_pipe_input() as pipe:
        pipe.send_text(f"{STEPS[language]}\r{CTRL_D}")
        terminal = Terminal(talk, opener, input=pipe, output=DummyOutput())
        terminal.screen.output = screen = Screen()
        terminal.run()
    assert screen.text == HELLO + {"zh": "九十九级。\n", "en": "Ninety-nine.\n"}[language]
    assert [row["answer"] for row in read_conversation(talk.log.file).turns.values()] == [talk.turns[0].answer]
    assert "first words after" in terminal.speed


def test_another_model_talks_on_in_the_same_conversation(opener):
    talk = opener.open("lumen", "一。")
    text = shown(talk, "/at\r1\r/model 二。\r2\r", opener=opener)
    assert text == HELLO + f"the story is over\n一。\n{talk.model.name} talks on, without an adapter\n二。\n"
    kept = next(conversations.conversations("lumen"))
    assert [row["answer"] for row in kept.branch(kept.head)] == ["一。", "二。"]


def test_another_character_begins_a_conversation_of_its_own(opener):
    talk = opener.open("lumen", "一。")
    text = shown(talk, "1\r/character\r/character nobody\r/character lumen\r2\r", opener=opener)
    assert text == HELLO + (
        "一。\n* lumen            小灯 / Lumen\nthere is no character 'nobody'\n  see `camelbell characters`\n"
        + HELLO + "是的。\n"
    )  # fmt: skip
    assert sorted(len(kept.turns) for kept in conversations.conversations("lumen")) == [1, 1]


def test_model_tells_who_talks_and_what_could(opener, session):
    talk = session()
    talk.model.adapter = "/runs/lumen/adapters/gemma"
    assert shown(talk, "/model\r", opener=opener) == HELLO + (
        "scripted talks, with the adapter /runs/lumen/adapters/gemma\n  embedded         Gemma 3 270M\n"
    )


def test_a_chat_that_was_opened_by_hand_opens_nothing_else(session):
    no = "this chat can open no other character or model\n  start `camelbell chat` for it\n"
    assert shown(session(), "/character x\r/model x\r/character\r") == HELLO + no + no + (
        "* lumen            Lumen / 小灯\n"
    )


def test_ctrl_c_ends_the_generation_of_a_real_model(open_lumen, tiny_bases):
    run = open_lumen({})
    base = str(tiny_bases["llama-plain"])
    talk = open_session(
        run.character, run.registry, loader_for(run.registry, base).load(base), guard=False,
        memory=False, settings=Settings(max_tokens=400, temperature=1.0),
    )  # fmt: skip
    written = []

    class Hasty(Screen):
        def write(self, data):
            super().write(data)
            if len(talk.turns) == 1 and talk.turns[0].answer and not written:
                written.append(data)
                interrupt()

    before = threading.active_count()
    text = shown(talk, "hello\r", Hasty())
    assert text.endswith(" …\n") and talk.turns[0].stopped
    assert talk.model.count(talk.turns[0].tries[0].said) < 300
    assert threading.active_count() == before


# --- completion -----------------------------------------------------------------------------------


def offered(talk, typed, opener=None):
    with create_pipe_input() as pipe:
        terminal = Terminal(talk, opener, keep_history=False, input=pipe, output=DummyOutput())
        found = terminal.prompt.completer.get_completions(Document(typed), None)
        return [(completion.text, completion.display_meta_text) for completion in found]


@pytest.mark.parametrize(
    ("typed", "names"),
    [
        ("/e", ["/edit", "/export"]),
        ("／E", ["/edit", "/export"]),
        ("/re", ["/retry", "/reset"]),
        ("/facts x", []),
        ("/nothing x", []),
        ("你好/", []),
        ("/e\n/e", []),
        ("", []),
    ],
)
def test_commands_are_completed(session, typed, names):
    assert [name for name, _ in offered(session(), typed)] == names


def test_every_command_says_what_it_does_when_it_is_offered(session):
    found = dict(offered(session(), "/"))
    assert len(found) == 14 and all(found.values())
    assert found["/facts"] == "what the last answer rests on"


def test_what_stands_after_a_command_is_completed_too(session, opener, tmp_path):
    talk = session(["好。"], files=STORY, guard=False, keep=True)
    assert offered(talk, "/at ") == [("1-3", "第1部第3章"), ("2-3", "第2部第3章"), ("end", "the story is over")]
    assert offered(talk, "/at 2-") == [("2-1", "第2部第1章"), ("2-2", "第2部第2章"), ("2-3", "第2部第3章")]
    assert offered(talk, "/at 9-") == []
    assert offered(talk, "/character ", opener) == [("lumen", "小灯 / Lumen")]
    assert offered(talk, "/model e", opener) == [("embedded", "Gemma 3 270M")]
    assert offered(talk, "/model ") == []
    (tmp_path / "pairs.jsonl").touch()
    assert [name for name, _ in offered(talk, f"/export {tmp_path}/pai")] == ["rs.jsonl"]
    talk.ask("你好")
    when = read_conversation(talk.log.file).started[:16].replace("T", " ")
    assert offered(talk, "/load ") == [("1", f"{when}  1 turn  你好")]


def test_tab_completes_and_enter_sends_what_stands_there(session):
    with create_pipe_input() as pipe:
        terminal = Terminal(session(files=STORY), keep_history=False, input=pipe, output=DummyOutput())
        terminal.screen.output = Screen()
        line = terminal.prompt.default_buffer

        def type_and_wait():
            for keys, there in (
                ("/a", "/a"),
                (TAB, "/at"),
                (" 1", "/at 1"),
                (TAB, "/at 1-3"),
                ("\r", "/at 1-3"),
                ("\r", ""),
            ):
                pipe.send_text(keys)
                for _ in range(500):
                    if line.text == there:
                        break
                    time.sleep(0.01)
            pipe.send_text(CTRL_D)

        typing = threading.Thread(target=type_and_wait)
        typing.start()
        terminal.run()
        typing.join()
    assert terminal.screen.output.text == HELLO + "the story is at 第1部第3章 (1-3)\n"


# --- the bottom line ------------------------------------------------------------------------------


def bottom(talk, width=200, speed=""):
    class Wide(DummyOutput):
        def get_size(self):
            return Size(rows=40, columns=width)

    with create_pipe_input() as pipe:
        terminal = Terminal(talk, keep_history=False, input=pipe, output=Wide())
        terminal.speed = speed
        return terminal.prompt.bottom_toolbar()


@pytest.mark.parametrize(
    ("adapter", "at", "line"),
    [
        ("", None, " 小灯 · scripted · no adapter "),
        ("/runs/lumen/adapters/gemma", Point(2, 3), " 小灯 · scripted · adapter gemma · 第2部第3章 "),
    ],
)
def test_the_bottom_line_tells_who_talks_by_what_and_when(session, adapter, at, line):
    talk = session(settings=Settings(at=at), files=STORY, keep=True)
    talk.model.adapter = adapter
    assert bottom(talk) == line
    talk.log = None
    assert bottom(talk) == f"{line}· not kept "


def test_what_does_not_fit_into_the_bottom_line_is_left_out_and_it_is_never_too_wide(session):
    from prompt_toolkit.utils import get_cwidth

    talk = session(settings=Settings(at=Point(2, 3)), files=STORY, keep=True)
    lines = {width: bottom(talk, width, "31 tokens/s") for width in range(0, 80)}
    assert all(get_cwidth(line) <= width for width, line in lines.items())
    assert list(dict.fromkeys(lines.values()))[-5:] == [
        " 小灯 ",
        " 小灯 · 第2部第3章 ",
        " 小灯 · scripted · 第2部第3章 ",
        " 小灯 · scripted · no adapter · 第2部第3章 ",
        " 小灯 · scripted · no adapter · 第2部第3章 · 31 tokens/s ",
    ]


def test_the_bottom_line_tells_the_speed_of_the_last_reply(session):
    def slowly():
        time.sleep(0.05)
        return "二三四五六七八九。"

    talk = session(["一", slowly], guard=False)
    talk.model.layout = object()
    talk.model.count = len
    with create_pipe_input() as pipe:
        pipe.send_text(f"数吧\r{CTRL_D}")
        terminal = Terminal(talk, keep_history=False, input=pipe, output=DummyOutput())
        terminal.run()
    rate, rest = terminal.speed.split(" ", 1)
    attempt = talk.turns[0].tries[0]
    assert rate == f"{10 / (attempt.seconds - attempt.first):.0f}"
    assert rest == f"tokens/s · first words after {talk.turns[0].waited:.1f} s"


# --- without a terminal ---------------------------------------------------------------------------


def test_without_a_terminal_each_line_gets_one_line(session, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("你好\n\n   \nHow many\r\n/help"))
    talk = session(["好。\n\n", "你好！"], ["Ninety\n-nine."], ["什么？"], guard=False)
    talk_plainly(talk)
    assert capsys.readouterr().out == "好。 你好！\nNinety -nine.\n什么？\n"
    assert [turn.question for turn in talk.turns] == ["你好", "How many", "/help"]


def test_the_frontend_talks_plainly_where_there_is_no_terminal(session, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("你好\n"))
    Repl().run(session(["好。"], guard=False))
    assert capsys.readouterr().out == "好。\n"


def test_a_line_that_cannot_be_answered_gets_an_empty_one_and_the_rest_is_answered(session, monkeypatch, capsys):
    def fail():
        raise CamelBellError("the service is gone", "start it again")

    monkeypatch.setattr("sys.stdin", io.StringIO("一\n\x1b\x07\n" + "灯" * 30_000 + "\n二\x1b[0m\n"))
    talk = session([fail], ["二。"], guard=False)
    talk_plainly(talk)
    out, err = capsys.readouterr()
    assert out == "\n\n二。\n"
    assert err == (
        "camelbell: the service is gone (start it again)\n"
        "camelbell: the message has 30,000 characters; at most 20,000 are read (say it shorter)\n"
    )
    assert [turn.question for turn in talk.turns] == ["一", "二[0m"]


ECHO = '''
"""A base model that says back what it is asked."""

from dataclasses import dataclass
from typing import ClassVar

from camelbell_core import hookimpl
from camelbell_core.roles import BaseModel, LanguageModel


class Echo(LanguageModel):
    name = "echo"

    def stream(self, prompt, max_tokens, temperature=0.0, stop=None):
        yield f"<{prompt.question}"
        yield ">"


@dataclass(kw_only=True)
class EchoBase(BaseModel):
    """Says back what it is asked."""

    name: ClassVar[str] = "echo"

    def accepts(self, base):
        return base == "echo"

    def load(self, base, adapter=None):
        return Echo()

    def load_trainable(self, base):
        raise NotImplementedError


@hookimpl
def register_base_models():
    return [EchoBase]
'''


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("你好\n\nHow are you?\r\n最后一行", "<你好>\n<How are you?>\n<最后一行>\n"),
        ("\ufeff你好😀\n", "<你好😀>\n"),
        (b"\xc4\xe3\n\xe4\xbd\xa0\n", "<??>\n<你>\n".replace("?", "\ufffd")),
        ("", ""),
    ],
    ids=["lines", "byte order mark", "no UTF-8", "nothing"],
)
def test_lines_piped_into_the_program_are_answered_one_by_one(open_lumen, tmp_path, typed, said):
    open_lumen({"plugin.py": ECHO}, base="echo")
    places = ["--characters", str(tmp_path / "bundles"), "--workspace", str(tmp_path / "run")]
    done = subprocess.run(
        [sys.executable, "-m", "camelbell_core.cli", "chat", "lumen", "--no-adapter", "--no-guard", *places],
        input=typed if isinstance(typed, bytes) else typed.encode("utf-8"),
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"},
        cwd=Path(__file__).parent.parent,
        timeout=60,
    )
    assert (done.stdout.decode("utf-8"), done.stderr.decode("utf-8"), done.returncode) == (said, "", 0)


# --- in a real terminal ---------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals of this kind")
@LANGUAGES
def test_in_a_real_terminal_a_chat_is_typed_stopped_and_left(open_lumen, parrot, tmp_path, own_home, language):
    import pty
    import select
    import termios

    open_lumen()
    places = ["--characters", str(tmp_path / "bundles"), "--workspace", str(tmp_path / "run")]
    base = ["--base", str(parrot("九十九级。")), "--no-adapter", "--no-guard"]
    child, terminal = pty.fork()
    if not child:
        os.environ.update(PYTHONIOENCODING="utf-8:strict", TERM="xterm", HF_HUB_OFFLINE="1")
        os.execv(sys.executable, [sys.executable, "-m", "camelbell_core.cli", "chat", "lumen", *base, *places])
    seen = b""

    def until(*words):
        nonlocal seen
        end = time.monotonic() + 60
        while not all(word.encode() in seen for word in words):
            assert time.monotonic() < end and select.select([terminal], [], [], 60)[0], seen.decode("utf-8", "replace")
            data = os.read(terminal, 65536)
            seen += data
            if b"\x1b[6n" in data:  # where is the cursor?
                os.write(terminal, b"\x1b[1;1R")
        seen = b""

    until("小灯", "你好，我是小灯。", "> ")
    os.write(terminal, f"{STEPS[language]}\r".encode())
    until("九十九级。", "first words after")
    assert not termios.tcgetattr(terminal)[3] & termios.ECHO
    os.write(terminal, f"{STEPS[language]}\x1b\r第二行\x03/at\r".encode())  # Ctrl-C at the prompt clears both lines
    until("the story is over")
    os.write(terminal, b"/quit\r")
    with pytest.raises(OSError):  # the other end is closed
        while os.read(terminal, 65536):
            pass
    assert os.waitpid(child, 0)[1] == 0
    os.close(terminal)
    (file,) = (own_home / "conversations" / "lumen").glob("*.jsonl")
    assert [row["question"] for row in read_conversation(file).turns.values()] == [STEPS[language]]
    typed = (own_home / "history" / "lumen.txt").read_text(encoding="utf-8")
    assert [line for line in typed.splitlines() if line.startswith("+")] == [f"+{STEPS[language]}", "+/at", "+/quit"]
