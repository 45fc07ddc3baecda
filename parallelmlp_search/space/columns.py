"""Groups of the columns of a preprocessed table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from parallelmlp_search.space.config import MLPConfig


@dataclass(frozen=True, slots=True)
class ColumnGroups:
    """Groups of the columns of a preprocessed table, in this order.

    Attributes
    ----------
    n_quantiles
        Number of columns with normal scores of numbers: one per number, or 0.
    n_pieces
        Number of columns of the piecewise linear encoding of numbers.
    n_numbers
        Number of columns with scaled numbers.
    categories
        ``(first column, number of columns)`` of each one-hot encoded category. They follow the numbers, with
        other columns between them.
    n_means
        Number of columns with mean targets of categories, which are the last ones.
    signs
        ``(first, end, sign)`` of the columns in which predictions may only grow (1) or fall (-1).
    """

    n_quantiles: int = 0
    n_pieces: int = 0
    n_numbers: int = 0
    categories: tuple[tuple[int, int], ...] = ()
    n_means: int = 0
    signs: tuple[tuple[int, int, int], ...] = ()

    def seen_by(self, config: MLPConfig, n_inputs: int) -> tuple[tuple[int, int], ...]:
        """Return the ranges ``(first, end)`` of the ``n_inputs`` columns that a configuration uses.

        Numbers with a periodic embedding come first. Unused columns lie before the categories or at the end.
        """
        numbers = self.n_quantiles + self.n_pieces
        end = n_inputs if config.target_encoding else n_inputs - self.n_means
        ranges = [(numbers, end)]
        if config.numeric_scaling == "quantile" and self.n_quantiles:
            ranges = [(0, self.n_quantiles), (numbers + self.n_numbers, end)]
        if config.numeric_embedding == "piecewise":
            ranges.insert(len(ranges) - 1, (self.n_quantiles, numbers))
        merged: list[tuple[int, int]] = []
        for first, end in ranges:
            if merged and merged[-1][1] == first:
                merged[-1] = (merged[-1][0], end)
            elif first < end:
                merged.append((first, end))
        return tuple(merged)

    def kept_by(self, config: MLPConfig, n_inputs: int) -> ColumnGroups:
        """Return the groups of the columns, of ``n_inputs``, that remain after a configuration drops some."""
        n_unused = n_inputs - sum(end - first for first, end in self.seen_by(config, n_inputs))
        n_before = n_unused if config.target_encoding else n_unused - self.n_means
        categories = tuple((first - n_before, size) for first, size in self.categories)
        signs = self.signs_seen_by(config, n_inputs)
        return ColumnGroups(n_numbers=self.n_numbers, categories=categories, signs=signs)

    def signs_seen_by(self, config: MLPConfig, n_inputs: int) -> tuple[tuple[int, int, int], ...]:
        """Return ``(first, end, sign)`` of monotone columns among those that a configuration uses."""
        found, start = [], 0
        for first, end in self.seen_by(config, n_inputs):
            for low, high, sign in self.signs:
                low, high = max(low, first), min(high, end)
                if low < high:
                    found.append((start + low - first, start + high - first, sign))
            start += end - first
        return tuple(found)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold; `from_dict` is the inverse."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ColumnGroups:
        """Return the groups that `to_dict` wrote."""
        runs = {name: tuple(tuple(run) for run in values.get(name, ())) for name in ("categories", "signs")}
        return cls(**{**values, **runs})


NO_GROUPS = ColumnGroups()
"""Groups of a table whose columns are plain inputs."""
