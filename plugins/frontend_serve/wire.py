"""What goes over the wire: OpenAI's chat completions as pydantic models, and CamelBell's extension of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi.security import HTTPBearer
from pydantic import BaseModel, ConfigDict, Field

MOST_MESSAGES = 2_000
MOST_STOPS = 4
_Stop = Annotated[str, Field(max_length=200)]


class ContentPart(BaseModel):
    """A part of a message; only those of type ``text`` are understood."""

    model_config = ConfigDict(extra="allow")
    type: str
    text: str | None = None


class ChatMessage(BaseModel):
    """One message of the conversation so far."""

    model_config = ConfigDict(extra="allow")
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[ContentPart] | None = None


class StreamOptions(BaseModel):
    """Options of a stream."""

    model_config = ConfigDict(extra="allow")
    include_usage: bool | None = None


class ChatRequest(BaseModel):
    """A request for the next reply; fields that are not listed here are accepted and have no effect."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    model: str = Field(
        max_length=200,
        description="A character, or a character at a story time: `harry_potter`, `harry_potter@3-22`.",
        examples=["harry_potter@3-22"],
    )
    messages: list[ChatMessage] = Field(
        min_length=1,
        max_length=MOST_MESSAGES,
        description="The conversation; the last message that is no system message must be the user's. "
        "System and developer messages have no effect: the character's persona is its bundle's.",
    )
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    stop: _Stop | list[_Stop] | None = Field(default=None, description=f"Up to {MOST_STOPS} texts that end the reply.")
    max_tokens: int | None = Field(default=None, ge=1, description="Cut to what the server allows.")
    max_completion_tokens: int | None = Field(default=None, ge=1, description="The newer name of `max_tokens`.")
    temperature: float | None = Field(default=None, ge=0, le=2, description="Left out: greedy, the most truthful.")
    top_p: float | None = Field(default=None, ge=0, le=1)
    seed: int | None = Field(default=None, ge=-(2**63), le=2**63 - 1)
    n: Literal[1] | None = 1

    @property
    def tokens(self) -> int | None:
        """How long the reply may be, under either name."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def stops(self) -> list[str]:
        """The texts that end the reply."""
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return [text for text in given if text]


class UsedFact(BaseModel):
    """A fact that a reply rests on."""

    id: str
    text: str
    part: int | None = Field(default=None, description="The book, counted from 1, where the source is known.")
    chapter: int | None = None


class HeldBack(BaseModel):
    """Why the guard showed something else than what the model said first."""

    filter: str
    reason: str


class Extension(BaseModel):
    """The `camelbell` field of a reply: what it rests on. A stream carries it in the chunk with `finish_reason`."""

    language: str
    story_time: str | None = Field(default=None, description="Such as `3-22`; null is the end of the story.")
    facts: list[UsedFact] = []
    composed: bool = Field(default=False, description="Composed of the facts alone, since no reply passed the guard.")
    held_back: list[HeldBack] = []
    ignored: list[str] = Field(default=[], description="What was sent and had no effect.")


class Usage(BaseModel):
    """How many tokens were read and said, in tokens of the base model."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ReplyMessage(BaseModel):
    """What the character said."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


FinishReason = Literal["stop", "length"]


class Choice(BaseModel):
    """The one reply."""

    index: Literal[0] = 0
    message: ReplyMessage
    logprobs: None = None
    finish_reason: FinishReason


class Completion(BaseModel):
    """A whole reply."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    system_fingerprint: str
    choices: list[Choice]
    usage: Usage
    camelbell: Extension


class Delta(BaseModel):
    """What a chunk adds."""

    role: Literal["assistant"] | None = None
    content: str | None = None


class ChunkChoice(BaseModel):
    """The one reply, a piece of it."""

    index: Literal[0] = 0
    delta: Delta
    logprobs: None = None
    finish_reason: FinishReason | None = None


class Chunk(BaseModel):
    """One event of a stream."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChunkChoice]
    usage: Usage | None = None
    camelbell: Extension | None = None

    def event(self) -> str:
        """Return the chunk as a server-sent event."""
        row = self.model_dump(exclude={"camelbell"} if self.camelbell is None else None)
        for choice in row["choices"]:
            choice["delta"] = {key: value for key, value in choice["delta"].items() if value is not None}
        return sse(row)


class About(BaseModel):
    """The `camelbell` field of a model: who it is."""

    character: str
    title: dict[str, str]
    description: str
    languages: list[str]
    greeting: dict[str, str]
    story_time: str | None = None
    chapters: list[int] = Field(default=[], description="How many chapters each part of the story has.")
    part: dict[str, str] = Field(default={}, description="What a part is called, by language.")
    base: str
    adapter: bool


class Model(BaseModel):
    """A character, perhaps at a story time, as OpenAI lists models."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["camelbell"] = "camelbell"
    camelbell: About


class ModelList(BaseModel):
    """All that speak here."""

    object: Literal["list"] = "list"
    data: list[Model]


class Knowledge(BaseModel):
    """What a character knows at a point of its story."""

    story_time: str | None = Field(description="Null is the end of the story.")
    known: int
    facts: int = Field(description="How many facts the canon has.")
    lately: list[UsedFact] = Field(description="What it learned last.")


class Health(BaseModel):
    """The server's own word that it can reply."""

    status: Literal["ok", "stopping"]
    waiting: int


class ErrorBody(BaseModel):
    """What went wrong, in OpenAI's shape."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorReply(BaseModel):
    """An error reply."""

    error: ErrorBody


class Refusal(Exception):
    """A request that is answered by an error, told in OpenAI's shape."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        param: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = {"Retry-After": str(retry_after)} if retry_after is not None else {}
        if status == 401:
            self.headers["WWW-Authenticate"] = "Bearer"
        self.body = ErrorBody(message=message, type=error_type(status), param=param, code=code)


def error_type(status: int) -> str:
    """Return OpenAI's word for a kind of error."""
    if status == 429:
        return "rate_limit_error"
    if status in (401, 403):
        return "authentication_error"
    return "server_error" if status >= 500 else "invalid_request_error"


# A server without a token takes any key.
BEARER = HTTPBearer(auto_error=False, description="The server's token, where it has one: CAMELBELL_TOKEN.")
ERRORS = {
    400: "The request has a mistake; `param` names it.",
    401: "The token is missing or wrong.",
    403: "The server is not called by that name.",
    404: "There is no such character, story time or address.",
    408: "The body came too slowly.",
    413: "The body is too long.",
}


def documented(*tables: dict[int, str]) -> dict[int | str, dict[str, Any]]:
    """Return statuses with their errors as the OpenAPI document wants them."""
    return {status: {"model": ErrorReply, "description": text} for table in tables for status, text in table.items()}


def to_json(value: Any) -> bytes:
    """Return UTF-8 JSON of any text, also of one with half a surrogate pair."""
    import json

    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8", "replace")


def sse(value: Any) -> str:
    """Return a server-sent event that holds JSON."""
    return f"data: {to_json(value).decode('utf-8')}\n\n"
