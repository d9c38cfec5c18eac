"""conversations.py: what is said is kept, taken up again, branched, and made into training pairs."""

import json
import os
import threading

import pytest

from camelbell_core import conversations
from camelbell_core.conversations import Conversation, find_conversation, read_conversation, training_pairs
from camelbell_core.errors import CamelBellError
from camelbell_core.journal import read_records, write_rows
from camelbell_core.records import Message, Pair, Point, to_row
from camelbell_core.session import Settings, open_session

STEPS = {"zh": "灯塔有多少级台阶？", "en": "How many steps has the lighthouse?"}
LANGUAGES = pytest.mark.parametrize("language", ["zh", "en"])
TIME = {"canon/time.yaml": "timeline: {chapters: [3, 3]}\n"}


@pytest.fixture
def talk(open_lumen, scripted):
    """Open a kept session whose model says the given replies."""

    def open_it(*replies, files=None, warn=pytest.fail, settings=None, guard=False):
        run = open_lumen(files)
        session = open_session(run.character, run.registry, scripted(*replies), guard=guard, settings=settings)
        session.log = Conversation("lumen", warn=warn)
        return session

    return open_it


def rows(session):
    return [json.loads(line) for line in session.log.file.read_text(encoding="utf-8").splitlines()]


def said(session):
    return [(turn.question, turn.answer) for turn in session.turns]


@LANGUAGES
def test_each_turn_is_a_line(talk, own_home, language):
    session = talk(["我是AI。"], ["As an AI, no."], files=TIME, settings=Settings(at=Point(1, 2)), guard=True)
    session.guard = [judge for judge in session.guard if judge.name == "persona_break"]
    session.ask(STEPS[language])
    assert session.log.file.parent == own_home / "conversations" / "lumen"
    assert (session.log.file.parent.stat().st_mode & 0o777) == 0o700
    first, row = rows(session)
    assert (first["conversation"], first["character"]) == (1, "lumen") and first["started"] == row["time"]
    turn = session.turns[0]
    row.pop("time"), row.pop("seconds")
    assert row == {
        "id": turn.id,
        "after": None,
        "question": STEPS[language],
        "answer": turn.answer,
        "language": language,
        "at": "1-2",
        "facts": ["steps"],
        "model": "scripted",
        "composed": True,
        "stopped": False,
        "held_back": [
            {"filter": "persona_break", "reason": "says '我是AI'"},
            {"filter": "persona_break", "reason": "says 'As an AI'"},
        ],
    }


def test_before_anything_is_said_there_is_no_file(talk, own_home):
    session = talk()
    session.reset()
    session.undo()
    assert not (own_home / "conversations").exists()


@LANGUAGES
def test_a_conversation_is_taken_up_where_it_was_left(talk, language):
    session = talk(["一。"], ["Two."], files=TIME, settings=Settings(at=Point(2, 1)))
    session.ask(STEPS[language])
    session.ask("2？")
    again = talk(["三。"])
    conversations.resume(again, kept := read_conversation(session.log.file), kept.head)
    assert said(again) == said(session)
    assert [(t.id, t.language, t.facts, t.at, t.model) for t in again.turns] == [
        (t.id, t.language, t.facts, t.at, t.model) for t in session.turns
    ]
    again.ask("3？")
    assert [m.content for m in again.model.prompts[0].history] == [STEPS[language], "一。", "2？", "Two."]
    assert [row["question"] for row in read_conversation(session.log.file).branch(again.turns[-1].id)] == [
        STEPS[language], "2？", "3？",
    ]  # fmt: skip


def test_what_is_answered_again_edited_or_taken_back_stays_as_a_branch(talk):
    session = talk(["一。"], ["二。"], ["贰。"], ["三。"])
    session.ask("1？")
    session.ask("2？")
    list(session.retry())
    list(session.edit("3？"))
    kept = read_conversation(session.log.file)
    branches = [[row["answer"] for row in kept.branch(end)] for end in kept.ends]
    assert branches == [["一。", "三。"], ["一。", "贰。"], ["一。", "二。"]]
    session.undo()
    kept = read_conversation(session.log.file)
    assert (kept.head, kept.ends[0]) == (session.turns[0].id, session.turns[0].id)
    session.reset()
    kept = read_conversation(session.log.file)
    assert (kept.head, kept.branch(kept.head), len(kept.ends)) == (None, [], 3)


