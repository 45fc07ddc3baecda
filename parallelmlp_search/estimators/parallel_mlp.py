"""The search as scikit-learn estimators."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin

from parallelmlp_search.estimators.search_estimator import SearchEstimator
from parallelmlp_search.estimators.table_estimator import LabelTarget, NumericTarget
from parallelmlp_search.search import Progress
from parallelmlp_search.space import MLPConfig, SearchSpace

if TYPE_CHECKING:
    from optuna import Study
    from optuna.samplers import BaseSampler

__all__ = ["ParallelMLPClassifier", "ParallelMLPRegressor"]


class ParallelMLPClassifier(ClassifierMixin, LabelTarget, SearchEstimator):  # type: ignore[misc]
    """Classifier that trains thousands of MLP configurations at once and ensembles the best.

    Every default just works: without budgets the size of the table decides how long networks are trained.
    Without a ``time_limit`` and with an integer ``random_state`` the result is the same on every run,
    whatever ``n_jobs``; with a time limit it depends on the speed of the machine.

    Parameters
    ----------
    search_space : SearchSpace, str or mapping, default="default"
        What may be tried: a preset (``"default"``, ``"small"``, ``"deep"``, ``"paper"``), a space of one's
        own, a YAML, TOML or JSON file, or the mapping that such a file holds.
    n_trials : int, default=None
        Configurations to train.
    time_limit : float, default=None
        Seconds for all of ``fit``.
    max_epochs : int, default=None
        Epochs of full training.
    metric : str, default=None
        What counts; None for ROC-AUC with two classes and log-loss with more.
    n_folds : int, default=None
        Folds of the finalists' cross-fitting.
    n_finalists : int, default=None
        Configurations that are cross-fitted.
    sampler : str or optuna.samplers.BaseSampler, default="random"
        Where configurations come from: ``"random"`` or ``"qmc"``, followed by draws near the leaders;
        ``"grid"``, points of a grid as coarse as the number of trials allows, and no others; ``"tpe"``,
        ``"cmaes"`` or ``"gp"``, Optuna's sampler of that name after random draws; or a sampler of Optuna,
        which then draws everything.
    initial_configs : list of MLPConfig, path or optuna.Study, default=None
        Configurations to try first; or a finished run or a study, whose best are tried first.
    class_weight : "balanced" or mapping, default=None
        Weight of each class in training; ``"balanced"`` makes all classes weigh the same.
    tune_decision : bool, default=True
        With a metric that looks at labels (``"accuracy"``, ``"balanced_accuracy"``, ``"f1"``, ``"f1_macro"``,
        ``"mcc"``), whether ``predict`` names the class whose probability times a weight is largest, with
        weights that raise that metric; otherwise the most probable class. ``predict_proba`` stays as it is.
    calibration : str, default="auto"
        ``"temperature"`` (as ``"auto"``) fits one temperature to all probabilities, as far as the rows that
        chose networks and epochs give evidence for it; ``"none"`` leaves them as they are.
    refit : bool, default=False
        Whether the ensemble's networks are trained anew on all rows, to predict instead of those of the
        folds; takes about as long as one fold. ``honest_score_`` remains that of the folds' networks, which
        saw fewer rows.
    device : str, default="auto"
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    n_jobs : int, default=None
        Workers; None for all cores.
    memory_limit : int or str, default=None
        Bytes, or a text such as ``"2GB"``, that the search may add to the memory of its process.
    run_directory : path, default=None
        Folder to write the run to. Fitting again with the folder of an unfinished run goes on with it.
    callbacks : list of callables, default=None
        Each gets a :class:`~parallelmlp_search.search.Progress` at every report; one that returns True ends
        the screening early.
    random_state : int, RandomState or None, default=None
        An integer makes fits repeatable.
    verbose : int, default=0
        Above 0, progress is shown on standard error.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels, sorted.
    n_features_in_ : int
        Columns seen in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names; only where all are texts.
    leaderboard_ : pandas.DataFrame
        One row a trial, best first.
    best_config_ : MLPConfig or None
        Best single configuration.
    honest_score_ : float or None
        Score to expect on new rows in the metric's own orientation, corrected for having chosen the best;
        ``result_.honest`` has its interval. None where there were too few rows to tell.
    n_trials_ : int
        Configurations that were trained.
    result_ : SearchResult or None
        Everything the search found.
    model_ : TrainedModel or ConstantModel
        What predicts. A table whose columns tell nothing leaves a constant, no result and an empty
        leaderboard.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> model = ParallelMLPClassifier("small", n_trials=8, max_epochs=9, random_state=0).fit(X, y)
    >>> model.predict_proba(X).shape
    (150, 3)
    """

    def __init__(
        self,
        search_space: SearchSpace | str | Mapping[str, Any] = "default",
        *,
        n_trials: int | None = None,
        time_limit: float | None = None,
        max_epochs: int | None = None,
        metric: str | None = None,
        n_folds: int | None = None,
        n_finalists: int | None = None,
        sampler: str | BaseSampler = "random",
        initial_configs: Sequence[MLPConfig] | str | Path | Study | None = None,
        class_weight: str | Mapping[Any, float] | None = None,
        tune_decision: bool = True,
        calibration: str = "auto",
        refit: bool = False,
        device: str = "auto",
        n_jobs: int | None = None,
        memory_limit: int | str | None = None,
        run_directory: str | Path | None = None,
        callbacks: Sequence[Callable[[Progress], object]] | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.search_space = search_space
        self.n_trials = n_trials
        self.time_limit = time_limit
        self.max_epochs = max_epochs
        self.metric = metric
        self.n_folds = n_folds
        self.n_finalists = n_finalists
        self.sampler = sampler
        self.initial_configs = initial_configs
        self.class_weight = class_weight
        self.tune_decision = tune_decision
        self.calibration = calibration
        self.refit = refit
        self.device = device
        self.n_jobs = n_jobs
        self.memory_limit = memory_limit
        self.run_directory = run_directory
        self.callbacks = callbacks
        self.random_state = random_state
        self.verbose = verbose

    def _treatment(self) -> dict[str, Any]:
        return {"tune_thresholds": self.tune_decision, "calibration": self.calibration}


class ParallelMLPRegressor(RegressorMixin, NumericTarget, SearchEstimator):  # type: ignore[misc]
    """Regressor that trains thousands of MLP configurations at once and ensembles the best.

    Several outputs are learned by the same networks. Predictions keep to the range of the training target.

    Parameters
    ----------
    search_space : SearchSpace, str or mapping, default="default"
        What may be tried: a preset (``"default"``, ``"small"``, ``"deep"``, ``"paper"``), a space of one's
        own, a YAML, TOML or JSON file, or the mapping that such a file holds.
    n_trials : int, default=None
        Configurations to train.
    time_limit : float, default=None
        Seconds for all of ``fit``.
    max_epochs : int, default=None
        Epochs of full training.
    metric : str, default=None
        What counts; None for RMSE, or for the pinball loss of the same quantile where ``loss`` is a quantile.
    n_folds : int, default=None
        Folds of the finalists' cross-fitting.
    n_finalists : int, default=None
        Configurations that are cross-fitted.
    sampler : str or optuna.samplers.BaseSampler, default="random"
        Where configurations come from: ``"random"`` or ``"qmc"``, followed by draws near the leaders;
        ``"grid"``, points of a grid as coarse as the number of trials allows, and no others; ``"tpe"``,
        ``"cmaes"`` or ``"gp"``, Optuna's sampler of that name after random draws; or a sampler of Optuna,
        which then draws everything.
    initial_configs : list of MLPConfig, path or optuna.Study, default=None
        Configurations to try first; or a finished run or a study, whose best are tried first.
    loss : str, default=None
        What training minimises: ``"squared_error"`` (the default), ``"huber"``, ``"huber:0.5"``,
        ``"quantile"`` or ``"quantile:0.9"``; deltas count in standard deviations of the target.
    refit : bool, default=False
        Whether the ensemble's networks are trained anew on all rows, to predict instead of those of the
        folds; takes about as long as one fold. ``honest_score_`` remains that of the folds' networks, which
        saw fewer rows.
    device : str, default="auto"
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    n_jobs : int, default=None
        Workers; None for all cores.
    memory_limit : int or str, default=None
        Bytes, or a text such as ``"2GB"``, that the search may add to the memory of its process.
    run_directory : path, default=None
        Folder to write the run to. Fitting again with the folder of an unfinished run goes on with it.
    callbacks : list of callables, default=None
        Each gets a :class:`~parallelmlp_search.search.Progress` at every report; one that returns True ends
        the screening early.
    random_state : int, RandomState or None, default=None
        An integer makes fits repeatable.
    verbose : int, default=0
        Above 0, progress is shown on standard error.

    Attributes
    ----------
    n_features_in_, feature_names_in_, leaderboard_, best_config_, honest_score_, n_trials_, result_, model_
        As of :class:`ParallelMLPClassifier`.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = ParallelMLPRegressor("small", n_trials=8, max_epochs=9, random_state=0).fit(X, y)
    >>> model.predict(X).shape
    (442,)
    """

    def __init__(
        self,
        search_space: SearchSpace | str | Mapping[str, Any] = "default",
        *,
        n_trials: int | None = None,
        time_limit: float | None = None,
        max_epochs: int | None = None,
        metric: str | None = None,
        n_folds: int | None = None,
        n_finalists: int | None = None,
        sampler: str | BaseSampler = "random",
        initial_configs: Sequence[MLPConfig] | str | Path | Study | None = None,
        loss: str | None = None,
        refit: bool = False,
        device: str = "auto",
        n_jobs: int | None = None,
        memory_limit: int | str | None = None,
        run_directory: str | Path | None = None,
        callbacks: Sequence[Callable[[Progress], object]] | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.search_space = search_space
        self.n_trials = n_trials
        self.time_limit = time_limit
        self.max_epochs = max_epochs
        self.metric = metric
        self.n_folds = n_folds
        self.n_finalists = n_finalists
        self.sampler = sampler
        self.initial_configs = initial_configs
        self.loss = loss
        self.refit = refit
        self.device = device
        self.n_jobs = n_jobs
        self.memory_limit = memory_limit
        self.run_directory = run_directory
        self.callbacks = callbacks
        self.random_state = random_state
        self.verbose = verbose

    def _loss_and_metric(self) -> tuple[str | None, str | None]:
        loss = self._checked_loss()
        kind, _, level = (loss or "").partition(":")
        if kind == "quantile" and self.metric is None:
            # ranking a quantile by its squared error would prefer the networks that miss it
            return loss, f"pinball:{level or '0.5'}"
        return loss, self.metric
