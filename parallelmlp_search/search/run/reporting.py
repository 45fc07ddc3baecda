"""Tells callbacks where a search stands, and hears whether they want it to stop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from parallelmlp_search.search.run.budget import Clock, Throughput
from parallelmlp_search.search.run.progress import Callback, Progress, Standing
from parallelmlp_search.search.run.trial import Trial, summarise
from parallelmlp_search.selection import Metric

__all__ = ["Reporter"]

STANDINGS = 10


class Reporter:
    """Builds reports and passes them on.

    Attributes
    ----------
    stopped
        Whether a callback has asked for the end of screening.
    """

    def __init__(
        self, callbacks: Sequence[Callback], metric: Metric, clock: Clock, throughput: Throughput
    ) -> None:
        self.callbacks = tuple(callbacks)
        self.metric = metric
        self.clock = clock
        self.throughput = throughput
        self.stopped = False
        self._training_since = clock.elapsed

    def report(self, stage: str, trials: Sequence[Trial] = (), **values: Any) -> None:
        """Send one report; ``values`` are further fields of :class:`Progress`."""
        if not self.callbacks:
            return
        scored = [trial for trial in trials if trial.records and trial.error < float("inf")]
        leaders = sorted(scored, key=lambda trial: trial.standing)[:STANDINGS]
        elapsed = self.clock.elapsed
        training = max(1e-9, elapsed - self._training_since)
        steps = self.throughput.member_steps - self.throughput.recalled_steps
        progress = Progress(
            stage=stage,
            metric=self.metric.name,
            best_score=self.metric.to_score(min(trial.error for trial in scored)) if scored else None,
            n_trials=len(trials),
            member_steps_per_second=steps / training,
            elapsed_seconds=elapsed,
            seconds_left=None if self.clock.limit is None else max(0.0, self.clock.left),
            standings=tuple(
                Standing(
                    trial.number,
                    self.metric.to_score(trial.error),
                    trial.records[-1].epochs,
                    trial.rung,
                    summarise(trial.config),
                )
                for trial in leaders
            ),
            **values,
        )
        for callback in self.callbacks:
            if callback(progress) is True:
                self.stopped = True

    def start_training(self) -> None:
        """From now on member-steps count per second."""
        self._training_since = self.clock.elapsed
