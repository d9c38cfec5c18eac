import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import monotonic, sleep

import pytest

from camelbell_core import pipeline
from camelbell_core.character import Preset
from camelbell_core.errors import BundleError, CamelBellError
from camelbell_core.evaluation import Item
from camelbell_core.journal import read_records
from camelbell_core.pipeline import (
    filter_pairs,
    find_adapter,
    find_quiz,
    make_answers,
    make_questions,
    open_run,
    run_evaluation,
    train,
    training_examples,
)
from camelbell_core.records import Pair, Question, to_row
from camelbell_core.session import Settings, open_session


def no_model():
    pytest.fail("no model is needed here")


def rows(file):
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def write(file, lines):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")


# --- opening --------------------------------------------------------------------------------------

SEEDING = """
from camelbell_core import hookimpl
from camelbell_core.records import Seed

@hookimpl
def load_seeds(character):
    return [Seed("more", "open", {TEXTS})]
"""


def test_the_seeds_of_a_plugin_are_asked_too(open_lumen):
    texts = {"zh": ("[thing]好吗？",), "en": ("Is [thing] good?",)}
    run = open_lumen({"plugin.py": SEEDING.replace("{TEXTS}", repr(texts))}, questions=["slots"])
    make_questions(run, 1000)
    made = {question.text for question in read_records(run.workspace.questions, Question) if question.seed == "more"}
    assert made == {
        "阿白好吗？",
        "暴风雨好吗？",
        "热茶好吗？",
        "Is Pebble good?",
        "Is storms good?",
        "Is hot tea good?",
    }


def test_every_mistake_is_told_before_any_work(open_lumen, tmp_path):
    texts = {"fr": ("Bonjour?",), "zh": ("[thnig]好吗？", "[thnig]和[thing]？")}
    files = {
        "plugin.py": SEEDING.replace("{TEXTS}", repr(texts)),
        "canon/more.yaml": "facts: [{id: x, about: [nobody], text: {zh: 一, en: one}}]",
    }
    with pytest.raises(BundleError) as caught:
        open_lumen(files, answers="oracle", guard=["lenght"])
    told = [f"{problem.file.name}: {problem.key}: {problem.what}" for problem in caught.value.problems]
    assert sorted(told) == [
        "character.yaml: answers: there is no answer teacher 'oracle'",
        "character.yaml: guard.0: there is no filter 'lenght'; did you mean \"length\"?",
        "more.yaml: facts.0.about: unknown entity 'nobody'",
        "plugin.py: load_seeds: more: is in 'fr', no language of this character",
        'plugin.py: load_seeds: more: unknown slot [thnig]; did you mean "thing"?',
    ]
    assert not (tmp_path / "run").exists()


# --- questions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 11, 22])
def test_exactly_as_many_questions_as_asked_for_all_different(open_lumen, count):
    run = open_lumen()
    report = make_questions(run, count)
    made = rows(run.workspace.questions)
    assert (report["questions"], report["wanted"], report["short"]) == (count, count, "")
    assert len(made) == len({row["id"] for row in made}) == len({row["text"] for row in made}) == count
    assert report["by_generator"] == Counter(row["generator"] for row in made)


@pytest.mark.parametrize(
    ("canon", "slots", "wanted"), [(3, 1, (9, 3)), (1, 3, (3, 9)), (1, 0, (12, 0)), (0, 1, (0, 12))]
)
def test_the_generators_share_the_questions_as_the_bundle_says(open_lumen, canon, slots, wanted):
    run = open_lumen(questions=[{"canon": {"share": canon}}, {"slots": {"share": slots}}])
    made = Counter(make_questions(run, 12)["by_generator"])
    assert (made["canon"], made["slots"]) == wanted


@pytest.mark.parametrize("order", [["slots", "canon"], ["canon", "slots"]])
def test_what_one_generator_cannot_give_the_other_does(open_lumen, order):
    assert make_questions(open_lumen(questions=order), 30)["by_generator"] == {"slots": 14, "canon": 16}


