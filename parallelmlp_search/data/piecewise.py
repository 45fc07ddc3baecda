"""Piecewise linear encoder of numeric columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from parallelmlp_search._checks import check_array, refuse

Floats = npt.NDArray[np.float64]

_MIN_VALUES_PER_BIN = 50
"""When edges are placed, the rows of a single value count for at most 1 / 50 of a bin.

Otherwise a frequent value takes most bins: 90 % of adult's capital gains are zero. Six networks reach an AUC
of 0.922 on adult, with plain quantiles 0.911, and without this encoding 0.910."""


@dataclass(frozen=True, eq=False)
class PiecewiseEncoder:
    """Piecewise linear encoding (Gorishniy et al. 2022, "On Embeddings for Numerical Features", section 3.2).

    A column with edges ``b_0 < ... < b_T`` becomes ``T`` columns; the one of bin ``t`` is
    ``(x - b_{t-1}) / (b_t - b_{t-1})``, clipped to [0, 1]. Edges are quantiles of the training values, to
    which no single value contributes more than a small share of a bin. A missing value is 0 everywhere.
    """

    edges: tuple[Floats, ...]

    @classmethod
    def fit(cls, chunks: Iterable[Floats], n_bins: int) -> PiecewiseEncoder:
        """Fit to columns that come as consecutive matrices of shape (rows, columns)."""
        return cls(tuple(_edges(column, n_bins) for chunk in chunks for column in chunk.T))

    @property
    def n_columns(self) -> int:
        """Number of encoded columns."""
        return len(self.edges)

    @property
    def width(self) -> int:
        """Number of columns that `encode` fills."""
        return sum(len(self._bins(edges)) for edges in self.edges)

    @staticmethod
    def _bins(edges: Floats) -> range:
        # a single bin would repeat the scaled number
        return range(len(edges) - 1) if len(edges) > 2 else range(0)

    @cached_property
    def bins(self) -> tuple[npt.NDArray[np.intp], Floats, Floats]:
        """Number of the column, left edge and size of each bin, in the order of the filled columns."""
        places = [(number, place) for number, edges in enumerate(self.edges) for place in self._bins(edges)]
        left = np.array([self.edges[number][place] for number, place in places], dtype=np.float64)
        right = np.array([self.edges[number][place + 1] for number, place in places], dtype=np.float64)
        return np.array([number for number, _ in places], dtype=np.intp), left, right - left

    def names(self, columns: Sequence[str]) -> list[str]:
        """Names of the filled columns."""
        pairs = zip(columns, self.edges, strict=True)
        return [f"{name}__bin{number}" for name, edges in pairs for number in self._bins(edges)]

    def encode(self, values: Floats, out: npt.NDArray[np.float32]) -> None:
        """Encode values of shape (rows, d) into `out` of shape (rows, width)."""
        start = 0
        for column, edges in zip(values.T, self.edges, strict=True):
            width = len(self._bins(edges))
            if not width:
                continue
            known = np.clip(np.where(np.isnan(column), edges[0], column), edges[0], edges[-1])
            pieces = (known[:, None] - edges[:-1]) / np.diff(edges)
            out[:, start : start + width] = np.clip(pieces, 0.0, 1.0)
            start += width

    def to_dict(self) -> dict[str, Any]:
        """Return a form that JSON can hold; floats keep every bit."""
        return {"edges": [edges.tolist() for edges in self.edges]}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> PiecewiseEncoder:
        """Inverse of `to_dict`."""
        found = tuple(check_array("edges", edges, (None,)) for edges in state["edges"])
        for edges in found:
            if not (len(edges) and np.all(np.diff(edges) > 0)):
                refuse("edges", "increasing", edges)
        return cls(found)


def _edges(column: Floats, n_bins: int) -> Floats:
    """Return at most ``n_bins + 1`` ascending edges."""
    known = column[np.isfinite(column)]
    if not len(known):
        return np.zeros(1)
    # clipped, so that differences of edges do not overflow
    values, counts = np.unique(np.clip(known, -1e100, 1e100), return_counts=True)
    weights = np.minimum(counts, max(1.0, len(known) / (_MIN_VALUES_PER_BIN * n_bins)))
    level = (np.cumsum(weights) - 0.5 * weights) / weights.sum()
    inner = np.searchsorted(level, np.linspace(0.0, 1.0, n_bins + 1)[1:-1]).clip(0, len(values) - 1)
    edges: Floats = values[np.unique(np.concatenate([[0], inner, [len(values) - 1]]))]
    return edges
