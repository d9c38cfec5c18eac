"""The header of a GGUF file, read in one pass.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The gguf package reads arrays value by
value through a memory map, which takes most of a minute for a vocabulary of 262,144 tokens; this reads
them in a third of a second. Weights are dequantised by the gguf package.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from camelbell_core.errors import ModelMismatch

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where a tensor lies: its shape (fastest axis last), its ggml type, its offset in the file."""

    shape: tuple[int, ...]
    type: int
    offset: int


@dataclass(frozen=True, slots=True)
class Header:
    """The metadata of a GGUF file, its table of tensors, and where in the file the metadata begins and ends."""

    metadata: dict[str, Any]
    tensors: dict[str, Tensor]
    keys: tuple[int, int] = (0, 0)


class _Reader:
    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.at = 0

    def scalar(self, form: str) -> Any:
        (value,) = struct.unpack_from("<" + form, self.data, self.at)
        self.at += struct.calcsize("<" + form)
        return value

    def string(self) -> str:
        length = self.scalar("Q")
        self.at += length
        return str(self.data[self.at - length : self.at], "utf-8", "surrogateescape")

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self.array(self.scalar("I"), self.scalar("Q"))
        return self.scalar(_SCALARS[kind])

    def array(self, kind: int, count: int) -> Any:
        if kind in _SCALARS:
            values = np.frombuffer(self.data, np.dtype("<" + _SCALARS[kind]), count, self.at)
            self.at += values.nbytes
            return values
        return [self.value(kind) for _ in range(count)]


def read_header(file: Path) -> Header:
    """Return the header of a GGUF file of version 2 or 3."""
    try:
        return _read(file)
    except (struct.error, ValueError, TypeError, LookupError, ArithmeticError, RecursionError) as error:
        raise ModelMismatch(f"{file} is not a GGUF file, or one cut off within its header") from error


def _read(file: Path) -> Header:
    with file.open("rb") as source:
        reader = _Reader(memoryview(np.memmap(source, np.uint8, "r")).cast("B"))  # type: ignore[arg-type]
    if reader.scalar("I") != 0x46554747 or reader.scalar("I") not in (2, 3):
        raise ModelMismatch(f"{file} is not a GGUF file of version 2 or 3")
    tensor_count, key_count = reader.scalar("Q"), reader.scalar("Q")
    metadata, first = {}, reader.at
    for _ in range(key_count):
        key = reader.string()
        metadata[key] = reader.value(reader.scalar("I"))
    rows, last = {}, reader.at
    for _ in range(tensor_count):
        name, axes = reader.string(), reader.scalar("I")
        shape = tuple(reader.scalar("Q") for _ in range(axes))
        rows[name] = (shape[::-1], reader.scalar("I"), reader.scalar("Q"))
    step = metadata.get("general.alignment", 32)
    start = (reader.at + step - 1) // step * step
    return Header(
        metadata, {name: Tensor(shape, kind, start + at) for name, (shape, kind, at) in rows.items()}, (first, last)
    )
