"""Update of a trained model on new rows: its networks train on from their weights.

A part of the new rows chooses the epoch of each network, among them the epoch before the first step, and
another part decides whether the updated networks replace the old ones. So the model never becomes worse on
either part. Preprocessing, ensemble weights, temperature and decision thresholds stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from parallelmlp_search._checks import check_integer, check_positive
from parallelmlp_search.data import ClassTarget, RegressionTarget, holdout
from parallelmlp_search.distribute import (
    ShardData,
    ShardTask,
    one_thread,
    predict_network,
    run_shards,
    shard_tasks,
    worker_count,
)
from parallelmlp_search.engine import MemberState, TrainingRows
from parallelmlp_search.exceptions import DataError, InvalidParameterError
from parallelmlp_search.inference import FoldModel, TrainedModel
from parallelmlp_search.packing import Head
from parallelmlp_search.packing.pack import read_member
from parallelmlp_search.search.finalists.model import fold_model
from parallelmlp_search.search.problem.preparation import seed_of
from parallelmlp_search.search.problem.settings import SearchSettings, loss_of_metric
from parallelmlp_search.selection import Metric, get_metric, weight_classes
from parallelmlp_search.space import MLPConfig

MIN_ROWS = 40
"""Least new rows, of which 8 choose epochs and 8 decide."""

PART = 0.2
"""Share of the new rows that choose epochs, and share of those that decide."""


N_STEPS, BATCH, MIN_EPOCHS = 400, 128, 3
"""Batches of so many rows in an update, and least epochs.

