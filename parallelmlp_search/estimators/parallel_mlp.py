"""Estimators that search thousands of configurations and ensemble the best networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from parallelmlp_search.estimators.parameters import documented_by, stores_parameters
from parallelmlp_search.estimators.search_estimator import SearchEstimator
from parallelmlp_search.estimators.table_estimator import TableClassifier, TableRegressor
from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.space import MLPConfig, SearchSpace

if TYPE_CHECKING:
    from optuna import Study
    from optuna.samplers import BaseSampler

    from parallelmlp_search.search import Progress


@stores_parameters
class ParallelMLPClassifier(TableClassifier, SearchEstimator):
    """Classifier that trains thousands of MLP configurations at once and ensembles the best.

    The defaults suit most tables: without a budget, the training length follows from the size of the table.
    With an integer ``random_state`` and without a ``time_limit``, every fit gives the same result for any
    ``n_jobs``. With a time limit, the result depends on the speed of the machine. A target of shape
    (n_samples, n_labels) holds 0 and 1 of several labels.

    Parameters
    ----------
    search_space : SearchSpace, str or mapping, default="default"
        Search space: a preset (``"default"``, ``"small"``, ``"deep"``, ``"paper"``), a
        :class:`~parallelmlp_search.SearchSpace`, the path of a YAML, TOML or JSON file, or the content of
        such a file as a mapping.
    n_trials : int, default=None
        Number of configurations to train.
    time_limit : float or str, default=None
        Seconds for the whole of ``fit``, or a duration such as ``"10m"`` or ``"1h30m"``.
    max_epochs : int, default=None
        Epochs of full training.
    metric : str, scorer or callable, default=None
        Metric that ranks configurations: a name, also of scikit-learn's scorers; a scorer such as
        ``make_scorer(fbeta_score, beta=2)``; or a function of ``y_true`` and ``y_pred`` whose name ends in
        ``_score``, ``_error`` or ``_loss``, or of ``y_true`` and ``y_score`` for probabilities. None uses
        ROC-AUC for two classes, log-loss for more and for several labels, or the metric of `cost_matrix` or
        `ordinal`.
    n_folds : int, default=None
        Folds in the cross-fitting of the finalists.
    n_finalists : int, default=None
        Number of configurations that are cross-fitted.
    sampler : str or optuna.samplers.BaseSampler, default="random"
        Sampler of configurations. ``"random"`` and ``"qmc"`` are followed by samples near the elites.
        ``"grid"`` tries the points of the finest grid that ``n_trials`` allows. ``"tpe"``, ``"cmaes"`` and
        ``"gp"`` use Optuna's sampler of that name after random samples. A sampler of Optuna proposes all
        configurations.
    initial_configs : list of MLPConfig, path or optuna.Study, default=None
        Configurations to try first, or a finished run or a study, whose best are tried first.
    column_types : mapping, default=None
        Kind by column name, for columns whose kind is not to be recognised: ``"numeric"``, ``"currency"``,
        ``"percent"``, ``"quantity"``, ``"duration"``, ``"datetime"``, ``"boolean"``, ``"categorical"``,
        ``"ordinal"`` for ordered categories, ``"text"``, ``"list"``, ``"json"``, or ``"ignore"`` to leave a
        column out.
    monotonic : mapping or array-like of int, default=None
        Columns in which predictions are monotone, as ``monotonic_cst`` of scikit-learn: 1 where the
        prediction, or the probability of the second class, may only grow with the column, -1 where it may
        only fall, and 0 for no constraint, by name or one for each column. The columns must hold numbers.
        It is true of all rows by construction. More than two classes are an error.
    class_weight : "balanced" or mapping, default=None
        Weight of each class in training. ``"balanced"`` gives all classes the same total weight.
    tune_thresholds : bool, default=True
        Whether decision thresholds are tuned if the metric uses labels (``"accuracy"``,
        ``"balanced_accuracy"``, ``"f1"``, ``"f1_macro"``, ``"mcc"``). ``predict`` then returns the class
        whose probability times its decision weight is largest. Otherwise it returns the most probable class.
        ``predict_proba`` does not change.
    cost_matrix : array, DataFrame or mapping, default=None
        Costs of errors. ``predict`` then returns the class of least expected cost, no thresholds are tuned,
        and the default metric is ``"expected_cost"``. An array of shape (n_classes, n_classes) has a row per
        true class and a column per predicted class, in the order of ``classes_``; a mapping such as
        ``{("bad", "good"): 5}`` has costs of pairs (true, predicted), and other errors cost 1.
    ordinal : bool or list, default=False
        Whether the classes are ordered: numbers, words such as "low", "medium", "high", or a list of the
        classes in their order. An error costs the number of steps between both classes, and the default
        metric is ``"ordinal_mae"``; ``"quadratic_kappa"`` is another.
    calibration : str, default="auto"
        Calibration of probabilities: ``"temperature"`` (same as ``"auto"``) fits one temperature on the
        validation rows; ``"none"`` leaves probabilities unchanged.
    refit : bool, default=False
        Whether the networks of the ensemble are trained again on all rows and replace those of the folds.
        This takes about as long as one fold. ``honest_score_`` remains the score of the networks of the
        folds, which were trained on fewer rows.
    baselines : bool, default=True
        Whether the prior, a linear model and histogram gradient boosting are scored on the same folds, within
        5 % of a time limit. ``result_.baselines`` holds their scores.
    device : str, default="auto"
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    precision : str, default="ieee"
        Precision of products on a CUDA device: ``"ieee"`` (float32), or ``"tf32"``, which is faster and
        rounds factors to ten bits. It has no effect on a CPU.
    n_jobs : int, default=None
        Number of workers. None uses all cores.
    memory_limit : int, float or str, default=None
        Most memory of the process, with what it uses already: bytes, or a text such as ``"2GB"``. A limit
        below the minimum is an error that names the minimum.
    infer_limit : float or str, default=None
        Most seconds per row of predictions with one thread, or a text such as ``"20us"``. Slower networks are
        not tried, the ensemble keeps to the limit, and the leaderboard shows latencies.
    infer_batch_size : int, default=1000
        Rows that are predicted at once when latencies are measured.
    run_directory : path, default=None
        Folder of the run. Fitting again with the folder of an unfinished run continues it.
    callbacks : list of callables, default=None
        Functions that receive a :class:`~parallelmlp_search.search.Progress` at every report. A function that
        returns True ends the screening early.
    random_state : int, RandomState or None, default=None
        An integer makes fits repeatable.
    verbose : int, default=0
        0 prints nothing. 1 shows progress on standard error, or in the output of a notebook's cell. 2 also
        shows the messages of the logger ``parallelmlp_search``: data, plan, every rung, ensemble, scores.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,), or list of them
        Class labels, sorted; a list of 0 and 1 for each of several labels.
    n_features_in_ : int
        Number of columns seen in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns; defined only if all are strings.
    columns_ : pandas.DataFrame
        One row per column of the training table: kind, number of distinct and missing values, range or
        examples, treatment, and the reason for the kind.
    leaderboard_ : pandas.DataFrame
        One row per trial, best first, with ten columns; ``leaderboard(details=True)`` has all.
        ``standard_error`` is that of the score over the folds, for trials that were cross-fitted.
    best_config_ : MLPConfig or None
        Best single configuration. It prints the fields that differ from their defaults; ``to_dict()`` has
        all.
    honest_score_ : float or None
        Expected score on new rows, corrected for the selection of the best networks. ``result_.honest`` holds
        its interval. None if there were too few rows.
    n_trials_ : int
        Number of configurations that were trained.
    result_ : SearchResult or None
        Full result of the search.
    model_ : TrainedModel or ConstantModel
        The model that predicts. Without an informative column it predicts a constant, there is no result, and
        the leaderboard is empty.

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
        time_limit: float | str | None = None,
        max_epochs: int | None = None,
        metric: str | Callable[..., Any] | None = None,
        n_folds: int | None = None,
        n_finalists: int | None = None,
        sampler: str | BaseSampler = "random",
        initial_configs: Sequence[MLPConfig] | str | Path | Study | None = None,
        column_types: Mapping[str, str] | None = None,
        monotonic: Mapping[str, int] | Sequence[int] | None = None,
        class_weight: str | Mapping[Any, float] | None = None,
        tune_thresholds: bool = True,
        cost_matrix: Any = None,
        ordinal: bool | Sequence[Any] = False,
        calibration: str = "auto",
        refit: bool = False,
        baselines: bool = True,
        device: str = "auto",
        precision: str = "ieee",
        n_jobs: int | None = None,
        memory_limit: float | str | None = None,
        infer_limit: float | str | None = None,
        infer_batch_size: int = 1000,
        run_directory: str | Path | None = None,
        callbacks: Sequence[Callable[[Progress], object]] | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None: ...

    def predict_set(self, X: Any, coverage: float | Sequence[float] = 0.9) -> npt.NDArray[np.bool_]:
        """Return a set of classes for each row that contains the true class of this share of new rows.

        A conformal set from the out-of-fold probabilities: all classes whose probability is large enough, and
        the class that ``predict`` returns. ``result_.uncertainty`` holds the measured coverage.

        Parameters
        ----------
        X
            Table with the columns of ``fit``.
        coverage
            Share of new rows, in (0, 1), or several.

        Returns
        -------
        bool array of shape (n_samples, n_classes)
            True for the classes of ``classes_`` in the set; of shape (n_samples, n_classes, n_coverages) for
            several coverages.

        Raises
        ------
        ValueError
            If a coverage or the table is not valid, or the model has no out-of-fold rows.
        """
        from parallelmlp_search.inference.intervals import predicted_sets

        sets: npt.NDArray[np.bool_] = self._with_coverages(predicted_sets, X, coverage)
        return sets

    def _task_settings(self) -> dict[str, Any]:
        if not isinstance(self.tune_thresholds, bool):
            raise InvalidParameterError(
                f"tune_thresholds must be True or False, but got {self.tune_thresholds!r}"
            )
        from parallelmlp_search.selection import Costs

        costs = Costs.of(self.cost_matrix, self.ordinal)
        return {
            "tune_thresholds": self.tune_thresholds,
            "costs": costs,
            "calibration": self.calibration,
        }