def test_another_branch_is_taken_up_and_goes_on(talk):
    session = talk(["一。"], ["二。"], ["贰。"])
    session.ask("1？")
    session.ask("2？")
    list(session.retry())
    kept = read_conversation(session.log.file)
    again = talk(["四。"])
    conversations.resume(again, kept, kept.ends[1])
    assert said(again) == [("1？", "一。"), ("2？", "二。")]
    assert read_conversation(session.log.file).head == kept.ends[1]
    again.ask("4？")
    kept = read_conversation(session.log.file)
    assert [row["answer"] for row in kept.branch(kept.head)] == ["一。", "二。", "四。"]


def test_a_session_that_is_not_kept_can_take_one_up_and_writes_nothing(talk):
    session = talk(["一。"])
    session.ask("1？")
    before = session.log.file.read_bytes()
    again = talk(["二。"])
    again.log = None
    conversations.resume(again, kept := read_conversation(session.log.file), kept.head)
    again.ask("2？")
    assert session.log.file.read_bytes() == before


def test_the_newest_conversation_comes_first_and_broken_files_are_left_out(talk):
    files = []
    for number in range(3):
        session = talk([f"{number}。"])
        session.ask("你好")
        os.utime(session.log.file, (number, number))
        files.append(session.log.file)
    (files[0].parent / "broken.jsonl").write_text("[1]\n", encoding="utf-8")
    (files[0].parent / "empty.jsonl").write_text("", encoding="utf-8")
    assert [kept.file for kept in conversations.conversations("lumen")] == files[::-1]
    assert list(conversations.conversations("nobody")) == []


def test_a_conversation_is_found_by_the_beginning_of_its_name(talk):
    session = talk(["一。"])
    session.ask("1？")
    name = session.log.file.stem
    other = session.log.file.with_name(name[:8] + "-x.jsonl")
    other.write_bytes(session.log.file.read_bytes())
    assert find_conversation("lumen", name).id == name == find_conversation("lumen", name[:-1]).id
    for wrong, message in ((name[:8], "2 conversations begin with"), ("", "there is no"), ("../x", "there is no")):
        with pytest.raises(CamelBellError, match=message) as caught:
            find_conversation("lumen", wrong)
        assert caught.value.hint == "see `camelbell conversations lumen`"


TURN = {"id": "a", "after": None, "question": "你好", "answer": "好。", "language": "zh"}


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"conversation": 2, "started": ""}, "version 2 is not known here"),
        ({"hello": 1}, "'after'"),
        ({**TURN, "answer": 1}, "are texts"),
        ({**TURN, "after": "b"}, "there is no turn 'b' before it"),
        ({**TURN, "id": "a0", "after": "a0"}, "there is no turn 'a0' before it"),
        ({**TURN, "id": "first"}, "stands there twice"),
        ({"head": "b"}, "there is no turn 'b'"),
        ({"head": []}, "unhashable"),
    ],
)
def test_a_line_that_is_none_of_ours_is_named(tmp_path, row, why):
    file = tmp_path / "c.jsonl"
    write_rows(file, [{"conversation": 1, "started": ""}, {**TURN, "id": "first"}, row])
    with pytest.raises(CamelBellError, match=rf"c\.jsonl:3: .*{why}"):
        read_conversation(file)


def test_a_line_torn_by_a_kill_is_left_out_and_the_conversation_goes_on(talk):
    session = talk(["一。"], ["二。"], ["三。"])
    session.ask("1？")
    session.ask("2？")
    data = session.log.file.read_bytes()
    session.log.file.write_bytes(data[:-20])
    kept = read_conversation(session.log.file)
    assert [row["answer"] for row in kept.turns.values()] == ["一。"]
    again = talk(["三。"])
    conversations.resume(again, kept, kept.head)
    again.ask("3？")
    assert [row["answer"] for row in read_conversation(session.log.file).turns.values()] == ["一。", "三。"]


