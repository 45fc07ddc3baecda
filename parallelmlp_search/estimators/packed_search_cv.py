"""Parameter search with the interface of scikit-learn, whose candidates are trained packed."""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
import optuna
from optuna.samplers import BaseSampler
from sklearn.base import clone, is_classifier
from sklearn.metrics._scorer import _MultimetricScorer
from sklearn.model_selection import check_cv
from sklearn.model_selection._search import BaseSearchCV
from sklearn.model_selection._validation import _insert_error_scores, _warn_or_raise_about_fit_failures
from sklearn.pipeline import Pipeline
from sklearn.utils import check_random_state, get_tags, indexable
from sklearn.utils.metadata_routing import _routing_enabled
from sklearn.utils.validation import _check_method_params

from parallelmlp_search._signals import Interrupts
from parallelmlp_search.data import infer_task
from parallelmlp_search.distribute import one_thread, worker_count
from parallelmlp_search.estimators.folds import last_step, prepare_fold
from parallelmlp_search.estimators.packed_evaluation import PackedEvaluation, Scoring
from parallelmlp_search.estimators.param_distributions import search_spaces
from parallelmlp_search.estimators.parameters import stores_parameters
from parallelmlp_search.estimators.search_candidates import (
    ListedCandidates,
    StudyCandidates,
    grid_candidates,
    listed_candidates,
    sampled_candidates,
)
from parallelmlp_search.estimators.single_mlp import SingleMLPClassifier, SingleMLPRegressor
from parallelmlp_search.estimators.single_mlp_base import SingleMLP
from parallelmlp_search.estimators.table_estimator import MAX_SEED, seed_from
from parallelmlp_search.exceptions import DataError, InvalidParameterError
from parallelmlp_search.integrations.optuna.study.optimize import MAX_BATCH_SIZE, automatic_batch_size
from parallelmlp_search.search.problem.settings import FRESH_SAMPLERS, check_sampler
from parallelmlp_search.search.proposals.optuna_sampler import named_sampler, quiet
from parallelmlp_search.search.run.workers import Workers
from parallelmlp_search.space import SearchSpace

DEFAULT_TRIALS = 64