def test_when_there_are_no_more_questions_the_report_says_why(open_lumen):
    run = open_lumen(questions=[{"canon": {"frames": 0}}, "slots"])
    assert make_questions(run, 100) == {
        "questions": 22,
        "wanted": 100,
        "by_generator": {"canon": 8, "slots": 14},
        "short": "the generators have no more different questions (canon 8, slots 14): add seeds, values or facts",
    }
    assert len(rows(run.workspace.questions)) == 22


def test_a_run_makes_the_same_questions_as_another_and_goes_on_where_it_was(open_lumen, tmp_path):
    run = open_lumen()
    make_questions(run, 12)
    before = run.workspace.questions.read_bytes()
    other = open_run(run.character.ref, tmp_path / "other")
    make_questions(other, 12)
    assert other.workspace.questions.read_bytes() == before
    assert make_questions(run, 12)["questions"] == 12
    assert make_questions(run, 5)["questions"] == 12
    assert run.workspace.questions.read_bytes() == before
    assert make_questions(run, 22)["questions"] == 22
    assert run.workspace.questions.read_bytes().startswith(before)
    assert len({row["id"] for row in rows(run.workspace.questions)}) == 22


def test_questions_written_and_edited_by_hand_are_kept(open_lumen):
    run = open_lumen()
    make_questions(run, 4)
    first, *others = rows(run.workspace.questions)
    mine = {"text": "这是我自己写的吗？", "language": "zh"}
    write(run.workspace.questions, [{**first, "kind": "mine"}, *others, mine])
    before = run.workspace.questions.read_bytes()
    make_questions(run, 10)
    assert run.workspace.questions.read_bytes().startswith(before)
    made = read_records(run.workspace.questions, Question)
    assert (len(made), made[0].kind, made[4].text) == (10, "mine", mine["text"])


REPEATING = '''
from dataclasses import dataclass

from camelbell_core import hookimpl
from camelbell_core.records import Question
from camelbell_core.roles import QuestionGenerator


@dataclass(kw_only=True)
class Repeating(QuestionGenerator):
    """Asks everything twice."""

    name = "repeating"

    def generate(self, character, count, rng):
        for number in range(3):
            yield Question(f"{number}?", "en", generator=self.name)
            yield Question(f"{number}?", "en", generator=self.name)


@hookimpl
def register_question_generators():
    return [Repeating]
'''


def test_a_generator_that_repeats_itself_doubles_nothing(open_lumen):
    run = open_lumen({"plugin.py": REPEATING}, questions=["repeating"])
    report = make_questions(run, 5)
    assert [row["text"] for row in rows(run.workspace.questions)] == ["0?", "1?", "2?"]
    assert (
        report["short"] == "the generators have no more different questions (repeating 3): add seeds, values or facts"
    )


# --- answers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stage", "said", "hint"),
    [
        (lambda run: make_answers(run, no_model), "there are no questions to answer", "`camelbell questions lumen`"),
        (filter_pairs, "there are no answers to filter", "`camelbell answers lumen`"),
        (
            lambda run: train(run, "embedded", Preset(questions=1)),
            "there are no kept pairs to train on",
            "`camelbell filter lumen`",
        ),
    ],
)
def test_a_stage_with_nothing_to_do_names_the_stage_before(open_lumen, stage, said, hint):
    with pytest.raises(CamelBellError) as caught:
        stage(open_lumen())
    assert (caught.value.message, caught.value.hint) == (said, f"make some: {hint}")


