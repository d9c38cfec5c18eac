"""A real `camelbell serve` on 127.0.0.1, with a base model whose replies follow from what it is asked."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx
import yaml

from camelbell_core.scaffold import new_bundle

TOKEN = "t0ken-of-the-tests-0123456789"
# A base model in a bundle's plugin, as a stranger would write one. Each reply is logged when it begins and ends.
CLERK = '''
import copy, json, os, time
from dataclasses import dataclass
from typing import ClassVar

from camelbell_core import hookimpl
from camelbell_core.errors import CamelBellError
from camelbell_core.roles import BaseModel, LanguageModel


class Clerk(LanguageModel):
    name = "clerk"
    top_p = seed = None

    def with_sampling(self, top_p=None, seed=None):
        twin = copy.copy(self)
        twin.top_p, twin.seed = top_p, seed
        return twin

    def note(self, *words):
        if os.environ.get("CLERK_LOG"):
            with open(os.environ["CLERK_LOG"], "a", encoding="utf-8") as file:
                file.write(" ".join(map(str, words)) + "\\n")

    def stream(self, prompt, max_tokens, temperature=0.0, stop=None):
        asked = prompt.question
        self.note("begin", asked)
        try:
            for number, piece in enumerate(self.pieces(prompt, temperature)):
                if number >= max_tokens or (stop is not None and stop()):
                    self.note("stopped", asked)
                    return
                yield piece
        finally:
            self.note("end", asked)

    def pieces(self, prompt, temperature):
        asked = prompt.question
        word, _, rest = asked.partition(" ")
        if word == "count":
            for number in range(int(rest)):
                time.sleep(0.02)
                yield f"{number} "
        elif word == "prompt":
            said = [[m.role, m.content] for m in prompt.history]
            yield json.dumps({"persona": prompt.persona, "facts": len(prompt.facts), "history": said}, ensure_ascii=False)
        elif word == "dice":
            yield json.dumps([temperature, self.top_p, self.seed])
        elif word == "break":
            yield "half "
            raise RuntimeError("the clerk broke its pencil")
        elif word == "refuse":
            raise CamelBellError("the clerk is ill", "come back tomorrow")
        elif word == "raw":
            yield "\\x1b[31mred\\x07 <script>alert(1)</script> \\u202e\\ud800 end"
        else:
            yield from asked


@dataclass(kw_only=True)
class ClerkBase(BaseModel):
    """Says back what it is asked."""

    name: ClassVar[str] = "clerk"

    def accepts(self, base):
        return base == "clerk"

    def load(self, base, adapter=None):
        return Clerk()

    def load_trainable(self, base):
        raise NotImplementedError


@hookimpl
def register_base_models():
    return [ClerkBase]
'''
STORY = """
timeline: {part: {zh: "第{n}卷", en: "volume {n}"}, chapters: [3, 3]}
facts:
  - {id: fog, about: [lumen], source: 2-1, text: {zh: 岛上常常起雾。, en: Fog is frequent on the island.}}
"""


def make_bundle(root: Path, folder_name: str = "lumen", /, guard: tuple[str, ...] = (), **changes: Any) -> Path:
    """Write a bundle whose base is the clerk, with a timeline of two parts, and return the folder of bundles."""
    folder = new_bundle(folder_name, "", root)
    config = folder / "character.yaml"
    data = yaml.safe_load(config.read_text(encoding="utf-8"))
    data |= {"base": "clerk", "guard": [*guard], **changes}
    config.write_text(yaml.safe_dump(data, allow_unicode=True), encoding="utf-8")
    (folder / "plugin.py").write_text(CLERK, encoding="utf-8")
    story = STORY.replace("lumen", data["entity"])
    (folder / "canon" / "story.yaml").write_text(story, encoding="utf-8")
    return root


class Served:
    """A server in a process of its own."""

    def __init__(self, process: subprocess.Popen[bytes], url: str, log: Path, clerk: Path) -> None:
        self.process, self.url, self.log, self.clerk = process, url, log, clerk
        self.port = int(url.rsplit(":", 1)[1])
        self.http = httpx.Client(base_url=url, timeout=60, trust_env=False)

    def ask(self, *messages: Any, status: int = 200, model: str = "lumen", **more: Any) -> Any:
        """Return the JSON of a reply to messages: texts in turn of user and assistant, or whole messages."""
        reply = self.http.post("/v1/chat/completions", json=request(*messages, model=model, **more))
        assert reply.status_code == status, reply.text
        return reply.json()

    def said(self, *messages: Any, **more: Any) -> str:
        """Return the text of a reply."""
        return str(self.ask(*messages, **more)["choices"][0]["message"]["content"])

    def events(self, *messages: Any, **more: Any) -> list[Any]:
        """Return the events of a streamed reply, [DONE] as text."""
        with self.http.stream("POST", "/v1/chat/completions", json=request(*messages, stream=True, **more)) as reply:
            assert reply.status_code == 200, reply.read()
            assert reply.headers["content-type"].startswith("text/event-stream")
            return list(events_of(reply))

    def noted(self) -> list[str]:
        """Return what the clerk wrote down."""
        return self.clerk.read_text(encoding="utf-8").splitlines() if self.clerk.exists() else []

    def counted(self, name: str, **labels: str) -> float:
        """Return a number of /metrics, summed over the labels that are not given."""
        from prometheus_client.parser import text_string_to_metric_families

        text = self.http.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"}).text
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )


def request(*messages: Any, model: str = "lumen", **more: Any) -> dict[str, Any]:
    """Return the body of a request."""
    roles = ("user", "assistant")
    said = [m if isinstance(m, dict) else {"role": roles[i % 2], "content": m} for i, m in enumerate(messages)]
    return {"model": model, "messages": said, **more}


def events_of(reply: httpx.Response) -> Iterator[Any]:
    """Yield what a stream of server-sent events holds."""
    for line in reply.iter_lines():
        if line.startswith("data: "):
            yield line[6:] if line[6:] == "[DONE]" else json.loads(line[6:])


@contextmanager
def serving(
    root: Path, *names: str, characters: Path | None = None, port: int = 0, env: dict[str, str] | None = None
) -> Iterator[Served]:
    """Start ``camelbell serve`` with these arguments, wait until it listens, and stop it at the end."""
    root.mkdir(parents=True, exist_ok=True)
    log, clerk = root / "serve.log", root / "clerk.log"
    given = {k: v for k, v in os.environ.items() if k not in ("CAMELBELL_PLUGINS", "CAMELBELL_TOKEN")}
    given |= {"CAMELBELL_HOME": str(root / "home"), "CLERK_LOG": str(clerk), "PYTHONUNBUFFERED": "1", **(env or {})}
    places = ["--characters", str(characters)] if characters else []
    command = [sys.executable, "-m", "camelbell_core.cli", "serve", *names, "--port", str(port), *places]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=given, cwd=root)
    try:
        served = Served(process, _address(process, log), log, clerk)
        with served.http:
            yield served
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    for _ in range(6000):
        for line in log.read_text(encoding="utf-8").splitlines():
            if line.startswith("API "):
                return line.split()[1].removesuffix("/v1")
        assert process.poll() is None, log.read_text(encoding="utf-8")
        time.sleep(0.05)
    raise AssertionError("the server does not start")


def until(true: Any, seconds: float = 120) -> None:
    """Wait until a condition holds."""
    for _ in range(int(seconds / 0.02)):
        if true():
            return
        time.sleep(0.02)
    raise AssertionError("it did not become true")
