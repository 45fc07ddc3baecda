"""Settings of an explanation."""

from __future__ import annotations

from dataclasses import dataclass

from parallelmlp_search._checks import check_integer
from parallelmlp_search.exceptions import InvalidParameterError

MINIMA = {"n_repeats": 1, "max_rows": 20, "n_attributed": 0, "n_background": 2, "seed": 0}
"""Least values of whole numbers."""


@dataclass(frozen=True)
class ExplainSettings:
    """Size of an explanation. None leaves a number to the predicted time, about 8 s on one core in all.

    Parameters
    ----------
    n_repeats
        Permutations of each column; None for 1 to 5.
    max_rows
        Most rows on which columns are permuted; None for 500 to 10,000.
    n_attributed
        Rows whose predictions are divided among the columns: half of them the worst ones, the others random.
        None for 10 to 100.
    n_background
        Rows that stand for an unknown value in attributions; None for 4 to 64.
    columns
        Columns whose partial dependence is computed; None for the eight most important ones.
    seed
        Seed of all samples and permutations.
    """

    n_repeats: int | None = None
    max_rows: int | None = None
    n_attributed: int | None = None
    n_background: int | None = None
    columns: tuple[str, ...] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, minimum in MINIMA.items():
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, check_integer(name, value, minimum))
        if self.columns is not None:
            if isinstance(self.columns, str):
                raise InvalidParameterError(f"columns must be a list of names, but got {self.columns!r}")
            object.__setattr__(self, "columns", tuple(self.columns))