def test_what_is_answered_is_skipped_and_hand_edited_answers_are_kept(open_lumen, chat_service):
    run = open_lumen(answers={"openai": {"base_url": chat_service.url}})
    make_questions(run, 10)
    assert make_answers(run, no_model) == {"answered": 10, "questions": 10, "teacher": "openai"}
    first, second, *others = rows(run.workspace.pairs)
    edited = {**first, "answer": "我改过的答案。"}
    write(run.workspace.pairs, [edited, *others])
    make_questions(run, 12)
    assert make_answers(run, no_model)["answered"] == 12
    pairs = rows(run.workspace.pairs)
    assert pairs[:9] == [edited, *others]
    assert second in pairs[9:] and len({pair["id"] for pair in pairs}) == len(pairs) == 12
    assert chat_service.asked == Counter(row["text"] for row in rows(run.workspace.questions))
    assert make_answers(run, no_model)["answered"] == 12
    assert sum(chat_service.asked.values()) == 12  # the answer that was taken out was paid for, and is still there


def test_the_model_is_loaded_only_for_a_teacher_that_asks_for_it(open_lumen, scripted):
    run = open_lumen(answers="local")
    make_questions(run, 2)
    models = []

    def load():
        models.append(scripted(["一。"], ["二。"]))
        return models[-1]

    assert make_answers(run, load)["answered"] == 2
    assert make_answers(run, no_model)["answered"] == 2
    assert len(models) == 1
    assert [pair["answer"] for pair in rows(run.workspace.pairs)] == ["一。", "二。"]


def test_a_question_in_a_language_that_the_character_does_not_speak_is_answered(open_lumen, scripted):
    run = open_lumen(answers="local")
    write(run.workspace.questions, [{"text": "Qui es-tu ?", "language": "fr"}])
    model = scripted(["Lumen."])
    make_answers(run, lambda: model)
    assert model.prompts[0].persona == run.character.config.persona["zh"]


def test_a_broken_line_is_named(open_lumen):
    run = open_lumen()
    make_questions(run, 2)
    with run.workspace.questions.open("a", encoding="utf-8") as out:
        out.write('{"text"： "你好"}\n')
    for stage in (lambda: make_questions(run, 3), lambda: make_answers(run, no_model)):
        with pytest.raises(CamelBellError) as caught:
            stage()
        assert caught.value.message.startswith(f"{run.workspace.questions}:3: this line is broken: ")


def start_answers(tmp_path):
    """Start `camelbell answers lumen`; Ctrl-C reaches it even where the tests run in the background."""
    command = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from camelbell_core.cli import main; main()"
    places = ["--characters", str(tmp_path / "bundles"), "--workspace", str(tmp_path / "run")]
    return subprocess.Popen(
        [sys.executable, "-c", command, "answers", "lumen", *places],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env={**os.environ, "OPENAI_API_KEY": "sk-1"},
    )


def wait_for_lines(file, count):
    end = monotonic() + 60
    while not (file.exists() and file.read_bytes().count(b"\n") >= count):
        assert monotonic() < end, "the answers do not come"
        sleep(0.02)


@pytest.mark.parametrize("torn", [b"", '{"id": "0123", "question": "灯'.encode()[:-1]], ids=["whole", "torn line"])
def test_kill_9_and_going_on_loses_and_doubles_nothing(open_lumen, chat_service, tmp_path, torn):
    run = open_lumen(answers={"openai": {"base_url": chat_service.url, "concurrency": 4}})
    make_questions(run, 20)
    questions = [row["text"] for row in rows(run.workspace.questions)]
    places, go_on = threading.Semaphore(7), threading.Event()
    chat_service.script = lambda question, times: None if places.acquire(blocking=False) else go_on.wait(60) and None
    process = start_answers(tmp_path)
    wait_for_lines(run.workspace.pairs, 7)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    before = run.workspace.pairs.read_bytes()
    done = {row["question"] for row in rows(run.workspace.pairs)}
    assert len(done) == before.count(b"\n") == 7
    with run.workspace.pairs.open("ab") as out:
        out.write(torn)
    go_on.set()
    chat_service.script = lambda question, times: None

    process = start_answers(tmp_path)
    told, _ = process.communicate(timeout=60)
    assert (process.returncode, told) == (0, "20 of 20 questions answered by openai\n")
    assert run.workspace.pairs.read_bytes().startswith(before)
    pairs = rows(run.workspace.pairs)
    assert sorted(pair["question"] for pair in pairs) == sorted(questions)
    assert all(pair["answer"] == chat_service.answer_to(pair["question"]) for pair in pairs)
    assert all(chat_service.asked[question] == 1 for question in done)
    assert set(chat_service.asked) == set(questions)


