"""Encoding of columns as ONNX nodes, for all folds at once; the twin of `inference.encoding`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parallelmlp_search.data.dates import DAY
from parallelmlp_search.data.numeric import MAX_SCALED, MAX_VALUE
from parallelmlp_search.export.columns import CATEGORY, DATE, MISSING_DATE
from parallelmlp_search.export.onnx_graph import Graph
from parallelmlp_search.export.parts import ModelParts
from parallelmlp_search.export.standalone import NORMAL_POLYNOMIAL

MAX_COMPARED = 1 << 16
"""Quantiles of all columns and folds that are compared with a row at once: three nodes instead of 45."""

_INPUTS = {CATEGORY: "STRING", DATE: "INT64"}

Arrays = Mapping[str, NDArray[Any]]


class Columns:
    """Inputs of a graph, and what the sections of the encoding have in common.

    Parameters
    ----------
    graph
        Graph that the inputs are added to.
    parts
        Parts of the model.
    """

    def __init__(self, graph: Graph, parts: ModelParts) -> None:
        self._graph = graph
        columns = parts.description["columns"]
        self._matrix = None
        if (width := parts.description["matrix_width"]) is not None:
            self._matrix = graph.add_input("X", "DOUBLE", width)
        else:
            for column in columns:
                graph.add_input(column["name"], _INPUTS.get(column["kind"], "DOUBLE"))
        self._made: dict[Any, Any] = {}

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """Return what has been made for a key; the first time, make it."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def numbers(self, names: list[str]) -> str:
        """Numbers ``(n, d)`` of some columns."""

        def make() -> str:
            if self._matrix is None:
                return names[0] if len(names) == 1 else self._graph.add("Concat", *names, axis=1)
            places = np.array([int(name[1:]) for name in names])
            return self._graph.add("Gather", self._matrix, places, axis=1)

        return str(self.once(("numbers", *names), make))

    def missing(self, numbers: str) -> str:
        """Return True for each of the numbers ``(n, d)`` that is missing."""
        return str(self.once(("missing", numbers), lambda: self._graph.add("IsNaN", numbers)))

    def per_fold(self, value: str) -> str:
        """Values ``(n, 1, d)`` of values ``(n, d)``."""
        return str(self.once(("fold", value), lambda: self._graph.add("Unsqueeze", value, np.array([1]))))


def encoded_rows(graph: Graph, columns: Columns, parts: ModelParts, number: int) -> str:
    """Add the encoding of a group of folds, and return its rows ``(E, n, width)``.

    Parameters
    ----------
    graph, columns, parts
        Graph, its inputs, and parts of the model.
    number
        Number of the group.

    Returns
    -------
    str
    """
    group = parts.description["groups"][number]
    sections: list[str | NDArray[Any]] = []
    categories: list[str] = []  # of neighbouring columns, (n, 1, E, width)
    end = 0
    for place, section in enumerate(group["sections"]):
        is_next = section["start"] == end
        if categories and not (is_next and section["kind"] == "categories"):
            sections.append(_side_by_side(graph, categories))
            categories = []
        if not is_next:  # columns that no network sees
            sections.append(np.zeros((1, group["n_encoders"], section["start"] - end), dtype=np.float32))
        end = section["stop"]
        arrays = parts.of(f"group{number}.section{place}")
        if section["kind"] == "categories":
            categories += _categories(graph, section, arrays)
        else:
            sections.append(_SECTIONS[section["kind"]](graph, columns, group, section, arrays))
    if categories:
        sections.append(_side_by_side(graph, categories))
    return _joined(graph, sections, group)


def _side_by_side(graph: Graph, values: list[str]) -> str:
    """Join values ``(n, 1, E, width)`` to ``(n, E, width)``."""
    joined = values[0] if len(values) == 1 else graph.add("Concat", *values, axis=3)
    return graph.add("Squeeze", joined, np.array([1]))


def _joined(graph: Graph, sections: list[Any], group: dict[str, Any]) -> str:
    """Rows of sections ``(n, E, width)`` side by side, folds first."""
    values = [one for one in sections if isinstance(one, str)]
    if len(values) < len(sections):
        count = graph.add("Shape", values[0], start=0, end=1)
        sections = [
            one
            if isinstance(one, str)
            else graph.add("Expand", one, graph.add("Concat", count, np.array(one.shape[1:]), axis=0))
            for one in sections
        ]
    joined = sections[0] if len(sections) == 1 else graph.add("Concat", *sections, axis=2)
    return graph.add("Transpose", joined, perm=[1, 0, 2])


