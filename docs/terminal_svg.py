"""Draw a terminal capture as an SVG: tmux capture-pane -p -t NAME | python docs/terminal_svg.py docs/chat.svg TITLE."""

import re
import sys
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.text import Text


def main(file: str, title: str) -> None:
    """Read the screen from standard input; what was typed is drawn bold."""
    console = Console(record=True, width=100, file=StringIO(), force_terminal=True)
    for line in sys.stdin.read().rstrip().splitlines():
        typed = line.startswith(("> ", "$ "))
        console.print(Text(line, style="bold cyan" if typed else ""), highlight=False)
    # The fonts that rich names lie on a server; a reader's own monospace font does as well.
    Path(file).write_text(
        re.sub(r"@font-face \{.*?\}", "", console.export_svg(title=title), flags=re.S), encoding="utf-8"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
