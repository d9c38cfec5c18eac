"""The ``report`` command: one page on a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from camelbell_core import hookimpl


@hookimpl
def register_commands(cli: Any) -> None:
    """Add ``camelbell report``."""
    import click

    from camelbell_core.cli import open_named_run, with_places

    @cli.command("report")  # type: ignore[untyped-decorator]
    @click.argument("name")
    @click.option(
        "--to", type=click.Path(path_type=Path, dir_okay=False), help="The file (default: reports/report.html)."
    )
    @with_places
    def report(name: str, to: Path | None, workspace: Path | None, characters: tuple[Path, ...]) -> None:
        """Write one HTML page on the run of NAME, to be looked at without a network."""
        from camelbell_core.report import write_report

        run = open_named_run(name, workspace, characters)
        click.echo(str(write_report(run, to)))
