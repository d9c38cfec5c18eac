"""The ``openai`` answer teacher: any OpenAI-compatible service, many requests at once."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

from camelbell_core import hookimpl
from camelbell_core.errors import CamelBellError
from camelbell_core.prompts import as_messages, build_prompt
from camelbell_core.records import Pair, Question
from camelbell_core.roles import AnswerTeacher, TeacherTools
from camelbell_core.text import printable

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_DONE = object()


@dataclass(kw_only=True)
class OpenAITeacher(AnswerTeacher):
    """Asks a service that speaks OpenAI's chat API, with the facts of the canon in the prompt.

    ``key_env`` names the environment variable that holds the key; a service at ``base_url`` that
    needs none gets the word "none". The service's 429 and 5xx are tried again ``retries`` times.
    """

    name: ClassVar[str] = "openai"
    model: str = "gpt-4o-mini"
    base_url: str = ""
    key_env: str = "OPENAI_API_KEY"
    concurrency: int = 16
    temperature: float = 0.7
    max_tokens: int = 300
    retries: int = 6
    timeout: float = 60.0

    def __post_init__(self) -> None:
        if self.concurrency < 1:
            raise CamelBellError(f"openai: concurrency is {self.concurrency}, at least 1 is needed")
        if self.base_url and not _is_web_address(self.base_url):
            raise CamelBellError(
                f"openai: base_url {self.base_url!r} is no web address; one looks like http://127.0.0.1:8000/v1"
            )

    def answer(self, questions: Iterable[Question], tools: TeacherTools) -> Iterator[Pair]:
        """Yield each pair as soon as its answer has come."""
        import asyncio  # late: the help loads this module, too

        key = self._key()
        results: SimpleQueue[Any] = SimpleQueue()
        stop = Event()
        todo = iter(list(questions))

        def work() -> None:
            try:
                asyncio.run(self._answer_all(todo, tools, key, results, stop))
            except BaseException as error:
                results.put(error)
            results.put(_DONE)

        thread = Thread(target=work, daemon=True)
        thread.start()
        failure: BaseException | None = None
        try:
            while (result := results.get()) is not _DONE:
                if isinstance(result, Pair):
                    yield result
                else:
                    failure = failure or result
        finally:
            stop.set()  # whoever leaves early does not wait for requests under way
        thread.join()
        if failure is not None:
            raise self._explain(failure) from failure

    def _key(self) -> str:
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

    async def _answer_all(
        self, todo: Iterator[Question], tools: TeacherTools, key: str, results: SimpleQueue[Any], stop: Event
    ) -> None:
        import asyncio

        from openai import AsyncOpenAI

        async with AsyncOpenAI(
            api_key=key, base_url=self.base_url or None, max_retries=self.retries, timeout=self.timeout
        ) as client:

            async def worker() -> None:
                for question in todo:
                    if stop.is_set():
                        return
                    try:
                        results.put(await self._answer_one(client, question, tools))
                    except BaseException:
                        stop.set()  # the others finish what they have begun
                        raise

            outcomes = await asyncio.gather(*(worker() for _ in range(self.concurrency)), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    async def _answer_one(self, client: AsyncOpenAI, question: Question, tools: TeacherTools) -> Pair:
        count = tools.character.config.facts
        facts = [tools.character.canon.facts[f] for f in question.facts if f in tools.character.canon.facts]
        recalled = (recall.fact for recall in tools.memory.recall(question.text, count)) if count else ()
        facts = [*facts, *(fact for fact in recalled if fact not in facts)][: max(count, len(facts))]
        prompt = build_prompt(tools.persona(question.language), question.language, question.text, facts)
        messages: Any = [{"role": m.role, "content": m.content} for m in as_messages(prompt)]
        reply = await client.chat.completions.create(
            model=self.model, messages=messages, temperature=self.temperature, max_tokens=self.max_tokens
        )
        return question.answered(self._text(reply), (fact.id for fact in facts), self.name, self.model)

    def _text(self, reply: Any) -> str:
        """Return the answer in a reply; one of another shape, such as a web page, is an error."""
        try:
            return (reply.choices[0].message.content or "").strip() if reply.choices != [] else ""
        except (AttributeError, TypeError) as error:
            raise self._speaks_otherwise() from error

    def _speaks_otherwise(self) -> CamelBellError:
        place = self.base_url or "the OpenAI service"
        return CamelBellError(
            f"{place} does not answer as OpenAI's chat API does", "check base_url: it often ends in /v1"
        )

    def _explain(self, error: BaseException) -> BaseException:
        """Return one line and what to do for the failures that a person can mend."""
        import openai

        place = self.base_url or "the OpenAI service"
        if isinstance(error, json.JSONDecodeError | UnicodeDecodeError):
            return self._speaks_otherwise()
        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            return CamelBellError(
                f"{place} refuses the key (HTTP {error.status_code})", f"check the key in {self.key_env}"
            )
        if isinstance(error, openai.APITimeoutError):
            return CamelBellError(f"{place} did not answer in {self.timeout:g} s", "run the same command to go on")
        if isinstance(error, openai.APIConnectionError):
            return CamelBellError(
                f"no connection to {place}: {_line(error.__cause__ or error)}", "check base_url and the network"
            )
        if isinstance(error, openai.NotFoundError):
            return CamelBellError(f"{place} has no model {self.model!r} (HTTP 404)", "check model and base_url")
        if isinstance(error, openai.APIStatusError):
            return CamelBellError(
                f"{place} answers HTTP {error.status_code}: {_line(error.message)}", "run the same command to go on"
            )
        if isinstance(error, openai.OpenAIError):
            return CamelBellError(f"{place}: {_line(error)}", "check base_url: it must speak OpenAI's chat API")
        return error


def _is_web_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # the port is no number, or too big
        return False


def _line(error: object) -> str:
    """Return what a service says as one line that is safe to show."""
    return printable(" ".join(str(error).split()))[:200]


@hookimpl
def register_answer_teachers() -> list[type[AnswerTeacher]]:
    """Offer the OpenAI-compatible teacher."""
    return [OpenAITeacher]
