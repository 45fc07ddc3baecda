"""What becomes of a function that numba compiles: part of another one, or a loop that Python calls.

Loops are kept on disk, and with them all that was compiled into them from the files beside this one.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba.core.options import DefaultOptions

__all__ = ["OPTIONS", "inner", "long", "loop", "maker", "sources_digest"]

# contract: fused multiply-add; nsz: no care for the sign of zero. Sums keep their order.
OPTIONS = {"fastmath": {"contract", "nsz"}, "error_model": "numpy"}


# who counts who holds an array pays 5 ns each time: a third of a step of a small network
_UNCOUNTED = {"_nrt": False} if hasattr(DefaultOptions, "_nrt") else {}


def inner(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiled into whoever calls it. It makes and returns no arrays, but looks at those of its caller."""
    compiled: Callable[..., Any] = numba.njit(**OPTIONS, **_UNCOUNTED)(function)
    return compiled


def long(function: Callable[..., Any]) -> Callable[..., Any]:
    """As :func:`inner`, and laid into its caller however long it is."""
    compiled: Callable[..., Any] = numba.njit(**OPTIONS, **_UNCOUNTED, forceinline=True)(function)
    return compiled


def maker(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiled into whoever calls it, and may make arrays; only loops and other makers call it."""
    compiled: Callable[..., Any] = numba.njit(**OPTIONS)(function)
    return compiled


def sources_digest(folder: Path) -> str:
    """Digest of all files that are compiled into each other: those of ``folder`` named ``compiled_*.py``."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("compiled_*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def loop(function: Callable[..., Any]) -> Callable[..., Any]:
    """Called from Python; kept on disk, so that only the first use ever waits for the compiler."""
    compiled: Any
    try:
        compiled = numba.njit(**OPTIONS, nogil=True, cache=True)(function)
    except RuntimeError:  # no folder that could be written to
        return numba.njit(**OPTIONS, nogil=True)(function)  # type: ignore[no-any-return]
    # numba looks at the file of the loop alone: one changed here would go on unchanged in those elsewhere
    with contextlib.suppress(AttributeError, OSError):
        kept = compiled._cache._cache_file
        kept._source_stamp = kept._source_stamp, sources_digest(Path(__file__).parent)
    return compiled  # type: ignore[no-any-return]
