"""Compact summary of the columns of a table, and the difference of new rows from it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import numpy as np
import numpy.typing as npt
import pandas as pd

from parallelmlp_search._checks import check_finite, check_non_negative
from parallelmlp_search._schema import Positive
from parallelmlp_search.data.categorical import find_key
from parallelmlp_search.data.coercion import as_keys, as_numbers, as_seconds
from parallelmlp_search.data.columns import TableSchema
from parallelmlp_search.data.encoding import USED_KINDS

N_QUANTILES = 64
"""Values of a column of numbers or dates at which the share of smaller ones is stored."""

MAX_LEVELS = 500
"""Most frequent categories of a column whose shares are stored."""

MAX_ROWS = 20_000
"""Rows, evenly spaced, that are summarised; sorting more takes seconds in wide tables."""

MIN_ROWS = 50
"""Rows from which on columns are compared."""

MIN_SHIFT, MIN_MISSING, MIN_UNSEEN = 0.1, 0.05, 0.01
"""Least distance of distributions, difference of the share of missing values, and share of unseen categories
that are reported."""

CERTAINTY = 1.95
"""Multiple of the standard error of a distance that chance exceeds once in a thousand columns."""

_MAX_NUMBER = 1e300
_Z = 3.3  # the same for a share

Doubles = npt.NDArray[np.float64]
Share = Annotated[float, check_non_negative]


class StoredColumn(TypedDict):
    """Summary of one column in a file."""

    kind: Literal["numeric", "datetime", "categorical"]
    missing: Share
    shares: list[Share]
    values: NotRequired[list[Annotated[float, check_finite]]]
    levels: NotRequired[list[str]]
    single: NotRequired[Share]  # share of rows whose category no other row has


class StoredSummary(TypedDict):
    """Summary of a table in a file."""

    rows: Positive
    columns: dict[str, StoredColumn]


@dataclass(frozen=True)
class ColumnShift:
    """Difference of one column from training.

    Attributes
    ----------
    name
        Name of the column.
    distance
        Distance of the distributions of its values, missing ones left out: Kolmogorov-Smirnov for numbers and
        dates, total variation for categories.
    unseen
        Share of categories, among cells with a value, that training did not have.
    missing, missing_before
        Share of missing values, here and in training.
    """

    name: str
    distance: float
    unseen: float
    missing: float
    missing_before: float

    @property
    def size(self) -> float:
        """Greatest of the differences, by which columns are sorted."""
        return max(self.distance, self.unseen, abs(self.missing - self.missing_before))

    def to_dict(self) -> dict[str, Any]:
        """Return a form that JSON can hold."""
        return asdict(self)


def summary_of(frame: pd.DataFrame, schema: TableSchema) -> StoredSummary:
    """Return the summary of a table of plain columns.

    Parameters
    ----------
    frame, schema
        The table, and the kinds of its columns.

    Returns
    -------
    dict
    """
    frame = frame.iloc[:: max(1, -(-len(frame) // MAX_ROWS))]
    columns: dict[str, StoredColumn] = {}
    for column in schema:
        if column.kind in USED_KINDS:
            cells = frame[column.name]
            if column.kind in ("numeric", "datetime"):
                columns[column.name] = _of_numbers(cells, column.kind)
            else:
                columns[column.name] = _of_levels(cells)
    return {"rows": len(frame), "columns": columns}


def _numbers(cells: pd.Series, kind: str) -> Doubles:
    """Numbers, or dates in seconds, without missing ones."""
    if kind == "datetime":
        times = as_seconds(cells)
        return times[~np.isnat(times)].astype(np.int64).astype(np.float64)
    numbers = np.clip(as_numbers(cells), -_MAX_NUMBER, _MAX_NUMBER)  # JSON has no infinities
    return numbers[~np.isnan(numbers)]


def _of_numbers(cells: pd.Series, kind: Literal["numeric", "datetime"]) -> StoredColumn:
    known = np.sort(_numbers(cells, kind))
    places = np.linspace(0, len(known) - 1, N_QUANTILES if len(known) else 0).astype(np.intp)
    values = np.unique(known[places])
    shares = np.searchsorted(known, values, side="right") / max(1, len(known))
    return {
        "kind": kind,
        "missing": max(0.0, 1.0 - len(known) / max(1, len(cells))),
        "values": values.tolist(),
        "shares": shares.tolist(),
    }


def _of_levels(cells: pd.Series) -> StoredColumn:
    levels, counts = _levels(cells)
    first = np.argsort(-counts, kind="stable")[:MAX_LEVELS]
    return {
        "kind": "categorical",
        "missing": max(0.0, 1.0 - float(counts.sum()) / max(1, len(cells))),
        "levels": [levels[place] for place in first.tolist()],
        "shares": (counts[first] / max(1, counts.sum())).tolist(),
        "single": float((counts == 1).sum() / max(1, counts.sum())),
    }


def _levels(cells: pd.Series) -> tuple[list[str], npt.NDArray[np.int64]]:
    """Categories of a column, and the number of rows of each."""
    codes, keys = as_keys(cells)
    return keys, np.bincount(codes[codes >= 0], minlength=len(keys)).astype(np.int64)


def shifts(summary: StoredSummary, frame: pd.DataFrame, origin: Mapping[str, str]) -> list[ColumnShift]:
    """Return the columns whose values differ from training by more than chance, the worst first.

    Parameters
    ----------
    summary
        Summary of the training table.
    frame
        Table of plain columns with new rows.
    origin
        Name in the original table of columns that a reader has made. Of several of one column, the worst
        counts.

    Returns
    -------
    list of ColumnShift
    """
    worst: dict[str, ColumnShift] = {}
    if len(frame) < MIN_ROWS:
        return []
    for name, before in summary["columns"].items():
        if name in frame.columns:
            found = _shift(origin.get(name, name), frame[name], before, summary["rows"])
            if found is not None and (found.name not in worst or found.size > worst[found.name].size):
                worst[found.name] = found
    return sorted(worst.values(), key=lambda one: -one.size)


def _shift(name: str, cells: pd.Series, before: StoredColumn, n_before: int) -> ColumnShift | None:
    """Difference of a column, or None if chance explains it or it is small."""
    n_rows, missing_before = len(cells), before["missing"]
    is_number = "values" in before
    distance, unseen, n_known = _of_distribution(cells, before) if is_number else _of_shares(cells, before)
    missing = 1.0 - n_known / n_rows
    variance = 1.0 / max(1, n_known) + 1.0 / max(1.0, n_before * (1.0 - missing_before))
    noise = CERTAINTY * math.sqrt(variance)
    if not is_number:  # each category adds its own error
        shares = np.array(before["shares"])
        noise += 0.4 * float(np.sqrt(shares * (1.0 - shares) * variance).sum())
    rate = (missing * n_rows + missing_before * n_before) / (n_rows + n_before)
    noise_of_missing = _Z * math.sqrt(rate * (1.0 - rate) * (1.0 / n_rows + 1.0 / n_before))
    # categories that training had once are as frequent as those that it had not (Good and Turing)
    single = before.get("single", 0.0)
    noise_of_unseen = _Z * math.sqrt(max(single, 1.0 / max(1, n_known)) / max(1, n_known))
    is_notable = (
        distance >= max(MIN_SHIFT, noise)
        or unseen >= single + max(MIN_UNSEEN, noise_of_unseen)
        or abs(missing - missing_before) >= max(MIN_MISSING, noise_of_missing)
    )
    return ColumnShift(name, distance, unseen, missing, missing_before) if is_notable else None


def _of_distribution(cells: pd.Series, before: StoredColumn) -> tuple[float, float, int]:
    """Kolmogorov-Smirnov distance at the stored values, 0 for unseen ones, and the number of values."""
    known, values = np.sort(_numbers(cells, before["kind"])), np.array(before["values"])
    if not len(known) or not len(values):
        return 0.0, 0.0, len(known)
    shares = np.searchsorted(known, values, side="right") / len(known)
    return float(np.abs(shares - before["shares"]).max()), 0.0, len(known)


def _of_shares(cells: pd.Series, before: StoredColumn) -> tuple[float, float, int]:
    """Total variation distance, share of unseen categories, and the number of values."""
    levels, counts = _levels(cells)
    n_known = int(counts.sum())
    shares = dict(zip(before["levels"], before["shares"], strict=True))
    if not n_known or not shares:
        return 0.0, 0.0, n_known
    here, other = dict.fromkeys(shares, 0.0), 0.0
    for level, count in zip(levels, counts.tolist(), strict=True):
        known = find_key(level, shares)
        if known is None:
            other += count / n_known
        else:
            here[known] += count / n_known
    rest = max(0.0, 1.0 - sum(shares.values()))  # of categories that are too many to store
    distance = sum(abs(here[level] - share) for level, share in shares.items()) + abs(other - rest)
    return distance / 2, 0.0 if rest > 1e-9 else other, n_known
