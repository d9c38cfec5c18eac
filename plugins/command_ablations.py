"""The ``ablations`` command: what each part of a character adds to the truth of its answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from camelbell_core import hookimpl
from camelbell_core.prompts import Layout, Prompt
from camelbell_core.roles import LanguageModel


@dataclass(frozen=True, slots=True)
class Variant:
    """A way to answer: with which adapter, and with or without persona, facts and guard."""

    label: str
    adapter: Path | None = None
    model: bool = True
    persona: bool = True
    memory: bool = False
    guard: bool = False


class Silence(LanguageModel):
    """Says nothing, so that a session composes every answer from facts."""

    name = "none"
    layout: Layout

    def stream(
        self, prompt: Prompt, max_tokens: int, temperature: float = 0.0, stop: Callable[[], bool] | None = None
    ) -> Iterator[str]:
        """Yield nothing."""
        yield from ()


def variants(adapter: Path | None, others: dict[str, Path]) -> list[Variant]:
    """Return the ways to compare, the barest first."""
    ways = [Variant("base", persona=False), Variant("base + persona")]
    ways += [Variant(label, folder) for label, folder in others.items()]
    ways += [
        Variant("facts only (composed)", model=False, memory=True, guard=True),
        Variant("base + facts", memory=True),
    ]
    if adapter:
        ways += [
            Variant("adapter", adapter),
            Variant("adapter + facts", adapter, memory=True),
            Variant("adapter + facts + guard", adapter, memory=True, guard=True),
        ]
    return ways


@hookimpl
def register_commands(cli: Any) -> None:
    """Add ``camelbell ablations``."""
    import click

    from camelbell_core.cli import with_places

    def named(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, Path]:
        pairs = [value.partition("=") for value in values]
        if any(not folder for _, _, folder in pairs):
            raise click.BadParameter("write LABEL=FOLDER.")
        return {label: Path(folder) for label, _, folder in pairs}

    @cli.command("ablations")  # type: ignore[untyped-decorator]
    @click.argument("name")
    @click.option("--base", default="", help="Base model (default: the bundle's).")
    @click.option(
        "--quiz", type=click.Path(path_type=Path, dir_okay=False), help="A JSONL quiz (default: the bundle's)."
    )
    @click.option("--limit", type=click.IntRange(min=0), default=0, help="Take this many items, spread over all kinds.")
    @click.option("--with", "others", multiple=True, callback=named, help="One more adapter to compare: LABEL=FOLDER.")
    @click.option("--report", type=click.Path(path_type=Path, dir_okay=False), help="Write the scores as JSON.")
    @with_places
    def ablations(
        name: str, base: str, quiz: Path | None, limit: int, others: dict[str, Path], report: Path | None,
        workspace: Path | None, characters: list[Path],
    ) -> None:  # fmt: skip
        """Put a quiz to NAME with and without adapter, facts and guard, and print one table."""
        from camelbell_core import evaluation, pipeline
        from camelbell_core.cli import open_named_run
        from camelbell_core.errors import CamelBellError
        from camelbell_core.journal import write_json
        from camelbell_core.session import Settings

        run = open_named_run(name, workspace, characters)
        items = evaluation.read_quiz(quiz) if quiz else pipeline.find_quiz(run.character)
        if not items:
            raise CamelBellError(f"{name} has no quiz of its own", "name one: --quiz FILE")
        items = evaluation.sample(items, limit, f"quiz:{name}")
        chosen = base or run.character.config.base
        rows = []
        click.echo(f"{'':<28}{'truthful':>9}{'95 % interval':>17}{'answered':>10}{'refused':>9}   n={len(items)}")
        for way in variants(pipeline.find_adapter(run, chosen), others):
            speaker = pipeline.load_model(run, chosen, way.adapter) if way.model else Silence()
            settings = Settings(max_tokens=64)
            answered = pipeline.run_evaluation(
                run, speaker, items, memory=way.memory, guard=way.guard, settings=settings, label=way.label,
                persona=way.persona,
            )  # fmt: skip
            total = evaluation.scores(answered)["", ""]
            told, refused = evaluation.coverage(answered)
            low, high = total.interval()
            rows.append({"variant": way.label, "truthful": total.share, "low": low, "high": high, "n": total.n})
            rows[-1] |= {"answered": told.share, "refused": refused.share}
            click.echo(
                f"{way.label:<28}{total.share:>9.3f}{f'{low:.3f} to {high:.3f}':>17}{told.share:>10.3f}{refused.share:>9.3f}"
            )
            del speaker
        if report:
            write_json(report, {"variants": rows})
