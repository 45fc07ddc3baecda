"""Base class of the estimators of one network: preparation, training and prediction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from parallelmlp_search.estimators.table_estimator import TableEstimator, seed_from
from parallelmlp_search.exceptions import InvalidParameterError, SearchFailedError
from parallelmlp_search.space import MLPConfig
from parallelmlp_search.space.config import FIELD_NAMES, TARGET_TRANSFORMS

if TYPE_CHECKING:
    from torch import Tensor

    from parallelmlp_search.distribute import MemberOutcome
    from parallelmlp_search.estimators.constant_model import ConstantModel
    from parallelmlp_search.inference import TrainedModel
    from parallelmlp_search.search.problem.preparation import Part, Preparation


@dataclass(frozen=True)
class PreparedTraining:
    """Encoded rows, epochs and seed, ready for the training of any configuration.

    Attributes
    ----------
    preparation
        The problem and its encoding, or None without an informative column.
    part
        Tensors of the rows, or None without an informative column.
    constant
        The model that predicts in that case.
    max_epochs
        Epochs of training.
    seed
        Seed of configurations that have none.
    """

    preparation: Preparation | None
    part: Part | None
    constant: ConstantModel | None
    max_epochs: int
    seed: int

    def model(self, config: MLPConfig, vector: Tensor) -> TrainedModel:
        """Return the model of a trained network, given its canonical parameter vector."""
        from parallelmlp_search.distribute import network_residuals
        from parallelmlp_search.search.finalists.model import trained_model

        assert self.preparation is not None
        assert self.part is not None
        weights, residuals = np.ones(1), network_residuals(self.part.data, config, vector)
        return trained_model(self.preparation, [self.part], {0: config}, [[vector]], weights, [[residuals]])


class SingleMLP(TableEstimator):
    """Base of the estimators that train one network of a given configuration.

    The network is trained on all rows for a fixed number of epochs, without validation rows. The weights
    averaged over the last tenth of training predict.
    """

    config_: MLPConfig
    n_epochs_: int
    training_loss_: float
    target_transform: str

    # PackedSearchCV fits pipelines up to the training of the network, and afterwards hands out estimators
    # that know their predictions for the tables that will be scored.
    _only_prepare: bool = False
    _prepared: PreparedTraining
    _cached_predictions: tuple[tuple[Any, npt.NDArray[np.float64]], ...] = ()

    @classmethod
    def from_config(cls, config: MLPConfig, **parameters: Any) -> Self:
        """Return the estimator of a configuration, for example of the ``best_config_`` of a search."""
        return cls(**{name: getattr(config, name) for name in FIELD_NAMES}, **parameters)

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train the network.

        Parameters
        ----------
        X
            Table of shape (n_samples, n_features), see :class:`~parallelmlp_search.ParallelMLPClassifier`.
        y
            Target of shape (n_samples,), or (n_samples, n_outputs) for the regressor.
        sample_weight
            Weight of each row, shape (n_samples,). Rows of weight zero are ignored.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a parameter or the data are not valid.
        SearchFailedError
            If the loss became infinite or NaN.
        """
        training = self._prepare(X, y, sample_weight)
        if self._only_prepare:
            self._prepared = training
        else:
            self._train(training, self._config(training.seed))
        return self

    def _train(self, training: PreparedTraining, config: MLPConfig) -> None:
        """Train the network and store the model."""
        if training.part is None:
            assert training.constant is not None
            self.config_, self.model_ = config, training.constant
            self.n_epochs_, self.training_loss_ = 0, float("nan")
            return
        from parallelmlp_search.distribute import run_shards, shard_tasks

        epochs = training.max_epochs
        tasks = shard_tasks(
            "single",
            {0: config},
            training.part.data,
            until_epoch=epochs,
            total_epochs=epochs,
            keep=("average",),
        )
        ((outcome,),) = [shard.members for shard in run_shards(tasks, n_workers=1)]
        self._store_network(training, config, outcome)

    def _store_network(self, training: PreparedTraining, config: MLPConfig, outcome: MemberOutcome) -> None:
        """Store a trained network, which may have been trained together with others."""
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
        """Return the configuration of the parameters; ``seed`` is used if the parameter ``seed`` is None."""
        values = {name: getattr(self, name) for name in FIELD_NAMES}
        return MLPConfig(**values | {"seed": seed if self.seed is None else self.seed})

    def _prepare(self, X: Any, y: Any, sample_weight: Any) -> PreparedTraining:
        """Check all parameters and the data, and encode the table."""
        from parallelmlp_search.estimators.constant_model import ConstantModel
        from parallelmlp_search.search import SearchSettings
        from parallelmlp_search.search.problem.devices import resolve_device
        from parallelmlp_search.search.problem.preparation import Preparation
        from parallelmlp_search.search.run.budget import default_epochs

        seed = seed_from(self.random_state)
        self._config(seed)
        device = resolve_device(self.device)
        settings = SearchSettings(
            max_epochs=self.max_epochs, loss=getattr(self, "loss", None), seed=seed, device=device
        )
        problem = self._problem(X, y, sample_weight)
        epochs = settings.max_epochs or default_epochs(problem.n_rows / 128)
        settings.check_task(problem.task, problem.target)
        if settings.has_log_link and self.target_transform != "none":
            raise InvalidParameterError(
                f"loss {settings.loss!r} has a log link, which takes no target_transform, "
                f"but got {self.target_transform!r}"
            )
        if not problem.has_usable_column:
            return PreparedTraining(None, None, ConstantModel.fit(problem, settings.loss), epochs, seed)
        # candidates of PackedSearchCV can have other transformations than the estimator
        transforms = TARGET_TRANSFORMS if self._only_prepare else (self.target_transform,)
        preparation = Preparation(problem, settings, device, hold_back=False, transforms=transforms)
        return PreparedTraining(preparation, preparation.screening(), None, epochs, seed)

    def _predictions(self, X: Any) -> npt.NDArray[np.float64]:
        for rows, values in self._cached_predictions:
            if X is rows:
                return values
        return super()._predictions(X)
