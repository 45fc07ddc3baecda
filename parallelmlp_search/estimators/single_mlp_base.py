"""What the estimators of one network share: preparing, training, predicting."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from parallelmlp_search.distribute import MemberOutcome, ShardTask, run_shards
from parallelmlp_search.estimators.constant_model import ConstantModel, has_usable_column
from parallelmlp_search.estimators.table_estimator import TableEstimator, constant_model, seed_from
from parallelmlp_search.exceptions import InvalidParameterError, SearchFailedError
from parallelmlp_search.search import SearchSettings, TrainedModel
from parallelmlp_search.search.finalists.model import FoldModel
from parallelmlp_search.search.problem.devices import resolve_device
from parallelmlp_search.search.problem.preparation import Part, Preparation
from parallelmlp_search.search.run.budget import default_epochs
from parallelmlp_search.space import MLPConfig
from parallelmlp_search.space.config import FIELD_NAMES

__all__ = ["SingleMLP", "Training"]


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
