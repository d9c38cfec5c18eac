"""One reply on its way: a worker thread makes it, the event loop hands it on as it grows."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from threading import Event
from time import monotonic
from typing import TYPE_CHECKING

from camelbell_core.errors import CamelBellError
from camelbell_core.prompts import Prompt
from camelbell_core.roles import LanguageModel
from camelbell_core.text import bigrams
from camelbell_plugins.frontend_serve.speakers import used
from camelbell_plugins.frontend_serve.stops import StopCutter
from camelbell_plugins.frontend_serve.wire import Extension, FinishReason, HeldBack, Refusal, Usage

if TYPE_CHECKING:
    from camelbell_core.session import Session

log = logging.getLogger("camelbell.serve")
_BEAT = 10.0  # seconds after which a client that waits hears that it is not forgotten


@dataclass(frozen=True, slots=True)
class Ending:
    """What is known once a reply is whole; ``waited``, ``first`` and ``took`` are in seconds."""

    finish: FinishReason
    usage: Usage
    extension: Extension
    waited: float
    first: float
    took: float


class Listener(LanguageModel):
    """A model that stops when nobody listens any more: a session's own stop holds for a reply that has begun only."""

    def __init__(self, model: LanguageModel, gone: Event) -> None:
        self.name, self.adapter = model.name, model.adapter
        self._model, self._gone = model, gone

    def stream(
        self, prompt: Prompt, max_tokens: int, temperature: float = 0.0, stop: Callable[[], bool] | None = None
    ) -> Iterator[str]:
        """Yield the model's pieces."""
        if self._gone.is_set():
            return
        ended = self._gone.is_set if stop is None else lambda: self._gone.is_set() or stop()
        yield from self._model.stream(prompt, max_tokens, temperature, ended)


class Reply:
    """The reply of a session to a question; ``ended`` is called in the worker with what came of it."""

    def __init__(
        self,
        session: Session,
        question: str,
        stops: Sequence[str] = (),
        ignored: Sequence[str] = (),
        ended: Callable[[Ending | None], None] = lambda ending: None,
    ) -> None:
        self.session, self.question = session, question
        self.ending: Ending | None = None
        self._ignored = list(ignored)
        self._ended = ended
        self._cutter = StopCutter(stops)
        self._gone = Event()
        self._model = session.model
        session.model = Listener(session.model, self._gone)
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[str | Ending | Refusal] = asyncio.Queue()
        self._entered = monotonic()

    @property
    def gone(self) -> bool:
        """Tell whether nobody listens any more."""
        return self._gone.is_set()

    def leave(self, refusal: Refusal | None = None) -> None:
        """Say that nobody listens any more, or tell who does why there is no more: what is being made stops."""
        self._gone.set()
        self.session.stop()
        if refusal:
            self._tell(refusal)

    async def pieces(self) -> AsyncIterator[str]:
        """Yield the pieces as they come, an empty one now and then while there is none; raise ``Refusal`` if it fails."""
        while True:
            try:
                event = await asyncio.wait_for(self._events.get(), _BEAT)
            except TimeoutError:
                yield ""
                continue
            if isinstance(event, Refusal):
                raise event
            if isinstance(event, Ending):
                self.ending = event
                return
            yield event

    def work(self) -> None:
        """Make the reply, in a worker thread; whatever happens is told to the one who listens."""
        if self._gone.is_set():
            return
        ending = None
        try:
            ending = self._make()
            self._tell(ending)
        except CamelBellError as error:
            self._tell(Refusal(503, f"{error.message}; {error.hint}" if error.hint else error.message, "model_failed"))
        except Exception:
            log.exception("a reply of %s failed", self.session.character.name)
            self._tell(Refusal(500, "the reply failed; the server's log says why", "internal_error"))
        finally:
            self._ended(ending)

    def _make(self) -> Ending:
        start = monotonic()
        first, shown = 0.0, ""
        pieces = self.session.reply(self.question)
        for piece in pieces:
            if self._gone.is_set():
                break
            first = first or monotonic() - self._entered
            if text := self._cutter.feed(piece):
                shown += text
                self._tell(text)
            if self._cutter.found:
                break
        if self._gone.is_set() or self._cutter.found:
            self.session.stop()
            pieces.close()  # type: ignore[attr-defined]
        if rest := self._cutter.rest():
            shown += rest
            self._tell(rest)
        return self._ending_of(shown, start - self._entered, first, monotonic() - start)

    def _ending_of(self, shown: str, waited: float, first: float, took: float) -> Ending:
        session = self.session
        turn, most = session.turns[-1], session.settings.max_tokens
        cut = self._cutter.found
        if turn.composed or cut or not turn.tries:
            said = count_tokens(self._model, shown.strip())
        else:  # all that was generated: a text without its first blank may be more tokens than with it
            said = min(most, count_tokens(self._model, turn.tries[-1].said))
        full = said >= most and not turn.composed and not cut
        read = count_prompt(self._model, turn.prompt, most)
        extension = Extension(
            language=turn.language,
            story_time=str(session.settings.at) if session.settings.at else None,
            facts=[used(fact, turn.language) for fact in turn.facts],
            composed=turn.composed,
            held_back=[HeldBack(filter=verdict.filter, reason=verdict.reason) for verdict in turn.verdicts],
            ignored=self._ignored,
        )
        usage = Usage(prompt_tokens=read, completion_tokens=said, total_tokens=read + said)
        return Ending("length" if full else "stop", usage, extension, waited, first, took)

    def _tell(self, event: str | Ending | Refusal) -> None:
        with suppress(RuntimeError):  # the loop has ended: nobody listens
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)


def count_tokens(model: LanguageModel, text: str) -> int:
    """Return how many tokens a text has; of a model whose tokenizer is elsewhere, words and pairs of characters."""
    counts = hasattr(model, "layout") or type(model).count is not LanguageModel.count
    return model.count(text) if counts else len(bigrams(text))


def count_prompt(model: LanguageModel, prompt: Prompt | None, most: int) -> int:
    """Return how many tokens a prompt has, as it was cut for a reply of ``most`` tokens."""
    if prompt is None:
        return 0
    layout, window = getattr(model, "layout", None), getattr(model, "window", None)
    if layout is None:
        texts = (prompt.persona, *prompt.facts, *(message.content for message in prompt.history), prompt.question)
        return sum(len(bigrams(text)) for text in texts)
    return len(layout.fit(prompt, window - most) if window else layout.prefix(prompt))
