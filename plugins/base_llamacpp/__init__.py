"""The engine ``llamacpp``: runs bases that come as GGUF files by llama.cpp, in this process, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from camelbell_core import hookimpl
from camelbell_core.roles import Engine, GgufBase, LanguageModel


@dataclass(kw_only=True)
class LlamaCpp(Engine):
    """llama.cpp in this process (xllamacpp): fast on a processor, the adapters as GGUF LoRA files.

    ``parallel`` conversations are continued at a time, in ``context`` tokens each; 0 ``threads`` are as many as there
    are processors. A base is loaded once in a process, whatever number of characters it speaks for.
    """

    name: ClassVar[str] = "llamacpp"
    parallel: int = 1
    context: int = 4096
    threads: int = 0

    def suits(self) -> bool:
        """Tell whether this machine has no CUDA device and llama.cpp is installed."""
        from importlib.util import find_spec

        from camelbell_plugins.base_llamacpp.devices import has_cuda

        return find_spec("xllamacpp") is not None and not has_cuda()

    def load_several(self, base: GgufBase, adapters: Sequence[Path | None]) -> list[LanguageModel]:
        """Open the base once, with all the adapters; it is read in the background, and ready when the first one asks."""
        from camelbell_plugins.base_llamacpp.model import LlamaModel
        from camelbell_plugins.base_llamacpp.server import shared

        server = shared(base.file, self.parallel, self.context, self.threads)
        models: list[LanguageModel] = [LlamaModel(base, server, adapter) for adapter in adapters]
        server.warm()
        return models


@hookimpl
def register_engines() -> list[type[Engine]]:
    """Offer llama.cpp."""
    return [LlamaCpp]
