"""The server around the API: its address, its patience with slow clients, its start and its end."""

from __future__ import annotations

import asyncio
import logging
import socket
from asyncio import TimerHandle, Transport
from collections.abc import Callable, Sequence
from contextlib import suppress
from ipaddress import ip_address

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from camelbell_core.errors import CamelBellError
from camelbell_core.session import Session
from camelbell_plugins.frontend_serve.api import Api, build
from camelbell_plugins.frontend_serve.door import Door, Limits
from camelbell_plugins.frontend_serve.speakers import Speakers

_GRACE = 5  # seconds that running replies get when the server stops
_CONNECTIONS = 900
_SHORTEST_TOKEN = 16


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can call a host."""
    if host.lower() == "localhost":
        return True
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return False


def check_token(host: str, token: str) -> None:
    """Refuse to listen where others can call without a token that cannot be guessed."""
    make = "CAMELBELL_TOKEN=$(openssl rand -hex 32) camelbell serve ...   (clients send it as their API key)"
    if not token and not is_loopback(host):
        raise CamelBellError(f"{host!r} can be called from other machines, so a token is needed", f"set one: {make}")
    if token and (len(token) < _SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token):
        raise CamelBellError(
            f"the token must be {_SHORTEST_TOKEN} or more ASCII letters and digits", f"make one: {make}"
        )


def bind(host: str, port: int) -> socket.socket:
    """Return a socket at an address; a port in use, or an address that is not ours, is told in words."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
    except (OSError, OverflowError) as error:
        made.close()
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise CamelBellError(
            f"cannot listen on {host} port {port}: {why.lower()}", "another server may run there; choose: --port 8001"
        ) from error
    made.setblocking(False)
    return made


def names_of(host: str) -> frozenset[str]:
    """Return the names under which a server at a loopback address may be called; none for any."""
    return frozenset({"localhost", "127.0.0.1", "[::1]", host.lower()}) if is_loopback(host) else frozenset()


class Patience(H11Protocol):
    """uvicorn's HTTP with an end to its patience, after so many ``seconds``.

    Connections are cut on which a request's head does not end, or whose client does not read what it is sent.
    """

    seconds = Limits.seconds
    _head: TimerHandle | None = None
    _full: TimerHandle | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Wait for a first request, but not for ever."""
        super().connection_made(transport)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        """Read on, and see whether a whole head has come."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._forget_head()
        elif self.conn.their_state is h11.IDLE:
            self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the clocks."""
        self._forget_head()
        self._forget_full()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Wait for the client to read, but not for ever."""
        super().pause_writing()
        self._full = self._full or self.loop.call_later(self.seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """The client has read."""
        self._forget_full()
        super().resume_writing()

    def _forget_head(self) -> None:
        if self._head:
            self._head.cancel()
        self._head = None

    def _forget_full(self) -> None:
        if self._full:
            self._full.cancel()
        self._full = None

    def _expect_head(self) -> None:
        self._head = self._head or self.loop.call_later(self.seconds, self._give_up)

    def _give_up(self) -> None:
        self._head = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()


class _Server(uvicorn.Server):
    """Says when it listens, and stops the replies before it waits for their clients."""

    def __init__(self, config: uvicorn.Config, api: Api, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._api, self._say = api, started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._say()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._api.close()
        await super().shutdown(sockets)


def serve(
    sessions: Sequence[Session],
    made: socket.socket,
    *,
    listed: Sequence[str] = (),
    token: str = "",
    room: int = 64,
    most: int = 512,
    limits: Limits,
    started: Callable[[], None] = lambda: None,
    access_log: bool = False,
) -> None:
    """Serve characters on a socket until the process is told to stop."""
    api = Api(Speakers(sessions, listed, most), room)
    app = Door(build(api), token, names_of(made.getsockname()[0]), limits, api.metrics)
    config = uvicorn.Config(
        app,
        http=type("Patient", (Patience,), {"seconds": limits.seconds}),
        ws="none",
        lifespan="off",
        proxy_headers=False,
        server_header=False,
        access_log=access_log,
        log_level="info" if access_log else "error",  # what is no HTTP would fill a log with warnings
        limit_concurrency=_CONNECTIONS,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=_GRACE,
    )
    asyncio.run(_Server(config, api, started).serve([made]))


def address(made: socket.socket) -> str:
    """Return the URL of a socket that listens."""
    host, port, *_ = made.getsockname()
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def show_failures() -> None:
    """Let our own log speak of failures on standard error."""
    handler: logging.Handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    log = logging.getLogger("camelbell")
    log.addHandler(handler)