def _numbers(graph: Graph, columns: Columns, group: dict[str, Any], section: Any, arrays: Arrays) -> str:
    """Scaled numbers and indicators ``(n, E, width)``."""
    numbers = columns.numbers(group["numbers"])
    missing = columns.missing(numbers)
    value = _finite(graph, columns, numbers, arrays)
    if section["scaling"] == "quantile":
        value = _normal_scores(graph, value, arrays)
    else:
        value = _scaled(graph, value, arrays["center"], arrays["scale"])
        if section["scaling"] == "robust":
            value = _squashed(graph, value)
    scaled = graph.cast(graph.add("Where", columns.per_fold(missing), 0.0, value), "FLOAT")
    if not section["indicated"]:
        return scaled
    chosen = graph.add("Gather", missing, np.array(section["indicated"]), axis=1)
    indicator = graph.add("Unsqueeze", graph.cast(chosen, "FLOAT"), np.array([1]))
    if group["n_encoders"] > 1:
        indicator = graph.add("Expand", indicator, np.array([1, group["n_encoders"], 1]))
    return graph.add("Concat", scaled, indicator, axis=2)


def _scaled(graph: Graph, value: str, center: NDArray[Any], scale: NDArray[Any]) -> str:
    """Scaled values, before the smooth limit of robust scaling."""
    value = graph.add("Mul", graph.add("Sub", value, center), scale)
    return graph.add("Clip", value, -MAX_SCALED, MAX_SCALED)


def _squashed(graph: Graph, value: str) -> str:
    """Scaled values with the smooth limit of robust scaling."""
    third = graph.add("Div", value, 3.0)
    square = graph.add("Add", graph.add("Mul", third, third), 1.0)
    return graph.add("Div", value, graph.add("Sqrt", square))


def _finite(graph: Graph, columns: Columns, numbers: str, arrays: Arrays) -> str:
    """Numbers ``(n, E, d)`` with the range of training instead of infinities, of moderate size."""

    def make() -> str:
        spread = columns.per_fold(numbers)
        is_high = graph.add("IsInf", spread, detect_negative=0)
        is_low = graph.add("IsInf", spread, detect_positive=0)
        value = graph.add("Where", is_low, arrays["low"], spread)
        value = graph.add("Where", is_high, arrays["high"], value)
        return graph.add("Clip", value, -MAX_VALUE, MAX_VALUE)

    key = ("finite", numbers, arrays["low"].tobytes(), arrays["high"].tobytes())
    return str(columns.once(key, make))


