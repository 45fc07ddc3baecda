"""Predictions of an exported model with NumPy alone.

The folder of an export holds this file as ``predict.py``, the arrays ``model.npz``, and ``model.json`` with
columns, classes and layers. In a shell::

    python predict.py table.csv > predictions.csv

In Python::

    predict.Model("folder").predict({"age": [31.0, 45.0], "job": ["clerk", ""]})
"""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
ROWS = 512  # rows that are computed at once
NORMAL_POLYNOMIAL = (
    4.969059134722863e-10, 2.497295168211385e-08, 4.4701005825975353e-07, 3.592531309562411e-06,
    8.490926725684791e-06, -5.668444738299883e-05, -0.00017171454167434614, 0.0033078650248795903,
    0.016334913303538336, -0.32811667526758337, 1.2533141412101432,
)  # fmt: skip
"""Polynomial ``q``, highest power first: for ``x`` in (-1, 1), the normal quantile of ``(1 + x) / 2`` is
``x q(log(1 - x^2))``, to 4e-9 where ``|x|`` is at most 255 / 256. It was fitted to Chebyshev points."""

_DAY, _MISSING = 86_400, np.iinfo(np.int64).min


class Model:
    """Exported model.

    Parameters
    ----------
    folder
        Folder of the export.

    Attributes
    ----------
    columns, classes, description
        Names of the columns, classes or None for a regression, and content of ``model.json``.
    """

    def __init__(self, folder: str | Path = Path(__file__).parent) -> None:
        self.description: dict[str, Any] = json.loads((Path(folder) / "model.json").read_bytes())
        self.columns: list[str] = [column["name"] for column in self.description["columns"]]
        self.classes: list[Any] | None = self.description["classes"]
        self._owned: dict[str, dict[str, Array]] = {}
        with np.load(Path(folder) / "model.npz", allow_pickle=False) as arrays:
            for name in arrays.files:
                owner, _, part = name.rpartition(".")
                self._owned.setdefault(owner, {})[part] = arrays[name]

    def predict_proba(self, table: Any) -> Array:
        """Return the probabilities ``(n, classes or labels)`` of the rows of a table, see :meth:`predict`.

        Raises
        ------
        ValueError
            If the model is a regression, or the table lacks a column.
        """
        if self.classes is None:
            raise ValueError("a regression has no probabilities: call predict")
        return self._predictions(table)

    def predict(self, table: Any) -> Array:
        """Return the classes ``(n,)``, labels ``(n, labels)`` or values ``(n,)`` or ``(n, outputs)`` of rows.

        Parameters
        ----------
        table
            Columns by name, as lists, arrays or a data frame; or, for a model that was trained on an array,
            an array of shape (n, columns). A number that is missing is None or NaN, a text that is missing is
            empty, and a date is an ISO text, a ``datetime``, or seconds since 1970.

        Returns
        -------
        array
        """
        return self._decided(self._predictions(table))

    def _decided(self, values: Array) -> Array:
        """Classes, 0 and 1 of labels, or values of predictions ``(n, C)``."""
        if self.classes is None:
            return np.asarray(values[:, 0] if self.description["flat_target"] else values)
        if (weights := self.description["decision_weights"]) is not None:
            values = values @ np.array(weights) if np.ndim(weights) == 2 else values * np.array(weights)
        if self.description["task"] == "multilabel":
            return np.asarray((values > 0.5).astype(np.int64))
        dtype = object if len({type(one) for one in self.classes}) > 1 else None
        return np.asarray(np.array(self.classes, dtype=dtype)[values.argmax(axis=1)])

    def _predictions(self, table: Any) -> Array:
        inputs = self._inputs(table)
        starts = range(0, max(1, len(next(iter(inputs.values())))), ROWS)
        windows = ({name: part[start : start + ROWS] for name, part in inputs.items()} for start in starts)
        return np.concatenate([self._window(window) for window in windows])

    def _inputs(self, table: Any) -> dict[str, Array]:
        """Numbers, texts and seconds of each column."""
        if isinstance(table, np.ndarray):
            width = self.description["matrix_width"]
            if table.shape[1:] != (width,):
                raise ValueError(f"table must be columns by name, or an array of {width or 'no'} columns")
            return {name: table[:, int(name[1:])].astype(np.float64) for name in self.columns}
        inputs = {}
        for column in self.description["columns"]:
            name = column["name"]
            if name not in table:
                raise ValueError(f"the table has no column {name!r}")
            inputs[name] = _READERS[column["kind"]](np.asarray(table[name]))
        if len({len(values) for values in inputs.values()}) != 1:
            raise ValueError("the columns of the table must be of one length")
        return inputs

    def _window(self, inputs: dict[str, Array]) -> Array:
        """Predictions ``(n, C)`` of a few rows."""
        description = self.description
        total: Any = 0.0
        for number, group in enumerate(description["groups"]):
            name = f"group{number}"
            rows = self._encoded(name, group, inputs)
            for place, member in enumerate(group["members"]):
                outputs = self._outputs(f"{name}.member{place}", member, rows).astype(np.float64)
                head, curve = (self._owned.get(owner) for owner in (name, f"{name}.member{place}.curve"))
                total = total + group["share"] * member["weight"] * _mean(description, outputs, head, curve)
        if self.classes is not None:
            of_labels = description["task"] == "multilabel"
            total = np.stack([1 - total, total], 2) if of_labels else total / total.sum(axis=1, keepdims=True)
            if (temperature := description["temperature"]) != 1.0:
                total = _softmax(np.log(np.maximum(total, 1e-12)) / temperature)
            total = total[..., 1] if of_labels else total
        elif description["target_unit"] is not None:
            total = np.array(description["target_center"]) + np.array(description["target_unit"]) * total
        return np.asarray(total)

    def _encoded(self, name: str, group: dict[str, Any], inputs: dict[str, Array]) -> Array:
        """Encoded rows ``(E, n, width)``."""
        n_rows = len(next(iter(inputs.values())))
        rows = np.zeros((n_rows, group["n_encoders"], group["width"]), dtype=np.float32)
        numbers = np.empty((n_rows, 0))
        if any(section["kind"] in ("numbers", "pieces") for section in group["sections"]):
            numbers = np.stack([inputs[column] for column in group["numbers"]], axis=1)
        for place, section in enumerate(group["sections"]):
            arrays = self._owned[f"{name}.section{place}"]
            source = numbers if section["kind"] in ("numbers", "pieces") else inputs[section["column"]]
            part = rows[:, :, section["start"] : section["stop"]]
            with np.errstate(all="ignore"):
                _SECTIONS[section["kind"]](source, section, arrays, part)
        return rows.swapaxes(0, 1)

    def _outputs(self, name: str, member: dict[str, Any], rows: Array) -> Array:
        """Outputs ``(F, K, n, C)`` of the networks of a configuration."""
        values = np.concatenate([rows[:, :, first:end] for first, end in member["columns"]], axis=2)
        if waves := self._owned.get(f"{name}.waves"):
            values = _with_waves(values, waves)
        values = values[:, None]
        with np.errstate(all="ignore"):
            for number, layer in enumerate(member["layers"]):
                values = _layer(layer, self._owned[f"{name}.layer{number}"], values)
        return values