def test_ctrl_c_keeps_what_is_done_and_does_not_wait_for_the_service(open_lumen, chat_service, tmp_path):
    run = open_lumen(answers={"openai": {"base_url": chat_service.url, "concurrency": 3}})
    make_questions(run, 10)
    places, over = threading.Semaphore(4), threading.Event()
    chat_service.script = lambda question, times: None if places.acquire(blocking=False) else over.wait(60) and None
    process = start_answers(tmp_path)
    try:
        wait_for_lines(run.workspace.pairs, 4)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=30)
    finally:
        over.set()
    assert process.returncode == 130
    assert told.splitlines()[-1] == "stopped; run the same command to go on"
    assert len(rows(run.workspace.pairs)) == 4


# --- filter ---------------------------------------------------------------------------------------


def test_the_offline_teacher_passes_the_filters_of_its_bundle(open_lumen):
    run = open_lumen(questions=[{"canon": {"frames": 0}}, "slots"])
    make_questions(run, 22)
    make_answers(run, no_model)
    report = filter_pairs(run)
    assert report == {"in": 22, "kept": 22, "rejected": {}, "filters": report["filters"], "examples": {}}
    assert set(map(tuple, report["filters"].values())) == {(22, 22)}
    assert rows(run.workspace.kept) == rows(run.workspace.pairs)
    assert rows(run.workspace.rejected) == []


MIXED = [
    Pair("灯塔有多少级台阶？", "九十九级。", "zh"),
    Pair("What is your pet called?", "Pebble.", "en"),
    Pair("你冷吗？", "作为一个AI，我不冷。", "zh"),
    Pair("你热吗？", "Yes.", "zh"),
    Pair("What is your pet called ?", "Pebble.", "en"),
    Pair("Are you an AI?", "I am an AI.", "en"),
]


def test_every_pair_is_kept_or_rejected_with_the_first_filter_that_objects_and_its_reason(open_lumen):
    run = open_lumen()
    write(run.workspace.pairs, map(to_row, MIXED))
    report = filter_pairs(run)
    judged = [
        (2, "persona_break", "says '作为一个AI'"),
        (3, "language", "0 of 3 letters are Chinese, the question is in Chinese"),
        (4, "duplicates", "the same question as 'What is your pet called?'"),
        (5, "persona_break", "says 'I am an AI'"),
    ]
    assert rows(run.workspace.kept) == [to_row(pair) for pair in MIXED[:2]]
    assert rows(run.workspace.rejected) == [{**to_row(MIXED[n]), "filter": f, "reason": why} for n, f, why in judged]
    example = {f: {"question": MIXED[n].question, "answer": MIXED[n].answer, "reason": why} for n, f, why in judged[:3]}
    assert report == {
        "in": 6,
        "kept": 2,
        "rejected": {"persona_break": 2, "language": 1, "duplicates": 1},
        "filters": report["filters"],
        "examples": example,
    }
    flow = list(report["filters"].items())
    assert [name for name, _ in flow][:4] == ["length", "language", "persona_break", "duplicates"]
    assert [counts for _, counts in flow][:4] == [[6, 6], [6, 5], [5, 3], [3, 2]]
    assert json.loads((run.workspace.reports / "filter.json").read_text(encoding="utf-8")) == report


def test_filtering_again_judges_anew_after_an_edit(open_lumen):
    run = open_lumen()
    write(run.workspace.pairs, map(to_row, MIXED))
    filter_pairs(run)
    write(
        run.workspace.pairs,
        [{**to_row(pair), "answer": "Pebble is fine."} if pair.language == "en" else to_row(pair) for pair in MIXED],
    )
    filter_pairs(run)
    assert [row["question"] for row in rows(run.workspace.kept)] == [MIXED[n].question for n in (0, 1, 5)]
    assert [row["question"] for row in rows(run.workspace.rejected)] == [MIXED[n].question for n in (2, 3, 4)]