@stores_parameters
class PackedSearchCV(BaseSearchCV):  # type: ignore[misc]
    """Search over the parameters of a network by cross-validation, with all candidates of a fold at once.

    It replaces scikit-learn's ``GridSearchCV``, ``RandomizedSearchCV`` and ``HalvingRandomSearchCV``, and
    Optuna's ``OptunaSearchCV``. It has their parameters and attributes, and gives the same scores up to
    rounding, but trains candidates as packed populations instead of one after the other. For the best
    ensemble instead of the best network, use :class:`~parallelmlp_search.ParallelMLPClassifier`.

    Parameters
    ----------
    estimator : SingleMLPClassifier, SingleMLPRegressor or Pipeline, default=None
        Network whose parameters are searched, or a pipeline that ends in one. The other steps of a pipeline
        are fitted once per fold. None uses the classifier or the regressor, depending on the target.
    param_distributions : str, SearchSpace, mapping or list of mappings, default="default"
        Search space: a preset, a path or a space; or mappings from names to lists, distributions of scipy or
        Optuna, or domains. Names are the fields of :class:`~parallelmlp_search.space.MLPConfig`, and
        ``depth``, ``width``, ``width_1``, ... that build ``widths``. In mappings for a pipeline, the name of
        its last step comes first: ``mlp__dropout``.
    param_grid : mapping or list of mappings, default=None
        Lists of values by name, as for ``GridSearchCV``: all combinations are candidates, in its order. It
        replaces ``param_distributions`` and ``sampler``.
    sampler : str or optuna.samplers.BaseSampler, default=None
        ``"random"``; ``"qmc"`` for evenly spread samples; ``"grid"`` for all combinations; ``"tpe"``,
        ``"cmaes"``, ``"gp"`` or a sampler of Optuna, which proposes candidates in batches. None samples at
        random unless a study is given.
    n_trials : int, default=None
        Number of candidates. None tries 64. A grid takes no number.
    study : optuna.Study, default=None
        Study whose sampler proposes the candidates; it must maximize.
    batch_size : int or "auto", default="auto"
        Candidates that are trained at once. ``"auto"`` gives samplers that learn from results about five
        batches of 16 to 200, and others one batch of at most 1,000.
    reduction_factor : int, default=None
        One candidate in this many advances at each rung of epochs, by its mean score over the folds. None
        trains all candidates to the end.
    max_epochs : int, default=None
        Epochs of full training. None uses the setting of the estimator.
    scoring, refit, cv, return_train_score
        See ``GridSearchCV``.
    error_score : "raise" or number, default=nan
        Score of a candidate on a fold if its loss became infinite or NaN, or if scoring failed.
    n_jobs : int, default=None
        Number of workers. None uses all cores. Results do not depend on it.
    random_state : int, RandomState or None, default=None
        Seed of the sampled candidates and, unless the estimator has its own ``random_state``, of the
        networks. All candidates are trained from the same seed on the same batches.
    verbose : int, default=0
        Above 0, batches are printed; above 1, also scores.

    Attributes
    ----------
    cv_results_ : dict of ndarray
        See ``GridSearchCV``. With a ``reduction_factor`` there is one row per candidate and rung, and the
        columns ``iter`` and ``n_resources`` (epochs) of ``HalvingRandomSearchCV``.
    best_estimator_ : estimator
        Estimator with the best parameters, trained on all rows; only if ``refit`` is set.
    best_params_, best_score_, best_index_
        Parameters, mean score and row of the best candidate.
    scorer_, multimetric_, n_splits_, refit_time_
        See ``GridSearchCV``.
    classes_, n_features_in_, feature_names_in_
        Attributes of the best estimator.
    n_trials_ : int
        Number of candidates that were tried.
    study_ : optuna.Study or None
        The study that proposed the candidates, if any.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> grid = {"width": [8, 16, 32], "learning_rate": [0.01, 0.03]}
    >>> search = PackedSearchCV(param_grid=grid, max_epochs=9, random_state=0).fit(X, y)
    >>> len(search.cv_results_["params"])
    6
    """

    def __init__(
        self,
        estimator: Any = None,
        param_distributions: SearchSpace | str | Mapping[str, Any] | Sequence[Mapping[str, Any]] = "default",
        *,
        param_grid: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        sampler: str | BaseSampler | None = None,
        n_trials: int | None = None,
        study: optuna.Study | None = None,
        batch_size: int | str = "auto",
        reduction_factor: int | None = None,
        max_epochs: int | None = None,
        scoring: Any = None,
        refit: bool | str | Callable[..., int] = True,
        cv: Any = None,
        error_score: str | float = np.nan,
        return_train_score: bool = False,
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None: ...

    def fit(self, X: Any, y: Any = None, **params: Any) -> Self:
        """Score all candidates on all folds, and train the best one on all rows.

        Parameters
        ----------
        X
            Table of shape (n_samples, n_features), as the estimator takes it.
        y
            Target of shape (n_samples,) or (n_samples, n_outputs).
        **params
            ``groups`` for the splitter; all others for ``fit`` of the estimator, and ``sample_weight`` also
            for scorers that take it. With metadata routing they go where they are requested.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a parameter or the data are not valid, or all fits failed.
        """
        self._check_numbers()
        if y is None:
            raise DataError(
                f"This {type(self).__name__} estimator requires y to be passed, but the target y is None."
            )
        chosen = self._with_estimator(y)
        random = check_random_state(self.random_state)
        seed, sampling_seed = (int(number) for number in random.randint(MAX_SEED, size=2))
        base = self._base(chosen.estimator, seed)
        clone(last_step(base))._check_target(y)  # an invalid target fails here, not in every fold
        candidates, batch_size = self._candidates(base, np.random.default_rng(sampling_seed))
        scorers, refit_metric = chosen._get_scorers()
        X, y = indexable(X, y)
        params = _check_method_params(X, params=params)
        routed = chosen._get_routed_params_for_fit(params)
        cv = check_cv(self.cv, y, classifier=is_classifier(chosen.estimator))
        self.n_splits_ = cv.get_n_splits(X, y, **routed.splitter.split)
        splits = list(cv.split(X, y, **routed.splitter.split))

        with_train = self.return_train_score
        folds = [prepare_fold(base, X, y, one, routed, with_training_rows=with_train) for one in splits]
        metric = self.refit if isinstance(self.refit, str) else refit_metric
        scoring = Scoring(scorers, metric, self.error_score, with_train)
        on_gpu = any(fold.data is not None and fold.data.device.type != "cpu" for fold in folds)
        n_workers = 1 if on_gpu else worker_count(self.n_jobs)
        with one_thread(), Interrupts() as interrupts, contextlib.ExitStack() as stack:
            stack.callback(candidates.close)
            evaluation = PackedEvaluation(
                folds,
                scoring,
                candidates,
                reduction_factor=self.reduction_factor,
                workers=Workers(stack, n_workers, on_gpu=on_gpu),
                n_workers=n_workers,
                interrupts=interrupts,
                verbose=self.verbose,
            )
            evaluation.run(batch_size, needs_scores=isinstance(candidates, StudyCandidates))
        self._store_results(evaluation, _prefix(base), scorers, refit_metric)
        if self.refit:
            self._refit(base, evaluation, X, y, routed.estimator.fit)
        return self

    def _check_numbers(self) -> None:
        for name, least in (("n_trials", 1), ("max_epochs", 1), ("reduction_factor", 2), ("batch_size", 1)):
            value = getattr(self, name)
            default = "auto" if name == "batch_size" else None
            is_integer = isinstance(value, Integral) and not isinstance(value, bool)
            if value != default and not (is_integer and value >= least):
                rule = "'auto' or an integer" if name == "batch_size" else "an integer"
                raise InvalidParameterError(f"{name} must be {rule} >= {least}, but got {value!r}")
        score = self.error_score
        if score != "raise" and (not isinstance(score, Real) or isinstance(score, bool)):
            raise InvalidParameterError(f"error_score must be 'raise' or a number, but got {score!r}")

    def _with_estimator(self, y: Any = None) -> PackedSearchCV:
        """Return this search, or a copy with the estimator that suits the target if none is given."""
        if self.estimator is not None:
            return self
        kind = SingleMLPClassifier if y is None or infer_task(y) != "regression" else SingleMLPRegressor
        estimator = kind()
        if _routing_enabled():
            estimator.set_fit_request(sample_weight=True)
        chosen = copy.copy(self)
        chosen.estimator = estimator
        return chosen

    def _base(self, estimator: Any, seed: int) -> Any:
        """Return a clone of the estimator with a fixed seed."""
        if not isinstance(last_step(estimator), SingleMLP):
            raise InvalidParameterError(
                "estimator must be a SingleMLPClassifier, a SingleMLPRegressor, a pipeline that ends in one, "
                f"or None, but got {estimator!r}"
            )
        given = last_step(estimator).random_state
        base = clone(estimator)
        final: SingleMLP = last_step(base)
        final.set_params(random_state=seed if given is None else seed_from(given))
        if self.max_epochs is not None:
            final.set_params(max_epochs=self.max_epochs)
        final._config(0)  # an invalid parameter fails here, not in every candidate
        return base

    def _candidates(self, base: Any, rng: np.random.Generator) -> tuple[ListedCandidates, int]:
        """Return the source of candidates and the size of their batches."""
        if self.param_grid is not None:
            self.study_ = None
            return self._listed(_prefix(base))
        spaces = search_spaces(self.param_distributions, prefix=_prefix(base))
        self.study_ = study = self._study(int(rng.integers(MAX_SEED)))
        n_trials = DEFAULT_TRIALS if self.n_trials is None else int(self.n_trials)
        batch_size = self._listed_batch_size
        if study is not None:
            if self.batch_size == "auto":
                batch_size = automatic_batch_size(study.sampler, n_trials)
            return StudyCandidates(study, spaces, n_trials), batch_size
        if self.sampler == "grid":
            if self.n_trials is not None:
                raise InvalidParameterError(
                    f"n_trials must be left out with sampler 'grid', which tries all, but got {n_trials}"
                )
            return ListedCandidates(grid_candidates(spaces)), batch_size
        found = sampled_candidates(spaces, "qmc" if self.sampler == "qmc" else "random", n_trials, rng)
        return ListedCandidates(found), batch_size

    @property
    def _listed_batch_size(self) -> int:
        return MAX_BATCH_SIZE if self.batch_size == "auto" else int(self.batch_size)

    def _listed(self, prefix: str) -> tuple[ListedCandidates, int]:
        """Return the candidates of ``param_grid``, which no other parameter may determine too."""
        defaults = {"param_distributions": "default", "sampler": None, "n_trials": None, "study": None}
        for name, default in defaults.items():
            value = getattr(self, name)
            is_default = value is default or (isinstance(value, str) and value in (default, "grid"))
            if not is_default:
                raise InvalidParameterError(
                    f"{name} must be left out with param_grid, which lists all candidates, but got {value!r}"
                )
        return ListedCandidates(listed_candidates(self.param_grid, prefix)), self._listed_batch_size

    def _study(self, seed: int) -> optuna.Study | None:
        """Return the study that proposes candidates; None if they are sampled or listed without one."""
        if self.study is not None and self.sampler is not None:
            raise InvalidParameterError(
                f"sampler must be left out if a study is given, which has its own, but got {self.sampler!r}"
            )
        study: optuna.Study | None = self.study
        is_fresh = isinstance(self.sampler, str) and self.sampler in FRESH_SAMPLERS
        if study is not None or self.sampler is None or is_fresh:
            return study
        check_sampler(self.sampler)
        with quiet():
            sampler = named_sampler(self.sampler, seed) if isinstance(self.sampler, str) else self.sampler
            return optuna.create_study(direction="maximize", sampler=sampler)

    def _store_results(
        self, evaluation: PackedEvaluation, prefix: str, scorers: Any, refit_metric: Any
    ) -> None:
        """Store the table of results and the best candidate."""
        rows = evaluation.rows
        _warn_or_raise_about_fit_failures(rows, self.error_score)
        if callable(self.scoring):
            _insert_error_scores(rows, self.error_score)
        more: dict[str, list[int]] = {}
        if self.reduction_factor is not None:
            more["iter"] = [rung for _, rung, _ in evaluation.evaluated]
            more["n_resources"] = [epochs for _, _, epochs in evaluation.evaluated]
        params = [
            {prefix + name: value for name, value in one.params.items()} for one, _, _ in evaluation.evaluated
        ]
        results = self._format_results(params, self.n_splits_, rows, more)
        first = rows[0]["test_scores"]
        self.multimetric_ = isinstance(first, dict)
        if callable(self.scoring) and self.multimetric_:
            self._check_refit_for_multimetric(first)
            refit_metric = self.refit
        self.n_trials_ = evaluation.n_candidates
        of_best = ("best_index_", "best_score_", "best_params_", "best_estimator_", "refit_time_")
        for name in (*of_best, "feature_names_in_"):
            self.__dict__.pop(name, None)  # from an earlier fit
        if self.refit or not self.multimetric_:
            self.best_index_ = self._best_index(refit_metric, results)
            if not callable(self.refit):
                self.best_score_ = results[f"mean_test_{refit_metric}"][self.best_index_]
            self.best_params_ = results["params"][self.best_index_]
        self.scorer_ = scorers._scorers if isinstance(scorers, _MultimetricScorer) else scorers
        self.cv_results_ = results

    def _best_index(self, refit_metric: Any, results: dict[str, Any]) -> int:
        if self.reduction_factor is None or callable(self.refit):
            return int(self._select_best_index(self.refit, refit_metric, results))
        # the best of the last rung, as in scikit-learn's halving
        means = np.where(
            results["iter"] == results["iter"].max(), results[f"mean_test_{refit_metric}"], np.nan
        )
        return 0 if np.isnan(means).all() else int(np.nanargmax(means))

    def _refit(
        self, base: Any, evaluation: PackedEvaluation, X: Any, y: Any, fit_params: Mapping[str, Any]
    ) -> None:
        """Train the best candidate on all rows."""
        prefix = _prefix(base)
        fields = evaluation.evaluated[self.best_index_][0].fields
        params = {prefix + name: value for name, value in fields.items()}
        self.best_estimator_ = clone(base).set_params(**params)
        started = time.perf_counter()
        self.best_estimator_.fit(X, y, **fit_params)
        self.refit_time_ = time.perf_counter() - started
        if hasattr(self.best_estimator_, "feature_names_in_"):
            self.feature_names_in_ = self.best_estimator_.feature_names_in_

    def set_callbacks(self, *callbacks: Any) -> Self:
        """Refuse scikit-learn's callbacks, because networks that train at once have no order.

        Raises
        ------
        InvalidParameterError
            If there are any.
        """
        if callbacks:
            raise InvalidParameterError(
                f"PackedSearchCV takes no callbacks, but got {len(callbacks)}: use verbose to see progress"
            )
        return self

    def get_metadata_routing(self) -> Any:
        """Return the routing of metadata, see scikit-learn's user guide."""
        return BaseSearchCV.get_metadata_routing(self._with_estimator())

    def __sklearn_tags__(self) -> Any:
        """Return the tags of the estimator, see scikit-learn's developer guide."""
        known = copy.copy(self._with_estimator())
        known.estimator = getattr(self, "best_estimator_", known.estimator)
        tags = BaseSearchCV.__sklearn_tags__(known)
        inner = get_tags(known.estimator)
        tags.input_tags, tags.target_tags = copy.deepcopy(inner.input_tags), copy.deepcopy(inner.target_tags)
        if self.estimator is None and not hasattr(self, "best_estimator_"):
            # the type is unknown until the target is
            tags.estimator_type = tags.classifier_tags = tags.regressor_tags = None
        return tags


def _prefix(estimator: Any) -> str:
    """Return the prefix of the names of the network's parameters."""
    return f"{estimator.steps[-1][0]}__" if isinstance(estimator, Pipeline) else ""
