"""base_endpoint: a real HTTP service speaks as the character; what fails is one clear line."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain
from typing import Any

import pytest

from camelbell_core.errors import CamelBellError
from camelbell_core.model import loader_for
from camelbell_core.pipeline import Run
from camelbell_core.registry import build_registry
from camelbell_core.session import Session, Settings, open_session

EVENTS = "text/event-stream"
Answer = Callable[[dict[str, Any]], Iterator[bytes]]


def event(text: str | None) -> bytes:
    """Return one event of a stream; None is a delta without words, as the first and the last one often are."""
    choices = [
        {"index": 0, "finish_reason": None, "delta": {"role": "assistant"} if text is None else {"content": text}}
    ]
    row = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": choices}
    return f"data: {json.dumps(row, ensure_ascii=False)}\n\n".encode()


class Service:
    """OpenAI's chat API on 127.0.0.1, as far as a stream goes; ``says`` makes the body, piece by piece."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.paths: list[str] = []
        self.status, self.kind = 200, EVENTS
        self.says: Answer = self.echo
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                service.requests.append(body)
                service.keys.append(self.headers["Authorization"])
                service.paths.append(self.path)
                pieces = service.says(body)
                try:
                    first = next(pieces, b"")
                    self.send_response(service.status)
                    self.send_header("Content-Type", service.kind)
                    self.end_headers()
                    for piece in chain([first], pieces):
                        self.wfile.write(piece)
                        self.wfile.flush()
                except ConnectionError:
                    pass  # the client has left

            def log_message(self, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    @staticmethod
    def echo(body: dict[str, Any]) -> Iterator[bytes]:
        yield event(None)
        for char in f"<{body['messages'][-1]['content']}>":
            yield event(char)
        yield b'data: {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": []}\n\n'
        yield b"data: [DONE]\n\n"


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """A running service that streams each question back in angle brackets."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    made = Service()
    yield made
    made.server.shutdown()
    made.server.server_close()


def open_model(base: str) -> Any:
    return loader_for(build_registry(), base).load(base)


def session_of(run: Run, base: str, **settings: Any) -> Session:
    return open_session(run.character, run.registry, open_model(base), guard=False, settings=Settings(**settings))


@pytest.mark.parametrize("question", ["你是谁？", "Who are you?"])
def test_it_speaks_with_persona_facts_and_history(
    service: Service, open_lumen: Callable[..., Run], question: str
) -> None:
    session = session_of(open_lumen(), f"endpoint:big-model@{service.url}", max_tokens=33)
    pieces = list(session.reply(question))
    assert "".join(pieces) == f"<{question}>"
    assert len(pieces) == len(question) + 2  # piece by piece, as the service sends them
    session.ask(question + "！")
    first, second = service.requests
    assert (first["model"], first["max_tokens"], first["temperature"], first["stream"]) == ("big-model", 33, 0.0, True)
    turn = session.turns[0]
    system = first["messages"][0]
    assert system["role"] == "system"
    assert turn.prompt is not None and turn.prompt.persona in system["content"]
    assert turn.facts and all(fact in system["content"] for fact in turn.prompt.facts)
    assert [m["content"] for m in second["messages"][1:]] == [question, f"<{question}>", question + "！"]
    assert service.paths == ["/v1/chat/completions"] * 2


def test_it_is_a_base_of_the_command_line_and_needs_no_adapter(service: Service, camelbell: Callable[..., Any]) -> None:
    done = camelbell("chat", "instruct", "--no-guard", "--base", f"endpoint:m@{service.url}", "-m", "你好")
    assert (done.returncode, done.stdout, done.stderr) == (0, "<你好>\n", "")


def test_the_guard_judges_what_a_service_says(service: Service, open_lumen: Callable[..., Run]) -> None:
    run = open_lumen(guard=["persona_break"])

    def confess(body: dict[str, Any]) -> Iterator[bytes]:
        yield event("As an AI language model, I have no name.")
        yield b"data: [DONE]\n\n"

    service.says = confess
    session = open_session(run.character, run.registry, open_model(f"endpoint:m@{service.url}"))
    assert "AI" not in session.ask("Who are you?")
    assert session.turns[0].composed
    assert {verdict.filter for verdict in session.turns[0].verdicts} == {"persona_break"}


def test_sampling_is_handed_on(service: Service, open_lumen: Callable[..., Run]) -> None:
    session = session_of(open_lumen(), f"endpoint:m@{service.url}", temperature=0.8)
    session.model = session.model.with_sampling(top_p=0.5, seed=7)  # type: ignore[attr-defined]
    session.ask("你好")
    assert {key: service.requests[0][key] for key in ("temperature", "top_p", "seed")} == {
        "temperature": 0.8,
        "top_p": 0.5,
        "seed": 7,
    }


# --- keys -----------------------------------------------------------------------------------------


def test_the_key_comes_from_the_environment_that_is_named(
    service: Service, open_lumen: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-openai")
    monkeypatch.setenv("MY_KEY", "sk-of-mine")
    run = open_lumen()
    session_of(run, f"endpoint:m@{service.url}#MY_KEY").ask("你好")
    session_of(run, f"endpoint:m@{service.url}").ask("你好")  # OpenAI's key goes to no one else unasked
    monkeypatch.setenv("OPENAI_BASE_URL", service.url)
    session_of(run, "endpoint:m").ask("你好")
    assert service.keys == ["Bearer sk-of-mine", "Bearer none", "Bearer sk-of-openai"]


@pytest.mark.parametrize(
    ("base", "environment", "message"),
    [
        ("endpoint:m", {}, "the service needs a key, and the environment variable OPENAI_API_KEY is not set"),
        (
            "endpoint:m@http://h/v1#NO_KEY",
            {},
            "the service needs a key, and the environment variable NO_KEY is not set",
        ),
        (
            "endpoint:m",
            {"OPENAI_API_KEY": "sk 1"},
            "the key in OPENAI_API_KEY holds a blank or a letter that no key has",
        ),
        (
            "endpoint:m",
            {"OPENAI_API_KEY": "密钥"},
            "the key in OPENAI_API_KEY holds a blank or a letter that no key has",
        ),
    ],
)
def test_a_key_that_is_missing_or_broken_is_told_before_anything_is_asked(
    service: Service, monkeypatch: pytest.MonkeyPatch, base: str, environment: dict[str, str], message: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(CamelBellError) as caught:
        open_model(base)
    assert caught.value.message == message


@pytest.mark.parametrize(
    "base", ["endpoint:", "endpoint:m@ftp://h", "endpoint:m@http://h:99999/v1", "endpoint:m@http://"]
)
def test_a_name_that_names_no_service_is_an_error(base: str) -> None:
    with pytest.raises(CamelBellError):
        open_model(base)


def test_it_cannot_be_trained() -> None:
    with pytest.raises(CamelBellError) as caught:
        loader_for(build_registry(), "endpoint:m").load_trainable("endpoint:m")
    assert caught.value.message == "'endpoint:m' is a service and cannot be trained"


# --- failures -------------------------------------------------------------------------------------


def refuse(service: Service, status: int, text: str, kind: str = "application/json") -> None:
    service.status, service.kind = status, kind
    service.says = lambda body: iter([text.encode()])


def failure(service: Service, run: Run) -> CamelBellError:
    with pytest.raises(CamelBellError) as caught:
        session_of(run, f"endpoint:m@{service.url}").ask("你好")
    assert "\n" not in caught.value.message
    return caught.value


@pytest.mark.parametrize(
    ("status", "text", "kind", "message"),
    [
        (401, "{}", "application/json", "refuses the key (HTTP 401)"),
        (404, "{}", "application/json", "has no model 'm' (HTTP 404)"),
        (400, '{"error": {"message": "太长 \\u001b[31m"}}', "application/json", "answers HTTP 400: "),
        (200, "<html>hello</html>", "text/html", "does not answer as OpenAI's chat API does"),
        (200, '{"hello": 1}', "application/json", "does not answer as OpenAI's chat API does"),
        (200, "data: not json\n\n", EVENTS, "does not answer as OpenAI's chat API does"),
        (200, 'data: {"error": {"message": "no memory"}}\n\n', EVENTS, "no memory"),
    ],
)
def test_a_failure_is_one_line(
    service: Service, open_lumen: Callable[..., Run], status: int, text: str, kind: str, message: str
) -> None:
    refuse(service, status, text, kind)
    error = failure(service, open_lumen())
    assert message in error.message
    assert "\x1b" not in error.message
    assert service.url in error.message


def test_a_service_that_is_not_there_is_one_line(open_lumen: Callable[..., Run], service: Service) -> None:
    service.server.shutdown()
    service.server.server_close()
    assert failure(service, open_lumen()).message.startswith(f"no connection to {service.url}: ")


def test_a_reply_that_does_not_come_in_a_stream_is_taken_whole(
    service: Service, open_lumen: Callable[..., Run]
) -> None:
    reply = {"id": "1", "choices": [{"index": 0, "message": {"role": "assistant", "content": "整句话。"}}]}
    refuse(service, 200, json.dumps(reply))
    assert session_of(open_lumen(), f"endpoint:m@{service.url}").ask("你好") == "整句话。"


def test_a_service_that_knows_the_bound_by_its_newer_name_is_asked_again(
    service: Service, open_lumen: Callable[..., Run]
) -> None:
    def picky(body: dict[str, Any]) -> Iterator[bytes]:
        if "max_tokens" in body:
            service.status, service.kind = 400, "application/json"
            yield b'{"error": {"message": "Unsupported parameter: use \'max_completion_tokens\' instead."}}'
        else:
            service.status, service.kind = 200, EVENTS
            yield from Service.echo(body)

    service.says = picky
    assert session_of(open_lumen(), f"endpoint:m@{service.url}", max_tokens=9).ask("你好") == "<你好>"
    assert service.requests[-1]["max_completion_tokens"] == 9


def test_a_reply_that_is_stopped_ends_though_the_service_says_nothing(
    service: Service, open_lumen: Callable[..., Run]
) -> None:
    said, over = threading.Event(), threading.Event()

    def slow(body: dict[str, Any]) -> Iterator[bytes]:
        yield event("我在想")
        yield event("……")
        said.set()
        over.wait(30)
        yield b"data: [DONE]\n\n"

    service.says = slow
    session = session_of(open_lumen(), f"endpoint:m@{service.url}")

    def stopper() -> None:
        said.wait(30)
        time.sleep(0.2)
        session.stop()

    threading.Thread(target=stopper, daemon=True).start()
    assert session.ask("你好") == "我在想……"
    assert not over.is_set()
    over.set()
