"""The command line: each command calls one function of the engine."""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from camelbell_core import __version__
from camelbell_core.errors import CamelBellError

if TYPE_CHECKING:
    from camelbell_core.pipeline import Run, Ticker
    from camelbell_core.registry import Registry

_PRESETS = click.option(
    "--preset",
    default="",
    help="How much work: quick, full, or one of the bundle's (default: the one for the base, else quick).",
)
_BASE = click.option(
    "--base", default="", help="Base model: embedded, smollm2, a folder or a hub id (default: the bundle's)."
)


def with_places(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that every command has: where runs and bundles live."""
    folder = click.Path(path_type=Path, file_okay=False)
    command = click.option("--characters", multiple=True, type=folder, help="A folder of bundles, looked into first.")(
        command
    )
    return click.option("--workspace", type=folder, help="Where this run's files live.")(command)


def with_speaker(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of commands that talk: which adapter, with or without memory and guard."""
    command = click.option("--no-guard", is_flag=True, help="Show what the model says, unjudged.")(command)
    command = click.option("--no-memory", is_flag=True, help="Put no facts into the prompt.")(command)
    command = click.option("--no-adapter", is_flag=True, help="Talk with the base model as it is.")(command)
    adapter = click.Path(path_type=Path, file_okay=False)
    return click.option("--adapter", type=adapter, help="An adapter folder (default: the run's, else the bundle's).")(
        command
    )


def with_spending(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of commands that may spend money."""
    command = click.option("--yes", "-y", is_flag=True, help="Do not ask before spending.")(command)
    command = click.option(
        "--token-limit", type=click.IntRange(min=1), help="Stop before the workspace has used so many tokens."
    )(command)
    return click.option(
        "--budget",
        type=click.FloatRange(min=0),
        help="Stop before the workspace has spent so much, as priced by the YAML.",
    )(command)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="camelbell")
def cli() -> None:
    """Character chatbots from a folder: questions, answers, filters, LoRA, chat."""


@cli.command("characters")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
@with_places
def list_characters(as_json: bool, workspace: Path | None, characters: tuple[Path, ...]) -> None:
    """List the characters that were found; none of their code is run."""
    from camelbell_core.character import find_characters, read_character

    rows: list[dict[str, Any]] = []
    for ref in find_characters(characters).values():
        row: dict[str, Any] = {
            "name": ref.name,
            "path": str(ref.root),
            "from": ref.origin,
            "code": ref.plugin is not None,
        }
        try:
            config = read_character(ref).config
            row |= {"title": config.name, "languages": config.languages, "description": config.description}
        except CamelBellError as error:
            row["error"] = error.message
        rows.append(row)
    if as_json:
        click.echo(json.dumps(rows, ensure_ascii=False, indent=2))
        return
    for row in rows:
        about = "broken: see `camelbell check " + row["name"] + "`" if "error" in row else row["description"]
        code = "  [runs code: plugin.py]" if row["code"] else ""
        click.echo(f"{row['name']:<16} {' / '.join(row.get('title', {}).values())}  {about}{code}")


@cli.command("plugins")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
@with_places
def list_plugins(as_json: bool, workspace: Path | None, characters: tuple[Path, ...]) -> None:
    """List the plugins, what they offer, and which do not load."""
    from camelbell_core.registry import ROLES, build_registry

    # That of main: it knows which plugin broke when it added its commands.
    registry: Registry = click.get_current_context().find_root().obj or build_registry()
    offers = {role: {name: part.summary() for name, part in registry.offers(role).items()} for role in ROLES}
    if as_json:
        plugins = [
            {k: getattr(p, k) for k in ("name", "source", "version", "hooks", "error")} for p in registry.plugins
        ]
        click.echo(json.dumps({"plugins": plugins, "parts": offers}, ensure_ascii=False, indent=2))
        return
    for plugin in registry.plugins:
        state = f"DOES NOT WORK: {plugin.error}" if plugin.error else ", ".join(plugin.hooks)
        click.echo(f"{plugin.name:<20} {plugin.source} {plugin.version}".rstrip() + f"  {state}")
    for role, parts in offers.items():
        click.echo(f"\n{role.replace('_', ' ')}:")
        for name, summary in parts.items():
            click.echo(f"  {name:<16} {summary}")


@cli.command("check")
@click.argument("name")
@with_places
def check(name: str, workspace: Path | None, characters: tuple[Path, ...]) -> None:
    """Read the whole bundle NAME and show every mistake; nothing else is done."""
    run = open_named_run(name, workspace, characters)
    character = run.character
    canon = character.canon
    values = sum(len(values) for values in character.slots.values())
    click.echo(f"{name}: no mistakes")
    click.echo(
        f"  {len(character.seeds)} seeds, {len(character.slots)} slots with {values} values, "
        f"{len(canon.facts)} facts on {len(canon.entities)} entities"
    )
    if not canon.facts:
        click.echo("  warning: the canon is empty, so the character will admit that it does not know")
    for language in character.languages:
        asked = sum(bool(fact.ask.get(language)) for fact in canon.facts.values())
        told = sum(bool(fact.voice.get(language)) for fact in canon.facts.values())
        click.echo(f"  {language}: {asked} facts with questions, {told} told in the character's voice")


@cli.command("new")
@click.argument("name")
@click.option("--from", "source", default="", help="Copy this character (default: a small commented bundle).")
@click.option("--to", type=click.Path(path_type=Path, file_okay=False), default=Path("characters"), show_default=True)
@with_places
def new(name: str, source: str, to: Path, workspace: Path | None, characters: tuple[Path, ...]) -> None:
    """Make a new character: a folder with commented YAML files to edit."""
    from camelbell_core.scaffold import new_bundle

    folder = new_bundle(name, source, characters[0] if characters else to, characters)
    click.echo(f"made {folder}\nedit its YAML files, then: camelbell check {name}")


@cli.command("questions")
@click.argument("name")
@click.option("-n", "count", type=click.IntRange(min=1), help="How many (default: the preset's).")
@_PRESETS
@with_places
def questions(name: str, count: int | None, preset: str, workspace: Path | None, characters: tuple[Path, ...]) -> None:
    """Make questions for NAME."""
    from camelbell_core.pipeline import make_questions

    with opened_run(name, workspace, characters) as run:
        report = make_questions(run, count or run.character.preset(preset or "quick").questions)
    click.echo(_told_questions(report))


@cli.command("answers")
@click.argument("name")
@_BASE
@with_spending
@with_places
def answers(
    name: str,
    base: str,
    budget: float | None,
    token_limit: int | None,
    yes: bool,
    workspace: Path | None,
    characters: tuple[Path, ...],
) -> None:
    """Have the teacher answer the questions of NAME; goes on where it stopped."""
    from camelbell_core.pipeline import load_model, make_answers

    with opened_run(name, workspace, characters) as run:
        options = _limits(budget, token_limit)
        _agree(run, options, yes)
        report = make_answers(run, lambda: load_model(run, base or run.character.config.base, None), options)
    click.echo(f"{report['answered']} of {report['questions']} questions answered by {report['teacher']}")


@cli.command("filter")
@click.argument("name")
@with_places
def filter_answers(name: str, workspace: Path | None, characters: tuple[Path, ...]) -> None:
    """Judge the answers of NAME; each rejected one keeps its filter and reason."""
    from camelbell_core.pipeline import filter_pairs

    with opened_run(name, workspace, characters) as run:
        report = filter_pairs(run)
    click.echo(_told_filter(report))


@cli.command("train")
@click.argument("name")
@_BASE
@_PRESETS
@click.option("--language", multiple=True, help="Train on the pairs of this language only: en for an English base.")
@click.option(
    "--pairs", multiple=True, type=click.Path(path_type=Path, dir_okay=False, exists=True), help="More pairs, as JSONL."
)
@with_places
def train(
    name: str,
    base: str,
    preset: str,
    language: tuple[str, ...],
    pairs: tuple[Path, ...],
    workspace: Path | None,
    characters: tuple[Path, ...],
) -> None:
    """Tune a base model on the kept pairs of NAME; goes on from its last checkpoint.

    In an empty workspace the pairs are made first, where the teacher asks no service.
    """
    from camelbell_core import pipeline

    with opened_run(name, workspace, characters) as run:
        chosen, plan = pipeline.choose_work(run, base, preset)
        if not pairs and pipeline.can_start_at_once(run):
            click.echo(_told_questions(pipeline.make_questions(run, plan.questions)))
            pipeline.make_answers(run, lambda: pipeline.load_model(run, chosen, None))
            click.echo(_told_filter(pipeline.filter_pairs(run)))
        report = pipeline.train(run, chosen, plan, language, pairs)
        click.echo(_told_training(report, pipeline.adapter_folder(run, chosen)))


@cli.command("eval")
@click.argument("name")
@_BASE
@click.option("--quiz", type=click.Path(path_type=Path, dir_okay=False), help="A JSONL quiz (default: the bundle's).")
@click.option(
    "--limit", type=click.IntRange(min=0), default=0, help="Take this many items, spread over kinds and languages."
)
@click.option("--answers", "out", type=click.Path(path_type=Path, dir_okay=False), help="Write the answers as JSONL.")
@click.option("--report", type=click.Path(path_type=Path, dir_okay=False), help="Write the scores as JSON.")
@with_speaker
@with_places
def evaluate(
    name: str,
    base: str,
    quiz: Path | None,
    limit: int,
    out: Path | None,
    report: Path | None,
    adapter: Path | None,
    no_adapter: bool,
    no_memory: bool,
    no_guard: bool,
    workspace: Path | None,
    characters: tuple[Path, ...],
) -> None:
    """Put a quiz to NAME and count the truthful answers."""
    from camelbell_core import evaluation, pipeline
    from camelbell_core.journal import write_json, write_rows

    run = open_named_run(name, workspace, characters)
    items = evaluation.read_quiz(quiz) if quiz else pipeline.find_quiz(run.character)
    if not items:
        raise CamelBellError(f"{name} has no quiz of its own", "name one: --quiz FILE")
    items = evaluation.sample(items, limit, f"quiz:{name}")
    speaker = _speaker(run, base, adapter, no_adapter)
    answered = pipeline.run_evaluation(run, speaker, items, memory=not no_memory, guard=not no_guard)
    if out:
        rows = ({"id": a.item.id, "answer": a.answer, "facts": list(a.facts)} for a in answered)
        write_rows(out, rows)
    if report:
        write_json(report, _score_rows(answered))
    _print_scores(answered)


@cli.command("chat")
@click.argument("name")
@_BASE
@click.option("--message", "-m", help="Print one answer and leave.")
@click.option("--at", default="", help='Story time: the character knows only what it knew then, e.g. 3-22 or "book 3".')
@click.option("--temperature", type=click.FloatRange(min=0), default=0.0, show_default=True)
@click.option("--max-tokens", type=click.IntRange(min=1), default=96, show_default=True)
@click.option("--frontend", default="", help="A chat frontend (default: the bundle's).")
@click.option("--resume", is_flag=True, help="Go on with the last conversation.")
@click.option("--load", "earlier", default="", help="Go on with this one (`camelbell conversations NAME` lists them).")
@click.option("--no-log", is_flag=True, help="Keep neither the conversation nor what is typed.")
@with_speaker
@with_places
def chat(
    name: str,
    base: str,
    message: str | None,
    at: str,
    temperature: float,
    max_tokens: int,
    frontend: str,
    resume: bool,
    earlier: str,
    no_log: bool,
    adapter: Path | None,
    no_adapter: bool,
    no_memory: bool,
    no_guard: bool,
    workspace: Path | None,
    characters: tuple[Path, ...],
) -> None:
    """Talk to NAME in the terminal; lines piped in are answered one by one."""
    from camelbell_core import conversations
    from camelbell_core.opening import Opener
    from camelbell_core.roles import ChatFrontend
    from camelbell_core.session import Settings
    from camelbell_core.text import printable

    if message is not None and not printable(message).strip():
        raise CamelBellError("the message is empty", 'say something: --message "..."')

    def open_run(who: str) -> Run:
        return run if who == name else open_named_run(who, None, characters)

    def open_model(who: Run, other: str) -> Any:
        own = who is run and other in ("", base)  # the adapter named is for this character and base
        return _speaker(who, other or base, adapter if own else None, no_adapter)

    run = open_named_run(name, workspace, characters)
    opener = Opener(
        open_run=open_run,
        open_model=open_model,
        characters=lambda: _described(characters),
        bases=lambda: _bases(run.registry),
        settings=Settings(max_tokens=max_tokens, temperature=temperature),
        memory=not no_memory,
        guard=not no_guard,
        log=not no_log,
        warn=lambda text: click.echo(f"note: {text}", err=True),
    )
    point = run.character.canon.point(at) if at else None
    kept = conversations.find_conversation(name, earlier) if earlier else None
    if resume and not kept:
        kept = next(conversations.conversations(name), None)
        if kept is None:
            opener.warn(f"there is no earlier conversation with {name}")
    talker = run.registry.build(ChatFrontend, "chat_frontends", frontend or run.character.config.frontend)
    session = opener.open(name, base)
    if kept:
        conversations.resume(session, kept, kept.head)
        point = point or (session.turns[-1].at if session.turns else None)
    session.travel(point)
    if message is not None:
        click.echo(session.ask(message.strip()))
    else:
        talker.use(opener)
        talker.run(session)


@cli.command("run")
@click.argument("name")
@_BASE
@_PRESETS
@click.option("--keep", type=click.IntRange(min=1), help="Go on asking until exactly so many pairs passed all filters.")
@click.option("--no-train", is_flag=True, help="Stop after the filters.")
@with_spending
@with_places
def run_all(
    name: str,
    base: str,
    preset: str,
    keep: int | None,
    no_train: bool,
    budget: float | None,
    token_limit: int | None,
    yes: bool,
    workspace: Path | None,
    characters: tuple[Path, ...],
) -> None:
    """Do the whole job for NAME: questions, answers, filters, training, evaluation, one spoken answer."""
    from camelbell_core import evaluation, pipeline
    from camelbell_core.journal import write_json
    from camelbell_core.session import Settings

    with opened_run(name, workspace, characters) as run:
        chosen, plan = pipeline.choose_work(run, base, preset)
        options = _limits(budget, token_limit)

        def model() -> Any:
            return pipeline.load_model(run, chosen, None)

        click.echo(_told_questions(pipeline.make_questions(run, keep or plan.questions)))
        _agree(run, options, yes)
        if keep:
            from camelbell_core.keep import keep_exactly

            click.echo(_told_filter(keep_exactly(run, keep, model, options)))
        else:
            made = pipeline.make_answers(run, model, options)
            click.echo(f"{made['answered']} of {made['questions']} questions answered by {made['teacher']}")
            click.echo(_told_filter(pipeline.filter_pairs(run)))
        if no_train:
            return
        items = evaluation.sample(pipeline.find_quiz(run.character), plan.quiz, f"quiz:{name}")
        before, short = [], Settings(max_tokens=48)  # a bare model rambles to the end of what it may say
        if items:
            bare = pipeline.load_model(run, chosen, None)
            before = pipeline.run_evaluation(
                run, bare, items, memory=False, guard=False, settings=short, label="eval before"
            )
            del bare
        folder = pipeline.adapter_folder(run, chosen)
        click.echo(_told_training(pipeline.train(run, chosen, plan), folder))
        speaker = pipeline.load_model(run, chosen, folder)
        if items:
            after = pipeline.run_evaluation(run, speaker, items, settings=short, label="eval after")
            for when, answered in (("before", before), ("after", after)):
                write_json(run.workspace.reports / f"eval-{when}.json", _score_rows(answered))
            click.echo("\nbefore: the base model alone")
            _print_scores(before)
            click.echo("\nafter: adapter, facts and guard")
            _print_scores(after)
        _say_one(run, speaker)
        click.echo(f"\ntalk on: camelbell chat {name}" + (f" --workspace {workspace}" if workspace else ""))


# --- what the commands share ----------------------------------------------------------------------


def open_named_run(name: str, workspace: Path | None, characters: tuple[Path, ...] | list[Path]) -> Run:
    """Open a character by name, all of its bundle checked."""
    from camelbell_core.character import data_dir, find_character
    from camelbell_core.pipeline import open_run

    ref = find_character(name, characters)
    run = open_run(ref, workspace or data_dir() / "runs" / name, _progress)
    context = click.get_current_context(silent=True)
    _note_failures(run.registry, context.find_root().obj if context else None)
    return run


def _note_failures(registry: Registry, told: Registry | None = None) -> None:
    """Say which plugins are skipped, but for those that were told before."""
    for plugin in registry.plugins:
        if plugin.error and not (told and plugin in told.plugins):
            click.echo(f"note: plugin {plugin.name!r} ({plugin.source}) is skipped: {plugin.error}", err=True)


@contextmanager
def opened_run(name: str, workspace: Path | None, characters: tuple[Path, ...]) -> Iterator[Run]:
    """Open a character and hold its workspace for as long as files are written."""
    run = open_named_run(name, workspace, characters)
    with run.workspace.lock():
        yield run


@contextmanager
def _progress(label: str) -> Iterator[Ticker]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{speed:,.1f}/s" if speed else "")

    columns = (
        TextColumn("{task.description:<12}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task(label, total=None, note="")

        def tick(done: int, total: int, note: str = "") -> None:
            bars.update(task, completed=done, total=total, note=note)

        yield tick


def _limits(budget: float | None, token_limit: int | None) -> dict[str, Any]:
    """Return the options of the teacher that the command line sets."""
    return {name: value for name, value in {"budget": budget, "token_limit": token_limit}.items() if value is not None}


def _agree(run: Run, options: dict[str, Any], yes: bool) -> None:
    """Say what the answers will take, and ask a person at a terminal before much is spent."""
    from camelbell_core.pipeline import estimate_answers
    from camelbell_core.service.endpoint import told

    estimate = estimate_answers(run, options)
    if estimate is None or not estimate.requests:
        return
    click.echo(f"to be asked at most: {told(estimate)}", err=True)
    if estimate.ask and not yes and sys.stdin.isatty():
        click.confirm("go on?", abort=True, err=True)


def _speaker(run: Run, base: str, adapter: Path | None, no_adapter: bool) -> Any:
    from camelbell_core.model import loader_for
    from camelbell_core.pipeline import find_adapter, load_model

    chosen = base or run.character.config.base
    folder = None if no_adapter else adapter or find_adapter(run, chosen)
    if folder is None and not no_adapter and loader_for(run.registry, chosen).trainable:
        hint = f"train one: camelbell run {run.character.name}"
        click.echo(f"note: there is no adapter for the base {chosen!r} yet, so the bare model talks; {hint}", err=True)
    return load_model(run, chosen, folder)


def _described(characters: tuple[Path, ...]) -> Iterator[tuple[str, str]]:
    """Yield the characters that can be opened, each with its names."""
    from camelbell_core.character import find_characters, read_character

    for ref in find_characters(characters).values():
        try:
            yield ref.name, " / ".join(read_character(ref).config.name.values())
        except CamelBellError:
            yield ref.name, f"broken: see `camelbell check {ref.name}`"


def _bases(registry: Registry) -> Iterator[tuple[str, str]]:
    from camelbell_core.roles import BaseModel

    for name in registry.offers("base_models"):
        loader = registry.build(BaseModel, "base_models", name)
        yield from loader.bases().items()


def _say_one(run: Run, speaker: Any) -> None:
    """Let the character say one thing in each of its languages."""
    from camelbell_core.session import open_session

    session = open_session(run.character, run.registry, speaker)
    hello = {"zh": "你是谁？", "en": "Who are you?"}
    for language in run.character.languages:
        question = hello.get(language)
        if question:
            session.reset()
            click.echo(f"\n> {question}\n{session.ask(question)}")


def _told_questions(report: dict[str, Any]) -> str:
    parts = ", ".join(f"{name} {count}" for name, count in report["by_generator"].items())
    short = (
        f"\n  {report['wanted'] - report['questions']} fewer than asked for: {report['short']}"
        if report["short"]
        else ""
    )
    diverse = f"\n  {report['diversity']}" if report.get("diversity") else ""
    return f"{report['questions']} questions ({parts}){short}{diverse}"


def _told_filter(report: dict[str, Any]) -> str:
    spare = f" ({report['spare']} more passed)" if report.get("spare") else ""
    lines = [f"{report['kept']} of {report['in']} pairs kept{spare}"]
    for name, (came, passed) in report["filters"].items():
        if came > passed:
            example = report["examples"][name]
            lines.append(f"  {name}: {came} in, {passed} out, e.g. {example['question']!r}: {example['reason']}")
    for name, opinion in report.get("opinions", {}).items():
        lines.append(
            f"  {name} would have rejected {opinion['agreed']} of {opinion['asked']} pairs that others rejected"
        )
    if report.get("stopped"):
        lines.append(f"  {report['wanted'] - report['kept']} fewer than wanted: {report['stopped']}")
    return "\n".join(lines)


def _told_training(report: dict[str, Any], folder: Path) -> str:
    held = f", held-out loss {report['held_out_loss']:.3f}" if report.get("held_out_loss") is not None else ""
    return (
        f"trained on {report['examples']} pairs in {report['seconds']:.0f} s "
        f"({report['tokens_per_second']:.0f} tokens/s){held}; adapter: {folder}"
    )


def _score_rows(answered: Any) -> dict[str, Any]:
    from camelbell_core.evaluation import coverage, scores

    rows: list[dict[str, Any]] = []
    for (kind, language), score in sorted(scores(answered).items()):
        low, high = score.interval()
        rows.append({"kind": kind, "lang": language, "truthful": score.share, "n": score.n, "low": low, "high": high})
    told, refused = coverage(answered)
    return {"scores": rows, "coverage": told.share, "refusal": refused.share}


def _print_scores(answered: Any) -> None:
    """Print a row a kind, a column a language, and last the line that other programs read."""
    from camelbell_core.evaluation import coverage, scores

    table = scores(answered)
    languages = sorted({language for _, language in table if language})
    click.echo(f"{'kind':<16}" + "".join(f"{language:>16}" for language in languages) + f"{'all':>16}")
    for kind in [*sorted({kind for kind, _ in table if kind}), ""]:
        cells = [table.get((kind, language)) for language in [*languages, ""]]
        shown = [f"{cell.share:.3f} (n={cell.n})" if cell else "-" for cell in cells]
        click.echo(f"{kind or 'all':<16}" + "".join(f"{cell:>16}" for cell in shown))
    told, refused = coverage(answered)
    if told.n:
        click.echo(f"answered {told.share:.3f} of the answerable (n={told.n})")
    if refused.n:
        click.echo(f"admitted not knowing {refused.share:.3f} of the unanswerable (n={refused.n})")
    total = table["", ""]
    low, high = total.interval()
    click.echo(f"95 % interval {low:.3f} to {high:.3f}")
    click.echo(f"truthful {total.share:.3f} (n={total.n})")


def main() -> None:
    """Run the command line; mistakes end in one line and a hint, exit 2, bugs keep their traceback."""
    from camelbell_core.registry import build_registry

    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace")
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(encoding="utf-8-sig", errors="replace")  # Windows shells pipe a byte order mark first
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # What one library deprecates in another is no news to the people who talk to a character.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers\.")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it tells at import which of its kernels it lacks
    try:
        registry = build_registry()
        registry.manager.hook.register_commands(cli=cli)
        _note_failures(registry)
        cli(standalone_mode=False, obj=registry)
    except click.exceptions.Exit as leaving:
        sys.exit(leaving.exit_code)
    except click.Abort:
        click.echo("stopped; run the same command to go on", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except CamelBellError as error:
        click.echo(f"camelbell: {error.message}", err=True)
        if error.hint:
            click.echo(f"  {error.hint}", err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
