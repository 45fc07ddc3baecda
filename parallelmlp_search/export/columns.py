"""Columns that an exported model takes, and models that cannot be exported."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from parallelmlp_search.data.cells.table import ColumnReading, RecordCells, TableReader
from parallelmlp_search.data.cells.texts import TextCells
from parallelmlp_search.data.frames import array_names
from parallelmlp_search.exceptions import DataError, InvalidParameterError
from parallelmlp_search.inference import TrainedModel
from parallelmlp_search.inference.encoding import CategorySection, DateSection, MeanSection
from parallelmlp_search.inference.ensemble import FoldGroup

NUMBER, CATEGORY, DATE = "number", "category", "date"
"""Kinds of inputs: a number, a text, and seconds since 1970."""

MISSING_DATE = np.iinfo(np.int64).min
"""Seconds of a missing date, as NumPy writes them."""


def check_model(model: Any) -> None:
    """Check that a model consists of networks that can be exported.

    Raises
    ------
    InvalidParameterError
        If it predicts a constant, or has promoted networks.
    """
    if type(model) is TrainedModel:
        return
    if isinstance(model, TrainedModel):
        raise InvalidParameterError(
            "the ensemble has promoted networks, which cannot be exported: search again without promoting"
        )
    raise InvalidParameterError(
        "the model predicts a constant, because X had no informative column in fit: there is no network to "
        "export"
    )


def input_columns(model: TrainedModel) -> list[dict[str, Any]]:
    """Return the columns that an exported model takes, in the order of the table.

    Parameters
    ----------
    model
        Trained model.

    Returns
    -------
    list of dict
        Name, kind (``number``, ``category`` or ``date``), and for a column that is made of another one
        ``of``, the name of that, and ``reading``, what it holds.

    Raises
    ------
    DataError
        If a column holds free text, has no name, or is of different kinds in the folds.
    """
    kinds: dict[str, str] = {}
    for group in model.ensemble.groups:
        for name, kind in _used(group):
            if kinds.setdefault(name, kind) != kind:
                raise DataError(
                    f"column {name!r} is a {kinds[name]} in one fold and a {kind} in another, so it cannot "
                    f"be exported: search again with its kind set, such as --columns categorical={name}"
                )
    if not all(kinds):
        raise DataError("a column without a name cannot be exported: name all columns and search again")
    readings = () if model.reader is None else model.reader.columns
    sources = {made: (one, suffix) for one in readings for suffix, made in one.outputs}
    columns = []
    names = model.ensemble.groups[0].encoder.reader.names
    for name in sorted(kinds, key={name: place for place, name in enumerate(names)}.__getitem__):
        column = {"name": name, "kind": kinds[name]}
        if name in sources:
            one, suffix = sources[name]
            _check_no_text(one, suffix)
            assert one.reader is not None
            column |= {"of": one.name, "reading": f"{one.reader.kind}: {one.reader.treatment}"}
        columns.append(column)
    return columns


def matrix_width(model: TrainedModel, columns: list[dict[str, Any]]) -> int | None:
    """Return the number of columns of an array that a model was trained on; None if it was another table.

    Parameters
    ----------
    model, columns
        Trained model and its :func:`input_columns`.

    Returns
    -------
    int or None
    """
    names = list(model.feature_names)
    is_array = names == array_names(len(names))
    return len(names) if is_array and all(column["kind"] == NUMBER for column in columns) else None


def _used(group: FoldGroup) -> Iterator[tuple[str, str]]:
    """Names and kinds of the columns that the sections of a group encode."""
    reader = group.encoder.reader
    has_numbers = False
    for section, _ in group.encoder.sections:
        if isinstance(section, CategorySection):
            yield reader.categories[section.number], CATEGORY
        elif isinstance(section, MeanSection):
            yield reader.categories[section.categories.number], CATEGORY
        elif isinstance(section, DateSection):
            yield reader.dates[section.number], DATE
        else:
            has_numbers = True
    if has_numbers:
        yield from ((name, NUMBER) for name in reader.numeric)


def _check_no_text(column: ColumnReading, suffix: str) -> None:
    """Refuse a column whose part of the given suffix is made of free text."""
    if _is_text(column, suffix):
        raise DataError(
            f"column {column.name!r} holds free text, which an exported model cannot read: search again "
            f"without it (--columns ignore={column.name})"
        )


def _is_text(column: ColumnReading, suffix: str) -> bool:
    if isinstance(column.reader, RecordCells):
        table: TableReader = column.reader.table
        inner = {made: (one, end) for one in table.columns for end, made in one.outputs}
        return suffix in inner and _is_text(*inner[suffix])
    return isinstance(column.reader, TextCells)
