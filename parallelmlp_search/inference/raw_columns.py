"""Columns of a table as numbers, category keys and times, before they are encoded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from parallelmlp_search.data.categorical import CategoryEncoder
from parallelmlp_search.data.cells.base import unreadable_rows, warn_unreadable
from parallelmlp_search.data.coercion import (
    Codes,
    as_keys,
    as_seconds,
    is_fast_numeric,
    keys_of,
    number_of,
    numbers_of,
)
from parallelmlp_search.data.columns import numeric_matrix
from parallelmlp_search.data.encoding import TableEncoder

FEW_ROWS = 4
"""Rows up to which values are converted one by one: 20 us for 14 columns, calls of pandas take 500 us."""


@dataclass(frozen=True, eq=False)
class RawColumns:
    """Values of the used columns of some rows.

    Attributes
    ----------
    n_rows
        Number of rows.
    numbers
        Numeric columns ``(n, d)`` in float64.
    keys
        For each categorical column the code of each row ``(n,)``, -1 for a missing value, and the keys.
    times
        For each date column the times ``(n,)``.
    """

    n_rows: int
    numbers: NDArray[np.float64]
    keys: Sequence[tuple[Codes, list[str]]]
    times: Sequence[NDArray[np.datetime64]]


class ColumnReader:
    """Reads the columns that an encoder uses from tables and arrays.

    Parameters
    ----------
    encoder
        Encoder of the table.

    Attributes
    ----------
    numeric, categories, dates
        Names of the columns of each kind.
    names
        Names of all columns of training.
    """

    def __init__(self, encoder: TableEncoder) -> None:
        self._encoder = encoder
        self.numeric = encoder.numeric_names
        self.categories = [n for n, one in encoder.columns.items() if isinstance(one, CategoryEncoder)]
        self.dates = [name for name in encoder.columns if name not in self.categories]
        self.names = encoder.schema.names
        place = {name: number for number, name in enumerate(self.names)}
        self._numeric_places = [place[name] for name in self.numeric]
        self._category_places = [place[name] for name in self.categories]
        self._date_places = [place[name] for name in self.dates]

    def read(self, X: Any) -> RawColumns:
        """Return the used columns of a table, or of an array of shape (n, columns of training).

        Raises
        ------
        DataError
            If a column that is used is missing, or an array has another number of columns.
        """
        if type(X) is np.ndarray and X.ndim == 2 and X.dtype.kind == "f":
            self._encoder.check_width(X.shape[1])
            if len(X) <= FEW_ROWS or not self._encoder.columns:
                dates = [pd.Series(X[:, place]) for place in self._date_places]
                return self._of_values(X, self._numeric_places, self._category_places, dates)
        frame = self._encoder.aligned(X)
        if len(frame) <= FEW_ROWS:
            raw = self._of_few(frame)
        else:
            raw = RawColumns(
                n_rows=len(frame),
                numbers=numeric_matrix(frame, self.numeric),
                keys=[as_keys(frame[name]) for name in self.categories],
                times=[as_seconds(frame[name]) for name in self.dates],
            )
        self._warn_of_changes(frame, raw)
        return raw

    def of_cells(self, cells: Mapping[str, Sequence[Any]], n_rows: int) -> RawColumns:
        """Return the used columns of cells as JSON holds them, or of arrays, without a frame.

        Parameters
        ----------
        cells
            Columns by name, with at least the used ones, each of shape (n,).
        n_rows
            Number of rows.

        Returns
        -------
        RawColumns
            Without warnings of cells that cannot be read.
        """
        numbers = np.empty((n_rows, len(self.numeric)))
        for place, name in enumerate(self.numeric):
            numbers[:, place] = numbers_of(cells[name])
        keys = [keys_of(cells[name]) for name in self.categories]
        dates = [as_seconds(_series(cells[name])) for name in self.dates]
        return RawColumns(n_rows, numbers, keys, dates)

    def _warn_of_changes(self, frame: pd.DataFrame, raw: RawColumns) -> None:
        """Warn of numeric and date columns with cells that are neither missing nor readable."""
        lacking = np.isnan(raw.numbers).any(axis=0)
        suspects: list[tuple[str, str, NDArray[Any]]] = [
            ("numeric", self.numeric[place], raw.numbers[:, place]) for place in np.flatnonzero(lacking)
        ]
        suspects += [
            ("datetime", name, times)
            for name, times in zip(self.dates, raw.times, strict=True)
            if np.isnat(times).any()
        ]
        for kind, name, values in suspects:
            column = frame[name]
            if not is_fast_numeric(column.dtype) or kind == "datetime":
                warn_unreadable(name, kind, column, unreadable_rows(column, ~pd.isna(values)))

    def _of_few(self, frame: pd.DataFrame) -> RawColumns:
        """Read a few rows of a frame without a call of pandas for each column."""
        place = {name: number for number, name in enumerate(frame.columns.tolist())}
        numeric = [place[name] for name in self.numeric]
        categories = [place[name] for name in self.categories]
        dates = [frame[name] for name in self.dates]
        return self._of_values(frame.to_numpy(dtype=object), numeric, categories, dates)

    @staticmethod
    def _of_values(
        values: NDArray[Any], numeric: list[int], categories: list[int], dates: list[pd.Series]
    ) -> RawColumns:
        """Read columns of an array by their places."""
        n_rows = len(values)
        if values.dtype == object:
            rows = [[number_of(row[place]) for place in numeric] for row in values]
            numbers = np.array(rows, dtype=np.float64).reshape(n_rows, len(numeric))
        else:
            numbers = values[:, numeric].astype(np.float64)
        keys = [keys_of(values[:, place].tolist()) for place in categories]
        return RawColumns(n_rows, numbers, keys, [as_seconds(column) for column in dates])


def _series(cells: Sequence[Any]) -> pd.Series:
    return pd.Series(cells, dtype=object if isinstance(cells, list) else None)