def _normal_scores(graph: Graph, value: str, arrays: Arrays) -> str:
    """Normal scores of values ``(n, E, d)``."""
    n_rows = arrays["start"].shape[2]
    base = np.arange(arrays["start"].size // n_rows).reshape(arrays["start"].shape[:2]) * n_rows
    place = graph.add("Add", _insertion(graph, value, arrays["grid"]), base)

    def looked_up(name: str, factor: float = 2.0, shift: float = 0.0) -> str:
        return graph.add("Gather", factor * arrays[name].reshape(-1) + shift, place)

    # levels are 2 p - 1
    start = looked_up("start", 1.0)
    rise = graph.add("Mul", graph.add("Sub", value, start), looked_up("slope"))
    level = graph.add("Add", looked_up("level", shift=-1.0), rise)
    level = graph.add("Where", graph.add("Equal", value, start), looked_up("tie", shift=-1.0), level)
    limit = 1.0 - 2.0 * arrays["margin"]
    level = graph.add("Min", graph.add("Max", level, -limit), limit)
    logarithm = graph.add("Log", graph.add("Sub", 1.0, graph.add("Mul", level, level)))
    polynomial = graph.constant(NORMAL_POLYNOMIAL[0])
    for coefficient in NORMAL_POLYNOMIAL[1:]:
        polynomial = graph.add("Add", graph.add("Mul", polynomial, logarithm), coefficient)
    return graph.add("Mul", level, polynomial)


def _insertion(graph: Graph, value: str, grid: NDArray[np.float64]) -> str:
    """Number of quantiles ``(n, E, d)`` that are at most the value, given quantiles ``(E, d, q)``."""
    *shape, n_quantiles = grid.shape
    n_steps = n_quantiles.bit_length()
    padded = np.full((*shape, 1 << n_steps), np.inf)
    padded[..., :n_quantiles] = grid
    if padded.size <= MAX_COMPARED:
        above = graph.add("Greater", padded, graph.add("Unsqueeze", value, np.array([3])))
        return graph.add("ArgMax", graph.cast(above, "UINT8"), axis=3, keepdims=0)  # the first one
    flat = padded.reshape(-1)
    base = np.arange(int(np.prod(shape))).reshape(shape) * padded.shape[-1]
    found = graph.constant(base)
    for step in reversed(range(n_steps)):
        half = 1 << step
        quantile = graph.add("Gather", flat, graph.add("Add", found, np.array(half - 1)))
        is_above = graph.add("GreaterOrEqual", value, quantile)
        found = graph.add("Add", found, graph.add("Where", is_above, np.array(half), np.array(0)))
    return graph.add("Sub", found, base)


def _pieces(graph: Graph, columns: Columns, group: dict[str, Any], section: Any, arrays: Arrays) -> str:
    """Piecewise linear encodings ``(n, E, width)``."""
    numbers = columns.numbers(group["numbers"])

    def make() -> str:
        return graph.add("Where", columns.missing(numbers), -np.inf, numbers)

    known = columns.once(("known", numbers), make)
    value = graph.add("Gather", known, arrays["number"], axis=1)
    value = graph.add("Div", graph.add("Sub", value, arrays["left"]), arrays["size"])
    return graph.cast(graph.add("Clip", value, 0.0, 1.0), "FLOAT")


def _categories(graph: Graph, section: Any, arrays: Arrays) -> list[str]:
    """Indicators and numbers, as far as there are any, of a column ``(n, 1, E, width)``."""
    rows: dict[str, int] = section["rows"]
    numbers, default = arrays.get("numbers"), 0
    pattern = arrays.get("pattern")
    if numbers is None and pattern is not None:
        rows = {key: int(pattern[row]) for key, row in rows.items()}
        default = int(pattern[0])
    found = graph.add(
        "LabelEncoder",
        section["column"],
        keys_strings=list(rows),
        values_int64s=list(rows.values()),
        default_int64=default,
    )
    if numbers is None:
        return [graph.add("Gather", arrays["indicators"], found, axis=0)]
    parts = [graph.add("Gather", numbers, found, axis=0)]
    if pattern is not None:
        place = graph.add("Gather", pattern, found)
        parts.insert(0, graph.add("Gather", arrays["indicators"], place, axis=0))
    return parts


def _dates(graph: Graph, columns: Columns, group: dict[str, Any], section: Any, arrays: Arrays) -> str:
    """Parts of the dates of a column ``(n, E, width)``."""
    column = section["column"]
    missing, year, days, waves = columns.once(("calendar", column), lambda: _calendar(graph, column))
    n_linear = arrays["center"].size
    linear = graph.add("Concat", *[year, days] * (n_linear // 2), axis=1)  # (n, 2 E)
    linear = _scaled(graph, linear, arrays["center"].reshape(-1), arrays["scale"].reshape(-1))
    found = graph.add("Concat", graph.cast(_squashed(graph, linear), "FLOAT"), waves, axis=1)
    found = graph.add("Where", missing, np.array(0.0, dtype=np.float32), found)
    found = graph.add("Concat", found, graph.cast(missing, "FLOAT"), axis=1)
    return graph.add("Gather", found, arrays["place"], axis=1)


def _calendar(graph: Graph, column: str) -> tuple[str, str, str, str]:
    """Missing dates, year, elapsed days, and sines and cosines ``(n, 6)``.

    The civil date follows Hinnant, "chrono-compatible low-level date algorithms", with eras of 400 years that
    begin in March.
    """

    def whole(value: int) -> NDArray[np.int64]:
        return np.array(value, dtype=np.int64)

    def linear(value: str, factor: int, offset: int) -> str:
        return graph.add("Add", graph.add("Mul", value, whole(factor)), whole(offset))

    def quotient(value: str, divisor: int) -> str:
        return graph.add("Div", value, whole(divisor))

    missing = graph.add("Equal", column, whole(MISSING_DATE))
    seconds = graph.add("Where", missing, whole(0), column)
    of_day = graph.add("Mod", seconds, whole(DAY))
    day = quotient(graph.add("Sub", seconds, of_day), DAY)
    shifted = graph.add("Add", day, whole(719_468))
    of_era = graph.add("Mod", shifted, whole(146_097))
    era = quotient(graph.add("Sub", shifted, of_era), 146_097)
    leap = graph.add("Sub", quotient(of_era, 36_524), quotient(of_era, 1_460))
    leap = graph.add("Sub", leap, quotient(of_era, 146_096))
    year_of_era = quotient(graph.add("Add", of_era, leap), 365)
    before = graph.add("Add", linear(year_of_era, 365, 0), quotient(year_of_era, 4))
    before = graph.add("Sub", before, quotient(year_of_era, 100))
    month = quotient(linear(graph.add("Sub", of_era, before), 5, 2), 153)  # March is 0
    is_next_year = graph.cast(graph.add("GreaterOrEqual", month, whole(10)), "INT64")
    year = graph.add("Add", graph.add("Add", year_of_era, linear(era, 400, 0)), is_next_year)
    cycles = [
        (graph.add("Mod", linear(month, 1, 2), whole(12)), 12),
        (graph.add("Mod", linear(day, 1, 3), whole(7)), 7),
        (of_day, DAY),
    ]
    waves = []
    for value, length in cycles:
        angle = graph.cast(graph.add("Mul", graph.cast(value, "DOUBLE"), 2.0 * np.pi / length), "FLOAT")
        waves += [graph.add("Sin", angle), graph.add("Cos", angle)]
    days = graph.add("Div", graph.cast(seconds, "DOUBLE"), float(DAY))
    return missing, graph.cast(year, "DOUBLE"), days, graph.add("Concat", *waves, axis=1)


_SECTIONS: dict[str, Callable[[Graph, Columns, dict[str, Any], Any, Arrays], str]] = {
    "numbers": _numbers,
    "pieces": _pieces,
    "dates": _dates,
}
