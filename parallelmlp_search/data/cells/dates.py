"""Dates and times of day in cells, in other formats than ISO 8601."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from parallelmlp_search._checks import check_choice
from parallelmlp_search.data.cells.base import (
    MIN_ALIKE_SHARE,
    Candidate,
    Cells,
    example,
    unreadable_rows,
)
from parallelmlp_search.data.coercion import as_codes, as_seconds

Times = npt.NDArray[np.datetime64]

DAY_FIRST, MONTH_FIRST = ("%d %m %Y", "%d %m %y"), ("%m %d %Y", "%m %d %y")
OTHERS = (
    "%Y %m %d", "%d %b %Y", "%b %d %Y", "%d %b %y", "%b %d %y", "%Y %b %d", "%d%b%Y", "%b %Y", "%b %y",
    "%m %Y",
)  # fmt: skip
TIME, QUARTER = "time", "quarter"
FORMATS = (*DAY_FIRST, *MONTH_FIRST, *OTHERS, TIME, QUARTER)
"""Formats of `strptime`, for dates with blanks as separators and English names of months in three letters."""

_LIKE_DATE = re.compile(
    r"\d{1,4}[./ -]+\d{1,2}[./ -]+\d{2,4}|\d{1,2}[./-]\d{4}|[^\W\d]{3,}\.?[ ,./-]*\d"
    r"|\d\.?[ ,./-]*[^\W\d]{3,}|\d:\d\d|q[1-4]|\d ?[ap]m",
    re.IGNORECASE,
)
_MAX_LENGTH = 40
_CLOCK = re.compile(
    r"[ T,:]*(?<![\d:])(?P<h>[0-2]?\d)(?::(?P<m>[0-5]\d)(?::(?P<s>[0-5]\d)(?:[.,]\d+)?)?)?"
    r"\s*(?P<half>[ap]\.?m\.?)?(?:\s*(?P<zone>gmt|utc|z|[a-z]{3,4}|[+-]\d{2}:?\d{2}))?(?![\d:a-z])",
    re.IGNORECASE,
)
_WEEKDAY = re.compile(r"^(?:mon|tue|wed|thu|fri|sat|sun)[a-z]*\.?,?\s+", re.IGNORECASE)
_ORDINAL = re.compile(r"(?<=\d)(?:st|nd|rd|th)\b", re.IGNORECASE)
_WORD = re.compile(r"[^\W\d_]{3,}\.?")
_SEPARATORS = re.compile(r"[\s,./-]+")
_ENGLISH = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTHS = {name: name for name in _ENGLISH} | {
    "mär": "mar", "mrz": "mar", "mai": "may", "okt": "oct", "dez": "dec", "fév": "feb", "fev": "feb",
    "avr": "apr", "juin": "jun", "juil": "jul", "aoû": "aug", "déc": "dec", "ene": "jan", "abr": "apr",
    "ago": "aug", "dic": "dec",
}  # fmt: skip
_QUARTERS = re.compile(r"(\d{4})[ -]?q([1-4])|q([1-4])[ /-]?(\d{4})", re.IGNORECASE)
_N_TRIED = 60


@dataclass(frozen=True)
class DateCells:
    """Reader of dates in one format; dates in ISO 8601 and values of date types are read as well.

    Parameters
    ----------
    format
        One of `FORMATS`. A time of day may follow the date; ``time`` is a time alone, which becomes one of
        1 January 1970.
    """

    format: str
    form: ClassVar[str] = "dates"

    @property
    def kind(self) -> str:
        """Kind of the column."""
        return "datetime"

    @property
    def treatment(self) -> str:
        """Short description of the result."""
        return "time of day" if self.format == TIME else "parts of the date"

    def read(self, column: pd.Series) -> dict[str, Any]:
        """Return the dates."""
        return {"": self._times(column)}

    def unreadable(self, column: pd.Series) -> npt.NDArray[np.bool_]:
        """Return the rows whose cells are neither missing nor dates of this format."""
        return unreadable_rows(column, ~np.isnat(self._times(column)))

    def _times(self, column: pd.Series) -> Times:
        if pd.api.types.is_datetime64_any_dtype(column.dtype) or isinstance(column.dtype, pd.PeriodDtype):
            return as_seconds(column)
        codes, values = as_codes(column)
        return np.append(self.parse(values), np.datetime64("NaT", "s"))[codes]

    def parse(self, values: Sequence[Any]) -> Times:
        """Return the dates of values in seconds, NaT where there is none."""
        if not values:
            return np.empty(0, dtype="datetime64[s]")
        found = np.full(len(values), np.datetime64("NaT", "s"), dtype="datetime64[s]")
        split = [_split(value) if isinstance(value, str) else ("", -1) for value in values]
        clocks = np.array([clock for _, clock in split], dtype=np.int64)
        if self.format == TIME:
            is_time = np.array([not date for date, _ in split]) & (clocks >= 0)
            found[is_time] = clocks[is_time].astype("datetime64[s]")
        elif self.format == QUARTER:
            found[:] = [_quarter(value) for value in values]
        else:
            texts = pd.Series([date or None for date, _ in split], dtype=object)
            days = pd.to_datetime(texts, format=self.format, errors="coerce").to_numpy(dtype="datetime64[s]")
            found = days + np.maximum(clocks, 0).astype("timedelta64[s]")
        rest = np.flatnonzero(np.isnat(found))
        if len(rest):
            found[rest] = as_seconds(pd.Series([values[place] for place in rest.tolist()], dtype=object))
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return a form that JSON can hold."""
        return {"format": self.format}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> DateCells:
        """Inverse of `to_dict`."""
        return cls(check_choice("format", state["format"], FORMATS))


