"""Base models by hub id or local folder, opened with transformers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from camelbell_core import hookimpl
from camelbell_core.roles import BaseModel, LanguageModel, TrainableBase

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(kw_only=True)
class HubBase(BaseModel):
    """Any model folder of transformers, or a hub id such as org/name."""

    name: ClassVar[str] = "hub"

    def accepts(self, base: str) -> bool:
        """Tell whether the name is a folder with a model, or has the form of a hub id."""
        return (Path(base).expanduser() / "config.json").is_file() or bool(_HUB_ID.fullmatch(base))

    def load(self, base: str, adapter: Path | None = None) -> LanguageModel:
        """Open the model for talking."""
        from camelbell_core.model import TorchModel

        return TorchModel(self.load_trainable(base), adapter)

    def load_several(self, base: str, adapters: Sequence[Path | None]) -> list[LanguageModel]:
        """Open the model once, for talking with each of the adapters."""
        from camelbell_core.model import TorchModel

        return [*TorchModel.several(self.load_trainable(base), adapters)]

    def load_trainable(self, base: str) -> TrainableBase:
        """Open the model for training."""
        from camelbell_core.model import open_pretrained

        return open_pretrained(base, *self.files(base), quantize=self.quantize)

    def files(self, base: str) -> tuple[Path, str]:
        """Return the model's folder, fetched if it is not here, and its fingerprint."""
        from camelbell_core.folders import fetch, folder_fingerprint

        folder = fetch(base)
        return folder, folder_fingerprint(folder)


@hookimpl
def register_base_models() -> list[type[BaseModel]]:
    """Offer models of the hub and of local folders."""
    return [HubBase]
