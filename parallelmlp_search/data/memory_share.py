"""Share of the memory that reading a table may take."""

from __future__ import annotations

from dataclasses import dataclass

from parallelmlp_search.exceptions import DataError

MAX_SHARE = 0.5
"""Share of the available memory for reading a table; the search needs the rest."""


@dataclass(frozen=True)
class MemoryShare:
    """Memory that reading a file may take.

    Parameters
    ----------
    label
        Name of the file in messages.
    available
        Available memory in bytes, or None for no limit.
    """

    label: str
    available: int | None

    def require(self, n_bytes: float) -> None:
        """Check that this much memory can be used.

        Raises
        ------
        DataError
            If it is more than the share.
        """
        if self.available is not None and n_bytes > MAX_SHARE * self.available:
            raise DataError(
                f"{self.label!r} cannot be read: reading it takes more than half of the "
                f"{_size(self.available)} of memory that are available: give fewer rows or columns"
            )


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"
