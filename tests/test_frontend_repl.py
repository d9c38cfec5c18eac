import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from prompt_toolkit.data_structures import Size
from prompt_toolkit.document import Document
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput
from prompt_toolkit.output.vt100 import Vt100_Output

from camelbell_core.records import Point
from camelbell_core.session import Settings, open_session
from camelbell_plugins.frontend_repl import Repl, Terminal, talk_plainly

HELLO = "小灯 · /help\n你好，我是小灯。\n"
CTRL_C, CTRL_D, UP = "\x03", "\x04", "\x1b[A"


class Screen(DummyOutput):
    """Keeps what the chat writes; prompt_toolkit draws its prompt elsewhere."""

    def __init__(self):
        self.text = ""

    def write(self, data):
        self.text += data


@pytest.fixture
def session(open_lumen, scripted):
    """Open a session whose model says the given replies."""

    def open_it(*replies, config=None, files=None, **options):
        run = open_lumen(files, **(config or {}))
        return open_session(run.character, run.registry, scripted(*replies), **options)

    return open_it


def shown(session, typed, screen=None, keep_history=False):
    """Return all that a chat shows when a person types this, and Ctrl-D last."""
    with create_pipe_input() as pipe:
        pipe.send_bytes((typed if isinstance(typed, bytes) else typed.encode("utf-8")) + CTRL_D.encode())
        terminal = Terminal(session, keep_history=keep_history, input=pipe, output=DummyOutput())
        terminal.output = screen or Screen()
        terminal.run()
        return terminal.output.text


@pytest.fixture(autouse=True)
def ctrl_c_interrupts():
    """A shell that runs the tests in the background lets them ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupt():
    signal.raise_signal(signal.SIGINT)


class Impatient(Screen):
    """Presses Ctrl-C when it has written a word."""

    def __init__(self, word):
        super().__init__()
        self.word = word

    def write(self, data):
        super().write(data)
        if data == self.word:
            interrupt()


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


def test_ctrl_d_leaves_and_quit_does_too(session):
    assert shown(session(), "") == shown(session(), "/quit\r你好\r") == shown(session(), "/quit now\r你好\r") == HELLO


def test_help_lists_every_command(session):
    assert shown(session(), "/help\r") == HELLO + (
        "/help   what you can type\n"
        "/facts  what the last answer rests on\n"
        "/reset  forget this conversation\n"
        "/retry  answer the last question again\n"
        "/save   write this conversation to a JSONL file: /save FILE\n"
        "/quit   leave (Ctrl-D does too)\n"
        "Ctrl-C stops an answer; the arrow keys and Ctrl-R search what you typed before\n"
    )


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("/hlep", 'there is no /hlep; did you mean "/help"?; /help lists the commands\n'),
        ("/fact 你好", 'there is no /fact; did you mean "/facts"?; /help lists the commands\n'),
        ("/事实", "there is no /事实; /help lists the commands\n"),
        ("/", "there is no /; /help lists the commands\n"),
    ],
)
def test_an_unknown_command_is_named_and_the_nearest_is_offered(session, typed, said):
    assert shown(session(), f"{typed}\r") == HELLO + said


def test_facts_shows_what_the_last_answer_rests_on(session):
    story = """
