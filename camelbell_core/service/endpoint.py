"""The options of a part that asks an OpenAI-compatible service, and its requests."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from camelbell_core.errors import CamelBellError
from camelbell_core.records import Message, canonical_json
from camelbell_core.text import CJK

if TYPE_CHECKING:
    from camelbell_core.service.ledger import Ledger, Spent
    from camelbell_core.service.replies import Reply

OPENAI = "https://api.openai.com/v1"
_MANY = 1000  # requests of unknown price to a service elsewhere, above which a person is asked first


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent: the body of a chat completion; ``context`` comes back with the reply."""

    key: str  # the hash of everything that is sent, and where to
    body: dict[str, Any]
    context: Any = None

    @property
    def tokens_in(self) -> int:
        """About how many tokens the prompt has: one a Chinese character, one for 3.5 other characters."""
        return sum(count_tokens(message["content"]) + 4 for message in self.body["messages"])


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run would take at most: requests that are not in the ledger, tokens, and money where prices are known.

    ``ask`` tells that it is so much that a person should be asked first.
    """

    requests: int
    tokens_in: int
    tokens_out: int
    cost: float | None
    ask: bool = False


@dataclass(kw_only=True)
class Endpoint:
    """An OpenAI-compatible service, and how much may be asked of it.

    ``key_env`` names the environment variable that holds the key; a service at ``base_url`` that needs none gets the
    word "none". Up to ``concurrency`` requests are under way, fewer while the service is too busy. 5xx, time-outs
    and replies of a wrong form are tried again ``retries`` times; while the service says that it is busy a request waits, until
    it has refused everything for ``patience`` seconds. ``extra`` is added to the body of each request. ``price_in`` and
    ``price_out`` are for a million tokens; ``budget`` and ``token_limit`` bound what a workspace spends in all; where
    a run may cost more than ``ask_above``, a person at a terminal is asked first.
    ``mode: batch`` sends files of requests to the service's batch interface, to be collected every ``poll`` seconds.
    """

    model: str = "gpt-4o-mini"
    base_url: str = ""
    key_env: str = "OPENAI_API_KEY"
    mode: Literal["now", "batch"] = "now"
    concurrency: int = 16
    temperature: float = 0.7
    max_tokens: int = 300
    retries: int = 6
    timeout: float = 60.0
    patience: float = 300.0
    poll: float = 60.0
    extra: dict[str, Any] = field(default_factory=dict)
    price_in: float | None = None
    price_out: float | None = None
    budget: float | None = None
    token_limit: int | None = None
    ask_above: float = 1.0

    def __post_init__(self) -> None:
        name = getattr(self, "name", "service")
        for option, least in (("concurrency", 1), ("max_tokens", 1), ("retries", 0)):
            if getattr(self, option) < least:
                raise CamelBellError(f"{name}: {option} is {getattr(self, option)}, at least {least} is needed")
        if self.base_url and not _is_web_address(self.base_url):
            raise CamelBellError(
                f"{name}: base_url {self.base_url!r} is no web address; one looks like http://127.0.0.1:8000/v1"
            )
        if self.budget is not None and (self.price_in is None or self.price_out is None):
            raise CamelBellError(
                f"{name}: a budget needs prices", "set price_in and price_out, for a million tokens, in character.yaml"
            )

    @property
    def place(self) -> str:
        """The service as it is named to people."""
        return self.base_url or "the OpenAI service"

    @property
    def url(self) -> str:
        """The address that paths such as /chat/completions are added to."""
        return (self.base_url or os.environ.get("OPENAI_BASE_URL", "").strip() or OPENAI).rstrip("/")

    def key(self) -> str:
        """Return the key; it stands in no message, whatever is wrong with it."""
        key = os.environ.get(self.key_env, "").strip()
        if not key and not self.base_url:
            raise CamelBellError(
                f"the teacher needs a key, and the environment variable {self.key_env} is not set",
                f"set it: export {self.key_env}=..., or name a service of your own with base_url",
            )
        if any(not "!" <= char <= "~" for char in key):
            raise CamelBellError(
                f"the key in {self.key_env} holds a blank or a letter that no key has", "copy the key again"
            )
        return key or "none"

    def request(self, messages: Sequence[Message], context: Any = None, **more: Any) -> Request:
        """Return the request for a reply to the messages; ``more`` changes fields of the body."""
        from hashlib import sha256

        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": message.role, "content": message.content} for message in messages],
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            **self.extra,
            **more,
        }
        body = {name: value for name, value in body.items() if value is not None}  # null leaves a field out
        return Request(
            sha256(canonical_json([self.url, body]).encode("utf-8", "surrogatepass")).hexdigest(), body, context
        )

    def ledger(self, folder: Path | None) -> Ledger:
        """Open the replies that came so far; without a folder they last as long as the run."""
        from camelbell_core.service.ledger import Ledger

        return Ledger(folder / "replies.sqlite" if folder else None)

    def spending(self, ledger: Ledger) -> str:
        """Return what was spent, in a few words."""
        spent = ledger.spent
        tokens = f"{(spent.tokens_in + spent.tokens_out) / 1000:,.0f}k tokens"
        if self.price_in is None or self.price_out is None:
            return tokens
        return f"{tokens}, {spent.cost:.2f}" + (f" of {self.budget:.2f}" if self.budget is not None else "")

    def ask_all(
        self, requests: Iterable[Request], ledger: Ledger, folder: Path | None = None
    ) -> Generator[tuple[Request, Reply], None, None]:
        """Yield each request with its reply, as soon as that is there; what the ledger holds is not asked again.

        A request that cannot be answered does not stop the others; it is told at the end, as an error.
        """
        if self.mode == "batch":
            from camelbell_core.service.batch import collect

            if folder is None:
                raise CamelBellError("mode: batch needs a workspace to remember what was sent")
            return collect(self, requests, ledger, folder)
        from camelbell_core.service.asker import Asker

        return Asker(self, ledger).replies(requests)

    def cost(self, tokens_in: int, tokens_out: int) -> float:
        """Return what so many tokens cost, 0 without prices; a batch costs half."""
        full = (tokens_in * (self.price_in or 0.0) + tokens_out * (self.price_out or 0.0)) / 1e6
        return full / 2 if self.mode == "batch" else full

    def refusal(self, spent: Spent, tokens_in: int, tokens_out: int) -> str:
        """Return why so many tokens more must not be spent, "" if they may."""
        if (
            self.token_limit is not None
            and spent.tokens_in + spent.tokens_out + tokens_in + tokens_out > self.token_limit
        ):
            return (
                f"the limit of {self.token_limit:,} tokens is reached: {spent.tokens_in + spent.tokens_out:,} are used"
            )
        if self.budget is not None and spent.cost + self.cost(tokens_in, tokens_out) > self.budget:
            return f"the budget of {self.budget:.2f} is reached: {spent.cost:.2f} is spent"
        return ""

    def estimated(self, requests: Sequence[Request], ledger: Ledger, total: int) -> Estimate:
        """Return what ``total`` requests would take, judged by a sample of them."""
        new = [request for request in requests if ledger.get(request.key) is None]
        count = round(total * len(new) / max(1, len(requests)))
        spent = ledger.spent
        longest = (
            self.max_tokens if not spent.tokens_out else min(self.max_tokens, -(-spent.tokens_out // spent.requests))
        )
        tokens_in = round(count * sum(request.tokens_in for request in new) / max(1, len(new)))
        tokens_out = count * longest
        known = self.price_in is not None and self.price_out is not None
        cost = self.cost(tokens_in, tokens_out) if known else None
        ask = cost > self.ask_above if cost is not None else count > _MANY and not self._is_local
        return Estimate(count, tokens_in, tokens_out, cost, ask)

    @property
    def _is_local(self) -> bool:
        return urlsplit(self.url).hostname in ("127.0.0.1", "::1", "localhost")


def count_tokens(text: str) -> int:
    """Return about how many tokens a text has, rather too many than too few."""
    chinese = len(CJK.findall(text))
    return chinese + -(-(len(text) - chinese) * 2 // 7)


def told(estimate: Estimate) -> str:
    """Return an estimate in words."""
    money = "" if estimate.cost is None else f", about {estimate.cost:.2f} in money"
    return (
        f"{estimate.requests:,} requests, about {estimate.tokens_in:,} tokens in and {estimate.tokens_out:,} out{money}"
    )


def _is_web_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # the port is no number, or too big
        return False
