"""Screening: thousands of trials on rungs, with compaction and refill, until few are left.

A round trains every cohort that waits, fresh trials at the lowest rung and promoted ones at theirs, as one
set of shards. Then each cohort is cut down, its survivors' states move up, and the freed room is filled with
new trials: fresh ones first, then draws near the leaders.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Protocol

from parallelmlp_search.distribute import MemberOutcome, ShardData
from parallelmlp_search.search.problem.problem import Problem
from parallelmlp_search.search.problem.settings import SearchSettings
from parallelmlp_search.search.proposals.proposals import Draws
from parallelmlp_search.search.run.budget import Throughput
from parallelmlp_search.search.run.journal import Journal
from parallelmlp_search.search.run.reporting import Reporter
from parallelmlp_search.search.run.trial import RungRecord, Trial, TrialState
from parallelmlp_search.search.screening.rung_loop import Cohort, RungLoop
from parallelmlp_search.search.screening.rungs import advancing, survivors
from parallelmlp_search.selection import Metric

__all__ = ["MAX_TRIALS", "Screener", "Screening", "ScreeningPlan"]

MAX_TRIALS = 20_000

SMALLEST_EXTENSION = 8

PATIENCE = 4
"""Extensions in a row without a better leader after which screening leaves its time to the finalists."""


@dataclass(frozen=True)
class ScreeningPlan:
    """How much to screen.

    Attributes
    ----------
    rungs
        Epochs at which members are judged.
    n_fresh, n_refined
        Trials to draw from the whole space, and near the leaders.
    capacity
        Members that may be alive at once.
    deadline
        Reading of the monotonic clock at which screening ends, or None.
    fills_time
        Whether more trials are drawn as long as the deadline is far.
    """

    rungs: tuple[float, ...]
    n_fresh: int
    n_refined: int
    capacity: int
    deadline: float | None = None
    fills_time: bool = False


class Screener(Protocol):
    """Who else may screen: several workers that share the trials."""

    def agree(
        self, problem: Problem, settings: SearchSettings, metric: Metric, rungs: tuple[float, ...]
    ) -> tuple[float, ...]:
        """Make sure that all mean the same question, and return the rungs that they share."""
        ...

    def screen(
        self,
        data: ShardData,
        settings: SearchSettings,
        plan: ScreeningPlan,
        throughput: Throughput,
        reporter: Reporter,
    ) -> tuple[list[Trial], list[str]]:
        """All trials, numbered from 0, and sentences on what a deadline left out."""
        ...


class Screening:
    """Runs the rungs and keeps every trial.

    Attributes
    ----------
    trials
        All trials by number.
    cut
        Sentences on what the deadline left out.
    """

    def __init__(
        self,
        data: ShardData,
        settings: SearchSettings,
        plan: ScreeningPlan,
        journal: Journal,
        throughput: Throughput,
        reporter: Reporter,
    ) -> None:
        self.data = data
        self.settings = settings
        self.plan = plan
        self.journal = journal
        self.throughput = throughput
        self.reporter = reporter
        self.trials: list[Trial] = []
        self.cut: list[str] = []
        self._loop = RungLoop(journal)
        self._past: list[list[float]] = [[] for _ in plan.rungs]
        self._leaders: list[float] = []  # lowest error of full training before each extension
        self._draws = Draws(
            settings,
            plan.n_fresh,
            plan.n_refined,
            len(plan.rungs) - 1,
            journal,
            plan.deadline,
            # trials that are counted and not timed are drawn as the space says
            cost=None if plan.deadline is None else data.epoch_seconds,
        )

    def run(self) -> list[Trial]:
        """Screen until no trial waits and none is left to draw, or until time is up."""
        waiting: dict[int, list[int]] = {}
        number = 0
        while True:
            new = self._draw(number, sum(len(cohort) for cohort in waiting.values()))
            if new:
                waiting[0] = [trial.number for trial in new]
            if not waiting:
                break
            waiting = self._round(number, waiting)
            number += 1
            # kept, so that a resumed run ends its screening where this one did
            if self.journal.entry(f"ended-{number}", self._is_over):
                break
        for trial in self.trials:
            if trial.state is TrialState.WAITING:
                trial.state = TrialState.PRUNED
        return self.trials

    def _is_over(self) -> bool:
        return self._loop.is_incomplete or self._time_is_up() or self.reporter.stopped

    # ------------------------------------------------------------------ drawing

    def _draw(self, number: int, alive: int) -> list[Trial]:
        """New trials for a round: as many as the freed room and the budget allow."""
        wanted = due = self._draws.wanted(self.plan.capacity - alive)
        if due == 0 and not alive and self.plan.fills_time:
            self._draws.extend(self.journal.entry(f"extend-{number}", self._extension))
            wanted = due = self._draws.wanted(self.plan.capacity)
        if self.plan.deadline is not None:
            wanted = self.journal.entry(f"draw-{number}", lambda: self._affordable(due))
        if wanted <= 0:
            return []
        new = [
            Trial(len(self.trials) + place, config, origin, number, n_parameters=self._size(config))
            for place, (config, origin) in enumerate(self._draws.take(number, wanted, self.trials))
        ]
        self.trials.extend(new)
        return new

    def _size(self, config: object) -> int:
        return self.data.architecture(config).n_parameters  # type: ignore[arg-type]

    def _extension(self) -> int:
        """Trials beyond the plan that there is time for, none if they were hardly worth a round.

        None either once the last ones have not brought a better leader.
        """
        self._leaders.append(min(self._past[-1], default=math.inf))
        if len(self._leaders) > PATIENCE and self._leaders[-1] >= self._leaders[-1 - PATIENCE]:
            return 0
        room = min(self.plan.capacity, MAX_TRIALS - len(self.trials))
        extension = self._affordable(room) // 2  # later rungs take the other half
        return extension if extension >= SMALLEST_EXTENSION else 0

    def _affordable(self, wanted: int) -> int:
        """Cut a draw down to what can still be trained through the first rung before the deadline."""
        if self.plan.deadline is None or not self.trials:
            return wanted
        left = self.plan.deadline - time.monotonic()
        sample = self.trials[-200:]
        seconds = sum(self.data.epoch_seconds(trial.config) for trial in sample) / len(sample)
        # the first rung, and the way up of the few that earn it
        each = self.throughput.wall_seconds(seconds * self.plan.rungs[0] * 2.0)
        return max(0, min(wanted, int(0.8 * left / max(each, 1e-9))))

    def _time_is_up(self) -> bool:
        return self.plan.deadline is not None and time.monotonic() >= self.plan.deadline

    # ------------------------------------------------------------------ one round

    def _round(self, number: int, waiting: dict[int, list[int]]) -> dict[int, list[int]]:
        """Train every cohort to its rung; return the trials that advance, by their next rung."""
        cohorts = [self._cohort(rung, waiting[rung]) for rung in sorted(waiting)]
        scored: dict[int, dict[int, float]] = {rung: {} for rung in waiting}
        done = total = 1
        shards = self._loop.train(f"round-{number:03d}", cohorts, deadline=self.plan.deadline, min_shards=1)
        for shard in shards:
            rung, done, total = shard.cohort.number, shard.done, shard.total
            for member in shard.members:
                self._record(number, rung, member)
                scored[rung][member.trial] = self.trials[member.trial].error
            self._report(number, waiting, done, total)
        going_on: dict[int, list[int]] = {}
        for rung in sorted(waiting):
            cohort = self._advance(rung, scored[rung])
            if cohort:
                going_on[rung + 1] = cohort
        alive = {trial for cohort in going_on.values() for trial in cohort}
        self._loop.advance(alive)
        missing = self._loop.missing
        if missing:
            self.cut.append(
                f"{missing} trials of round {number} were left out when the time for screening was up"
            )
        self.journal.log("round", round=number, trials=len(self.trials), advanced=len(alive), missing=missing)
        self._report(number, waiting, done, total, rung_completed=True, alive=len(alive))
        return going_on

    def _cohort(self, rung: int, numbers: list[int]) -> Cohort:
        return Cohort(
            rung,
            {number: self.trials[number].config for number in numbers},
            self.data,
            until_epoch=self.plan.rungs[rung],
            total_epochs=self.plan.rungs[-1],
            room=survivors(len(numbers) + len(self._past[rung]), self.settings.reduction_factor),
        )

    def _record(self, number: int, rung: int, member: MemberOutcome) -> None:
        trial = self.trials[member.trial]
        trial.records.append(
            RungRecord(number, rung, member.epochs, member.error, member.train_loss, member.seconds)
        )
        if member.failure is not None:
            trial.state = TrialState.FAILED
            trial.failure = member.failure

    def _advance(self, rung: int, scored: dict[int, float]) -> list[int]:
        """Trials of a cohort that advance to the next rung; the others are pruned."""
        past = self._past[rung]
        last = rung == len(self.plan.rungs) - 1
        chosen = [] if last else advancing(scored, past, self.settings.reduction_factor)
        past.extend(error for _, error in sorted(scored.items()))
        for number in scored.keys() - set(chosen):
            if self.trials[number].state is not TrialState.FAILED:
                self.trials[number].state = TrialState.PRUNED
        return chosen

    def _report(
        self,
        number: int,
        waiting: dict[int, list[int]],
        done: int,
        total: int,
        *,
        rung_completed: bool = False,
        alive: int | None = None,
    ) -> None:
        self.reporter.report(
            "screening",
            self.trials,
            rung_completed=rung_completed,
            round=number,
            rung=max(waiting),
            n_rungs=len(self.plan.rungs),
            alive=sum(len(cohort) for cohort in waiting.values()) if alive is None else alive,
            done=done,
            total=total,
        )