After drift, the errors of two updates with 100 steps were 12 % and 101 % higher; those with 1,200 were within
5 % (docs/decisions/052-updates-on-new-rows.md)."""

MAX_EVALUATIONS = 40
"""About the most evaluations of a network."""


@dataclass(frozen=True)
class UpdateSettings:
    """Settings of an update.

    Attributes
    ----------
    epochs
        Epochs of training on the new rows; None for about 400 batches of 128 rows, and at least 3 epochs.
    rate
        Learning rate relative to that of the search. It falls to zero along a cosine.
    metric, loss
        Metric by :func:`~parallelmlp_search.selection.get_metric`, and training loss; None for the default.
    seed
        Seed of the parts and of the batches.
    """

    epochs: int | None = None
    rate: float = 0.3
    metric: str | Metric | Callable[..., Any] | None = None
    loss: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs is not None:
            check_integer("epochs", self.epochs, 1)
        check_positive("rate", self.rate)
        check_integer("seed", self.seed, 0)


@dataclass(frozen=True)
class UpdateResult:
    """Result of an update.

    Attributes
    ----------
    used
        True if the updated networks predict; False if they were not better and the old ones still do.
    metric, score_before, score_after
        Metric, and scores of the old and of the updated networks on rows that no network was trained on and
        that chose no epoch.
    n_rows, n_scored
        New rows, and rows that were scored.
    n_networks, n_changed
        Networks of the model, and networks that training on the new rows has improved.
    """

    used: bool
    metric: str
    score_before: float
    score_after: float
    n_rows: int
    n_scored: int
    n_networks: int
    n_changed: int

    def describe(self) -> str:
        """Return the result in words."""
        scores = f"{self.metric} {self.score_before:.5g} before and {self.score_after:.5g} after"
        what = f"{scores} on {self.n_scored} held-out rows of {self.n_rows}"
        if not self.used:
            return f"the networks stay as they are, because training on the new rows did not help: {what}"
        return f"{self.n_changed} of {self.n_networks} networks were updated: {what}"


def update_model(
    model: TrainedModel,
    table: pd.DataFrame | NDArray[Any],
    target: NDArray[Any],
    weight: NDArray[np.float64] | None = None,
    settings: UpdateSettings | None = None,
    *,
    n_jobs: int | None = None,
) -> tuple[TrainedModel, UpdateResult]:
    """Train the networks of a model on new rows, and return the better model.

    Networks of transformed targets stay as they are. An updated model has no intervals, which the errors of
    the old networks gave.

    Parameters
    ----------
    model
        Trained model.
    table, target, weight
        New rows with the columns of training, their targets ``(n,)`` or ``(n, outputs)``, and their weights
        ``(n,)`` or None.
    settings
        Settings; the defaults if None.
    n_jobs
        Number of workers; None for all cores.

    Returns
    -------
    (TrainedModel, UpdateResult)
        The updated model, or the given one if that is not better.

    Raises
    ------
    DataError
        If there are too few rows, a class was not in the training target, or the metric cannot be computed.
    """
    with one_thread():
        return _Update(model, table, target, weight, settings or UpdateSettings()).run(worker_count(n_jobs))


class _Update:
    """Work of :func:`update_model`."""

    def __init__(
        self,
        model: TrainedModel,
        table: pd.DataFrame | NDArray[Any],
        target: NDArray[Any],
        weight: NDArray[np.float64] | None,
        settings: UpdateSettings,
    ) -> None:
        if not all(isinstance(fold, FoldModel) for fold in model.folds):
            raise InvalidParameterError(
                "update needs the networks of a search, but the ensemble has promoted ones"
            )
        if model.task == "multilabel":
            raise InvalidParameterError(
                "update needs classes or numbers to predict, but the target has several labels: search again"
            )
        if len(target) < MIN_ROWS:
            raise DataError(f"update needs at least {MIN_ROWS} new rows, but got {len(target)}")
        search = SearchSettings(metric=settings.metric, loss=settings.loss)
        search.check_task(model.task, target)
        self._metric = get_metric(search.metric, model.task, classes=model.classes)
        self._loss, is_log = search.loss, model.folds[0].head.link == "log"
        if is_log and self._loss is None:
            self._loss = loss_of_metric(self._metric, target)
        if is_log != SearchSettings(loss=self._loss).has_log_link:
            raise InvalidParameterError(f"loss must be that of the search, but got {settings.loss!r}")
        self._model, self._settings = model, settings
        self._table, self._weight = model.read(table), weight
        if model.classes is not None:
            self._target: NDArray[Any] = ClassTarget(model.classes).encode(target)
        else:
            self._target = np.asarray(target, dtype=np.float64)
            if (scaling := model.target_scaling) is not None:
                self._target = scaling.apply(self._target)
                self._metric = self._metric.in_units(scaling.unit, scaling.center)
        self._metric = self._metric.checked_on(self._target, weight)
        seed = seed_of(settings.seed, 10)
        rest, self._scored = _parts(self._target, model.task, np.arange(len(target)), PART, seed)
        self._train, self._choosing = _parts(self._target, model.task, rest, PART / (1.0 - PART), seed + 1)

    def run(self, n_workers: int) -> tuple[TrainedModel, UpdateResult]:
        """Return the better model and the result."""
        tasks, old = [], {}
        for fold, networks in enumerate(self._model.folds):
            data = self._data(networks, fold)
            configs = dict(self._configs(networks))
            old[fold] = {number: _vector(networks, number) for number in range(networks.layout.n_members)}
            states = {
                number: self._state(data, config, old[fold][number]) for number, config in configs.items()
            }
            tasks += self._tasks(fold, configs, states, data)
        n_changed = 0
        for outcome in run_shards(tasks, n_workers=n_workers):
            fold = int(outcome.key.split("-")[1])
            for member in outcome.members:
                if member.failure is None and member.state is not None and member.best_epoch > 0:
                    old[fold][member.trial] = member.state.vectors["best"]
                    n_changed += 1
        updated = replace(
            self._model,
            folds=[self._fold(networks, old[fold]) for fold, networks in enumerate(self._model.folds)],
            uncertainty=None,
        )
        before, after = self._error(self._model), self._error(updated)
        if not np.isfinite(before):
            raise DataError(
                f"update needs held-out rows on which {self._metric.name} is finite, but it is not on "
                f"{len(self._scored)} rows: give more rows, or rows of all classes"
            )
        used = bool(after < before)
        result = UpdateResult(
            used=used,
            metric=self._metric.name,
            score_before=self._metric.to_score(before),
            score_after=self._metric.to_score(after),
            n_rows=len(self._target),
            n_scored=len(self._scored),
            n_networks=sum(fold.layout.n_members for fold in self._model.folds),
            n_changed=n_changed,
        )
        return (updated if used else self._model), result

    def _configs(self, networks: FoldModel) -> Iterator[tuple[int, MLPConfig]]:
        """Number and configuration of the networks of a fold that are trained."""
        settings = self._settings
        for number, config in enumerate(self._model.configs):
            if not networks.curves or networks.curves[number] is None:
                rate = settings.rate * config.learning_rate
                yield number, config.replace(learning_rate=rate, schedule="cosine", target_transform="none")

    def _tasks(
        self, fold: int, configs: dict[int, MLPConfig], states: dict[int, MemberState], data: ShardData
    ) -> list[ShardTask]:
        if not configs:
            return []
        epochs = float(self._settings.epochs or max(MIN_EPOCHS, round(N_STEPS * BATCH / len(self._train))))
        return shard_tasks(
            f"update-{fold}", configs, data, states=states, until_epoch=epochs, total_epochs=epochs,
            evaluate_every=max(1.0, epochs / MAX_EVALUATIONS), keep=("best",),
        )  # fmt: skip

    def _data(self, networks: FoldModel, fold: int) -> ShardData:
        """Rows, head and loss of the networks of a fold."""
        inputs = torch.from_numpy(networks.encoder.encode(self._table))
        head = self._head(networks.head)
        target = torch.from_numpy(self._target[self._train])
        if head.task == "regression":
            own = np.atleast_2d(self._target[self._train].T)
            location, scale = (np.array(values)[:, None] for values in (head.location, head.scale))
            target = torch.from_numpy(((own - location) / scale).astype(np.float32))
        rows = inputs[torch.from_numpy(self._train)], target, self._weights(self._train, torch.float32)
        return ShardData(
            rows=TrainingRows(*rows),
            validation_inputs=inputs[torch.from_numpy(self._choosing)],
            validation_target=self._metric_target(self._choosing),
            validation_weight=self._weights(self._choosing),
            prediction_inputs=None,
            head=head,
            loss=self._loss or head.default_loss,
            metric=self._metric,
            seed=seed_of(self._settings.seed, 10, fold),
            columns=networks.encoder.groups,
        )

    def _head(self, head: Head) -> Head:
        """Head with the range of all targets that networks have been trained on."""
        if head.task != "regression":
            return head
        new = RegressionTarget.fit(self._target[self._train])
        return replace(
            head,
            lower=tuple(np.minimum(head.lower, new.low_).tolist()),
            upper=tuple(np.maximum(head.upper, new.high_).tolist()),
        )

    def _weights(self, rows: NDArray[np.intp], dtype: torch.dtype = torch.float64) -> Tensor | None:
        return None if self._weight is None else torch.from_numpy(self._weight[rows]).to(dtype)

    def _metric_target(self, rows: NDArray[np.intp]) -> Tensor:
        """Target of rows as metrics take it."""
        target = self._target[rows]
        if self._model.task != "regression":
            return torch.from_numpy(target)
        return torch.from_numpy(np.ascontiguousarray(np.atleast_2d(target.T)))

    def _state(self, data: ShardData, config: MLPConfig, vector: Tensor) -> MemberState:
        """State before the first step, whose weights are the best so far."""
        predicted = replace(data, prediction_inputs=data.validation_inputs)
        prediction = predict_network(predicted, config, vector)[None]
        error = float(data.metric.error(prediction, data.validation_target, data.validation_weight)[0])
        vectors = dict.fromkeys(("parameters", "average", "best"), vector)
        return MemberState(vectors, best_error=error if np.isfinite(error) else float("inf"))

    def _fold(self, networks: FoldModel, vectors: dict[int, Tensor]) -> FoldModel:
        found = [vectors[number] for number in range(networks.layout.n_members)]
        head = self._head(networks.head)
        return fold_model(networks.encoder, head, self._model.configs, found, networks.curves)

    def _error(self, model: TrainedModel) -> float:
        """Error of a model on the rows that decide."""
        table = self._table
        table = table.iloc[self._scored] if isinstance(table, pd.DataFrame) else table[self._scored]
        predictions = torch.from_numpy(np.ascontiguousarray(model.scaled_predictions(table)))[None]
        if self._metric.needs == "label":
            predictions = weight_classes(predictions, model.decision_weights)
        target, weight = self._metric_target(self._scored), self._weights(self._scored)
        return float(self._metric.error(predictions, target, weight)[0])


def _vector(networks: FoldModel, number: int) -> Tensor:
    """Canonical vector of a network of a fold."""
    return read_member(torch.from_numpy(networks.parameters), networks.layout, number)


def _parts(
    target: NDArray[Any], task: str, rows: NDArray[np.intp], fraction: float, seed: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows that are left, and a share that is held out."""
    split = holdout(target[rows], fraction=fraction, task=task, seed=seed)
    return rows[split.train], rows[split.test]
