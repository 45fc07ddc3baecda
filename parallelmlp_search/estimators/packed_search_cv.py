"""A search over parameters as scikit-learn knows it, whose candidates and folds are trained packed."""

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
from parallelmlp_search.estimators.folds import Fold, last_step, prepare_fold
from parallelmlp_search.estimators.packed_evaluation import PackedRounds, Scoring
from parallelmlp_search.estimators.param_distributions import spaces_of
from parallelmlp_search.estimators.search_candidates import (
    Candidates,
    ListedCandidates,
    StudyCandidates,
    drawn,
    listed,
    study_for,
)
from parallelmlp_search.estimators.single_mlp import SingleMLPClassifier, SingleMLPRegressor
from parallelmlp_search.estimators.single_mlp_base import SingleMLP
from parallelmlp_search.estimators.table_estimator import LARGEST_SEED, seed_from
from parallelmlp_search.exceptions import DataError, InvalidParameterError
from parallelmlp_search.integrations.optuna.study.optimize import MAX_BATCH_SIZE, automatic_batch_size
from parallelmlp_search.search.run.workers import Workers
from parallelmlp_search.space import SearchSpace

__all__ = ["PackedSearchCV"]

DEFAULT_TRIALS = 64


class PackedSearchCV(BaseSearchCV):  # type: ignore[misc]
    """Search over the parameters of a network by cross-validation, all candidates of a fold at once.

    It takes the place of scikit-learn's ``GridSearchCV``, ``RandomizedSearchCV`` and
    ``HalvingRandomSearchCV``, and of Optuna's ``OptunaSearchCV``: same parameters, same attributes, and the
    scores that they would give, to rounding, but the candidates are trained as packed populations instead of
    one after the other. Where the best ensemble is wanted rather than the best single network,
    :class:`~parallelmlp_search.ParallelMLPClassifier` is the better choice.

    Parameters
    ----------
    estimator : SingleMLPClassifier, SingleMLPRegressor or Pipeline, default=None
        What the parameters are set on, or a pipeline that ends in it, whose other steps are fitted once a
        fold. None takes the classifier or the regressor, as the target suggests.
    param_distributions : str, SearchSpace, mapping or list of mappings, default="default"
        What may be tried: a preset, a file or a space; or mappings from names to lists, scipy's
        distributions, Optuna's distributions, or domains. Names are fields of
        :class:`~parallelmlp_search.space.MLPConfig`, and ``depth``, ``width``, ``width_1``, ... that build
        ``widths``; in mappings for a pipeline the name of its last step comes first, ``mlp__dropout``.
    sampler : str or optuna.samplers.BaseSampler, default=None
        How candidates are chosen: drawn by ``"random"``, or without large holes by ``"qmc"``; every
        combination, ``"grid"``; or asked in batches of a sampler of Optuna, ``"tpe"``, ``"cmaes"``, ``"gp"``
        or one's own. None draws at random, unless a study is given.
    n_trials : int, default=None
        Candidates; None for 64, or for all of a grid, which takes no number.
    study : optuna.Study, default=None
        Study to ask with its own sampler; it must maximize.
    batch_size : int or "auto", default="auto"
        Candidates that are trained at once. Samplers that learn from results get them in about five batches
        of 16 to 200, others in one, up to 1,000.
    reduction_factor : int, default=None
        One candidate in this many goes on at each rung of a ladder of epochs, by its mean score over the
        folds; None trains all of them to the end.
    max_epochs : int, default=None
        Epochs of full training; None leaves them to the estimator.
    scoring : str, callable, list, tuple or dict, default=None
        As of ``GridSearchCV``; None for the estimator's own score.
    refit : bool, str or callable, default=True
        As of ``GridSearchCV``: whether the best candidate is trained anew on all rows, by which of several
        scores it is the best, or who decides.
    cv : int, cross-validation generator or iterable, default=None
        As of ``GridSearchCV``.
    error_score : "raise" or number, default=nan
        Score of a candidate on a fold where its loss stopped being finite, or where scoring failed.
    return_train_score : bool, default=False
        Whether the training rows are scored too.
    n_jobs : int, default=None
        Workers; None for all cores. Results do not depend on it.
    random_state : int, RandomState or None, default=None
        Decides what is drawn and, unless the estimator has a ``random_state`` of its own, how networks begin
        and train. All candidates train from the same seed, on the same batches.
    verbose : int, default=0
        Above 0, each batch is announced; above 1, each score.

    Attributes
    ----------
    cv_results_ : dict of ndarray
        As of ``GridSearchCV``. With a ``reduction_factor`` there is a row for each candidate and rung, and
        the columns ``iter`` and ``n_resources``, epochs, as of ``HalvingRandomSearchCV``.
    best_estimator_ : estimator
        Trained on all rows with the best parameters; only where ``refit`` says so.
    best_params_, best_score_, best_index_
        Parameters, mean score and row of the best candidate.
    scorer_, multimetric_, n_splits_, refit_time_
        As of ``GridSearchCV``.
    classes_, n_features_in_, feature_names_in_
        Of the best estimator.
    n_trials_ : int
        Candidates that were tried.
    study_ : optuna.Study or None
        The study, if one was asked.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> grid = {"width": [8, 16, 32], "learning_rate": [0.01, 0.03]}
    >>> search = PackedSearchCV(None, grid, sampler="grid", max_epochs=9, random_state=0).fit(X, y)
    >>> len(search.cv_results_["params"])
    6
    """

    def __init__(
        self,
        estimator: Any = None,
        param_distributions: SearchSpace | str | Mapping[str, Any] | Sequence[Mapping[str, Any]] = "default",
        *,
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
    ) -> None:
        self.estimator = estimator
        self.param_distributions = param_distributions
        self.sampler = sampler
        self.n_trials = n_trials
        self.study = study
        self.batch_size = batch_size
        self.reduction_factor = reduction_factor
        self.max_epochs = max_epochs
        self.scoring = scoring
        self.refit = refit
        self.cv = cv
        self.error_score = error_score
        self.return_train_score = return_train_score
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None, **params: Any) -> Self:
        """Score all candidates on all folds, and train the best on all rows.

        Parameters
        ----------
        X
            Table of shape (n_samples, n_features); whatever the estimator takes.
        y
            Target of shape (n_samples,) or (n_samples, n_outputs).
        **params
            ``groups`` goes to the splitter, everything else to the estimator's ``fit``, ``sample_weight``
            also to scorers that take it. With scikit-learn's metadata routing, everything goes where it is
            requested.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a parameter or the data break a rule, or all fits failed.
        """
        self._check_numbers()
        if y is None:
            raise DataError(
                f"This {type(self).__name__} estimator requires y to be passed, but the target y is None."
            )
        chosen = self._with_estimator(y)
        random = check_random_state(self.random_state)
        seed, draws = (int(number) for number in random.randint(LARGEST_SEED, size=2))
        base = self._base(chosen.estimator, seed)
        clone(last_step(base))._target(y)  # what is wrong with it is not wrong with a fold
        candidates, at_once = self._candidates(base, np.random.default_rng(draws))
        scorers, refit_metric = chosen._get_scorers()
        X, y = indexable(X, y)
        params = _check_method_params(X, params=params)
        routed = chosen._get_routed_params_for_fit(params)
        cv = check_cv(self.cv, y, classifier=is_classifier(chosen.estimator))
        self.n_splits_ = cv.get_n_splits(X, y, **routed.splitter.split)
        splits = list(cv.split(X, y, **routed.splitter.split))

        folds = [
            prepare_fold(
                base, X, y, train, test, routed.estimator.fit, with_training_rows=self.return_train_score
            )
            for train, test in splits
        ]
        scoring = Scoring(
            scorers,
            [_check_method_params(X, params=routed.scorer.score, indices=test) for _, test in splits],
            [_check_method_params(X, params=routed.scorer.score, indices=train) for train, _ in splits],
            metric=self.refit if isinstance(self.refit, str) else refit_metric,
            error_score=self.error_score,
            with_training_rows=self.return_train_score,
        )
        n_workers = 1 if _on_gpu(folds) else worker_count(self.n_jobs)
        with one_thread(), Interrupts() as interrupts, contextlib.ExitStack() as stack:
            stack.callback(candidates.close)
            rounds = PackedRounds(
                folds,
                scoring,
                candidates,
                reduction_factor=self.reduction_factor,
                workers=Workers(stack, n_workers, on_gpu=_on_gpu(folds)),
                n_workers=n_workers,
                interrupts=interrupts,
                verbose=self.verbose,
            )
            rounds.run(at_once, asks_for_scores=isinstance(candidates, StudyCandidates))
        self._keep_results(rounds, _prefix(base), scorers, refit_metric)
        if self.refit:
            self._refit(base, rounds, X, y, routed.estimator.fit)
        return self

    def _check_numbers(self) -> None:
        for name, least in (("n_trials", 1), ("max_epochs", 1), ("reduction_factor", 2), ("batch_size", 1)):
            value = getattr(self, name)
            whole = isinstance(value, Integral) and not isinstance(value, bool)
            if name == "batch_size" and not (value == "auto" or (whole and value >= least)):
                raise InvalidParameterError(
                    f"batch_size must be 'auto' or an integer >= 1, but got {value!r}"
                )
            if name != "batch_size" and value is not None and not (whole and value >= least):
                raise InvalidParameterError(f"{name} must be an integer >= {least}, but got {value!r}")
        score = self.error_score
        number = isinstance(score, Real) and not isinstance(score, bool)
        if score != "raise" and not number:
            raise InvalidParameterError(f"error_score must be 'raise' or a number, but got {score!r}")

    def _with_estimator(self, y: Any = None) -> PackedSearchCV:
        """This search, with the estimator that the target suggests where none is given."""
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
        """Clone of the estimator with a seed of its own."""
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
        final._config(0)  # what is wrong with all candidates is not wrong with one of them
        return base

    def _candidates(self, base: Any, rng: np.random.Generator) -> tuple[Candidates, int]:
        """Where candidates come from, and how many are trained at once."""
        spaces = spaces_of(self.param_distributions, prefix=_prefix(base))
        study = study_for(self.sampler, self.study, int(rng.integers(LARGEST_SEED)))
        self.study_ = study
        n_trials = DEFAULT_TRIALS if self.n_trials is None else int(self.n_trials)
        wanted = None if self.batch_size == "auto" else int(self.batch_size)
        if study is not None:
            batch_size = wanted or automatic_batch_size(study.sampler, n_trials)
            return StudyCandidates(study, spaces, n_trials), batch_size
        if self.sampler == "grid":
            if self.n_trials is not None:
                raise InvalidParameterError(
                    f"n_trials must be left out where sampler is 'grid', which tries all, but got {n_trials}"
                )
            return ListedCandidates(listed(spaces)), wanted or MAX_BATCH_SIZE
        found = drawn(spaces, "qmc" if self.sampler == "qmc" else "random", n_trials, rng)
        return ListedCandidates(found), wanted or MAX_BATCH_SIZE

    def _keep_results(self, rounds: PackedRounds, prefix: str, scorers: Any, refit_metric: Any) -> None:
        """Everything that follows from the scores."""
        _warn_or_raise_about_fit_failures(rounds.rows, self.error_score)
        if callable(self.scoring):
            _insert_error_scores(rounds.rows, self.error_score)
        more: dict[str, list[int]] = {}
        if self.reduction_factor is not None:
            more = {"iter": [rung for rung, _ in rounds.rungs], "n_resources": [n for _, n in rounds.rungs]}
        params = [
            {prefix + name: value for name, value in candidate.params.items()} for candidate in rounds.tried
        ]
        results = self._format_results(params, self.n_splits_, rounds.rows, more)
        first = rounds.rows[0]["test_scores"]
        self.multimetric_ = isinstance(first, dict)
        if callable(self.scoring) and self.multimetric_:
            self._check_refit_for_multimetric(first)
            refit_metric = self.refit
        self.n_trials_ = rounds.n_candidates
        for name in ("best_index_", "best_score_", "best_params_", "best_estimator_", "refit_time_"):
            self.__dict__.pop(name, None)  # of an earlier fit
        self.__dict__.pop("feature_names_in_", None)
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
        # of those that were trained to the end, as scikit-learn's halving does
        means = np.where(
            results["iter"] == results["iter"].max(), results[f"mean_test_{refit_metric}"], np.nan
        )
        return 0 if np.isnan(means).all() else int(np.nanargmax(means))

    def _refit(self, base: Any, rounds: PackedRounds, X: Any, y: Any, fit_params: Mapping[str, Any]) -> None:
        """Train the best candidate on all rows."""
        prefix = _prefix(base)
        fields = rounds.tried[self.best_index_].fields
        self.best_estimator_ = clone(base).set_params(
            **{prefix + name: value for name, value in fields.items()}
        )
        started = time.perf_counter()
        self.best_estimator_.fit(X, y, **fit_params)
        self.refit_time_ = time.perf_counter() - started
        if hasattr(self.best_estimator_, "feature_names_in_"):
            self.feature_names_in_ = self.best_estimator_.feature_names_in_

    def set_callbacks(self, *callbacks: Any) -> Self:
        """Refuse scikit-learn's callbacks: networks that train at once have no order to call back in.

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
        """Who gets which metadata; see scikit-learn's user guide."""
        return BaseSearchCV.get_metadata_routing(self._with_estimator())

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn may rely on."""
        known = copy.copy(self._with_estimator())
        known.estimator = getattr(self, "best_estimator_", known.estimator)
        tags = BaseSearchCV.__sklearn_tags__(known)
        inner = get_tags(known.estimator)
        tags.input_tags, tags.target_tags = copy.deepcopy(inner.input_tags), copy.deepcopy(inner.target_tags)
        if self.estimator is None and not hasattr(self, "best_estimator_"):
            # the target will tell
            tags.estimator_type = tags.classifier_tags = tags.regressor_tags = None
        return tags


def _prefix(estimator: Any) -> str:
    """What comes before the names of the network's parameters."""
    return f"{estimator.steps[-1][0]}__" if isinstance(estimator, Pipeline) else ""


def _on_gpu(folds: Sequence[Fold]) -> bool:
    return any(fold.data is not None and fold.data.rows.inputs.device.type != "cpu" for fold in folds)
