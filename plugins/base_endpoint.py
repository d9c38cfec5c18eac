"""The base ``endpoint``: any service that speaks OpenAI's chat API speaks as the character."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, ClassVar
from urllib.parse import urlsplit

from camelbell_core import hookimpl
from camelbell_core.errors import CamelBellError
from camelbell_core.prompts import Prompt, as_messages
from camelbell_core.roles import BaseModel, LanguageModel, TrainableBase
from camelbell_core.text import CJK, printable

_NAME = re.compile(r"endpoint:(?P<model>.+?)(?:@(?P<url>https?://[^#\s]+))?(?:#(?P<key>[A-Za-z_][A-Za-z0-9_]*))?")
_TIMEOUT = 60.0  # seconds without a word from the service
_LOOK = 0.05  # seconds between two looks at whether the reply is still wanted
_TOP_P = 0.9


@dataclass(kw_only=True)
class EndpointBase(BaseModel):
    """`endpoint:MODEL@URL#KEY`: a service with OpenAI's chat API at URL, its key in the environment variable KEY.

    Without URL it is the service that ``OPENAI_BASE_URL`` names, or OpenAI's own, with ``OPENAI_API_KEY``. A service
    with a URL of its own is sent no key unless one is named.
    """

    name: ClassVar[str] = "endpoint"
    trainable: ClassVar[bool] = False

    def accepts(self, base: str) -> bool:
        """Tell whether the name begins with ``endpoint:``."""
        return base.startswith("endpoint:")

    def load(self, base: str, adapter: Path | None = None) -> LanguageModel:
        """Return the service's model; nothing is asked of it yet."""
        match = _NAME.fullmatch(base)
        if not match or not _is_web_address(match["url"] or "http://127.0.0.1/v1"):
            raise CamelBellError(
                f"{base!r} names no model of a service",
                "write endpoint:MODEL@http://127.0.0.1:8080/v1, or endpoint:MODEL",
            )
        if adapter is not None:
            raise CamelBellError(f"a service takes no adapter, such as {str(adapter)!r}", "leave it out: --no-adapter")
        return EndpointModel(
            match["model"], match["url"] or "", match["key"] or ("" if match["url"] else "OPENAI_API_KEY")
        )

    def load_trainable(self, base: str) -> TrainableBase:
        """Refuse: a service is only talked with."""
        raise CamelBellError(
            f"{base!r} is a service and cannot be trained", "train a base of your own: --base embedded"
        )


