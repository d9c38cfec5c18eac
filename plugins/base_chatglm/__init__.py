"""ChatGLM-6B, first version, as a model of transformers; importing this package registers it there.

``AutoConfig``, ``AutoModel``, ``AutoModelForCausalLM`` and ``AutoTokenizer`` then open its folders without remote code.
The command ``import-adapter`` turns the LoRA files of 2023 into adapters of today.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from camelbell_core import hookimpl
from camelbell_core.roles import BaseModel, LanguageModel, TrainableBase
from camelbell_plugins.base_chatglm.registration import register_when_imported

_HUB_IDS = ("thudm/chatglm-6b", "zai-org/chatglm-6b")
_FILES = ["*.json", "*.safetensors", "*.bin", "*.model"]

register_when_imported()


@dataclass(kw_only=True)
class ChatGLMBase(BaseModel):
    """ChatGLM-6B: a folder or hub id of its releases, the int8 and int4 ones too."""

    name: ClassVar[str] = "chatglm"

    def accepts(self, base: str) -> bool:
        """Tell whether the name is a folder with a ChatGLM of the first version, or the hub id of a release."""
        try:
            config = json.loads((Path(base).expanduser() / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return base.lower().startswith(_HUB_IDS)
        # Later versions have the same model_type, and other sizes by other names.
        return isinstance(config, dict) and config.get("model_type") == "chatglm" and "inner_hidden_size" in config

    def profile(self, base: str) -> str:
        """Return the preset that fits this base."""
        return "chatglm-6b"

    def load(self, base: str, adapter: Path | None = None) -> LanguageModel:
        """Open the model for talking."""
        from camelbell_core.model import TorchModel

        return TorchModel(self.load_trainable(base), adapter)

    def load_trainable(self, base: str) -> TrainableBase:
        """Open the model for training."""
        from camelbell_core.folders import fetch, folder_fingerprint
        from camelbell_core.model import open_pretrained

        folder = fetch(base, _FILES)
        return open_pretrained(base, folder, folder_fingerprint(folder), quantize=self.quantize)


@hookimpl
def register_base_models() -> list[type[BaseModel]]:
    """Offer ChatGLM-6B."""
    return [ChatGLMBase]


@hookimpl
def register_commands(cli: Any) -> None:
    """Add ``camelbell import-adapter``."""
    import click

    @cli.command("import-adapter")  # type: ignore[untyped-decorator]
    @click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
    @click.option(
        "--out", type=click.Path(path_type=Path, file_okay=False), help="The adapter folder (default: FILE's name)."
    )
    @click.option(
        "--base", default="THUDM/chatglm-6b", show_default=True, help="The base model that it was trained on."
    )
    @click.option("--alpha", type=click.FloatRange(min=0, min_open=True), default=32, show_default=True)
    def import_adapter(file: Path, out: Path | None, base: str, alpha: float) -> None:
        """Turn FILE, a LoRA of ChatGLM-Tuning such as chatglm-lora.pt, into an adapter folder."""
        from camelbell_plugins.base_chatglm.legacy_lora import convert

        folder = out or file.with_suffix("")
        told = convert(file, folder, base, alpha)
        click.echo(f"{told}\nmade {folder}; talk: camelbell chat NAME --base {base} --adapter {folder}")
