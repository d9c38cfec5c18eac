import json
import socket
import socketserver
import threading
from collections import Counter
from contextlib import contextmanager

import pytest

from camelbell_core.errors import CamelBellError
from camelbell_core.records import Message
from camelbell_core.service.asker import Asker
from camelbell_core.service.endpoint import Endpoint
from camelbell_core.service.ledger import Ledger

MANY = [f"第{number}只海鸥？" if number % 2 else f"Gull {number}?" for number in range(60)]
SOON = {"Retry-After": "0.05"}


def requests_of(endpoint, texts):
    return [endpoint.request([Message("user", text)], text) for text in texts]


def asked(url, texts, ledger=None, **options):
    """Ask, and return what came as a dict, and the asker."""
    endpoint = Endpoint(base_url=url, **options)
    with ledger or Ledger(None) as book:
        asker = Asker(endpoint, book)
        return {request.context: reply.text for request, reply in asker.replies(requests_of(endpoint, texts))}, asker


def right(service, texts=MANY):
    return {text: service.answer_to(text) for text in texts}


def test_a_request_that_waits_holds_no_place(chat_service):
    """Of two places both are used by others while a refused request waits as long as it was asked to."""
    together, order, meanwhile = threading.Barrier(2), [], []

    def script(question, times):
        order.append(question)
        if question == MANY[0] and times == 1:
            return 429, {"Retry-After": "4"}, "{}"
        if question in MANY[4:6]:
            together.wait(30)  # fails unless both are under way at once
            meanwhile.append(order.count(MANY[0]))
        return None

    chat_service.script = script
    replies, _ = asked(chat_service.url, MANY[:20], concurrency=2)
    assert replies == right(chat_service, MANY[:20])
    assert meanwhile == [1, 1] and order.count(MANY[0]) == 2


def test_while_the_service_refuses_all_it_is_not_run_over_and_nothing_is_lost(chat_service):
    """A service that refuses everything for a while sees one probe after another, not all questions at once."""
    refusals = Counter()
    lock = threading.Lock()

    def script(question, times):
        with lock:
            if sum(refusals.values()) < 24:
                refusals[question] += 1
                return 429, {"Retry-After": "0.2"}, "{}"
        return None

    chat_service.script = script
    replies, asker = asked(chat_service.url, MANY, concurrency=16, retries=1)
    assert replies == right(chat_service)
    assert sum(chat_service.asked.values()) == len(MANY) + 24
    # The first 16 were under way together; the other eight refusals were probes, sent alone.
    assert len(refusals) <= 24 and asker.pace.limit < 16


def test_500_and_broken_replies_are_tried_again(chat_service):
    failures = {1: (500, SOON, "oops"), 2: (200, {}, "<html>"), 3: (200, {}, '{"choices": [{"mess')}
    chat_service.script = lambda question, times: failures.get(times) if question in MANY[::7] else None
    replies, asker = asked(chat_service.url, MANY, concurrency=8, retries=3)
    assert replies == right(chat_service)
    assert asker.tried_again == 3 * len(MANY[::7])


def test_one_bad_request_does_not_stop_the_others(chat_service):
    bad = {MANY[3], MANY[30]}
    told = '{"error": {"message": "内容不合适"}}'
    chat_service.script = lambda question, times: (400, {}, told) if question in bad else None
    endpoint = Endpoint(base_url=chat_service.url, concurrency=4)
    got = {}
    with Ledger(None) as ledger, pytest.raises(CamelBellError) as caught:
        for request, reply in Asker(endpoint, ledger).replies(requests_of(endpoint, MANY)):
            got[request.context] = reply.text
    assert got == {text: answer for text, answer in right(chat_service).items() if text not in bad}
    assert caught.value.message == f"{chat_service.url} answers HTTP 400: 内容不合适; 1 more requests failed"