@documented_by(ParallelMLPClassifier)
@stores_parameters
class ParallelMLPRegressor(TableRegressor, SearchEstimator):
    """Regressor that trains thousands of MLP configurations at once and ensembles the best.

    Several outputs are predicted by the same networks. Predictions stay in the range of the training target.
    The other parameters are those of :class:`ParallelMLPClassifier`.

    Parameters
    ----------
    metric : str, scorer or callable, default=None
        Metric that ranks configurations: a name, also of scikit-learn's scorers, a scorer, or a function of
        ``y_true`` and ``y_pred`` whose name ends in ``_score``, ``_error`` or ``_loss``. None uses RMSE, or
        the metric of the ``loss``: the pinball loss of a quantile, or a deviance.
    loss : str, default=None
        Training loss: ``"squared_error"`` (the default), ``"huber"``, ``"huber:0.5"``, ``"quantile"`` or
        ``"quantile:0.9"``; with a log link ``"poisson"`` for counts, ``"gamma"`` for positive amounts, and
        ``"tweedie"`` or ``"tweedie:1.7"`` for amounts that can be zero. The delta of the Huber loss is in
        standard deviations of the target. None with a deviance as `metric` uses its loss.

    Attributes
    ----------
    n_features_in_, feature_names_in_, columns_, leaderboard_, best_config_
        See :class:`ParallelMLPClassifier`.
    honest_score_, n_trials_, result_, model_
        See :class:`ParallelMLPClassifier`.

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
        time_limit: float | str | None = None,
        max_epochs: int | None = None,
        metric: str | Callable[..., Any] | None = None,
        n_folds: int | None = None,
        n_finalists: int | None = None,
        sampler: str | BaseSampler = "random",
        initial_configs: Sequence[MLPConfig] | str | Path | Study | None = None,
        column_types: Mapping[str, str] | None = None,
        monotonic: Mapping[str, int] | Sequence[int] | None = None,
        loss: str | None = None,
        refit: bool = False,
        baselines: bool = True,
        device: str = "auto",
        precision: str = "ieee",
        n_jobs: int | None = None,
        memory_limit: float | str | None = None,
        infer_limit: float | str | None = None,
        infer_batch_size: int = 1000,
        run_directory: str | Path | None = None,
        callbacks: Sequence[Callable[[Progress], object]] | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None: ...

    def predict_interval(self, X: Any, coverage: float | Sequence[float] = 0.9) -> npt.NDArray[np.float64]:
        """Return the lower and upper end of an interval that contains the target of this share of new rows.

        Conformal intervals (CV+) from the errors on out-of-fold rows, wider where errors are predicted to be
        larger. They contain the prediction, stay in the range of the training target, and grow with the
        coverage. ``result_.uncertainty`` holds the measured coverage.

        Parameters
        ----------
        X
            Table with the columns of ``fit``.
        coverage
            Share of new rows, in (0, 1), or several.

        Returns
        -------
        array of shape (n_samples, 2)
            Lower and upper ends. Several coverages add a last axis, as in (n_samples, 2, n_coverages); a
            2-d target adds its outputs after the rows, as in (n_samples, n_outputs, 2).

        Raises
        ------
        ValueError
            If a coverage or the table is not valid, or the model has no out-of-fold rows.
        """
        from parallelmlp_search.inference.intervals import predicted_intervals

        ends: npt.NDArray[np.float64] = self._with_coverages(predicted_intervals, X, coverage)
        return ends if self._has_columns else ends[:, 0]

    def _task_settings(self) -> dict[str, Any]:
        return {"loss": self.loss}
