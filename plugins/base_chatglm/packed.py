"""The integer weights of the int8 and int4 releases, taken apart without their kernels.

A weight of a linear layer is round(w / scale) with one scale an output row; in the int4 files a byte holds two
columns, the even one in its high half. ``weight`` [out, in * bits / 8] int8, ``weight_scale`` [out] float16.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_SCALE = "_scale"
_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_SINGLE = ("model.safetensors", "pytorch_model.bin")


def pack_rows(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Return the integers, two a byte for 4 bits, and the scale of each row of a weight [out, in]."""
    most = 2 ** (bits - 1) - 1
    weight = weight.half()  # all of it is done in half precision, as the releases were made
    scale = weight.abs().amax(-1) / most
    rounded = (weight / scale[:, None]).round().to(torch.int8)
    if bits == 4:
        rounded = (rounded[:, ::2] << 4) | (rounded[:, 1::2] & 15)
    return rounded, scale


def unpack_rows(packed: Tensor, scale: Tensor, bits: int) -> Tensor:
    """Return the weight [out, in] in float32 of its packed integers and the scales of its rows."""
    if bits == 4:
        # Shifts of int8 are arithmetic: they keep the sign.
        packed = torch.stack((packed >> 4, (packed << 4) >> 4), -1).flatten(1)
    return packed.float() * scale.float()[:, None]


def unpack(state: Mapping[str, Tensor], bits: int, dtype: torch.dtype | None) -> dict[str, Tensor]:
    """Return a state dict whose packed weights are numbers again, in ``dtype`` or in that of their scales."""
    weights = {}
    for key, tensor in state.items():
        if key.endswith(_SCALE) and key.removesuffix(_SCALE) in state:
            continue
        scale = state.get(key + _SCALE)
        if scale is not None and tensor.dtype == torch.int8:
            tensor = unpack_rows(tensor, scale, bits).to(dtype or scale.dtype)
        weights[key] = tensor if dtype is None or not tensor.is_floating_point() else tensor.to(dtype)
    return weights


def read_unpacked(name: Any, bits: int, options: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the state dict of a packed release; ``options`` are those of ``from_pretrained``."""
    folder = _folder(name, options)
    dtype = options.get("dtype", options.get("torch_dtype"))
    if isinstance(dtype, str):
        dtype = getattr(torch, dtype, None)  # "auto" is no type: that of the scales
    state: dict[str, Tensor] = {}  # whole: a weight and its scales may lie in two files
    for file in weight_files(folder):
        state |= _read(file)
    return unpack(state, bits, dtype)


def weight_files(folder: Path) -> list[Path]:
    """Return the weight files of a model folder: the shards that its index names, else the single file."""
    for name in _INDEXES:
        if (folder / name).is_file():
            index = json.loads((folder / name).read_text(encoding="utf-8"))
            return [folder / shard for shard in sorted(set(index["weight_map"].values()))]
    found = [folder / name for name in _SINGLE if (folder / name).is_file()]
    if not found:
        raise OSError(f"{folder} holds no {' and no '.join((*_SINGLE, *_INDEXES))}")
    return found[:1]


def _read(file: Path) -> dict[str, Tensor]:
    if file.suffix == ".safetensors":
        from safetensors.torch import load_file

        return dict(load_file(file))
    # weights_only: a pickle that would run code is refused.
    return dict(_tensors(torch.load(file, map_location="cpu", weights_only=True)))


def _tensors(state: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    for key, value in state.items():
        if not isinstance(value, Tensor):
            raise OSError(f"{key!r} is no tensor")
        yield key, value


def _folder(name: Any, options: Mapping[str, Any]) -> Path:
    if Path(name).is_dir():
        return Path(name) / str(options.get("subfolder") or "")
    from huggingface_hub import snapshot_download

    places = {key: options[key] for key in ("revision", "token", "cache_dir", "local_files_only") if key in options}
    return Path(snapshot_download(str(name), allow_patterns=["*.json", "*.safetensors", "*.bin"], **places))
