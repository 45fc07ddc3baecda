"""Gives freed memory back to the system.

The states of thousands of members are allocated by one shard and freed by another, a few hundred kilobytes at
a time. The C library keeps such holes for itself, and what a process holds grows to twice what it uses.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache

__all__ = ["return_free_memory"]


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
