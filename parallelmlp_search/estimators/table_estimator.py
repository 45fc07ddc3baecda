"""Base classes of all estimators: validation of tables and targets, and predictions."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from numbers import Integral
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_consistent_length, check_random_state
from sklearn.utils.validation import check_is_fitted

from parallelmlp_search.estimators.inputs import (
    check_labels,
    check_numbers,
    check_rows,
    check_table,
    target_names,
)
from parallelmlp_search.exceptions import DataError, InvalidParameterError

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from parallelmlp_search.estimators.constant_model import ConstantModel
    from parallelmlp_search.inference import TrainedModel
    from parallelmlp_search.search import Problem

MAX_SEED = 2**31 - 1


class TableEstimator(BaseEstimator):  # type: ignore[misc]
    """Base of the estimators: turns a table and a target into a problem, and a model into predictions."""

    _task: str
    n_features_in_: int
    columns_: pd.DataFrame
    feature_names_in_: npt.NDArray[np.object_]
    model_: TrainedModel | ConstantModel

    def _check_target(self, y: Any) -> npt.NDArray[Any]:
        """Return the checked target of the rows."""
        raise NotImplementedError

    def _problem(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        groups: Any = None,
        time: Any = None,
        *,
        names: list[str] | None = None,
    ) -> Problem:
        """Return the problem of a table and a target, without the rows of weight zero.

        ``names`` are the columns of training if the problem is that of an earlier ``fit``.
        """
        from parallelmlp_search.search import Problem

        frame = check_table(self, X, names=names)
        if y is None:
            raise DataError(
                f"This {type(self).__name__} estimator requires y to be passed, but the target y is None."
            )
        target = self._check_target(y)
        check_consistent_length(frame, target)
        if names is None:
            self._columns = list(frame.columns)
            self._target_name, self._output_names = target_names(y)
        problem = Problem.from_table(
            frame,
            target,
            task=self._task,
            weight=sample_weight,
            groups=groups,
            time=time,
            class_weight=getattr(self, "class_weight", None),
        )
        problem = replace(problem, target_name=self._target_name, output_names=self._output_names)
        problem = problem.with_column_types(getattr(self, "column_types", None))
        if names is None:
            self.columns_ = problem.column_table
        return problem

    def export(self, path: str | os.PathLike[str], *, format: str = "onnx") -> Path:
        """Write the fitted model to a file that does not need this package.

        Parameters
        ----------
        path
            File to write, or for ``numpy`` a new folder.
        format
            ``onnx``, which needs the extra ``export``, ``torch``, ``numpy`` or ``safetensors``.

        Returns
        -------
        pathlib.Path
            What was written.

        Raises
        ------
        ValueError
            If the format is unknown or does not suit the path, or the model cannot be exported.
        RunDirectoryError
            If the file cannot be written.
        """
        from parallelmlp_search.export import export_model

        check_is_fitted(self, "model_")
        result = getattr(self, "result_", None)
        facts = {
            "metric": None if result is None else result.metric,
            "honest_score": getattr(self, "honest_score_", None),
        }
        return export_model(self.model_, path, format, facts)

    def _predictions(self, X: Any) -> npt.NDArray[np.float64]:
        """Return probabilities or values of shape (n_samples, n_outputs)."""
        check_is_fitted(self, "model_")
        rows = check_rows(self, X, names=self._columns)
        return np.ascontiguousarray(self.model_.predictions(rows).T)

    def __sklearn_tags__(self) -> Any:
        """Return the tags of the estimator, see scikit-learn's developer guide."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.sparse = True
        tags.input_tags.string = True
        tags.input_tags.categorical = True
        return tags


class TableClassifier(ClassifierMixin, TableEstimator):  # type: ignore[misc]
    """Base of the classifiers: checks class labels, predicts labels and probabilities."""

    _task = "classification"
    _label_dtype: npt.DTypeLike = np.int64
    classes_: npt.NDArray[Any] | list[npt.NDArray[Any]]
    class_weight: str | Mapping[Any, float] | None

    def predict_proba(self, X: Any) -> npt.NDArray[np.float64]:
        """Return the probability of each class in ``classes_``, shape (n_samples, n_classes).

        For several labels it is the probability of each label, shape (n_samples, n_labels).
        """
        return self._predictions(X)

    def predict_log_proba(self, X: Any) -> npt.NDArray[np.float64]:
        """Return the logarithm of :meth:`predict_proba`; a probability of zero gives minus infinity."""
        with np.errstate(divide="ignore"):
            return cast("npt.NDArray[np.float64]", np.log(self.predict_proba(X)))

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """Return the class of each row, shape (n_samples,), or 0 and 1 of labels, (n_samples, n_labels).

        It is the most probable class, or the one that the tuned decision thresholds select. A label is
        predicted above a probability of one half, or its tuned threshold.
        """
        probabilities = self._predictions(X)
        if isinstance(self.classes_, list):
            return np.ascontiguousarray(self.model_.has_labels(probabilities.T).T.astype(self._label_dtype))
        labels: npt.NDArray[Any] = self.classes_[self.model_.class_numbers(probabilities.T)]
        return labels

    def _check_target(self, y: Any) -> npt.NDArray[Any]:
        labels = check_labels(y)
        if labels.ndim == 2:
            self._label_dtype = labels.dtype if labels.dtype.kind in "biuf" else np.dtype(np.int64)
        return labels

    def _problem(self, *args: Any, **params: Any) -> Problem:
        problem = super()._problem(*args, **params)
        if problem.task == "multilabel":
            self.classes_ = label_classes(problem.target.shape[1], self._label_dtype)
        else:
            self.classes_ = np.unique(problem.target)
        return problem

    def __sklearn_tags__(self) -> Any:
        """Return the tags of the estimator, see scikit-learn's developer guide."""
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class TableRegressor(RegressorMixin, TableEstimator):  # type: ignore[misc]
    """Base of the regressors: checks a target of one or several numeric columns, predicts values."""

    _task = "regression"
    loss: str | None

    def predict(self, X: Any) -> npt.NDArray[np.float64]:
        """Return the value of each row, shape (n_samples,), or (n_samples, n_outputs) for a 2-d target."""
        values = self._predictions(X)
        return values if self._has_columns else values[:, 0]

    def _check_target(self, y: Any) -> npt.NDArray[Any]:
        values = check_numbers(y)
        self._has_columns = values.ndim == 2
        return values[:, 0] if values.shape[1:] == (1,) else values

    def __sklearn_tags__(self) -> Any:
        """Return the tags of the estimator, see scikit-learn's developer guide."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


def label_classes(n_labels: int, dtype: npt.DTypeLike = np.int64) -> list[npt.NDArray[Any]]:
    """Return the classes of each of several labels, 0 and 1."""
    return [np.array([0, 1]).astype(dtype) for _ in range(n_labels)]


def seed_from(random_state: Any) -> int:
    """Return the seed of a ``random_state``: the integer itself, or one drawn from the generator.

    Raises
    ------
    InvalidParameterError
        If an integer is negative or too large.
    """
    if isinstance(random_state, Integral) and not isinstance(random_state, bool):
        seed = int(random_state)
        if not 0 <= seed <= MAX_SEED:
            raise InvalidParameterError(f"random_state must be in [0, {MAX_SEED}], but got {seed}")
        return seed
    return int(check_random_state(random_state).randint(MAX_SEED))
