"""One network as a scikit-learn estimator: what a search over single networks tries, and leaves behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin

from parallelmlp_search.estimators.single_mlp_base import SingleMLP
from parallelmlp_search.estimators.table_estimator import LabelTarget, NumericTarget

__all__ = ["SingleMLPClassifier", "SingleMLPRegressor"]


class SingleMLPClassifier(ClassifierMixin, LabelTarget, SingleMLP):  # type: ignore[misc]
    """Classifier of one multi-layer perceptron.

    It reads the same tables as :class:`~parallelmlp_search.ParallelMLPClassifier` and encodes them alike, but
    trains a single configuration, on all rows. Alone it is what :class:`~parallelmlp_search.PackedSearchCV`
    trains packed with others: the same network, to rounding.

    Parameters
    ----------
    widths, activation, learning_rate, weight_decay, weight_decay_schedule, dropout, dropout_schedule, \
    label_smoothing, optimizer, beta1, beta2, momentum, schedule, batch_size, initialization, \
    head_initialization, parametrization, bias, bias_rate, input_scale_rate, residual, normalization, \
    clip_norm, numeric_embedding, numeric_scaling, category_embedding, frequency_scale, embedding_rate, \
    submembers, sharing
        The network and its recipe, as of :class:`~parallelmlp_search.space.MLPConfig`.
    seed : int, default=None
        Seed of the initial weights; None takes it from ``random_state``.
    max_epochs : int, default=None
        Epochs of training; None chooses by the number of rows.
    class_weight : "balanced" or mapping, default=None
        Weight of each class in training; ``"balanced"`` makes all classes weigh the same.
    device : str, default="auto"
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    random_state : int, RandomState or None, default=None
        Decides the initial weights, the batches and dropout; an integer makes fits repeatable.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels, sorted.
    n_features_in_ : int
        Columns seen in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names; only where all are texts.
    config_ : MLPConfig
        The configuration.
    n_epochs_ : int
        Epochs of training.
    training_loss_ : float
        Mean loss over the training; NaN where nothing could be trained.
    model_ : TrainedModel or ConstantModel
        What predicts. A table whose columns tell nothing leaves a constant.

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
        activation: str = "relu",
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
        weight_decay_schedule: str = "constant",
        dropout: float = 0.0,
        dropout_schedule: str = "constant",
        label_smoothing: float = 0.0,
        optimizer: str = "adamw",
        beta1: float = 0.9,
        beta2: float = 0.999,
        momentum: float = 0.9,
        schedule: str = "constant",
        batch_size: int = 128,
        initialization: str = "kaiming_uniform",
        head_initialization: str = "same",
        parametrization: str = "standard",
        bias: bool = True,
        bias_rate: float = 1.0,
        input_scale_rate: float = 0.0,
        residual: bool = False,
        normalization: str = "none",
        clip_norm: float | None = None,
        numeric_embedding: str = "piecewise",
        numeric_scaling: str = "common",
        category_embedding: str = "none",
        frequency_scale: float = 0.1,
        embedding_rate: float = 0.1,
        submembers: int = 1,
        sharing: str = "mini",
        seed: int | None = None,
        max_epochs: int | None = None,
        class_weight: str | Mapping[Any, float] | None = None,
        device: str = "auto",
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.widths = widths
        self.activation = activation
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.weight_decay_schedule = weight_decay_schedule
        self.dropout = dropout
        self.dropout_schedule = dropout_schedule
        self.label_smoothing = label_smoothing
        self.optimizer = optimizer
        self.beta1 = beta1
        self.beta2 = beta2
        self.momentum = momentum
        self.schedule = schedule
        self.batch_size = batch_size
        self.initialization = initialization
        self.head_initialization = head_initialization
        self.parametrization = parametrization
        self.bias = bias
        self.bias_rate = bias_rate
        self.input_scale_rate = input_scale_rate
        self.residual = residual
        self.normalization = normalization
        self.clip_norm = clip_norm
        self.numeric_embedding = numeric_embedding
        self.numeric_scaling = numeric_scaling
        self.category_embedding = category_embedding
        self.frequency_scale = frequency_scale
        self.embedding_rate = embedding_rate
        self.submembers = submembers
        self.sharing = sharing
        self.seed = seed
        self.max_epochs = max_epochs
        self.class_weight = class_weight
        self.device = device
        self.random_state = random_state


