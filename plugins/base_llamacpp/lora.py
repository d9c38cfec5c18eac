"""A trained PEFT adapter as a GGUF LoRA file, made once and kept in the user's data folder.

Formats: https://github.com/huggingface/safetensors#format and llama.cpp's ``convert_lora_to_gguf.py``, which
names a pair of matrices after the weight that it changes. Their scale is multiplied into the second matrix, so that
``alpha`` is not needed and every weight may have a scale of its own.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from camelbell_core.errors import CamelBellError, ModelMismatch
from camelbell_core.roles import GgufBase

_FORMAT = 1  # raised when the file that is written changes
_NAME = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])\.weight")
_FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
_HINT = "run it by transformers: --base transformers:{base}"


def lora_file(adapter: Path, base: GgufBase) -> Path:
    """Return the adapter as a GGUF file for this base, written now if the data folder has none."""
    from camelbell_core.character import data_dir

    weights = adapter / "adapter_model.safetensors"
    try:
        config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
        data = weights.read_bytes()
    except FileNotFoundError as error:
        raise ModelMismatch(
            f"the adapter {str(adapter)!r} has no {Path(error.filename).name}", _HINT.format(base=base.name)
        ) from error
    except (OSError, ValueError) as error:
        raise ModelMismatch(f"the adapter {str(adapter)!r} cannot be read: {error}", "train again") from error
    key = sha256(data)
    key.update(json.dumps([_FORMAT, base.fingerprint, config], sort_keys=True).encode())
    file = data_dir() / "models" / "lora" / f"{key.hexdigest()[:32]}.gguf"
    if file.is_file():
        return file
    pairs = dict(_converted(adapter, base, config, data))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=file.parent, ignore_cleanup_errors=True) as folder:
            draft = Path(folder) / file.name
            _write(draft, base.metadata()["general.architecture"], pairs)
            os.replace(draft, file)
    except OSError as error:
        raise CamelBellError(f"cannot write {str(file)!r}: {error.strerror or error}") from error
    return file


def _write(file: Path, architecture: str, tensors: Mapping[str, Any]) -> None:
    from gguf import GGUFWriter

    writer = GGUFWriter(file, architecture)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 0.0)  # the scale stands in the matrices
    for name, values in tensors.items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _converted(adapter: Path, base: GgufBase, config: dict[str, Any], data: bytes) -> Iterator[tuple[str, Any]]:
    """Yield the matrices under the names of llama.cpp, float32: lora_a is (rank, in), lora_b is (out, rank)."""
    import numpy as np
    from gguf import MODEL_ARCH, get_tensor_name_map

    def wrong(what: str) -> ModelMismatch:
        return ModelMismatch(
            f"the adapter {str(adapter)!r} cannot be run by llama.cpp: {what}", _HINT.format(base=base.name)
        )

    for key in ("use_dora", "use_qalora", "use_bdlora", "modules_to_save", "trainable_token_indices", "lora_bias"):
        if config.get(key):
            raise wrong(f"it uses {key}")
    if config.get("bias", "none") != "none" or config.get("peft_type") != "LORA":
        raise wrong("it is no plain LoRA")
    metadata = base.metadata()
    architecture = metadata["general.architecture"]
    names = get_tensor_name_map(MODEL_ARCH[architecture.upper()], int(metadata[f"{architecture}.block_count"]))
    tensors, changes = _read(data, wrong), False
    for name, values in tensors.items():
        match = _NAME.fullmatch(name)
        target = match and names.get_name(match["module"])
        if not match or not target:
            raise wrong(f"it changes {name!r}")
        if not np.isfinite(values).all():
            raise wrong(f"{name!r} holds what is not a number")
        if match["side"] == "B":
            values = _interleaved(values, match["module"], metadata) * _scale(config, match["module"], values.shape[1])
            changes = changes or bool(values.any())
        elif name.replace(".lora_A.", ".lora_B.") not in tensors:
            raise wrong(f"{name!r} lacks its second matrix")
        yield f"{target}.weight.lora_{match['side'].lower()}", np.ascontiguousarray(values, np.float32)
    if not changes:
        raise ModelMismatch(
            f"the adapter {str(adapter)!r} changes no logit of {base.name!r}",
            "it is empty or was not applied: train again",
        )


def _scale(config: dict[str, Any], module: str, rank: int) -> float:
    """Return what a weight's change is multiplied by: alpha over the rank, or over its root."""
    patterns: dict[str, float] = config.get("alpha_pattern") or {}
    own = (value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", module))
    alpha = float(next(own, config["lora_alpha"]))
    return float(alpha / rank**0.5) if config.get("use_rslora") else alpha / rank


def _interleaved(values: Any, module: str, metadata: dict[str, Any]) -> Any:
    """Put the rows of Llama's q and k into the order of llama.cpp, which turns pairs of neighbours, not halves."""
    if metadata["general.architecture"] != "llama" or not module.endswith(("q_proj", "k_proj")):
        return values
    heads = int(metadata["llama.attention.head_count" + ("_kv" if module.endswith("k_proj") else "")])
    rows, rank = values.shape
    return values.reshape(heads, 2, rows // heads // 2, rank).swapaxes(1, 2).reshape(rows, rank)


def _read(data: bytes, wrong: Any) -> dict[str, Any]:
    """Return the tensors of a safetensors file; numpy has no bfloat16, so its bits become those of a float32."""
    import numpy as np

    try:
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        header.pop("__metadata__", None)
        tensors = {}
        for name, entry in header.items():
            start, end = (8 + length + place for place in entry["data_offsets"])
            kind, raw = entry["dtype"], data[start:end]
            if kind == "BF16":
                values = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
            else:
                values = np.frombuffer(raw, _FLOATS[kind]).astype(np.float32)
            tensors[name] = values.reshape(entry["shape"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise wrong(f"its weights are damaged ({error})") from error
    return tensors
