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


@dataclass(frozen=True)
class Scoring:
    """Scorers of fitted estimators.

    Attributes
    ----------
    scorer
        A scorer, several of them, or a function.
    metric
        Name of the score that ranks candidates, if there are several.
    error_score
        ``"raise"``, or the score of failed fits.
    with_training_rows
        Whether the training rows are scored too.
    """

    scorer: Any
    metric: Any
    error_score: str | float
    with_training_rows: bool


class PackedEvaluation:
    """Evaluation of batches of candidates on prepared folds.

    Parameters
    ----------
    folds, scoring, candidates
        Prepared folds, scorers, and the source of candidates.
    reduction_factor
        One candidate in this many advances at each rung; None trains all of them to the end.
    workers, n_workers
        Threads or processes of the shards, and the number of shards that run at once.
    interrupts
        Holds interrupts back except while networks are trained.
    verbose
        Above 0, batches are printed; above 1, also scores.

    Attributes
    ----------
    rows
        Scores of each candidate on each fold, at each rung.
    evaluated
        Candidate, rung and epochs of each ``len(folds)`` rows.
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
        self.evaluated: list[tuple[SearchCandidate, int, int]] = []
        self.n_candidates = 0
        self._batch_size = 0
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
            self._batch_size = len(batch)
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
        alive = dict(enumerate(batch))
        for rung, until in enumerate(self._ladder()):
            is_last, epochs = until == self._total, int(max(until))
            with self.interrupts.allowed():
                rows = self._train(loop, f"rung-{rung}", alive, until)
            for number, candidate in alive.items():
                self.rows += rows[number]
                self.evaluated.append((candidate, rung, epochs))
            if self.reduction_factor is None and not needs_scores:
                return
            means = {number: self._mean(rows[number]) for number in alive}
            chosen = [] if is_last else self._advancing(rung, rows, means)
            for number, candidate in alive.items():
                if not is_last:
                    candidate.report(means[number], epochs)
                if is_last or not math.isfinite(means[number]):
                    self.candidates.tell(candidate, means[number])
                elif number not in chosen:
                    self.candidates.prune(candidate)
            if not chosen:
                return
            alive = {number: alive[number] for number in chosen}
            loop.advance({member for number in alive for member in self._members(number)})

    def _advancing(
        self, rung: int, rows: Mapping[int, Sequence[Mapping[str, Any]]], means: Mapping[int, float]
    ) -> list[int]:
        """Return the candidates that advance from a rung, in their order."""
        assert self.reduction_factor is not None
        # a candidate that failed on a fold cannot be trained further, whatever its `error_score`
        errors = {
            number: math.inf if any(row["fit_error"] for row in rows[number]) else -mean
            for number, mean in means.items()
        }
        past = self._past.setdefault(rung, [])
        chosen = sorted(advancing(errors, past, self.reduction_factor))
        past += errors.values()
        return chosen

    def _members(self, number: int) -> range:
        """Return the numbers of a candidate's networks, one for each fold."""
        return range(number * len(self.folds), (number + 1) * len(self.folds))

    def _train(
        self, loop: RungLoop, key: str, alive: Mapping[int, SearchCandidate], until: Sequence[float]
    ) -> dict[int, list[dict[str, Any]]]:
        """Train and score candidates on all folds; return the rows of each, fold by fold."""
        n_folds = len(self.folds)
        rows: dict[int, list[dict[str, Any]]] = {number: [{}] * n_folds for number in alive}

        def score(number: int, place: int, outcome: MemberOutcome | None) -> None:
            row = self._row(self.folds[place], alive[number].fields, outcome)
            rows[number][place] = row
            if self.verbose > 1:
                print(f"[CV {place + 1}/{n_folds}] {alive[number].params} {row['test_scores']}")

        cohorts = []
        for place, fold in enumerate(self.folds):
            if fold.data is None:
                for number in alive:
                    score(number, place, None)
                continue
            configs = {self._members(number)[place]: fold.config(one.fields) for number, one in alive.items()}
            cohorts.append(Cohort(place, configs, fold.data, until[place], self._total[place]))
        # scored as they arrive, because models and predictions of all candidates would fill the memory
        for shard in loop.train(key, cohorts):
            for outcome in shard.members:
                score(outcome.trial // n_folds, shard.cohort.number, outcome)
                outcome.prediction = None
                if shard.cohort.is_last:
                    outcome.state = None
        return rows

    def _row(self, fold: Fold, fields: Mapping[str, Any], outcome: MemberOutcome | None) -> dict[str, Any]:
        """Score one candidate on one fold; return scores and times as scikit-learn's ``cross_validate``."""
        scorer, error_score = self.scoring.scorer, self.scoring.error_score
        row: dict[str, Any] = {
            "fit_error": None,
            "n_test_samples": _num_samples(fold.X_test),
            "fit_time": fold.seconds / self._batch_size + (0.0 if outcome is None else outcome.seconds),
            "score_time": 0.0,
        }
        try:
            estimator = fold.fitted(fields, outcome)
        except Exception as error:
            if error_score == "raise":
                raise
            row["fit_error"] = "".join(format_exception(error))
            kinds = ("test_scores", "train_scores")[: 1 + self.scoring.with_training_rows]
            is_multiple = isinstance(scorer, _MultimetricScorer)
            failed = dict.fromkeys(scorer._scorers, error_score) if is_multiple else error_score
            return row | dict.fromkeys(kinds, failed)
        started = time.perf_counter()
        row["test_scores"] = _score(
            estimator, fold.X_test, fold.y_test, scorer, fold.test_params, error_score
        )
        row["score_time"] = time.perf_counter() - started
        if self.scoring.with_training_rows:
            row["train_scores"] = _score(
                estimator, fold.X_train, fold.y_train, scorer, fold.train_params, error_score
            )
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
