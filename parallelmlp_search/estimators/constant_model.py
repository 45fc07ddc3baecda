"""Model for tables without an informative column: it predicts the same for every row."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from parallelmlp_search.data import ClassTarget, TargetScaling, class_weights, combine_weights
from parallelmlp_search.exceptions import DataError, DataWarning
from parallelmlp_search.inference.outputs import decided

if TYPE_CHECKING:
    import pandas as pd

    from parallelmlp_search.search import Problem
    from parallelmlp_search.selection import Costs, Matrix


class NoFiguresError(DataError, AttributeError):
    """A constant has no figures. scikit-learn asks for all attributes; to it there is no such attribute."""


@dataclass(frozen=True, eq=False)
class ConstantModel:
    """Predicts the frequencies of the classes or labels, or one value for each output.

    Attributes
    ----------
    classes
        Class labels in the order of the probabilities; None for labels and values.
    values
        Probabilities of shape (n_classes,) or (n_labels,), or values of shape (n_outputs,).
    decision_weights
        Decision matrix of costs, or None.
    """

    classes: npt.NDArray[Any] | None
    values: npt.NDArray[np.float64]
    decision_weights: Matrix | None = None

    @classmethod
    def fit(cls, problem: Problem, loss: str | None = None, costs: Costs | None = None) -> ConstantModel:
        """Return the constant of least loss: weighted frequencies, mean, or quantile for a quantile loss.

        A warning says that no column is informative.

        Parameters
        ----------
        problem
            Table and target.
        loss
            Name of the loss of a regression, or None.
        costs
            Costs of errors that predicted classes minimise, or None.

        Returns
        -------
        ConstantModel
        """
        from sklearn.dummy import DummyClassifier, DummyRegressor

        warnings.warn(
            "X has no informative column: all are constant or number the rows, so all predictions are equal",
            DataWarning,
            stacklevel=3,
        )
        weight = np.ones(problem.n_rows) if problem.weight is None else problem.weight
        if problem.task == "regression":
            kind, _, level = (loss or "").partition(":")
            dummy = DummyRegressor(strategy="mean")
            if kind == "quantile":
                dummy = DummyRegressor(strategy="quantile", quantile=float(level or 0.5))
            scaling = TargetScaling.fit(problem.target)  # a sum of large numbers would overflow
            dummy.fit(problem.frame, scaling.apply(problem.target), weight)
            return cls(None, scaling.restore(dummy.constant_.reshape(-1, 1))[:, 0])
        if problem.task == "multilabel":
            return cls(None, np.average(problem.target, axis=0, weights=weight))
        encoder = ClassTarget.fit(problem.target)
        encoded = encoder.encode(problem.target)
        by_class = class_weights(encoded, problem.class_weight, encoder.classes_)
        combined = combine_weights(weight, by_class, problem.n_rows)
        dummy = DummyClassifier(strategy="prior").fit(problem.frame, encoded, combined)
        decision = None
        if costs is not None:
            from parallelmlp_search.selection import decision_matrix

            decision = decision_matrix(costs.resolve(encoder.classes_))
        return cls(encoder.classes_, dummy.class_prior_, decision)

    def predictions(self, X: pd.DataFrame | npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Return probabilities of shape (n_classes, n) or values of shape (n_outputs, n)."""
        return np.repeat(self.values[:, None], len(X), axis=1)

    def class_numbers(self, probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
        """Return the index of the predicted class, shape (n,), from probabilities (n_classes, n)."""
        return decided(probabilities, self.decision_weights)

    def has_labels(self, probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """Return labels (n_labels, n) as 0 and 1, from their probabilities (n_labels, n)."""
        return (probabilities > 0.5).astype(np.int64)