def fit_dates(cells: Cells, decimal: str | None = None) -> Candidate | None:
    """Find the format of the dates in a column.

    Parameters
    ----------
    cells
        Values of the column.
    decimal
        Decimal sign of other columns of the table. With a comma, ``03/04/2024`` is in April.

    Returns
    -------
    Candidate or None
        None if fewer than half of the cells are dates.
    """
    looks = np.array([_looks_like_date(value) for value in cells.values], dtype=bool)
    if cells.share(looks) < MIN_ALIKE_SHARE:
        return None
    places = np.flatnonzero(looks)
    tried = [cells.values[place] for place in places[:: max(1, len(places) // _N_TRIED)]]
    # dates with slashes or dashes are American unless the table has decimal commas
    american = decimal != "," and sum("." in text for text in tried) < 0.5 * len(tried)
    order = (*MONTH_FIRST, *DAY_FIRST) if american else (*DAY_FIRST, *MONTH_FIRST)
    shares: dict[str, float] = {}
    for form in (*order, *OTHERS, TIME, QUARTER):
        reader = DateCells(form)
        if not np.isnat(reader.parse(tried)).all() and not (form == TIME and _is_duration(tried)):
            shares[form] = cells.share(looks & ~np.isnat(reader.parse(cells.values)))
    best = max(shares, key=shares.__getitem__, default="")  # the first of several
    if not best or shares[best] < MIN_ALIKE_SHARE:
        return None
    swapped = MONTH_FIRST if best in DAY_FIRST else DAY_FIRST if best in MONTH_FIRST else ()
    is_ambiguous = any(shares.get(form, 0.0) >= shares[best] for form in swapped)
    read = looks & ~np.isnat(DateCells(best).parse(cells.values))
    what = "times of day" if best == TIME else "quarters" if best == QUARTER else "dates"
    first = f", read with the {'month' if best in MONTH_FIRST else 'day'} first" if is_ambiguous else ""
    reason = f"{what} such as {example(cells.values, read)}{first}"
    return Candidate(DateCells(best), shares[best], reason, None, is_ambiguous)


def _is_duration(texts: Sequence[str]) -> bool:
    """True if times are more likely minutes and seconds: ``3:45``, none later than 12 o'clock."""
    hours = [match for text in texts if (match := _CLOCK.search(text))]
    return not any(match["half"] or match["h"].startswith("0") or int(match["h"]) > 12 for match in hours)


def _looks_like_date(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _MAX_LENGTH and bool(_LIKE_DATE.search(value))


def _split(text: str) -> tuple[str, int]:
    """Split a text into a date with blanks as separators, and seconds of the day or -1."""
    text = _ORDINAL.sub("", _WEEKDAY.sub("", text.strip()))
    clock = -1
    for match in _CLOCK.finditer(text):
        seconds = _seconds(match)
        if seconds >= 0:
            clock = seconds
            text = f"{text[: match.start()]} {text[match.end() :]}"
            break
    date = _WORD.sub(_month, text)
    return _SEPARATORS.sub(" ", date).strip(), clock


def _seconds(match: re.Match[str]) -> int:
    """Seconds of the day of a time, without regard to its zone; -1 if it is no time."""
    hour, half = int(match["h"]), (match["half"] or "").lower()
    if hour > 23 or (match["m"] is None and not half) or (half and not 1 <= hour <= 12):
        return -1
    if half:
        hour = hour % 12 + 12 * half.startswith("p")
    return 3600 * hour + 60 * int(match["m"] or 0) + int(match["s"] or 0)


def _month(match: re.Match[str]) -> str:
    """English abbreviation of a month; other words stay as they are."""
    word = match[0].rstrip(".").lower()
    return _MONTHS.get(word) or _MONTHS.get(word[:4]) or _MONTHS.get(word[:3]) or match[0]


def _quarter(value: Any) -> np.datetime64:
    match = _QUARTERS.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        return np.datetime64("NaT", "s")
    year, quarter = match[1] or match[4], match[2] or match[3]
    return np.datetime64(f"{year}-{3 * int(quarter) - 2:02d}", "s")
