"""Metrics that scikit-learn or the user computes: names and objects of scorers, and functions.

They see one member at a time, as NumPy arrays in the user's own labels and units. A scorer is called with a
stand-in for an estimator, which returns the predictions.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from torch import Tensor

from parallelmlp_search.exceptions import InvalidParameterError, MetricError, one_line
from parallelmlp_search.selection.formulas import Formula
from parallelmlp_search.selection.inputs import GroundTruth

Array = NDArray[Any]

PYTHON = "python:"
"""Start of the text that stands for a metric object in ``run.json``."""

SCORE_NAMES = ("y_score", "y_prob", "y_proba", "y_pred_proba", "probabilities")
"""Names of the second parameter of a function that takes probabilities."""

LOWER_IS_BETTER, GREATER_IS_BETTER = ("error", "loss", "deviance"), ("score", "accuracy", "corrcoef")
"""Last words of the names of functions, as scikit-learn uses them."""

REGRESSION_SCORERS = re.compile(
    r"neg_(max|mean|median|root)_.*|r2|explained_variance|max_error|d2_absolute_error_score"
)
"""scikit-learn's scorers of a regression; the others are for classes."""

PROBE_ROWS = 1_000
"""Rows of the table that a metric is tried on before the search."""


class _Classified(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Stand-in for a classifier: its table holds the probabilities (N, C)."""

    def __init__(self, classes: Any = None) -> None:
        self.classes = classes
        self.classes_ = classes

    def predict_proba(self, X: Array) -> Array:
        return X

    def predict(self, X: Array) -> Array:
        labels: Array = self.classes_[X.argmax(axis=1)]
        return labels


class _Labelled(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Stand-in for a classifier of several labels: its table holds their probabilities (N, L)."""

    def __init__(self, n_labels: int = 2) -> None:
        self.n_labels = n_labels
        self.classes_ = [np.arange(2)] * n_labels

    def predict_proba(self, X: Array) -> Array:
        return X

    def predict(self, X: Array) -> Array:
        labels: Array = (X > 0.5).astype(np.int64)
        return labels


class _Regressed(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Stand-in for a regressor: its table holds the values."""

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def predict(self, X: Array) -> Array:
        return X


@dataclass(frozen=True, eq=False)
class ScorerFormula(Formula):
    """Score of a scorer of scikit-learn or of a function.

    Attributes
    ----------
    function
        The scorer or function.
    name
        Its name in messages.
    takes
        ``"estimator"`` for a scorer; ``"labels"``, ``"probabilities"`` or ``"values"`` for a function.
    classes
        Labels that it sees, in the order of the probabilities; None in a regression, and for several labels.
    of_labels
        True for several labels, of which it sees 0 and 1.
    takes_weight
        True if it takes ``sample_weight``.
    center, unit
        Numbers of each output ``(C,)`` that restore scaled values; empty for none.
    """

    # fbeta_score, f1_weighted and jaccard of 400 and 10,000 rows, two classes, one core
    cost_ns: ClassVar[float] = 500.0
    call_ns: ClassVar[float] = 2e6

    function: Callable[..., Any]
    name: str
    takes: Literal["estimator", "labels", "probabilities", "values"]
    classes: Array | None = None
    of_labels: bool = False
    takes_weight: bool = False
    center: tuple[float, ...] = ()
    unit: tuple[float, ...] = ()

    @property
    def target_kind(self) -> Literal["classes", "values"]:
        return "values" if self.classes is None else "classes"

    def in_units(self, units: Sequence[float], center: Sequence[float] = ()) -> Formula:
        return replace(self, unit=tuple(units), center=tuple(center) or (0.0,) * len(units))

    def score(self, projected: Tensor, truth: GroundTruth) -> Tensor:
        """Compute scores (P,), one member at a time; NaN for members for which it fails.

        Raises
        ------
        MetricError
            If it fails for every member.
        """
        rows, weight = self._rows(truth.weight.cpu().numpy())
        target = self._target(truth.target[..., torch.from_numpy(rows)].cpu().numpy())
        scores: list[float] = []
        error: Exception | None = None
        for member in projected:
            try:
                scores.append(self.of_member(member.double().cpu().numpy()[:, rows], target, weight))
            except Exception as failure:
                error = failure
                scores.append(float("nan"))
        if error is not None and np.isnan(scores).all():
            raise MetricError(f"metric {self.name!r} failed: {_reason(error)}") from error
        return torch.tensor(scores, dtype=torch.float64, device=projected.device)

    def of_member(self, predictions: Array, target: Array, weight: Array | None) -> float:
        """Return the score of one member.

        Parameters
        ----------
        predictions
            (C, N) probabilities or values.
        target
            (N,) labels, or (N,) or (N, C) values in the user's units.
        weight
            (N,) or None.

        Returns
        -------
        float

        Raises
        ------
        InvalidParameterError
            If the result is not one number.
        """
        options = {} if weight is None else {"sample_weight": weight}
        if self.classes is None:
            table = self._values(predictions)
        else:
            table = (predictions / predictions.sum(axis=0)).T
        if self.takes == "estimator":
            found = self.function(self._standin(len(predictions)), table, target, **options)
        else:
            if self.takes == "labels":
                table = (
                    _Labelled().predict(table) if self.classes is None else self.classes[table.argmax(axis=1)]
                )
            elif self.takes == "probabilities" and self.classes is not None and table.shape[1] == 2:
                table = table[:, 1]
            found = self.function(target, table, **options)
        if isinstance(found, np.ndarray | Tensor) and found.ndim == 0:
            found = found.item()
        if not isinstance(found, Real):
            raise InvalidParameterError(f"it must return one number, but returned {type(found).__name__}")
        return float(found)

    def _standin(self, n_outputs: int) -> BaseEstimator:
        """Stand-in for an estimator that has made the predictions."""
        if self.classes is not None:
            return _Classified(self.classes)
        return _Labelled(n_outputs) if self.of_labels else _Regressed()

    def _rows(self, weight: Array) -> tuple[NDArray[np.intp], Array | None]:
        """Rows to score, repeated if need be, and their weights or None."""
        rows = np.flatnonzero(weight > 0)
        weight = weight[rows]
        if (weight == weight[0]).all():
            return rows, None
        if self.takes_weight:
            return rows, weight
        counts = np.rint(weight).astype(np.intp)
        if not np.array_equal(counts, weight):  # not those of a bootstrap sample
            raise MetricError(f"metric {self.name!r} takes no sample_weight, but the rows have weights")
        return np.repeat(rows, counts), None

    def _target(self, target: Array) -> Array:
        if self.classes is not None:
            return self.classes[target]
        values = self._values(target)
        return values.astype(np.int64) if self.of_labels else values

    def _values(self, values: Array) -> Array:
        """Values (C, N) in the user's units, as (N,) for one output, else (N, C)."""
        if self.unit:
            values = np.array(self.center)[:, None] + np.array(self.unit)[:, None] * values
        return values[0] if len(values) == 1 else np.ascontiguousarray(values.T)


def scorer_formula(metric: Any, task: str, classes: Any, n_classes: int | None) -> tuple[ScorerFormula, bool]:
    """Return the formula of a scorer or function, and whether greater scores are better.

    Parameters
    ----------
    metric
        Scorer of scikit-learn, or ``metric(y_true, y_pred)``.
    task
        One of `TASKS`.
    classes, n_classes
        Labels and number of the classes, if they are known.

    Returns
    -------
    ScorerFormula, bool

    Raises
    ------
    InvalidParameterError
        If it takes other parameters, or it is not known whether greater scores are better.
    """
    labels, of_labels = None, task == "multilabel"
    if task in ("binary", "multiclass"):
        labels = np.arange(n_classes or 2) if classes is None else np.asarray(classes)
        if labels.dtype == object and all(isinstance(label, str) for label in labels):
            labels = labels.astype(np.str_)  # scikit-learn sorts them ten times as fast
    names = _required(metric)
    name = metric_name(metric)
    if len(names) == 3:
        return ScorerFormula(metric, name, "estimator", labels, of_labels), True
    if len(names) != 2:
        raise InvalidParameterError(
            "metric must be a name, a scorer of scikit-learn or a function of y_true and y_pred, "
            f"but got {one_line(repr(metric))}"
        )
    takes: Literal["labels", "probabilities", "values"] = "values"
    if labels is not None or of_labels:
        takes = "probabilities" if names[1] in SCORE_NAMES else "labels"
    last = name.partition("(")[0].rpartition("_")[2]
    if last not in (*LOWER_IS_BETTER, *GREATER_IS_BETTER):
        raise InvalidParameterError(
            f"metric {name!r} does not say whether greater is better: give it a name that ends in _score, "
            f"_error or _loss, or pass make_scorer(..., greater_is_better=True or False)"
        )
    return ScorerFormula(metric, name, takes, labels, of_labels), last in GREATER_IS_BETTER


def _required(function: Any) -> list[str]:
    """Names of the parameters that a call has to give."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [one.name for one in parameters if one.kind in kinds and one.default is one.empty]


def metric_name(metric: Any) -> str:
    """Return a name of a scorer or function, such as ``fbeta_score(beta=2)``."""
    found = re.fullmatch(r"make_scorer\((\w+)(.*)\)", repr(metric), re.DOTALL)
    if found is None:
        name = getattr(metric, "__name__", None) or type(getattr(metric, "func", metric)).__name__
        return str(getattr(getattr(metric, "func", None), "__name__", name))
    name, options = found[1], found[2]
    sign = "neg_" if ", greater_is_better=False" in options else ""
    options = re.sub(r", (greater_is_better=False|response_method=(\([^)]*\)|'[^']*'))", "", options)
    return f"{sign}{name}({options.removeprefix(', ')})" if options else f"{sign}{name}"


def checked_on(formula: ScorerFormula, target: Array, weight: Array | None) -> ScorerFormula:
    """Try a metric on the target of a search, with made-up predictions.

    Classes are passed as the user's labels; if that fails, as 0, 1, ..., which scikit-learn's default
    ``pos_label=1`` needs.

    Parameters
    ----------
    formula, target
        Formula, and target as metrics take it: class numbers (N,), or values (N,) or (N, C).
    weight
        Row weights or None.

    Returns
    -------
    ScorerFormula
        With the labels that it takes, and whether it takes weights.

    Raises
    ------
    InvalidParameterError
        If it fails, or there are weights that it does not take.
    """
    rng = np.random.default_rng(0)
    rows = rng.permutation(len(target))[:PROBE_ROWS]
    if formula.classes is not None:
        rows = np.concatenate([rows, np.unique(target, return_index=True)[1]])
    truth = target[rows]
    if formula.classes is None:
        truth = np.atleast_2d(truth.T)
        predictions = 0.9 * truth + 0.1 * rng.permuted(truth, axis=1)  # in the range of the target
    else:
        raw = rng.random((len(formula.classes), len(truth))) + 0.5 * np.eye(len(formula.classes))[:, truth]
        predictions = raw / raw.sum(axis=0)
    candidates = [formula]
    if formula.classes is not None and formula.classes.dtype.kind not in "iu":
        candidates.append(replace(formula, classes=np.arange(len(formula.classes))))
    error: Exception | None = None
    for one in candidates:
        try:
            one.of_member(predictions, one._target(truth), None)
        except Exception as failure:
            error = error or failure
        else:
            return _with_weights(one, predictions, truth, weight)
    assert error is not None
    raise InvalidParameterError(
        f"metric {formula.name!r} fails on the target of this table: {_reason(error)}"
    ) from error


def _with_weights(
    formula: ScorerFormula, predictions: Array, truth: Array, weight: Array | None
) -> ScorerFormula:
    try:
        ones = np.ones(predictions.shape[1])
        formula.of_member(predictions, formula._target(truth), ones)
    except Exception:
        if weight is not None and len(np.unique(weight[weight > 0])) > 1:
            raise InvalidParameterError(
                f"metric {formula.name!r} takes no sample_weight, but the rows have weights: leave them out, "
                "or give a metric that takes them"
            ) from None
        return formula
    return replace(formula, takes_weight=True)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {one_line(error)}"
