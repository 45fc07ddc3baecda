"""Scores of predictions by the metric of the search, their standard errors, and the losses of single rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import t as student

from parallelmlp_search.explain.rows import ExplainedRows, Numbers
from parallelmlp_search.inference import TrainedModel
from parallelmlp_search.selection import Metric, get_metric, weight_classes, with_costs
from parallelmlp_search.selection.bootstrap import sampling_units
from parallelmlp_search.selection.formulas import Pinball
from parallelmlp_search.selection.inputs import check_inputs

Doubles = NDArray[np.float64]

N_BLOCKS = 20
"""Blocks of the jackknife. The standard error of a standard error is then 16 %."""

MIN_PROBABILITY = 1e-15


class Difference(NamedTuple):
    """Increase of an error, its standard error, and the p-value of the hypothesis that there is none."""

    value: float
    standard_error: float
    p_value: float


@dataclass(frozen=True, eq=False)
class Scorer:
    """Scores predictions of the rows to explain.

    Attributes
    ----------
    model
        Model whose decision weights apply to metrics of labels.
    metric
        Metric of the search, in the units of the target.
    target
        Class numbers ``(n,)``, or scaled values or labels ``(C, n)``.
    weight
        Weights ``(n,)``, or None.
    units
        Number of the sampling unit of each row ``(n,)``: its group, or the row itself.
    """

    model: TrainedModel
    metric: Metric
    target: NDArray[np.generic]
    weight: Doubles | None
    units: Numbers

    @classmethod
    def of(cls, model: TrainedModel, rows: ExplainedRows, metric: Any) -> Scorer:
        """Return the scorer of rows with a known target.

        Parameters
        ----------
        model, rows
            Model and rows.
        metric
            The metric, as :func:`~parallelmlp_search.selection.get_metric` takes it.

        Returns
        -------
        Scorer
        """
        assert rows.target is not None
        found, target = get_metric(metric, model.task, classes=model.classes), rows.target
        if (scaling := model.target_scaling) is not None and scaling.is_needed:
            found, target = found.in_units(scaling.unit, scaling.center), scaling.apply(target)
        found = with_costs(found, model.costs).checked_on(target, rows.weight)
        if model.task in ("regression", "multilabel"):
            target = np.ascontiguousarray(np.atleast_2d(target.T))
        weight = None if rows.weight is None else np.asarray(rows.weight, dtype=np.float64)
        groups = rows.groups
        if groups is not None and len(np.unique(groups)) < 2:
            groups = None
        return cls(model, found, target, weight, sampling_units(groups, len(rows)))

    @property
    def loss_name(self) -> str:
        """Name of the loss of a row."""
        if self.model.classes is not None:
            return "log loss"
        return "pinball loss" if isinstance(self.metric.formula, Pinball) else "absolute error"

    def score(self, predictions: Doubles, rows: Numbers) -> float:
        """Return the score of predictions ``(C, m)`` of some rows; NaN where it is not defined."""
        weight = None if self.weight is None else self.weight[rows]
        target = torch.from_numpy(self.target[..., rows])
        return float(self.metric(self._prepared(predictions[None]), target, weight)[0])

    def increase(
        self, base: Doubles, changed: Sequence[Doubles], rows: Numbers, generator: np.random.Generator
    ) -> Difference:
        """Compare the errors of changed predictions, on average, with that of the original ones.

        The standard error is that of a delete-a-group jackknife (Kott, "The delete-a-group jackknife", 2001)
        with :data:`N_BLOCKS` blocks of rows, or of whole groups, and applies to any metric. The p-value is
        that of a one-sided t-test of the hypothesis that the error does not increase.

        Parameters
        ----------
        base, changed
            Predictions ``(C, m)``; several of them.
        rows
            Numbers of the rows ``(m,)``.
        generator
            Divides the rows into blocks.

        Returns
        -------
        Difference
        """
        weight = None if self.weight is None else self.weight[rows]
        formula = self.metric.formula
        stacked, truth = check_inputs(
            self._prepared(np.stack([base, *changed])),
            torch.from_numpy(self.target[..., rows]),
            weight,
            formula.target_kind,
        )
        projected = formula.project(stacked, truth.target)
        blocks = torch.from_numpy(_blocks(self.units[rows], generator))
        found = []
        for block in range(-1, int(blocks.max()) + 1):  # -1: all rows
            kept = truth.reweight(truth.weight * (blocks != block))
            if float(kept.weight.sum()) > 0:
                errors = self.metric.to_error(formula.score(projected, kept))
                found.append(float(errors[1:].mean() - errors[0]))
        value, others = found[0], np.array([one for one in found[1:] if np.isfinite(one)])
        if len(others) < 2:
            return Difference(value, np.nan, np.nan)
        unit = unit_of(others)
        spread = float((((others - others.mean()) / unit) ** 2).sum())
        error = unit * float(np.sqrt((len(others) - 1) / len(others) * spread))
        return Difference(value, error, p_value(value, error, len(others) - 1))

    def losses(self, predictions: Doubles, rows: Numbers) -> Doubles:
        """Return the loss ``(m,)`` of predictions ``(C, m)`` of some rows.

        Classes and labels have the log loss, a regression the absolute error, or the pinball loss if the
        metric is one, in the units of the target. With several outputs it is their mean in standard
        deviations.
        """
        if self.model.classes is not None:
            if self.model.task == "multilabel":
                likely = np.where(self.target[:, rows] == 1.0, predictions, 1.0 - predictions)
            else:
                likely = predictions[self.target[rows], np.arange(len(rows))][None]
            found: Doubles = -np.log(np.maximum(likely, MIN_PROBABILITY)).mean(axis=0)
            return found
        residual = self.values(rows) - predictions
        loss = np.abs(residual)
        if isinstance(formula := self.metric.formula, Pinball):
            loss = np.maximum(formula.alpha * residual, (formula.alpha - 1.0) * residual)
        if len(loss) > 1:
            spread = self.values(np.arange(self.target.shape[1])).std(axis=1, keepdims=True)
            loss = loss / np.where(spread > 0, spread, 1.0)
        mean: Doubles = loss.mean(axis=0)
        return mean

    def values(self, rows: Numbers) -> Doubles:
        """Return the target ``(C, m)`` of some rows of a regression in its own units."""
        values = self.target[:, rows].astype(np.float64)
        scaling = self.model.target_scaling
        return values if scaling is None else scaling.restore(values)

    def _prepared(self, predictions: Doubles) -> torch.Tensor:
        """Predictions ``(P, C, m)`` as the metric takes them: scaled, or with decision weights."""
        if self.model.target_scaling is not None:
            predictions = np.stack([self.model.target_scaling.apply(one.T).T for one in predictions])
        found = torch.from_numpy(np.ascontiguousarray(predictions))
        weights = self.model.decision_weights if self.metric.needs == "label" else None
        return weight_classes(found, weights)


def _blocks(units: Numbers, generator: np.random.Generator) -> Numbers:
    """Random block of each row; rows of a unit are in one block."""
    _, unit = np.unique(units, return_inverse=True)
    n_units = int(unit.max()) + 1
    blocks: Numbers = generator.permutation(n_units)[unit] % min(N_BLOCKS, n_units)
    return blocks


def p_value(value: float, standard_error: float, freedom: float) -> float:
    """Return the p-value of a one-sided t-test of the hypothesis that a value is not positive.

    Parameters
    ----------
    value, standard_error
        Estimate and its standard error.
    freedom
        Degrees of freedom.

    Returns
    -------
    float
    """
    if standard_error > 0:
        return float(student.sf(value / standard_error, freedom))
    return 0.0 if value > 0 else 1.0


def unit_of(values: Doubles) -> float:
    """Return a power of two near the largest value.

    Dividing by it rounds nothing, and squares of the quotients neither overflow nor vanish.
    """
    largest = float(np.abs(values).max(initial=0.0))
    return float(2.0 ** max(-1000, np.frexp(largest)[1] - 1)) if np.isfinite(largest) else 1.0
