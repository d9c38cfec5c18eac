"""vLLM as the engine: one process on the GPU holds the base and all adapters; prompts stay ours, sent as token ids.

Facts, guard and story time are those of the session, as with any base model. The command line is that of
https://docs.vllm.ai/en/latest/features/lora.html
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import sleep
from typing import Any

from camelbell_core.errors import CamelBellError
from camelbell_core.prompts import Layout, Prompt, layout_for
from camelbell_core.roles import LanguageModel, TrainableBase

BASE = "camelbell-base"  # vLLM's name of the base without an adapter
_RANKS = (8, 16, 32, 64, 128, 256)  # those that vLLM makes room for
_WINDOW = 4096  # tokens, as everywhere in CamelBell
_PARALLEL = 64  # replies at a time; vLLM batches them


class VllmModel(LanguageModel):
    """A base in a vLLM server, with one of its adapters."""

    parallel = _PARALLEL
    top_p = 0.9
    seed: int | None = None

    def __init__(self, url: str, name: str, layout: Layout, served: str = BASE, adapter: str = "") -> None:
        from openai import OpenAI

        self.name, self.adapter, self.layout, self.window = name, adapter, layout, _WINDOW
        self._served = served
        # No key goes anywhere, whatever the environment holds; our own line queues and retries.
        self._client = OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=120)

    def stream(
        self, prompt: Prompt, max_tokens: int, temperature: float = 0.0, stop: Callable[[], bool] | None = None
    ) -> Iterator[str]:
        """Yield the reply in pieces of whole characters; greedy at temperature 0."""
        from openai import OpenAIError

        ids = self.layout.fit(prompt, self.window - max_tokens)
        try:
            pieces = self._client.completions.create(
                model=self._served,
                prompt=ids,
                max_tokens=max_tokens,
                temperature=temperature,
                top_p=max(self.top_p, 1e-3) if temperature > 0 else 1.0,
                seed=self.seed,
                stream=True,
                extra_body={"stop_token_ids": self.layout.end_ids},
            )
            with pieces:  # left early, the connection closes and vLLM stops
                for piece in pieces:
                    if stop is not None and stop():
                        return
                    if piece.choices and (text := piece.choices[0].text.rstrip("\ufffd")):
                        yield text
        except OpenAIError as error:
            why = " ".join(str(error).split())[:200]
            raise CamelBellError(f"vLLM does not reply: {why}", "see its log") from error


def command(folder: Path, adapters: Mapping[str, Path], port: int, more: Sequence[str] = ()) -> list[str]:
    """Return the command that starts vLLM with a base folder and PEFT adapters by name."""
    made = [
        "vllm", "serve", str(folder), "--served-model-name", BASE, "--host", "127.0.0.1", "--port", str(port),
        "--dtype", "bfloat16", "--max-model-len", str(_WINDOW), "--enable-prefix-caching", "--generation-config", "vllm",
    ]  # fmt: skip
    if adapters:
        modules = [f"{served_name(name)}={path}" for name, path in adapters.items()]
        rank = str(_rank(adapters.values()))
        made += [
            "--enable-lora",
            "--max-loras",
            str(len(adapters)),
            "--max-lora-rank",
            rank,
            "--lora-modules",
            *modules,
        ]
    return [*made, *more]


def served_name(character: str) -> str:
    """Return vLLM's name of a character's adapter."""
    return f"camelbell-{character}"


def _rank(adapters: Any) -> int:
    """Return the least rank that vLLM offers and all adapters fit in."""
    most = 1
    for folder in adapters:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        most = max(most, config["r"], *config.get("rank_pattern", {}).values())
    fitting = [rank for rank in _RANKS if rank >= most]
    if not fitting:
        raise CamelBellError(f"an adapter has rank {most}, and vLLM takes {_RANKS[-1]} at most", "train a smaller one")
    return fitting[0]


@contextmanager
def running(arguments: Sequence[str], port: int) -> Iterator[str]:
    """Start vLLM, wait until it is ready, yield its URL, and end it."""
    if shutil.which(arguments[0]) is None:
        raise CamelBellError(
            "vLLM is not installed here",
            "pip install 'camelbell[vllm]' on a machine with a GPU; or start it where it is, and name it by --engine-url:\n  "
            + " ".join(arguments),
        )
    process = subprocess.Popen(arguments, stdout=2)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait(process, url)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], url: str) -> None:
    from urllib.error import URLError
    from urllib.request import ProxyHandler, build_opener

    opener = build_opener(ProxyHandler({}))
    while process.poll() is None:
        try:
            with opener.open(f"{url}/health", timeout=5):
                return
        except (URLError, OSError):
            sleep(0.5)
    raise CamelBellError(f"vLLM ended with {process.returncode} before it was ready", "what it said stands above")


def free_port() -> int:
    """Return a port on which nobody listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def open_layout(base: str, folder: Path, fingerprint: str, adapters: Mapping[str, Path]) -> Layout:
    """Return the layout of a base folder's tokenizer; adapters of another base or layout are refused."""
    from transformers import AutoTokenizer

    from camelbell_core.adapters import check_fingerprint

    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    layout = layout_for(tokenizer)
    described = TrainableBase(name=base, model=None, tokenizer=tokenizer, fingerprint=fingerprint)
    for path in adapters.values():
        check_fingerprint(described, layout, path)
    return layout
