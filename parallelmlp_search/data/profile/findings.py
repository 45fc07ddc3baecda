"""Findings about a table that deserve attention before a search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Level = Literal["warning", "note"]

MAX_NAMED = 4


@dataclass(frozen=True)
class Finding:
    """Fact about a table that deserves attention.

    Attributes
    ----------
    topic
        Short name: ``identifier``, ``constant``, ``duplicate columns``, ``leakage``, ``duplicate rows``,
        ``drift``, ``order``, ``rare classes``, ``unparsed``, ``date order``, ``ordered categories``,
        ``counts`` or ``target``.
    text
        One sentence: the fact, its consequence, and what to do.
    columns
        Columns that it is about.
    level
        ``warning`` if something is probably wrong, ``note`` otherwise.
    """

    topic: str
    text: str
    columns: tuple[str, ...] = ()
    level: Level = "warning"


def listed(names: Sequence[str]) -> str:
    """Return names in quotes, the first four of many."""
    shown = [repr(name) for name in names[:MAX_NAMED]]
    if len(names) > MAX_NAMED:
        return f"{', '.join(shown)} and {len(names) - MAX_NAMED:,} more"
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def percent(share: float) -> str:
    """Format a share: ``12 %``, ``0.3 %``.

    >>> percent(0.1234), percent(0.0026), percent(0.99999)
    ('12 %', '0.3 %', '99.999 %')
    """
    value = 100 * share
    if value > 99.5 and value < 100:
        return f"{value:.3f}".rstrip("0") + " %"
    return f"{value:.0f} %" if value >= 2 else f"{value:.1f} %"