def _number(cell: Any) -> float:
    try:
        return math.nan if isinstance(cell, str) and "_" in cell else float(cell)
    except (TypeError, ValueError):
        return math.nan


def _text(cell: Any) -> str:
    if isinstance(cell, float) and cell.is_integer() and abs(cell) <= 2.0**53:
        return str(int(cell))
    return "" if _is_missing(cell) else str(cell).strip()


def _dates(cells: Array) -> Array:
    if cells.dtype.kind == "M":
        return cells.astype("datetime64[s]").astype(np.int64)
    return np.array([_second(cell) for cell in cells.tolist()], dtype=np.int64)


def _second(cell: Any) -> int:
    """Seconds since 1970; the least integer for a missing date or another text."""
    if isinstance(cell, str):
        try:
            cell = datetime.fromisoformat(cell.strip().replace("/", "-").replace("UTC", "Z"))
        except ValueError:
            return _MISSING
    if _is_missing(cell):
        return _MISSING
    if isinstance(cell, date) and not isinstance(cell, datetime):
        cell = datetime(cell.year, cell.month, cell.day)
    if isinstance(cell, datetime):
        aware = cell if cell.tzinfo is not None else cell.replace(tzinfo=UTC)
        return math.floor((aware - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds())
    return int(cell)


def _is_missing(cell: Any) -> bool:
    return not isinstance(cell, str) and str(cell) in ("None", "nan", "NaT", "<NA>")


_READERS: dict[str, Callable[[Array], Array]] = {
    "number": lambda cells: np.array([_number(cell) for cell in cells.tolist()], dtype=np.float64),
    "category": lambda cells: np.array([_text(cell) for cell in cells.tolist()], dtype=object),
    "date": _dates,
}


def _write_numbers(numbers: Array, section: dict[str, Any], arrays: dict[str, Array], out: Array) -> None:
    """Scale numbers, and mark missing ones."""
    missing = np.isnan(numbers)
    value = np.repeat(numbers[:, None], out.shape[1], axis=1)
    value = np.where(value == np.inf, arrays["high"], np.where(value == -np.inf, arrays["low"], value))
    value = np.clip(value, -1e100, 1e100)
    if section["scaling"] == "quantile":
        value = _normal_scores(value, arrays)
    else:
        value = np.clip((value - arrays["center"]) * arrays["scale"], -1e6, 1e6)
        if section["scaling"] == "robust":
            value /= np.sqrt(1.0 + np.square(value / 3.0))
    n_numbers = numbers.shape[1]
    out[:, :, :n_numbers] = np.where(missing[:, None], 0.0, value)
    out[:, :, n_numbers:] = missing[:, None, section["indicated"]]


def _normal_scores(value: Array, arrays: dict[str, Array]) -> Array:
    """Normal scores of values ``(n, E, d)``, from tables by the number of quantiles up to the value."""
    grid, start = arrays["grid"], arrays["start"]
    n_encoders, n_numbers = grid.shape[:2]
    place = np.empty(value.shape, dtype=np.intp)
    for encoder in range(n_encoders):
        for number in range(n_numbers):
            row = encoder * n_numbers + number
            found = np.searchsorted(grid[encoder, number], value[:, encoder, number], side="right")
            # NaN is sorted to the end
            place[:, encoder, number] = row * start.shape[2] + np.minimum(found, start.shape[2] - 1)
    first = start.reshape(-1)[place]
    level, tie, slope = (arrays[name].reshape(-1)[place] for name in ("level", "tie", "slope"))
    level = np.where(value == first, tie, level + (value - first) * slope)
    x = 2.0 * np.clip(level, arrays["margin"], 1.0 - arrays["margin"]) - 1.0
    return np.asarray(x * np.polyval(np.array(NORMAL_POLYNOMIAL), np.log(1.0 - np.square(x))))


def _write_pieces(numbers: Array, section: dict[str, Any], arrays: dict[str, Array], out: Array) -> None:
    """Encode numbers piecewise linearly; missing ones are zero."""
    known = np.where(np.isnan(numbers), -np.inf, numbers)[:, arrays["number"]]
    out[:] = np.clip((known - arrays["left"]) / arrays["size"], 0.0, 1.0)


def _write_categories(texts: Array, section: dict[str, Any], arrays: dict[str, Array], out: Array) -> None:
    """Write the indicators and numbers of categories; row 0 is that of missing and unseen ones."""
    rows = np.array([_row(text, section["rows"]) for text in texts.tolist()], dtype=np.intp)
    if "indicators" in arrays:
        out[:, :, : arrays["indicators"].shape[2]] = arrays["indicators"][arrays["pattern"][rows]]
    if "numbers" in arrays:
        out[:, :, out.shape[2] - arrays["numbers"].shape[2] :] = arrays["numbers"][rows]


def _row(text: str, rows: dict[str, int]) -> int:
    if text not in rows:
        try:
            number = float(text)
        except ValueError:
            return 0
        text = str(int(number)) if number.is_integer() else repr(number)
    return rows.get(text, 0)


def _write_dates(seconds: Array, section: dict[str, Any], arrays: dict[str, Array], out: Array) -> None:
    """Write parts of dates, chosen among those of all encoders."""
    missing = seconds == _MISSING
    times = np.where(missing, 0, seconds)
    months = times.astype("datetime64[s]").astype("datetime64[M]").astype(np.int64)
    linear = np.stack([np.floor_divide(months, 12) + 1970.0, times / _DAY], axis=1)[:, None]
    linear = np.clip((linear - arrays["center"]) * arrays["scale"], -1e6, 1e6)
    parts = [(linear / np.sqrt(1.0 + np.square(linear / 3.0))).reshape(len(times), -1)]
    for value, length in ((months, 12), (np.floor_divide(times, _DAY) + 3, 7), (times, _DAY)):
        angle = 2.0 * np.pi * np.mod(value, length) / length
        parts += [np.sin(angle)[:, None], np.cos(angle)[:, None]]
    found = np.where(missing[:, None], 0.0, np.concatenate(parts, axis=1))
    out[:] = np.concatenate([found, missing[:, None]], axis=1)[:, arrays["place"]]


_SECTIONS: dict[str, Callable[[Array, dict[str, Any], dict[str, Array], Array], None]] = {
    "numbers": _write_numbers,
    "pieces": _write_pieces,
    "categories": _write_categories,
    "dates": _write_dates,
}


def _with_waves(rows: Array, waves: dict[str, Array]) -> Array:
    """Rows ``(F, n, D)`` with the mixtures of their waves."""
    n_folds, n_numbers = waves["frequency"].shape[:2]
    numbers = rows[:, :, :n_numbers].swapaxes(1, 2)[..., None]
    mixed = np.cos(numbers * waves["frequency"] + waves["phase"]) @ waves["mixing"] + waves["offset"]
    mixed = mixed.transpose(0, 2, 1, 3).reshape(n_folds, rows.shape[1], -1)
    return np.concatenate([np.broadcast_to(rows, (n_folds, *rows.shape[1:])), mixed], axis=2)


def _layer(layer: dict[str, Any], arrays: dict[str, Array], inputs: Array) -> Array:
    """Outputs ``(F, K, n, O)`` of a layer for inputs ``(F, K, n, I)``."""
    values = inputs * arrays["input_factor"] if "input_factor" in arrays else inputs
    values = values @ arrays["weight"]
    if "output_factor" in arrays:
        values = values * arrays["output_factor"]
    if "bias" in arrays:
        values = values + arrays["bias"]
    if "gain" in arrays:
        values = values - values.mean(axis=3, keepdims=True)
        deviation = np.sqrt(np.square(values).mean(axis=3, keepdims=True) + 1e-5)
        values = values / deviation * arrays["gain"] + arrays["shift"]
    values = ACTIVATIONS[layer["activation"]](values)
    if layer["residual"]:
        values = values + (inputs @ arrays["projection"] if "projection" in arrays else inputs)
    return values


def _mean(description: dict[str, Any], outputs: Array, head: Any, curve: dict[str, Array] | None) -> Array:
    """Mean predictions ``(n, C)`` of outputs ``(F, K, n, C)``."""
    if curve:  # of a transformed target, linear between knots
        knots = curve["start"][..., None] + curve["step"][..., None] * np.arange(curve["values"].shape[2])
        folds = zip(outputs.mean(axis=1).swapaxes(1, 2), knots, curve["values"], strict=True)
        return np.asarray(np.mean([list(map(np.interp, *fold)) for fold in folds], axis=0).T)
    if description["task"] == "regression":
        head = {name: part[:, None] for name, part in head.items()}
        values = outputs.mean(axis=1)
        values = np.exp(np.clip(values, -20.0, 20.0)) if description["link"] == "log" else values
        values = values * head["scale"] + head["location"]
        return np.asarray(np.clip(values, head["lower"], head["upper"]).mean(axis=0))
    if description["task"] == "multilabel":
        return np.asarray((1.0 / (1.0 + np.exp(-outputs.mean(axis=1)))).mean(axis=0))
    if description["task"] == "binary":
        # both logits, so that neither probability is lost to rounding
        outputs = np.concatenate([-0.5 * outputs, 0.5 * outputs], axis=3)
    return np.asarray(_softmax(outputs).mean(axis=(0, 1)))


def _softmax(values: Array) -> Array:
    powers = np.exp(values - values.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def _erf(x: Array) -> Array:
    """Error function: Abramowitz and Stegun, 7.1.26, to 1.5e-7."""
    t = 1.0 / (1.0 + 0.3275911 * np.abs(x))
    series = np.polyval([1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592, 0.0], t)
    return np.asarray(np.sign(x) * (1.0 - series * np.exp(-np.square(x))))


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "identity": lambda z: z,
    "sigmoid": lambda z: 1.0 / (1.0 + np.exp(-z)),
    "tanh": np.tanh,
    "relu": lambda z: np.maximum(z, 0.0),
    "leaky_relu": lambda z: np.maximum(z, 0.01 * z),
    "elu": lambda z: np.maximum(z, 0.0) + np.expm1(np.minimum(z, 0.0)),
    "gelu": lambda z: 0.5 * z * (1.0 + _erf(z * math.sqrt(0.5))),
    "selu": lambda z: 1.05070098 * np.maximum(z, 0.0) + 1.75809934 * np.expm1(np.minimum(z, 0.0)),
    "hardshrink": lambda z: np.where(np.abs(z) > 0.5, z, 0.0),
    "mish": lambda z: z * np.tanh(np.logaddexp(0.0, z)),
    "silu": lambda z: z / (1.0 + np.exp(-z)),
    "softplus": lambda z: np.logaddexp(0.0, z),
    "sine": np.sin,
}


def main() -> None:
    """Print the predictions of a CSV file as CSV."""
    if len(sys.argv) != 2:
        sys.exit("usage: python predict.py TABLE.csv > predictions.csv")
    with open(sys.argv[1], newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    model = Model()
    if missing := [name for name in model.columns if not rows or name not in rows[0]]:
        sys.exit(f"{sys.argv[1]} has no rows or no column {missing[0]!r}")
    table = {name: [row[name] for row in rows] for name in model.columns}
    values = model._predictions(table)
    decided = np.atleast_2d(model._decided(values).T)
    predicted = dict(zip(model.description["outputs"], decided, strict=True))
    if model.classes is not None:
        predicted |= {f"probability of {one}": own for one, own in zip(model.classes, values.T, strict=True)}
    cells = zip(*(values.tolist() for values in predicted.values()), strict=True)
    csv.writer(sys.stdout, lineterminator="\n").writerows([predicted, *cells])


if __name__ == "__main__":
    main()
