"""Durations in cells: ``1h 30m``, ``2 days``, ``36 months``, ``1:30:00``, ``PT1H30M``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from parallelmlp_search._checks import check_boolean
from parallelmlp_search.data.cells.base import (
    MIN_ALIKE_SHARE,
    Candidate,
    Cells,
    convert,
    example,
    plain_number,
    unreadable_rows,
)
from parallelmlp_search.data.cells.units import SECONDS, is_missing
from parallelmlp_search.data.coercion import Floats, as_numbers, is_fast_numeric

_CLOCK = re.compile(
    r"(?:(?P<days>\d+)\s*d(?:ays?)?,?\s+)?(?P<first>\d{1,4}):(?P<second>[0-5]\d)(?::(?P<third>[0-5]\d(?:[.,]\d+)?))?"
)
_PART = re.compile(r"(\d+(?:[.,]\d+)?)\s*([a-zµ]+\.?)")
_PARTS = re.compile(r"(?:\d+(?:[.,]\d+)?\s*[a-zµ]+\.?(?:\s*(?:,|and|und)?\s*)?)+")
_ISO = re.compile(
    r"p(?:(?P<y>\d+(?:\.\d+)?)y)?(?:(?P<mo>\d+(?:\.\d+)?)m)?(?:(?P<w>\d+(?:\.\d+)?)w)?(?:(?P<d>\d+(?:\.\d+)?)d)?"
    r"(?:t(?:(?P<h>\d+(?:\.\d+)?)h)?(?:(?P<min>\d+(?:\.\d+)?)m)?(?:(?P<s>\d+(?:\.\d+)?)s)?)?"
)


@dataclass(frozen=True)
class DurationCells:
    """Reader of durations, in seconds.

    Parameters
    ----------
    short_is_minutes
        True if ``3:45`` is 3 minutes 45 seconds, False if it is 3 hours 45 minutes.
    """

    short_is_minutes: bool = False
    form: ClassVar[str] = "durations"

    @property
    def kind(self) -> str:
        """Kind of the column."""
        return "duration"

    @property
    def treatment(self) -> str:
        """Short description of the result."""
        return "number, in seconds"

    def read(self, column: pd.Series) -> dict[str, Any]:
        """Return the durations in seconds."""
        return {"": self._seconds(column)}

    def unreadable(self, column: pd.Series) -> npt.NDArray[np.bool_]:
        """Return the rows whose cells are neither missing nor durations."""
        return unreadable_rows(column, ~np.isnan(self._seconds(column)))

    def _seconds(self, column: pd.Series) -> Floats:
        if is_fast_numeric(column.dtype) or pd.api.types.is_timedelta64_dtype(column.dtype):
            return as_numbers(column)
        return convert(column, self.parse)

    def parse(self, cell: Any) -> float:
        """Return a duration in seconds; NaN if it is missing or cannot be read."""
        if isinstance(cell, (pd.Timedelta, np.timedelta64)):
            return float(pd.Timedelta(cell).total_seconds())
        if not isinstance(cell, str):
            return plain_number(cell)
        text = cell.strip().lower()
        sign = -1.0 if text.startswith("-") else 1.0
        text = text.lstrip("+-").strip()
        if not text or is_missing(text):
            return np.nan
        if match := _CLOCK.fullmatch(text):
            first, second = float(match["first"]), float(match["second"])
            days = 86_400.0 * float(match["days"] or 0)
            if match["third"]:
                return sign * (days + 3600 * first + 60 * second + float(match["third"].replace(",", ".")))
            short = self.short_is_minutes and not match["days"]
            return sign * (days + (60 * first + second if short else 3600 * first + 60 * second))
        if text[0] == "p" and len(text) > 2 and (match := _ISO.fullmatch(text)) and any(match.groups()):
            return sign * sum(
                SECONDS[unit] * float(count) for unit, count in match.groupdict().items() if count
            )
        if _PARTS.fullmatch(text):
            parts = _PART.findall(text)
            if all(unit in SECONDS for _, unit in parts):
                return sign * sum(SECONDS[unit] * float(count.replace(",", ".")) for count, unit in parts)
        return np.nan

    def to_dict(self) -> dict[str, Any]:
        """Return a form that JSON can hold."""
        return {"short_is_minutes": self.short_is_minutes}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> DurationCells:
        """Inverse of `to_dict`."""
        return cls(check_boolean("short_is_minutes", state["short_is_minutes"]))


def fit_durations(cells: Cells) -> Candidate | None:
    """Find the form of the durations in a column; None if fewer than half of the cells are durations.

    Lengths such as ``5m`` count as durations only beside other units of time.
    """
    reader = DurationCells(_short_is_minutes(cells))
    texts = [isinstance(value, str) for value in cells.values]
    read = np.array(texts, dtype=bool)
    read &= [not np.isnan(reader.parse(value)) for value in cells.values]
    share = cells.share(read)
    if share < MIN_ALIKE_SHARE or not any(
        _is_of_time(value) for value in cells.values if isinstance(value, str)
    ):
        return None
    return Candidate(reader, share, f"durations such as {example(cells.values, read)}")


def _short_is_minutes(cells: Cells) -> bool:
    """True if two numbers with a colon are minutes and seconds: beside longer ones, or above 23 hours."""
    clocks = [_CLOCK.fullmatch(value) for value in cells.values if isinstance(value, str)]
    short = [match for match in clocks if match and not match["third"]]
    return len(short) < sum(match is not None for match in clocks) or any(int(m["first"]) > 23 for m in short)


def _is_of_time(text: str) -> bool:
    """True for a text with a unit that cannot be another one."""
    lower = text.lower()
    units = {unit for _, unit in _PART.findall(lower)} - {"m", "d", "y", "s", "w"}
    return ":" in text or lower.lstrip("+-").startswith("p") or bool(units & SECONDS.keys())
