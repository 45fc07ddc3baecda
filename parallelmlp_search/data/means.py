"""Target encoding: the mean target of each category as numbers, cross-fitted for the rows it is fitted to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from parallelmlp_search._checks import check_array, refuse
from parallelmlp_search.data.categorical import checked_keys, known_places

Floats = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]
Indices = npt.NDArray[np.intp]
Weights = npt.NDArray[np.floating[Any]] | None

SMOOTHING = 10.0
"""Rows of the overall mean that are added to each category, as `smooth` of scikit-learn's `TargetEncoder`."""


@dataclass(frozen=True, eq=False)
class CategoryMeans:
    """Scaled mean targets of the categories of one column.

    Missing values and unseen categories become zeros, which stand for the overall mean.

    Attributes
    ----------
    keys
        Categories.
    values
        Numbers of each category, float32 of shape (categories, outputs).
    """

    keys: tuple[str, ...]
    values: Singles

    @property
    def width(self) -> int:
        """Number of columns that `encode_keys` fills."""
        return int(self.values.shape[1])

    def names(self, name: str) -> list[str]:
        """Names of the filled columns."""
        return [f"{name}__mean{number or ''}" for number in range(self.width)]

    def places(self, keys: Iterable[str]) -> list[int]:
        """Return the place of each category in `keys`; -1 for an unseen one."""
        return known_places(keys, self._index)

    @cached_property
    def table(self) -> Singles:
        """Numbers by place, of shape (categories + 1, outputs); the last row is that of missing values."""
        return np.concatenate([self.values, np.zeros((1, self.width), dtype=np.float32)])

    def encode_keys(self, codes: Indices, keys: Iterable[str], out: Singles) -> None:
        """Encode a column that is given by codes.

        Parameters
        ----------
        codes
            Code of each row, of shape (rows,), -1 for missing values.
        keys
            Category of each code.
        out
            Filled with the result, of shape (rows, width).
        """
        out[:] = self.table[np.array([*self.places(keys), -1], dtype=np.intp)[codes]]

    @cached_property
    def _index(self) -> dict[str, int]:
        return {key: place for place, key in enumerate(self.keys)}

    def to_dict(self) -> dict[str, Any]:
        """Return a form that JSON can hold; floats keep every bit."""
        return {"keys": list(self.keys), "values": self.values.tolist()}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> CategoryMeans:
        """Inverse of `to_dict`."""
        keys = checked_keys(state["keys"])
        values = check_array("values", state["values"], (len(keys), None))
        if not values.shape[1]:
            refuse("values", "at least one number for each category", values)
        return cls(keys, values.astype(np.float32))


@dataclass(frozen=True, eq=False)
class MeanStatistics:
    """Sums from which means are fitted, by block of rows.

    Attributes
    ----------
    counts
        Weights of the rows ``(blocks, categories)``.
    sums
        Weighted sums of the outputs ``(blocks, categories, outputs)``.
    masses, totals
        Weights ``(blocks,)`` and weighted sums ``(blocks, outputs)`` of all rows, those without a category
        included.
    is_probability
        True if the outputs are indicators of classes.
    """

    counts: Floats
    sums: Floats
    masses: Floats
    totals: Floats
    is_probability: bool

    @classmethod
    def of(
        cls, codes: Indices, n_levels: int, outputs: npt.NDArray[Any], blocks: Indices, weight: Weights = None
    ) -> MeanStatistics:
        """Return the sums of rows.

        Parameters
        ----------
        codes
            Category of each row ``(n,)``, -1 for none.
        n_levels
            Number of categories.
        outputs
            Classes ``(n, classes)`` bool, or targets ``(n, outputs)``.
        blocks
            Block of each row ``(n,)``.
        weight
            Weight of each row ``(n,)``, or None.

        Returns
        -------
        MeanStatistics
        """
        shape = int(blocks.max(initial=0)) + 1, n_levels
        known = codes >= 0
        place = blocks[known] * n_levels + codes[known]
        mass = np.ones(len(codes)) if weight is None else weight.astype(np.float64)

        def summed(values: Floats) -> Floats:
            found = np.bincount(place, weights=values[known], minlength=shape[0] * n_levels)
            return found.reshape(shape).astype(np.float64)

        def total(values: Floats) -> Floats:
            return np.bincount(blocks, weights=values, minlength=shape[0]).astype(np.float64)

        weighted = [mass * column for column in outputs.T]
        return cls(
            counts=summed(mass),
            sums=np.stack([summed(values) for values in weighted], axis=2),
            masses=total(mass),
            totals=np.stack([total(values) for values in weighted], axis=1),
            is_probability=outputs.dtype == np.bool_,
        )

    def means(self, *, without: bool = False) -> tuple[Floats, Floats]:
        """Return smoothed means of categories, and overall means.

        Parameters
        ----------
        without
            True for those of each block from the rows of all others, with a first axis of blocks.

        Returns
        -------
        (means, overall)
            Shapes ``(categories, outputs)`` and ``(outputs,)``.
        """
        parts = self.counts, self.sums, self.masses, self.totals
        counts, sums, mass, total = (part.sum(0) - part if without else part.sum(0) for part in parts)
        overall = total / np.maximum(mass, 1e-300)[..., None]
        prior = overall[..., None, :]
        return (sums + SMOOTHING * prior) / (counts[..., None] + SMOOTHING), overall

    def scores(self, *, without: bool = False) -> Floats:
        """Return differences of the means to the overall mean: of log-odds for classes."""
        means, overall = self.means(without=without)
        if self.is_probability:
            means, overall = _log_odds(means), _log_odds(overall)
        return means - overall[..., None, :]

    def fitted(self) -> tuple[Singles, Singles]:
        """Return scaled numbers of categories.

        Returns
        -------
        (fitted, cross_fitted)
            Numbers ``(categories, outputs)`` from all rows, and numbers ``(blocks, categories, outputs)`` for
            the rows of each block, from all other blocks.
        """
        own, counts = self.scores(), self.counts.sum(0)
        least = 1e-12 * (1.0 if self.is_probability else np.abs(self.means()[1]))
        deviation = np.sqrt((np.square(own) * counts[:, None]).sum(0) / max(counts.sum(), 1e-12))
        scale = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=deviation > least)
        return _squashed(own * scale), _squashed(self.scores(without=True) * scale)


def _log_odds(probability: Floats) -> Floats:
    inner = np.clip(probability, 1e-9, 1.0 - 1e-9)
    odds: Floats = np.log(inner) - np.log1p(-inner)
    return odds


def _squashed(z: Floats) -> Singles:
    """Scaled numbers with the smooth limit of robust scaling."""
    return (z / np.sqrt(1.0 + np.square(z / 3.0))).astype(np.float32)
