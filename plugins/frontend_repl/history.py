"""What was typed, kept for the arrow keys and Ctrl-R of the next chat."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_LONGEST = 4_000  # characters; a pasted book is not typed again


def open_history(character: str) -> Any:
    """Return the history of what was typed to a character; where none can be kept, that of this chat alone."""
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    from camelbell_core.character import data_dir

    class Typed(FileHistory):
        def store_string(self, string: str) -> None:
            if len(string) <= _LONGEST:
                super().store_string(string)

    file: Path = data_dir() / "history" / f"{character}.txt"
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file.open("ab").close()
    except OSError:
        return InMemoryHistory()
    return Typed(str(file))
