"""Ensembles within a limit of the latency: fewer networks, faster ones, or those of fewer folds."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from parallelmlp_search._checks import duration_text
from parallelmlp_search.inference.latency import seconds_of
from parallelmlp_search.search.finalists.cross_fitting import CrossFit
from parallelmlp_search.search.finalists.model import ensemble_model
from parallelmlp_search.search.problem.latency import LatencyMeter
from parallelmlp_search.search.run.journal import Journal
from parallelmlp_search.selection import CostLimit, GreedyEnsemble, averaging_gain

MAX_TRIES = 4
"""Selections until the measured latency of the whole model is within the limit."""

MARGIN = 0.95
"""Share of the limit that a repeated selection aims at."""

Select = Callable[[CostLimit], GreedyEnsemble]


@dataclass(frozen=True)
class Latency:
    """Latency of a model that was selected under a limit.

    Attributes
    ----------
    seconds_per_row
        Measured on this machine with one thread, from a table of plain numbers and categories.
    limit
        Most seconds per row.
    batch
        Rows that are predicted at once.
    networks
        Seconds per row of each finalist alone with the networks of ``n_folds``, encoding included.
    n_folds
        Folds whose networks the model has.
    """

    seconds_per_row: float
    limit: float
    batch: int
    n_folds: int
    networks: tuple[float, ...] = field(default=(), repr=False)

    def to_dict(self) -> dict[str, float]:
        """JSON-able values, without those of single networks, which the leaderboard has."""
        return {name: value for name, value in vars(self).items() if name != "networks"}


@dataclass(frozen=True)
class _Candidate:
    """Ensemble of the networks of some folds, and its error if all folds are averaged as far as they go."""

    ensemble: GreedyEnsemble
    n_folds: int
    error: float
    limit: CostLimit
    """Seconds per row of each finalist and of the sections of the inputs."""
    reading: float


class LimitedSelection:
    """Selects the ensemble and the number of folds within a limit.

    The networks of all folds make the most accurate model and take the longest. The same time can go into
    more configurations with the networks of fewer folds; the lowest expected error decides.

    Parameters
    ----------
    fit
        Finalists.
    meter
        Limit and measurements.
    journal
        Keeps what was measured.
    select
        Selects an ensemble within a limit.
    """

    def __init__(self, fit: CrossFit, meter: LatencyMeter, journal: Journal, select: Select) -> None:
        self._fit, self._meter, self._journal, self._select = fit, meter, journal, select
        n_folds = len(fit.parts)
        self._counts = sorted({n_folds, -(-n_folds // 2), 1}, reverse=True)

    def run(self) -> tuple[GreedyEnsemble, Latency]:
        """Return the ensemble and its latency, which exceeds the limit only if no finalist alone keeps to it.

        Returns
        -------
        (GreedyEnsemble, Latency)
        """
        measured = self._journal.entry("latency", self._measure)
        target, best, seconds = self._meter.limit, None, math.inf
        for attempt in range(MAX_TRIES):
            found = self._best(measured, target)
            candidate = found or self._fastest(measured)
            took = self._journal.entry(f"took-{attempt}", partial(self._model_seconds, candidate))
            if best is None or took <= seconds:
                best, seconds = candidate, took
            if seconds <= self._meter.limit or found is None:
                break
            target *= MARGIN * self._meter.limit / took
        assert best is not None
        alone = (best.limit.alone + best.reading).tolist()
        latency = Latency(seconds, self._meter.limit, self._meter.batch, best.n_folds, tuple(alone))
        return best.ensemble, latency

    def _measure(self) -> dict[str, Any]:
        trials, meter = self._fit.trials, self._meter
        shared = len({id(part.preprocessor.encoder_) for part in self._fit.parts}) == 1
        return {
            "networks": [meter.network(trial.config) for trial in trials],
            "uses": [list(meter.sections(trial.config)) for trial in trials],
            "encoding": {
                str(count): [encoding.reading, *encoding.sections]
                for count in self._counts
                for encoding in [meter.encoding(1 if shared else count)]
            },
        }

    def _limit(self, measured: dict[str, Any], n_folds: int, budget: float) -> tuple[CostLimit, float]:
        """Limit of finalists with the networks of some folds, and the seconds of reading a row."""
        reading, *sections = measured["encoding"][str(n_folds)]
        networks, parts = (torch.tensor(one, dtype=torch.float64) for one in (measured["networks"], sections))
        return CostLimit(n_folds * networks, budget - reading, torch.tensor(measured["uses"]), parts), reading

    @property
    def _finite(self) -> Tensor:
        return torch.isfinite(self._fit.scored_predictions).flatten(1).all(1)

    def _best(self, measured: dict[str, Any], budget: float) -> _Candidate | None:
        """Candidate with the lowest expected error; None if no finalist is within the limit."""
        found = []
        for n_folds in self._counts:
            limit, reading = self._limit(measured, n_folds, budget)
            if bool((limit.alone[self._finite] <= limit.budget).any()):
                ensemble = self._select(limit)
                error = self._expected_error(ensemble, n_folds)
                found.append(_Candidate(ensemble, n_folds, error, limit, reading))
        return min(found, key=lambda one: one.error, default=None)

    def _fastest(self, measured: dict[str, Any]) -> _Candidate:
        """Fastest finalist with the network of one fold."""
        limit, reading = self._limit(measured, 1, math.inf)
        limit = replace(limit, budget=float(limit.alone[self._finite].min()))
        return _Candidate(self._select(limit), 1, math.inf, limit, reading)

    def _expected_error(self, ensemble: GreedyEnsemble, n_folds: int) -> float:
        """Error on the rows of the selection, with the gain of averaging the networks of some folds."""
        fit = self._fit
        metric, rows = fit.preparation.metric, fit.scored_rows
        gain = averaging_gain(
            fit.scored_predictions, rows.target, metric, ensemble.weights, n_folds, weight=rows.weight
        )
        return float(metric.to_error(ensemble.score + gain))

    def _model_seconds(self, candidate: _Candidate) -> float:
        """Measured seconds per row of the model."""
        model = ensemble_model(self._fit, candidate.ensemble.weights, candidate.n_folds)
        return seconds_of(lambda: model.predictions_of_read(self._meter.table)) / self._meter.batch


def missed_limit(latency: Latency | None) -> list[str]:
    """Sentence on a limit that even the fastest finalist exceeds, or none.

    Parameters
    ----------
    latency
        Latency of the model; None without a limit.

    Returns
    -------
    list of str
    """
    if latency is None or latency.seconds_per_row <= latency.limit:
        return []
    return [
        f"the model takes {duration_text(latency.seconds_per_row)} per row in batches of {latency.batch:,}, "
        f"more than the limit of {duration_text(latency.limit)}: no finalist is faster"
    ]
