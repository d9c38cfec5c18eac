"""The stages of a run: questions, answers, filter, train, eval; each can be run again and goes on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Protocol

from camelbell_core import diversity, evaluation, model
from camelbell_core.canon import Canon
from camelbell_core.character import BundleRef, Character, Preset, names_of, read_character
from camelbell_core.checked_yaml import suggest
from camelbell_core.compose import voice_of
from camelbell_core.errors import BundleError, CamelBellError, Problem
from camelbell_core.journal import Journal, Workspace, read_records, read_rows, write_json, write_rows
from camelbell_core.prompts import Prompt, build_prompt, layout_for
from camelbell_core.records import Fact, Pair, Question, Verdict, content_id, to_row
from camelbell_core.registry import Registry, build_registry
from camelbell_core.roles import (
    AnswerTeacher,
    Filter,
    LanguageModel,
    Memory,
    QuestionGenerator,
    QuestionTools,
    TeacherTools,
    Trainer,
    TrainingJob,
)
from camelbell_core.service.endpoint import Estimate
from camelbell_core.session import Settings, open_session, personas
from camelbell_core.slots import slot_names


class Ticker(Protocol):
    """Moves one progress bar: so many of so many are done."""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Show that ``done`` of ``total`` are done."""


_WITHHELD = 0.03  # the share of examples that lack the fact they ask for
_FIRST = 0.55  # the share of examples in which the right fact is surely the likeliest

Progress = Callable[[str], AbstractContextManager[Ticker]]


def quiet(label: str) -> AbstractContextManager[Ticker]:
    """Show no progress."""
    return nullcontext(lambda done, total, note="": None)


@dataclass
class Run:
    """A character with its plugins, checked, and the workspace that the stages write to."""

    character: Character
    registry: Registry
    workspace: Workspace
    progress: Progress = quiet
    _memory: Memory | None = field(default=None, repr=False)

    def rng(self, stage: str) -> Random:
        """Return the random numbers of a stage: the same in every run."""
        return Random(f"0:{self.character.name}:{stage}")

    @property
    def memory(self) -> Memory:
        """The memory that the bundle chooses, ready to recall."""
        if self._memory is None:
            self._memory = self.registry.build(Memory, "memories", self.character.config.memory)
            self._memory.prepare(self.character)
        return self._memory


def open_run(ref: BundleRef, workspace: Path, progress: Progress = quiet) -> Run:
    """Read a bundle, load its plugins, and check all of it; every mistake is told at once."""
    registry = build_registry(ref)
    character = read_character(ref, registry.check)
    for seeds in registry.manager.hook.load_seeds(character=character):
        character.extra_seeds.extend(seeds or ())
    problems = [*character.check(), *_check_extra_seeds(character), *registry.check(character)]
    if problems:
        raise BundleError(character.name, problems)
    return Run(character, registry, Workspace(workspace), progress)


def _check_extra_seeds(character: Character) -> list[Problem]:
    """Return what is wrong with the seeds that plugins add: they stand in no file of the bundle."""
    problems = []
    for seed in character.extra_seeds:
        strange = [language for language in seed.texts if language not in character.languages]
        lacking = [s for texts in seed.texts.values() for t in texts for s in slot_names(t) if s not in character.slots]
        what = [f"is in {language!r}, no language of this character" for language in strange]
        what += [f"unknown slot [{slot}]" + suggest(slot, character.slots) for slot in dict.fromkeys(lacking)]
        file = character.ref.plugin or character.root
        problems += [Problem(file, 0, f"load_seeds: {seed.name}", words) for words in what]
    return problems


# --- questions ------------------------------------------------------------------------------------


