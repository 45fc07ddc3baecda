"""Registry of the metrics, which score all members of a population at once.

Predictions are tensors (P, C, N): members, outputs, rows. In a classification the outputs are the
probabilities of the C >= 2 classes (binary: two, the second of the positive class), in a multilabel
classification those of the C labels; in a regression they are values in the target's own units.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal, TypeVar

import pandas as pd
import torch
from torch import Tensor

from parallelmlp_search._checks import check_choice
from parallelmlp_search.data.task import TASKS
from parallelmlp_search.exceptions import InvalidParameterError, near_miss
from parallelmlp_search.selection.cost_formulas import ExpectedCost, QuadraticKappa
from parallelmlp_search.selection.deviance import Deviance
from parallelmlp_search.selection.formulas import (
    F1,
    AbsoluteError,
    Accuracy,
    BalancedAccuracy,
    Brier,
    Formula,
    LogLoss,
    Matthews,
    Pinball,
    RootSquaredError,
    RSquared,
)
from parallelmlp_search.selection.inputs import check_inputs, finite_members
from parallelmlp_search.selection.label_formulas import (
    LABEL_ALIASES,
    HammingLoss,
    LabelsBrier,
    LabelsF1,
    LabelsLogLoss,
    LabelsRocAuc,
    SubsetAccuracy,
)
from parallelmlp_search.selection.roc_auc import RocAuc

Scores = TypeVar("Scores", Tensor, "pd.Series[float]", float)

CHUNK_ELEMENTS = 2**20
"""Maximum number of predictions in the temporary copies of one pass (8 MiB), or those of one member."""


@dataclass(frozen=True)
class Metric:
    """Metric of predictions.

    Parameters
    ----------
    name
        Name in the registry.
    greater_is_better
        Whether a higher score is better.
    tasks
        Tasks that it applies to, out of `TASKS`.
    needs
        Its input: ``"probability"``, ``"label"`` (the predicted class or labels only) or ``"value"``.
    formula
        Formula that computes it.

    Notes
    -----
    Metrics equal scikit-learn's functions, including row weights. Where scikit-learn warns or fails: a row of
    weight 0 counts as absent; AUC is NaN if all rows are of one class, and a macro AUC skips classes without
    rows; R2 of a constant target is 1 if it is predicted exactly, else 0.
    A member with a missing or infinite prediction scores NaN, which is never selected.
    """

    name: str
    greater_is_better: bool
    tasks: frozenset[str]
    needs: Literal["probability", "label", "value"]
    formula: Formula = field(repr=False)

    def __call__(self, predictions: Tensor, target: Any, weight: Any = None) -> Tensor:
        """Score every member.

        Parameters
        ----------
        predictions
            (P, C, N) float.
        target
            Class numbers (N,), or values (N,) or (C, N), which are 0 and 1 for labels.
        weight
            Row weights (N,), >= 0, or None.

        Returns
        -------
        Tensor
            (P,) float64 in the metric's own orientation; NaN for members with non-finite predictions.

        Raises
        ------
        InvalidParameterError
            If a shape or value breaks its rule.
        """
        predictions, truth = check_inputs(predictions, target, weight, self.formula.target_kind)
        scores = []
        for members in member_chunks(predictions):
            chunk = predictions[members]
            finite = finite_members(chunk)
            if not bool(finite.all()):
                chunk = torch.where(finite[:, None, None], chunk, 0.0)
            score = self.formula.score(self.formula.project(chunk, truth.target), truth)
            scores.append(torch.where(finite, score, torch.nan))
        return torch.cat(scores)

    def error(self, predictions: Tensor, target: Any, weight: Any = None) -> Tensor:
        """Compute the error of every member.

        Parameters
        ----------
        predictions, target, weight
            As for a score.

        Returns
        -------
        Tensor
            (P,) 1 - score if greater scores are better, else the score.
        """
        return self.to_error(self(predictions, target, weight))

    def in_units(self, units: Sequence[float], center: Sequence[float] = ()) -> Metric:
        """Return the metric for values in these units (C,) from a center (C,), with scores in units of 1."""
        return replace(self, formula=self.formula.in_units(units, center))

    def checked_on(self, target: Any, weight: Any = None) -> Metric:
        """Return the metric after a check of the target of a search; others' metrics are tried on it.

        Parameters
        ----------
        target, weight
            Class numbers (N,), or values (N,) or (N, C), as arrays; row weights (N,) or None.

        Returns
        -------
        Metric

        Raises
        ------
        InvalidParameterError
            If a scorer or function fails on it, or a deviance is not defined for it.
        """
        if type(self.formula) in OWN_FORMULAS:
            self.formula.check_target(target, f"metric {self.name!r}")
            return self
        from parallelmlp_search.selection.scorers import ScorerFormula, checked_on

        if not isinstance(self.formula, ScorerFormula):
            return self
        return replace(self, formula=checked_on(self.formula, target, weight))

    @property
    def least_error(self) -> float:
        """Error of a perfect prediction; minus infinity for a score without a bound."""
        bounds = self.formula.score_range(2)
        return self.to_error(bounds.high if self.greater_is_better else bounds.low)

    def to_error(self, score: Scores) -> Scores:
        """Turn scores into errors, for which lower is better."""
        return 1.0 - score if self.greater_is_better else score

    def to_score(self, error: Scores) -> Scores:
        """Turn errors into scores in the metric's own orientation. Inverse of :meth:`to_error`."""
        return 1.0 - error if self.greater_is_better else error


