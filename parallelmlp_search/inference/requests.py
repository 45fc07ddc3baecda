"""Prediction of rows that come as mappings, for several requests at once, as a service receives them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from parallelmlp_search.data.cells.base import is_missing_cell, shortened
from parallelmlp_search.data.cells.table import RecordCells
from parallelmlp_search.inference.model import TrainedModel
from parallelmlp_search.inference.raw_columns import ColumnReader, RawColumns

Row = Mapping[str, Any]
Cells = dict[str, Any]


class Answer(NamedTuple):
    """Predictions of the rows of a request.

    Attributes
    ----------
    values
        Probabilities ``(classes, n)`` or values ``(outputs, n)``.
    notes
        One sentence for each column with cells that cannot be read.
    """

    values: NDArray[np.float64]
    notes: list[str]


class RequestPredictor:
    """Predicts the rows of several requests at once, without a frame, in which one row takes twice the time.

    Parameters
    ----------
    model
        Model whose predictions are those of its ensemble.

    Attributes
    ----------
    needed
        Columns that a request must have.
    """

    def __init__(self, model: TrainedModel) -> None:
        self._model = model
        self._readings = [] if model.reader is None else [c for c in model.reader.columns if c.reader]
        needed = {*model.column_parts, *(column.name for column in self._readings)}
        self.needed = tuple(name for name in model.feature_names if name in needed)

    @staticmethod
    def can_predict(model: TrainedModel) -> bool:
        """Return False for models with promoted networks, which need torch, and for JSON objects in cells."""
        readings = () if model.reader is None else model.reader.columns
        return type(model) is TrainedModel and not any(isinstance(c.reader, RecordCells) for c in readings)

    def answers(self, requests: Sequence[Sequence[Row]]) -> list[Answer]:
        """Predict the rows of requests.

        Parameters
        ----------
        requests
            Rows of each request. A cell is a number, a text, a boolean, a list, a mapping or None; a cell
            that a row lacks is missing.

        Returns
        -------
        list of Answer
        """
        rows = [row for request in requests for row in request]
        notes = _Notes(requests)
        cells: Cells = {name: [row.get(name) for row in rows] for name in self.needed}
        plain = self._plain(cells, notes)
        ensemble, used = self._model.ensemble, []
        for group in ensemble.groups:
            raw = group.encoder.reader.of_cells(plain, len(rows))
            _note_unreadable(group.encoder.reader, plain, raw, notes)
            used.append(group.encoder.used(raw))
        values = self._model.postprocessed(ensemble.predictions_of(used))
        ends = np.cumsum([len(request) for request in requests]).tolist()
        return [
            Answer(values[:, end - len(request) : end], texts)
            for request, end, texts in zip(requests, ends, notes.texts(), strict=True)
        ]

    def _plain(self, cells: Cells, notes: _Notes) -> Cells:
        """Return the columns that the readers of the table make, beside those that are used as they are."""
        if not self._readings:
            return cells
        plain = dict(cells)
        for column in self._readings:
            assert column.reader is not None
            series = pd.Series(plain.pop(column.name), dtype=object)
            found = column.reader.read(series)
            if pd.isna(next(iter(found.values()))).any():
                unreadable = np.flatnonzero(column.reader.unreadable(series))
                notes.add(column.name, column.kind, cells[column.name], unreadable)
            plain |= {name: np.asarray(found[suffix]) for suffix, name in column.outputs}
        return plain


def _note_unreadable(reader: ColumnReader, cells: Cells, raw: RawColumns, notes: _Notes) -> None:
    """Note cells of numeric and date columns that are neither missing nor readable."""
    lacking = np.isnan(raw.numbers)
    if lacking.any():
        for place in np.flatnonzero(lacking.any(axis=0)).tolist():
            name = reader.numeric[place]
            notes.add(name, "numeric", cells[name], np.flatnonzero(lacking[:, place]))
    for name, times in zip(reader.dates, raw.times, strict=True):
        notes.add(name, "datetime", cells[name], np.flatnonzero(np.isnat(times)))


class _Notes:
    """Notes on the cells of each request that cannot be read."""

    def __init__(self, requests: Sequence[Sequence[Row]]) -> None:
        self._requests = requests
        self._found: dict[tuple[int, str], str] = {}
        self._owners: list[int] = []

    def add(self, name: str, kind: str, cells: Sequence[Any], rows: NDArray[np.intp]) -> None:
        """Note the first cell of each request that is not missing, of rows without a value."""
        for row in rows.tolist():
            if isinstance(cells, list) and not is_missing_cell(cells[row]):
                self._owners = self._owners or [
                    n for n, request in enumerate(self._requests) for _ in request
                ]
                text = (
                    f"column {name!r} was {kind} in training, but {shortened(str(cells[row]))!r} cannot be "
                    "read as such; it counts as missing"
                )
                self._found.setdefault((self._owners[row], name), text)

    def texts(self) -> Iterator[list[str]]:
        """Yield the notes of each request."""
        for number in range(len(self._requests)):
            yield [text for (owner, _), text in self._found.items() if owner == number]
