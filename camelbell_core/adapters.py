"""Adapters on disk: a plain PEFT folder, a model card, and a fingerprint that is checked at every load."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from camelbell_core.errors import ModelMismatch
from camelbell_core.journal import write_json
from camelbell_core.prompts import Layout, Prompt
from camelbell_core.roles import TrainableBase

FINGERPRINT = "camelbell.json"
_PROBE = Prompt("zh", "你是谁？", "Who are you?", ("1 + 1 = 2",))
_TEXTS = (
    "你好，世界！",
    "Hello, world!",
    "  two  spaces\nnew line\t",
    "1,234.5",
    "𠮷é😀",
    "哈利·波特 Harry Potter",
    "<eos>",
)
_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_TOP = 8  # how many first tokens of the probe are kept


def tokenizer_digest(tokenizer: Any) -> str:
    """Return a hash of the ids of fixed texts, of the special ids and of the vocabulary's size."""
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in _TEXTS]
    special = [tokenizer.bos_token_id, tokenizer.eos_token_id, len(tokenizer)]
    return sha256(json.dumps([ids, special]).encode()).hexdigest()


def probe(model: Any, layout: Layout) -> tuple[Any, dict[str, Any]]:
    """Return the logits of the first token after a fixed prompt, and what is written down of them."""
    import torch

    ids = torch.tensor([layout.prefix(_PROBE)], device=model.device)
    with torch.inference_mode():
        logits = model(input_ids=ids).logits[0, -1].float().cpu()
    values, tokens = logits.topk(min(_TOP, logits.numel()))
    top = [[int(t), round(float(v), 2)] for t, v in zip(tokens, values, strict=True)]
    return logits, {"first_tokens": top, "digest": sha256(json.dumps([t for t, _ in top]).encode()).hexdigest()}


def write_fingerprint(folder: Path, base: TrainableBase, layout: Layout, model: Any, more: dict[str, Any]) -> None:
    """Write what the adapter was trained on beside it."""
    _, seen = probe(model, layout)
    write_json(
        folder / FINGERPRINT,
        {
            "base": base.name,
            "base_sha256": base.fingerprint,
            "tokenizer_sha256": tokenizer_digest(base.tokenizer),
            "layout": layout.name,
            "layout_sha256": layout.digest(),
            "probe": seen,
            **more,
        },
    )


def attach(base: TrainableBase, layout: Layout, folder: Path, name: str = "default") -> Any:
    """Return the base with the adapter on it; refuse one of another base or one that changes nothing.

    A base that carries adapters already takes this one beside them, under a ``name`` of its own, and switches to it.
    """
    if not (folder / "adapter_config.json").is_file() or not any((folder / name).is_file() for name in _WEIGHTS):
        raise ModelMismatch(f"{str(folder)!r} holds no adapter", "train one: `camelbell train NAME`")
    check_fingerprint(base, layout, folder)
    import torch

    model = _open_adapter(base, folder, name)
    tuned, _ = probe(model, layout)
    if not bool(tuned.isfinite().all()):
        raise ModelMismatch(
            f"with the adapter {str(folder)!r} {base.name!r} gives logits that are not numbers", "train again"
        )
    with model.disable_adapter():
        plain, _ = probe(model, layout)
    if torch.equal(tuned, plain):
        raise ModelMismatch(
            f"the adapter {str(folder)!r} changes no logit of {base.name!r}",
            "it is empty or was not applied: train again",
        )
    return model


def _open_adapter(base: TrainableBase, folder: Path, name: str) -> Any:
    from peft import PeftModel

    try:
        with peft_warnings():
            if not isinstance(base.model, PeftModel):
                return PeftModel.from_pretrained(base.model, str(folder), adapter_name=name).eval()
            base.model.load_adapter(str(folder), adapter_name=name)
            base.model.set_adapter(name)
            return base.model.eval()
    except Exception as error:  # peft, torch and safetensors raise types of their own
        why = " ".join(str(error).split())[:300] or type(error).__name__
        raise ModelMismatch(
            f"the adapter {str(folder)!r} cannot be put on {base.name!r}: {why}", "train again, or restore its files"
        ) from error


@contextmanager
def peft_warnings() -> Iterator[None]:
    """Make an adapter that lacks weights an error, and keep quiet that peft asks for a name that grew old."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Found missing adapter keys")
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated")
        yield


def check_fingerprint(base: TrainableBase, layout: Layout, folder: Path) -> None:
    """Raise unless the adapter's fingerprint names this base, tokenizer and prompt layout.

    An adapter of another tool has no fingerprint; it is taken as it is.
    """
    file = folder / FINGERPRINT
    if not file.is_file():
        return
    try:
        saved = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(saved, dict):
            raise ValueError("it is no object")
    except ValueError as error:
        raise ModelMismatch(f"{file} is not a fingerprint: {error}", "train again, or restore the file") from error
    now = {
        "base_sha256": base.fingerprint,
        "tokenizer_sha256": tokenizer_digest(base.tokenizer),
        "layout_sha256": layout.digest(),
    }
    words = {
        "base_sha256": f"another base model ({saved.get('base')!r}, not {base.name!r})",
        "tokenizer_sha256": "another tokenizer",
        "layout_sha256": f"another prompt layout ({saved.get('layout')!r})",
    }
    wrong = [words[key] for key, value in now.items() if saved.get(key) != value]
    if wrong:
        raise ModelMismatch(
            f"the adapter {str(folder)!r} was trained on {', '.join(wrong)}",
            "train one for this base: `camelbell train NAME --base ...`, or name the base that it was trained on",
        )