# --- training -------------------------------------------------------------------------------------


def answered(run, count=40):
    make_questions(run, count)
    make_answers(run, no_model)
    filter_pairs(run)
    return read_records(run.workspace.kept, Pair)


def test_a_training_prompt_is_the_prompt_that_the_chat_builds(open_lumen, scripted, monkeypatch):
    monkeypatch.setattr(pipeline, "_WITHHELD", 0)
    run = open_lumen()
    pairs = answered(run)
    assert len(pairs) > 20
    session = open_session(run.character, run.registry, scripted(*[["x"]] * len(pairs)), guard=False)
    orders = set()
    for pair, (prompt, answer) in zip(pairs, training_examples(run, pairs), strict=True):
        session.reset()
        session.ask(pair.question)
        chat = session.turns[0].prompt
        lacking = set(pair.facts) - {fact.id for fact in session.turns[0].facts}
        assert answer == pair.answer
        assert (prompt.language, prompt.persona, prompt.question) == (chat.language, chat.persona, chat.question)
        assert lacking or sorted(prompt.facts) == sorted(chat.facts)
        orders.add(prompt.facts == chat.facts)
    assert orders == {True, False}
    assert training_examples(run, pairs) == training_examples(run, pairs)


def test_the_fact_that_an_answer_rests_on_is_always_in_its_prompt(open_lumen, monkeypatch):
    monkeypatch.setattr(pipeline, "_WITHHELD", 0)
    run = open_lumen(facts=1)
    ((prompt, answer),) = training_examples(
        run, [Pair("阿白是谁养的？", "九十九级。", "zh", facts=("steps", "no such"))]
    )
    assert (prompt.facts, answer) == (("小灯的灯塔有九十九级台阶。 | 九十九级，我每天数一遍。",), "九十九级。")


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_training_prompt_holds_no_more_facts_than_the_bundle_says(open_lumen, count):
    run = open_lumen(facts=count)
    assert {len(prompt.facts) for prompt, _ in training_examples(run, answered(run))} <= set(range(count + 1))


def test_where_the_right_fact_is_withheld_the_answer_is_not_known(open_lumen, monkeypatch):
    monkeypatch.setattr(pipeline, "_WITHHELD", 1)
    run = open_lumen()
    pairs = answered(run)
    for pair, (prompt, answer) in zip(pairs, training_examples(run, pairs), strict=True):
        if pair.generator != "canon":
            assert answer == pair.answer
            continue
        assert answer in run.character.config.voice[pair.language].unknown
        assert not any(run.character.canon.facts[pair.facts[0]].text[pair.language] in fact for fact in prompt.facts)


FAKES = '''
"""A trainer and a base model that only note what they are given."""

from dataclasses import dataclass
from types import SimpleNamespace

from camelbell_core import hookimpl
from camelbell_core.roles import BaseModel, TrainableBase, Trainer


@dataclass(kw_only=True)
class Notes(Trainer):
    """Notes what it is asked to do."""

    name = "notes"
    epochs: int = 1
    rate: float = 0.5

    def train(self, job):
        job.progress(1, 1, "done")
        job.output.mkdir(parents=True, exist_ok=True)
        (job.output / "adapter_config.json").write_text("{}", encoding="utf-8")
        return {
            "examples": [(prompt.question, answer) for prompt, answer in job.examples],
            "options": [self.epochs, self.rate],
            "job": [job.character, job.base.name, job.layout.name, job.seed, job.describe],
        }


@dataclass(kw_only=True)
class Toy(BaseModel):
    """Is no model at all."""

    name = "toy"

    def accepts(self, base):
        return base == "toy"

    def load(self, base, adapter=None):
        return (base, adapter)

    def load_trainable(self, base):
        return TrainableBase(name=base, model=None, tokenizer=SimpleNamespace(chat_template=None), fingerprint="f")


@hookimpl
def register_trainers():
    return [Notes]


@hookimpl
def register_base_models():
    return [Toy]
'''


