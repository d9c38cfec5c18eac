"""A chat service on 127.0.0.1 for benchmarks: each reply takes a while, and a few requests fail.

    python benchmarks/slow_service.py [LATENCY_MS] [FAULT_SHARE]        prints its address, and serves until it is ended

Half of the faults are 429 with ``Retry-After: 1``, half 500. A reply is the question in angle brackets. ``GET /counts`` tells
how many requests came, how many failed, and how many were under way at once at most.
"""

from __future__ import annotations

import asyncio
import json
import sys
from random import Random


class Service:
    """Counts what comes, and answers."""

    def __init__(self, latency: float, faults: float) -> None:
        self.latency, self.faults = latency, faults
        self.rng = Random(0)
        self.counts = {"requests": 0, "failed": 0, "most": 0}
        self.now = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection, one after another."""
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.split(b"\r\n")
                sizes = [int(line[15:]) for line in lines if line.lower().startswith(b"content-length:")]
                body = await reader.readexactly(sizes[0]) if sizes else b""
                writer.write(await self.answer(lines[0], body))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def answer(self, first: bytes, body: bytes) -> bytes:
        """Return a whole response."""
        if b"/counts" in first:
            return self.response(b"200 OK", json.dumps(self.counts).encode())
        self.counts["requests"] += 1
        self.now += 1
        self.counts["most"] = max(self.counts["most"], self.now)
        chance = self.rng.random()
        await asyncio.sleep(self.latency)
        self.now -= 1
        if chance < self.faults:
            self.counts["failed"] += 1
            if chance < self.faults / 2:
                return self.response(
                    b"429 Too Many Requests", b'{"error": {"message": "slow down"}}', b"Retry-After: 1\r\n"
                )
            return self.response(b"500 Internal Server Error", b'{"error": {"message": "oops"}}')
        question = json.loads(body)["messages"][-1]["content"]
        message = {"role": "assistant", "content": f"<{question}>"}
        reply = {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": "m",
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
            "usage": {"prompt_tokens": 40, "completion_tokens": 20, "total_tokens": 60},
        }
        return self.response(b"200 OK", json.dumps(reply, ensure_ascii=False).encode())

    @staticmethod
    def response(status: bytes, body: bytes, more: bytes = b"") -> bytes:
        """Return status, headers and body as they are sent."""
        head = b"HTTP/1.1 " + status + b"\r\nContent-Type: application/json\r\n" + more
        return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


async def main(latency_ms: str = "200", faults: str = "0.02") -> None:
    """Serve."""
    service = Service(float(latency_ms) / 1000, float(faults))
    server = await asyncio.start_server(service.serve, "127.0.0.1", 0, backlog=2048)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
