"""Baselines: the prior, a linear model and gradient boosting, cross-validated on the folds of the finalists.

They show what the search gained. They take a small share of its time: the rows and iterations of a baseline
follow from its predicted time. Without a time limit that does not depend on the speed of the machine.
"""

from __future__ import annotations

import itertools
import math
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import joblib
import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import Tensor

from parallelmlp_search.engine.rows import Rows
from parallelmlp_search.exceptions import one_line
from parallelmlp_search.kernels.losses import log_link_power
from parallelmlp_search.search.finalists.baseline_memory import (
    IMPORT_BYTES,
    MAX_CELLS,
    MAX_SCORED_ROWS,
    TableSizes,
    predicted_bytes,
    table_sizes,
)
from parallelmlp_search.search.finalists.baseline_models import (
    MODELS,
    BaselineModel,
    Effort,
    Predictor,
    TrainingTable,
    category_mask,
    efforts,
    model_inputs,
    predicted_level,
    training_target,
    values_of,
)
from parallelmlp_search.search.problem.preparation import Part, Preparation, seed_of
from parallelmlp_search.search.problem.settings import SearchSettings
from parallelmlp_search.search.run.context import SearchContext
from parallelmlp_search.selection import Decision, HonestScore, tune_thresholds, weight_classes

TIMED_SHARE = 0.03
"""Share of a time limit for all baselines together."""

THREADS_SPEEDUP = 1.6
"""Speed of several threads relative to one. They wait for the interpreter between the loops of a tree."""

LEFT_SHARE = 0.1
"""Largest share of the time that is left for them and the finalists."""

UNTIMED_SHARE = 0.02
"""Seconds on one core for all baselines, relative to the predicted seconds of all training."""

MAX_SECONDS = 10.0
"""Most of these seconds."""

IMPORT_SECONDS = 0.2
"""Part of the time in which the models are imported."""

LINEAR_SHARE = 0.4
"""Largest share of the time for the linear model."""

MIN_ROWS = 1000
"""Training rows of a fold below which a table is not halved."""


@dataclass(frozen=True)
class Baseline:
    """Score of a simple model on the out-of-fold rows.

    Attributes
    ----------
    name
        ``prior`` (the frequencies of the classes, or one value), ``linear`` or ``gradient_boosting``.
    score
        Score in the metric's own orientation, or None.
    share
        Share of the training rows of a fold that it was trained on.
    left_out
        Reason for which it has no score, or None.
    """

    name: str
    score: float | None
    share: float
    left_out: str | None = None


def compare_baselines(
    context: SearchContext, parts: Sequence[Part], training_seconds: float, seconds_left: float = math.inf
) -> list[Baseline]:
    """Score the baselines on the rows that give the honest score.

    Parameters
    ----------
    context
        Context of the search.
    parts
        Folds of the finalists.
    training_seconds
        Predicted seconds of all training on one core, from which the effort follows without a time limit.
    seconds_left
        Wall-clock time of the finalists and the baselines together.

    Returns
    -------
    list of Baseline
        Empty for tables too small to hold rows back, and for settings without baselines.
    """
    settings = context.settings
    if context.preparation.is_tiny or not settings.baselines:
        return []

    n_workers = context.fold_workers

    def compute() -> list[dict[str, Any]]:
        if settings.time_limit is None:
            seconds, deadline = untimed_seconds(training_seconds) - IMPORT_SECONDS, math.inf
        else:
            wall = min(baseline_reserve(settings), LEFT_SHARE * seconds_left)
            deadline = time.monotonic() + wall
            seconds = (THREADS_SPEEDUP if n_workers > 1 else 1.0) * wall / context.throughput.factor
            seconds -= 0.0 if "sklearn.ensemble" in sys.modules else IMPORT_SECONDS
        room = math.inf if context.memory is None else context.memory.room - IMPORT_BYTES
        extent = _Extent(seconds, deadline, room, n_workers)
        return [asdict(one) for one in _Comparison(context.preparation, parts, extent).run()]

    return [Baseline(**values) for values in context.journal.entry("baselines", compute)]


def untimed_seconds(training_seconds: float) -> float:
    """Return the seconds on one core for the baselines without a time limit, from those of all training."""
    return min(MAX_SECONDS, UNTIMED_SHARE * training_seconds)


def baseline_reserve(settings: SearchSettings) -> float:
    """Return the seconds of a time limit that are kept for the baselines."""
    limit = settings.time_limit
    return TIMED_SHARE * limit if settings.baselines and limit is not None else 0.0


def beats_prior(
    honest: HonestScore | None, baselines: Sequence[Baseline], *, greater_is_better: bool
) -> bool | None:
    """Return True if the model is better than the prior.

    Parameters
    ----------
    honest, baselines
        Score of the model and of the baselines.
    greater_is_better
        Orientation of the metric.

    Returns
    -------
    bool or None
        True if the interval of the honest score excludes the score of the prior; None if either is unknown.
    """
    prior = next((one.score for one in baselines if one.name == "prior"), None)
    if honest is None or prior is None:
        return None
    return bool(honest.low > prior if greater_is_better else honest.high < prior)


