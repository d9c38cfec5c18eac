"""The ``serve`` chat frontend: an OpenAI-compatible HTTP API and a web page."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from camelbell_core import hookimpl
from camelbell_core.roles import ChatFrontend

if TYPE_CHECKING:
    import socket

    from camelbell_core.session import Session

TOKEN = "CAMELBELL_TOKEN"  # the environment variable that holds the token


@dataclass(kw_only=True)
class Serve(ChatFrontend):
    """An OpenAI-compatible HTTP API and a web page.

    ``room`` requests may wait, a reply has at most ``most`` tokens, and a client that takes longer than ``patience``
    seconds to send or to read is cut off.
    """

    name: ClassVar[str] = "serve"
    host: str = "127.0.0.1"
    port: int = 8000
    room: int = 64
    most: int = 512
    patience: float = 20.0

    def run(self, session: Session) -> None:
        """Serve one character until Ctrl-C."""
        with self.bound() as made:
            self.serve([session], made)

    def bound(self) -> socket.socket:
        """Return a socket at the address, before minutes are spent on loading; refuse to be open without a token."""
        from camelbell_plugins.frontend_serve import server

        server.check_token(self.host, os.environ.get(TOKEN, ""))
        made: socket.socket = server.bind(self.host, self.port)
        return made

    def serve(
        self, sessions: Sequence[Session], made: socket.socket, listed: Sequence[str] = (), access_log: bool = False
    ) -> None:
        """Serve several characters until Ctrl-C; ``listed`` are the models that are shown, such as harry_potter@3-22."""
        from contextlib import suppress

        import click

        from camelbell_plugins.frontend_serve import server

        server.show_failures()

        def started() -> None:
            url = server.address(made)
            click.echo(f"page  {url}/\nAPI   {url}/v1   (Ctrl-C stops)", err=True)

        with suppress(KeyboardInterrupt):  # it is how it ends
            server.serve(
                sessions,
                made,
                listed=listed,
                token=os.environ.get(TOKEN, ""),
                room=self.room,
                most=self.most,
                limits=server.Limits(seconds=self.patience),
                started=started,
                access_log=access_log,
            )


@hookimpl
def register_chat_frontends() -> list[type[ChatFrontend]]:
    """Offer the server."""
    return [Serve]


@hookimpl
def register_commands(cli: Any) -> None:
    """Add ``camelbell serve``."""
    from camelbell_plugins.frontend_serve.command import add

    add(cli)
