"""Base class of the estimators that search: settings, ``fit``, ``promote`` and the fitted attributes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Self

from sklearn.utils.validation import check_is_fitted

from parallelmlp_search.estimators.constant_model import ConstantModel, NoFiguresError
from parallelmlp_search.estimators.initial_configs import initial_configs
from parallelmlp_search.estimators.monotonic import has_signs, named_signs
from parallelmlp_search.estimators.notebooks import fitted_html
from parallelmlp_search.estimators.table_estimator import seed_from
from parallelmlp_search.estimators.updating import UpdatedEstimator
from parallelmlp_search.estimators.verbosity import checked_verbose, shown_progress
from parallelmlp_search.exceptions import DataError, InvalidParameterError, RunDirectoryError
from parallelmlp_search.search import RunDirectory
from parallelmlp_search.search.run.leaderboard_view import main_columns
from parallelmlp_search.space import MLPConfig, SearchSpace, monotone_space

if TYPE_CHECKING:
    import pandas as pd

    from parallelmlp_search.estimators.plotting import EstimatorPlots
    from parallelmlp_search.explain import Explanation
    from parallelmlp_search.parareal import PromotionResult
    from parallelmlp_search.search import Problem, Progress, SearchResult, SearchSettings


class SearchEstimator(UpdatedEstimator):
    """Base of the estimators that search: checks parameters and data, runs the search, stores its result."""

    leaderboard_: pd.DataFrame
    best_config_: MLPConfig | None
    honest_score_: float | None
    n_trials_: int
    promotion_: PromotionResult
    _result: SearchResult | Path | None

    @property
    def result_(self) -> SearchResult | None:
        """Full result of the search; None if the model predicts a constant or was loaded without its run.

        The result of a loaded run is read when it is first asked for.

        Raises
        ------
        AttributeError
            Before ``fit``.
        RunDirectoryError
            If the files of a loaded run are missing or damaged.
        """
        if "_result" not in vars(self):
            raise AttributeError(f"{type(self).__name__} has no attribute 'result_' before fit")
        if isinstance(self._result, Path):
            from parallelmlp_search.estimators.stored_result import read_result

            assert not isinstance(self.model_, ConstantModel)
            self._result = read_result(RunDirectory.open(self._result), self.model_)
        return self._result

    def __dir__(self) -> list[str]:
        """Names of attributes; reading all of them, as scikit-learn's diagrams do, reads no run."""
        if not isinstance(vars(self).get("_result"), Path):
            return list(super().__dir__())
        # scikit-learn's own method asks for every attribute
        return [name for name in object.__dir__(self) if name != "result_" and hasattr(self, name)]

    @property
    def _repr_html_(self) -> Callable[[], str]:
        diagram: Callable[[], str] = super()._repr_html_  # there is none if scikit-learn displays texts
        return (lambda: fitted_html(self)) if "model_" in vars(self) else diagram

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, str]:
        bundle: dict[str, str] = super()._repr_mimebundle_(**kwargs)
        if "text/html" in bundle and "model_" in vars(self):
            bundle["text/html"] = fitted_html(self)
        return bundle

    def leaderboard(self, *, details: bool = False) -> pd.DataFrame:
        """Return the leaderboard, one row per trial, best first.

        Parameters
        ----------
        details
            False for the ten columns of ``leaderboard_``; True for all, with each field of the configuration
            as ``config_FIELD``, the state of the trial and the reason of a failure.

        Returns
        -------
        pandas.DataFrame
        """
        check_is_fitted(self, "model_")
        if not details:
            return self.leaderboard_
        if isinstance(self._result, Path):
            return RunDirectory.open(self._result).leaderboard()
        if self._result is None:
            return self.leaderboard_
        return self._result.leaderboard.to_frame()

    def _store_result(self, result: SearchResult | RunDirectory | None, board: pd.DataFrame) -> None:
        """Store the result of a search, or the run that holds it, and its leaderboard with all columns."""
        self._result = result.path if isinstance(result, RunDirectory) else result
        self.leaderboard_ = main_columns(board)
        self.best_config_ = None
        self.honest_score_ = None
        self.n_trials_ = 0

    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        groups: Any = None,
        time: Any = None,
    ) -> Self:
        """Search, cross-fit the finalists, and ensemble the best of them.

        Parameters
        ----------
        X
            Table of shape (n_samples, n_features): pandas, polars or Arrow frame with numbers, categories,
            booleans, dates and missing values; array, list of rows, or scipy sparse matrix.
        y
            Target of shape (n_samples,), or (n_samples, n_outputs): numbers for the regressor, 0 and 1 of
            several labels for the classifier.
        sample_weight
            Weight of each row, shape (n_samples,). Rows of weight zero are ignored.
        groups
            Group of each row, shape (n_samples,). All rows of a group are on the same side of every split.
        time
            Time of each row, shape (n_samples,): numbers or dates. Networks are validated on rows later than
            those that they were trained on.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a parameter or the data are not valid; the message names it.
        RunDirectoryError
            If ``run_directory`` holds a finished run, or an unfinished one of other data or settings.
        """
        started = monotonic()  # the import counts towards the time limit
        from parallelmlp_search.search import run
        from parallelmlp_search.search.problem.monotone import monotone_columns

        settings, directory = self._settings()
        callbacks, verbose = self._checked_callbacks(), checked_verbose(self.verbose)
        problem = self._problem(X, y, sample_weight, groups, time)
        settings = replace(settings, monotonic=named_signs(self.monotonic, self._columns))
        settings.check_task(problem.task, problem.target)
        monotone_columns(problem, settings)  # checks them before there is a folder
        if not problem.has_usable_column:
            return self._fit_constant(problem, settings)
        if self.run_directory is not None and directory is None:
            directory = RunDirectory.create(self.run_directory, estimator=self._stored_parameters())
        with ExitStack() as stack:
            callbacks += shown_progress(stack, type(self).__name__, verbose)
            result = run(
                problem,
                settings,
                directory=directory,
                callbacks=callbacks,
                n_jobs=self.n_jobs,
                started=started,
            )
        self.model_ = result.model
        self._store_result(result, result.leaderboard.to_frame())
        self.best_config_ = result.best_config
        self.honest_score_ = None if result.honest is None else float(result.honest.score)
        self.n_trials_ = result.n_trials
        return self

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
        """Deepen the best finalists, train them layer-parallel, and add them to the ensemble if they help.

        It needs ``run_directory``, which holds the out-of-fold predictions of the finalists. The outcome is
        stored in ``promotion_``. ``model_`` and ``honest_score_`` change if the ensemble uses the networks.

        Parameters
        ----------
        X, y, sample_weight, groups, time
            Data that the estimator was fitted on.
        **options
            Attributes of :class:`~parallelmlp_search.parareal.PromotionSettings`: ``top``, ``slices``,
            ``depth_factor``, ``epochs``, ``launch``, ``replicas``, ``restarts``, ``device``, ``timeout``.

        Returns
        -------
        self

        Raises
        ------
        RunDirectoryError
            If there is no run directory, or it belongs to other data.
        ValueError
            If a parameter is not valid; the message names it.
        """
        from parallelmlp_search.parareal import promote

        check_is_fitted(self, "model_")
        if self.run_directory is None:
            raise RunDirectoryError(
                "promote needs the run directory of the search, but run_directory is None: "
                "fit with a run_directory"
            )
        problem = self._problem(X, y, sample_weight, groups, time, names=self._columns)
        directory = RunDirectory.open(self.run_directory)
        self.promotion_, self.model_ = promote(directory, problem, **options)
        if self.promotion_.honest_after is not None:
            self.honest_score_ = float(self.promotion_.honest_after)
        return self

    def explain(
        self,
        X: Any,
        y: Any = None,
        *,
        sample_weight: Any = None,
        groups: Any = None,
        time: Any = None,
        background: Any = None,
        **options: Any,
    ) -> Explanation:
        """Explain the model: importance of columns, dependence, attributions, worst rows and slices.

        With the data of ``fit``, each row is predicted by networks that were not trained on it. Other rows
        count as unseen. With a ``run_directory``, the tables are saved in it.

        Parameters
        ----------
        X, y, sample_weight, groups, time
            Data of ``fit`` or other rows. Without ``y`` there are only dependence and attributions.
        background
            Table of rows that stand for unknown values in attributions; None for the rows of X. Only for
            other rows than those of ``fit``.
        **options
            Attributes of :class:`~parallelmlp_search.explain.ExplainSettings`: ``n_repeats``, ``max_rows``,
            ``n_attributed``, ``n_background``, ``columns``, ``seed``.

        Returns
        -------
        Explanation

        Raises
        ------
        ValueError
            If a parameter or the data are not valid; the message names it.
        """
        from parallelmlp_search.estimators.explaining import explain_estimator

        check_is_fitted(self, "model_")
        roles = {"sample_weight": sample_weight, "groups": groups, "time": time}
        return explain_estimator(self, X, y, roles, background, options)

    def _with_coverages(self, predict: Callable[..., Any], X: Any, coverage: Any) -> Any:
        """Return intervals or sets of the rows of a checked table."""
        from parallelmlp_search.estimators.inputs import check_rows
        from parallelmlp_search.inference.conformal import check_coverages
        from parallelmlp_search.inference.intervals import by_row

        check_is_fitted(self, "model_")
        coverages = check_coverages(coverage)
        rows = check_rows(self, X, names=self._columns)
        return by_row(predict(self.model_, rows, coverages), coverage)

    @property
    def plot(self) -> EstimatorPlots:
        """Figures, such as ``plot.learning_curves()`` and ``plot.roc(X, y)``; needs the extra ``plots``.

        Raises
        ------
        DataError
            If the model predicts a constant.
        """
        check_is_fitted(self, "model_")
        if isinstance(self.model_, ConstantModel):
            raise NoFiguresError("the model predicts a constant, because X had no informative column in fit")
        from parallelmlp_search.estimators.plotting import EstimatorPlots

        return EstimatorPlots(self)

    def _task_settings(self) -> dict[str, Any]:
        """Return the settings that only classifiers or only regressors have."""
        raise NotImplementedError

    def _settings(self) -> tuple[SearchSettings, RunDirectory | None]:
        """Return the settings of the search, and the unfinished run that it continues, if any."""
        from parallelmlp_search.search import SearchSettings

        directory = None
        if self.run_directory is not None and (Path(self.run_directory) / "run.json").is_file():
            directory = RunDirectory.open(self.run_directory)
            if directory.info().get("status") == "finished":
                raise RunDirectoryError(
                    f"run_directory must be a new folder or an unfinished run, "
                    f"but {str(self.run_directory)!r} holds a finished one"
                )
        space = SearchSpace.resolve(self.search_space)
        if has_signs(self.monotonic):
            space = monotone_space(space)
        settings = SearchSettings(
            search_space=space,
            n_trials=self.n_trials,
            time_limit=self.time_limit,
            max_epochs=self.max_epochs,
            metric=self.metric,
            n_folds=self.n_folds,
            n_finalists=self.n_finalists,
            sampler=self.sampler,
            initial=initial_configs(self.initial_configs, space),
            refit=self.refit,
            baselines=self.baselines,
            seed=self._seed(directory),
            device=self.device,
            precision=self.precision,
            memory_limit=self.memory_limit,
            infer_limit=self.infer_limit,
            infer_batch_size=self.infer_batch_size,
            **self._task_settings(),
        )
        return settings, directory

    def _stored_parameters(self) -> dict[str, Any]:
        """Return the parameters that a run holds besides the settings of the search, JSON-able."""
        weights = getattr(self, "class_weight", None)
        if isinstance(weights, Mapping):
            pairs = [
                [getattr(label, "item", lambda one=label: one)(), float(weight)]
                for label, weight in weights.items()
            ]
            weights = (
                pairs if all(isinstance(label, bool | int | float | str) for label, _ in pairs) else None
            )
        given = {"class_weight": weights, "column_types": self.column_types}
        return {name: value for name, value in given.items() if value is not None}

    def _seed(self, directory: RunDirectory | None) -> int:
        if self.random_state is None and directory is not None and "settings" in directory.info():
            return directory.settings().seed  # a continued run keeps the seed that it drew
        return seed_from(self.random_state)

    def _checked_callbacks(self) -> tuple[Callable[[Progress], object], ...]:
        callbacks = () if self.callbacks is None else self.callbacks
        if not isinstance(callbacks, Sequence) or not all(callable(callback) for callback in callbacks):
            raise InvalidParameterError(f"callbacks must be a list of callables, but got {self.callbacks!r}")
        return tuple(callbacks)

    def _fit_constant(self, problem: Problem, settings: SearchSettings) -> Self:
        from parallelmlp_search.selection import Leaderboard

        if self.run_directory is not None:
            raise DataError(
                "X must have a column that differs between rows for a run directory to be written"
            )
        self.model_ = ConstantModel.fit(problem, settings.loss, settings.costs)
        self._store_result(None, Leaderboard([]).to_frame())
        return self

    def __sklearn_tags__(self) -> Any:
        """Return the tags of the estimator, see scikit-learn's developer guide."""
        tags = super().__sklearn_tags__()
        # within a time limit, the number of trials depends on the machine
        tags.non_deterministic = self.time_limit is not None
        return tags
