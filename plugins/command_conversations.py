"""The ``conversations`` command: what was said to a character, listed, shown and exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from camelbell_core import hookimpl


@hookimpl
def register_commands(cli: Any) -> None:
    """Add ``camelbell conversations``."""
    import click

    from camelbell_core.cli import with_places

    @cli.command("conversations")  # type: ignore[untyped-decorator]
    @click.argument("name")
    @click.argument("ids", nargs=-1)
    @click.option("--export", type=click.Path(path_type=Path, dir_okay=False), help="Write them as training pairs.")
    @with_places
    def conversations(
        name: str, ids: tuple[str, ...], export: Path | None, workspace: Path | None, characters: list[Path]
    ) -> None:
        """List the conversations with NAME, show those of the IDS, or export them (default: all)."""
        from camelbell_core import conversations as kept_ones
        from camelbell_core.cli import open_named_run
        from camelbell_core.journal import write_rows
        from camelbell_core.records import to_row

        found = [kept_ones.find_conversation(name, one) for one in ids] or list(kept_ones.conversations(name))
        if export:
            character = open_named_run(name, workspace, characters).character
            turns = [[kept_ones.turn_of(row, character) for row in one.branch(one.head)] for one in found]
            pairs = {pair.id: pair for branch in turns for pair in kept_ones.training_pairs(branch)}
            write_rows(export, map(to_row, pairs.values()))
            click.echo(f"{len(pairs)} pairs of {len(found)} conversations written to {export}")
        elif ids:
            for row in (row for one in found for row in one.branch(one.head)):
                click.echo(f"> {row['question']}\n{row['answer']}")
        else:
            for one in found:
                rows = one.branch(one.head) or list(one.turns.values())[:1]
                first = " ".join(rows[0]["question"].split())
                click.echo(f"{one.id}  {len(one.branch(one.head)):>4} turns  {first[:60]}")
