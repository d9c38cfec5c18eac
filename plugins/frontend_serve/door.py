"""What a request must pass before anything reads it: host, token, size and time limits; and what every reply carries."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from camelbell_plugins.frontend_serve.pages import PAGE
from camelbell_plugins.frontend_serve.wire import ErrorReply, Refusal, to_json

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from camelbell_plugins.frontend_serve.metrics import Metrics

OPEN = frozenset({"/healthz", *PAGE})  # they tell nothing that needs a token
_PICTURES = "/camelbell/avatars/"  # a picture on a page cannot send one
_DRAINED = 8  # times the body limit is read, and thrown away, so that the client reads why it was refused

# The page runs its own script and style only, talks to its own server only, and stands in no frame.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
]


@dataclass(frozen=True)
class Limits:
    """Bounds of a request: its body in bytes, and how many seconds a client may take to send or to read."""

    body: int = 2 * 2**20
    seconds: float = 20.0


class Door:
    """ASGI middleware that refuses, in OpenAI's shape, what should not come in.

    ``hosts`` are the names under which the server may be called, none for any: a page elsewhere whose name was
    made to point here (DNS rebinding) carries its own. ``token`` guards all but the page itself and /healthz.
    """

    def __init__(
        self, app: ASGIApp, token: str = "", hosts: Collection[str] = (), limits: Limits = Limits(),
        metrics: Metrics | None = None,
    ) -> None:  # fmt: skip
        self._app = app
        self._token = token.encode()
        self._hosts = frozenset(hosts)
        self._limits = limits
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check a request, read its body, and pass it on."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 499  # the client went before there was a reply

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = {name for name, _ in message.get("headers", ())}
                more = [header for header in _HEADERS if header[0] not in own]
                message = {**message, "headers": [*message.get("headers", ()), *more]}
            await send(message)

        try:
            try:
                self._check(scope)
                body = await self._body(scope, receive)
            except Refusal as refusal:
                await _refuse(refusal, answer)
                return
            if body is not None:
                await self._app(scope, _Again(body, receive), answer)
        finally:
            if self._metrics:
                route = getattr(scope.get("route"), "path", "other")
                self._metrics.requests.labels(_method(scope), route, str(status)).inc()

    def _check(self, scope: Scope) -> None:
        headers = dict(scope["headers"])
        if self._hosts and _host(headers.get(b"host", b"")) not in self._hosts:
            raise Refusal(403, "this server is not called by that name; see --host", "wrong_host")
        if self._token and scope["path"] not in OPEN and not scope["path"].startswith(_PICTURES):
            kind, _, given = headers.get(b"authorization", b"").partition(b" ")
            right = hmac.compare_digest(given.strip(), self._token)
            if not right or kind.lower() != b"bearer":
                raise Refusal(401, "a token is needed: Authorization: Bearer TOKEN", "invalid_api_key")

    async def _body(self, scope: Scope, receive: Receive) -> bytes | None:
        """Return the body, or None if the client left; refuse one that is too long or too slow."""
        chunks: list[bytes] = []
        size, limit = 0, self._limits.body
        try:
            async with asyncio.timeout(self._limits.seconds):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        return None
                    chunk = message.get("body", b"")
                    size += len(chunk)
                    if size <= limit:
                        chunks.append(chunk)
                    if not message.get("more_body") or size > _DRAINED * limit:
                        break
        except TimeoutError:
            raise Refusal(408, f"the body did not come within {self._limits.seconds:g} seconds", "timeout") from None
        if size > limit:
            raise Refusal(413, f"the body is longer than {limit} bytes", "request_too_large")
        return b"".join(chunks)


class _Again:
    """Gives a body that was read, then what comes after it: the word that the client left."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        return await self._receive()


async def _refuse(refusal: Refusal, send: Send) -> None:
    body = to_json(ErrorReply(error=refusal.body).model_dump())
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(name.lower().encode(), value.encode()) for name, value in refusal.headers.items()]
    if refusal.status in (408, 413):
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _host(header: bytes) -> str:
    """Return the name of a Host header, without the port."""
    name = header.decode("latin-1").strip().lower()
    if name.startswith("["):
        return name.partition("]")[0] + "]"
    return name.partition(":")[0]


def _method(scope: Scope) -> str:
    known = {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"}
    return scope["method"] if scope["method"] in known else "other"
