"""Progress of a search: reports, and the reporter that passes them to callbacks."""

from __future__ import annotations

import heapq
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from parallelmlp_search.search.run.messages import LOGGER, counted
from parallelmlp_search.search.run.trial import Trial, summarise

if TYPE_CHECKING:
    from parallelmlp_search.engine import ExecutionPath
    from parallelmlp_search.search.run.budget import Clock, Throughput
    from parallelmlp_search.selection import Metric

N_STANDINGS = 10


@dataclass(frozen=True)
class Standing:
    """One line of the live leaderboard."""

    trial: int
    score: float
    epochs: float
    rung: int
    summary: str
    """Short text of the configuration, such as ``128-128 silu lr 0.004``."""


@dataclass(frozen=True)
class Progress:
    """Report of a running search.

    Attributes
    ----------
    stage
        ``preparing``, ``screening``, ``cross-fitting``, ``selecting``, ``refitting``, ``saving`` or
        ``finished``.
    path, advice
        Code path that trains the networks, and how to get a faster one, see
        :class:`~parallelmlp_search.engine.ExecutionPath`.
    metric, best_score
        Name of the metric, and the best score so far in its own orientation or None.
    rung_completed
        True for the report that ends a rung, or cross-fitting.
    round, rung, n_rungs
        Round of screening, the highest rung that trains in it, and the number of rungs.
    alive, n_trials, n_planned
        Members in training; trials so far; trials of the plan without a time limit, else 0.
    done, total
        Shards of this round that are finished, and all of them.
    member_steps_per_second
        Training steps per second, summed over members.
    elapsed_seconds, seconds_left
        Seconds since the start, and until the time limit or None.
    forecast_seconds
        Without a time limit, predicted seconds until the end, or None while it is too early to tell.
    detail
        Part of a stage that takes long, such as ``compiling training loops``.
    standings
        Best trials.
    """

    stage: str
    metric: str
    rung_completed: bool = False
    round: int = 0
    rung: int = 0
    n_rungs: int = 0
    alive: int = 0
    n_trials: int = 0
    n_planned: int = 0
    done: int = 0
    total: int = 0
    best_score: float | None = None
    member_steps_per_second: float = 0.0
    elapsed_seconds: float = 0.0
    seconds_left: float | None = None
    forecast_seconds: float | None = None
    standings: tuple[Standing, ...] = ()
    path: str = ""
    advice: str = ""
    detail: str = ""


Callback = Callable[[Progress], object]
"""Called with every report. If it returns True, screening ends; finished training is kept."""

SecondsLeft = Callable[[str, Sequence[Trial], dict[str, Any]], float | None]
"""Seconds that are left, from stage, trials and other fields of a report."""


class Reporter:
    """Makes reports and passes them to callbacks.

    Parameters
    ----------
    callbacks, metric
        Receivers of the reports; metric of the search.
    clock, throughput
        Time and steps so far.
    path
        Code path that trains the networks, or None.

    Attributes
    ----------
    stopped
        True once a callback has asked to end screening.
    forecast, n_planned
        Forecast of the time that is left, or None; trials of the plan.
    """

    def __init__(
        self,
        callbacks: Sequence[Callback],
        metric: Metric,
        clock: Clock,
        throughput: Throughput,
        path: ExecutionPath | None = None,
    ) -> None:
        self.callbacks = tuple(callbacks)
        self.metric = metric
        self.clock = clock
        self.throughput = throughput
        self.path = path
        self.stopped = False
        self.forecast: SecondsLeft | None = None
        self.n_planned = 0
        self._training_since = clock.elapsed

    def start_training(self) -> None:
        """Count member-steps per second from now on."""
        self._training_since = self.clock.elapsed

    def report(self, stage: str, trials: Sequence[Trial] = (), **values: Any) -> None:
        """Send one report.

        Parameters
        ----------
        stage, values
            Fields of :class:`Progress`.
        trials
            All trials.
        """
        if not self.callbacks and not LOGGER.isEnabledFor(logging.INFO):
            return
        scored = [trial for trial in trials if trial.error < float("inf")]
        best = heapq.nsmallest(N_STANDINGS, scored, key=lambda trial: trial.standing)
        elapsed = self.clock.elapsed
        steps = self.throughput.member_steps - self.throughput.recalled_steps
        progress = Progress(
            stage=stage,
            metric=self.metric.name,
            best_score=self.metric.to_score(min(trial.error for trial in scored)) if scored else None,
            n_trials=len(trials),
            member_steps_per_second=steps / max(1e-9, elapsed - self._training_since),
            elapsed_seconds=elapsed,
            seconds_left=None if self.clock.limit is None else max(0.0, self.clock.left),
            forecast_seconds=None if self.forecast is None else self.forecast(stage, trials, values),
            n_planned=self.n_planned,
            standings=tuple(
                Standing(
                    trial.number,
                    self.metric.to_score(trial.error),
                    trial.records[-1].epochs,
                    trial.rung,
                    summarise(trial.config),
                )
                for trial in best
            ),
            path="" if self.path is None else self.path.name,
            advice="" if self.path is None else self.path.advice,
            **values,
        )
        _log(progress)
        for callback in self.callbacks:
            if callback(progress) is True:
                self.stopped = True


def _log(progress: Progress) -> None:
    """Log the end of a rung or of cross-fitting, or the begin of another stage; shards for debugging."""
    best = ""
    if progress.best_score is not None:
        best = f", best {progress.metric} {progress.best_score:.5g}"
    if progress.rung_completed and progress.stage == "screening":
        LOGGER.info(
            "screening, round %d, rung %d of %d: %s, %d advance%s",
            progress.round + 1,
            min(progress.rung + 1, progress.n_rungs),
            progress.n_rungs,
            counted(progress.n_trials, "trial"),
            progress.alive,
            best,
        )
    elif progress.rung_completed:
        LOGGER.info("%s: %s trained%s", progress.stage, counted(progress.alive, "finalist"), best)
    elif progress.stage in ("screening", "cross-fitting"):
        LOGGER.debug("%s: %d of %d shards", progress.stage, progress.done, progress.total)
    elif progress.detail:
        LOGGER.info("%s: %s", progress.stage, progress.detail)
    elif progress.stage not in ("preparing", "finished"):
        LOGGER.info("%s", progress.stage)
