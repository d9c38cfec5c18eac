"""A GGUF file again with its weights in float16: what a base is without its quantisation.

Only the table of tensors and their data are written anew; the metadata is copied byte for byte.
"""

from __future__ import annotations

import struct
from pathlib import Path

from camelbell_plugins.base_gguf.convert import raw_weights
from camelbell_plugins.base_gguf.header import read_header

_ALIGNMENT = 32  # bytes; the format's own where a file names none


def write_half(file: Path, target: Path) -> None:
    """Write the file with every matrix in float16 and every vector in float32."""
    import numpy as np
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    header = read_header(file)
    step = int(header.metadata.get("general.alignment", _ALIGNMENT))
    data = np.memmap(file, np.uint8, "r")
    first, last = header.keys
    kinds = {name: "<f2" if len(tensor.shape) > 1 else "<f4" for name, tensor in header.tensors.items()}
    types = {"<f2": GGMLQuantizationType.F16, "<f4": GGMLQuantizationType.F32}

    def padded(size: int) -> int:
        return (size + step - 1) // step * step

    with target.open("wb") as out:
        out.write(data[:first].tobytes() + data[first:last].tobytes())
        offset = 0
        for name, tensor in header.tensors.items():
            text = name.encode()
            out.write(struct.pack("<Q", len(text)) + text + struct.pack("<I", len(tensor.shape)))
            out.write(struct.pack(f"<{len(tensor.shape)}Q", *reversed(tensor.shape)))
            out.write(struct.pack("<IQ", types[kinds[name]], offset))
            offset += padded(int(np.prod(tensor.shape)) * np.dtype(kinds[name]).itemsize)
        out.write(bytes(padded(out.tell()) - out.tell()))
        for name, tensor in header.tensors.items():
            kind = GGMLQuantizationType(tensor.type)
            raw = dequantize(raw_weights(data, tensor, kind), kind).astype(kinds[name]).tobytes()
            out.write(raw + bytes(padded(len(raw)) - len(raw)))
