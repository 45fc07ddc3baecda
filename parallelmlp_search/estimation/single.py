"""One network as a scikit-learn estimator: what a search over single networks tries, and leaves behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import ClassifierMixin, RegressorMixin

from parallelmlp_search.distribute import MemberOutcome, ShardTask, run_shards
from parallelmlp_search.estimation.constant import ConstantModel, has_usable_column
from parallelmlp_search.estimation.table_estimator import (
    LabelTarget,
    NumericTarget,
    TableEstimator,
    constant_model,
    seed_from,
)
from parallelmlp_search.exceptions import InvalidParameterError, SearchFailedError
from parallelmlp_search.search import SearchSettings, TrainedModel
from parallelmlp_search.search.budget import default_epochs
from parallelmlp_search.search.devices import resolve_device
from parallelmlp_search.search.model import FoldModel
from parallelmlp_search.search.preparation import Part, Preparation
from parallelmlp_search.space import MLPConfig
from parallelmlp_search.space.config import FIELD_NAMES

__all__ = ["SingleMLP", "SingleMLPClassifier", "SingleMLPRegressor", "Training"]


@dataclass(frozen=True)
class Training:
    """All that is settled before a network is: rows, epochs, seed.

    Attributes
    ----------
    preparation
        Problem and its encoding.
    part
        Tensors of the rows, or None where no column tells rows apart.
    constant
        What predicts in that case.
    max_epochs
        Epochs of training.
    seed
        Seed of whatever has none of its own.
    """

    preparation: Preparation | None
    part: Part | None
    constant: ConstantModel | None
    max_epochs: int
    seed: int

    def model(self, config: MLPConfig, vector: torch.Tensor) -> TrainedModel:
        """Model of one trained network, given its canonical vector."""
        assert self.preparation is not None
        assert self.part is not None
        part, problem = self.part, self.preparation.problem
        classes = self.preparation.classes
        fold = FoldModel.pack(part.preprocessor, part.head, [part.data.architecture(config)], [vector])
        return TrainedModel(
            task=problem.task,
            classes=None if classes is None else classes.classes_,
            configs=(config,),
            trials=(0,),
            weights=torch.ones(1),
            folds=[fold],
            feature_names=[str(name) for name in problem.frame.columns],
            target_name=problem.target_name,
            flat_target=problem.target.ndim == 1,
        )


class SingleMLP(TableEstimator):
    """Base of the estimators that train one network of a given configuration.

    All rows train: none is held back, so nothing chooses an epoch, and the weights averaged over the last
    tenth of training predict.
    """

    seed: int | None
    max_epochs: int | None
    device: str
    random_state: int | np.random.RandomState | None

    config_: MLPConfig
    n_epochs_: int
    training_loss_: float

    # what a search that trains networks packed needs: `fit` that stops before training, and answers that
    # are there already for tables that are these very objects
    _only_prepares: bool = False
    _prepared: Training
    _known: tuple[tuple[Any, npt.NDArray[np.float64]], ...] = ()

    @classmethod
    def from_config(cls, config: MLPConfig, **parameters: Any) -> Self:
        """Estimator of a configuration, the ``best_config_`` of a search for example."""
        return cls(**{name: getattr(config, name) for name in FIELD_NAMES}, **parameters)

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train the network.

        Parameters
        ----------
        X
            Table of shape (n_samples, n_features), as of :class:`~parallelmlp_search.ParallelMLPClassifier`.
        y
            Target of shape (n_samples,); for the regressor also (n_samples, n_outputs).
        sample_weight
            Weight of each row, shape (n_samples,). A row of weight zero counts as absent.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a parameter or the data break a rule; the message names it.
        SearchFailedError
            If the loss stopped being finite.
        """
        training = self._training(X, y, sample_weight)
        if self._only_prepares:
            self._prepared = training
        else:
            self._keep(training, self._config(training.seed))
        return self

    def _keep(self, training: Training, config: MLPConfig) -> None:
        """Train, and keep what predicts."""
        self.config_ = config
        if training.part is None:
            assert training.constant is not None
            self.model_ = training.constant
            self.n_epochs_, self.training_loss_ = 0, float("nan")
            return
        task = ShardTask(
            key="single",
            trials=(0,),
            configs=(config,),
            states=(None,),
            data=training.part.data,
            until_epoch=training.max_epochs,
            total_epochs=training.max_epochs,
            keep=("average",),
        )
        ((outcome,),) = [shard.members for shard in run_shards([task], n_workers=1)]
        self._keep_network(training, config, outcome)

    def _keep_network(self, training: Training, config: MLPConfig, outcome: MemberOutcome) -> None:
        """Keep a network that has been trained, here or packed with others."""
        if outcome.failure is not None:
            raise SearchFailedError(
                f"the network could not be trained: {outcome.failure}; a smaller learning_rate may help"
            )
        assert outcome.state is not None
        self.config_ = config
        self.model_ = training.model(config, outcome.state.vectors["average"])
        self.n_epochs_ = training.max_epochs
        self.training_loss_ = outcome.train_loss

    def _config(self, seed: int) -> MLPConfig:
        """Configuration of the parameters; ``seed`` is used unless they name one."""
        values = {name: getattr(self, name) for name in FIELD_NAMES}
        return MLPConfig(**values | {"seed": seed if self.seed is None else self.seed})

    def _training(self, X: Any, y: Any, sample_weight: Any) -> Training:
        """Check and encode a table."""
        epochs = self.max_epochs
        whole = isinstance(epochs, Integral) and not isinstance(epochs, bool)
        if epochs is not None and not (whole and epochs >= 1):
            raise InvalidParameterError(f"max_epochs must be an integer >= 1, but got {epochs!r}")
        seed = seed_from(self.random_state)
        self._config(seed)
        loss = self._checked_loss()
        device = resolve_device(self.device)
        frame, target = self._table_and_target(X, y)
        problem = self._problem(frame, target, sample_weight)
        epochs = int(epochs or default_epochs(problem.n_rows / 128))
        if not has_usable_column(problem.frame):
            return Training(None, None, constant_model(problem, loss), epochs, seed)
        settings = SearchSettings(loss=loss, seed=seed, device=device)
        preparation = Preparation(problem, settings, device, hold_back=False)
        return Training(preparation, preparation.screening(), None, epochs, seed)

    def _checked_loss(self) -> str | None:
        """What training minimises, None for the default."""
        return None

    def _predictions(self, X: Any) -> npt.NDArray[np.float64]:
        for rows, values in self._known:
            if X is rows:
                return values
        return super()._predictions(X)


