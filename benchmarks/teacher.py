"""How fast a service is asked: our teacher, AsyncOpenAI, and raw aiohttp, side by side in one run.

    pip install 'openai[aiohttp]'
    python benchmarks/teacher.py [QUESTIONS]        (default: 1500)

The service (benchmarks/slow_service.py, a process of its own on the same cores) takes 200 ms a reply; 1 % of the requests
get 429 with Retry-After 1 s, 1 % get 500. Each client's answers are checked: none lost, none at another's question. The floor is
what latency alone takes, and one Retry-After where there was a 429. Ours does what a run does: recall, prompt, ledger on disk.
Limits: 3.5 s at 256, 6.5 s at 64.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from urllib.request import urlopen

from camelbell_core.character import find_character
from camelbell_core.pipeline import open_run, teacher_tools
from camelbell_core.records import Question
from camelbell_core.scaffold import new_bundle
from camelbell_plugins.teacher_openai import OpenAITeacher

HERE = Path(__file__).parent
LATENCY, RETRIES = 0.2, 8
SERIAL = 100  # questions that the serial client asks; its time is scaled to all
Client = Callable[[str, list[str], int], dict[str, str]]


def ours(url: str, questions: list[str], at_once: int) -> dict[str, str]:
    """Ask as `camelbell answers` does."""
    with TemporaryDirectory() as folder:
        root = new_bundle("lumen", "", Path(folder))
        run = open_run(find_character("lumen", [root.parent]), Path(folder) / "run")
        tools = teacher_tools(run, lambda: sys.exit("no model"))
        teacher = OpenAITeacher(base_url=url, concurrency=at_once)
        asked = [Question(text, "zh" if number % 2 else "en") for number, text in enumerate(questions)]
        return {pair.question: pair.answer for pair in teacher.answer(asked, tools)}


def async_openai(url: str, questions: list[str], at_once: int, fast: bool = False) -> dict[str, str]:
    """Ask as openai's documentation shows, with a semaphore."""
    from openai import AsyncOpenAI, DefaultAioHttpClient

    async def ask_all() -> dict[str, str]:
        places = asyncio.Semaphore(at_once)
        http = DefaultAioHttpClient(timeout=60) if fast else None
        async with AsyncOpenAI(api_key="none", base_url=url, max_retries=RETRIES, http_client=http) as client:

            async def ask(text: str) -> tuple[str, str]:
                async with places:
                    reply = await client.chat.completions.create(
                        model="m", messages=[{"role": "user", "content": text}]
                    )
                    return text, reply.choices[0].message.content or ""

            return dict(await asyncio.gather(*map(ask, questions)))

    return asyncio.run(ask_all())


def async_openai_aiohttp(url: str, questions: list[str], at_once: int) -> dict[str, str]:
    """The same on openai's aiohttp transport."""
    return async_openai(url, questions, at_once, fast=True)


def raw_aiohttp(url: str, questions: list[str], at_once: int) -> dict[str, str]:
    """Post with aiohttp, and sleep out each Retry-After without a place."""
    import aiohttp

    async def ask_all() -> dict[str, str]:
        places = asyncio.Semaphore(at_once)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

            async def ask(text: str) -> tuple[str, str]:
                while True:
                    async with places:
                        body = {"model": "m", "messages": [{"role": "user", "content": text}]}
                        async with session.post(url + "/chat/completions", json=body) as response:
                            row = await response.json()
                            if response.status == 200:
                                return text, row["choices"][0]["message"]["content"]
                            wait = float(response.headers.get("Retry-After", 0.5))
                    await asyncio.sleep(wait)

            return dict(await asyncio.gather(*map(ask, questions)))

    return asyncio.run(ask_all())


def serial(url: str, questions: list[str], at_once: int) -> dict[str, str]:
    """Ask one after another, as in 2023."""
    from openai import OpenAI

    with OpenAI(api_key="none", base_url=url, max_retries=RETRIES) as client:
        return {
            text: client.chat.completions.create(model="m", messages=[{"role": "user", "content": text}])
            .choices[0]
            .message.content
            or ""
            for text in questions
        }


CLIENTS: list[tuple[str, Client, tuple[int, ...]]] = [
    ("camelbell", ours, (64, 256)),
    ("raw aiohttp", raw_aiohttp, (64, 256)),
    ("AsyncOpenAI on aiohttp", async_openai_aiohttp, (64, 256)),
    ("AsyncOpenAI", async_openai, (64, 256)),
    ("serial openai", serial, (1,)),
]
LIMITS = {("camelbell", 64): 6.5, ("camelbell", 256): 3.5}


def measured(client: Client, questions: list[str], at_once: int) -> tuple[float, float, dict[str, int]]:
    """Return wall seconds, CPU milliseconds a request, and what was counted, of one client with a fresh service."""
    with subprocess.Popen(
        [sys.executable, str(HERE / "slow_service.py"), str(LATENCY * 1000)], stdout=subprocess.PIPE, text=True
    ) as service:
        assert service.stdout is not None
        url = service.stdout.readline().strip()
        before, start = resource.getrusage(resource.RUSAGE_SELF), perf_counter()
        answers = client(url, questions, at_once)
        wall, after = perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
        with urlopen(url.removesuffix("/v1") + "/counts") as told:
            counts = json.load(told)
        service.terminate()
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    counts["lost"] = len(questions) - len(answers)
    counts["misplaced"] = sum(answer != f"<{question}>" for question, answer in answers.items())
    return wall, cpu * 1000 / len(questions), counts


def main(count: str = "1500") -> None:
    """Print a line a client."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        os.environ.pop(name, None)
    questions = [
        f"灯塔里第{number}只海鸥叫什么？" if number % 2 else f"Who is gull {number}?" for number in range(int(count))
    ]
    ours("http://127.0.0.1:9", [], 1)  # imports are not timed
    print(
        f"{'client':<24}{'at once':>8}{'seconds':>9}{'floor':>7}{'ms CPU':>8}{'failed':>8}{'lost':>6}{'misplaced':>11}"
    )
    own: dict[int, float] = {}
    for name, client, steps in CLIENTS:
        for at_once in steps:
            asked = questions[:SERIAL] if client is serial else questions
            wall, cpu, counts = measured(client, asked, at_once)
            wall *= len(questions) / len(asked)
            own.setdefault(at_once, wall)
            floor = LATENCY * -(-len(questions) // at_once) + 1.0 + LATENCY
            limit = LIMITS.get((name, at_once))
            note = (
                f"  {wall / limit:.2f} of the limit" if limit else f"  {wall / own[max(at_once, 64)]:.1f} x camelbell"
            )
            scaled = f" (scaled from {SERIAL})" if client is serial else ""
            print(
                f"{name:<24}{at_once:>8}{wall:>9.2f}{floor:>7.2f}{cpu:>8.2f}"
                f"{counts['failed']:>8}{counts['lost']:>6}{counts['misplaced']:>11}{note}{scaled}",
                flush=True,
            )


if __name__ == "__main__":
    main(*sys.argv[1:])
