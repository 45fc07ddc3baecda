"""Conformal prediction from the scores of out-of-fold rows: ends of intervals, and sets of classes.

The rows are in groups, and each group belongs to the networks that have not seen its rows. With the folds of
cross-fitting as groups this is CV+ (Barber, Candes, Ramdas and Tibshirani, "Predictive inference with the
jackknife+", Annals of Statistics 49(1), 2021; for classes: Romano, Sesia and Candes, NeurIPS 2020). With one
group it is a single threshold, as in split conformal prediction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from parallelmlp_search._checks import is_number, refuse
from parallelmlp_search.exceptions import InvalidParameterError

HALVINGS = 40
"""Steps of the search for an end. It begins between the ends of single groups, which are close."""

ROUNDING = 1e-9
"""Excess of a product such as 0.55 * 20 over the whole number that it stands for."""

Floats = NDArray[np.float64]


class ConformalScores:
    """Scores of out-of-fold rows, which grow with the error; sorted in each group.

    Parameters
    ----------
    scores
        Score of each row ``(n,)``.
    groups
        Group of each row ``(n,)``, from 0.
    n_groups
        Number of groups ``G``; some may have no row.
    weight
        Weight of each row ``(n,)``, or None for equal weights.
    """

    def __init__(
        self,
        scores: NDArray[np.floating],
        groups: NDArray[np.integer],
        n_groups: int,
        weight: NDArray[np.floating] | None = None,
    ) -> None:
        values = scores.astype(np.float64)
        weight = np.ones(len(values)) if weight is None else weight / weight.mean(dtype=np.float64)
        self.n_rows = len(values)
        order = np.argsort(values, kind="stable")
        self._all, self._all_weights = values[order], np.cumsum(weight[order])
        self._groups: list[tuple[Floats, Floats]] = []
        for number in range(n_groups):
            own = order[groups[order] == number]
            self._groups.append((values[own], np.concatenate([[0.0], np.cumsum(weight[own])])))

    @property
    def max_coverage(self) -> float:
        """Largest coverage that the number of rows allows."""
        return self.n_rows / (self.n_rows + 1)

    def _needed(self, coverage: float) -> float:
        """Weight of scores that must lie within; a new row counts as one more."""
        needed = coverage * (self.n_rows + 1) - ROUNDING
        if needed > self.n_rows:
            raise InvalidParameterError(
                f"coverage must be at most {self.max_coverage:.4g} with {self.n_rows} out-of-fold rows, but "
                f"got {coverage:g}: ask for less, or search a larger table"
            )
        return needed

    def quantile(self, coverage: float) -> float:
        """Return the score that this share of new rows does not exceed, all groups together.

        Raises
        ------
        InvalidParameterError
            If there are too few rows.
        """
        place = int(np.searchsorted(self._all_weights, self._needed(coverage)))
        return float(self._all[min(place, self.n_rows - 1)])

    def upper_ends(self, centres: Floats, scales: Floats, coverage: float) -> Floats:
        """Return the upper ends of intervals that this share of new rows does not exceed.

        It is the smallest ``t`` with enough scores ``s`` for which ``centre + s * scale <= t``, with the
        centre and the scale of the group of the score.

        Parameters
        ----------
        centres, scales
            Prediction and size of the error of each row by the networks of each group ``(G, n)``.
        coverage
            Share of new rows, in (0, 1).

        Returns
        -------
        array of shape (n,)

        Raises
        ------
        InvalidParameterError
            If there are too few rows.
        """
        needed, quantile = self._needed(coverage), self.quantile(coverage)
        ends = centres + quantile * scales
        # at the largest end of a single group, all groups together have enough scores; below the smallest not
        low: Floats = ends.min(axis=0)
        high: Floats = ends.max(axis=0)
        if len(centres) > 1:
            for _ in range(HALVINGS):
                middle: Floats = 0.5 * (low + high)
                enough = self._weight_up_to((middle - centres) / scales, "right") >= needed
                low, high = np.where(enough, low, middle), np.where(enough, middle, high)
        return high

    def are_within(self, scores: Floats, coverage: float) -> NDArray[np.bool_]:
        """Return whether scores of new rows are as small as those of this share of rows.

        Parameters
        ----------
        scores
            Scores by the networks of each group ``(G, n)``.
        coverage
            Share of new rows, in (0, 1).

        Returns
        -------
        array of shape (n,)

        Raises
        ------
        InvalidParameterError
            If there are too few rows.
        """
        return self._weight_up_to(scores, "left") < self._needed(coverage)

    def _weight_up_to(self, values: Floats, side: Literal["left", "right"]) -> Floats:
        """Weight ``(n,)`` of the scores up to the values ``(G, n)`` of their group."""
        total: Floats = np.zeros(values.shape[1])
        for (scores, weights), own in zip(self._groups, values, strict=True):
            total += weights[np.searchsorted(scores, own, side=side)]
        return total


def check_coverages(coverage: object) -> tuple[float, ...]:
    """Return one or several coverages as numbers.

    Raises
    ------
    InvalidParameterError
        If one is not a number in (0, 1), or there is none.
    """
    given: list[Any] = list(coverage) if isinstance(coverage, Sequence | np.ndarray) else [coverage]
    rule = "a number in (0, 1), such as 0.9, or several"
    if not given or isinstance(coverage, str):
        refuse("coverage", rule, coverage)
    for one in given:
        if not (is_number(one) and 0.0 < one < 1.0):
            refuse("coverage", rule, one)
    return tuple(float(one) for one in given)
