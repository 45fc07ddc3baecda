"""Numbers for a network: scaled, kept within bounds, gaps filled and marked; all columns at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

__all__ = ["NumericEncoder", "Scaling"]

Floats = npt.NDArray[np.float64]
Scaling = Literal["robust", "quantile", "standard"]

_HUGE = 1e100  # larger values are cut to this, so that no difference or square overflows
_TINY = 1e-200  # a smaller spread counts as none, so that no reciprocal overflows
_FAR = 1e6  # bound of a scaled value; the smooth clip has reached its limit of 3 long before
_QUANTILES = 256


@dataclass(frozen=True, eq=False)
class NumericEncoder:
    """Scales the columns of a matrix of shape (rows, d) and appends a 0/1 column for each that had gaps.

    ``robust`` (Holzmueller et al. 2024, "Better by Default", RealMLP): ``z = s (x - median)`` with ``s`` the
    reciprocal of the interquartile range, else 2 / (max - min), else 0; then ``z / sqrt(1 + (z / 3)^2)``.
    ``standard``: ``(x - mean) / deviation``. ``quantile``: the normal score of the empirical quantile.

    A gap becomes 0, the middle of the training values. Infinities become the smallest or largest finite value
    of the training rows.
    """

    scaling: Scaling
    low: Floats  # (d,) smallest finite value
    high: Floats  # (d,) largest
    center: Floats  # (d,)
    scale: Floats  # (d,)
    gappy: npt.NDArray[np.bool_]  # (d,) gets an indicator
    grid: Floats  # (q, d) quantiles of the training values; (0, d) unless scaling is "quantile"

    @classmethod
    def fit(cls, chunks: Iterable[Floats], scaling: Scaling = "robust") -> NumericEncoder:
        """Learn from matrices of shape (rows, columns) that make up the columns one after the other."""
        parts = [_statistics(chunk, scaling) for chunk in chunks]
        joined = [np.concatenate(part, axis=-1) for part in zip(*parts, strict=True)]
        low, high, center, scale, gaps, grid = joined
        return cls(scaling, low, high, center, scale, gaps > 0, grid)

    def without_gaps(self) -> NumericEncoder:
        """The same without a column for gaps, for a second encoding of the same numbers."""
        return replace(self, gappy=np.zeros_like(self.gappy))

    @property
    def n_columns(self) -> int:
        """Columns d that it scales."""
        return len(self.low)

    @property
    def width(self) -> int:
        """Columns that `encode` fills: d and the indicators."""
        return self.n_columns + int(self.gappy.sum())

    def names(self, columns: Sequence[str]) -> list[str]:
        """Names of the filled columns."""
        gappy = [f"{name}__missing" for name, gaps in zip(columns, self.gappy, strict=True) if gaps]
        return [*columns, *gappy]

    def encode(self, values: Floats, out: npt.NDArray[np.float32]) -> None:
        """Write the scaled values of shape (rows, d) and the indicators into `out` of shape (rows, width)."""
        gap = np.isnan(values)
        endless = np.isinf(values)
        if endless.any():
            values = np.where(endless, np.where(values > 0, self.high, self.low), values)
        z = np.clip(values, -_HUGE, _HUGE)
        if self.scaling == "quantile":
            z = self._normal_scores(z)
        else:
            z -= self.center
            with np.errstate(over="ignore"):
                z *= self.scale
            np.clip(z, -_FAR, _FAR, out=z)
            if self.scaling == "robust":
                z /= np.sqrt(1.0 + np.square(z / 3.0))
        z[gap] = 0.0
        width = len(self.low)
        out[:, :width] = z
        out[:, width:] = gap[:, self.gappy]

    def _normal_scores(self, values: Floats) -> Floats:
        levels = np.linspace(0.0, 1.0, len(self.grid))
        margin = 0.5 / len(self.grid)
        scores = np.zeros_like(values)
        for column in np.flatnonzero(self.scale):  # np.interp takes one column at a time
            known, grid = values[:, column], self.grid[:, column]
            # from below and from above, so that a value that fills many quantiles gets the middle of them
            below = np.interp(known, grid, levels)
            above = 1.0 - np.interp(-known, -grid[::-1], levels)
            scores[:, column] = 0.5 * (below + above)
        used = self.scale != 0
        scores[:, used] = ndtri(np.clip(scores[:, used], margin, 1.0 - margin))
        return scores

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form; floats keep every bit."""
        return {
            "scaling": self.scaling,
            "low": self.low.tolist(),
            "high": self.high.tolist(),
            "center": self.center.tolist(),
            "scale": self.scale.tolist(),
            "gappy": self.gappy.tolist(),
            "grid": self.grid.tolist(),
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> NumericEncoder:
        """Inverse of `to_dict`."""
        low, high, center, scale = (
            np.array(state[name], dtype=np.float64) for name in ("low", "high", "center", "scale")
        )
        grid = np.array(state["grid"], dtype=np.float64).reshape(len(state["grid"]), len(low))
        return cls(state["scaling"], low, high, center, scale, np.array(state["gappy"], dtype=np.bool_), grid)


def _statistics(values: Floats, scaling: Scaling) -> tuple[npt.NDArray[Any], ...]:
    """low, high, center, scale, gaps of shape (columns,) and the grid of shape (q, columns)."""
    rows, columns = values.shape
    gaps = np.isnan(values).sum(axis=0)
    # one sort answers every question below; NaN goes to the end, so the finite values come first
    ordered = np.ascontiguousarray(values.T, dtype=np.float64)
    ordered = np.where(np.isfinite(ordered), np.clip(ordered, -_HUGE, _HUGE), np.nan)
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
        nothing = np.zeros(columns)
        return nothing, nothing, nothing, nothing, gaps, np.zeros((0, columns))
    low, high = ordered[:, 0], ordered[every, last]
    spread = high - low
    grid = np.zeros((0, columns))
    if scaling == "standard":
        known = np.isfinite(ordered)
        center = ordered.sum(axis=1, where=known) / np.maximum(count, 1)
        deviation = np.sqrt(
            np.square(ordered - center[:, None]).sum(axis=1, where=known) / np.maximum(count, 1)
        )
        scale = np.where(spread > _TINY, 1.0 / np.maximum(deviation, _TINY), 0.0)
    else:
        center = quantile(0.5)
        middle = quantile(0.75) - quantile(0.25)
        scale = np.where(
            middle > _TINY,
            1.0 / np.maximum(middle, _TINY),
            np.where(spread > _TINY, 2.0 / np.maximum(spread, _TINY), 0.0),
        )
        if scaling == "quantile":
            levels = np.linspace(0.0, 1.0, min(rows, _QUANTILES))
            grid = np.maximum.accumulate(np.stack([quantile(level) for level in levels]), axis=0)
    return low.copy(), high.copy(), center, scale, gaps, grid
