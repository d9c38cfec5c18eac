import json
from pathlib import Path
from random import Random

import pytest

from camelbell_core.character import find_character
from camelbell_core.pipeline import open_run
from camelbell_core.records import Pair
from camelbell_plugins.filter_misplaced import Misplaced

OUTPUT = Path(__file__).resolve().parents[2] / "shared/seed-data/output.json"
SHIFTED = range(957, 1157)  # rows of output.json, from 0, whose answers are those of other questions


@pytest.fixture
def reasons(open_lumen):
    """Judge pairs together; the scaffold's bundle remembers the facts."""
    run = open_lumen()

    def judge(pairs, judged=None, **options):
        part = Misplaced(**options)
        part.prepare(run.character, run.memory, pairs)
        return [part.judge(pair).reason for pair in judged or pairs]

    return judge


def made_up(language, count=60):
    """Return pairs whose questions and answers share words of their own."""
    rng = Random(language)

    def words():
        if language == "zh":
            return "".join(chr(rng.randrange(0x4E00, 0x9FFF)) for _ in range(6))
        return " ".join("".join(rng.choice("bcdfgaeiou") for _ in range(7)) for _ in range(5))

    frames = {"zh": ("你知道{}吗？", "{}，我当然知道。"), "en": ("Do you know the {}?", "The {}, of course I do.")}
    ask, tell = frames[language]
    return [Pair(ask.format(own), tell.format(own), language) for own in (words() for _ in range(count))]


def answered_by(pair, other):
    return Pair(pair.question, other.answer, pair.language)


@pytest.mark.parametrize("language", ["zh", "en"])
def test_answers_of_other_questions_are_found_and_their_question_is_named(reasons, language):
    pairs = made_up(language)
    assert set(reasons(pairs)) == {""}
    shifted = [*pairs[:20], *map(answered_by, pairs[20:40], pairs[21:41]), *pairs[40:]]
    wanted = [f"answers {pair.question!r} rather than its own question" for pair in pairs[21:41]]
    assert reasons(shifted) == [""] * 20 + wanted + [""] * 20


@pytest.mark.parametrize("language", ["zh", "en"])
def test_an_answer_that_takes_up_its_own_question_too_passes(reasons, language):
    pairs = made_up(language)
    both = Pair(pairs[0].question, pairs[0].answer + " " + pairs[1].answer, language)
    assert reasons([both, *pairs[1:]])[0] == ""


def test_an_answer_about_nothing_passes(reasons):
    pairs = made_up("zh")
    assert (
        reasons(pairs, [Pair(pairs[0].question, answer, "zh") for answer in ("", "我不知道。", "😀", "yes")])
        == [""] * 4
    )


@pytest.mark.parametrize(("count", "finds"), [(0, False), (1, False), (39, False), (40, True)])
def test_among_a_few_pairs_nothing_is_said(reasons, count, finds):
    pairs = made_up("zh", 41)[:count]
    (reason,) = reasons(pairs, [answered_by(*made_up("zh", 2))])
    assert bool(reason) is finds


def test_an_answer_that_holds_what_its_fact_demands_stays(reasons):
    pairs = made_up("zh")
    taken = Pair("灯塔有多少级台阶？", pairs[1].answer + "九十九级。", "zh")
    without = Pair("灯塔有多少级台阶？", pairs[1].answer, "zh")
    by_luck = Pair("海鸥台阶？", pairs[1].answer + "九十九级。", "zh")  # a fact comes to mind but does not answer it
    by_id = Pair("塔里面究竟几层呢？", pairs[1].answer + "九十九级。", "zh", facts=("steps",))
    judged = reasons([*pairs, taken, without, by_id], [taken, without, by_id, by_luck])
    said = f"answers {pairs[1].question!r} rather than its own question"
    assert judged == ["", said, "", said]


@pytest.mark.parametrize(("language", "question"), [("zh", "鲨鱼？"), ("en", "Wobbegongs?")])
def test_a_question_of_one_rare_word_claims_no_answer(reasons, language, question):
    pairs = made_up(language)
    judged = Pair(pairs[0].question, f"不，{question}" if language == "zh" else f"No, {question}", language)
    assert reasons([*pairs, Pair(question, "x", language)], [judged]) == [""]


def test_how_much_is_needed_can_be_set(reasons):
    pairs = made_up("en")
    shifted = [answered_by(pairs[0], pairs[1]), *pairs[1:]]
    assert [bool(reasons(shifted, **o)[0]) for o in ({}, {"own": 0.0}, {"gap": 1.0}, {"other": 1.01})] == [
        True,
        False,
        False,
        False,
    ]


@pytest.mark.skipif(not OUTPUT.is_file(), reason="the data of 2023 is not here")
@pytest.mark.parametrize("bundle", ["lumen", "harry_potter"])
def test_of_the_shifted_rows_of_2023_most_are_found_and_of_the_others_few(open_lumen, tmp_path, bundle):
    run = open_lumen() if bundle == "lumen" else open_run(find_character(bundle), tmp_path / "run")
    rows = json.loads(OUTPUT.read_text(encoding="utf-8"))
    pairs = [Pair(row["Instruction"], row["output"], "zh") for row in rows]
    part = Misplaced()
    part.prepare(run.character, run.memory, pairs)
    judged = [part.judge(pair).reason for pair in pairs]
    rejected = {number for number, reason in enumerate(judged) if reason}
    others = rejected - set(SHIFTED)
    assert len(rejected & set(SHIFTED)) >= 0.8 * len(SHIFTED)
    assert len(others) <= 0.05 * (len(rows) - len(SHIFTED))
    questions = {row["Instruction"] for row in rows}
    assert all(
        judged[n].removeprefix("answers ").removesuffix(" rather than its own question")[1:-1] in questions
        for n in rejected
    )
