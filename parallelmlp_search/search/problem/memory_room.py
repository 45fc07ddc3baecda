"""Check that a memory limit leaves room for a search."""

from __future__ import annotations

from parallelmlp_search._memory import resident_bytes
from parallelmlp_search.exceptions import InvalidParameterError

MIN_ROOM = 210_000_000
"""Memory that a search on a small table needs besides: libraries that training loads, and two networks."""

MARGIN = 1 << 24
"""Difference between the memory of two equal runs."""


def size_text(n_bytes: float) -> str:
    """Text of a size as users write it, rounded up: ``750M`` or ``2.3G``."""
    if n_bytes >= 1e9:
        return f"{-(-n_bytes // 1e8) / 10:.1f}G"
    return f"{-(-n_bytes // 1e6):.0f}M"


def check_room(limit: int | None, n_bytes: int = 0) -> None:
    """Check that a memory limit leaves some memory beside what the process uses.

    Parameters
    ----------
    limit
        Bytes, or None for no limit.
    n_bytes
        Bytes that will be used in any case.

    Raises
    ------
    InvalidParameterError
        If it does not.
    """
    used = resident_bytes()
    if limit is None or used is None or used + n_bytes + MIN_ROOM // 2 <= limit:
        return
    raise too_low(limit, used, n_bytes + MIN_ROOM)


def too_low(limit: int, used: int, needed: int) -> InvalidParameterError:
    """Error of a memory limit below the minimum, which it names.

    Parameters
    ----------
    limit, used, needed
        Limit, memory that is used already, and memory that is needed besides, in bytes.

    Returns
    -------
    InvalidParameterError
    """
    return InvalidParameterError(
        f"memory_limit must be at least {size_text(used + needed + MARGIN)}, but got {size_text(limit)}: "
        f"program and table use {size_text(used)}, and training needs {size_text(needed)} more"
    )
