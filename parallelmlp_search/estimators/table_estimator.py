"""What every estimator shares: a table and a target checked as scikit-learn checks them, and predictions."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from numbers import Integral
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.utils import check_consistent_length, check_random_state
from sklearn.utils.validation import check_is_fitted

from parallelmlp_search.estimators.constant_model import ConstantModel
from parallelmlp_search.estimators.inputs import (
    column_of_rows,
    label_target,
    numeric_target,
    row_weights,
    table,
)
from parallelmlp_search.exceptions import DataError, DataWarning, InvalidParameterError, near_miss
from parallelmlp_search.kernels import get_loss
from parallelmlp_search.search import Problem, TrainedModel

__all__ = ["LabelTarget", "NumericTarget", "TableEstimator", "constant_model", "seed_from"]

LARGEST_SEED = 2**31 - 1

REGRESSION_LOSSES = ("squared_error", "huber", "quantile")


class TableEstimator(BaseEstimator):  # type: ignore[misc]
    """Base of the estimators: from a table and a target to a problem, from a model to predictions."""

    n_features_in_: int
    feature_names_in_: npt.NDArray[np.object_]
    model_: TrainedModel | ConstantModel

    def _table_and_target(self, X: Any, y: Any) -> tuple[pd.DataFrame, npt.NDArray[Any]]:
        """Checked table and target; learns names and number of columns."""
        frame = table(self, X)
        if y is None:
            raise DataError(
                f"This {type(self).__name__} estimator requires y to be passed, but the target y is None."
            )
        target = self._target(y)
        check_consistent_length(frame, target)
        self._columns = list(frame.columns)
        self._target_name = name if isinstance(name := getattr(y, "name", None), str) else None
        return frame, target

    def _target(self, y: Any) -> npt.NDArray[Any]:
        """Checked target of the rows."""
        raise NotImplementedError

    def _task_of(self, target: npt.NDArray[Any]) -> str:
        """Task of a checked target."""
        raise NotImplementedError

    def _class_weight(self) -> str | Mapping[Any, float] | None:
        return None

    def _problem(
        self,
        frame: pd.DataFrame,
        target: npt.NDArray[Any],
        sample_weight: Any = None,
        groups: Any = None,
        time: Any = None,
    ) -> Problem:
        """The question to search on, its weights, groups and times checked, without rows of weight zero."""
        weight = row_weights(sample_weight, len(frame))
        groups = column_of_rows("groups", groups, len(frame))
        time = column_of_rows("time", time, len(frame))
        rows: Any = slice(None) if weight is None else np.flatnonzero(weight > 0)
        target = target[rows]
        if len(target) < 2:
            raise DataError(f"at least 2 rows must have a sample_weight > 0, but there is {len(target)}")
        return Problem(
            frame=frame.iloc[rows].reset_index(drop=True),
            target=target,
            task=self._task_of(target),  # type: ignore[arg-type]
            weight=None if weight is None else weight[rows],
            groups=None if groups is None else groups[rows],
            time=None if time is None else time[rows],
            class_weight=self._class_weight(),
            target_name=self._target_name,
        )

    def _predictions(self, X: Any) -> npt.NDArray[np.float64]:
        """Probabilities or values ``(n_samples, C)``."""
        check_is_fitted(self, "model_")
        frame = table(self, X, names=self._columns)
        return np.ascontiguousarray(self.model_.predictions(frame).T)

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn may rely on."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.sparse = True
        tags.input_tags.string = True
        tags.input_tags.categorical = True
        return tags


class LabelTarget(TableEstimator):
    """A target of classes: its checks, and predictions of labels and probabilities."""

    classes_: npt.NDArray[Any]
    class_weight: str | Mapping[Any, float] | None

    def predict_proba(self, X: Any) -> npt.NDArray[np.float64]:
        """Probability of each class, shape (n_samples, n_classes), in the order of ``classes_``."""
        return self._predictions(X)

    def predict_log_proba(self, X: Any) -> npt.NDArray[np.float64]:
        """Logarithm of :meth:`predict_proba`; a probability of zero gives minus infinity."""
        with np.errstate(divide="ignore"):
            return cast("npt.NDArray[np.float64]", np.log(self.predict_proba(X)))

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """Class of each row, shape (n_samples,): the most probable, or as the decision was tuned."""
        probabilities = self._predictions(X)  # which says so if there is no model yet
        labels: npt.NDArray[Any] = self.classes_[self.model_.decide(probabilities.T)]
        return labels

    def _target(self, y: Any) -> npt.NDArray[Any]:
        return label_target(y)

    def _task_of(self, target: npt.NDArray[Any]) -> str:
        self.classes_ = np.unique(target)
        if len(self.classes_) < 2:
            raise DataError(
                f"y must hold at least 2 classes in rows of weight > 0, but it holds one class: "
                f"{self.classes_.tolist()[0]!r}"
            )
        return "binary" if len(self.classes_) == 2 else "multiclass"

    def _class_weight(self) -> str | Mapping[Any, float] | None:
        return self.class_weight


class NumericTarget(TableEstimator):
    """A target of numbers, one or several columns: its checks, and predictions of values."""

    loss: str | None

    def predict(self, X: Any) -> npt.NDArray[np.float64]:
        """Value of each row, shape (n_samples,), or (n_samples, n_outputs) if the target had columns."""
        values = self._predictions(X)
        return values if self._has_columns else values[:, 0]

    def _target(self, y: Any) -> npt.NDArray[Any]:
        values = numeric_target(y)
        self._has_columns = values.ndim == 2
        return values[:, 0] if values.shape[1:] == (1,) else values

    def _task_of(self, target: npt.NDArray[Any]) -> str:
        return "regression"

    def _checked_loss(self) -> str | None:
        """What training minimises, None for the default."""
        if self.loss is None:
            return None
        kind = self.loss.partition(":")[0] if isinstance(self.loss, str) else ""
        if kind not in REGRESSION_LOSSES:
            raise InvalidParameterError(
                f"loss must be one of {', '.join(REGRESSION_LOSSES)}, but got {self.loss!r}"
                f"{near_miss(kind, REGRESSION_LOSSES)}"
            )
        get_loss(self.loss)  # checks the number behind the colon
        return self.loss

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn may rely on."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


def constant_model(problem: Problem, loss: str | None) -> ConstantModel:
    """What predicts where no column tells rows apart, with a warning."""
    warnings.warn(
        "X has no column that tells rows apart, so that every prediction is the same",
        DataWarning,
        stacklevel=4,
    )
    return ConstantModel.fit(problem, loss)


def seed_from(random_state: Any) -> int:
    """Seed of a ``random_state``: the integer itself, or one drawn from the generator.

    Raises
    ------
    InvalidParameterError
        If an integer is negative or too large.
    """
    if isinstance(random_state, Integral) and not isinstance(random_state, bool):
        seed = int(random_state)
        if not 0 <= seed <= LARGEST_SEED:
            raise InvalidParameterError(f"random_state must lie in [0, {LARGEST_SEED}], but got {seed}")
        return seed
    return int(check_random_state(random_state).randint(LARGEST_SEED))
