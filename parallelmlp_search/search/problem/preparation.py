"""From a table to the tensors of shards: which rows train, which choose, which report.

Rows are divided once. The *choosing* rows judge every rung and choose the epoch of every finalist; they never
report. The *reporting* rows are all others: screening trains on them, and the ensemble and its honest score
come from their out-of-fold predictions. Finalists are cross-fitted on rows of both kinds, so that choosing
costs them none: the choosing rows then choose by their own out-of-fold predictions. Preprocessing and the
scaling of a regression target are fitted on the training rows of each part alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from parallelmlp_search.data import (
    ClassTarget,
    RegressionTarget,
    TablePreprocessor,
    class_weights,
    combine_weights,
    folds,
    holdout,
)
from parallelmlp_search.distribute import ShardData
from parallelmlp_search.engine import Head, TrainingRows
from parallelmlp_search.exceptions import DataError
from parallelmlp_search.search.problem.problem import Problem
from parallelmlp_search.search.problem.settings import SearchSettings
from parallelmlp_search.selection import Metric, at_best_threshold, default_metric, get_metric

__all__ = ["Part", "Preparation", "seed_of"]

SMALLEST_SPLIT = 20
"""Below this many rows nothing is held back: every row trains, chooses and is predicted, and no honest score
is given."""

SMALLEST_CLASS = 4
"""The same holds if one of two classes has fewer rows: some split would miss it."""

MAX_VALIDATION_ROWS = 10_000

MAX_BINS, MIN_BINS, MAX_PIECES = 48, 4, 256
"""Bins of a numeric column, and columns that they may add in all."""

MAX_QUANTILES = 256
"""Numeric columns above which none is encoded twice."""

ROWS_OF_BIN = 20
"""Rows of the table that a bin should have."""


def seed_of(*parts: int) -> int:
    """A seed that depends on all parts."""
    return int(np.random.SeedSequence(list(parts)).generate_state(1, np.uint32)[0])


@dataclass(frozen=True)
class Part:
    """Tensors of one training part, and what turns new rows into its inputs and outputs."""

    preprocessor: TablePreprocessor
    head: Head
    data: ShardData
    predicted_rows: NDArray[np.intp]
    """Rows of the table that ``data.prediction_inputs`` holds."""


class Preparation:
    """Splits of a problem, and the parts that shards train on.

    Parameters
    ----------
    problem
        Table and target.
    settings
        Metric, loss, folds, seed.
    device
        Where tensors live.
    hold_back
        Whether rows are set aside that choose; without them every row trains and nothing is judged.
    """

    def __init__(
        self, problem: Problem, settings: SearchSettings, device: str = "cpu", *, hold_back: bool = True
    ) -> None:
        settings.check_task(problem.task)
        self.problem = problem
        self.settings = settings
        self.device = device
        self.classes: ClassTarget | None = None
        n_classes = None
        row_weights = None
        self.target: NDArray[Any]
        if problem.task == "regression":
            self.target = np.asarray(problem.target, dtype=np.float64)
        else:
            self.classes = ClassTarget.fit(problem.target)
            self.target = self.classes.encode(problem.target)
            n_classes = len(self.classes)
            row_weights = class_weights(self.target, problem.class_weight, self.classes.classes_)
        self.training_weight = combine_weights(problem.weight, row_weights, problem.n_rows)
        self.metric_weight = combine_weights(problem.weight, None, problem.n_rows)
        self.metric: Metric = (
            get_metric(settings.metric, problem.task, n_classes=n_classes)
            if settings.metric
            else default_metric(problem.task)
        )
        # kinds are a property of the whole table: a column that is constant inside one fold stays what it is
        self.column_kinds = problem.columns.kinds
        self.is_tiny = problem.n_rows < SMALLEST_SPLIT or self._rarest() < SMALLEST_CLASS
        # what compares networks: where a decision will be tuned, what they are worth once it is
        tunes = settings.tune_thresholds and not self.is_tiny
        self.comparing = at_best_threshold(self.metric, n_classes) if tunes else self.metric
        everything = np.arange(problem.n_rows)
        if not hold_back:
            self.oof_rows, self.validation_rows = everything, everything[:0]
            return
        self._check_units()
        if self.is_tiny:
            self.oof_rows = self.validation_rows = everything
            return
        share = 0.2 if problem.n_rows < 5000 else 0.15
        split = holdout(
            self.target,
            fraction=min(share, MAX_VALIDATION_ROWS / problem.n_rows),
            task=problem.task,
            groups=problem.groups,
            time=problem.time,
            seed=settings.seed,
        )
        self.oof_rows, self.validation_rows = split.train, split.test

    def _check_units(self) -> None:
        """Groups and moments must suffice for a holdout and two folds."""
        for name, values, least in (("groups", self.problem.groups, 3), ("time", self.problem.time, 4)):
            if values is None or self.is_tiny:
                continue
            count = len(pd.unique(np.asarray(values)))
            if count < least:
                raise DataError(
                    f"{name} must have at least {least} different values, so that some can be held "
                    f"back and the others make two folds, but has {count}"
                )

    def _rarest(self) -> int:
        """Rows of the rarer class of two; more classes may lose one without losing every metric."""
        if self.problem.task != "binary":
            return SMALLEST_CLASS
        return int(np.bincount(self.target).min())

    @property
    def n_oof(self) -> int:
        """Number of reporting rows."""
        return len(self.oof_rows)

    def screening(self) -> Part:
        """The part that screening trains on: all reporting rows, judged by the choosing rows."""
        return self._part(self.oof_rows, None, seed_of(self.settings.seed, 1))

    def whole(self) -> Part:
        """The part that trains on all rows and predicts none."""
        return self._part(np.arange(self.problem.n_rows), None, seed_of(self.settings.seed, 4), judged=False)

    @property
    def trains_on_validation_rows(self) -> bool:
        """Whether the choosing rows can train as well: not if they come last in time."""
        return not self.is_tiny and self.problem.time is None and bool(len(self.validation_rows))

    def folds(self, n_folds: int, *, hold_out_validation: bool = True) -> list[Part]:
        """The parts of cross-fitting: each predicts the rows that it has not seen.

        Parameters
        ----------
        n_folds
            Folds ``S``.
        hold_out_validation
            Whether the choosing rows only judge, in every fold the same ones. Otherwise they belong to the
            folds like all others, which takes :attr:`trains_on_validation_rows`. The folds, and what is
            fitted before a network trains, are the same either way.
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
        parts = []
        for split, seed in zip(splits, seeds, strict=True):
            train, predict = rows[split.train], rows[split.test]
            if not shares:
                parts.append(self._part(train, predict, seed))
            elif hold_out_validation:
                predict = np.setdiff1d(predict, self.validation_rows)
                learn = np.setdiff1d(train, self.validation_rows)
                parts.append(self._part(learn, predict, seed, fit=train))
            else:
                parts.append(self._part(train, predict, seed, judged=False))
        return parts

    def allowed_folds(self, wanted: int) -> int:
        """At most as many folds as there are groups, or moments after the first, and two rows a fold."""
        if self.is_tiny:
            return 1
        limit = self.n_oof // 2
        if self.problem.groups is not None:
            limit = min(limit, len(np.unique(self.problem.groups[self.oof_rows])))
        if self.problem.time is not None:
            # S folds in time need S + 1 moments
            limit = min(limit, len(pd.unique(np.asarray(self.problem.time)[self.oof_rows])) - 1)
        return max(2, min(wanted, limit))

    def metric_target(self, rows: NDArray[np.intp]) -> Tensor:
        """Target of rows as metrics take it: int64 ``(n,)``, or float64 ``(C, n)``."""
        target = self.target[rows]
        if self.problem.task != "regression":
            return torch.from_numpy(target)
        return torch.from_numpy(np.ascontiguousarray(np.atleast_2d(target.T)))

    def weights(self, rows: NDArray[np.intp]) -> Tensor | None:
        """Weights of rows in metrics, or None."""
        return None if self.metric_weight is None else torch.from_numpy(self.metric_weight[rows])

    def _part(
        self,
        train: NDArray[np.intp],
        predict: NDArray[np.intp] | None,
        seed: int,
        *,
        fit: NDArray[np.intp] | None = None,
        judged: bool = True,
    ) -> Part:
        """A part that trains on some rows; preprocessing is fitted on them too, or on ``fit``."""
        fit = train if fit is None else fit
        preprocessor = TablePreprocessor(
            scaling=self.settings.scaling,
            quantiles=self._has_quantiles(),
            numeric_bins=self._numeric_bins(),
            column_kinds=self.column_kinds,
        )
        preprocessor.fit(self.problem.frame.iloc[fit])
        inputs = preprocessor.transform(self.problem.frame.iloc[train])
        head, target = self._outputs(fit, train)
        weight = None if self.training_weight is None else torch.from_numpy(self.training_weight[train])
        choosing = self.validation_rows if judged and len(self.validation_rows) else None
        choosing_weight = None if choosing is None else self.weights(choosing)

        def tensor(values: NDArray[Any]) -> Tensor:
            return torch.from_numpy(values).to(self.device)

        data = ShardData(
            rows=TrainingRows(
                tensor(inputs), target.to(self.device), None if weight is None else weight.to(self.device)
            ),
            validation_inputs=None
            if choosing is None
            else tensor(preprocessor.transform(self.problem.frame.iloc[choosing])),
            validation_target=None if choosing is None else self.metric_target(choosing).to(self.device),
            validation_weight=None if choosing_weight is None else choosing_weight.to(self.device),
            prediction_inputs=None
            if predict is None
            else tensor(preprocessor.transform(self.problem.frame.iloc[predict])),
            head=head,
            loss=self.settings.loss or head.default_loss,
            metric=self.comparing,
            seed=seed,
            columns=preprocessor.columns_,
        )
        return Part(preprocessor, head, data, np.empty(0, dtype=np.intp) if predict is None else predict)

    def _has_quantiles(self) -> bool:
        """Whether numbers are also encoded as normal scores: where networks may ask for them."""
        n_numeric = sum(kind == "numeric" for kind in self.column_kinds.values())
        asked = "numeric_scaling" in self.settings.space.domains and self.settings.scaling != "quantile"
        return asked and n_numeric <= MAX_QUANTILES

    def _numeric_bins(self) -> int:
        """Bins of the piecewise linear encoding: 48, or fewer so that they add at most some 256 inputs."""
        if self.settings.numeric_bins is not None:
            return self.settings.numeric_bins
        n_numeric = sum(kind == "numeric" for kind in self.column_kinds.values())
        bins = min(MAX_BINS, MAX_PIECES // max(1, n_numeric), self.problem.n_rows // ROWS_OF_BIN)
        return bins if bins >= MIN_BINS else 0

    def _outputs(self, fit: NDArray[np.intp], train: NDArray[np.intp]) -> tuple[Head, Tensor]:
        """Head and training target; a regression is standardised by the rows ``fit``."""
        head = self.problem.head
        if self.problem.task != "regression":
            return head, torch.from_numpy(self.target[train])
        scaler = RegressionTarget.fit(self.target[fit], self._fit_weight(fit))
        encoded = scaler.encode(self.target[train])
        head = replace(
            head,
            location=tuple(scaler.mean_.tolist()),
            scale=tuple(scaler.scale_.tolist()),
            lower=tuple(scaler.low_.tolist()),
            upper=tuple(scaler.high_.tolist()),
        )
        return head, torch.from_numpy(np.ascontiguousarray(np.atleast_2d(encoded.T)))

    def _fit_weight(self, train: NDArray[np.intp]) -> NDArray[Any] | None:
        return None if self.metric_weight is None else self.metric_weight[train]
