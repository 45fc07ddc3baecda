"""Check of the address space that ``ulimit -v`` leaves."""

from __future__ import annotations

from parallelmlp_search.exceptions import InvalidParameterError

MIN_ADDRESS_SPACE = 3_000_000_000
"""Bytes of address space of a command. A search on a small table reserves 2.7 GB with one worker and 3.0 GB
with two, most of it for libraries and never used. With less, libraries fail to load or end the process."""


def check_address_space() -> None:
    """Check that the address space suffices to load the libraries.

    Raises
    ------
    InvalidParameterError
        If it does not.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < MIN_ADDRESS_SPACE:
        raise InvalidParameterError(
            f"the address space of this process is limited to {limit / 1e9:.1f} GB, but libraries reserve "
            f"{MIN_ADDRESS_SPACE / 1e9:.0f} GB: raise the limit (ulimit -v), and limit the memory with "
            "--memory-limit"
        )
