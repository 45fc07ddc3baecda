"""What is left to predict with where a table tells nothing: the same for every row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from parallelmlp_search.data import ClassTarget, class_weights, combine_weights, recognise_columns
from parallelmlp_search.search import Problem

__all__ = ["ConstantModel", "has_usable_column"]


def has_usable_column(frame: pd.DataFrame) -> bool:
    """Whether a column differs between rows other than by numbering them."""
    return any(column.kind not in ("constant", "identifier") for column in recognise_columns(frame))


@dataclass(frozen=True, eq=False)
class ConstantModel:
    """Predicts the shares of the classes, or one value for each output, for every row.

    Attributes
    ----------
    classes
        Class labels in the order of the probabilities, or None.
    values
        Probabilities ``(classes,)`` or values ``(outputs,)``.
    """

    classes: npt.NDArray[Any] | None
    values: npt.NDArray[np.float64]

    @classmethod
    def fit(cls, problem: Problem, loss: str | None = None) -> ConstantModel:
        """The constant with the least loss: weighted shares, mean, or quantile where the loss is one."""
        if problem.task == "regression":
            target = np.asarray(problem.target, dtype=np.float64).reshape(problem.n_rows, -1)
            weight = np.ones(problem.n_rows) if problem.weight is None else problem.weight
            kind, _, level = (loss or "").partition(":")
            if kind == "quantile":
                return cls(None, _quantile(target, weight, float(level or 0.5)))
            return cls(None, np.average(target, axis=0, weights=weight))
        encoder = ClassTarget.fit(problem.target)
        encoded = encoder.encode(problem.target)
        by_class = class_weights(encoded, problem.class_weight, encoder.classes_)
        counts = np.bincount(
            encoded, weights=combine_weights(problem.weight, by_class, problem.n_rows), minlength=len(encoder)
        )
        return cls(encoder.classes_, counts / counts.sum())

    def predictions(self, frame: pd.DataFrame) -> npt.NDArray[np.float64]:
        """Probabilities ``(classes, n)`` or values ``(outputs, n)``."""
        return np.repeat(self.values[:, None], len(frame), axis=1)

    def decide(self, probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
        """Number of the most probable class ``(n,)``, given probabilities ``(classes, n)``."""
        decided: npt.NDArray[np.intp] = probabilities.argmax(axis=0)
        return decided


def _quantile(
    target: npt.NDArray[np.float64], weight: npt.NDArray[Any], level: float
) -> npt.NDArray[np.float64]:
    """Smallest value of each column ``(n, outputs)`` below or at which lies ``level`` of the weight."""
    found = np.empty(target.shape[1])
    for output, column in enumerate(target.T):
        order = np.argsort(column, kind="stable")
        share = np.cumsum(weight[order]) / weight.sum()
        found[output] = column[order[min(int(np.searchsorted(share, level)), len(order) - 1)]]
    return found
