import json

import pytest

from camelbell_core.errors import CamelBellError
from camelbell_core.keep import keep_exactly
from camelbell_core.pipeline import make_questions


def rows(file):
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def no_model():
    pytest.fail("no model is needed here")


PICKY = '''
from dataclasses import dataclass

from camelbell_core import hookimpl
from camelbell_core.records import Verdict
from camelbell_core.roles import Filter


@dataclass(kw_only=True)
class Picky(Filter):
    """Keeps the pairs whose id ends in one of some digits."""

    name = "picky"
    digits: str = "01234567"

    def judge(self, pair):
        return Verdict(self.name, "" if pair.id[-1] in self.digits else f"ends in {pair.id[-1]}")


@hookimpl
def register_filters():
    return [Picky]
'''
COUNTING = '''
from dataclasses import dataclass

from camelbell_core import hookimpl
from camelbell_core.records import Question
from camelbell_core.roles import QuestionGenerator


@dataclass(kw_only=True)
class Counting(QuestionGenerator):
    """Asks about one gull after another."""

    name = "counting"
    most: int = 100000

    def generate(self, character, count, rng):
        for number in range(min(count, self.most)):
            text = f"第{number}只海鸥在哪里？" if number % 2 else f"Where is gull {number}?"
            yield Question(text, "zh" if number % 2 else "en", generator=self.name)


@hookimpl
def register_question_generators():
    return [Counting]
'''


@pytest.fixture
def picky(open_lumen):
    """Open a bundle whose questions never end, of which a filter keeps half."""

    def open_it(answers="canon", most=100_000, **options):
        plugin = PICKY + COUNTING
        return open_lumen(
            {"plugin.py": plugin},
            questions=[{"counting": {"most": most}}],
            answers=answers,
            filters=[{"picky": options}],
        )

    return open_it


@pytest.mark.parametrize("count", [1, 7, 100, 333])
def test_exactly_as_many_pairs_as_wanted_pass(picky, count):
    run = picky()
    report = keep_exactly(run, count, no_model)
    kept = rows(run.workspace.kept)
    assert len(kept) == len({row["id"] for row in kept}) == report["kept"] == report["wanted"] == count
    assert all(row["id"][-1] in "01234567" for row in kept)
    assert report["stopped"] == ""
    assert report["in"] < count * 4 + 20  # not many more are asked than needed
    assert len(rows(run.workspace.rejected)) + count + report["spare"] == report["in"]
    assert json.loads((run.workspace.reports / "filter.json").read_text(encoding="utf-8")) == report


def test_more_are_kept_going_on_from_what_is_there(picky, chat_service):
    run = picky({"openai": {"base_url": chat_service.url}})
    keep_exactly(run, 20, no_model)
    first = rows(run.workspace.kept)
    asked = dict(chat_service.asked)
    assert keep_exactly(run, 20, no_model)["kept"] == 20
    assert keep_exactly(run, 60, no_model)["kept"] == 60
    assert {row["id"] for row in first} <= {row["id"] for row in rows(run.workspace.kept)}
    assert all(times == 1 for times in chat_service.asked.values())
    assert asked.items() <= chat_service.asked.items()


def test_when_the_questions_run_dry_it_is_said_what_was_rejected(picky):
    run = picky(most=50, digits="0123")
    report = keep_exactly(run, 100, no_model)
    kept = rows(run.workspace.kept)
    assert report["kept"] == len(kept) < 30
    share = (50 - len(kept)) / 50
    assert report["stopped"] == (
        "the generators have no more different questions (counting 50): add seeds, values or facts; "
        f"rejected: picky {share:.0%}"
    )


def test_when_hardly_anything_passes_it_is_given_up(picky):
    report = keep_exactly(picky(digits=""), 400, no_model)
    assert report["kept"] == 0
    assert report["stopped"] == f"of the last {report['in']} pairs 0 passed; rejected: picky 100%"
    assert report["in"] < 1000


def test_a_teacher_that_stops_is_told_after_its_answers_are_judged(picky, chat_service):
    chat_service.script = lambda question, times: (401, {}, "{}") if len(chat_service.asked) > 30 else None
    run = picky({"openai": {"base_url": chat_service.url, "concurrency": 1}})
    with pytest.raises(CamelBellError) as caught:
        keep_exactly(run, 50, no_model)
    kept = rows(run.workspace.kept)
    assert 5 < len(kept) < 30
    assert f"refuses the key (HTTP 401) (30 of 69 answered); {len(kept)} of 50 pairs kept" in caught.value.message
    chat_service.script = lambda question, times: None
    assert keep_exactly(run, 50, no_model)["kept"] == 50


def test_a_teacher_that_answers_nothing_is_told_at_once(picky, chat_service):
    chat_service.script = lambda question, times: (401, {}, "{}")
    run = picky({"openai": {"base_url": chat_service.url}})
    with pytest.raises(CamelBellError, match=r"refuses the key \(HTTP 401\) \(0 of \d+ answered\)$"):
        keep_exactly(run, 5, no_model)


def test_questions_that_are_there_are_used_first(picky):
    run = picky()
    make_questions(run, 500)
    assert keep_exactly(run, 100, no_model)["in"] == 500