def test_the_trainer_of_the_bundle_gets_the_kept_pairs_and_the_presets_options(open_lumen):
    run = open_lumen({"plugin.py": FAKES}, trainer={"notes": {"epochs": 2}}, presets={})
    write(run.workspace.kept, map(to_row, MIXED[:2]))
    ticks = []
    run.progress = watching(ticks)
    report = train(run, "toy", Preset(questions=1, trainer={"rate": 0.1}))
    assert report == {
        "examples": [(pair.question, pair.answer) for pair in MIXED[:2]],
        "options": [2, 0.1],
        "job": [
            "lumen",
            "toy",
            "plain",
            "0:lumen:train",
            {"title": "Lumen", "languages": ["zh", "en"]},
        ],
    }
    assert ticks == [("examples", 1, 2, ""), ("examples", 2, 2, ""), ("train", 1, 1, "done")]
    saved = json.loads((run.workspace.reports / "train-toy.json").read_text(encoding="utf-8"))
    assert saved == json.loads(json.dumps(report))
    assert find_adapter(run, "toy") == run.workspace.root / "adapters" / "toy"


@pytest.fixture
def notes(open_lumen):
    """Open a run on the two good pairs, whose trainer notes the examples; an edit changes the canon's file."""

    def open_it(*edits, **changes):
        canon = (open_lumen().character.root / "canon/canon.yaml").read_text(encoding="utf-8")
        for old, new in edits:
            assert old in canon
            canon = canon.replace(old, new)
        run = open_lumen({"plugin.py": FAKES, "canon/canon.yaml": canon}, trainer={"notes": {}}, presets={}, **changes)
        if not run.workspace.kept.exists():
            write(run.workspace.kept, map(to_row, MIXED[:2]))
        run.ticks = []
        run.progress = watching(run.ticks)
        return run

    return open_it


def trained(run, *languages):
    """Train and return the examples that the trainer got, and whether they were made now."""
    run.ticks.clear()
    report = train(run, "toy", Preset(questions=1), languages)
    return report["examples"], ("examples", 2, 2, "") in run.ticks


def test_the_examples_are_made_once_and_kept(notes):
    run = notes()
    write(run.workspace.kept, [{**to_row(MIXED[0]), "history": ["你好！", "你好。"]}, to_row(MIXED[1])])
    made = trained(run)
    assert made == ([(pair.question, pair.answer) for pair in MIXED[:2]], True)
    written = run.workspace.examples.read_bytes()
    assert trained(run) == trained(notes()) == (made[0], False)
    pairs = read_records(run.workspace.kept, Pair)
    assert pipeline.kept_examples(run, pairs) == training_examples(run, pairs)
    assert run.workspace.examples.read_bytes() == written


@pytest.mark.parametrize(
    ("edits", "changes"),
    [
        ([("小灯养着一只叫阿白的海鸥。", "小灯有一只叫阿白的海鸥。")], {}),
        ([("Pebble, my gull, keeps me company.", "Pebble, my gull.")], {}),
        ([("Pebble the gull", "Pebble the bird")], {}),
        ([("id: steps", "id: stairs")], {}),
        ([], {"facts": 2}),
        ([], {"persona": {"zh": "我是小灯。", "en": "I am Lumen."}}),
        ([], {"memory": {"canon": {"name_weight": 2.0}}}),
    ],
)
def test_the_examples_are_made_anew_when_the_canon_or_the_bundle_changes(notes, edits, changes):
    trained(notes())
    run = notes(*edits, **changes)
    assert trained(run) == ([(pair.question, pair.answer) for pair in MIXED[:2]], True)
    assert trained(run)[1] is False


