"""Batches of candidates through the folds: trained packed, scored rung by rung, and told to whoever asked."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from traceback import format_exception
from typing import Any

import numpy as np
from sklearn.metrics._scorer import _MultimetricScorer
from sklearn.model_selection._validation import _score
from sklearn.utils.validation import _num_samples

from parallelmlp_search._signals import Interrupts
from parallelmlp_search.distribute import MemberOutcome
from parallelmlp_search.engine import MemberState
from parallelmlp_search.estimators.folds import Fold, train_on_folds
from parallelmlp_search.estimators.search_candidates import Candidate, Candidates
from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.search.run.workers import Workers
from parallelmlp_search.search.screening.rungs import advancing, ladder, ladder_cost

__all__ = ["PackedRounds", "Scoring"]


@dataclass(frozen=True)
class Scoring:
    """How fitted estimators are scored.

    Attributes
    ----------
    scorer
        A scorer, several of them, or a function.
    test_params, train_params
        What the scorer gets besides rows, for each fold.
    metric
        Which of several scores decides, if one of them does alone.
    error_score
        ``"raise"``, or the score of what fails.
    with_training_rows
        Whether training rows are scored too.
    """

    scorer: Any
    test_params: Sequence[Mapping[str, Any]]
    train_params: Sequence[Mapping[str, Any]]
    metric: Any
    error_score: str | float
    with_training_rows: bool

    def row(
        self, place: int, fold: Fold, fields: Mapping[str, Any], outcome: MemberOutcome | None
    ) -> dict[str, Any]:
        """One candidate on one fold, as scikit-learn notes it."""
        result: dict[str, Any] = {
            "fit_error": None,
            "n_test_samples": _num_samples(fold.X_test),
            "fit_time": 0.0 if outcome is None else outcome.seconds,
            "score_time": 0.0,
        }
        try:
            estimator = fold.fitted(fields, outcome)
        except Exception as error:
            if self.error_score == "raise":
                raise
            result["fit_error"] = "".join(format_exception(error))
            result["test_scores"] = self._failed()
            if self.with_training_rows:
                result["train_scores"] = self._failed()
            return result
        started = time.perf_counter()
        result["test_scores"] = self._score(estimator, fold.X_test, fold.y_test, self.test_params[place])
        result["score_time"] = time.perf_counter() - started
        if self.with_training_rows:
            result["train_scores"] = self._score(
                estimator, fold.X_train, fold.y_train, self.train_params[place]
            )
        return result

    def _score(self, estimator: Any, X: Any, y: Any, params: Mapping[str, Any]) -> Any:
        return _score(estimator, X, y, self.scorer, dict(params), self.error_score)

    def _failed(self) -> Any:
        if isinstance(self.scorer, _MultimetricScorer):
            return dict.fromkeys(self.scorer._scorers, self.error_score)
        return self.error_score

    def mean(self, rows: Sequence[Mapping[str, Any]]) -> float:
        """Mean test score of the folds, by the metric that decides."""
        scores = []
        for row in rows:
            score = row["test_scores"]
            if isinstance(score, dict):
                if self.metric not in score:
                    raise InvalidParameterError(
                        "refit must name the score that decides which candidates go on, "
                        f"one of {', '.join(map(repr, score))}, but got {self.metric!r}"
                    )
                score = score[self.metric]
            scores.append(float(score))
        return float(np.mean(scores))


class PackedRounds:
    """A search in progress.

    Parameters
    ----------
    folds
        Prepared splits.
    scoring
        How candidates are scored.
    candidates
        Where they come from.
    reduction_factor
        One in this many goes on at each rung, or None.
    workers, n_workers
        Where shards run, and how many at once.
    interrupts
        Holds interrupts back while candidates are asked and told.
    verbose
        Above 0, each batch is announced; above 1, each score.

    Attributes
    ----------
    rows
        One candidate on one fold each; candidate by candidate, rung by rung.
    tried
        The candidate of each ``len(folds)`` rows.
    rungs
        Number of the rung and its epochs, beside `tried`.
    n_candidates
        How many were tried.
    """

    def __init__(
        self,
        folds: Sequence[Fold],
        scoring: Scoring,
        candidates: Candidates,
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
        self.n_workers = n_workers
        self.interrupts = interrupts
        self.verbose = verbose
        self.rows: list[dict[str, Any]] = []
        self.tried: list[Candidate] = []
        self.rungs: list[tuple[int, int]] = []
        self.n_candidates = 0
        self._past: dict[int, list[float]] = {}
        self._decides = reduction_factor is not None
        epochs = [float(fold.training.max_epochs) if fold.training else 0.0 for fold in folds]
        # candidates of all folds are compared at the same epochs where some of them stop there
        self._total = epochs if reduction_factor is None else [max(epochs)] * len(folds)

    def run(self, at_once: int, *, asks_for_scores: bool) -> None:
        """All batches, of ``at_once`` candidates each."""
        self._decides = self._decides or asks_for_scores
        while batch := self.candidates.ask(at_once):
            if self.verbose > 0:
                n_folds = len(self.folds)
                print(
                    f"Fitting {n_folds} folds for each of {len(batch)} candidates, "
                    f"totalling {n_folds * len(batch)} fits"
                )
            self._expect(batch)
            self._climb(batch)
            self.n_candidates += len(batch)

    def _ladder(self) -> list[list[float]]:
        """Epochs of each rung, for each fold."""
        if self.reduction_factor is None or max(self._total) < 1:
            return [self._total]
        rungs = ladder(int(max(self._total)), self.reduction_factor)
        return [[epochs] * len(self.folds) for epochs in rungs]

    def _expect(self, batch: Sequence[Candidate]) -> None:
        """Start processes where the work is worth them, and put the rows where they find them."""
        seconds = 0.0
        for fold, epochs in zip(self.folds, self._total, strict=True):
            if (data := fold.data) is not None:
                seconds += epochs * sum(data.epoch_seconds(fold.config(one.fields)) for one in batch)
        if self.reduction_factor is not None and max(self._total) > 0:
            rungs = [rung[0] for rung in self._ladder()]
            seconds *= ladder_cost(rungs, self.reduction_factor) / rungs[-1]
        self.workers.expect(seconds)
        for fold in self.folds:
            if fold.training is not None and fold.training.part is not None:
                part = fold.training.part
                shared = self.workers.share(part.data)
                fold.training = replace(fold.training, part=replace(part, data=shared))

    def _climb(self, batch: Sequence[Candidate]) -> None:
        """One batch up the ladder."""
        states: dict[tuple[int, int], MemberState] = {}
        alive = list(range(len(batch)))
        ladder_of_folds = self._ladder()
        for rung, until in enumerate(ladder_of_folds):
            last = rung == len(ladder_of_folds) - 1
            with self.interrupts.allowed():
                rows = self._rung(batch, alive, states, until)
            for number in alive:
                self.rows += rows[number]
                self.tried.append(batch[number])
                self.rungs.append((rung, int(max(until))))
            if not self._decides:
                for number in alive:
                    self.candidates.tell(batch[number], math.nan, pruned=False)
                return
            means = {number: self.scoring.mean(rows[number]) for number in alive}
            if last:
                for number in alive:
                    self.candidates.tell(batch[number], means[number], pruned=False)
                return
            assert self.reduction_factor is not None
            for number in alive:
                self.candidates.report(batch[number], means[number], int(max(until)))
            errors = {number: -mean for number, mean in means.items()}
            past = self._past.setdefault(rung, [])
            onward = set(advancing(errors, past, self.reduction_factor))
            past += errors.values()
            for number in alive:
                if number not in onward:
                    self.candidates.tell(batch[number], means[number], pruned=True)
            alive = [number for number in alive if number in onward]
            for key in [key for key in states if key[0] not in onward]:
                del states[key]
            if not alive:
                return

    def _rung(
        self,
        batch: Sequence[Candidate],
        alive: Sequence[int],
        states: dict[tuple[int, int], MemberState],
        until: Sequence[float],
    ) -> dict[int, list[dict[str, Any]]]:
        """Train and score; the rows of each candidate, fold by fold."""
        fields = {number: batch[number].fields for number in alive}
        rows: dict[int, list[dict[str, Any]]] = {number: [{}] * len(self.folds) for number in alive}

        def score(number: int, place: int, outcome: MemberOutcome | None) -> None:
            fold = self.folds[place]
            row = self.scoring.row(place, fold, fields[number], outcome)
            row["fit_time"] += fold.seconds / len(batch)
            rows[number][place] = row
            if self.verbose > 1:
                print(f"[CV {place + 1}/{len(self.folds)}] {batch[number].params} {row['test_scores']}")

        for place, fold in enumerate(self.folds):
            if fold.data is None:
                for number in alive:
                    score(number, place, None)
        trained = train_on_folds(
            self.folds, fields, states, until=until, total=self._total, n_workers=self.n_workers
        )
        # scored as they come, so that only the scores of those that are done take room
        for number, place, outcome in trained:
            score(number, place, outcome)
            outcome.prediction = None
            if outcome.state is not None and (number, place) not in states:
                outcome.state = None
        return rows