def make_questions(run: Run, count: int) -> dict[str, Any]:
    """Bring questions.jsonl to ``count`` questions, made by the generators in proportion to their shares."""
    have = {question.id: question for question in read_records(run.workspace.questions, Question)}
    generators = [
        run.registry.build(QuestionGenerator, "question_generators", r) for r in run.character.config.questions
    ]
    measured = any(generator.measured for generator in generators) and len(have) < count
    before = diversity.measure(list(have.values()), run.character) if measured else None
    made: Counter[str] = Counter(question.generator for question in have.values())
    notes = [""]
    tools = QuestionTools(
        accepted=have.values,
        pairs=lambda: read_records(run.workspace.kept, Pair) or read_records(run.workspace.pairs, Pair),
        room=lambda: count - len(have),
        folder=run.workspace.root,
        note=notes.append,
    )
    with run.progress("questions") as tick, Journal(run.workspace.questions) as journal:
        tick(len(have), count)
        for generator in generators:
            generator.prepare(tools)
        for number, generator in enumerate(generators):
            room = count - len(have)
            shares = [g.share for g in generators[number:]]
            # What an earlier generator could not give, the later ones share.
            goal = room if number == len(generators) - 1 else round(room * shares[0] / (sum(shares) or 1))
            for question in _fresh(generator, run, count, have, goal):
                journal.add(question)
                made[question.generator] += 1
                tick(len(have), count, notes[-1])
                del notes[:-1]
        short = count - len(have)
        for generator in generators if short > 0 else ():
            for question in _fresh(generator, run, count, have, count - len(have)):
                journal.add(question)
                made[question.generator] += 1
                tick(len(have), count, notes[-1])
                del notes[:-1]
    why = ""
    if len(have) < count:
        names = ", ".join(f"{name} {made[name]}" for name in names_of(run.character.config.questions))
        why = f"the generators have no more different questions ({names}): add seeds, values or facts"
    report = {"questions": len(have), "wanted": count, "by_generator": dict(made), "short": why}
    if before is not None:
        after = diversity.measure(list(have.values()), run.character)
        write_json(run.workspace.reports / "questions.json", {**report, "before": before.row(), "after": after.row()})
        report["diversity"] = diversity.told(before, after)
    return report


def _fresh(
    generator: QuestionGenerator, run: Run, count: int, have: dict[str, Question], goal: int
) -> Iterator[Question]:
    """Yield up to ``goal`` questions of a generator that are not there yet, and note them."""
    if goal <= 0:
        return
    rng = run.rng(f"questions:{generator.name}")
    given = 0
    for question in generator.generate(run.character, count + len(have), rng):
        if question.id not in have:
            have[question.id] = question
            given += 1
            yield question
            if given >= goal:
                return


# --- answers --------------------------------------------------------------------------------------


