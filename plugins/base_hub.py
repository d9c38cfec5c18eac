"""Base models by hub id or local folder, opened with transformers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import ClassVar

from camelbell_core import hookimpl
from camelbell_core.roles import BaseModel, LanguageModel, TrainableBase

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_EDGE = 1 << 20  # bytes read at each end of a weights file for its fingerprint


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

    def load_trainable(self, base: str) -> TrainableBase:
        """Open the model for training."""
        from camelbell_core.model import open_pretrained

        folder = Path(base).expanduser()
        if not (folder / "config.json").is_file():
            folder = _download(base)
        return open_pretrained(base, folder, folder_fingerprint(folder))


def folder_fingerprint(folder: Path) -> str:
    """Return a hash of the configuration and of each weights file's name, size, first and last MiB.

    Reading tens of gigabytes at every start would cost minutes; two models that agree in all
    of this are one model in practice.
    """
    digest = sha256((folder / "config.json").read_bytes())
    files = [file for file in folder.iterdir() if file.suffix in {".safetensors", ".bin"}]
    for file in sorted(files, key=lambda f: f.name):
        size = file.stat().st_size
        digest.update(f"{file.name}:{size}".encode())
        with file.open("rb") as data:
            digest.update(data.read(_EDGE))
            data.seek(max(0, size - _EDGE))
            digest.update(data.read(_EDGE))
    return digest.hexdigest()


def _download(base: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    from camelbell_core.errors import CamelBellError

    patterns = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
    try:
        folder = Path(snapshot_download(base, allow_patterns=patterns))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CamelBellError(
            f"the base model {base!r} cannot be fetched: {first}",
            "check the id and the network, or name a local folder",
        ) from error
    if not (folder / "config.json").is_file():
        raise CamelBellError(f"{base!r} holds no model of transformers: it has no config.json", "name another id")
    return folder


@hookimpl
def register_base_models() -> list[type[BaseModel]]:
    """Offer models of the hub and of local folders."""
    return [HubBase]
