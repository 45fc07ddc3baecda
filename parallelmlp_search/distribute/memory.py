"""Gives freed memory back, to the system and to a device, and knows when there was too little.

The states of thousands of members are allocated by one shard and freed by another, a few hundred kilobytes at
a time. The C library keeps such holes for itself, and what a process holds grows to twice what it uses.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from functools import cache

import torch

__all__ = ["is_out_of_memory", "release_device_memory", "return_free_memory"]


@cache
def _trim() -> Callable[[int], int] | None:
    """``malloc_trim`` of glibc; other C libraries do not have it, and some do not need it."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):
        return None
    trim.argtypes, trim.restype = [ctypes.c_size_t], ctypes.c_int
    return trim


def return_free_memory() -> bool:
    """Return whole free pages to the system; whether any were, which is False where nobody can."""
    trim = _trim()
    return trim is not None and bool(trim(0))


def is_out_of_memory(error: BaseException) -> bool:
    """Of the CPU, of CUDA, or of a library that reports it in words of its own.

    Not "out of resource", which is Triton's word for a kernel that is too large: halving would not help.
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return any(words in text for words in ("allocate memory", "out of memory", "status_alloc_failed"))


def release_device_memory(device: torch.device) -> None:
    """Give memory that torch keeps for later back to the device: pieces of half the size need other holes."""
    # a captured graph and its step hold each other, and with them the memory of both
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
