"""LoRA files of ChatGLM-Tuning (2023) as adapter folders of today's peft.

``chatglm-lora.pt`` is a bare dict of tensors, without a configuration. peft before 0.3 adapted the fused projection as
GPT-2's, query and value thirds each with a LoRA of their own: A [2r, h], B [2h, r, 1]. As one LoRA of rank 2r whose B is
zero outside the two blocks, and whose alpha is doubled, it adds exactly the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from camelbell_core.errors import CamelBellError
from camelbell_core.journal import write_json

_KEY = re.compile(
    r"(?:module\.)?(?:base_model\.model\.)?(transformer\.layers\.\d+\.attention\.query_key_value)"
    r"\.lora_([AB])(?:\.default)?\.weight"
)
_TARGET = "query_key_value"
_DROPOUT = 0.1  # of the scripts of 2023


def convert(file: Path, folder: Path, base: str, alpha: float) -> str:
    """Write the adapter folder and return what was found; a file that is no such LoRA is an error.

    ``alpha`` is that of the training, 32 in the scripts of 2023; ``adapter_config.json`` beside the file tells better.
    """
    known = _config_beside(file)
    alpha = float(known.get("lora_alpha", alpha))
    weights: dict[str, Tensor] = {}
    ranks, merged = set(), 0
    for layer, (a, b) in _pairs(_read(file), file).items():
        made_a, made_b, rank = _plain(a, b, known.get("enable_lora"), f"{file}: {layer}")
        ranks.add((rank, made_a.shape[0]))
        merged += made_a.shape[0] != rank
        weights[f"base_model.model.{layer}.lora_A.weight"] = made_a.contiguous()
        weights[f"base_model.model.{layer}.lora_B.weight"] = made_b.contiguous()
    if len(ranks) != 1:
        raise CamelBellError(
            f"{file}: its layers have different ranks {sorted(ranks)}", "it is no file of one training"
        )
    ((rank, wide),) = ranks
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, str(folder / "adapter_model.safetensors"), metadata={"format": "pt"})
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": wide,
        "lora_alpha": alpha * wide / rank,
        "lora_dropout": float(known.get("lora_dropout", _DROPOUT)),
        "target_modules": [_TARGET],
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    write_json(folder / "adapter_config.json", config)
    kind = "merged query and value adapters of peft before 0.3" if merged else "plain adapters of peft 0.3"
    return f"{len(weights) // 2} layers, r={rank}, alpha={alpha:g}: {kind}"


def _read(file: Path) -> Mapping[str, Any]:
    if not file.is_file():
        raise CamelBellError(f"there is no file {str(file)!r}")
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise CamelBellError(
            f"{file} holds more than tensors, and opening it could run code: it is not read",
            "get the file from its authors as tensors only, or as safetensors",
        ) from error
    except (RuntimeError, EOFError, ValueError, OSError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CamelBellError(f"{file} is no file of torch.save: {first}", "fetch it anew") from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CamelBellError(f"{file} is no dict of tensors", "name a LoRA file such as chatglm-lora.pt")
    return state


def _pairs(state: Mapping[str, Any], file: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Return A and B of each layer; what else the file holds is an error that names it."""
    found: dict[str, dict[str, Tensor]] = {}
    for key, value in state.items():
        match = _KEY.fullmatch(key)
        if match is None:
            raise CamelBellError(f"{file}: {key!r} is no LoRA weight of ChatGLM's query_key_value")
        found.setdefault(match[1], {})[match[2]] = value
    lonely = [layer for layer, halves in found.items() if len(halves) != 2]
    if lonely or not found:
        what = f"{lonely[0]} has only one of lora_A and lora_B" if lonely else "it holds no weights"
        raise CamelBellError(f"{file}: {what}", "the file is not whole: fetch it anew")
    return {layer: (halves["A"], halves["B"]) for layer, halves in found.items()}


def _plain(a: Tensor, b: Tensor, enabled: Any, place: str) -> tuple[Tensor, Tensor, int]:
    """Return A and B of an ordinary LoRA, and the rank that the file was trained with."""
    a, b = a.float(), b.float()
    hidden = a.shape[-1]
    if b.ndim == 2 and a.ndim == 2 and b.shape == (3 * hidden, a.shape[0]):
        return a, b, a.shape[0]
    groups = a.shape[0] // b.shape[1] if b.ndim == 3 and b.shape[1] else 0
    enabled = (
        enabled if isinstance(enabled, list) and sum(enabled) == groups else {2: [1, 0, 1], 3: [1, 1, 1]}.get(groups)
    )
    if not enabled or a.ndim != 2 or b.shape != (groups * hidden, a.shape[0] // groups, 1):
        raise CamelBellError(f"{place}: lora_A {list(a.shape)} and lora_B {list(b.shape)} are of no known LoRA")
    rank = b.shape[1]
    made = b.new_zeros(3 * hidden, groups * rank)
    group = 0
    for third, on in enumerate(enabled):
        if on:
            rows, columns = slice(third * hidden, (third + 1) * hidden), slice(group * rank, (group + 1) * rank)
            made[rows, columns] = b[group * hidden : (group + 1) * hidden, :, 0]
            group += 1
    return a, made, rank


def _config_beside(file: Path) -> dict[str, Any]:
    try:
        config = json.loads((file.parent / "adapter_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}
