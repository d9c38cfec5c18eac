"""The ``export`` and ``restore`` commands: kept pairs for other trainers, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from camelbell_core import hookimpl

_KINDS = ("alpaca", "sharegpt", "messages", "parquet", "preference")


@hookimpl
def register_commands(cli: Any) -> None:
    """Add ``camelbell export`` and ``camelbell restore``."""
    import click

    from camelbell_core.cli import opened_run, with_places

    @cli.command("export")  # type: ignore[untyped-decorator]
    @click.argument("name")
    @click.option(
        "--format",
        "kinds",
        type=click.Choice(_KINDS),
        multiple=True,
        default=["messages"],
        show_default=True,
        help="May be given several times.",
    )
    @click.option(
        "--to", type=click.Path(path_type=Path, file_okay=False), help="A folder (default: exports/ of the workspace)."
    )
    @click.option(
        "--chosen-by", default="canon", show_default=True, help="The teacher of the right answers of preference pairs."
    )
    @with_places
    def export(
        name: str,
        kinds: tuple[str, ...],
        to: Path | None,
        chosen_by: str,
        workspace: Path | None,
        characters: tuple[Path, ...],
    ) -> None:
        """Write the kept pairs of NAME for other trainers, with dataset_info.json, axolotl.yaml and a card."""
        from camelbell_core import exports

        with opened_run(name, workspace, characters) as run:
            folder = to or run.workspace.root / "exports"
            for kind in kinds:
                if kind == "preference":
                    file, count = exports.export_preferences(run, folder, chosen_by)
                else:
                    file, count = exports.export(run, kind, folder)
                click.echo(f"{count} rows: {file}")

    @cli.command("restore")  # type: ignore[untyped-decorator]
    @click.argument("name")
    @click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
    @with_places
    def restore(name: str, file: Path, workspace: Path | None, characters: tuple[Path, ...]) -> None:
        """Add the pairs of an exported FILE to the workspace of NAME, as they were; those that are there stay."""
        from camelbell_core.exports import read_export
        from camelbell_core.journal import Journal, read_records
        from camelbell_core.records import Pair

        with opened_run(name, workspace, characters) as run:
            known = {pair.id for pair in read_records(run.workspace.pairs, Pair)}
            new = [pair for pair in read_export(file) if pair.id not in known]
            with Journal(run.workspace.pairs) as journal:
                for pair in new:
                    journal.add(pair)
        click.echo(f"{len(new)} pairs added; judge them: camelbell filter {name}")
