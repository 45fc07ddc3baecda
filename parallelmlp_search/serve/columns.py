"""Description of the columns of a request: kinds, types and examples, for the schema and OpenAPI."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from parallelmlp_search.data.categorical import CategoryEncoder
from parallelmlp_search.data.cells.lists import ListCells
from parallelmlp_search.data.dates import DAY, DateEncoder
from parallelmlp_search.data.encoding import TableEncoder
from parallelmlp_search.data.numeric import NumericEncoder
from parallelmlp_search.inference import TrainedModel

TYPES: Mapping[str, list[str]] = {
    "list": ["array", "string", "null"],
    "json": ["object", "string", "null"],
}
"""Types of a cell in JSON by kind of the column. All others take texts, numbers and booleans."""

_SCALARS = ["number", "string", "boolean", "null"]


@dataclass(frozen=True)
class ServedColumn:
    """Column of a request.

    Attributes
    ----------
    name, kind
        Name and kind of the column.
    types
        Types of its cells in JSON, the usual one first.
    example
        A cell.
    values
        Range or frequent values in training, or None.
    """

    name: str
    kind: str
    types: list[str]
    example: Any
    values: str | None

    def to_dict(self) -> dict[str, Any]:
        """Return a form that JSON can hold."""
        return asdict(self) | {"nullable": True}

    @property
    def schema(self) -> dict[str, Any]:
        """JSON schema of a cell."""
        found = f"{self.kind} in training" + (f": {self.values}" if self.values else "")
        return {"type": self.types, "description": found, "examples": [self.example]}


def served_columns(
    model: TrainedModel, needed: tuple[str, ...], report: pd.DataFrame | None
) -> list[ServedColumn]:
    """Return the columns of a request.

    Parameters
    ----------
    model
        The model.
    needed
        Columns that a request must have.
    report
        Facts about the columns of the training table, or None.

    Returns
    -------
    list of ServedColumn
    """
    encoder = model.folds[0].encoder
    readings = encoder.schema if model.reader is None else model.reader.columns
    kinds = {column.name: str(column.kind) for column in readings}
    found = []
    for name in needed:
        values = None if report is None or name not in report.index else str(report.at[name, "values"])
        example = _example(model, encoder, name, kinds[name])
        types = TYPES.get(kinds[name], _SCALARS)
        usual = {str: "string", bool: "boolean"}.get(type(example))
        if usual in types:
            types = [usual, *(one for one in types if one != usual)]
        found.append(ServedColumn(name, kinds[name], list(types), example, values or None))
    return found


def _example(model: TrainedModel, encoder: TableEncoder, name: str, kind: str) -> Any:
    """Median of numbers and dates; else a category, a list of items, or an empty object."""
    if kind == "list":
        readings = () if model.reader is None else model.reader.columns
        reader = next((one.reader for one in readings if one.name == name), None)
        if isinstance(reader, ListCells):
            return list(reader.items[:2]) or [0.0] * max(1, reader.n_positions)
    if kind == "json":
        return {}
    if kind == "text":
        return "some text"
    numbers = encoder.numeric.get("numbers")
    if name in encoder.numeric_names and isinstance(numbers, NumericEncoder):
        median = float(numbers.center[encoder.numeric_names.index(name)])
        return int(median) if median.is_integer() else float(f"{median:.6g}")
    part = encoder.columns.get(name)
    if isinstance(part, DateEncoder):
        return _date(part)
    if isinstance(part, CategoryEncoder) and part.keys:
        return part.keys[0] == "True" if kind == "boolean" else part.keys[0]
    return None


def _date(encoder: DateEncoder) -> str:
    """Median date of training, or one of 2024 if all were on the same day."""
    days = (
        encoder.scaler.center[encoder.linear.index("elapsed_days")]
        if "elapsed_days" in encoder.linear
        else 19_754
    )
    seconds = np.datetime64(int(days * DAY), "s")
    return str(seconds).removesuffix("T00:00:00")
