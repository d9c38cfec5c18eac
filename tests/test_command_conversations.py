import click
import pytest
from click.testing import CliRunner

from camelbell_core.conversations import Conversation, training_pairs
from camelbell_core.errors import CamelBellError
from camelbell_core.journal import read_records
from camelbell_core.records import Pair
from camelbell_core.session import open_session
from camelbell_plugins.command_conversations import register_commands


@pytest.fixture
def command(tmp_path):
    """Run `camelbell conversations lumen`."""
    group = click.Group()
    register_commands(group)

    def invoke(*arguments):
        places = ["--characters", str(tmp_path / "bundles"), "--workspace", str(tmp_path / "run")]
        return CliRunner().invoke(group, ["conversations", "lumen", *map(str, arguments), *places])

    return invoke


@pytest.fixture
def kept(open_lumen, scripted):
    """Two conversations: one in Chinese whose second answer was taken back, one in English."""
    run = open_lumen()
    talks = []
    for replies, questions in (
        (["九十九级。", "好。"], ["灯塔有多少级台阶？", "你好"]),
        (["Ninety-nine."], ["How many steps?"]),
    ):
        session = open_session(run.character, run.registry, scripted(*([reply] for reply in replies)), guard=False)
        session.log = Conversation("lumen", warn=pytest.fail)
        for question in questions:
            session.ask(question)
        talks.append(session)
    talks[0].undo()
    return talks


def test_conversations_are_listed(command, kept):
    lines = command().output.splitlines()
    assert sorted(lines) == sorted(
        [
            f"{kept[0].log.file.stem}     1 turns  灯塔有多少级台阶？",
            f"{kept[1].log.file.stem}     1 turns  How many steps?",
        ]
    )


def test_a_conversation_is_shown(command, kept):
    assert command(kept[0].log.file.stem).output == "> 灯塔有多少级台阶？\n九十九级。\n"
    both = command(kept[1].log.file.stem, kept[0].log.file.stem)
    assert both.output == "> How many steps?\nNinety-nine.\n> 灯塔有多少级台阶？\n九十九级。\n"


def test_conversations_are_exported_as_training_pairs(command, kept, tmp_path):
    file = tmp_path / "pairs.jsonl"
    assert command("--export", file).output == f"2 pairs of 2 conversations written to {file}\n"
    pairs = read_records(file, Pair)
    assert {pair.id for pair in pairs} == {pair.id for talk in kept for pair in training_pairs(talk.turns)}
    assert command(kept[1].log.file.stem, "--export", file).output == f"1 pairs of 1 conversations written to {file}\n"
    assert read_records(file, Pair) == training_pairs(kept[1].turns)


def test_a_conversation_that_is_not_there_is_an_error(command, kept):
    error = command("nope").exception
    assert isinstance(error, CamelBellError) and error.message == "there is no conversation with lumen 'nope'"


def test_before_anything_was_said_nothing_is_listed(command, open_lumen):
    open_lumen()
    assert command().output == ""
