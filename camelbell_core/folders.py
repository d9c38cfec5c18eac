"""Model folders: where they lie, how they are fetched from a hub, and what tells one from another."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

_EDGE = 1 << 20  # bytes read at each end of a weights file for its fingerprint
_PATTERNS = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")


def fetch(base: str, patterns: Sequence[str] = _PATTERNS) -> Path:
    """Return the folder of a model by its path or hub id; what matches ``patterns`` is fetched if it is not there yet."""
    folder = Path(base).expanduser()
    return folder if (folder / "config.json").is_file() else _download(base, patterns)


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


def _download(base: str, patterns: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    from camelbell_core.errors import CamelBellError

    try:
        folder = Path(snapshot_download(base, allow_patterns=list(patterns)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CamelBellError(
            f"the base model {base!r} cannot be fetched: {first}",
            "check the id and the network, or name a local folder",
        ) from error
    if not (folder / "config.json").is_file():
        raise CamelBellError(f"{base!r} holds no model of transformers: it has no config.json", "name another id")
    return folder
