"""Folds of a cross-validation whose candidates are trained together.

Each fold is prepared once: the steps before the network are fitted on its training rows, its table is
encoded, and the rows to score are stored as tensors. After training, a fold returns each candidate as the
fitted estimator that it would be on its own.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from sklearn.utils.metaestimators import _safe_split, available_if
from sklearn.utils.validation import _check_method_params

from parallelmlp_search.distribute import MemberOutcome, ShardData
from parallelmlp_search.estimators.inputs import check_table
from parallelmlp_search.estimators.single_mlp_base import PreparedTraining, SingleMLP
from parallelmlp_search.search.run.workers import Workers
from parallelmlp_search.space import MLPConfig


def last_step(estimator: Any) -> Any:
    """Return the last step of a pipeline, or the estimator itself."""
    return estimator.steps[-1][1] if isinstance(estimator, Pipeline) else estimator


def _cached(method: str) -> Any:
    """Return a method of :class:`CachedPipeline` that skips the first steps for tables in its cache."""

    def call(self: CachedPipeline, X: Any, *args: Any, **params: Any) -> Any:
        for table, transformed in self.cached_tables:
            if X is table:
                return getattr(last_step(self), method)(transformed, *args, **params)
        return getattr(super(CachedPipeline, self), method)(X, *args, **params)

    call.__name__ = method  # scorers look for methods by name
    return available_if(lambda pipeline: hasattr(last_step(pipeline), method))(call)


class CachedPipeline(Pipeline):  # type: ignore[misc]
    """A fitted pipeline with a cache of transformed tables.

    Attributes
    ----------
    cached_tables
        Tables, each with the output of the steps before the last.
    """

    cached_tables: tuple[tuple[Any, Any], ...] = ()

    predict = _cached("predict")
    predict_proba = _cached("predict_proba")
    predict_log_proba = _cached("predict_log_proba")
    score = _cached("score")


@dataclass
class Fold:
    """One split of the rows, prepared for any number of candidates.

    Attributes
    ----------
    estimator
        Pipeline or network, fitted except for the network itself.
    X_test, y_test, X_train, y_train
        Rows of the split as scorers get them.
    test_params, train_params
        Further arguments of scorers.
    training
        Encoded training rows; None if the preparation failed.
    scored
        Tables that are scored, before and after the steps of the pipeline, and the slice of the predictions
        that holds their rows.
    error
        Error of the preparation, or None.
    seconds
        Duration of the preparation.
    """

    estimator: Any
    X_test: Any
    y_test: Any
    X_train: Any
    y_train: Any
    test_params: dict[str, Any]
    train_params: dict[str, Any]
    training: PreparedTraining | None = None
    scored: list[tuple[Any, Any, slice]] = field(default_factory=list)
    error: Exception | None = None
    seconds: float = 0.0

    @property
    def data(self) -> ShardData | None:
        """Rows to train on; None if the preparation failed or no column is informative."""
        return None if self.training is None or self.training.part is None else self.training.part.data

    @property
    def max_epochs(self) -> int:
        """Epochs of full training; 0 if the preparation failed."""
        return self.training.max_epochs if self.training else 0

    def share(self, workers: Workers) -> None:
        """Place the rows where worker processes can read them."""
        if self.training is not None and (part := self.training.part) is not None:
            self.training = replace(self.training, part=replace(part, data=workers.share(part.data)))

    def config(self, fields: Mapping[str, Any]) -> MLPConfig:
        """Return the configuration of a candidate."""
        assert self.training is not None
        base: MLPConfig = last_step(self.estimator)._config(self.training.seed)
        return base.replace(**fields)

    def fitted(self, fields: Mapping[str, Any], outcome: MemberOutcome | None) -> Any:
        """Return a candidate as an estimator that is fitted on this fold.

        ``outcome`` is None if no column is informative. It raises any error that fitting the estimator alone
        would raise.
        """
        if self.error is not None:
            raise self.error
        assert self.training is not None
        final: SingleMLP = copy.copy(last_step(self.estimator))
        final.__dict__.update(fields)
        final._only_prepare = False
        del final._prepared
        if outcome is None:
            final._train(self.training, self.config(fields))
        else:
            final._store_network(self.training, self.config(fields), outcome)
            assert outcome.prediction is not None
            values = _final_predictions(outcome.prediction, self.training)
            # the curve of a transformed target was smeared after training
            assert self.data is not None
            if self.data.curve_of(self.config(fields)) is None:
                final._cached_predictions = tuple((table, values[rows]) for _, table, rows in self.scored)
        if not isinstance(self.estimator, Pipeline):
            return final
        pipeline = copy.copy(self.estimator)
        pipeline.steps = [*self.estimator.steps[:-1], (self.estimator.steps[-1][0], final)]
        if type(self.estimator) is Pipeline:
            pipeline.__class__ = CachedPipeline
            pipeline.cached_tables = tuple((table, transformed) for table, transformed, _ in self.scored)
        return pipeline


def _final_predictions(prediction: torch.Tensor, training: PreparedTraining) -> npt.NDArray[np.float64]:
    """Return predictions of shape (n, n_outputs) as :class:`~parallelmlp_search.search.TrainedModel` does."""
    values: npt.NDArray[np.float64] = prediction.double().numpy()
    preparation = training.preparation
    assert preparation is not None
    if preparation.target_scaling is not None:
        values = preparation.target_scaling.restore(values)
    elif not preparation.of_labels:
        values = values / values.sum(axis=0, keepdims=True)
    return np.ascontiguousarray(values.T)


def prepare_fold(
    estimator: Any,
    X: Any,
    y: Any,
    split: tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]],
    routed: Any,
    *,
    with_training_rows: bool,
) -> Fold:
    """Fit everything except the network on the training rows of a split.

    Parameters
    ----------
    estimator
        Network, or a pipeline that ends in one; it is cloned.
    X, y
        All rows.
    split
        Numbers of the training rows and of the test rows.
    routed
        Arguments of ``fit`` and of scorers for all rows, as scikit-learn routes metadata.
    with_training_rows
        Whether the training rows are scored too.

    Returns
    -------
    Fold
    """
    started = time.perf_counter()
    train, test = split
    estimator = clone(estimator)
    X_train, y_train = _safe_split(estimator, X, y, train)
    X_test, y_test = _safe_split(estimator, X, y, test, train)
    test_params, train_params = (
        _check_method_params(X, params=routed.scorer.score, indices=rows) for rows in (test, train)
    )
    fold = Fold(estimator, X_test, y_test, X_train, y_train, test_params, train_params)
    final: SingleMLP = last_step(estimator)
    final._only_prepare = True
    try:
        estimator.fit(X_train, y_train, **_check_method_params(X, params=routed.estimator.fit, indices=train))
        fold.training = final._prepared
        if fold.data is not None:
            _encode_scored_tables(fold, with_training_rows=with_training_rows)
    except Exception as error:  # a failed fit is scored with `error_score`, as in scikit-learn
        fold.error, fold.training = error, None
    fold.seconds = time.perf_counter() - started
    return fold


def _encode_scored_tables(fold: Fold, *, with_training_rows: bool) -> None:
    """Encode the tables that are scored, so that training predicts their rows."""
    assert fold.training is not None
    assert fold.training.part is not None
    assert fold.training.preparation is not None
    part, estimator = fold.training.part, fold.estimator
    reader = fold.training.preparation.problem.read.reader
    final = last_step(estimator)
    has_steps = isinstance(estimator, Pipeline) and len(estimator.steps) > 1
    transform: Callable[[Any], Any] = estimator[:-1].transform if has_steps else lambda table: table
    matrices: list[npt.NDArray[np.float32]] = []
    start = 0
    for table in [fold.X_test, fold.X_train] if with_training_rows else [fold.X_test]:
        transformed = transform(table)
        matrix = part.preprocessor.transform(
            reader.read(check_table(final, transformed, names=final._columns))
        )
        fold.scored.append((table, transformed, slice(start, start + len(matrix))))
        matrices.append(matrix)
        start += len(matrix)
    inputs = torch.from_numpy(np.concatenate(matrices)).to(part.data.rows.inputs.device)
    data = replace(part.data, prediction_inputs=inputs)
    fold.training = replace(fold.training, part=replace(part, data=data))
