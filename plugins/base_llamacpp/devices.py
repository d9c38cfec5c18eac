"""Which devices transformers would run on, found without importing torch."""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version


@cache
def has_cuda() -> bool:
    """Tell whether torch, as it is installed, finds a CUDA device; ``CUDA_VISIBLE_DEVICES`` is respected."""
    try:
        built = version("torch")
    except PackageNotFoundError:
        return False
    return "+cpu" not in built and _device_count() > 0


def _device_count() -> int:
    """Return how many devices the CUDA driver shows: https://docs.nvidia.com/cuda/cuda-driver-api/"""
    library = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(library)
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return 0
    return count.value
