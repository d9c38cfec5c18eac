"""Talking where there is no terminal: a line in, a line out."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from camelbell_core.errors import CamelBellError
from camelbell_core.text import printable
from camelbell_plugins.frontend_repl.message import check_length

if TYPE_CHECKING:
    from camelbell_core.session import Session


def talk_plainly(session: Session) -> None:
    """Answer each line of standard input with one line; an empty line is skipped.

    A line that cannot be answered gets an empty one, and the reason goes to standard error.
    """
    for line in sys.stdin:
        text = printable(line).strip()
        if not text:
            continue
        answer = ""
        try:
            check_length(text)
            answer = " ".join(session.ask(text).split())
        except CamelBellError as error:
            print(f"camelbell: {error.message}" + (f" ({error.hint})" if error.hint else ""), file=sys.stderr)
        print(answer, flush=True)