def member_chunks(predictions: Tensor) -> Iterator[slice]:
    """Split the first axis of (P, C, N) into slices that limit the temporary memory of one pass."""
    n_members = len(predictions)
    size = max(1, CHUNK_ELEMENTS // max(1, predictions[0].numel()))
    return (slice(start, min(start + size, n_members)) for start in range(0, n_members, size))


_CLASSES = frozenset({"binary", "multiclass"})
_REGRESSION = frozenset({"regression"})

METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        metric.name: metric
        for metric in (
            Metric("accuracy", True, _CLASSES, "label", Accuracy()),
            Metric("balanced_accuracy", True, _CLASSES, "label", BalancedAccuracy()),
            Metric("log_loss", False, _CLASSES, "probability", LogLoss()),
            Metric("roc_auc", True, _CLASSES, "probability", RocAuc()),
            Metric("f1", True, _CLASSES, "label", F1()),
            Metric("f1_macro", True, _CLASSES, "label", F1(macro=True)),
            Metric("mcc", True, _CLASSES, "label", Matthews()),
            Metric("brier", False, _CLASSES, "probability", Brier()),
            Metric("expected_cost", False, _CLASSES, "label", ExpectedCost()),
            Metric("ordinal_mae", False, _CLASSES, "label", ExpectedCost()),
            Metric("quadratic_kappa", True, _CLASSES, "label", QuadraticKappa()),
            Metric("rmse", False, _REGRESSION, "value", RootSquaredError()),
            Metric("mae", False, _REGRESSION, "value", AbsoluteError()),
            Metric("r2", True, _REGRESSION, "value", RSquared()),
            Metric("pinball", False, _REGRESSION, "value", Pinball()),
            Metric("poisson_deviance", False, _REGRESSION, "value", Deviance(1.0)),
            Metric("gamma_deviance", False, _REGRESSION, "value", Deviance(2.0)),
            Metric("tweedie_deviance", False, _REGRESSION, "value", Deviance(1.5)),
            Metric("d2_poisson", True, _REGRESSION, "value", Deviance(1.0, is_explained=True)),
            Metric("d2_gamma", True, _REGRESSION, "value", Deviance(2.0, is_explained=True)),
            Metric("d2_tweedie", True, _REGRESSION, "value", Deviance(1.5, is_explained=True)),
        )
    }
)
"""Metrics by name. ``"pinball:0.9"`` is the pinball loss of another quantile, and ``"tweedie_deviance:1.7"``
the deviance of another power."""