@pytest.mark.parametrize(
    "change", [{"answer": "海鸥。"}, {"facts": ["pet"]}, {"kind": "fact"}, {"history": ["a", "b"]}]
)
def test_the_examples_are_made_anew_when_a_pair_changes(notes, change):
    run = notes()
    trained(run)
    write(run.workspace.kept, [{**to_row(MIXED[0]), **change}, to_row(MIXED[1])])
    (question, answer), _ = trained(run)[0]
    assert (question, answer) == (MIXED[0].question, change.get("answer", MIXED[0].answer))
    assert ("examples", 2, 2, "") in run.ticks


def test_torn_examples_are_made_anew(notes):
    run = notes()
    made, _ = trained(run)
    whole = run.workspace.examples.read_bytes()
    for cut in (5, len(whole.splitlines(keepends=True)[-1])):
        run.workspace.examples.write_bytes(whole[:-cut])
        assert trained(run) == (made, True)
        assert run.workspace.examples.read_bytes() == whole


@pytest.mark.parametrize(("languages", "places"), [(["zh"], [0]), (["en"], [1]), (["zh", "en"], [0, 1]), ([], [0, 1])])
def test_the_pairs_of_one_language_can_be_trained_on_alone(notes, languages, places):
    run = notes()
    examples, _ = trained(run, *languages)
    assert examples == [(MIXED[place].question, MIXED[place].answer) for place in places]
    assert len(rows(run.workspace.examples)) == 3  # those of all languages are kept


def test_pairs_of_other_files_are_trained_on_too(notes, tmp_path):
    run = notes()
    better = replace(MIXED[0], answer="阿白，一只海鸥。")
    chat = [
        Pair("它多大？", "三岁。", "zh", "chat", ("pet",), teacher="model", history=("你的宠物叫什么名字？", "阿白。")),
        Pair("How old?", "Three.", "en", "chat"),
    ]
    write(tmp_path / "a.jsonl", [to_row(better), to_row(chat[0])])
    write(tmp_path / "b.jsonl", [to_row(chat[1])])
    report = train(run, "toy", Preset(questions=1), files=[tmp_path / "a.jsonl", tmp_path / "b.jsonl"])
    assert report["examples"] == [(pair.question, pair.answer) for pair in (better, MIXED[1], *chat)]
    run.workspace.kept.unlink()
    report = train(run, "toy", Preset(questions=1), files=[tmp_path / "b.jsonl"])
    assert report["examples"] == [("How old?", "Three.")]
    history = [row["prompt"]["history"] for row in rows(run.workspace.examples)[1:]]
    assert history == [[]]


def test_a_language_without_pairs_or_that_is_not_spoken_is_told(notes):
    run = notes()
    write(run.workspace.kept, [to_row(MIXED[1])])
    with pytest.raises(CamelBellError) as caught:
        trained(run, "zh")
    assert caught.value.message == "there are no kept pairs in zh to train on"
    with pytest.raises(CamelBellError) as caught:
        trained(run, "en", "fr")
    assert (caught.value.message, caught.value.hint) == ("lumen does not speak 'fr'", "it speaks zh, en")


def watching(ticks):
    """Return a progress that notes every tick."""

    @contextmanager
    def progress(label):
        yield lambda done, total, note="": ticks.append((label, done, total, note))

    return progress


def test_progress_tells_how_far_each_stage_is(open_lumen):
    ticks = []
    run = open_lumen()
    run.progress = watching(ticks)
    make_questions(run, 2)
    make_answers(run, no_model)
    filter_pairs(run)
    stages = [("questions", 0), ("questions", 1), ("questions", 2), ("answers", 0), ("answers", 1), ("answers", 2)]
    judging = [tick for tick in ticks if tick[0] == "filter"]
    assert [tick for tick in ticks if tick not in judging] == [(*step, 2, "") for step in stages]
    assert [done for _, done, _, _ in judging] == sorted(done for _, done, _, _ in judging)
    assert judging[0][2:] == (2, "length, 100% kept") and judging[-1][1:3] == (2, 2)


