"""What the classifier and the regressor share: from ``fit`` to a search, from its model to predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.utils import check_consistent_length
from sklearn.utils.validation import check_is_fitted

from parallelmlp_search.estimators.constant_model import ConstantModel, has_usable_column
from parallelmlp_search.estimators.initial_configs import initial_configs
from parallelmlp_search.estimators.inputs import memory_bytes, table
from parallelmlp_search.estimators.table_estimator import TableEstimator, constant_model, seed_from
from parallelmlp_search.exceptions import DataError, InvalidParameterError, RunDirectoryError
from parallelmlp_search.parareal import PromotionResult, promote
from parallelmlp_search.search import (
    Problem,
    Progress,
    RunDirectory,
    SearchResult,
    SearchSettings,
    TrainedModel,
    run,
)
from parallelmlp_search.selection import Leaderboard
from parallelmlp_search.space import MLPConfig, SearchSpace

if TYPE_CHECKING:
    from optuna import Study
    from optuna.samplers import BaseSampler

__all__ = ["SearchEstimator"]


class SearchEstimator(TableEstimator):
    """Base of the estimators: validates, searches, keeps what was found."""

    search_space: SearchSpace | str | Mapping[str, Any]
    n_trials: int | None
    time_limit: float | None
    max_epochs: int | None
    metric: str | None
    n_folds: int | None
    n_finalists: int | None
    sampler: str | BaseSampler
    initial_configs: Sequence[MLPConfig] | str | Path | Study | None
    refit: bool
    device: str
    n_jobs: int | None
    memory_limit: int | str | None
    run_directory: str | Path | None
    callbacks: Sequence[Callable[[Progress], object]] | None
    random_state: int | np.random.RandomState | None
    verbose: int

    n_features_in_: int
    feature_names_in_: npt.NDArray[np.object_]
    leaderboard_: pd.DataFrame
    best_config_: MLPConfig | None
    honest_score_: float | None
    n_trials_: int
    result_: SearchResult | None
    model_: TrainedModel | ConstantModel
    promotion_: PromotionResult

    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        groups: Any = None,
        time: Any = None,
    ) -> Self:
        """Search, cross-fit the finalists, and keep the ensemble of the best.

        Parameters
        ----------
        X
            Table of shape (n_samples, n_features): pandas, polars or Arrow frame with numbers, categories,
            booleans, dates and gaps as they are; array, list of rows, or scipy sparse matrix.
        y
            Target of shape (n_samples,); for the regressor also (n_samples, n_outputs).
        sample_weight
            Weight of each row, shape (n_samples,). A row of weight zero counts as absent.
        groups
            Group of each row, shape (n_samples,). No split tears a group apart.
        time
            Time of each row, shape (n_samples,): numbers or dates. Later rows are judged by networks that
            were trained on earlier ones.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a parameter or the data break a rule; the message names it.
        RunDirectoryError
            If ``run_directory`` holds a finished run, or an unfinished one of other data or settings.
        """
        started = monotonic()
        settings, directory = self._settings()
        callbacks = self._checked_callbacks()
        frame, target = self._table_and_target(X, y)
        problem = self._problem(frame, target, sample_weight, groups, time)
        if not has_usable_column(problem.frame):
            return self._fit_constant(problem, settings)
        if self.run_directory is not None and directory is None:
            directory = RunDirectory.create(self.run_directory)
        with ExitStack() as stack:
            if self.verbose:
                callbacks = (*callbacks, stack.enter_context(_console(type(self).__name__)))
            result = run(
                problem,
                settings,
                directory=directory,
                callbacks=callbacks,
                n_jobs=self.n_jobs,
                started=started,
            )
        return self._keep(result)

    def promote(
        self,
        X: Any,
        y: Any,
        *,
        sample_weight: Any = None,
        groups: Any = None,
        time: Any = None,
        **options: Any,
    ) -> Self:
        """Deepen the best finalists, train them in slices of depth, and take them in if they help.

        Needs ``run_directory``, where the out-of-fold predictions of the finalists lie. What came of it is
        ``promotion_``; ``model_`` and ``honest_score_`` change if the ensemble takes the networks in.

        Parameters
        ----------
        X, y, sample_weight, groups, time
            What the estimator was fitted on.
        **options
            Attributes of :class:`~parallelmlp_search.parareal.PromotionSettings`: ``top``, ``slices``,
            ``depth_factor``, ``epochs``, ``launch``, ``replicas``, ``restarts``, ``device``, ``timeout``.

        Returns
        -------
        self

        Raises
        ------
        RunDirectoryError
            If there is no run directory, or it was searched on other data.
        ValueError
            If a parameter breaks its rule; the message names it.
        """
        check_is_fitted(self, "model_")
        if self.run_directory is None:
            raise RunDirectoryError(
                "promote needs what a run keeps on disk, but run_directory is None: fit with a run_directory"
            )
        frame = table(self, X, names=self._columns)
        target = self._target(y)
        check_consistent_length(frame, target)
        problem = self._problem(frame, target, sample_weight, groups, time)
        self.promotion_, self.model_ = promote(
            RunDirectory.open(self.run_directory),
            problem,
            **options,
        )
        if self.promotion_.honest_after is not None:
            self.honest_score_ = float(self.promotion_.honest_after)
        return self

    def _loss_and_metric(self) -> tuple[str | None, str | None]:
        return None, self.metric

    def _treatment(self) -> dict[str, Any]:
        """Settings of what predictions go through, which only classes have."""
        return {}

    def _settings(self) -> tuple[SearchSettings, RunDirectory | None]:
        """Settings of the search and, if there is one to go on with, the unfinished run."""
        directory = None
        if self.run_directory is not None and (Path(self.run_directory) / "run.json").is_file():
            directory = RunDirectory.open(self.run_directory)
            if directory.info().get("status") == "finished":
                raise RunDirectoryError(
                    f"run_directory must be a new folder or an unfinished run, "
                    f"but {str(self.run_directory)!r} holds a finished one"
                )
        loss, metric = self._loss_and_metric()
        space = SearchSpace.resolve(self.search_space)
        settings = SearchSettings(
            search_space=space,
            n_trials=self.n_trials,
            time_limit=self.time_limit,
            max_epochs=self.max_epochs,
            metric=metric,
            loss=loss,
            n_folds=self.n_folds,
            n_finalists=self.n_finalists,
            sampler=self.sampler,
            initial=initial_configs(self.initial_configs, space),
            refit=self.refit,
            seed=self._seed(directory),
            device=self.device,
            memory_limit=memory_bytes(self.memory_limit),
            **self._treatment(),
        )
        return settings, directory

    def _seed(self, directory: RunDirectory | None) -> int:
        if self.random_state is None and directory is not None and "settings" in directory.info():
            return directory.settings().seed  # what was left to chance stays as it fell
        return seed_from(self.random_state)

    def _checked_callbacks(self) -> tuple[Callable[[Progress], object], ...]:
        callbacks = () if self.callbacks is None else self.callbacks
        if not isinstance(callbacks, Sequence) or not all(callable(callback) for callback in callbacks):
            raise InvalidParameterError(f"callbacks must be a list of callables, but got {self.callbacks!r}")
        return tuple(callbacks)

    def _keep(self, result: SearchResult) -> Self:
        self.result_ = result
        self.model_ = result.model
        self.leaderboard_ = result.leaderboard.to_frame()
        self.best_config_ = result.best_config
        self.honest_score_ = None if result.honest is None else float(result.honest.score)
        self.n_trials_ = result.n_trials
        return self

    def _fit_constant(self, problem: Problem, settings: SearchSettings) -> Self:
        if self.run_directory is not None:
            raise DataError(
                "X must have a column that differs between rows for a run directory to be written"
            )
        self.result_ = None
        self.model_ = constant_model(problem, settings.loss)
        self.leaderboard_ = Leaderboard([]).to_frame()
        self.best_config_ = None
        self.honest_score_ = None
        self.n_trials_ = 0
        return self

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn may rely on."""
        tags = super().__sklearn_tags__()
        # how far a search gets within a time limit depends on the machine
        tags.non_deterministic = self.time_limit is not None
        return tags


def _console(title: str) -> Any:
    """Live progress on standard error; rich is imported only where it is asked for."""
    from rich.console import Console

    from parallelmlp_search.report import ConsoleReport

    return ConsoleReport(Console(stderr=True), title=title)
