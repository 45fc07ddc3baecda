"""Encoder of numeric columns: scaling, clipping and indicators of missing values, all columns at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, cast, get_args

import numpy as np
import numpy.typing as npt

from parallelmlp_search._checks import check_array, check_choice, refuse
from parallelmlp_search.data.normal import normal_quantile

Floats = npt.NDArray[np.float64]
Scaling = Literal["robust", "quantile", "standard"]

MAX_VALUE = 1e100  # values are clipped to this, so that no difference or square overflows
_MIN_SPREAD = 1e-200  # a smaller spread counts as zero, so that no reciprocal overflows
MAX_SCALED = 1e6  # limit of a scaled value; the smooth clip has reached its limit of 3 long before
_N_QUANTILES = 256
_FEW_ROWS = 4
"""Rows up to which values are compared with all quantiles at once: 10 us for 30 columns, searches take 40."""


@dataclass(frozen=True, eq=False)
class NumericEncoder:
    """Scaler of a matrix of shape (rows, d), with an indicator column for each column with missing values.

    ``robust`` (Holzmueller et al. 2024, "Better by Default", RealMLP): ``z = s (x - median)`` with ``s`` the
    reciprocal of the interquartile range, else 2 / (max - min), else 0; then ``z / sqrt(1 + (z / 3)^2)``.
    ``standard``: ``(x - mean) / deviation``. ``quantile``: the normal score of the empirical quantile.

    A missing value becomes 0. Infinities become the smallest or largest finite training value, unless columns
    are open-ended.
    """

    scaling: Scaling
    low: Floats  # (d,) smallest finite value
    high: Floats  # (d,) largest
    center: Floats  # (d,)
    scale: Floats  # (d,)
    has_missing: npt.NDArray[np.bool_]  # (d,) True for columns with an indicator
    grid: Floats  # (q, d) quantiles of the training values; (0, d) for other scalings

    @classmethod
    def fit(cls, chunks: Iterable[Floats], scaling: Scaling = "robust") -> NumericEncoder:
        """Fit to columns that come as consecutive matrices of shape (rows, columns)."""
        parts = [_statistics(chunk, scaling) for chunk in chunks]
        joined = [np.concatenate(part, axis=-1) for part in zip(*parts, strict=True)]
        low, high, center, scale, n_missing, grid = joined
        return cls(scaling, low, high, center, scale, n_missing > 0, grid)

    @classmethod
    def joined(cls, encoders: Sequence[NumericEncoder]) -> NumericEncoder:
        """Return the encoder of the columns of several encoders side by side, without indicators."""
        parts = zip(*([e.low, e.high, e.center, e.scale, e.grid] for e in encoders), strict=True)
        low, high, center, scale, grid = (np.concatenate(part, axis=-1) for part in parts)
        return cls(encoders[0].scaling, low, high, center, scale, np.zeros(len(low), dtype=np.bool_), grid)

    def without_indicators(self) -> NumericEncoder:
        """Return an encoder without indicators, for a second encoding of the same columns."""
        return replace(self, has_missing=np.zeros_like(self.has_missing))

    def open_ended(self, columns: npt.NDArray[np.bool_]) -> NumericEncoder:
        """Return an encoder to which infinities in some columns ``(d,)`` are beyond all numbers."""
        low, high = np.where(columns, -MAX_VALUE, self.low), np.where(columns, MAX_VALUE, self.high)
        return replace(self, low=low, high=high)

    @property
    def n_columns(self) -> int:
        """Number of scaled columns, d."""
        return len(self.low)

    @property
    def width(self) -> int:
        """Number of columns that `encode` fills: d and the indicators."""
        return self.n_columns + int(self.has_missing.sum())

    def names(self, columns: Sequence[str]) -> list[str]:
        """Names of the filled columns."""
        pairs = zip(columns, self.has_missing, strict=True)
        return [*columns, *(f"{name}__missing" for name, has_missing in pairs if has_missing)]

    def encode(self, values: Floats, out: npt.NDArray[np.float32]) -> None:
        """Encode values of shape (rows, d) into `out` of shape (rows, width)."""
        missing = np.isnan(values)
        out[:, : self.n_columns] = self.scaled(values, missing)
        out[:, self.n_columns :] = missing[:, self.has_missing]

    def scaled(self, values: Floats, missing: npt.NDArray[np.bool_]) -> Floats:
        """Return scaled values of shape (rows, d), without the indicators; `missing` is ``isnan(values)``."""
        infinite = np.isinf(values)
        if infinite.any():
            values = np.where(infinite, np.where(values > 0, self.high, self.low), values)
        z = np.clip(values, -MAX_VALUE, MAX_VALUE)
        if self.scaling == "quantile":
            z = self._normal_scores(z)
        else:
            z -= self.center
            with np.errstate(over="ignore"):
                z *= self.scale
            np.clip(z, -MAX_SCALED, MAX_SCALED, out=z)
            if self.scaling == "robust":
                z /= np.sqrt(1.0 + np.square(z / 3.0))
        z[missing] = 0.0
        return z

    def _normal_scores(self, values: Floats) -> Floats:
        """Normal scores of the quantiles; a value that fills many quantiles gets their middle."""
        grid, levels = self.grid, np.linspace(0.0, 1.0, len(self.grid))
        last = len(grid) - 1
        columns = np.arange(self.n_columns)
        upper = self._insertion(values)  # (rows, d) quantiles up to the value
        below = np.maximum(upper - 1, 0)
        above = np.minimum(upper, last)
        start, end = grid[below, columns], grid[above, columns]
        step = end - start
        share = np.divide(values - start, step, out=np.zeros_like(values), where=step > 0)
        known = levels[below] + share * (levels[above] - levels[below])
        first = self._first_of_equals[below, columns]
        known = np.where(values == start, 0.5 * (levels[first] + levels[below]), known)
        known[upper == 0] = 0.0
        margin = 0.5 / len(grid)
        scores = normal_quantile(np.clip(known, margin, 1.0 - margin))
        scores[:, self.scale == 0] = 0.0
        return scores

    def _insertion(self, values: Floats) -> npt.NDArray[np.intp]:
        """Number of quantiles of each column that are at most the value, of shape (rows, d)."""
        if len(values) <= _FEW_ROWS:
            counts = [np.count_nonzero(self.grid <= row, axis=0) for row in values]
            return np.array(counts, dtype=np.intp).reshape(values.shape)
        pairs = zip(self.grid.T, values.T, strict=True)
        return np.stack([np.searchsorted(grid, column, side="right") for grid, column in pairs], axis=1)

    @cached_property
    def _first_of_equals(self) -> npt.NDArray[np.intp]:
        """For each quantile, the first of the column's quantiles with the same value, of shape (q, d)."""
        number = np.arange(len(self.grid))[:, None]
        is_first = np.diff(self.grid, axis=0, prepend=np.nan) != 0  # NaN, the first difference, is not 0
        first: npt.NDArray[np.intp] = np.maximum.accumulate(np.where(is_first, number, 0), axis=0)
        return first

    def to_dict(self) -> dict[str, Any]:
        """Return a form that JSON can hold; floats keep every bit."""
        arrays = ("low", "high", "center", "scale", "has_missing", "grid")
        return {"scaling": self.scaling, **{name: getattr(self, name).tolist() for name in arrays}}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> NumericEncoder:
        """Inverse of `to_dict`. It also reads the key "gappy" of older versions."""
        width = len(state["low"])
        low, high, center, scale = (
            check_array(name, state[name], (width,)) for name in ("low", "high", "center", "scale")
        )
        scaling = cast(Scaling, check_choice("scaling", state["scaling"], get_args(Scaling)))
        grid = check_array("grid", state["grid"] if width else [], (None, width))
        if scaling == "quantile" and width and not len(grid):
            refuse("grid", "quantiles", state["grid"])
        has_missing = state["has_missing"] if "has_missing" in state else state["gappy"]
        missing = check_array("has_missing", has_missing, (width,)).astype(np.bool_)
        return cls(scaling, low, high, center, scale, missing, grid)