def test_a_service_that_answers_nothing_right_is_not_asked_everything(chat_service):
    chat_service.script = lambda question, times: (400, {}, "{}")
    with pytest.raises(CamelBellError, match="answers HTTP 400"):
        asked(chat_service.url, [f"gull {n}" for n in range(500)], concurrency=2)
    assert 8 <= sum(chat_service.asked.values()) <= 10


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (401, "{}", "refuses the key"),
        (404, "{}", "has no model"),
        (429, '{"error": {"code": "insufficient_quota"}}', "the quota is used up"),
    ],
)
def test_what_concerns_all_requests_stops_at_once_with_what_was_done(chat_service, status, body, said):
    chat_service.script = lambda question, times: (status, {}, body) if question == MANY[5] else None
    endpoint = Endpoint(base_url=chat_service.url, concurrency=1)
    got = {}
    with Ledger(None) as ledger, pytest.raises(CamelBellError, match=said):
        for request, reply in Asker(endpoint, ledger).replies(requests_of(endpoint, MANY)):
            got[request.context] = reply.text
    assert got == right(chat_service, MANY[:5])
    assert sum(chat_service.asked.values()) == 6


def test_a_wait_longer_than_our_patience_is_told(chat_service):
    chat_service.script = lambda question, times: (429, {"Retry-After": "86400"}, '{"error": {"message": "daily"}}')
    with pytest.raises(CamelBellError) as caught:
        asked(chat_service.url, MANY[:1])
    assert caught.value.message == f"{chat_service.url} answers HTTP 429: daily; it asks to wait 86,400 s"


def test_a_service_that_stays_busy_is_given_up(chat_service):
    chat_service.script = lambda question, times: (503, SOON, "") if question != MANY[0] else None
    with pytest.raises(CamelBellError, match="answers HTTP 503; all was refused for"):
        asked(chat_service.url, MANY, patience=0.5, concurrency=4)


def test_what_was_asked_before_is_not_asked_again(chat_service, tmp_path):
    file = tmp_path / "replies.sqlite"
    first, _ = asked(chat_service.url, MANY[:40], Ledger(file))
    again, _ = asked(chat_service.url, MANY, Ledger(file))
    assert first == right(chat_service, MANY[:40]) and again == right(chat_service)
    assert chat_service.asked == Counter(MANY)


def test_the_same_request_twice_is_sent_once_and_given_twice(chat_service):
    endpoint = Endpoint(base_url=chat_service.url)
    requests = [endpoint.request([Message("user", "你好")], place) for place in range(5)]
    with Ledger(None) as ledger:
        got = {request.context: reply.text for request, reply in Asker(endpoint, ledger).replies(requests)}
    assert got == dict.fromkeys(range(5), "<你好>")
    assert chat_service.asked == {"你好": 1}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"token_limit": 2000}, "the limit of 2,000 tokens is reached"),
        ({"budget": 0.002, "price_in": 1.0, "price_out": 1.0}, "the budget of 0.00 is reached"),
    ],
)
def test_no_more_is_spent_than_allowed(chat_service, options, said):
    spent = {"prompt_tokens": 20, "completion_tokens": 100}
    chat_service.script = lambda question, times: (
        200,
        {},
        json.dumps({**json.loads(chat_service.told("好")), "usage": spent}),
    )
    ledger = Ledger(None)
    endpoint = Endpoint(base_url=chat_service.url, max_tokens=100, concurrency=8, **options)
    with pytest.raises(CamelBellError) as caught:
        list(Asker(endpoint, ledger).replies(requests_of(endpoint, MANY)))
    assert caught.value.message.startswith(said)
    assert 12 <= ledger.spent.requests <= 16
    assert ledger.spent.tokens_in + ledger.spent.tokens_out <= 2000


def test_tokens_are_counted_where_the_service_does_not(chat_service):
    ledger = Ledger(None)
    endpoint = Endpoint(base_url=chat_service.url, price_in=1e6, price_out=1e6)
    ((_, reply),) = Asker(endpoint, ledger).replies(requests_of(endpoint, ["你好吗"]))
    assert reply.text == "<你好吗>"
    assert (ledger.spent.tokens_in, ledger.spent.tokens_out, ledger.spent.cost) == (7, 4, 11.0)


