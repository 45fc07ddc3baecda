"""Estimators of one network of a given configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from parallelmlp_search.estimators.parameters import documented_by, with_config_fields
from parallelmlp_search.estimators.single_mlp_base import SingleMLP
from parallelmlp_search.estimators.table_estimator import TableClassifier, TableRegressor
from parallelmlp_search.space import MLPConfig


@documented_by(MLPConfig)
@with_config_fields
class SingleMLPClassifier(TableClassifier, SingleMLP):
    """Classifier of one multi-layer perceptron.

    It reads the same tables as :class:`~parallelmlp_search.ParallelMLPClassifier` and encodes them alike, but
    trains a single configuration on all rows. :class:`~parallelmlp_search.PackedSearchCV` trains many of
    these networks at once and obtains the same networks up to rounding.

    The fields of :class:`~parallelmlp_search.space.MLPConfig` are parameters of the constructor.

    Parameters
    ----------
    seed : int, default=None
        Seed of the initial weights. None derives it from ``random_state``.
    max_epochs : int, default=None
        Epochs of training. None chooses them by the number of rows.
    column_types : mapping, default=None
        Kind by column name, for columns whose kind is not to be recognised: ``"numeric"``, ``"currency"``,
        ``"percent"``, ``"quantity"``, ``"duration"``, ``"datetime"``, ``"boolean"``, ``"categorical"``,
        ``"ordinal"`` for ordered categories, ``"text"``, ``"list"``, ``"json"``, or ``"ignore"`` to leave a
        column out.
    class_weight : "balanced" or mapping, default=None
        Weight of each class in training. ``"balanced"`` gives all classes the same total weight.
    device : str, default="auto"
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    random_state : int, RandomState or None, default=None
        Seed of the initial weights, the batches and dropout. An integer makes fits repeatable.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels, sorted.
    n_features_in_ : int
        Number of columns seen in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns; defined only if all are strings.
    columns_ : pandas.DataFrame
        One row per column of the training table: kind, number of distinct and missing values, range or
        examples, treatment, and the reason for the kind.
    config_ : MLPConfig
        The configuration.
    n_epochs_ : int
        Epochs of training.
    training_loss_ : float
        Mean loss over the training; NaN if no network could be trained.
    model_ : TrainedModel or ConstantModel
        The model that predicts. Without an informative column it predicts a constant.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> model = SingleMLPClassifier((32, 32), learning_rate=0.01, random_state=0).fit(X, y)
    >>> model.predict_proba(X).shape
    (150, 3)
    """

    def __init__(
        self,
        widths: Sequence[int] = (64,),
        *,
        seed: int | None = None,
        max_epochs: int | None = None,
        column_types: Mapping[str, str] | None = None,
        class_weight: str | Mapping[Any, float] | None = None,
        device: str = "auto",
        random_state: int | np.random.RandomState | None = None,
        **config: Any,
    ) -> None: ...


@documented_by(SingleMLPClassifier)
@with_config_fields
class SingleMLPRegressor(TableRegressor, SingleMLP):
    """Regressor of one multi-layer perceptron, with one or several outputs.

    Predictions stay in the range of the training target. The other parameters are those of
    :class:`SingleMLPClassifier`.

    Parameters
    ----------
    loss : str, default=None
        Training loss: ``"squared_error"`` (the default), ``"huber"``, ``"huber:0.5"``, ``"quantile"`` or
        ``"quantile:0.9"``; with a log link ``"poisson"`` for counts, ``"gamma"`` for positive amounts, and
        ``"tweedie"`` or ``"tweedie:1.7"`` for amounts that can be zero. The delta of the Huber loss is in
        standard deviations of the target.

    Attributes
    ----------
    n_features_in_, feature_names_in_, columns_, config_, n_epochs_, training_loss_, model_
        See :class:`SingleMLPClassifier`.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = SingleMLPRegressor((32,), learning_rate=0.01, random_state=0).fit(X, y)
    >>> model.predict(X).shape
    (442,)
    """

    def __init__(
        self,
        widths: Sequence[int] = (64,),
        *,
        seed: int | None = None,
        max_epochs: int | None = None,
        column_types: Mapping[str, str] | None = None,
        loss: str | None = None,
        device: str = "auto",
        random_state: int | np.random.RandomState | None = None,
        **config: Any,
    ) -> None: ...