def test_two_terminals_in_one_conversation_make_two_branches(talk):
    session = talk(["一。"], *(["甲。"] for _ in range(20)))
    session.ask("1？")
    other = talk(*(["乙。"] for _ in range(20)))
    conversations.resume(other, kept := read_conversation(session.log.file), kept.head)
    both = [threading.Thread(target=lambda s=s: [s.ask("你好") for _ in range(20)]) for s in (session, other)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    kept = read_conversation(session.log.file)
    assert [len(kept.branch(turns[-1].id)) for turns in (session.turns, other.turns)] == [21, 21]
    assert len(kept.turns) == 41


def test_where_nothing_can_be_written_the_chat_goes_on_and_says_so_once(talk, own_home):
    told = []
    own_home.mkdir(parents=True, exist_ok=True)
    (own_home / "conversations").write_text("a file in the way", encoding="utf-8")
    session = talk(["一。"], ["二。"], warn=told.append)
    assert [session.ask("1？"), session.ask("2？")] == ["一。", "二。"]
    assert len(told) == 1 and told[0].startswith("this conversation is no longer kept: ")


def test_facts_and_story_times_that_the_canon_lost_are_left_out(talk):
    session = talk()
    row = {**TURN, "facts": ["steps", "gone"], "at": "3-22", "stopped": True}
    turn = conversations.turn_of(row, session.character)
    assert ([fact.id for fact in turn.facts], turn.at, turn.stopped, turn.composed) == (["steps"], None, True, False)


def test_begin_starts_another_file(talk):
    session = talk(["一。"], ["二。"])
    session.ask("1？")
    first = session.log.file
    conversations.begin(session)
    session.ask("2？")
    assert session.log.file != first
    assert [row["answer"] for row in read_conversation(first).turns.values()] == ["一。"]
    assert [row["answer"] for row in read_conversation(session.log.file).turns.values()] == ["二。"]


# --- training pairs -------------------------------------------------------------------------------


@LANGUAGES
def test_whole_replies_become_training_pairs(talk, language, tmp_path):
    session = talk(["一。"], ["Two."], [], ["四。"], files=TIME)
    session.model.replies[2] = ["三", session.stop, "。"]
    for question in ("1？", STEPS[language], "3？", "4？"):
        session.ask(question)
    session.travel(Point(1, 1))
    session.model.replies.append(["五。"])
    session.ask("5？")
    pairs = training_pairs(session.turns)
    assert [(pair.question, pair.answer, pair.history, pair.at) for pair in pairs] == [
        ("1？", "一。", (), ""),
        (STEPS[language], "Two.", ("1？", "一。"), ""),
        ("4？", "四。", ("1？", "一。", STEPS[language], "Two.", "3？", "三"), ""),
        ("5？", "五。", ("1？", "一。", STEPS[language], "Two.", "3？", "三", "4？", "四。"), "1-1"),
    ]
    assert pairs[1].language == language and pairs[1].facts[0] == "steps"
    assert {(pair.kind, pair.generator, pair.teacher, pair.model) for pair in pairs} == {
        ("chat", "chat", "model", "scripted")
    }
    write_rows(tmp_path / "pairs.jsonl", map(to_row, pairs))
    assert read_records(tmp_path / "pairs.jsonl", Pair) == pairs


def test_a_pair_holds_as_much_history_as_a_prompt(talk):
    session = talk(*([f"{n}。"] for n in range(6)))
    for number in range(6):
        session.ask(f"{number}？")
    assert [len(pair.history) for pair in training_pairs(session.turns)] == [0, 2, 4, 6, 8, 8]
    assert [len(pair.history) for pair in training_pairs(session.turns, 1)] == [0, 2, 2, 2, 2, 2]
    assert [len(pair.history) for pair in training_pairs(session.turns, 0)] == [0] * 6


def test_messages_hold_all_that_was_said(talk):
    session = talk(["一。"])
    session.ask("1？")
    assert conversations.messages(session.turns) == [Message("user", "1？"), Message("assistant", "一。")]
