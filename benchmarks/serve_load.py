"""How `camelbell serve` bears many clients, and broken ones.

    python benchmarks/serve_load.py streams [--character harry_potter] [--clients 32]
    python benchmarks/serve_load.py faults [--requests 10000]

``streams``: as many questions one after the other, then all at once, to one server: the ratio of both times (the limit
is 1.3), whether the replies began in the order of arrival, and the longest wait for a first text.

``faults``: requests to a base model that replies at once, every second one broken in some way; prints every status, and
memory, threads and open files before and after. Both end with 1 where a limit is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any

RATIO = 1.3
QUESTIONS = [
    "你的教父是谁？",
    "Who is your godfather?",
    "你住在哪里？",
    "Where do you go to school?",
    "赫敏是谁？",
    "Who is Hagrid?",
]
QUICK = '''
from dataclasses import dataclass
from typing import ClassVar
from camelbell_core import hookimpl
from camelbell_core.roles import BaseModel, LanguageModel

class Quick(LanguageModel):
    name = "quick"
    def stream(self, prompt, max_tokens, temperature=0.0, stop=None):
        for piece in prompt.question[:max_tokens]:
            if stop is not None and stop():
                return
            yield piece

@dataclass(kw_only=True)
class QuickBase(BaseModel):
    """Says back what it is asked."""
    name: ClassVar[str] = "quick"
    def accepts(self, base):
        return base == "quick"
    def load(self, base, adapter=None):
        return Quick()
    def load_trainable(self, base):
        raise NotImplementedError

@hookimpl
def register_base_models():
    return [QuickBase]
'''


class Server:
    """A server in a process of its own."""

    def __init__(self, log: Path, *arguments: str) -> None:
        command = [sys.executable, "-m", "camelbell_core.cli", "serve", *arguments, "--port", "0"]
        with log.open("wb") as out:
            self.process = subprocess.Popen(command, stderr=out)
        while self.process.poll() is None:
            for line in log.read_text(encoding="utf-8").splitlines():
                if line.startswith("API "):
                    self.port = int(line.split()[1].removesuffix("/v1").rpartition(":")[2])
                    return
            sleep(0.1)
        raise SystemExit(log.read_text(encoding="utf-8"))

    def held(self) -> dict[str, int]:
        """Return what the process holds: memory in KiB, threads, open files."""
        status = dict(
            line.split(":", 1)
            for line in Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8").splitlines()
        )
        files = len(os.listdir(f"/proc/{self.process.pid}/fd"))
        return {"memory": int(status["VmRSS"].split()[0]), "threads": int(status["Threads"]), "files": files}

    def stop(self) -> None:
        """End it."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(30)


def body_of(model: str, text: str, stream: bool = True) -> bytes:
    """Return a request's body."""
    row = {"model": model, "stream": stream, "messages": [{"role": "user", "content": text}]}
    return json.dumps(row, ensure_ascii=False).encode()


def head_of(length: int, path: str = "/v1/chat/completions") -> bytes:
    """Return a request's head; the server closes the connection after its reply."""
    lines = f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", "Connection: close"
    return "\r\n".join((*lines, f"Content-Length: {length}", "", "")).encode()


async def send(port: int, sent: bytes, reads: int = -1) -> bytes:
    """Send bytes and return all that comes back, or leave after the first ``reads`` bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(sent)
        with suppress(ConnectionError):
            await writer.drain()
            return await reader.read(reads)
        return b""
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


# --- streams --------------------------------------------------------------------------------------


async def one(port: int, model: str, text: str) -> tuple[float, float]:
    """Return when the first text and the end of a reply came."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = body_of(model, text)
    writer.write(head_of(len(body)) + body)
    first = 0.0
    async for line in reader:
        if b'"content":"' in line and b'"content":""' not in line:
            first = first or monotonic()
        if b"[DONE]" in line:
            break
    writer.close()
    return first, monotonic()


