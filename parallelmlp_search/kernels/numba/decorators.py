"""Decorator of the functions that numba compiles as parts of entry points."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

# contract: fused multiply-add; nsz: the sign of zero may change. The order of sums is kept.
OPTIONS: dict[str, Any] = {"fastmath": {"contract", "nsz"}, "error_model": "numpy"}

# Wrappers for calls from Python take a third of the compilation time. Nothing here has reference counts.
WITHOUT_WRAPPERS: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "_nrt": False}


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a part of other functions."""
    compiled: Callable[..., Any] = numba.njit(**OPTIONS, **WITHOUT_WRAPPERS)(function)
    return compiled