class EndpointModel(LanguageModel):
    """A model behind OpenAI's chat API: persona and facts stand in the system message, the history in turns."""

    parallel = 16
    top_p: float = _TOP_P
    seed: int | None = None

    def __init__(self, model: str, url: str, key_env: str) -> None:
        self.name = model
        self._key_env = key_env
        self._place = url or os.environ.get("OPENAI_BASE_URL", "").strip() or "the OpenAI service"
        import openai

        self._client = openai.OpenAI(
            api_key=_key(key_env, needed=not url), base_url=url or None, timeout=_TIMEOUT, max_retries=2
        )

    def count(self, text: str) -> int:
        """Return about how many tokens a text is: the service's tokenizer is not known here."""
        chinese = len(CJK.findall(text))
        return chinese + -(-(len(text) - chinese) // 4)

    def stream(
        self, prompt: Prompt, max_tokens: int, temperature: float = 0.0, stop: Callable[[], bool] | None = None
    ) -> Iterator[str]:
        """Yield the reply in the pieces that the service sends; what fails is told in one line."""
        body: dict[str, Any] = {
            "model": self.name,
            "messages": [{"role": m.role, "content": m.content} for m in as_messages(prompt)],
            "max_tokens": max_tokens,
            "temperature": temperature,
            **({"top_p": self.top_p} if temperature > 0 else {}),
            **({"seed": self.seed} if self.seed is not None else {}),
        }
        pieces: SimpleQueue[str | BaseException | None] = SimpleQueue()
        left = False

        def work() -> None:
            try:
                for piece in self._pieces(body):
                    if left:
                        return
                    pieces.put(piece)
            except BaseException as error:
                pieces.put(error)
            pieces.put(None)

        # Whoever stops does not wait for a service that says nothing: the thread ends with its time-out.
        Thread(target=work, daemon=True).start()
        try:
            while stop is None or not stop():
                try:
                    piece = pieces.get(timeout=_LOOK)
                except Empty:
                    continue
                if piece is None:
                    return
                if isinstance(piece, BaseException):
                    raise self._explain(piece) from piece
                if piece:
                    yield piece
        finally:
            left = True

    def _pieces(self, body: dict[str, Any]) -> Iterator[str]:
        import openai

        try:
            answer = self._client.chat.completions.create(**body, stream=True)
        except openai.BadRequestError as error:
            if "max_completion_tokens" not in str(error):  # OpenAI's newer models know the bound by this name only
                raise
            body = {**body, "max_completion_tokens": body["max_tokens"]}
            del body["max_tokens"]
            answer = self._client.chat.completions.create(**body, stream=True)
        with answer:
            if "text/event-stream" not in answer.response.headers.get("content-type", ""):
                yield self._whole(answer.response.read())
                return
            for chunk in answer:
                try:
                    yield (chunk.choices[0].delta.content or "") if chunk.choices else ""
                except (AttributeError, TypeError, IndexError) as error:
                    raise self._speaks_otherwise() from error

    def _whole(self, data: bytes) -> str:
        """Return the reply of a service that does not stream."""
        try:
            return str(json.loads(data)["choices"][0]["message"]["content"] or "")
        except (ValueError, LookupError, TypeError) as error:
            raise self._speaks_otherwise() from error

    def _speaks_otherwise(self) -> CamelBellError:
        return CamelBellError(
            f"{self._place} does not answer as OpenAI's chat API does", "check the address: it often ends in /v1"
        )

    def _explain(self, error: BaseException) -> BaseException:
        """Return one line and what to do for the failures that a person can mend."""
        import openai

        place = self._place
        if isinstance(error, json.JSONDecodeError | UnicodeDecodeError):
            return self._speaks_otherwise()
        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            mend = (
                f"check the key in {self._key_env}" if self._key_env else "name the key's variable: endpoint:...#MY_KEY"
            )
            return CamelBellError(f"{place} refuses the key (HTTP {error.status_code})", mend)
        if isinstance(error, openai.APITimeoutError):
            return CamelBellError(f"{place} did not answer in {_TIMEOUT:g} s", "ask again")
        if isinstance(error, openai.APIConnectionError):
            return CamelBellError(
                f"no connection to {place}: {_line(error.__cause__ or error)}", "check the address and the network"
            )
        if isinstance(error, openai.NotFoundError):
            return CamelBellError(
                f"{place} has no model {self.name!r} (HTTP 404)", "check the model's name and the address"
            )
        if isinstance(error, openai.APIStatusError):
            return CamelBellError(f"{place} answers HTTP {error.status_code}: {_line(error.message)}", "ask again")
        if isinstance(error, openai.OpenAIError):
            return CamelBellError(f"{place}: {_line(error)}", "check the address: it must speak OpenAI's chat API")
        if type(error).__module__.partition(".")[0] in ("httpx", "httpcore", "httpx2", "httpcore2"):
            return CamelBellError(
                f"the connection to {place} broke: {_line(error) or type(error).__name__}", "ask again"
            )
        return error


def _key(key_env: str, needed: bool) -> str:
    """Return the key; it stands in no message, whatever is wrong with it."""
    key = os.environ.get(key_env, "").strip() if key_env else ""
    if key_env and not key and (needed or key_env != "OPENAI_API_KEY"):
        raise CamelBellError(
            f"the service needs a key, and the environment variable {key_env} is not set",
            f"set it: export {key_env}=..., or name a service that needs none: endpoint:MODEL@http://127.0.0.1:8080/v1",
        )
    if any(not "!" <= char <= "~" for char in key):
        raise CamelBellError(f"the key in {key_env} holds a blank or a letter that no key has", "copy the key again")
    return key or "none"


def _is_web_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:  # the port is no number, or too big
        return False


def _line(error: object) -> str:
    """Return what a service says as one line that is safe to show."""
    return printable(" ".join(str(error).split()))[:200]


@hookimpl
def register_base_models() -> list[type[BaseModel]]:
    """Offer services with OpenAI's chat API."""
    return [EndpointBase]