class SingleMLPClassifier(ClassifierMixin, LabelTarget, SingleMLP):  # type: ignore[misc]
    """Classifier of one multi-layer perceptron.

    It reads the same tables as :class:`~parallelmlp_search.ParallelMLPClassifier` and encodes them alike, but
    trains a single configuration, on all rows. Alone it is what :class:`~parallelmlp_search.PackedSearchCV`
    trains packed with others: the same network, to rounding.

    Parameters
    ----------
    widths, activation, learning_rate, weight_decay, dropout, label_smoothing, optimizer, beta1, beta2, \
    momentum, schedule, batch_size, initialization, bias, residual, normalization, clip_norm, \
    numeric_embedding
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
        dropout: float = 0.0,
        label_smoothing: float = 0.0,
        optimizer: str = "adamw",
        beta1: float = 0.9,
        beta2: float = 0.999,
        momentum: float = 0.9,
        schedule: str = "constant",
        batch_size: int = 128,
        initialization: str = "kaiming_uniform",
        bias: bool = True,
        residual: bool = False,
        normalization: str = "none",
        clip_norm: float | None = None,
        numeric_embedding: str = "piecewise",
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
        self.dropout = dropout
        self.label_smoothing = label_smoothing
        self.optimizer = optimizer
        self.beta1 = beta1
        self.beta2 = beta2
        self.momentum = momentum
        self.schedule = schedule
        self.batch_size = batch_size
        self.initialization = initialization
        self.bias = bias
        self.residual = residual
        self.normalization = normalization
        self.clip_norm = clip_norm
        self.numeric_embedding = numeric_embedding
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
    widths, activation, learning_rate, weight_decay, dropout, label_smoothing, optimizer, beta1, beta2, \
    momentum, schedule, batch_size, initialization, bias, residual, normalization, clip_norm, \
    numeric_embedding
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
        dropout: float = 0.0,
        label_smoothing: float = 0.0,
        optimizer: str = "adamw",
        beta1: float = 0.9,
        beta2: float = 0.999,
        momentum: float = 0.9,
        schedule: str = "constant",
        batch_size: int = 128,
        initialization: str = "kaiming_uniform",
        bias: bool = True,
        residual: bool = False,
        normalization: str = "none",
        clip_norm: float | None = None,
        numeric_embedding: str = "piecewise",
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
        self.dropout = dropout
        self.label_smoothing = label_smoothing
        self.optimizer = optimizer
        self.beta1 = beta1
        self.beta2 = beta2
        self.momentum = momentum
        self.schedule = schedule
        self.batch_size = batch_size
        self.initialization = initialization
        self.bias = bias
        self.residual = residual
        self.normalization = normalization
        self.clip_norm = clip_norm
        self.numeric_embedding = numeric_embedding
        self.seed = seed
        self.max_epochs = max_epochs
        self.loss = loss
        self.device = device
        self.random_state = random_state