class _Extent(NamedTuple):
    """Extent of the comparison."""

    seconds: float
    """Predicted seconds on one core."""
    deadline: float
    """Reading of the monotonic clock."""
    room: float
    """Bytes."""
    n_workers: int
    """Folds at once."""


class _Comparison:
    """Cross-validation of the baselines of one search."""

    def __init__(self, preparation: Preparation, parts: Sequence[Part], extent: _Extent) -> None:
        self.parts = parts
        self.preparation = preparation
        self.task = preparation.problem.task
        self.extent = extent
        self.rng = np.random.default_rng(seed_of(preparation.settings.seed, 9))
        predicted = np.concatenate([part.predicted_rows for part in parts])
        covered = preparation.oof_rows[np.isin(preparation.oof_rows, predicted)]
        if len(covered) > MAX_SCORED_ROWS:
            covered = np.sort(self.rng.choice(covered, MAX_SCORED_ROWS, replace=False))
        self.scored = covered
        settings, metric = preparation.settings, preparation.metric
        self.decision = preparation.decision if metric.needs == "label" else None
        self.tunes = settings.tune_thresholds and metric.needs == "label" and self.decision is None
        self.level = predicted_level(metric)

    def run(self) -> list[Baseline]:
        """Score the prior and every model."""
        found, left = [self._prior()], self.extent.seconds
        for model, share in zip(MODELS, (LINEAR_SHARE, 1.0), strict=True):
            effort, seconds = self._effort(model, share * left)
            left -= seconds
            found.append(self._model(model, effort))
        return found

    def _prior(self) -> Baseline:
        """The same prediction for every row, from all out-of-fold rows."""
        preparation, rows = self.preparation, self.preparation.oof_rows
        target = preparation.target[rows]
        weight = np.ones(len(rows))
        if preparation.training_weight is not None:
            weight = preparation.training_weight[rows].astype(np.float64)
        if self.task == "multilabel":
            constant = np.average(target, axis=0, weights=weight)
            constant = (
                self._best_of(np.stack([constant > 0.5, constant > 0.0]).astype(float))
                if self.tunes
                else constant
            )
        elif self.task != "regression":
            constant = np.bincount(target, weight, minlength=preparation.problem.head.n_predictions)
            constant = self._best_of(np.eye(len(constant))) if self.tunes else constant / weight.sum()
        else:
            from sklearn.dummy import DummyRegressor

            values = target.reshape(len(rows), -1)
            dummy = DummyRegressor(strategy="mean" if self.level is None else "quantile", quantile=self.level)
            constant = dummy.fit(values, values, weight).constant_.ravel()
        score = self._constant_score(constant, self.scored)
        return Baseline("prior", score, 1.0)

    def _best_of(self, constants: NDArray[Any]) -> NDArray[Any]:
        """Constant prediction, of several ``(k, C)``, that has the best score on the validation rows."""
        held, metric = self.preparation.validation_rows, self.preparation.metric
        errors = [metric.to_error(self._constant_score(one, held)) for one in constants]
        best: NDArray[Any] = constants[int(np.nanargmin(errors))]
        return best

    def _constant_score(self, constant: NDArray[Any], numbers: NDArray[np.intp]) -> float:
        rows = self.preparation.scored_rows(numbers)
        predictions = torch.from_numpy(np.repeat(constant[:, None], len(numbers), axis=1))
        predictions = weight_classes(predictions, self.decision)
        return float(self.preparation.metric(predictions[None], rows.target, rows.weight)[0])

    def _model(self, model: BaselineModel, effort: Effort | None) -> Baseline:
        started = time.monotonic()
        if effort is None:
            least = predicted_bytes(model, min(MIN_ROWS, self._fold_rows), self._sizes(model))
            too_large = least > self.extent.room
            short = "the memory limit is too low" if too_large else "the search is too short"
            return Baseline(model.name, None, 0.0, f"{short} for it")
        try:
            # threads of OpenMP that wait for a core took 50 times as long as one thread
            with threadpool_limits(1), warnings.catch_warnings():
                # of scikit-learn, for example that a linear model was cut short
                warnings.simplefilter("ignore")
                predictions, wanted = self._out_of_fold(model, effort, started)
            score = None if predictions is None else self._score(predictions, wanted)
            reason = "the time limit" if predictions is None else None
        except Exception as error:  # a baseline must not end a search that is otherwise complete
            score, reason = None, one_line(error)
        share = effort.n_rows / self._fold_rows
        return Baseline(model.name, score, share, reason)

    @property
    def _fold_rows(self) -> int:
        """Training rows of the smallest fold."""
        return min(part.data.rows.inputs.shape[0] for part in self.parts)

    def _effort(self, model: BaselineModel, seconds: float) -> tuple[Effort | None, float]:
        """Largest effort that is predicted to take at most these seconds, and its prediction."""
        sizes = self._sizes(model)
        for effort in efforts(model, self._fold_rows, MIN_ROWS):
            predicted = len(self.parts) * model.seconds(effort, sizes.n_inputs, sizes.n_outputs)
            fits = predicted_bytes(model, effort.n_rows, sizes) <= self.extent.room
            if fits and effort.n_rows * sizes.n_inputs <= MAX_CELLS and predicted <= seconds:
                return effort, predicted
        return None, 0.0

    def _sizes(self, model: BaselineModel) -> TableSizes:
        return table_sizes(self.preparation, self.parts[0].data, model)

    def _wanted_rows(self) -> NDArray[np.intp]:
        """Rows to predict: those that are scored, and validation rows if they tune decision weights."""
        return np.union1d(self.scored, self.preparation.validation_rows) if self.tunes else self.scored

    def _out_of_fold(
        self, model: BaselineModel, effort: Effort, started: float
    ) -> tuple[Tensor | None, NDArray[np.intp]]:
        """Predictions ``(C, n)`` of the wanted rows, or None after the deadline; and these rows."""
        wanted = self._wanted_rows()
        found = np.zeros((self.preparation.problem.head.n_predictions, len(wanted)))

        def one_fold(
            number: int, part: Part, rows: NDArray[np.intp]
        ) -> list[tuple[NDArray[np.intp], NDArray[Any]]]:
            per_fold = (time.monotonic() - started) / max(1, number // self.extent.n_workers)
            if number >= self.extent.n_workers and time.monotonic() + per_fold > self.extent.deadline:
                raise TimeoutError
            predict = model.fit(self._training_table(model, part, rows), self.task, effort.n_iterations)
            return list(self._fold_predictions(model, predict, part, wanted))

        parallel = joblib.Parallel(n_jobs=self.extent.n_workers, backend="threading")
        rows = [self._training_rows(effort, part) for part in self.parts]
        try:
            folds = parallel(map(joblib.delayed(one_fold), range(len(self.parts)), self.parts, rows))
        except TimeoutError:
            return None, wanted
        for places, predictions in itertools.chain.from_iterable(folds):
            found[: len(predictions), places] += predictions
        return torch.from_numpy(found), wanted

    def _fold_predictions(
        self, model: BaselineModel, predict: Predictor, part: Part, wanted: NDArray[np.intp]
    ) -> Iterator[tuple[NDArray[np.intp], NDArray[Any]]]:
        """Places among the wanted rows, and what the model of a fold adds to their predictions."""
        inputs, held = part.data.prediction_inputs, part.data.validation_inputs
        if inputs is not None:
            numbers = np.flatnonzero(np.isin(part.predicted_rows, wanted))
            places = np.searchsorted(wanted, part.predicted_rows[numbers])
            yield places, self._predictions(model, predict, part, inputs, numbers)
        if self.tunes and held is not None:  # every fold predicts them
            places = np.searchsorted(wanted, self.preparation.validation_rows)
            predictions = self._predictions(model, predict, part, held, np.arange(held.shape[0]))
            yield places, predictions / len(self.parts)

    def _training_rows(self, effort: Effort, part: Part) -> NDArray[np.intp]:
        n_rows = part.data.n_rows
        if effort.n_rows >= self._fold_rows:
            return np.arange(n_rows)
        return np.sort(self.rng.choice(n_rows, effort.n_rows, replace=False))

    def _training_table(self, model: BaselineModel, part: Part, numbers: NDArray[np.intp]) -> TrainingTable:
        rows, columns = part.data.rows, part.data.columns
        weight = None if rows.weight is None else training_target(rows.weight, numbers)
        return TrainingTable(
            inputs=model_inputs(rows.inputs, numbers, columns, codes=model.takes_codes),
            target=training_target(rows.target, numbers),
            weight=weight,
            is_category=category_mask(columns, rows.inputs.shape[1], codes=model.takes_codes),
            level=self.level,
            power=log_link_power(self.preparation.settings.loss) if self.level is None else None,
        )

    def _predictions(
        self, model: BaselineModel, predict: Predictor, part: Part, inputs: Rows, numbers: NDArray[np.intp]
    ) -> NDArray[Any]:
        """Predictions ``(C, n)`` of some rows of a part, given by their numbers."""
        values = predict(model_inputs(inputs, numbers, part.data.columns, codes=model.takes_codes))
        return values_of(part.head, values) if self.task == "regression" else values

    def _score(self, predictions: Tensor, wanted: NDArray[np.intp]) -> float:
        """Score of the scored rows, with decision weights that are tuned on the validation rows."""
        preparation, metric = self.preparation, self.preparation.metric
        rows = preparation.scored_rows(self.scored)
        weights: Decision | None = self.decision
        if self.tunes:
            held = preparation.scored_rows(preparation.validation_rows)
            tuned = tune_thresholds(
                predictions[:, np.searchsorted(wanted, preparation.validation_rows)],
                held.target,
                metric,
                weight=held.weight,
                groups=held.groups,
                seed=seed_of(preparation.settings.seed, 6),
            )
            weights = None if tuned is None else tuned.weights
        mine = weight_classes(predictions[:, np.searchsorted(wanted, self.scored)], weights)
        return float(metric(mine[None], rows.target, rows.weight)[0])
