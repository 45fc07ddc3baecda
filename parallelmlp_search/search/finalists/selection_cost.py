"""Predicted time of selecting an ensemble and of correcting its score, on one core."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from parallelmlp_search.search.problem.preparation import Preparation
from parallelmlp_search.selection.bias_correction import (
    MAX_CALL_SECONDS,
    MAX_ERROR_SECONDS,
    MAX_ROWS,
    MIN_ERROR_SAMPLES,
    MIN_ROWS,
    N_ERROR_SAMPLES,
)
from parallelmlp_search.selection.ensemble import MAX_SELECTION_SECONDS
from parallelmlp_search.selection.formulas import Formula, SquaredFormula

N_ROUNDS, N_BOOTSTRAPS = 25, 30
"""Rounds of the selection, and samples of the correction."""

IN_BAG = 0.63
"""Share of the rows that a sample draws."""

SAMPLE_NS = 60.0
"""Nanoseconds per row for drawing a sample and its out-of-bag rows."""


@dataclass(frozen=True)
class SelectionCost:
    """Sizes that decide on the time.

    Attributes
    ----------
    n_finalists, n_values, n_rows
        Finalists, values of each that a score is computed from, and rows.
    formula
        Formula of the metric.
    """

    n_finalists: int
    n_values: int
    n_rows: int
    formula: Formula

    @classmethod
    def of(cls, preparation: Preparation, n_finalists: int) -> SelectionCost:
        """Cost of a number of finalists of a problem."""
        formula, n_outputs = preparation.metric.formula, preparation.problem.head.n_predictions
        target = torch.zeros((1,), dtype=torch.int64)
        if formula.target_kind != "classes":
            target = torch.zeros((n_outputs, 1), dtype=torch.float64)
        n_projected = formula.project(torch.zeros((1, n_outputs, 1)), target).shape[1]
        return cls(n_finalists, n_projected * preparation.n_oof, preparation.n_oof, formula)

    @property
    def single(self) -> float:
        """Seconds of scoring one finalist."""
        return self.formula.seconds(self.n_values, 1)

    @property
    def once(self) -> float:
        """Seconds of scoring all finalists."""
        return self.n_finalists * self.single

    @property
    def error(self) -> float:
        """Seconds of a standard error."""
        whole = N_ERROR_SAMPLES * self.single
        return whole if self.formula.call_ns == 0 else min(whole, self.limited_error)

    @property
    def limited_error(self) -> float:
        """Seconds of a standard error whose samples are limited."""
        whole = N_ERROR_SAMPLES * self.single
        return min(whole, max(MAX_ERROR_SECONDS, MIN_ERROR_SAMPLES * self.single))

    @property
    def _round(self) -> float:
        """Seconds of all rounds of a selection relative to those of scoring all finalists once."""
        return 2.0 if isinstance(self.formula, SquaredFormula) else N_ROUNDS

    @property
    def selecting(self) -> float:
        """Seconds of selecting the ensemble on all rows."""
        return self.once + min(MAX_SELECTION_SECONDS, (self._round - 1.0) * self.once)

    @property
    def correcting(self) -> float:
        """Seconds of repeating the selection on samples of the rows."""
        seconds = MAX_CALL_SECONDS if self.formula.call_ns else MAX_SELECTION_SECONDS
        per_row = self.once / self.n_rows * self._round
        rows = min(max(seconds / N_BOOTSTRAPS / per_row, MIN_ROWS), MAX_ROWS, IN_BAG * self.n_rows)
        out_of_bag = (1.0 - IN_BAG) * self.single + 1e-9 * SAMPLE_NS * self.n_rows
        return N_BOOTSTRAPS * (rows * per_row + out_of_bag)
