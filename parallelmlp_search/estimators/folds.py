"""Folds of a cross-validation whose candidates are trained together.

A fold is prepared once: the steps before the network are fitted on its training rows, its table is encoded,
and the rows that will be scored wait as tensors. All candidates then train on it as shards of one population
each, and every one of them is handed to the scorers as the fitted estimator that it would be alone.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from sklearn.utils.metaestimators import _safe_split, available_if
from sklearn.utils.validation import _check_method_params

from parallelmlp_search.distribute import MemberOutcome, ShardData, ShardTask, cut_work, run_shards
from parallelmlp_search.engine import MemberState
from parallelmlp_search.estimators.inputs import table
from parallelmlp_search.estimators.single_mlp_base import SingleMLP, Training
from parallelmlp_search.space import MLPConfig

__all__ = ["Fold", "KnowingPipeline", "last_step", "prepare_fold", "train_on_folds"]


def _last_step_has(method: str) -> Callable[[Any], bool]:
    return lambda pipeline: hasattr(pipeline.steps[-1][1], method)


class KnowingPipeline(Pipeline):  # type: ignore[misc]
    """A fitted pipeline that has transformed some tables before, and need not do so again."""

    known_rows: tuple[tuple[Any, Any], ...] = ()

    def _transformed(self, X: Any) -> tuple[bool, Any]:
        for rows, transformed in self.known_rows:
            if X is rows:
                return True, transformed
        return False, None

    def predict(self, X: Any, **params: Any) -> Any:
        """Predictions of the last step."""
        known, transformed = self._transformed(X)
        return self.steps[-1][1].predict(transformed) if known else super().predict(X, **params)

    @available_if(_last_step_has("predict_proba"))  # type: ignore[untyped-decorator]
    def predict_proba(self, X: Any, **params: Any) -> Any:
        """Probabilities of the last step."""
        known, transformed = self._transformed(X)
        if not known:
            return super().predict_proba(X, **params)
        return self.steps[-1][1].predict_proba(transformed)

    @available_if(_last_step_has("predict_log_proba"))  # type: ignore[untyped-decorator]
    def predict_log_proba(self, X: Any, **params: Any) -> Any:
        """Logarithms of the probabilities of the last step."""
        known, transformed = self._transformed(X)
        if not known:
            return super().predict_log_proba(X, **params)
        return self.steps[-1][1].predict_log_proba(transformed)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None, **params: Any) -> Any:
        """Score of the last step."""
        known, transformed = self._transformed(X)
        if not known:
            return super().score(X, y, sample_weight, **params)
        return self.steps[-1][1].score(transformed, y, sample_weight)


def last_step(estimator: Any) -> Any:
    """The last step of a pipeline, or the estimator itself."""
    return estimator.steps[-1][1] if isinstance(estimator, Pipeline) else estimator


@dataclass
class Fold:
    """One split, ready for any number of candidates.

    Attributes
    ----------
    estimator
        Pipeline or network, fitted but for the network itself.
    X_test, y_test, X_train, y_train
        Rows of the split as scorers get them.
    training
        What training needs, None where preparing failed.
    known
        Tables as the last step sees them, and where in the predictions their rows are: the test rows and,
        if they are scored too, the training rows.
    error
        Why preparing failed.
    seconds
        Time that it took.
    """

    estimator: Any
    X_test: Any
    y_test: Any
    X_train: Any
    y_train: Any
    training: Training | None = None
    known: list[tuple[Any, Any, slice]] = field(default_factory=list)
    error: Exception | None = None
    seconds: float = 0.0

    @property
    def data(self) -> ShardData | None:
        """Rows to train on, None where there is nothing to train."""
        return None if self.training is None or self.training.part is None else self.training.part.data

    def config(self, fields: Mapping[str, Any]) -> MLPConfig:
        """Configuration of a candidate."""
        assert self.training is not None
        base: MLPConfig = last_step(self.estimator)._config(self.training.seed)
        return base.replace(**fields)

    def fitted(self, fields: Mapping[str, Any], outcome: MemberOutcome | None) -> Any:
        """The estimator that a candidate is on this fold, fitted.

        Parameters
        ----------
        fields
            What the candidate decides.
        outcome
            Its training; None where no column tells rows apart.

        Raises
        ------
        Exception
            Whatever fitting it alone would raise.
        """
        if self.error is not None:
            raise self.error
        assert self.training is not None
        final: SingleMLP = copy.copy(last_step(self.estimator))
        for name, value in fields.items():
            setattr(final, name, value)
        final._only_prepares = False
        del final._prepared
        if outcome is None:
            final._keep(self.training, self.config(fields))
        else:
            final._keep_network(self.training, self.config(fields), outcome)
            assert outcome.prediction is not None
            values = _normalised(outcome.prediction, classes=hasattr(final, "classes_"))
            final._known = tuple((rows, values[place]) for _, rows, place in self.known)
        if not isinstance(self.estimator, Pipeline):
            return final
        steps = [*self.estimator.steps[:-1], (self.estimator.steps[-1][0], final)]
        if type(self.estimator) is not Pipeline:
            pipeline = copy.copy(self.estimator)
            pipeline.steps = steps
            return pipeline
        knowing = copy.copy(self.estimator)
        knowing.__class__ = KnowingPipeline
        knowing.steps = steps
        knowing.known_rows = tuple((rows, transformed) for rows, transformed, _ in self.known)
        return knowing


def _normalised(prediction: torch.Tensor, *, classes: bool) -> npt.NDArray[np.float64]:
    """Predictions ``(n, C)`` as :class:`~parallelmlp_search.search.TrainedModel` gives them."""
    values: npt.NDArray[np.float64] = prediction.double().numpy()
    if classes:
        values = values / values.sum(axis=0, keepdims=True)
    return np.ascontiguousarray(values.T)


def prepare_fold(
    estimator: Any,
    X: Any,
    y: Any,
    train: npt.NDArray[np.intp],
    test: npt.NDArray[np.intp],
    fit_params: Mapping[str, Any],
    *,
    with_training_rows: bool,
) -> Fold:
    """Fit everything but the network on the training rows of a split.

    Parameters
    ----------
    estimator
        Network, or pipeline that ends in one; it is cloned.
    X, y
        All rows.
    train, test
        Row numbers.
    fit_params
        Parameters of ``fit`` for all rows.
    with_training_rows
        Whether the training rows will be scored too.
    """
    started = time.perf_counter()
    estimator = clone(estimator)
    X_train, y_train = _safe_split(estimator, X, y, train)
    X_test, y_test = _safe_split(estimator, X, y, test, train)
    fold = Fold(estimator, X_test, y_test, X_train, y_train)
    final: SingleMLP = last_step(estimator)
    final._only_prepares = True
    try:
        estimator.fit(X_train, y_train, **_check_method_params(X, params=fit_params, indices=train))
        training = final._prepared
        if training.part is not None:
            scored = [X_test, X_train] if with_training_rows else [X_test]
            fold.training = _with_scored_rows(fold, training, scored)
        else:
            fold.training = training
    except Exception as error:  # as scikit-learn does: a fit that fails is scored `error_score`
        fold.error = error
    fold.seconds = time.perf_counter() - started
    return fold


def _with_scored_rows(fold: Fold, training: Training, scored: Sequence[Any]) -> Training:
    """The training, with the rows that will be scored as those to predict."""
    assert training.part is not None
    part, estimator = training.part, fold.estimator
    final = last_step(estimator)
    front = estimator[:-1] if isinstance(estimator, Pipeline) and len(estimator.steps) > 1 else None
    matrices: list[npt.NDArray[np.float32]] = []
    start = 0
    for rows in scored:
        transformed = rows if front is None else front.transform(rows)
        matrix = part.preprocessor.transform(table(final, transformed, names=final._columns))
        fold.known.append((rows, transformed, slice(start, start + len(matrix))))
        matrices.append(matrix)
        start += len(matrix)
    inputs = torch.from_numpy(np.concatenate(matrices)).to(part.data.rows.inputs.device)
    return replace(training, part=replace(part, data=replace(part.data, prediction_inputs=inputs)))


def train_on_folds(
    folds: Sequence[Fold],
    fields: Mapping[int, Mapping[str, Any]],
    states: dict[tuple[int, int], MemberState],
    *,
    until: Sequence[float],
    total: Sequence[float],
    n_workers: int,
) -> Iterator[tuple[int, int, MemberOutcome]]:
    """Train candidates on every fold.

    Parameters
    ----------
    folds
        The splits; those that failed or have nothing to train are passed over.
    fields
        What each candidate decides, by its number.
    states
        States of members by candidate and fold, which are taken out; fresh ones have none. Where training
        does not end here, new states are put in.
    until, total
        Epochs, of this call and of full training, for each fold.
    n_workers
        Shards that run at once.

    Yields
    ------
    tuple of (int, int, MemberOutcome)
        Candidate, fold, outcome, as shards finish.
    """
    tasks: list[ShardTask] = []
    places: dict[str, int] = {}
    numbers = list(fields)
    for place, fold in enumerate(folds):
        data = fold.data
        if data is None:
            continue
        configs = [fold.config(fields[number]) for number in numbers]
        last = until[place] >= total[place]
        for cut in cut_work(configs, data):
            key = f"fold-{place:03d}-{len(tasks):05d}"
            places[key] = place
            tasks.append(
                ShardTask(
                    key=key,
                    trials=tuple(numbers[index] for index in cut),
                    configs=tuple(configs[index] for index in cut),
                    states=tuple(states.pop((numbers[index], place), None) for index in cut),
                    data=data,
                    until_epoch=until[place],
                    total_epochs=total[place],
                    keep=("average",) if last else ("parameters", "first_moment", "second_moment", "average"),
                )
            )
    # the most expensive first, so that no worker is left with it in the end
    tasks.sort(key=lambda task: (-task.predicted_seconds, task.key))
    for shard in run_shards(tasks, n_workers=n_workers):
        place = places[shard.key]
        for member in shard.members:
            if until[place] < total[place] and member.failure is None and member.state is not None:
                states[member.trial, place] = member.state
            yield member.trial, place, member
