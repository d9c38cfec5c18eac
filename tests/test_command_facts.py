import click
import pytest
from click.testing import CliRunner

from camelbell_core.errors import CamelBellError
from camelbell_plugins.command_facts import register_commands


@pytest.fixture
def facts(open_lumen, tmp_path):
    """Run `camelbell facts lumen` on the scaffold's bundle with a timeline."""
    more = """
timeline: {chapters: [3, 3]}
facts:
  - {id: fog, about: [lumen], source: 2-3, text: {zh: 岛上常常起雾。, en: Fog is frequent here.}}
"""
    run = open_lumen({"canon/more.yaml": more})
    group = click.Group()
    register_commands(group)

    def invoke(*arguments):
        places = ["--characters", str(tmp_path / "bundles"), "--workspace", str(tmp_path / "run")]
        return CliRunner().invoke(group, ["facts", "lumen", *arguments, *places])

    invoke.run = run
    return invoke


@pytest.mark.parametrize(
    ("question", "language", "first"),
    [
        ("你的宠物叫什么名字？", "zh", "  陪着我的是海鸥阿白。  [pet]"),
        ("What is your pet called?", "en", "  Pebble, my gull, keeps me company.  [pet]"),
        ("岛上常常起雾吗", "zh", "  岛上常常起雾。  [2-3]"),
    ],
)
def test_the_facts_of_a_question_are_shown_with_score_and_source(facts, question, language, first):
    recalls = facts.run.memory.recall(question, 6)
    lines = [f"{r.score:.2f}  {r.fact.told(language)}  [{r.fact.source or r.fact.id}]" for r in recalls]
    done = facts(question)
    assert (done.exit_code, done.output.splitlines()) == (0, lines)
    assert lines[0].endswith(first) and 0.9 < recalls[0].score <= 1


def test_as_many_as_asked_for(facts):
    assert len(facts("你的灯塔").output.splitlines()) > 1
    assert facts("你的灯塔", "-n", "1").output.splitlines() == facts("你的灯塔").output.splitlines()[:1]


@pytest.mark.parametrize("count", ["0", "-1"])
def test_a_count_of_nothing_is_refused(facts, count):
    done = facts("你的灯塔", "-n", count)
    assert done.exit_code == 2 and f"{count} is not in the range x>=1" in done.output


@pytest.mark.parametrize("question", ["南极", "xyzzy", "", "😀"])
def test_a_question_about_nothing_says_so(facts, question):
    assert facts(question).output == "no fact comes to mind\n"


@pytest.mark.parametrize(("at", "known"), [("2-2", False), ("2-3", True), ("2", True), ("1", False)])
def test_at_a_story_time_only_what_is_known_then_is_shown(facts, at, known):
    assert ("岛上常常起雾。" in facts("岛上常常起雾吗", "--at", at).output) is known


@pytest.mark.parametrize("at", ["9-9", "三年级"])
def test_a_story_time_that_there_is_not_is_named(facts, at):
    error = facts("岛上", "--at", at).exception
    assert isinstance(error, CamelBellError)
    assert error.message == f"there is no story time {at!r}"