@contextmanager
def raw_service(respond):
    """Serve bytes: ``respond`` gets the number of the request and returns what is written before the connection ends."""
    numbers = iter(range(10_000))

    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            size = 0
            while line := self.rfile.readline().strip().lower():
                if line.startswith(b"content-length:"):
                    size = int(line.split(b":")[1])
            self.rfile.read(size)
            self.wfile.write(respond(next(numbers)))

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        server.shutdown()


def whole(text, cut=0, head=b"HTTP/1.1 200 OK\r\nConnection: close\r\n"):
    body = json.dumps({"choices": [{"message": {"content": text}}]}, ensure_ascii=False).encode()
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body[: len(body) - cut]


@pytest.mark.parametrize(
    "bad",
    [
        whole("你好", cut=8),
        whole("hello", cut=30),
        b"",
        b"HTTP/1.1 200 OK\r\n\r\n<html>It works!</html>",
        b"no http at all\r\n\r\n",
        b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"cho',
        whole("半").replace("半".encode(), b"\xe5\x8d"),
    ],
    ids=["cut", "cut early", "closed", "web page", "no http", "cut chunk", "half a character"],
)
def test_a_broken_answer_is_asked_for_again_and_told_if_it_stays_broken(bad, monkeypatch):
    monkeypatch.setattr("camelbell_core.service.asker._back_off", lambda tries: 0.01)
    with raw_service(lambda number: bad if number < 2 else whole("好了")) as url:
        replies, asker = asked(url, ["x"], retries=2)
    assert (replies, asker.tried_again) == ({"x": "好了"}, 2)
    with raw_service(lambda number: bad) as url, pytest.raises(CamelBellError) as caught:
        asked(url, ["x"], retries=1)
    assert caught.value.message.startswith(url) and caught.value.message.isprintable()


def test_an_answer_of_100000_tokens_comes_in_whole():
    long = "很长的回答。" * 20_000
    with raw_service(lambda number: whole(long)) as url:
        assert asked(url, ["x"])[0] == {"x": long}


def test_a_body_without_end_is_not_read_for_ever(monkeypatch):
    monkeypatch.setattr("camelbell_core.service.asker._MOST_BYTES", 100_000)
    endless = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b" " * 5_000_000
    with raw_service(lambda number: endless) as url, pytest.raises(CamelBellError, match="does not answer as"):
        asked(url, ["x"], retries=0)


def test_a_connection_that_is_refused_at_first_is_waited_for(chat_service, monkeypatch):
    monkeypatch.setattr("camelbell_core.service.asker._back_off", lambda tries: 0.2)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    opened = []

    def open_later():
        server = socketserver.ThreadingTCPServer(("127.0.0.1", port), Handler)
        opened.append(server)
        server.serve_forever(0.01)

    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            self.request.recv(65536)
            self.wfile.write(whole("来了"))

    timer = threading.Timer(0.5, open_later)
    timer.daemon = True
    timer.start()
    assert asked(f"http://127.0.0.1:{port}/v1", ["x"])[0] == {"x": "来了"}
    opened[0].shutdown()
    opened[0].server_close()


def test_an_error_while_requests_are_built_reaches_the_caller(chat_service):
    def broken():
        yield from requests_of(Endpoint(base_url=chat_service.url), MANY[:2])
        raise CamelBellError("the canon is gone")

    with Ledger(None) as ledger, pytest.raises(CamelBellError, match="the canon is gone"):
        list(Asker(Endpoint(base_url=chat_service.url), ledger).replies(broken()))


def test_the_proxy_of_the_environment_is_used(chat_service, monkeypatch):
    with raw_service(lambda number: whole("从代理来")) as proxy:
        monkeypatch.setenv("http_proxy", proxy.removesuffix("/v1"))
        assert asked("http://far.example/v1", ["x"])[0] == {"x": "从代理来"}
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert asked(chat_service.url, ["x"])[0] == {"x": "<x>"}