async def streams(port: int, model: str, count: int) -> bool:
    """Measure one after the other against all at once."""
    texts = [QUESTIONS[number % len(QUESTIONS)] for number in range(count)]
    await one(port, model, texts[0])
    start = monotonic()
    for text in texts:
        await one(port, model, text)
    sequential = monotonic() - start
    start, tasks = monotonic(), []
    for text in texts:
        tasks.append(asyncio.create_task(one(port, model, text)))
        await asyncio.sleep(0.01)  # so that the order of arrival is the order of asking
    ended = await asyncio.gather(*tasks)
    together = monotonic() - start
    firsts = [first for first, _ in ended]
    ordered = firsts == sorted(firsts)
    ratio = together / sequential
    print(f"{count} replies one after the other: {sequential:.1f} s, {sequential / count:.2f} s each")
    print(
        f"{count} replies at once: {together:.1f} s; first texts after {firsts[0] - start:.1f} to {firsts[-1] - start:.1f} s"
    )
    print(f"ratio {ratio:.3f} (limit {RATIO}); in order of arrival: {'yes' if ordered else 'NO'}")
    return ratio <= RATIO and ordered


# --- faults ---------------------------------------------------------------------------------------


def fault(number: int) -> tuple[bytes, int]:
    """Return what the n-th request sends, and how many bytes of the reply it reads; every second one is sound."""
    body = body_of("lumen", f"问题 {number} " + "好" * (number % 50), stream=number % 4 == 0)
    sound = head_of(len(body)) + body
    if number % 2 == 0:
        return sound, -1
    kinds = [
        (sound[:-10], 0),  # half a body, then gone
        (sound, 0),  # gone before the reply
        (sound, 120),  # gone within the reply
        (head_of(9) + b"{not json", -1),
        (b"\x16\x03\x01 no http\r\n\r\n", -1),
        (head_of(len(body)) + body.replace(b"lumen", b"nobody"), -1),
        (head_of(len(body)) + body.replace(b'"user"', b'"king"'), -1),
        (head_of(3 * 2**20) + b"x" * 3 * 2**20, -1),
        (sound[:40], 0),  # half a head
        (head_of(len(body), "/v1/nowhere") + body, -1),
    ]
    return kinds[number // 2 % len(kinds)]


async def faults(server: Server, count: int, clients: int) -> bool:
    """Send sound and broken requests and compare what the server holds before and after."""
    statuses: Counter[str] = Counter()
    numbers = iter(range(count))

    async def client() -> None:
        for number in numbers:
            sent, reads = fault(number)
            reply = await send(server.port, sent, reads)
            statuses[reply[9:12].decode("latin-1") if reads < 0 else "left"] += 1

    async def round_of(much: int) -> None:
        nonlocal numbers
        numbers = iter(range(much))
        await asyncio.gather(*(client() for _ in range(clients)))
        for _ in range(600):
            text = await send(server.port, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            if b"camelbell_waiting 0.0" in text and b"camelbell_running 0.0" in text:
                return
            await asyncio.sleep(0.1)
        raise SystemExit("replies are still waiting")

    await round_of(1000)  # what a server needs it has after this
    statuses.clear()
    before = server.held()
    start = monotonic()
    await round_of(count)
    seconds = monotonic() - start
    await asyncio.sleep(1)
    after = server.held()
    print(f"{count} requests in {seconds:.1f} s, every second one broken: {dict(sorted(statuses.items()))}")
    for key, unit in (("memory", "KiB"), ("threads", ""), ("files", "")):
        print(f"{key}: {before[key]} {unit} before, {after[key]} {unit} after")
    growth = after["memory"] / before["memory"]
    print(f"memory ratio {growth:.3f} (limit 1.1)")
    broken = sum(many for status, many in statuses.items() if status.startswith("5"))
    return not broken and growth <= 1.1 and after["threads"] <= before["threads"] and after["files"] <= before["files"]


def main() -> int:
    """Run one of the two."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("what", choices=("streams", "faults"))
    parser.add_argument("--character", default="harry_potter")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--requests", type=int, default=10_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.what == "streams":
            server = Server(Path(folder) / "log", options.character)
            work: Any = streams(server.port, options.character, options.clients)
        else:
            from camelbell_core.scaffold import new_bundle

            bundle = new_bundle("lumen", "", Path(folder))
            (bundle / "plugin.py").write_text(QUICK, encoding="utf-8")
            server = Server(Path(folder) / "log", "lumen", "--base", "quick", "--no-adapter", "--characters", folder)
            work = faults(server, options.requests, options.clients)
        try:
            good = asyncio.run(work)
        finally:
            server.stop()
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
