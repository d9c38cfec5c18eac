"""The ``facts`` command: what a character remembers when it is asked something."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from camelbell_core import hookimpl


@hookimpl
def register_commands(cli: Any) -> None:
    """Add ``camelbell facts``."""
    import click

    from camelbell_core.cli import with_places

    @cli.command("facts")  # type: ignore[untyped-decorator]
    @click.argument("name")
    @click.argument("question")
    @click.option("-n", "--count", type=click.IntRange(min=1), default=6, show_default=True, help="How many facts.")
    @click.option("--at", default="", help="A story time such as 3-22.")
    @with_places
    def facts(name: str, question: str, count: int, at: str, workspace: Path | None, characters: list[Path]) -> None:
        """Show the facts that NAME recalls for QUESTION, with scores and sources."""
        from camelbell_core.cli import open_named_run
        from camelbell_core.text import language_of

        run = open_named_run(name, workspace, characters)
        point = run.character.canon.point(at) if at else None
        language = language_of(question, run.character.languages)
        recalls = run.memory.recall(question, count, point)
        if not recalls:
            click.echo("no fact comes to mind")
        for recall in recalls:
            click.echo(f"{recall.score:.2f}  {recall.fact.told(language)}  [{recall.fact.source or recall.fact.id}]")
