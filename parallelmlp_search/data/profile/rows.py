"""Findings about columns and rows without regard to the target: copies, order, drift."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from parallelmlp_search.data.cells.recognition import SET_BY_USER, ReadTable
from parallelmlp_search.data.cells.table import ColumnReading
from parallelmlp_search.data.coercion import as_codes, as_keys, as_numbers, as_seconds, is_fast_numeric
from parallelmlp_search.data.columns import CATEGORY_KINDS
from parallelmlp_search.data.profile.findings import MAX_NAMED, Finding, listed, percent

MIN_COPY_SHARE = 0.01
"""Minimum share of repeated rows that is reported."""

N_PROBED = 4000
"""Rows, evenly spaced, on which columns are compared before whole columns are."""

MIN_DRIFT_ROWS = 500
"""Minimum number of rows of a table whose ends are compared."""

END_SHARE, MAX_END_ROWS = 0.1, 5000
"""Share of the rows at each end, and their maximum number."""

MIN_DRIFT = 0.3
"""Minimum distance of the distributions at both ends (Kolmogorov-Smirnov, or total variation) of a drift."""

N_BLOCKS, MIN_TREND = 10, 0.45
"""Blocks of rows, and the minimum share of the variance of their means that a straight line explains.

A step after 80 % of the rows has 0.48. Columns of satimage and concrete, whose rows come in groups, have at
most 0.36."""

MIN_SORTED_SHARE = 0.95
"""Minimum share of neighbours in order of a sorted column."""

_TIME_NAME = re.compile(
    r"(^|[\W_])(time|date|day|month|year|week|timestamp|period)s?([\W_]|$)", re.IGNORECASE
)


def column_findings(columns: Sequence[ColumnReading]) -> list[Finding]:
    """Return remarks of the recognition, and columns that are left out."""
    found = [
        Finding("unparsed" if " but others " in column.note else "date order", column.note, (column.name,))
        for column in columns
        if column.note
    ]
    for kind, why in (("identifier", "it identifies the rows"), ("constant", "it has only one value")):
        names = [column.name for column in columns if column.kind == kind]
        if names:
            verb, reason = (
                ("is", why)
                if len(names) == 1
                else (
                    "are",
                    why.replace("it ", "they ").replace("identifies", "identify").replace("has", "have"),
                )
            )
            noun = "column" if len(names) == 1 else f"{len(names):,} columns"
            text = f"{noun} {listed(names)} {verb} left out: {reason}"
            found.append(Finding(kind, text, tuple(names), "note"))
    return found + _order_notes(columns)


def _order_notes(columns: Sequence[ColumnReading]) -> list[Finding]:
    """Notes on ordered categories, one for each order."""
    by_order: dict[str, list[str]] = {}
    for column in columns:
        if column.kind == "ordinal" and not column.reason.startswith(SET_BY_USER):
            by_order.setdefault(column.reason, []).append(column.name)
    found = []
    for reason, names in by_order.items():
        verb = "column {} has" if len(names) == 1 else "columns {} have"
        text = (
            f"{verb.format(listed(names))} ordered categories ({reason}); to ignore the order: "
            f"--columns categorical={','.join(names[:MAX_NAMED])}"
        )
        found.append(Finding("ordered categories", text, tuple(names), "note"))
    return found


def copied_columns(frame: pd.DataFrame, columns: Sequence[ColumnReading]) -> list[Finding]:
    """Return groups of columns with the same values in all rows."""
    step = max(1, len(frame) // N_PROBED)
    groups: dict[bytes, list[str]] = {}
    for column in columns:
        if column.kind != "constant":
            groups.setdefault(_signature(frame[column.name].iloc[::step]), []).append(column.name)
    found = []
    for names in groups.values():
        first = frame[names[0]]
        same = [name for name in names[1:] if _signature(frame[name]) == _signature(first)]
        if same:
            text = f"columns {listed([names[0], *same])} hold the same values in all rows: keep one of them"
            found.append(Finding("duplicate columns", text, (names[0], *same)))
    return found


def _signature(cells: pd.Series) -> bytes:
    """Bytes that are equal for columns of equal values."""
    if is_fast_numeric(cells.dtype):
        numbers = cells.to_numpy(dtype=np.float64) + 0.0  # no negative zero
        return np.where(np.isnan(numbers), np.nan, numbers).tobytes()
    codes, values = as_codes(cells)
    return codes.tobytes() + "\0".join(map(str, values)).encode(errors="replace")


def copied_rows(frame: pd.DataFrame, target: npt.NDArray[np.generic] | None) -> list[Finding]:
    """Return the finding that rows repeat others, target included."""
    whole = (
        frame if target is None else frame.assign(**{"\0target": list(target) if target.ndim > 1 else target})
    )
    codes = pd.DataFrame({name: _row_codes(whole[name]) for name in whole.columns[:1]})
    candidates = np.arange(len(whole))
    # few columns with many values settle most rows, so that the others are looked at for few rows
    for name in _telling_first(whole):
        codes[name] = pd.Series(_row_codes(whole[name].iloc[candidates]), index=codes.index)
        repeated = codes.duplicated(keep=False).to_numpy()
        candidates, codes = candidates[repeated], codes[repeated].reset_index(drop=True)
        if not len(candidates):
            return []
    n_copies = int(codes.duplicated().sum())
    if n_copies < MIN_COPY_SHARE * len(whole):
        return []
    text = (
        f"{n_copies:,} of {len(whole):,} rows ({percent(n_copies / len(whole))}) repeat another row; copies "
        "on both sides of a split make scores too good: remove them, or give copies the same group"
    )
    return [Finding("duplicate rows", text)]


def _telling_first(frame: pd.DataFrame) -> list[str]:
    """Names of columns, those with the most distinct values in some rows first."""
    probe = frame.iloc[:: max(1, len(frame) // 500)]
    distinct = {name: len(pd.unique(_row_codes(probe[name]))) for name in frame.columns}
    return sorted(distinct, key=lambda name: -distinct[name])


def _row_codes(cells: pd.Series) -> npt.NDArray[np.generic]:
    """Values that are equal for equal cells."""
    return cells.to_numpy() if is_fast_numeric(cells.dtype) else as_codes(cells)[0]


def drift(read: ReadTable, target: npt.NDArray[np.generic] | None, target_name: str) -> list[Finding]:
    """Compare the first and the last rows.

    Parameters
    ----------
    read
        The table.
    target
        Target of shape (rows,) or (rows, outputs), or None.
    target_name
        Name of the target in messages.

    Returns
    -------
    list of Finding
        A warning if distributions differ and the rows can be in order of time; a note if the rows are sorted
        by the target or by another column, which explains the difference.
    """
    frame, schema = read.frame, read.schema
    n_rows = len(frame)
    if n_rows < MIN_DRIFT_ROWS:
        return []
    size = min(MAX_END_ROWS, max(50, int(END_SHARE * n_rows)))
    used = schema.of_kind("numeric", *CATEGORY_KINDS)
    shifts = {name: _shift(frame[name], schema.kinds[name], size) for name in used}
    ordered = sorted(shifts, key=lambda name: -shifts[name])
    drifting = [name for name in ordered if shifts[name] >= MIN_DRIFT and _has_trend(frame[name])]
    if not drifting:
        return []
    if target is not None and target.ndim == 1 and _is_sorted(pd.Series(target)):
        return [_order(target_name)]
    times = [name for name in schema.of_kind("datetime") if _is_sorted(pd.Series(as_seconds(frame[name])))]
    times += [name for name in used if _TIME_NAME.search(name) and _is_sorted(frame[name])]
    if not times:
        sorted_by = [name for name in drifting if _is_sorted(frame[name])]
        if sorted_by:
            return [_order(sorted_by[0])]
    # a counter of the rows or a time itself is no drift
    moving = [name for name in drifting if not _is_sorted(frame[name])]
    columns = tuple(dict.fromkeys(_origin(read, name) for name in moving))
    if not columns:
        return []
    verb = "differs" if len(columns) == 1 else "differ"
    noun = "column" if len(columns) == 1 else "columns"
    if times:
        origin = _origin(read, times[0])
        remedy = f"the rows are in order of {origin!r}, so validate on later rows with --time-column {origin}"
    else:
        remedy = "if the rows are in order of time, name the column of times with --time-column"
    text = f"{noun} {listed(columns)} {verb} between the first and the last rows: {remedy}"
    return [Finding("drift", text, columns)]


def _order(name: str) -> Finding:
    text = f"the rows are sorted by {name!r}; splits are random, so nothing needs to be done"
    return Finding("order", text, (name,), "note")


def _origin(read: ReadTable, name: str) -> str:
    """Name of the original column of a plain one."""
    return origins(read).get(name, name)


def origins(read: ReadTable) -> Mapping[str, str]:
    """Return the original column of each column that a reader made."""
    return {made: column.name for column in read.reader.columns for _, made in column.outputs}


def _shift(cells: pd.Series, kind: str, size: int) -> float:
    """Distance of the distributions of the first and the last rows, in [0, 1]."""
    if kind == "numeric":
        first, last = (as_numbers(part) for part in (cells.iloc[:size], cells.iloc[-size:]))
        first, last = first[~np.isnan(first)], last[~np.isnan(last)]
        if min(len(first), len(last)) < size // 2:
            return 0.0
        every = np.concatenate([first, last])
        below = [np.searchsorted(np.sort(part), every, side="right") / len(part) for part in (first, last)]
        return float(np.abs(below[0] - below[1]).max())
    codes, keys = as_keys(pd.concat([cells.iloc[:size], cells.iloc[-size:]]))
    counts = [np.bincount(part + 1, minlength=len(keys) + 1) for part in (codes[:size], codes[size:])]
    if len(keys) > size // 10:  # too many categories to compare their frequencies
        return 0.0
    return float(np.abs(counts[0] - counts[1]).sum() / (2 * size))


def _has_trend(cells: pd.Series) -> bool:
    """True if the values move in one direction from block to block, not back and forth."""
    if pd.api.types.is_numeric_dtype(cells.dtype):
        values = cells.rank().to_numpy(dtype=np.float64, na_value=np.nan)
    else:
        codes, keys = as_keys(cells)
        blocks = [np.bincount(part + 1, minlength=len(keys) + 1) for part in np.array_split(codes, N_BLOCKS)]
        values = (codes + 1 == int(np.argmax(np.abs(blocks[-1] - blocks[0])))).astype(np.float64)
    means = np.array([part[~np.isnan(part)].mean() for part in np.array_split(values, N_BLOCKS)])
    with np.errstate(invalid="ignore"):
        return bool(np.corrcoef(means, np.arange(N_BLOCKS))[0, 1] ** 2 >= MIN_TREND)


def _is_sorted(cells: pd.Series) -> bool:
    """True for numbers and dates in order, and for categories in few runs."""
    if pd.api.types.is_numeric_dtype(cells.dtype) or pd.api.types.is_datetime64_any_dtype(cells.dtype):
        values = cells.dropna().to_numpy()
        if len(values) < 2 or len(pd.unique(values)) < 2:
            return False
        steps = np.diff(values.astype(np.float64) if values.dtype.kind != "M" else values.astype(np.int64))
        return bool(
            max((steps >= 0).mean(), (steps <= 0).mean()) >= MIN_SORTED_SHARE and (steps != 0).any()
        ) and ((steps > 0).mean() < 0.05 or (steps < 0).mean() < 0.05)
    codes, keys = as_keys(cells)
    n_runs = 1 + int((np.diff(codes) != 0).sum())
    return len(keys) > 1 and n_runs <= 2 * len(keys) and n_runs < len(codes) / 10
