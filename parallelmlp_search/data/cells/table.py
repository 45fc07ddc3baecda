"""Recognition of all columns of a table, and its conversion to plain columns."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from parallelmlp_search._checks import check_choice, refuse
from parallelmlp_search.data.cells.base import CellReader, is_missing_cell, shortened, warn_unreadable
from parallelmlp_search.data.cells.dates import DateCells
from parallelmlp_search.data.cells.durations import DurationCells
from parallelmlp_search.data.cells.lists import ListCells
from parallelmlp_search.data.cells.numbers import NumberCells
from parallelmlp_search.data.cells.records import parse_record, record_frame
from parallelmlp_search.data.cells.texts import TextCells
from parallelmlp_search.data.frames import as_frame, has_names
from parallelmlp_search.exceptions import DataError, DataWarning, near_miss


@dataclass(frozen=True)
class ColumnReading:
    """Kind of one column of a table, and its reader.

    Attributes
    ----------
    name, kind
        Name and kind of the column.
    reason
        Evidence for the kind, in words.
    reader
        Reader of the cells, or None for a column that is used as it is.
    outputs
        Suffixes and names of the plain columns that the reader makes.
    note
        Remark for the user, or None: cells that could not be read, or a second way to read them.
    """

    name: str
    kind: str
    reason: str
    reader: CellReader | None = None
    outputs: tuple[tuple[str, str], ...] = ()
    note: str | None = None


@dataclass(frozen=True)
class TableReader:
    """Readers of the columns of a table.

    Attributes
    ----------
    columns
        Columns of the training table in their order.
    target
        Reader of a target of texts, or None.
    """

    columns: tuple[ColumnReading, ...]
    target: NumberCells | None = None

    @cached_property
    def is_plain(self) -> bool:
        """True if all columns but the target are used as they are."""
        return all(column.reader is None for column in self.columns)

    @property
    def names(self) -> list[str]:
        """Names of the columns."""
        return [column.name for column in self.columns]

    def read(self, X: Any) -> pd.DataFrame:
        """Return a table of plain columns; columns without a reader are passed on.

        A `DataWarning` names columns with more than 5 % of unreadable cells.

        Raises
        ------
        DataError
            If a column that a reader reads is missing.
        """
        frame = as_frame(X)
        if self.is_plain:
            return frame
        if not has_names(X) and frame.shape[1] == len(self.columns):
            frame = frame.set_axis(pd.Index(self.names), axis=1)
        plain: dict[str, Any] = {}
        for column in self.columns:
            if column.reader is not None:
                if column.name not in frame.columns:
                    others = sorted(set(frame.columns) - set(self.names))
                    raise DataError(f"no column {column.name!r} in the table{near_miss(column.name, others)}")
                cells = frame[column.name]
                found = column.reader.read(cells)
                if pd.isna(next(iter(found.values()))).any():
                    warn_unreadable(column.name, column.kind, cells, column.reader.unreadable(cells))
                if isinstance(column.reader, ListCells) and column.reader.has_other_items(found):
                    warnings.warn(
                        f"column {column.name!r} has lists of which none has an item that is frequent in "
                        f"training, such as {shortened(str(cells.iloc[0]))!r}",
                        DataWarning,
                        stacklevel=2,
                    )
                plain |= {name: _values(found[suffix]) for suffix, name in column.outputs}
            elif column.name in frame.columns:
                plain[column.name] = frame[column.name].array
        return pd.DataFrame(plain, index=frame.index, copy=False)

    def with_numbers(self, frame: pd.DataFrame, target: str) -> pd.DataFrame:
        """Return a table whose target column, if it holds texts that are numbers, is read."""
        if self.target is None or target not in frame.columns:
            return frame
        return frame.assign(**{target: self.target.read(frame[target])[""]})

    def to_dict(self) -> dict[str, Any]:
        """Return a form that JSON can hold."""
        return {
            "target": None if self.target is None else self.target.to_dict(),
            "columns": [
                {"name": column.name, "kind": column.kind, "reason": column.reason}
                | (
                    {}
                    if column.reader is None
                    else {
                        "form": column.reader.form,
                        "reader": column.reader.to_dict(),
                        "outputs": [list(pair) for pair in column.outputs],
                    }
                )
                for column in self.columns
            ],
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> TableReader:
        """Inverse of `to_dict`."""
        columns = []
        for entry in state["columns"]:
            reader, outputs = (
                None,
                tuple((str(suffix), str(name)) for suffix, name in entry.get("outputs", ())),
            )
            if "form" in entry:
                form = check_choice("form", entry["form"], tuple(FORMS))
                reader = FORMS[form].from_dict(entry["reader"])
            columns.append(ColumnReading(str(entry["name"]), entry["kind"], entry["reason"], reader, outputs))
        names = [column.name for column in columns]
        made = [name for column in columns for _, name in column.outputs]
        made += [column.name for column in columns if column.reader is None]
        if len(set(names)) < len(names) or len(set(made)) < len(made):
            refuse("the names of columns", "distinct texts", names)
        target = state["target"]
        return cls(tuple(columns), None if target is None else NumberCells.from_dict(target))


@dataclass(frozen=True)
class RecordCells:
    """Reader of JSON objects, whose keys are read like columns of a table.

    Parameters
    ----------
    table
        Reader of the keys.
    """

    table: TableReader
    form: ClassVar[str] = "records"

    @property
    def kind(self) -> str:
        """Kind of the column."""
        return "json"

    @property
    def treatment(self) -> str:
        """Short description of the result."""
        keys = self.table.names
        return f"{len(keys)} key{'s' * (len(keys) != 1)}"

    def read(self, column: pd.Series) -> dict[str, Any]:
        """Return the columns of the keys."""
        records = [parse_record(cell) for cell in column]
        frame = self.table.read(record_frame(records, tuple(self.table.names), column.index))
        return {str(name): frame[name].array for name in frame.columns}

    def unreadable(self, column: pd.Series) -> npt.NDArray[np.bool_]:
        """Return the rows whose cells are neither missing nor objects."""
        return np.array([parse_record(c) is None and not is_missing_cell(c) for c in column], dtype=bool)

    def to_dict(self) -> dict[str, Any]:
        """Return a form that JSON can hold."""
        return self.table.to_dict()

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> RecordCells:
        """Inverse of `to_dict`."""
        return cls(TableReader.from_dict(state))


FORMS: Mapping[str, type[CellReader]] = {
    reader.form: reader
    for reader in (NumberCells, DurationCells, DateCells, ListCells, RecordCells, TextCells)
}
"""Readers by their names in files."""


def output_names(
    reader: CellReader, name: str, suffixes: Iterable[str], taken: set[str]
) -> tuple[tuple[str, str], ...]:
    """Return suffixes and names of the columns that a reader makes, and add the names to `taken`.

    Parameters
    ----------
    reader, name
        Reader and its column.
    suffixes
        Suffixes of the result of `CellReader.read`.
    taken
        Names that other columns of the table have.

    Returns
    -------
    tuple of pairs
    """
    joint = "." if isinstance(reader, RecordCells) else "__"
    pairs = []
    for suffix in suffixes:
        made = f"{name}{joint}{suffix}" if suffix else name
        while made in taken:
            made += "_"
        taken.add(made)
        pairs.append((suffix, made))
    return tuple(pairs)


def _values(values: Any) -> Any:
    return values.array if isinstance(values, pd.Series) else values
