"""Preparation of a problem: splits of its rows, and the tensors of each part.

Rows are divided once. *Validation rows* evaluate every rung and choose the epoch of every finalist; they do
not enter the score. *Out-of-fold (OOF) rows* are all others: screening trains on them, and their out-of-fold
predictions select the ensemble and give its score. Finalists are cross-fitted on rows of both kinds where
possible; then validation rows choose by their own out-of-fold predictions. Preprocessing and the scaling of a
regression target are fitted on the training rows of each part; large tables share one preprocessing.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import joblib
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from parallelmlp_search.data import (
    ClassTarget,
    RegressionTarget,
    Split,
    TablePreprocessor,
    TargetCurve,
    TargetScaling,
    class_weights,
    combine_weights,
    folds,
    holdout,
)
from parallelmlp_search.distribute import ShardData
from parallelmlp_search.engine import Head, TrainingRows
from parallelmlp_search.engine.rows import select_rows
from parallelmlp_search.search.problem.devices import warn_of_precision
from parallelmlp_search.search.problem.encoding import Encoder
from parallelmlp_search.search.problem.problem import Problem
from parallelmlp_search.search.problem.settings import SearchSettings
from parallelmlp_search.search.problem.split_checks import check_classes, check_units
from parallelmlp_search.search.problem.target_encoding import TargetEncoding
from parallelmlp_search.search.problem.target_transforms import asks_for_means, transforms_of
from parallelmlp_search.selection import at_best_threshold, decided_by, get_metric
from parallelmlp_search.selection.costs import resolved

MIN_SPLIT_ROWS = 20
"""In a table with fewer rows, every row trains and validates, and there is no honest score."""

MIN_CLASS_ROWS = 4
"""The same holds if one of two classes has fewer rows: some split would miss it."""

MAX_VALIDATION_ROWS = 10_000


def seed_of(*parts: int) -> int:
    """Seed that depends on all parts."""
    return int(np.random.SeedSequence(list(parts)).generate_state(1, np.uint32)[0])


@dataclass(frozen=True)
class Part:
    """Tensors of some training rows, with the preprocessing that was fitted on them."""

    preprocessor: TablePreprocessor
    head: Head
    data: ShardData
    predicted_rows: NDArray[np.intp]
    """Rows of the table that ``data.prediction_inputs`` holds."""


class ScoredRows(NamedTuple):
    """Rows for metrics: target as metrics take it, weights and groups ``(n,)`` or None."""

    target: Tensor
    weight: Tensor | None
    groups: NDArray[Any] | None


class Preparation:
    """Splits of a problem, and the parts that shards train on.

    Parameters
    ----------
    problem
        Table and target.
    settings
        Metric, loss, folds, seed.
    device
        Device of the tensors.
    hold_back
        False to train on every row without validation.
    transforms
        Transformations of a regression target that networks may learn, besides those of the search space.

    Attributes
    ----------
    part_seconds
        Elapsed time of preparing the last part; 0 if parts share one table.
    """

    def __init__(
        self,
        problem: Problem,
        settings: SearchSettings,
        device: str = "cpu",
        *,
        hold_back: bool = True,
        transforms: Collection[str] = (),
    ) -> None:
        settings.check_task(problem.task, problem.target)
        warn_of_precision(settings.precision, device)
        self.problem = problem
        self.settings = settings
        self.device = device
        self.part_seconds = 0.0
        self.classes: ClassTarget | None = None
        n_classes = None
        row_weights = None
        self.target: NDArray[Any]
        self.target_scaling: TargetScaling | None = None
        if problem.task == "regression":
            self.target_scaling = TargetScaling.fit(problem.target, is_centred=not settings.has_log_link)
            self.target = self.target_scaling.apply(np.asarray(problem.target, dtype=np.float64))
        elif problem.task == "multilabel":
            self.classes = ClassTarget(np.array(problem.labels))
            self.target = np.asarray(problem.target, dtype=np.float64)
        else:
            self.classes = ClassTarget.fit(problem.target)
            self.target = self.classes.encode(problem.target)
            n_classes = len(self.classes)
            row_weights = class_weights(self.target, problem.class_weight, self.classes.classes_)
        self.training_weight = combine_weights(problem.weight, row_weights, problem.n_rows)
        self.metric_weight = combine_weights(problem.weight, None, problem.n_rows)
        classes = None if n_classes is None or self.classes is None else self.classes.classes_
        metric = get_metric(settings.metric, problem.task, n_classes=n_classes, classes=classes)
        self.metric, self.costs, self.decision = resolved(settings.costs, classes, metric)
        if self.target_scaling is not None and self.target_scaling.is_needed:
            self.metric = self.metric.in_units(self.target_scaling.unit, self.target_scaling.center)
        self.metric = self.metric.checked_on(self.target, self.metric_weight)
        self.is_tiny = problem.n_rows < MIN_SPLIT_ROWS or self._rarest() < MIN_CLASS_ROWS
        # networks are compared at their best threshold if thresholds will be tuned
        tunes = settings.tune_thresholds and not self.is_tiny and self.decision is None
        plain = decided_by(self.metric, self.decision)
        self.comparison_metric = at_best_threshold(self.metric, n_classes) if tunes else plain
        self.oof_rows, self.validation_rows = self._divided() if hold_back else self._everything(False)
        if hold_back and not self.is_tiny and self.classes is not None:
            train, held = map(self.metric_target, (self.oof_rows, self.validation_rows))
            check_classes(problem, self.classes, self.metric, train, held)
        means, choice = None, settings.space.domains.get("target_encoding")
        if choice is not None and choice.contains(True):
            means = TargetEncoding(problem, self.target, self.metric_weight, settings.seed)
        self._encoder = Encoder(problem, settings, self.oof_rows, device, means)
        wanted = {*transforms_of(settings.space), *transforms} - {"none"}
        is_transformed = problem.task == "regression" and not settings.has_log_link
        self.transforms = sorted(wanted) if is_transformed else []
        self._smears = bool(self.transforms) and self._asks_for_means()

    def _everything(self, validate: bool) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """All rows as out-of-fold rows, and as validation rows or none."""
        rows = np.arange(self.problem.n_rows)
        return rows, rows if validate else rows[:0]

    def _divided(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Out-of-fold rows and validation rows."""
        problem, settings = self.problem, self.settings
        if self.is_tiny:
            return self._everything(True)
        check_units(problem)
        share = 0.2 if problem.n_rows < 5000 else 0.15
        split = holdout(
            self.target,
            fraction=min(share, MAX_VALIDATION_ROWS / problem.n_rows),
            task=problem.task,
            groups=problem.groups,
            time=problem.time,
            seed=settings.seed,
        )
        return split.train, split.test

    @property
    def of_labels(self) -> bool:
        """True for a multilabel classification."""
        return self.problem.task == "multilabel"

    def _rarest(self) -> int:
        """Rows of the rarer class of two. With more classes, a split without one can still be scored."""
        if self.problem.task != "binary":
            return MIN_CLASS_ROWS
        return int(np.bincount(self.target).min())

    @property
    def n_oof(self) -> int:
        """Number of out-of-fold rows."""
        return len(self.oof_rows)

    def screening(self) -> Part:
        """Part of screening: it trains on the out-of-fold rows and is evaluated on the validation rows."""
        return self._part(self.oof_rows, None, seed_of(self.settings.seed, 1))

    def whole(self) -> Part:
        """Part that trains on all rows, without evaluation."""
        return self._part(
            np.arange(self.problem.n_rows), None, seed_of(self.settings.seed, 4), validated=False
        )

    @property
    def trains_on_validation_rows(self) -> bool:
        """True if validation rows can train too: not if they are the last in time."""
        return not self.is_tiny and self.problem.time is None and bool(len(self.validation_rows))

    def folds(self, n_folds: int, *, hold_out_validation: bool = True, n_workers: int = 1) -> list[Part]:
        """Parts of cross-fitting: each predicts the rows that it has not seen.

        Parameters
        ----------
        n_folds
            Folds ``S``.
        hold_out_validation
            True if validation rows only evaluate, the same ones in every fold. Otherwise they belong to the
            folds like all others, if :attr:`trains_on_validation_rows`. The folds and the preprocessing are
            the same either way.
        n_workers
            Threads that encode folds at once.

        Returns
        -------
        list of Part
        """
        if self.is_tiny:
            return [self._part(self.oof_rows, self.oof_rows, seed_of(self.settings.seed, 2, 0))]
        shares = self.trains_on_validation_rows
        rows = np.arange(self.problem.n_rows) if shares else self.oof_rows
        problem = self.problem
        splits = folds(
            self.target[rows],
            n_folds=n_folds,
            task=problem.task,
            groups=None if problem.groups is None else problem.groups[rows],
            time=None if problem.time is None else problem.time[rows],
            seed=self.settings.seed,
        )
        seeds = [seed_of(self.settings.seed, 2, number) for number in range(len(splits))]

        def part(split: Split, seed: int) -> Part:
            train, predict = rows[split.train], rows[split.test]
            if not shares:
                return self._part(train, predict, seed)
            if not hold_out_validation:
                return self._part(train, predict, seed, validated=False)
            predict = np.setdiff1d(predict, self.validation_rows)
            return self._part(np.setdiff1d(train, self.validation_rows), predict, seed, fit=train)

        parallel = joblib.Parallel(n_jobs=n_workers, backend="threading")
        return list(parallel(map(joblib.delayed(part), splits, seeds)))

    @property
    def shares_table(self) -> bool:
        """True if the inputs of all parts are views of one table."""
        return self._encoder.shared is not None

    def allowed_folds(self, wanted: int) -> int:
        """Number of folds, limited by the groups, by the times after the first, and to two rows per fold."""
        if self.is_tiny:
            return 1
        limit = self.n_oof // 2
        if self.problem.groups is not None:
            limit = min(limit, len(np.unique(self.problem.groups[self.oof_rows])))
        if self.problem.time is not None:
            # S folds in time need S + 1 times
            limit = min(limit, len(pd.unique(np.asarray(self.problem.time)[self.oof_rows])) - 1)
        return max(2, min(wanted, limit))

    def metric_target(self, rows: NDArray[np.intp]) -> Tensor:
        """Target of rows for metrics: int64 ``(n,)``, or float64 ``(C, n)``."""
        target = self.target[rows]
        if self.problem.task in ("binary", "multiclass"):
            return torch.from_numpy(target)
        return torch.from_numpy(np.ascontiguousarray(np.atleast_2d(target.T)))

    def weights(self, rows: NDArray[np.intp]) -> Tensor | None:
        """Weights of rows for metrics, or None."""
        return None if self.metric_weight is None else torch.from_numpy(self.metric_weight[rows])

    def scored_rows(self, rows: NDArray[np.intp]) -> ScoredRows:
        """Target, weights and groups of rows."""
        groups = self.problem.groups
        return ScoredRows(
            self.metric_target(rows), self.weights(rows), None if groups is None else groups[rows]
        )

    def _part(
        self,
        train: NDArray[np.intp],
        predict: NDArray[np.intp] | None,
        seed: int,
        *,
        fit: NDArray[np.intp] | None = None,
        validated: bool = True,
    ) -> Part:
        """Part that trains on some rows; preprocessing is fitted on ``fit``, by default the same rows."""
        began = time.monotonic()
        fit = train if fit is None else fit
        encoding = self._encoder.fit(fit)
        head, target = self._outputs(fit, train)
        curves, transformed = self._curves(fit, train)
        weight = None if self.training_weight is None else torch.from_numpy(self.training_weight[train])
        validation = self.validation_rows if validated and len(self.validation_rows) else None

        def moved(values: Tensor | None) -> Tensor | None:
            return None if values is None else values.to(self.device)

        predicted, snapshots = None if predict is None else encoding.inputs(predict), None
        if predict is not None and predicted is not None and not validated:
            places = np.flatnonzero(np.isin(predict, self.validation_rows))
            snapshots = select_rows(predicted, torch.from_numpy(places).to(self.device))
        data = ShardData(
            rows=TrainingRows(encoding.inputs(train), target.to(self.device), moved(weight)),
            validation_inputs=None if validation is None else encoding.inputs(validation),
            validation_target=None if validation is None else moved(self.metric_target(validation)),
            validation_weight=None if validation is None else moved(self.weights(validation)),
            prediction_inputs=predicted,
            snapshot_inputs=snapshots,
            head=head,
            loss=self.settings.loss or head.default_loss,
            metric=self.comparison_metric,
            seed=seed,
            columns=encoding.preprocessor.columns_,
            precision=self.settings.precision,
            transformed_targets=moved(transformed),
            curves=curves,
            smears=self._smears,
        )
        self.part_seconds = 0.0 if self.shares_table else time.monotonic() - began
        predicted_rows = np.empty(0, dtype=np.intp) if predict is None else predict
        return Part(encoding.preprocessor, head, data, predicted_rows)

    def _outputs(self, fit: NDArray[np.intp], train: NDArray[np.intp]) -> tuple[Head, Tensor]:
        """Head and training target; a regression target is scaled by the rows ``fit``."""
        head = self.problem.head
        if self.of_labels:
            return head, torch.from_numpy(np.ascontiguousarray(self.target[train].T, dtype=np.float32))
        if self.problem.task != "regression":
            return head, torch.from_numpy(self.target[train])
        weight = None if self.metric_weight is None else self.metric_weight[fit]
        scaler = RegressionTarget.fit(self.target[fit], weight)
        if self.settings.has_log_link:
            scaler = scaler.of_ratios()
        encoded = scaler.encode(self.target[train])
        head = replace(
            head,
            location=tuple(scaler.mean_.tolist()),
            scale=tuple(scaler.scale_.tolist()),
            lower=tuple(scaler.low_.tolist()),
            upper=tuple(scaler.high_.tolist()),
            link="log" if self.settings.has_log_link else "identity",
        )
        return head, torch.from_numpy(np.ascontiguousarray(np.atleast_2d(encoded.T)))

    def _curves(
        self, fit: NDArray[np.intp], train: NDArray[np.intp]
    ) -> tuple[dict[str, TargetCurve], Tensor | None]:
        """Curves of transformed targets, fitted on the rows ``fit``, and training targets ``(T, C, n)``."""
        if not self.transforms:
            return {}, None
        weight = None if self.metric_weight is None else self.metric_weight[fit]
        curves = {name: TargetCurve.fit(name, self.target[fit], weight) for name in self.transforms}
        target = np.atleast_2d(self.target[train].T)
        encoded = np.stack([curve.encode(target) for curve in curves.values()])
        return curves, torch.from_numpy(encoded.astype(np.float32))

    def _asks_for_means(self) -> bool:
        """True if curves are smeared; a quantile needs no correction after a transformation."""
        if str(self.settings.loss).startswith("quantile"):
            return False
        return asks_for_means(self.metric, self.metric_target(self.oof_rows), self.weights(self.oof_rows))