def make_answers(
    run: Run, load_model: Callable[[], LanguageModel], options: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Have the teacher answer the questions that have no answer yet; ``options`` change those that the YAML gives it."""
    questions = read_records(run.workspace.questions, Question)
    if not questions:
        raise CamelBellError(
            "there are no questions to answer", f"make some: `camelbell questions {run.character.name}`"
        )
    done = {pair.id for pair in read_records(run.workspace.pairs, Pair)}
    teacher = run.registry.build(AnswerTeacher, "answer_teachers", run.character.config.answers, options)
    todo = [question for question in questions if question.id not in done]
    count = len(questions) - len(todo)
    notes = [""]
    with run.progress("answers") as tick, Journal(run.workspace.pairs) as journal:
        tick(count, len(questions))
        try:
            tools = teacher_tools(run, load_model, notes.append)
            for pair in teacher.answer(todo, tools) if todo else ():
                journal.add(pair)
                count += 1
                tick(count, len(questions), notes[-1])
                del notes[:-1]
        except CamelBellError as error:
            raise CamelBellError(
                f"{error.message} ({count} of {len(questions)} answered)",
                error.hint or "run the same command to go on",
            ) from error
    return {"answered": count, "questions": len(questions), "teacher": teacher.name}


def teacher_tools(
    run: Run, load_model: Callable[[], LanguageModel], note: Callable[[str], None] = lambda words: None
) -> TeacherTools:
    """Return what a teacher of this run works with."""
    persona = personas(run.character, run.registry)
    return TeacherTools(
        character=run.character,
        memory=run.memory,
        rng=run.rng("answers"),
        load_model=load_model,
        persona=lambda language: persona.get(language) or persona[run.character.languages[0]],
        folder=run.workspace.root,
        note=note,
    )


def estimate_answers(run: Run, options: Mapping[str, Any] | None = None) -> Estimate | None:
    """Return what answering the questions that have no answer yet would take; None where nothing is paid for."""
    done = {pair.id for pair in read_records(run.workspace.pairs, Pair)}
    todo = [question for question in read_records(run.workspace.questions, Question) if question.id not in done]
    teacher = run.registry.build(AnswerTeacher, "answer_teachers", run.character.config.answers, options)
    if type(teacher).estimate is AnswerTeacher.estimate or not todo:
        return None  # the memory need not be opened
    return teacher.estimate(todo, teacher_tools(run, _no_model))


def _no_model() -> LanguageModel:
    raise CamelBellError("an estimate loads no model")


# --- filter ---------------------------------------------------------------------------------------


def filter_pairs(run: Run) -> dict[str, Any]:
    """Judge every pair; kept.jsonl and rejected.jsonl are written anew from pairs.jsonl."""
    pairs = read_records(run.workspace.pairs, Pair)
    if not pairs:
        raise CamelBellError("there are no answers to filter", f"make some: `camelbell answers {run.character.name}`")
    judges = [run.registry.build(Filter, "filters", ref) for ref in run.character.config.filters]
    kept, rejected, against = [], [], []
    with run.progress("filter") as tick:
        for pair, verdict in judge_pairs(run, judges, pairs, tick):
            if verdict is None:
                kept.append(to_row(pair))
            else:
                rejected.append({**to_row(pair), "filter": verdict.filter, "reason": verdict.reason})
                against.append((pair, verdict))
    opinions = {judge.name: opinion for judge in judges if (opinion := judge.second_opinion(against))}
    write_rows(run.workspace.kept, kept)
    write_rows(run.workspace.rejected, rejected)
    by_filter = Counter(row["filter"] for row in rejected)
    examples = {row["filter"]: {k: row[k] for k in ("question", "answer", "reason")} for row in reversed(rejected)}
    report = {
        "in": len(pairs),
        "kept": len(kept),
        "rejected": dict(by_filter),
        "filters": _in_and_out(names_of(run.character.config.filters), by_filter, len(pairs)),
        "examples": examples,
        **({"opinions": opinions} if opinions else {}),
    }
    write_json(run.workspace.reports / "filter.json", report)
    return report


def _in_and_out(names: Sequence[str], rejected: Mapping[str, int], count: int) -> dict[str, list[int]]:
    """Return how many pairs came to each filter, and how many passed it, in their order."""
    flow = {}
    for name in dict.fromkeys(names):
        flow[name] = [count, count - rejected.get(name, 0)]
        count = flow[name][1]
    return flow


def judge_pairs(
    run: Run,
    judges: Sequence[Filter],
    pairs: Sequence[Pair],
    tick: Ticker = lambda done, total, note="": None,
) -> Iterator[tuple[Pair, Verdict | None]]:
    """Yield each pair with the verdict that rejects it, or None; what a filter rejects comes to no later one."""
    for judge in judges:
        judge.settle(run.workspace.root)
        judge.prepare(run.character, run.memory, pairs)
    against: dict[int, Verdict] = {}
    left = list(range(len(pairs)))
    for number, judge in enumerate(judges):
        for done, (place, verdict) in enumerate(zip(left, judge.judge_all([pairs[p] for p in left]), strict=True), 1):
            if not verdict.kept:
                against[place] = verdict
            part = (number + done / len(left)) / len(judges)
            tick(int(part * len(pairs)), len(pairs), f"{judge.name}, {1 - len(against) / len(pairs):.0%} kept")
        left = [place for place in left if place not in against]
    for place, pair in enumerate(pairs):
        yield pair, against.get(place)


# --- train ----------------------------------------------------------------------------------------


def training_examples(run: Run, pairs: Sequence[Pair]) -> list[tuple[Prompt, str]]:
    """Return each pair as the prompt that a chat would build for its question, and its answer.

    The facts are what the memory would recall had it never seen the question; where the answer rests on one that did
    not come to mind, it takes the place of the least likely, so that the model never learns to invent. The right fact
    stands now in the likeliest place and now in any other, as in a chat; in a few examples it is withheld, and the
    answer is an admission of ignorance.
    """
    persona = personas(run.character, run.registry)
    rng = run.rng("train")
    examples = []
    with run.progress("examples") as tick:
        for number, pair in enumerate(pairs, 1):
            language = pair.language if pair.language in persona else run.character.languages[0]
            facts, answer = _example_facts(run, pair, rng)
            examples.append((build_prompt(persona[language], language, pair.question, facts, pair.said), answer))
            tick(number, len(pairs))
    return examples


def _example_facts(run: Run, pair: Pair, rng: Random) -> tuple[list[Fact], str]:
    """Return the facts that stand in the prompt of a pair, the likeliest first, and the answer to give."""
    canon, most = run.character.canon, run.character.config.facts
    count = rng.randint((most + 1) // 2, most)  # so that a chat may hold fewer
    at = canon.point(pair.at) if pair.at else None
    recalls = run.memory.recall(pair.question, count + 1, at, pair.said, unseen=True) if count else []
    right = [canon.facts[fact] for fact in pair.facts if fact in canon.facts][:count]
    others = [recall.fact for recall in recalls if recall.fact not in right]
    if right and pair.kind == "fact" and rng.random() < _WITHHELD:
        others = [fact for fact in others if _silent(canon, right[0], fact)]
        return others[:count], rng.choice(voice_of(run.character, pair.language).unknown)
    others = others[: count - len(right)]
    place = 0 if rng.random() < _FIRST else rng.randint(0, len(others))
    return [*others[:place], *right, *others[place:]], pair.answer


def _silent(canon: Canon, asked: Fact, other: Fact) -> bool:
    """Tell whether a fact says nothing of what another one is asked for."""
    return other.id != asked.id and bool(asked.answer and canon.missing(asked, " ".join(other.text.values())))


def train(
    run: Run, base: str, preset: Preset, languages: Sequence[str] = (), files: Sequence[Path] = ()
) -> dict[str, Any]:
    """Tune the base on the kept pairs and those of ``files``; the adapter lands in the workspace.

    Of ``languages`` only, if any are named. A pair of a file takes the place of a kept one that answers the same.
    """
    found = [pair for file in (run.workspace.kept, *files) for pair in read_records(file, Pair)]
    pairs = list({pair.id: pair for pair in found}.values())
    if not pairs:
        raise CamelBellError(
            "there are no kept pairs to train on", f"make some: `camelbell filter {run.character.name}`"
        )
    for language in languages:
        if language not in run.character.languages:
            known = ", ".join(run.character.languages)
            raise CamelBellError(f"{run.character.name} does not speak {language!r}", f"it speaks {known}")
    trainer = run.registry.build(Trainer, "trainers", run.character.config.trainer, preset.trainer)
    examples = [example for example in kept_examples(run, pairs) if not languages or example[0].language in languages]
    if not examples:
        raise CamelBellError(
            f"there are no kept pairs in {', '.join(languages)} to train on", "leave out --language, or name another"
        )
    opened = model.loader_for(run.registry, base, run.character.config.quantize).load_trainable(base)
    with run.progress("train") as tick:
        job = TrainingJob(
            character=run.character.name,
            examples=examples,
            base=opened,
            layout=layout_for(opened.tokenizer),
            output=adapter_folder(run, base),
            seed=f"0:{run.character.name}:train",
            describe={"title": run.character.title("en"), "languages": run.character.languages},
            progress=tick,
        )
        report = trainer.train(job)
    write_json(run.workspace.reports / f"train-{adapter_folder(run, base).name}.json", report)
    return report


def kept_examples(run: Run, pairs: Sequence[Pair]) -> list[tuple[Prompt, str]]:
    """Return the training examples, from the workspace if they were made of these pairs and this canon before.

    A workspace that is carried to a GPU trains there at once.
    """
    canon, config = run.character.canon, run.character.config
    made_of = content_id(
        *(f"{pair.id}{pair.answer}{pair.facts}{pair.kind}" for pair in pairs),
        *map(repr, (*canon.entities.values(), *canon.facts.values())),
        *map(repr, (personas(run.character, run.registry), config.voice, config.memory, config.facts)),
    )
    file = run.workspace.examples
    rows = [row for _, row in read_rows(file)]
    if rows and rows[0] == {"made_of": made_of, "examples": len(rows) - 1}:
        return [(Prompt.of_row(row["prompt"]), row["answer"]) for row in rows[1:]]
    examples = training_examples(run, pairs)
    made = ({"prompt": asdict(prompt), "answer": answer} for prompt, answer in examples)
    write_rows(file, [{"made_of": made_of, "examples": len(examples)}, *made])
    return examples


# --- eval and chat --------------------------------------------------------------------------------


def adapter_folder(run: Run, base: str) -> Path:
    """Return where the workspace keeps its adapter for a base."""
    return run.workspace.adapter(model.loader_for(run.registry, base).slug(base))


def can_start_at_once(run: Run) -> bool:
    """Tell whether nothing was made in the workspace yet, and the teacher costs neither money nor time."""
    empty = not any(file.exists() for file in (run.workspace.questions, run.workspace.pairs, run.workspace.kept))
    return empty and run.registry.build(AnswerTeacher, "answer_teachers", run.character.config.answers).free


def choose_work(run: Run, base: str, preset: str) -> tuple[str, Preset]:
    """Return the base and the preset that the words of a command mean; a base may bring the preset that fits it."""
    if preset:
        plan = run.character.preset(preset)
        return base or plan.base or run.character.config.base, plan
    chosen = base or run.character.config.base
    fitting = model.loader_for(run.registry, chosen).profile(chosen)
    return chosen, run.character.preset(fitting if fitting in run.character.config.presets else "quick")


def find_adapter(run: Run, base: str) -> Path | None:
    """Return the adapter for a base: the workspace's own, else the one that ships with the bundle."""
    own = adapter_folder(run, base)
    shipped = run.character.root / "adapters" / own.name
    return next((folder for folder in (own, shipped) if (folder / "adapter_config.json").is_file()), None)


def load_model(run: Run, base: str, adapter: Path | None) -> LanguageModel:
    """Open a base model with an adapter, for talking."""
    return model.loader_for(run.registry, base, run.character.config.quantize).load(base, adapter)


def find_quiz(character: Character) -> list[evaluation.Item]:
    """Return the items of the bundle's own quiz."""
    files = sorted((character.root / "quiz").glob("*.jsonl"))
    return [item for file in files for item in evaluation.read_quiz(file)]


def run_evaluation(
    run: Run,
    speaker: LanguageModel,
    items: Sequence[evaluation.Item],
    *,
    memory: bool = True,
    guard: bool = True,
    settings: Settings | None = None,
    label: str = "eval",
    persona: bool = True,
) -> list[evaluation.Answered]:
    """Put the items to a session of this run."""
    session = open_session(run.character, run.registry, speaker, memory=memory, guard=guard, settings=settings)
    if not persona:
        session.personas = dict.fromkeys(run.character.languages, "")
    right = 0
    with run.progress(label) as tick:
        seen: list[evaluation.Answered] = []

        def done(answered: evaluation.Answered) -> None:
            nonlocal right
            seen.append(answered)
            right += answered.truthful
            tick(len(seen), len(items), f"{right} truthful")

        tick(0, len(items))
        return evaluation.evaluate(session, items, run.character.canon, done)
