"""Free memory and errors of too little memory.

The states of thousands of members are allocated by one shard and freed by another, a few hundred kilobytes at
a time. The C library keeps such holes, so that a process grows to twice the memory that it uses.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from functools import cache

import torch

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_MAX_KEPT_BYTES = 1 << 20


@cache
def _trim() -> Callable[[int], int] | None:
    """``malloc_trim`` of glibc, or None with other C libraries."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):
        return None
    trim.argtypes, trim.restype = [ctypes.c_size_t], ctypes.c_int
    return trim


def keep_no_free_memory() -> None:
    """Let the C library return large blocks to the system at once, for the rest of the process.

    Otherwise glibc keeps freed blocks of up to 32 MB, and those of each thread apart from the others.
    """
    try:
        options = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    for option in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD):
        options(option, _MAX_KEPT_BYTES)
    options(_M_ARENA_MAX, 1)


def return_free_memory() -> bool:
    """Return free pages to the system; True if there were any, False without glibc."""
    trim = _trim()
    return trim is not None and bool(trim(0))


def release_device_memory(device: torch.device) -> None:
    """Return memory that torch caches to the device."""
    # a captured graph and its step reference each other
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
