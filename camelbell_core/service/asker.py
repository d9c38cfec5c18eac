"""Many requests at once to a service: each is sent until it is answered, and waits without holding a place."""

from __future__ import annotations

import asyncio
import heapq
import json
import os
import random
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from math import ceil
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from camelbell_core.errors import CamelBellError
from camelbell_core.service.endpoint import Endpoint, Request, count_tokens
from camelbell_core.service.ledger import Ledger
from camelbell_core.service.pace import Pace
from camelbell_core.service.replies import Reply, Trouble, one_line, read_reply, speaks_otherwise

if TYPE_CHECKING:
    from aiohttp import ClientSession

_DONE = object()
_IN_A_ROW = 8  # requests that fail for good, one after another, before the run stops
_MOST_BYTES = 16 * 2**20  # of a reply
_LONGEST_WAIT = 30.0  # seconds between two tries where the service names no time


@dataclass(eq=False)
class _Try:
    request: Request
    failures: int = 0
    refusals: int = 0
    reserved: tuple[int, int] = (0, 0)
    twins: list[Request] = field(default_factory=list)  # the same request, asked for again while this one is under way


class Asker:
    """Sends requests to an endpoint in a thread of its own, and gives the replies as they come."""

    def __init__(self, endpoint: Endpoint, ledger: Ledger) -> None:
        self.endpoint = endpoint
        self.ledger = ledger
        self.pace = Pace(endpoint.concurrency)
        self.tried_again = 0
        self._key = endpoint.key()
        self._results: SimpleQueue[Any] = SimpleQueue()
        self._running: set[asyncio.Task[None]] = set()
        self._waiting: list[tuple[float, int, _Try]] = []  # a heap by the time of the next try
        self._under_way: dict[str, _Try] = {}
        self._reserved = [0, 0]  # tokens in and out that requests under way may take
        self._guessed = self._counted = (
            1  # tokens of the prompts that were answered, as we guess and as the service counts
        )
        self._numbers = count()
        self._refused_since: float | None = None  # nothing came since then
        self._failed: list[Trouble] = []
        self._failed_in_a_row = 0
        self._stop: Trouble | None = None
        self._left = False

    def replies(self, requests: Iterable[Request]) -> Generator[tuple[Request, Reply], None, None]:
        """Yield each request with its reply as soon as it has come; raise at the end if some have none."""
        todo = iter(requests)
        thread = Thread(target=self._run, args=(todo,), daemon=True)
        thread.start()
        error: BaseException | None = None
        try:
            while (result := self._results.get()) is not _DONE:
                if isinstance(result, BaseException):
                    error = error or result
                else:
                    yield result
        finally:
            self._left = True  # whoever leaves early does not wait for requests under way
            self._wake_from_outside()
            thread.join(5)
        if error is not None:
            raise error
        self._tell_failures()

    def _tell_failures(self) -> None:
        trouble = self._stop or (self._failed[0] if self._failed else None)
        if trouble is None:
            return
        more = len(self._failed) - 1
        others = f"; {more} more requests failed" if more > 0 and self._stop is None else ""
        raise CamelBellError(trouble.message + others, trouble.hint)

    # --- in the thread ------------------------------------------------------------------------------

    def _run(self, todo: Iterator[Request]) -> None:
        try:
            asyncio.run(self._ask_all(todo))
        except BaseException as error:
            self._results.put(error)
        self._results.put(_DONE)

    def _wake_from_outside(self) -> None:
        loop = getattr(self, "_loop", None)
        if loop is not None and not loop.is_closed():
            try:
                loop.call_soon_threadsafe(self._wake.set)
            except RuntimeError:
                return  # it was closed just now

    async def _ask_all(self, todo: Iterator[Request]) -> None:
        import aiohttp

        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        headers = {
            "Authorization": f"Bearer {self._key}",
            "Content-Type": "application/json",
            "Accept": "application/json",
        }
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=self.endpoint.timeout),
            headers=headers,
            proxy=_proxy_for(self.endpoint.url),
        ) as session:
            try:
                await self._dispatch(session, todo)
            finally:
                for task in self._running:
                    task.cancel()
                await asyncio.gather(*self._running, return_exceptions=True)

    async def _dispatch(self, session: ClientSession, todo: Iterator[Request]) -> None:
        """Start tries while there are places; return when all is answered or nothing more may be asked."""
        more = True
        while not self._left:
            self._wake.clear()
            now = self._loop.time()
            while self._stop is None and len(self._running) < self.pace.allowed(now) and not self._left:
                one = self._next_due(now)
                if one is None and more:
                    request = next(todo, None)
                    more = request is not None
                    one = self._first_try(request) if request is not None else None
                    if one is None and more:
                        await asyncio.sleep(0)  # the ledger had it; let the replies in
                        continue
                if one is None:
                    break
                self._start(session, one)
                await asyncio.sleep(0)  # building requests takes time; let the replies in
                now = self._loop.time()
            if not self._running and (self._stop is not None or not (more or self._waiting)):
                return
            await self._sleep(now)

    async def _sleep(self, now: float) -> None:
        """Wait until a reply comes, a try is due, or the pause is over."""
        times = [self.pace.paused_until] if self.pace.paused_until else []
        times += [self._waiting[0][0]] if self._waiting and not times and self._stop is None else []
        timer = self._loop.call_at(max(times), self._wake.set) if times else None
        await self._wake.wait()
        if timer is not None:
            timer.cancel()

    def _next_due(self, now: float) -> _Try | None:
        if self._waiting and self._waiting[0][0] <= now:
            return heapq.heappop(self._waiting)[2]
        return None

    def _first_try(self, request: Request) -> _Try | None:
        """Return the first try of a request; None if the ledger has its reply, it is under way, or too dear."""
        twin = self._under_way.get(request.key)
        if twin is not None:
            twin.twins.append(request)
            return None
        reply = self.ledger.get(request.key)
        if reply is not None:
            self._results.put((request, reply))
            return None
        reserved = (request.tokens_in, int(request.body.get("max_tokens") or self.endpoint.max_tokens))
        tokens_in = ceil((self._reserved[0] + reserved[0]) * max(1.0, self._counted / self._guessed))
        why = self.endpoint.refusal(self.ledger.spent, tokens_in, self._reserved[1] + reserved[1])
        if why:
            self._stop = Trouble("stop", why, "raise it, then run the same command to go on")
            return None
        one = self._under_way[request.key] = _Try(request, reserved=reserved)
        self._reserved = [self._reserved[0] + reserved[0], self._reserved[1] + reserved[1]]
        return one

    def _start(self, session: ClientSession, one: _Try) -> None:
        task = self._loop.create_task(self._try(session, one))
        self._running.add(task)

        def over(done: asyncio.Task[None]) -> None:
            self._running.discard(done)
            if not done.cancelled() and (error := done.exception()) is not None:
                self._results.put(error)
                self._stop = self._stop or Trouble("stop", str(error))
            self._wake.set()

        task.add_done_callback(over)

    async def _try(self, session: ClientSession, one: _Try) -> None:
        sent = self._loop.time()
        outcome = await self._send(session, one.request)
        if isinstance(outcome, Reply):
            self._answered(one, outcome, sent)
            return
        # Some services say in an error what key they were sent.
        message = outcome.message.replace(self._key, "[the key]") if self._key != "none" else outcome.message
        self._troubled(one, replace(outcome, message=message), sent)

    async def _send(self, session: ClientSession, request: Request) -> Reply | Trouble:
        import aiohttp

        endpoint = self.endpoint
        try:
            async with session.post(
                f"{endpoint.url}/chat/completions",
                data=json.dumps(request.body, ensure_ascii=False).encode("utf-8", "replace"),
            ) as response:
                raw = await _read(response.content)
                headers = {name.lower(): value for name, value in response.headers.items()}
                return read_reply(endpoint.place, endpoint.model, endpoint.key_env, response.status, headers, raw)
        except TimeoutError:
            return Trouble("again", f"{endpoint.place} did not answer in {endpoint.timeout:g} s")
        except aiohttp.ClientConnectorError as error:
            code = error.os_error.errno
            why = one_line(os.strerror(code) if code else error.os_error)
            return Trouble("busy", f"no connection to {endpoint.place}: {why}", "check base_url and the network")
        except aiohttp.ServerDisconnectedError:
            return Trouble("again", f"{endpoint.place} closed the connection", "check base_url and the network")
        except (aiohttp.ClientPayloadError, aiohttp.http_exceptions.HttpProcessingError):
            return Trouble("again", f"{endpoint.place} cut its answer short", "run the same command to go on")
        except aiohttp.ClientResponseError:
            return speaks_otherwise(endpoint.place)
        except (aiohttp.ClientError, OSError) as error:
            return Trouble(
                "again", f"no connection to {endpoint.place}: {one_line(error)}", "check base_url and the network"
            )

    def _answered(self, one: _Try, reply: Reply, sent: float) -> None:
        self.pace.succeeded(sent)
        self._refused_since = None
        self._failed_in_a_row = 0
        self._guessed += one.request.tokens_in
        self._counted += reply.tokens_in or one.request.tokens_in
        # For a service that does not count tokens we do.
        reply = replace(
            reply,
            tokens_in=reply.tokens_in or one.request.tokens_in,
            tokens_out=reply.tokens_out or count_tokens(reply.text),
        )
        self.ledger.put(one.request.key, reply, self.endpoint.cost(reply.tokens_in, reply.tokens_out))
        self._forget(one)
        for request in (one.request, *one.twins):
            self._results.put((request, reply))

    def _troubled(self, one: _Try, trouble: Trouble, sent: float) -> None:
        now = self._loop.time()
        if trouble.kind == "busy":
            wait = trouble.wait or _back_off(one.refusals)
            self.pace.refused(sent, now, wait)
            self._refused_since = now if self._refused_since is None else self._refused_since
            one.refusals += 1
            if wait > self.endpoint.patience:
                trouble = Trouble(
                    "stop", f"{trouble.message}; it asks to wait {wait:,.0f} s", "run the same command then"
                )
            elif now + wait - self._refused_since > self.endpoint.patience:
                since = f"{trouble.message}; all was refused for {now - self._refused_since:.0f} s"
                trouble = Trouble("stop", since, trouble.hint)
            elif self.endpoint.retries:
                return self._again_in(one, wait)
        elif trouble.kind == "again":
            self.pace.failed(sent, now)
            one.failures += 1
            if one.failures <= self.endpoint.retries:
                return self._again_in(one, trouble.wait or _back_off(one.failures - 1))
        self._forget(one)
        if trouble.kind == "stop":
            self._stop = self._stop or trouble
            return
        self._failed.append(trouble)
        self._failed_in_a_row += 1
        if self._failed_in_a_row >= _IN_A_ROW:
            self._stop = self._stop or trouble

    def _again_in(self, one: _Try, seconds: float) -> None:
        self.tried_again += 1
        heapq.heappush(self._waiting, (self._loop.time() + seconds, next(self._numbers), one))

    def _forget(self, one: _Try) -> None:
        self._under_way.pop(one.request.key, None)
        self._reserved = [self._reserved[0] - one.reserved[0], self._reserved[1] - one.reserved[1]]


def _proxy_for(url: str) -> str | None:
    """Return the proxy that the environment names for an address (aiohttp would look for it at each request)."""
    parts = urlsplit(url)
    if proxy_bypass(parts.netloc):
        return None
    proxies = getproxies()
    return proxies.get(parts.scheme) or proxies.get("all")


async def _read(content: Any) -> bytes:
    """Return a body, up to the most that is read of one."""
    parts, size = [], 0
    async for part in content.iter_any():
        parts.append(part)
        size += len(part)
        if size > _MOST_BYTES:
            break
    return b"".join(parts)


def _back_off(tries: int) -> float:
    """Return how long to wait before the next try: twice as long each time, with some chance in it."""
    return float(min(_LONGEST_WAIT, 0.5 * 2**tries) * random.uniform(0.75, 1.0))