_LABELS = frozenset({"multilabel"})

_OF_LABELS = (
    Metric("log_loss", False, _LABELS, "probability", LabelsLogLoss()),
    Metric("roc_auc", True, _LABELS, "probability", LabelsRocAuc()),
    Metric("brier", False, _LABELS, "probability", LabelsBrier()),
    Metric("f1_macro", True, _LABELS, "label", LabelsF1("macro")),
    Metric("f1_micro", True, _LABELS, "label", LabelsF1("micro")),
    Metric("f1_samples", True, _LABELS, "label", LabelsF1("samples")),
    Metric("hamming_loss", False, _LABELS, "label", HammingLoss()),
    Metric("subset_accuracy", True, _LABELS, "label", SubsetAccuracy()),
)
LABEL_METRICS: Mapping[str, Metric] = MappingProxyType({one.name: one for one in _OF_LABELS})
"""Metrics of a multilabel classification by name."""


def metrics_of(task: str) -> list[Metric]:
    """Return the metrics of a task."""
    return [one for one in (*METRICS.values(), *LABEL_METRICS.values()) if task in one.tasks]


OWN_FORMULAS = tuple({type(one.formula) for one in (*METRICS.values(), *LABEL_METRICS.values())})
"""Formulas of this package."""

_ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "acc": "accuracy",
        "balanced_acc": "balanced_accuracy",
        "logloss": "log_loss",
        "neg_log_loss": "log_loss",
        "cross_entropy": "log_loss",
        "auc": "roc_auc",
        "auroc": "roc_auc",
        "rocauc": "roc_auc",
        "roc_auc_ovr": "roc_auc",
        "f1_score": "f1",
        "macro_f1": "f1_macro",
        "matthews": "mcc",
        "matthews_corrcoef": "mcc",
        "brier_score": "brier",
        "quadratic_weighted_kappa": "quadratic_kappa",
        "qwk": "quadratic_kappa",
        "neg_brier_score": "brier",
        "root_mean_squared_error": "rmse",
        "neg_root_mean_squared_error": "rmse",
        "mean_absolute_error": "mae",
        "neg_mean_absolute_error": "mae",
        "r2_score": "r2",
        "quantile": "pinball",
        **{
            f"{prefix}{kind}_deviance": f"{kind}_deviance"
            for prefix in ("mean_", "neg_mean_")
            for kind in ("poisson", "gamma", "tweedie")
        },
        "d2_tweedie_score": "d2_tweedie",
    }
)

_DEFAULTS: Mapping[str, str] = MappingProxyType(
    {"binary": "roc_auc", "multiclass": "log_loss", "regression": "rmse", "multilabel": "log_loss"}
)


def get_metric(
    name: str | Metric | Callable[..., Any] | None,
    task: str,
    *,
    n_classes: int | None = None,
    classes: Any = None,
) -> Metric:
    """Find a metric by name and check that it applies to the task.

    Parameters
    ----------
    name
        A name of `METRICS`, an alias such as ``"auc"`` or scikit-learn's ``"neg_log_loss"``,
        ``"pinball:ALPHA"``, or a custom `Metric`. Case, spaces and hyphens do not matter. None for ROC-AUC
        with two classes, log-loss with more or with labels, RMSE in a regression. Other names of
        scikit-learn's scorers, scorers, and functions of ``y_true`` and ``y_pred`` are computed by
        :mod:`.scorers`.
    task
        One of `TASKS`.
    n_classes, classes
        Number and labels of the classes, if known; the number is checked against the task.

    Returns
    -------
    Metric
        The metric.

    Raises
    ------
    InvalidParameterError
        If there is no such metric, or it does not apply to the task.
    """
    check_choice("task", task, TASKS)
    if n_classes is not None and task in _CLASSES and (n_classes == 2) != (task == "binary"):
        rule = "2 for task 'binary'" if task == "binary" else "at least 3 for task 'multiclass'"
        raise InvalidParameterError(f"n_classes must be {rule}, but got {n_classes}")
    metric = name
    if not isinstance(metric, Metric):
        metric = _find(_DEFAULTS[task] if name is None else name, task, classes, n_classes)
    if task not in metric.tasks:
        fitting = ", ".join(other.name for other in metrics_of(task))
        raise InvalidParameterError(
            f"metric must fit the task {task!r} ({fitting}), but got {metric.name!r}, "
            f"which is for {' and '.join(sorted(metric.tasks))}"
        )
    return metric


