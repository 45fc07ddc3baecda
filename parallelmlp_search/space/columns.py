"""What the columns of a prepared table are, and which of them a configuration sees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from parallelmlp_search.space.config import MLPConfig

__all__ = ["NO_GROUPS", "ColumnGroups"]


@dataclass(frozen=True, slots=True)
class ColumnGroups:
    """Columns of a prepared table by what they are; the groups follow each other in this order.

    Attributes
    ----------
    n_quantiles
        How many columns, the first ones, are normal scores of the numbers: all of them or none.
    n_pieces
        How many columns, those behind the scores, are pieces of numbers.
    n_numbers
        How many columns, those behind the pieces, are the numbers as they are scaled for all.
    categories
        ``(first, size)`` of the columns behind the numbers that stand for one category each.
    """

    n_quantiles: int = 0
    n_pieces: int = 0
    n_numbers: int = 0
    categories: tuple[tuple[int, int], ...] = ()

    def seen_by(self, config: MLPConfig, n_inputs: int) -> tuple[tuple[int, int], ...]:
        """Runs ``(first, end)`` of the ``n_inputs`` columns that a configuration sees.

        The numbers that it embeds come first; what it does not see lies before all categories.
        """
        numbers = self.n_quantiles + self.n_pieces
        runs = [(numbers, n_inputs)]
        if config.numeric_scaling == "quantile" and self.n_quantiles:
            runs = [(0, self.n_quantiles), (numbers + self.n_numbers, n_inputs)]
        if config.numeric_embedding == "piecewise":
            runs.insert(len(runs) - 1, (self.n_quantiles, numbers))
        joined: list[tuple[int, int]] = []
        for first, end in runs:
            if joined and joined[-1][1] == first:
                joined[-1] = (joined[-1][0], end)
            elif first < end:
                joined.append((first, end))
        return tuple(joined)

    def without(self, n_hidden: int) -> ColumnGroups:
        """Groups of the columns that a configuration sees which does not see ``n_hidden`` of them."""
        categories = tuple((first - n_hidden, size) for first, size in self.categories)
        return ColumnGroups(n_numbers=self.n_numbers, categories=categories)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ColumnGroups:
        """The groups that :meth:`to_dict` wrote."""
        categories = tuple((first, size) for first, size in values["categories"])
        return cls(**{**values, "categories": categories})


NO_GROUPS = ColumnGroups()
"""Columns of which nothing is known but that they are inputs."""