class SingleMLPRegressor(RegressorMixin, NumericTarget, SingleMLP):  # type: ignore[misc]
    """Regressor of one multi-layer perceptron, of one or several outputs.

    Predictions keep to the range of the training target.

    Parameters
    ----------
    widths, activation, learning_rate, weight_decay, weight_decay_schedule, dropout, dropout_schedule, \
    label_smoothing, optimizer, beta1, beta2, momentum, schedule, batch_size, initialization, \
    head_initialization, parametrization, bias, bias_rate, input_scale_rate, residual, normalization, \
    clip_norm, numeric_embedding, numeric_scaling, category_embedding, frequency_scale, embedding_rate, \
    submembers, sharing
        The network and its recipe, as of :class:`~parallelmlp_search.space.MLPConfig`.
    seed : int, default=None
        Seed of the initial weights; None takes it from ``random_state``.
    max_epochs : int, default=None
        Epochs of training; None chooses by the number of rows.
    loss : str, default=None
        What training minimises: ``"squared_error"`` (the default), ``"huber"``, ``"huber:0.5"``,
        ``"quantile"`` or ``"quantile:0.9"``; deltas count in standard deviations of the target.
    device : str, default="auto"
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    random_state : int, RandomState or None, default=None
        Decides the initial weights, the batches and dropout; an integer makes fits repeatable.

    Attributes
    ----------
    n_features_in_, feature_names_in_, config_, n_epochs_, training_loss_, model_
        As of :class:`SingleMLPClassifier`.

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
        activation: str = "relu",
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
        weight_decay_schedule: str = "constant",
        dropout: float = 0.0,
        dropout_schedule: str = "constant",
        label_smoothing: float = 0.0,
        optimizer: str = "adamw",
        beta1: float = 0.9,
        beta2: float = 0.999,
        momentum: float = 0.9,
        schedule: str = "constant",
        batch_size: int = 128,
        initialization: str = "kaiming_uniform",
        head_initialization: str = "same",
        parametrization: str = "standard",
        bias: bool = True,
        bias_rate: float = 1.0,
        input_scale_rate: float = 0.0,
        residual: bool = False,
        normalization: str = "none",
        clip_norm: float | None = None,
        numeric_embedding: str = "piecewise",
        numeric_scaling: str = "common",
        category_embedding: str = "none",
        frequency_scale: float = 0.1,
        embedding_rate: float = 0.1,
        submembers: int = 1,
        sharing: str = "mini",
        seed: int | None = None,
        max_epochs: int | None = None,
        loss: str | None = None,
        device: str = "auto",
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.widths = widths
        self.activation = activation
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.weight_decay_schedule = weight_decay_schedule
        self.dropout = dropout
        self.dropout_schedule = dropout_schedule
        self.label_smoothing = label_smoothing
        self.optimizer = optimizer
        self.beta1 = beta1
        self.beta2 = beta2
        self.momentum = momentum
        self.schedule = schedule
        self.batch_size = batch_size
        self.initialization = initialization
        self.head_initialization = head_initialization
        self.parametrization = parametrization
        self.bias = bias
        self.bias_rate = bias_rate
        self.input_scale_rate = input_scale_rate
        self.residual = residual
        self.normalization = normalization
        self.clip_norm = clip_norm
        self.numeric_embedding = numeric_embedding
        self.numeric_scaling = numeric_scaling
        self.category_embedding = category_embedding
        self.frequency_scale = frequency_scale
        self.embedding_rate = embedding_rate
        self.submembers = submembers
        self.sharing = sharing
        self.seed = seed
        self.max_epochs = max_epochs
        self.loss = loss
        self.device = device
        self.random_state = random_state
