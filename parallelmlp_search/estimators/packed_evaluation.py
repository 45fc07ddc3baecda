"""Evaluation of candidates on all folds: trained packed, scored at every rung, with successive halving."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from traceback import format_exception
from typing import Any

import numpy as np
from sklearn.metrics._scorer import _MultimetricScorer
from sklearn.model_selection._validation import _score
from sklearn.utils.validation import _num_samples

from parallelmlp_search._signals import Interrupts
from parallelmlp_search.distribute import MemberOutcome
from parallelmlp_search.estimators.folds import Fold
from parallelmlp_search.estimators.search_candidates import ListedCandidates, SearchCandidate
from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.search.run.budget import Throughput
from parallelmlp_search.search.run.journal import Journal
from parallelmlp_search.search.run.workers import Workers
from parallelmlp_search.search.screening.rung_loop import Cohort, RungLoop
from parallelmlp_search.search.screening.rungs import advancing, ladder, ladder_cost

__all__ = ["PackedEvaluation", "Scoring"]


@dataclass(frozen=True)
class Scoring:
    """Scorers of fitted estimators, with their arguments.

    Attributes
    ----------
    scorer
        A scorer, several of them, or a function.
    test_params, train_params
        Further arguments of the scorer for each fold.
    metric
        Name of the score that ranks candidates, if there are several.
    error_score
        ``"raise"``, or the score of failed fits.
    with_training_rows
        Whether the training rows are scored too.
    """

    scorer: Any
    test_params: Sequence[Mapping[str, Any]]
    train_params: Sequence[Mapping[str, Any]]
    metric: Any
    error_score: str | float
    with_training_rows: bool


class PackedEvaluation:
    """Evaluation of batches of candidates on prepared folds.

    Parameters
    ----------
    folds
        Prepared folds.
    scoring
        Scorers of candidates.
    candidates
        Source of candidates.
    reduction_factor
        One candidate in this many advances at each rung; None trains all of them to the end.
    workers
        Threads or processes of the shards.
    n_workers
        Number of shards that run at once.
    interrupts
        Holds interrupts back except while networks are trained.
    verbose
        Above 0, batches are printed; above 1, also scores.

    Attributes
    ----------
    rows
        Scores of each candidate on each fold, at each rung.
    evaluated
        Candidate of each ``len(folds)`` rows.
    rungs
        Rung and its epochs for each entry of `evaluated`.
    n_candidates
        Number of candidates.
    """

    def __init__(
        self,
        folds: Sequence[Fold],
        scoring: Scoring,
        candidates: ListedCandidates,
        *,
        reduction_factor: int | None,
        workers: Workers,
        n_workers: int,
        interrupts: Interrupts,
        verbose: int,
    ) -> None:
        self.folds = list(folds)
        self.scoring = scoring
        self.candidates = candidates
        self.reduction_factor = reduction_factor
        self.workers = workers
        self.interrupts = interrupts
        self.verbose = verbose
        self.rows: list[dict[str, Any]] = []
        self.evaluated: list[SearchCandidate] = []
        self.rungs: list[tuple[int, int]] = []
        self.n_candidates = 0
        self._journal = Journal(Throughput(n_workers))
        self._past: dict[int, list[float]] = {}
        epochs = [float(fold.max_epochs) for fold in folds]
        # with rungs, all folds have the same epochs, so that mean scores are comparable
        self._total = epochs if reduction_factor is None else [max(epochs)] * len(folds)

    def run(self, batch_size: int, *, needs_scores: bool) -> None:
        """Evaluate all candidates in batches.

        ``needs_scores`` says that the source of candidates uses their scores.
        """
        while batch := self.candidates.ask(batch_size):
            if self.verbose > 0:
                n_folds = len(self.folds)
                print(
                    f"Fitting {n_folds} folds for each of {len(batch)} candidates, "
                    f"totalling {n_folds * len(batch)} fits"
                )
            self._start_workers(batch)
            self._evaluate(batch, needs_scores=needs_scores)
            self.n_candidates += len(batch)

    def _ladder(self) -> list[list[float]]:
        """Return the epochs of each rung, for each fold."""
        if self.reduction_factor is None or max(self._total) < 1:
            return [self._total]
        rungs = ladder(int(max(self._total)), self.reduction_factor)
        return [[epochs] * len(self.folds) for epochs in rungs]

    def _start_workers(self, batch: Sequence[SearchCandidate]) -> None:
        """Start processes if the batch is large enough, and place the rows where they can read them."""
        seconds = 0.0
        for fold, epochs in zip(self.folds, self._total, strict=True):
            if (data := fold.data) is not None:
                seconds += epochs * sum(data.epoch_seconds(fold.config(one.fields)) for one in batch)
        if self.reduction_factor is not None and max(self._total) > 0:
            rungs = [rung[0] for rung in self._ladder()]
            seconds *= ladder_cost(rungs, self.reduction_factor) / rungs[-1]
        self.workers.expect(seconds)
        for fold in self.folds:
            fold.share(self.workers)

    def _evaluate(self, batch: Sequence[SearchCandidate], *, needs_scores: bool) -> None:
        """Train a batch from rung to rung, and record and tell its scores."""
        loop = RungLoop(self._journal, keep_last=("average",))
        alive = list(range(len(batch)))
        for rung, until in enumerate(self._ladder()):
            with self.interrupts.allowed():
                rows = self._train(loop, f"rung-{rung}", batch, alive, until)
            for number in alive:
                self.rows += rows[number]
                self.evaluated.append(batch[number])
                self.rungs.append((rung, int(max(until))))
            if self.reduction_factor is None and not needs_scores:
                return
            means = {number: self._mean(rows[number]) for number in alive}
            ended = alive
            if until != self._total:
                alive = self._advance(rung, batch, rows, means, int(max(until)))
                ended = [number for number in means if number not in alive]
                loop.advance({member for number in alive for member in self._members(number)})
            for number in ended:
                if until == self._total or not math.isfinite(means[number]):
                    self.candidates.tell(batch[number], means[number])
                else:
                    self.candidates.prune(batch[number])
            if not alive:
                return

    def _advance(
        self,
        rung: int,
        batch: Sequence[SearchCandidate],
        rows: Mapping[int, Sequence[Mapping[str, Any]]],
        means: Mapping[int, float],
        epochs: int,
    ) -> list[int]:
        """Report the scores of a rung, and return the candidates that advance."""
        assert self.reduction_factor is not None
        for number, mean in means.items():
            batch[number].report(mean, epochs)
        # a candidate that failed on a fold cannot be trained further, whatever its `error_score`
        errors = {
            number: math.inf if any(row["fit_error"] for row in rows[number]) else -mean
            for number, mean in means.items()
        }
        past = self._past.setdefault(rung, [])
        chosen = set(advancing(errors, past, self.reduction_factor))
        past += errors.values()
        return [number for number in means if number in chosen]

    def _members(self, number: int) -> range:
        """Return the numbers of a candidate's networks, one for each fold."""
        return range(number * len(self.folds), (number + 1) * len(self.folds))

    def _train(
        self,
        loop: RungLoop,
        key: str,
        batch: Sequence[SearchCandidate],
        alive: Sequence[int],
        until: Sequence[float],
    ) -> dict[int, list[dict[str, Any]]]:
        """Train and score candidates on all folds; return the rows of each, fold by fold."""
        rows: dict[int, list[dict[str, Any]]] = {number: [{}] * len(self.folds) for number in alive}

        def score(number: int, place: int, outcome: MemberOutcome | None) -> None:
            fold, candidate = self.folds[place], batch[number]
            row = self._row(place, fold, candidate.fields, outcome)
            row["fit_time"] += fold.seconds / len(batch)
            rows[number][place] = row
            if self.verbose > 1:
                print(f"[CV {place + 1}/{len(self.folds)}] {candidate.params} {row['test_scores']}")

        cohorts = []
        for place, fold in enumerate(self.folds):
            if fold.data is None:
                for number in alive:
                    score(number, place, None)
                continue
            configs = {self._members(number)[place]: fold.config(batch[number].fields) for number in alive}
            cohorts.append(Cohort(place, configs, fold.data, until[place], self._total[place]))
        # scored as they arrive, because models and predictions of all candidates would fill the memory
        for shard in loop.train(key, cohorts):
            for outcome in shard.members:
                score(outcome.trial // len(self.folds), shard.cohort.number, outcome)
                outcome.prediction = None
                if shard.cohort.is_last:
                    outcome.state = None
        return rows

    def _row(
        self, place: int, fold: Fold, fields: Mapping[str, Any], outcome: MemberOutcome | None
    ) -> dict[str, Any]:
        """Score one candidate on one fold; return scores and times as scikit-learn's ``cross_validate``."""
        scoring = self.scoring
        row: dict[str, Any] = {
            "fit_error": None,
            "n_test_samples": _num_samples(fold.X_test),
            "fit_time": 0.0 if outcome is None else outcome.seconds,
            "score_time": 0.0,
        }
        try:
            estimator = fold.fitted(fields, outcome)
        except Exception as error:
            if scoring.error_score == "raise":
                raise
            row["fit_error"] = "".join(format_exception(error))
            kinds = ("test_scores", "train_scores")[: 1 + scoring.with_training_rows]
            names = scoring.scorer._scorers if isinstance(scoring.scorer, _MultimetricScorer) else None
            failed = scoring.error_score if names is None else dict.fromkeys(names, scoring.error_score)
            return row | dict.fromkeys(kinds, failed)

        def score(X: Any, y: Any, params: Mapping[str, Any]) -> Any:
            return _score(estimator, X, y, scoring.scorer, dict(params), scoring.error_score)

        started = time.perf_counter()
        row["test_scores"] = score(fold.X_test, fold.y_test, scoring.test_params[place])
        row["score_time"] = time.perf_counter() - started
        if scoring.with_training_rows:
            row["train_scores"] = score(fold.X_train, fold.y_train, scoring.train_params[place])
        return row

    def _mean(self, rows: Sequence[Mapping[str, Any]]) -> float:
        """Return the mean test score of the folds, of the metric that ranks candidates."""
        scores = [row["test_scores"] for row in rows]
        if isinstance(scores[0], dict):
            if self.scoring.metric not in scores[0]:
                raise InvalidParameterError(
                    "refit must name the score that ranks candidates, "
                    f"one of {', '.join(map(repr, scores[0]))}, but got {self.scoring.metric!r}"
                )
            scores = [score[self.scoring.metric] for score in scores]
        return float(np.mean([float(score) for score in scores]))