timeline: {chapters: [3, 3]}
facts: [{id: fog, about: [lumen], source: 2-1, text: {zh: 岛上常常起雾。, en: Fog is frequent here.}}]
"""
    talk = session(["是的。"], ["Yes."], files={"canon/story.yaml": story}, config={"facts": 1})
    assert shown(talk, "/facts\r岛上常常起雾吗？\r/facts\rIs fog frequent here?\r/facts\r") == HELLO + (
        "nothing has been said yet\n是的。\n- 岛上常常起雾。  [2-1]\nYes.\n- Fog is frequent here.  [2-1]\n"
    )


def test_facts_shows_what_the_guard_held_back(session):
    talk = session(["我是AI。"], ["Ninety-nine."], ["南极？"], ["好"])
    assert shown(talk, "灯塔有多少级台阶？\r/facts\r/reset\r南极冷吗？\r/facts\r") == HELLO + (
        "九十九级，我每天数一遍。\n"
        "- 小灯的灯塔有九十九级台阶。\n"
        "  held back by persona_break: says '我是AI'\n"
        "  held back by language: 0 of 10 letters are Chinese, the question is in Chinese\n"
        "  composed from the facts alone\n"
        "南极？\n"
        "the last answer rests on no fact\n"
    )


def test_reset_forgets_what_was_said(session):
    talk = session(["九十九级。"], ["好。"], guard=False)
    assert shown(talk, "灯塔有多少级台阶？\r/reset\r/facts\r/retry\r你好\r") == HELLO + (
        "九十九级。\nnothing has been said yet\nnothing has been said yet\n好。\n"
    )
    assert [turn.question for turn in talk.turns] == ["你好"]
    assert talk.model.prompts[1].history == ()


def test_retry_answers_the_last_question_again(session):
    talk = session(["一。"], ["二。"], ["三。"], guard=False)
    assert shown(talk, "数吧\r/retry\r/retry\r") == HELLO + "一。\n二。\n三。\n"
    assert [(turn.question, turn.answer) for turn in talk.turns] == [("数吧", "三。")]


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


def test_save_goes_to_the_home_folder_by_its_sign(session, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert shown(session(), "/save ~/chat.jsonl\r") == HELLO + f"0 turns written to {tmp_path}/chat.jsonl\n"
    assert (tmp_path / "chat.jsonl").read_text(encoding="utf-8") == '{"messages": []}\n'


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (".", ". is a folder; name a file\n"),
        ("file/chat.jsonl", "cannot write file/chat.jsonl: "),
        ("a" * 300, f"cannot write {'a' * 300}: "),
        ("~no_such_user/chat.jsonl", "cannot write ~no_such_user/chat.jsonl: "),
    ],
)
def test_a_file_that_cannot_be_written_is_named_and_the_chat_goes_on(session, tmp_path, monkeypatch, name, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    text = shown(session(["好。"], guard=False), f"/save {name}\r你好\r")
    assert text.startswith(HELLO + said) and text.endswith("\n好。\n") and text.count("\n") == 4
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"


def test_ctrl_c_stops_the_answer_and_not_the_program(session):
    talk = session(["一", interrupt, "二"], ["九十九级。"], guard=False)
    assert shown(talk, "数吧\r灯塔有多少级台阶？\r") == HELLO + "一 …\n九十九级。\n"
    assert [turn.answer for turn in talk.turns] == ["一", "九十九级。"]


def test_a_second_ctrl_c_stops_no_more_than_the_answer(session):
    talk = session(["一", "二", interrupt, "三"], ["好。"], guard=False)
    talk.stop = lambda: None  # the model is slow to notice
    assert shown(talk, "数吧\r你好\r", Impatient("一")) == HELLO + "一 …\n好。\n"


def test_ctrl_c_while_the_answer_is_written_stops_it_too(session):
    talk = session(["一", "二", "三"], ["好。"], guard=False)
    assert shown(talk, "数吧\r你好\r", Impatient("一")) == HELLO + "一 …\n好。\n"
    assert talk.turns[0].answer == "一"


def test_ctrl_c_before_the_first_sentence_shows_nothing_of_it(session):
    talk = session(["一", interrupt, "二。三"], ["好的。"])
    assert shown(talk, "数吧\r你好\r") == HELLO + " …\n好的。\n"


def test_ctrl_c_at_the_prompt_clears_the_line(session):
    assert shown(session(["好。"], guard=False), f"/quit{CTRL_C}你好\r") == HELLO + "好。\n"


def test_several_pasted_lines_are_one_question(session):
    talk = session(["好。"], guard=False)
    shown(talk, "\x1b[200~第一行\n第二行\x1b[201~\r")
    assert [turn.question for turn in talk.turns] == ["第一行\n第二行"]
    assert talk.model.prompts[0].question == "第一行 第二行"


def test_bytes_that_are_no_utf_8_do_not_end_the_chat(session):
    talk = session(["好。"], ["好。"], guard=False)
    assert shown(talk, "你好\r".encode("gbk") + "你好\r".encode(), keep_history=True) == HELLO + "好。\n好。\n"
    assert [turn.question for turn in talk.turns] == ["????", "你好"]


def test_what_was_typed_is_found_again_in_the_next_chat(session, own_home):
    shown(session(["好。"], guard=False), "你好，阿白\r", keep_history=True)
    assert (own_home / "history" / "lumen.txt").read_text(encoding="utf-8").splitlines()[-1] == "+你好，阿白"
    talk = session(["好。"], guard=False)
    shown(talk, f"{UP}！\r", keep_history=True)
    assert [turn.question for turn in talk.turns] == ["你好，阿白！"]


def test_without_history_nothing_is_written(session, own_home):
    shown(session(["好。"], guard=False), "你好\r")
    assert [path.name for path in own_home.iterdir()] == ["memory"]  # the index of the bundle's wordings


def test_a_control_character_never_reaches_the_terminal_raw(session):
    written = io.StringIO()
    terminal = Vt100_Output(written, lambda: Size(rows=40, columns=80), term="dumb")
    terminal.text = ""
    talk = session(["\x1b[2J好。"], config={"greeting": {"zh": "\x1b]0;title\x07你好"}}, guard=False)
    shown(talk, "\x1b[200~/\x1b[31mred\x1b[201~\r你好\r", terminal)
    assert written.getvalue() == (
        "小灯 · /help\n?]0;title\x07你好\nthere is no /?[31mred; /help lists the commands\n[2J好。\n"
    )


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("/", ["/help", "/facts", "/reset", "/retry", "/save", "/quit"]),
        ("/re", ["/reset", "/retry"]),
        ("/save x", []),
        ("你好/", []),
        ("", []),
    ],
)
def test_commands_are_completed(session, typed, offered):
    with create_pipe_input() as pipe:
        terminal = Terminal(session(), keep_history=False, input=pipe, output=DummyOutput())
        completions = terminal.prompt.completer.get_completions(Document(typed), None)
    assert [completion.text for completion in completions] == offered


@pytest.mark.parametrize(
    ("adapter", "at", "line"),
    [
        ("", None, " 小灯 · scripted · no adapter "),
        ("/runs/lumen/adapters/gemma", Point(3, 22), " 小灯 · scripted · with adapter · at 3-22 "),
    ],
)
def test_the_toolbar_tells_who_talks_and_by_what(session, adapter, at, line):
    talk = session(settings=Settings(at=at))
    talk.model.adapter = adapter
    with create_pipe_input() as pipe:
        assert Terminal(talk, keep_history=False, input=pipe, output=DummyOutput()).prompt.bottom_toolbar() == line


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
