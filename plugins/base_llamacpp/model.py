"""A base in llama.cpp, perhaps with an adapter, that continues prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from camelbell_core.prompts import Layout, Prompt, layout_for
from camelbell_core.roles import GgufBase, LanguageModel, TrainableBase
from camelbell_plugins.base_llamacpp.lora import lora_file
from camelbell_plugins.base_llamacpp.server import Server

_ROUNDED = 20  # the likeliest tokens that ``first_tokens`` gives


class LlamaModel(LanguageModel):
    """Continues prompts by llama.cpp; several may share one server, each with an adapter of its own.

    The ids are those of prompts.py. Sampling is done in the order of transformers: repetition penalty, temperature,
    ``top_k``, ``top_p``.
    """

    top_k = 50
    top_p = 0.9
    repetition = 1.0
    seed: int | None = None

    def __init__(self, base: GgufBase, server: Server, adapter: Path | None = None) -> None:
        self.name = base.name
        self.window = server.context
        self.parallel = server.parallel
        self._base = base
        self._server = server
        self._lora: int | None = None
        if adapter is not None:
            self.adapter = str(adapter)
            self._lora = server.use(lora_file(adapter, base))
            server.warm()  # while the tokenizer is read here
            from camelbell_core.adapters import check_fingerprint

            check_fingerprint(self._trainable(), self.layout, adapter)

    @cached_property
    def layout(self) -> Layout:  # type: ignore[override]
        """The layout that the file's tokenizer asks for."""
        return layout_for(self._base.tokenizer())

    def with_sampling(
        self,
        top_p: float | None = None,
        seed: int | None = None,
        top_k: int | None = None,
        repetition: float | None = None,
    ) -> Self:
        """Return this model with its own way to choose tokens above temperature 0; the server stays shared."""
        twin = super().with_sampling(top_p, seed)
        twin.top_k = self.top_k if top_k is None else top_k
        twin.repetition = self.repetition if repetition is None else repetition
        return twin

    def stream(
        self, prompt: Prompt, max_tokens: int, temperature: float = 0.0, stop: Callable[[], bool] | None = None
    ) -> Iterator[str]:
        """Yield the reply in pieces of whole characters; greedy at temperature 0."""
        request = {
            "prompt": self.layout.fit(prompt, self.window - max_tokens),
            "n_predict": max_tokens,
            "stop": self._endings,
            **self._sampling(temperature),
        }
        with closing(self._server.complete(request, self._lora, stop or (lambda: False))) as chunks:
            for chunk in chunks:
                # The last piece ends within a character where max_tokens cut it.
                if text := chunk["choices"][0]["text"].rstrip("\ufffd"):
                    yield text

    def first_tokens(self, prompt: Prompt, count: int = _ROUNDED) -> list[tuple[int, float]]:
        """Return the likeliest first tokens of the reply, each with the logarithm of its probability."""
        request = {
            "prompt": self.layout.fit(prompt, self.window - 1),
            "n_predict": 1,
            "n_probs": count,
            "temperature": 0.0,
        }
        for chunk in self._server.complete(request, self._lora, lambda: False):
            if told := (chunk["choices"][0].get("logprobs") or {}).get("content"):
                return [(entry["id"], entry["logprob"]) for entry in told[0]["top_logprobs"]]
        return []

    @cached_property
    def _endings(self) -> list[str]:
        """The texts at which a reply ends; the tokens that end every text are llama.cpp's own matter."""
        tokenizer = self.layout.tokenizer
        texts = (tokenizer.decode([i]) for i in self.layout.end_ids if i != tokenizer.eos_token_id)
        return [text for text in texts if text]

    def _sampling(self, temperature: float) -> dict[str, Any]:
        options: dict[str, Any] = {"temperature": max(0.0, temperature)}
        if temperature > 0:
            options |= {"top_k": self.top_k, "top_p": self.top_p, "min_p": 0.0}
            options |= {"samplers": ["penalties", "temperature", "top_k", "top_p"]}
            # llama.cpp's seeds are of 32 bits, and the last of them asks for chance.
            options |= {"seed": -1 if self.seed is None else self.seed % (2**32 - 1)}
        if self.repetition != 1:
            options |= {"repeat_penalty": self.repetition, "repeat_last_n": self.window}
        return options

    def _trainable(self) -> TrainableBase:
        base = self._base
        return TrainableBase(
            name=base.name,
            model=None,
            tokenizer=self.layout.tokenizer,
            fingerprint=base.fingerprint,
            license=base.license,
        )
