"""The ``repl`` chat frontend: a terminal with history, completion and streaming; plain lines without one."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from camelbell_core import hookimpl
from camelbell_core.roles import ChatFrontend

if TYPE_CHECKING:
    from camelbell_core.session import Session


@dataclass(kw_only=True)
class Repl(ChatFrontend):
    """A terminal chat by prompt_toolkit; where there is no terminal, one answer a line of input.

    ``history`` keeps what is typed for the next chat, unless the conversation itself is not kept.
    """

    name: ClassVar[str] = "repl"
    history: bool = True

    def run(self, session: Session) -> None:
        """Talk until /quit, Ctrl-D or the end of the input."""
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            from camelbell_plugins.frontend_repl.plain import talk_plainly

            talk_plainly(session)
            return
        from camelbell_plugins.frontend_repl.terminal import Terminal

        keep = self.history and session.log is not None
        try:
            terminal = Terminal(session, opener=self.opener, keep_history=keep)
        except _no_console():
            from camelbell_plugins.frontend_repl.plain import talk_plainly

            talk_plainly(session)
            return
        terminal.run()


def _no_console() -> tuple[type[Exception], ...]:
    """Return the error of a Windows shell without a console, which exists on Windows only."""
    if sys.platform == "win32":
        from prompt_toolkit.output.win32 import NoConsoleScreenBufferError

        return (NoConsoleScreenBufferError,)
    return ()


@hookimpl
def register_chat_frontends() -> list[type[ChatFrontend]]:
    """Offer the terminal."""
    return [Repl]