# --- evaluation and chat --------------------------------------------------------------------------


def test_the_adapter_of_the_run_goes_before_the_one_that_ships_with_the_bundle(open_lumen):
    run = open_lumen({"adapters/toy/README.md": "not trained yet"})
    assert find_adapter(run, "my/Toy") is None
    run = open_lumen({"adapters/toy/adapter_config.json": "{}"})
    assert find_adapter(run, "my/Toy") == run.character.root / "adapters" / "toy"
    own = run.workspace.root / "adapters" / "toy"
    own.mkdir(parents=True)
    assert find_adapter(run, "my/Toy") == run.character.root / "adapters" / "toy"
    (own / "adapter_config.json").write_text("{}", encoding="utf-8")
    assert find_adapter(run, "my/Toy") == own


def test_a_base_model_is_loaded_by_whoever_accepts_its_name(open_lumen):
    run = open_lumen({"plugin.py": FAKES})
    assert pipeline.load_model(run, "toy", Path("adapter")) == ("toy", Path("adapter"))


QUIZ = [
    Item("1", "zh", "fact", "灯塔有多少级台阶？", (("九十九", "99"),)),
    Item("2", "en", "fact", "What is your pet called?", (("Pebble",),), ("Bean",)),
    Item("3", "zh", "trap", "南极冷吗？", (("不知道",),)),
]


def quiz_line(item):
    return (
        json.dumps(
            {
                "id": item.id,
                "lang": item.language,
                "kind": item.kind,
                "q": item.question,
                "must": item.must,
                "must_not": item.must_not,
            }
        )
        + "\n"
    )


def test_the_quiz_of_a_bundle_is_all_its_files_in_order(open_lumen):
    assert find_quiz(open_lumen().character) == []
    files = {
        "quiz/b.jsonl": quiz_line(QUIZ[2]),
        "quiz/a.jsonl": quiz_line(QUIZ[0]) + quiz_line(QUIZ[1]),
        "quiz/c.txt": "x",
    }
    assert find_quiz(open_lumen(files).character) == QUIZ


def test_an_evaluation_puts_every_item_in_a_conversation_of_its_own(open_lumen, scripted):
    run, ticks = open_lumen(), []
    run.progress = watching(ticks)
    model = scripted(["九十九级。"], ["Bean and Pebble."], ["我是AI。"])
    answered = run_evaluation(run, model, QUIZ, settings=Settings(max_tokens=5), label="eval after")
    assert [(a.item, a.answer, a.truthful) for a in answered] == [
        (QUIZ[0], "九十九级。", True),
        (QUIZ[1], "Bean and Pebble.", False),
        (QUIZ[2], "这个我不知道。", True),
    ]
    assert answered[0].facts[0] == "steps"
    assert [prompt.history for prompt in model.prompts] == [(), (), ()]
    assert model.calls == [(5, 0.0)] * 3
    told = [(0, ""), (1, "1 truthful"), (2, "1 truthful"), (3, "2 truthful")]
    assert ticks == [("eval after", done, 3, note) for done, note in told]


def test_the_base_model_alone_is_evaluated_without_facts_and_guard(open_lumen, scripted):
    model = scripted(["我是AI。"])
    (answered,) = run_evaluation(open_lumen(), model, QUIZ[:1], memory=False, guard=False)
    assert (answered.answer, answered.facts, answered.truthful) == ("我是AI。", (), False)
    assert model.prompts[0].facts == ()


@pytest.mark.parametrize(("persona", "said"), [(True, "我是小灯，守着"), (False, "")])
def test_an_evaluation_can_leave_out_the_persona(open_lumen, scripted, persona, said):
    model = scripted(["九十九级。"])
    run_evaluation(open_lumen(), model, QUIZ[:1], persona=persona)
    assert model.prompts[0].persona[:7] == said
    assert len(model.prompts[0].facts) > 0
