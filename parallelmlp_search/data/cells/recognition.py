"""Recognition of the columns of a table whose cells need a reader."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, cast, get_args

import numpy as np
import pandas as pd

from parallelmlp_search._checks import check_choice
from parallelmlp_search.data.cells.base import (
    MIN_ALIKE_SHARE,
    MIN_READ_SHARE,
    Candidate,
    Cells,
    example,
    shortened,
)
from parallelmlp_search.data.cells.dates import DateCells, fit_dates
from parallelmlp_search.data.cells.durations import fit_durations
from parallelmlp_search.data.cells.lists import fit_lists
from parallelmlp_search.data.cells.numbers import Decimal, NumberCells, fit_numbers
from parallelmlp_search.data.cells.records import frequent_keys, parse_record, record_frame
from parallelmlp_search.data.cells.table import ColumnReading, RecordCells, TableReader, output_names
from parallelmlp_search.data.cells.texts import fit_texts, force_texts
from parallelmlp_search.data.coercion import as_keys
from parallelmlp_search.data.columns import (
    NEARLY_DISTINCT,
    ColumnKind,
    TableSchema,
    recognise_columns,
)
from parallelmlp_search.data.frames import as_frame
from parallelmlp_search.data.order import order_of_column
from parallelmlp_search.exceptions import DataError, near_miss

ColumnType = Literal[
    "numeric", "currency", "percent", "quantity", "duration", "datetime", "boolean", "categorical", "ordinal",
    "text", "list", "json", "ignore",
]  # fmt: skip
COLUMN_TYPES: tuple[ColumnType, ...] = get_args(ColumnType)
"""Kinds that a user can set."""

_NUMBERS = ("numeric", "currency", "percent", "quantity")
_PLAIN: Mapping[str, ColumnKind] = {
    "numeric": "numeric", "datetime": "datetime", "boolean": "boolean", "categorical": "categorical",
    "ordinal": "ordinal", "ignore": "identifier",
}  # fmt: skip
SET_BY_USER = "set by the user"


@dataclass(frozen=True)
class ReadTable:
    """Table of plain columns.

    Attributes
    ----------
    reader
        Reader of the original columns.
    frame
        The plain columns.
    schema
        Kinds of the plain columns.
    """

    reader: TableReader
    frame: pd.DataFrame
    schema: TableSchema


def read_columns(frame: Any, column_types: Mapping[str, str] | None = None) -> ReadTable:
    """Recognise the columns of a table, and read those that are no plain numbers, dates or categories.

    Columns that :func:`recognise_columns` takes for categories or for distinct texts are examined: money,
    percentages, numbers with separators or units, dates of other formats, durations, JSON objects, lists and
    texts get a reader if it can read 95 % of the cells that are not missing.

    Parameters
    ----------
    frame
        Any table that `as_frame` accepts.
    column_types
        Kind by column name, one of :data:`COLUMN_TYPES`, for columns that are not to be recognised.

    Returns
    -------
    ReadTable

    Raises
    ------
    DataError
        If there is no column of a name in `column_types`, or its cells cannot be read as that kind.
    InvalidParameterError
        If a kind is unknown.
    """
    frame = as_frame(frame)
    types = _checked_types(column_types, [str(name) for name in frame.columns])
    wanted = {name: _PLAIN[kind] for name, kind in types.items() if kind in _PLAIN}
    schema = recognise_columns(frame, overrides=wanted)
    schema = _with_set_orders(frame, schema, types)
    candidates: dict[str, Candidate] = {}
    cells: dict[str, Cells] = {}
    for column in schema:
        series = frame[column.name]
        if not _holds_objects(series):
            continue
        set_kind = types.get(column.name)
        if set_kind in ("boolean", "categorical", "ordinal", "ignore"):
            continue
        is_open = column.kind == "categorical" or column.reason == NEARLY_DISTINCT
        if set_kind is None and not is_open:
            continue
        cells[column.name] = Cells.of(series)
        found = _forced(cells[column.name], column.name, set_kind) if set_kind else _best(cells[column.name])
        if found is not None:
            candidates[column.name] = found
    decimal = _decimal_of(candidates.values())
    if decimal is not None:
        for name, found in candidates.items():
            if found.is_ambiguous:
                candidates[name] = _again(cells[name], found, decimal)
    return _assembled(frame, schema, candidates, cells, types)


def read_target(column: pd.Series) -> NumberCells | None:
    """Return the reader of a target of texts that are money, percentages or other numbers, or None.

    Whole numbers as texts, such as ``"1"`` and ``"2"``, remain classes.
    """
    if not _holds_objects(column):
        return None
    cells = Cells.of(column)
    found = _tried(fit_numbers, cells)
    if found is None or found.share < 1.0 or not isinstance(found.reader, NumberCells):
        return None
    is_coded = found.reader.number_kind == "numeric" and all(text.isdecimal() for text in cells.texts)
    return None if is_coded else found.reader


def _checked_types(column_types: Mapping[str, str] | None, names: list[str]) -> dict[str, ColumnType]:
    types: dict[str, ColumnType] = {}
    for name, kind in (column_types or {}).items():
        if name not in names:
            raise DataError(
                f"the kind of column {name!r} cannot be set: there is no such column"
                f"{near_miss(str(name), names)}"
            )
        kind = "ignore" if kind == "identifier" else kind
        types[name] = cast(ColumnType, check_choice(f"the kind of column {name!r}", kind, COLUMN_TYPES))
    return types


def _with_set_orders(frame: pd.DataFrame, schema: TableSchema, types: Mapping[str, str]) -> TableSchema:
    """Schema with the orders of the columns that the user has said to be ordered."""
    columns = []
    for column in schema:
        if types.get(column.name) == "ordinal":
            column = replace(column, reason=_set_order_reason(frame[column.name]))
        columns.append(column)
    return TableSchema(tuple(columns))


def _set_order_reason(column: pd.Series) -> str:
    """Evidence for the order of a column that the user has said to be ordered."""
    codes, keys = as_keys(column)
    present = [keys[code] for code in np.unique(codes[codes >= 0]).tolist()]
    order = order_of_column(column, present)
    if order is None:
        shown = ", ".join(repr(shortened(key)) for key in present[:3])
        raise DataError(
            f"the kind of column {column.name!r} cannot be ordinal: the order of its categories, such as "
            f"{shown}, is not known: write them as numbers, or use an ordered categorical of pandas"
        )
    return f"{SET_BY_USER}, {order.describe(present)}"


def _holds_objects(series: pd.Series) -> bool:
    return bool(pd.api.types.is_object_dtype(series.dtype) or pd.api.types.is_string_dtype(series.dtype))


Fit = Callable[[Cells], Candidate | None]


def _fit_records(cells: Cells, *, least: float = MIN_READ_SHARE) -> Candidate | None:
    records = [parse_record(value) for value in cells.values]
    read = np.array([record is not None for record in records], dtype=bool)
    share = cells.share(read)
    if share < least:
        return None
    # rows, not distinct values, so that rare keys are seen as rare
    table = record_frame(records, frequent_keys(records), pd.RangeIndex(len(records)))
    reader = RecordCells(read_columns(table).reader)
    return Candidate(reader, share, f"JSON objects such as {example(cells.values, read)}")


_FITS: tuple[Fit, ...] = (fit_numbers, fit_dates, fit_durations, _fit_records, fit_lists, fit_texts)


def _best(cells: Cells) -> Candidate | None:
    """Reader of most of the cells of a column, the first of several."""
    best: Candidate | None = None
    for fit in _FITS:
        found = _tried(fit, cells)
        if found is not None and (best is None or found.share > best.share):
            best = found
            if best.share >= MIN_READ_SHARE:
                break
    return best


def _tried(fit: Fit, cells: Cells) -> Candidate | None:
    """Fit of all cells, if that of a sample succeeds."""
    sample = cells.sample()
    found = fit(sample)
    return found if found is None or sample is cells else fit(cells)


def _forced(cells: Cells, name: str, kind: str) -> Candidate | None:
    """Reader of a kind that the user has set; None if the column is read as it is."""
    fits: Mapping[str, Fit] = {
        **dict.fromkeys(_NUMBERS, fit_numbers),
        "datetime": fit_dates,
        "duration": fit_durations,
        "json": partial(_fit_records, least=MIN_ALIKE_SHARE),
        "list": partial(fit_lists, is_certain=True),
        "text": force_texts,
    }
    found = fits[kind](cells)
    if found is None:
        shown = ", ".join(repr(shortened(str(value))) for value in cells.values[:3])
        raise DataError(
            f"the kind of column {name!r} cannot be {kind}: most of its cells, such as {shown}, "
            "cannot be read as that"
        )
    return found


def _decimal_of(candidates: Any) -> Decimal | None:
    """Decimal sign that most columns prove, or None."""
    proven = Counter(found.decimal for found in candidates if found.decimal and found.share >= MIN_READ_SHARE)
    return cast(Decimal, proven.most_common(1)[0][0]) if proven else None


def _again(cells: Cells, found: Candidate, decimal: Decimal) -> Candidate:
    """Read an ambiguous column by the decimal sign of the others."""
    fit = fit_dates if isinstance(found.reader, DateCells) else fit_numbers
    return fit(cells, decimal) or found


def _assembled(
    frame: pd.DataFrame,
    schema: TableSchema,
    candidates: Mapping[str, Candidate],
    cells: Mapping[str, Cells],
    types: Mapping[str, str],
) -> ReadTable:
    """Apply the readers, and recognise the columns that they make."""
    taken = set(schema.names)
    readings = []
    plain: dict[str, Any] = {}
    made: dict[str, Any] = {}
    for column in schema:
        found = candidates.get(column.name)
        is_set = column.name in types
        if found is None or (found.share < MIN_READ_SHARE and not is_set):
            note = None if found is None else _unread_note(found, cells[column.name], column.name)
            readings.append(ColumnReading(column.name, column.kind, column.reason, note=note))
            plain[column.name] = frame[column.name].array
            continue
        read = found.reader.read(frame[column.name])
        outputs = output_names(found.reader, column.name, read, taken - {column.name})
        taken |= {name for _, name in outputs}
        reason = f"{SET_BY_USER}, {found.reason}" if is_set else found.reason
        note = _order_note(found, column.name)
        readings.append(ColumnReading(column.name, found.reader.kind, reason, found.reader, outputs, note))
        made |= {name: read[suffix] for suffix, name in outputs}
        plain |= {name: None for _, name in outputs}
    reader = TableReader(tuple(readings))
    if not made:
        return ReadTable(reader, frame, schema)
    new = pd.DataFrame(made, index=frame.index)
    kinds = {column.name: column for column in (*schema, *recognise_columns(new))}
    plain |= {name: new[name].array for name in new.columns}
    return ReadTable(
        reader,
        pd.DataFrame(plain, index=frame.index, copy=False),
        TableSchema(tuple(kinds[name] for name in plain)),
    )


def _order_note(found: Candidate, name: str) -> str | None:
    """Remark on dates whose day could be the month."""
    if not (found.is_ambiguous and isinstance(found.reader, DateCells)):
        return None
    return (
        f"column {name!r} has {found.reason}, though its values do not tell the order: if it is wrong, write "
        "the dates as 2024-12-31"
    )


def _unread_note(found: Candidate, cells: Cells, name: str) -> str | None:
    """Remark on a column of which a reader could read most but not all cells."""
    probe = pd.Series(cells.values, dtype=object)
    others = found.reader.unreadable(probe)
    if found.share < MIN_ALIKE_SHARE or not others.any():
        return None
    kind = found.reader.kind
    return (
        f"{100 * found.share:.0f} % of the cells of column {name!r} are {found.reason}, but others such as "
        f"{example(cells.values, others)} are not, so it is read as categories; to count the others as "
        f"missing: --columns {kind}={name}"
    )
