"""Decorators of the functions that numba compiles: parts of other functions, and entry points for Python."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba.core.options import DefaultOptions

# contract: fused multiply-add; nsz: the sign of zero may change. The order of sums is kept.
OPTIONS = {"fastmath": {"contract", "nsz"}, "error_model": "numpy"}


# Reference counting costs 5 ns per call: a third of a step of a small network.
_NO_REFERENCE_COUNTS = {"_nrt": False} if hasattr(DefaultOptions, "_nrt") else {}


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a part of other functions. It may use arrays of its caller, but not create or return any."""
    compiled: Callable[..., Any] = numba.njit(**OPTIONS, **_NO_REFERENCE_COUNTS)(function)
    return compiled


def force_inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile like `inlined`, and inline the function into its caller whatever its length."""
    compiled: Callable[..., Any] = numba.njit(**OPTIONS, **_NO_REFERENCE_COUNTS, forceinline=True)(function)
    return compiled


def allocating(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a part of entry points that may create arrays."""
    compiled: Callable[..., Any] = numba.njit(**OPTIONS)(function)
    return compiled


def entry_point(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function that Python calls, and cache the machine code on disk."""
    compiled: Any
    try:
        compiled = numba.njit(**OPTIONS, nogil=True, cache=True)(function)
    except RuntimeError:  # no folder that numba could write to
        return numba.njit(**OPTIONS, nogil=True)(function)  # type: ignore[no-any-return]
    # numba compares only the file of the entry point: add the files of the functions compiled into it
    with contextlib.suppress(AttributeError, OSError):
        cache_file = compiled._cache._cache_file
        cache_file._source_stamp = cache_file._source_stamp, sources_digest(Path(__file__).parent)
    return compiled  # type: ignore[no-any-return]


def sources_digest(folder: Path) -> str:
    """Return a digest of all Python files in a folder, which are compiled into each other."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()
