"""The batch interface against a real HTTP service that keeps files and batches, as OpenAI's does."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from camelbell_core.errors import CamelBellError
from camelbell_core.journal import read_rows
from camelbell_core.records import Message
from camelbell_core.service import batch as batches
from camelbell_core.service.endpoint import Endpoint
from camelbell_core.service.ledger import Ledger

TEXTS = [f"第{number}只海鸥？" if number % 2 else f"Gull {number}?" for number in range(9)]


class BatchService:
    """Keeps what is uploaded; a batch is over after ``polls`` looks at it; ``fate`` says how each request of it ends."""

    def __init__(self):
        self.files, self.batches, self.polls = {}, {}, 0
        self.fate = lambda text: "answer"
        self.status = "completed"
        self.fail_after_create = False
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.reply(service.post(self.path, body))

            def do_GET(self):
                self.reply(service.get(self.path.partition("?")[0]))

            def reply(self, answer):
                status, value = answer
                data = value if isinstance(value, bytes) else json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def post(self, path, body):
        if path == "/v1/files":
            lines = [line for line in body.split(b"\r\n") if line.startswith(b'{"custom_id"')]
            name = f"file-{len(self.files)}"
            self.files[name] = b"\n".join(lines).strip()
            file = {"id": name, "object": "file", "bytes": 1, "created_at": 0, "filename": "f", "purpose": "batch"}
            return 200, {**file, "status": "processed"}
        if path == "/v1/batches":
            row = json.loads(body)
            name = f"batch-{len(self.batches)}"
            self.batches[name] = {**row, "id": name, "looks": 0}
            if self.fail_after_create:
                return 400, {"error": {"message": "the line went dead"}}
            return 200, self.shown(name)
        return 404, {}

    def get(self, path):
        parts = path.split("/")[2:]
        if parts == ["batches"]:
            return 200, {"object": "list", "data": [self.shown(name) for name in self.batches], "has_more": False}
        if parts[0] == "batches":
            self.batches[parts[1]]["looks"] += 1
            return 200, self.shown(parts[1])
        return 200, self.files[parts[1]]

    def shown(self, name):
        batch = self.batches[name]
        over = batch["looks"] > self.polls
        shown = {
            **{key: batch[key] for key in ("id", "input_file_id", "endpoint", "completion_window", "metadata")},
            "object": "batch",
            "created_at": 0,
            "status": self.status if over else "in_progress",
        }
        if over:
            outcomes = [self.outcome(json.loads(line)) for line in self.files[batch["input_file_id"]].split(b"\n")]
            for kind in ("output", "error"):
                lines = [line for place, line in reversed(outcomes) if place == kind]
                self.files[f"{name}-{kind}"] = b"".join(lines)
                shown[f"{kind}_file_id"] = f"{name}-{kind}" if lines else None
        return shown

    def outcome(self, row):
        text = row["body"]["messages"][-1]["content"]
        fate = self.fate(text)
        if fate == "answer":
            reply = {"choices": [{"message": {"content": f"<{text}>\u2028"}}], "usage": {"prompt_tokens": 9}}
            response, place = {"status_code": 200, "body": reply}, "output"
        elif fate == "refused":
            response, place = {"status_code": 400, "body": {"error": {"message": "不行"}}}, "error"
        else:
            return "none", b""
        line = {"id": "x", "custom_id": row["custom_id"], "response": response, "error": None}
        return place, json.dumps(line, ensure_ascii=False).encode() + b"\n"


@pytest.fixture
def service():
    made = BatchService()
    yield made
    made.server.shutdown()
    made.server.server_close()


def collect(service, folder, texts=TEXTS, **options):
    endpoint = Endpoint(base_url=service.url, mode="batch", poll=0.01, retries=0, **options)
    got = {}
    with Ledger(folder / "replies.sqlite") as ledger:
        requests = [endpoint.request([Message("user", text)], text) for text in texts]
        try:
            for request, reply in endpoint.ask_all(requests, ledger, folder):
                got[request.context] = reply.text
        except CamelBellError as error:
            return got, error.message
    return got, ""


def right(texts=TEXTS):
    return {text: f"<{text}>" for text in texts}


@pytest.mark.parametrize("polls", [0, 3])
def test_a_batch_is_sent_waited_for_and_collected(service, tmp_path, polls):
    service.polls = polls
    assert collect(service, tmp_path) == (right(), "")
    (batch,) = service.batches.values()
    assert batch["looks"] == polls + 1
    assert (batch["endpoint"], batch["completion_window"]) == ("/v1/chat/completions", "24h")
    rows = [json.loads(line) for line in service.files[batch["input_file_id"]].split(b"\n")]
    assert [row["body"]["messages"] for row in rows] == [[{"role": "user", "content": text}] for text in TEXTS]
    assert {(row["method"], row["url"]) for row in rows} == {("POST", "/v1/chat/completions")}
    assert collect(service, tmp_path) == (right(), "")
    assert len(service.batches) == 1


def test_after_days_the_same_command_collects_what_was_sent(service, tmp_path, monkeypatch):
    service.polls = 10**9

    def gone(seconds):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(batches, "sleep", gone)
        collect(service, tmp_path)
    service.polls = 0
    assert collect(service, tmp_path, [*TEXTS, "another?"]) == (right([*TEXTS, "another?"]), "")
    sizes = [len(service.files[batch["input_file_id"]].split(b"\n")) for batch in service.batches.values()]
    assert sizes == [len(TEXTS), 1]


def test_a_batch_that_was_made_when_the_program_died_is_found_again(service, tmp_path):
    service.fail_after_create = True
    got, said = collect(service, tmp_path)
    assert got == {} and "the line went dead" in said
    service.fail_after_create = False
    assert collect(service, tmp_path) == (right(), "")
    assert len(service.batches) == 1


def test_what_was_noted_but_never_sent_is_sent(service, tmp_path):
    (tmp_path / "batches.jsonl").write_text('{"token": "t", "keys": ["k"]}\n', encoding="utf-8")
    assert collect(service, tmp_path) == (right(), "")
    assert [row.get("over") for _, row in read_rows(tmp_path / "batches.jsonl")][1] == "never sent"


@pytest.mark.parametrize("status", ["completed", "expired", "cancelled"])
def test_what_a_batch_does_not_bring_is_told_and_sent_again(service, tmp_path, status):
    service.status = status
    service.fate = lambda text: {TEXTS[2]: "refused", TEXTS[5]: "lost"}.get(text, "answer")
    got, said = collect(service, tmp_path)
    missing = {TEXTS[2], TEXTS[5]}
    assert got == right([text for text in TEXTS if text not in missing])
    assert said.startswith("2 requests were not answered by the batches: ") and said.endswith("HTTP 400: 不行")
    service.fate = lambda text: "answer"
    assert collect(service, tmp_path) == (right(), "")
    last = list(service.batches.values())[-1]
    assert len(service.files[last["input_file_id"]].split(b"\n")) == 2


def test_many_requests_go_in_several_files(service, tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "_MOST_REQUESTS", 4)
    assert collect(service, tmp_path) == (right(), "")
    assert len(service.batches) == 3


def test_no_more_is_sent_than_the_limit_allows(service, tmp_path):
    got, said = collect(service, tmp_path, token_limit=600, max_tokens=100)
    assert got == right(TEXTS[:5]) and said.startswith("the limit of 600 tokens is reached")


def test_a_service_without_batches_says_so(service, tmp_path):
    service.url = service.url.replace("/v1", "/v2")
    assert collect(service, tmp_path) == ({}, f"{service.url} has no batch interface (HTTP 404)")


def test_a_batch_needs_a_folder_to_be_remembered_in(service):
    endpoint = Endpoint(base_url=service.url, mode="batch")
    with Ledger(None) as ledger, pytest.raises(CamelBellError, match="needs a workspace"):
        endpoint.ask_all([], ledger)
