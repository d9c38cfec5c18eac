"""Clients that are slow, broken or bad, on raw sockets: they are cut off and nobody else notices."""

import json
import select
import socket
import threading
import time

import pytest
from serving import make_bundle, request, serving, until

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
MOST = 2 * 2**20


@pytest.fixture(scope="module")
def lumen(tmp_path_factory):
    """A server of little patience."""
    root = tmp_path_factory.mktemp("served")
    with serving(
        root, "lumen", "--no-adapter", "--patience", "0.5", characters=make_bundle(root / "bundles")
    ) as served:
        yield served


@pytest.fixture
def wire(lumen):
    """A connection to it."""
    with socket.create_connection(("127.0.0.1", lumen.port), timeout=30) as client:
        yield client


def everything(client):
    """Return all that the server sends until it closes the connection."""
    received = b""
    try:
        while piece := client.recv(65536):
            received += piece
    except ConnectionResetError:
        pass
    return received


def error_of(reply):
    head, _, body = reply.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["error"]["code"]


@pytest.mark.parametrize("sent", [b"", b"POST /v1/chat", HEAD, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\nGET"])
def test_a_head_that_never_ends_is_cut_off(lumen, wire, sent):
    wire.sendall(sent)
    received = everything(wire)
    assert (b"HTTP/1.1 200" in received) == sent.startswith(b"GET /")
    assert lumen.said("你好") == "你好"


def test_a_head_that_comes_by_drops_is_cut_off(lumen, wire):
    with pytest.raises(OSError):
        for _ in range(400):
            wire.sendall(b"X")
            time.sleep(0.05)


def test_a_body_that_does_not_come_is_refused(lumen, wire):
    wire.sendall(HEAD + b"Content-Length: 100\r\n\r\n{")
    assert error_of(everything(wire)) == (408, "timeout")


@pytest.mark.parametrize("how", ["length", "chunks"])
@pytest.mark.parametrize("size", [MOST + 1, 3 * MOST, 20 * MOST])
def test_a_body_that_is_too_long_is_refused_however_it_comes(lumen, wire, how, size):
    body = b"x" * size
    try:
        if how == "length":
            wire.sendall(HEAD + f"Content-Length: {size}\r\n\r\n".encode() + body)
        else:
            wire.sendall(
                HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + f"{size:x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
            )
    except OSError:
        assert size > 8 * MOST  # the server does not read for ever
        return
    received = everything(wire)
    if received or size < 8 * MOST:
        assert error_of(received) == (413, "request_too_large")


@pytest.mark.parametrize(
    "sent", [b"\x16\x03\x01\x02\x00", b"\x00" * 100, b"GET / HTTP/9.9\r\n\r\n", b"A" * 200_000, b"\r\n" * 50]
)
def test_what_is_no_http_is_refused(lumen, wire, sent):
    wire.sendall(sent)
    received = everything(wire)
    assert not received or received.startswith(b"HTTP/1.1 4")
    assert lumen.said("你好") == "你好"


def test_a_client_that_does_not_read_is_cut_off(lumen):
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", lumen.port))
        client.setblocking(False)
        watch = select.poll()
        watch.register(client, select.POLLERR | select.POLLHUP)
        ask = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100

        def cut():
            try:
                client.send(ask)
            except BlockingIOError:
                pass
            except OSError:
                return True
            return bool(watch.poll(0))

        until(cut)
    assert lumen.said("你好") == "你好"


def test_slow_clients_hold_no_worker(lumen):
    slow = [socket.create_connection(("127.0.0.1", lumen.port)) for _ in range(50)]
    body = json.dumps(request("count 20", stream=True)).encode()
    for number, client in enumerate(slow):
        client.sendall(HEAD if number % 2 else HEAD + f"Content-Length: {len(body)}\r\n\r\n".encode() + body[:-1])
    assert lumen.said("fast") == "fast"
    for client in slow:
        client.close()
    assert "begin count 20" not in lumen.noted()


def test_broken_clients_leave_nothing_behind(lumen):
    def misbehave(number):
        with socket.create_connection(("127.0.0.1", lumen.port)) as client:
            body = json.dumps(request(f"count {number % 7}", stream=number % 2 == 0)).encode()
            whole = HEAD + f"Content-Length: {len(body)}\r\n\r\n".encode() + body
            client.sendall(whole[: len(whole) - (number % 3) * 40])
            if number % 5 == 0:
                client.recv(100)

    threads = [threading.Thread(target=misbehave, args=(number,)) for number in range(60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    until(lambda: lumen.counted("camelbell_running") + lumen.counted("camelbell_waiting") == 0)
    assert lumen.counted("camelbell_requests_total", status="500") == 0
    assert lumen.said("你好") == "你好"
    assert "Traceback" not in lumen.log.read_text(encoding="utf-8")
