"""The HTTP API: OpenAI's chat completions and models, health, metrics, and what the page needs."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from functools import partial
from time import time
from typing import TYPE_CHECKING, Annotated, Any
from uuid import uuid4

from fastapi import Depends, FastAPI, Path, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response, StreamingResponse
from starlette.exceptions import HTTPException

from camelbell_core import __version__
from camelbell_plugins.frontend_serve.conversation import read_conversation
from camelbell_plugins.frontend_serve.line import Full, Line
from camelbell_plugins.frontend_serve.metrics import Metrics
from camelbell_plugins.frontend_serve.pages import add_page
from camelbell_plugins.frontend_serve.reply import Ending, Reply
from camelbell_plugins.frontend_serve.speakers import Speakers, fingerprint
from camelbell_plugins.frontend_serve.wire import (
    BEARER,
    ERRORS,
    ChatRequest,
    Choice,
    Chunk,
    ChunkChoice,
    Completion,
    Delta,
    ErrorReply,
    Health,
    Model,
    ModelList,
    Refusal,
    ReplyMessage,
    documented,
    sse,
    to_json,
)

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

_BUSY = {429: "The line is full; `Retry-After` says in how many seconds to come again.", 503: "The model failed."}
# What pydantic puts into the place of a mistake beside the names of fields.
_ALTERNATIVE = re.compile(r"^(body|path|query|str|constrained-str)$|\[")
_Name = Annotated[str, Path(max_length=200)]


class Api:
    """What is behind the routes: the speakers, the line before them, and the counters."""

    def __init__(self, speakers: Speakers, room: int = 64) -> None:
        self.speakers = speakers
        self.line = Line(speakers.parallel, room)
        self.metrics = Metrics(lambda: self.line.waiting, lambda: self.line.running)
        self._replies: set[Reply] = set()
        self.stopping = False

    def enter(self, request: ChatRequest) -> Reply:
        """Put a request into the line, or refuse it."""
        if len(request.stops) > 4:
            raise Refusal(400, f"{len(request.stops)} stop texts are given, and 4 are allowed", "invalid_value", "stop")
        self.speakers.find(request.model)  # a wrong name is told before a wrong message
        conversation = read_conversation(request.messages)
        ignored = [*conversation.ignored, *(key[:40] for key in [*(request.model_extra or {})][:20])]
        session = self.speakers.open(request, conversation)
        name = session.character.name

        def ended(ending: Ending | None) -> None:
            self.metrics.ended(name, ending, reply.gone)

        reply = Reply(session, conversation.question, request.stops, ignored, ended)
        try:
            self.line.enter(reply.work)
        except Full as full:
            seconds = full.retry_after
            raise Refusal(
                429, f"{self.line.waiting} requests wait already; come again in {seconds} s", "queue_full",
                retry_after=seconds,
            ) from None  # fmt: skip
        self._replies.add(reply)
        return reply

    def leave(self, reply: Reply) -> None:
        """Forget a reply: nobody listens any more, or it is whole."""
        self._replies.discard(reply)
        if reply.ending is None:
            reply.leave()
            if self.line.leave(reply.work):
                self.metrics.replies.labels(reply.session.character.name, "left").inc()

    def close(self) -> None:
        """Stop all that is being made; nobody comes in any more."""
        self.stopping = True
        self.line.close()
        for reply in list(self._replies):
            reply.leave(_stopping())


async def whole(api: Api, reply: Reply, request: ChatRequest, http: Request) -> Response:
    """Return the whole reply; if the client leaves first, stop making it."""

    async def collect() -> str:
        return "".join([piece async for piece in reply.pieces()])

    collected, left = asyncio.ensure_future(collect()), asyncio.ensure_future(_until_left(http))
    try:
        await asyncio.wait({collected, left}, return_when=asyncio.FIRST_COMPLETED)
        if not collected.done():
            return Response(status_code=499)  # nobody reads it
        text = collected.result()
    finally:
        api.leave(reply)
        for task in (collected, left):
            task.cancel()
    ending = reply.ending
    assert ending is not None
    answer = Completion(
        **_head(request, reply),
        choices=[Choice(message=ReplyMessage(content=text.strip()), finish_reason=ending.finish)],
        usage=ending.usage,
        camelbell=ending.extension,
    )
    return Response(to_json(answer.model_dump()), media_type="application/json")


class Stream(StreamingResponse):
    """A reply as server-sent events; however it ends, also before it began, nobody listens to the reply after it."""

    def __init__(self, api: Api, reply: Reply, request: ChatRequest) -> None:
        super().__init__(events(reply, request), headers={"X-Accel-Buffering": "no"}, media_type="text/event-stream")
        self._left = partial(api.leave, reply)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._left()


async def events(reply: Reply, request: ChatRequest) -> AsyncIterator[str]:
    """Yield the reply as server-sent events; the last before ``[DONE]`` tell how it ended and what it rests on."""
    head = _head(request, reply)

    def chunk(delta: Delta, ending: Ending | None = None) -> str:
        finish = ending.finish if ending else None
        extension = ending.extension if ending else None
        choices = [ChunkChoice(delta=delta, finish_reason=finish)]
        told: str = Chunk(**head, choices=choices, camelbell=extension).event()
        return told

    try:
        yield chunk(Delta(role="assistant", content=""))
        async for piece in reply.pieces():
            yield chunk(Delta(content=piece)) if piece else ": still at it\n\n"
        ending = reply.ending
        assert ending is not None
        yield chunk(Delta(), ending)
        if request.stream_options and request.stream_options.include_usage:
            yield Chunk(**head, choices=[], usage=ending.usage).event()
        yield "data: [DONE]\n\n"
    except Refusal as refusal:
        yield sse(ErrorReply(error=refusal.body).model_dump())


def build(api: Api) -> FastAPI:
    """Return the application of an API; nothing of it reads or writes a file once it is built."""
    app = FastAPI(
        title="CamelBell",
        version=__version__,
        description="Talk to characters as to the models of OpenAI; the field `camelbell` of a reply tells what it rests on.",
        docs_url=None,
        redoc_url=None,
    )
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(RequestValidationError, _mistaken)
    app.add_exception_handler(HTTPException, _not_found)
    _add_openai(app, api)
    add_page(app, api.speakers)

    @app.get("/healthz", responses=documented({503: "The server stops."}))
    async def health() -> Health:
        """Tell that the server can reply."""
        if api.stopping:
            raise _stopping()
        return Health(status="ok", waiting=api.line.waiting)

    @app.get(
        "/metrics",
        dependencies=[Depends(BEARER)],
        response_class=Response,
        responses={200: {"content": {"text/plain": {}}}, **documented(ERRORS)},
    )
    async def metrics() -> Response:
        """Tell Prometheus what was counted."""
        return Response(api.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return app


def _add_openai(app: FastAPI, api: Api) -> None:
    @app.post(
        "/v1/chat/completions",
        dependencies=[Depends(BEARER)],
        response_model=Completion,
        responses={200: {"content": {"text/event-stream": {}}}, **documented(ERRORS, _BUSY)},
    )
    async def chat_completions(request: ChatRequest, http: Request) -> Response:
        """Let a character reply to a conversation."""
        reply = api.enter(request)
        if not request.stream:
            return await whole(api, reply, request, http)
        return Stream(api, reply, request)

    @app.get("/v1/models", dependencies=[Depends(BEARER)], responses=documented(ERRORS))
    async def models() -> ModelList:
        """List the characters."""
        return api.speakers.models()

    @app.get("/v1/models/{name}", dependencies=[Depends(BEARER)], responses=documented(ERRORS))
    async def model(name: _Name) -> Model:
        """Tell who a character is; any story time may be asked for."""
        return api.speakers.model(name)


def _stopping() -> Refusal:
    return Refusal(503, "the server stops", "stopping")


def _head(request: ChatRequest, reply: Reply) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{uuid4().hex}",
        "created": int(time()),
        "model": request.model,
        "system_fingerprint": fingerprint(reply.session),
    }


async def _until_left(http: Request) -> None:
    while (await http.receive())["type"] != "http.disconnect":
        pass


def _error(refusal: Refusal) -> Response:
    body = to_json(ErrorReply(error=refusal.body).model_dump())
    return Response(body, refusal.status, refusal.headers, media_type="application/json")


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return _error(error)


async def _mistaken(request: Request, error: Exception) -> Response:
    """Tell the first mistake of a request, and where it stands."""
    assert isinstance(error, RequestValidationError)
    errors = error.errors()
    about = [one for one in errors if one["loc"][:2] == errors[0]["loc"][:2]]
    worst = max(about, key=lambda one: len(one["loc"]))  # of a union, the alternative that came furthest
    param = ".".join(str(part) for part in worst["loc"] if not _ALTERNATIVE.search(str(part)))[:200] or None
    what = str(worst["msg"])[:300]
    return _error(Refusal(400, f"{param}: {what}" if param else what, str(worst["type"]), param))


async def _not_found(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    refusal = Refusal(error.status_code, str(error.detail), None)
    refusal.headers |= dict(error.headers or {})
    return _error(refusal)