def _statistics(values: Floats, scaling: Scaling) -> tuple[npt.NDArray[Any], ...]:
    """low, high, center, scale and missing values of shape (columns,); grid of shape (q, columns)."""
    rows, columns = values.shape
    n_missing = np.isnan(values).sum(axis=0)
    # NaN is sorted to the end
    ordered = np.ascontiguousarray(values.T, dtype=np.float64)
    ordered = np.where(np.isfinite(ordered), np.clip(ordered, -MAX_VALUE, MAX_VALUE), np.nan)
    ordered.sort(axis=1)
    count = np.isfinite(ordered).sum(axis=1)
    ordered[count == 0] = 0.0
    last = np.maximum(count - 1, 0)
    every = np.arange(columns)

    def quantile(level: float) -> Floats:
        place = level * last
        lower = np.floor(place).astype(np.intp)
        upper = np.minimum(lower + 1, last)
        start = ordered[every, lower]
        result: Floats = start + (ordered[every, upper] - start) * (place - lower)
        return result

    if rows == 0:
        zeros = np.zeros(columns)
        return zeros, zeros, zeros, zeros, n_missing, np.zeros((0, columns))
    low, high = ordered[:, 0], ordered[every, last]
    spread = high - low
    grid = np.zeros((0, columns))
    if scaling == "standard":
        known = np.isfinite(ordered)
        center = ordered.sum(axis=1, where=known) / np.maximum(count, 1)
        squares = np.square(ordered - center[:, None]).sum(axis=1, where=known)
        deviation = np.sqrt(squares / np.maximum(count, 1))
        scale = np.where(spread > _MIN_SPREAD, 1.0 / np.maximum(deviation, _MIN_SPREAD), 0.0)
    else:
        center = quantile(0.5)
        iqr = quantile(0.75) - quantile(0.25)
        of_range = np.where(spread > _MIN_SPREAD, 2.0 / np.maximum(spread, _MIN_SPREAD), 0.0)
        scale = np.where(iqr > _MIN_SPREAD, 1.0 / np.maximum(iqr, _MIN_SPREAD), of_range)
        if scaling == "quantile":
            levels = np.linspace(0.0, 1.0, min(rows, _N_QUANTILES))
            grid = np.maximum.accumulate(np.stack([quantile(level) for level in levels]), axis=0)
    return low.copy(), high.copy(), center, scale, n_missing, grid