def _find(name: object, task: str, classes: Any, n_classes: int | None) -> Metric:
    if not isinstance(name, str):
        if callable(name) and not isinstance(name, type):
            return _computed(name, task, classes, n_classes)
        raise InvalidParameterError(
            f"metric must be a name, a scorer, a function or a Metric, but got {type(name).__name__}"
        )
    plain = name.strip().lower().replace("-", "_").replace(" ", "_")
    stem, colon, parameter = plain.partition(":")
    stem = _ALIASES.get(stem, stem)
    if task == "multilabel":
        stem = LABEL_ALIASES.get(stem, stem)
        if stem in LABEL_METRICS and not colon:
            return LABEL_METRICS[stem]
    if stem in METRICS and (not colon or stem in _WITH_PARAMETER):
        return _with_parameter(stem, parameter) if colon else METRICS[stem]
    if name.startswith("python:"):
        raise InvalidParameterError(
            f"metric {name.removeprefix('python:')!r} is a Python object, which a run does not hold: "
            "pass it again in Python, or use a metric by name"
        )
    from sklearn.metrics import get_scorer, get_scorer_names

    if plain in get_scorer_names():
        return _computed(get_scorer(plain), task, classes, n_classes, name=plain)
    names = LABEL_METRICS if task == "multilabel" else METRICS
    raise InvalidParameterError(
        f"metric must be one of {', '.join(names)}, or another scorer of scikit-learn, but got {name!r}"
        + near_miss(plain, [*names, *_ALIASES, *get_scorer_names()])
    )


def _computed(function: Any, task: str, classes: Any, n_classes: int | None, *, name: str = "") -> Metric:
    """Metric that scikit-learn or the user computes."""
    from parallelmlp_search.selection.scorers import REGRESSION_SCORERS, scorer_formula

    formula, greater_is_better = scorer_formula(function, task, classes, n_classes)
    tasks = frozenset({task})
    if name:
        formula = replace(formula, name=name)
        tasks = _REGRESSION if REGRESSION_SCORERS.fullmatch(name) else _CLASSES | _LABELS
    needs: Literal["probability", "value"] = "value" if task == "regression" else "probability"
    return Metric(formula.name, greater_is_better, tasks, needs, formula)


_WITH_PARAMETER: Mapping[str, tuple[str, str, str]] = {
    "pinball": ("alpha", "quantile", "between 0 and 1"),
    "tweedie_deviance": ("power", "power", "in [1, 2]"),
    "d2_tweedie": ("power", "power", "in [1, 2]"),
}
"""Metrics with a parameter after a colon: its field, its name, and its rule."""


def _with_parameter(stem: str, text: str) -> Metric:
    """Metric with a parameter."""
    field_name, name, rule = _WITH_PARAMETER[stem]
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not (0 < value < 1 if stem == "pinball" else 1 <= value <= 2):
        raise InvalidParameterError(
            f"the {name} of metric '{stem}:{field_name.upper()}' must lie {rule}, but got {text!r}"
        )
    plain = METRICS[stem]
    formula = replace(plain.formula, **{field_name: value})
    return plain if formula == plain.formula else replace(plain, name=f"{stem}:{value:g}", formula=formula)
