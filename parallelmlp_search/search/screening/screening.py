"""Screening: thousands of trials on rungs, with compaction and refill, until few are left.

A round trains every cohort that waits, fresh trials at the lowest rung and promoted ones at theirs, as one
set of shards. Then each cohort is cut down, its survivors' states move up, and the freed room is filled with
new trials: fresh ones first, then draws near the leaders.
"""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from parallelmlp_search.distribute import (
    MemberOutcome,
    ShardData,
    ShardOutcome,
    ShardTask,
    cut_work,
    return_free_memory,
)
from parallelmlp_search.engine import MemberState
from parallelmlp_search.search.problem.problem import Problem
from parallelmlp_search.search.problem.settings import SearchSettings
from parallelmlp_search.search.proposals.proposals import Draws
from parallelmlp_search.search.run.budget import Throughput
from parallelmlp_search.search.run.journal import Journal
from parallelmlp_search.search.run.reporting import Reporter
from parallelmlp_search.search.run.trial import RungRecord, Trial, TrialState
from parallelmlp_search.search.screening.rungs import promoted, survivors
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
        cache_scale: int = 1,
    ) -> None:
        self.data = data
        self.settings = settings
        self.plan = plan
        self.journal = journal
        self.throughput = throughput
        self.reporter = reporter
        self.cache_scale = cache_scale
        self.trials: list[Trial] = []
        self.cut: list[str] = []
        self._states: dict[int, MemberState] = {}
        self._past: list[list[float]] = [[] for _ in plan.rungs]
        self._leaders: list[float] = []  # lowest error of full training before each extension
        self._cut_short = False
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
            if self.journal.decide(f"ended-{number}", self._is_over):
                break
        for trial in self.trials:
            if trial.state is TrialState.WAITING:
                trial.state = TrialState.PRUNED
        return self.trials

    def _is_over(self) -> bool:
        return self._cut_short or self._time_is_up() or self.reporter.stopped

    # ------------------------------------------------------------------ drawing

    def _draw(self, number: int, alive: int) -> list[Trial]:
        """New trials for a round: as many as the freed room and the budget allow."""
        wanted = due = self._draws.wanted(self.plan.capacity - alive)
        if due == 0 and not alive and self.plan.fills_time:
            self._draws.extend(self.journal.decide(f"extend-{number}", self._extension))
            wanted = due = self._draws.wanted(self.plan.capacity)
        if self.plan.deadline is not None:
            wanted = self.journal.decide(f"draw-{number}", lambda: self._affordable(due))
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
        """Train every cohort to its rung; return who goes on to which rung."""
        key = f"round-{number:03d}"
        remembered = self.journal.recall_round(key)
        scored: dict[int, dict[int, float]] = {rung: {} for rung in waiting}
        contenders = {rung: _Contenders(self._room(rung, len(cohort))) for rung, cohort in waiting.items()}
        rung_of = {trial: rung for rung, cohort in waiting.items() for trial in cohort}
        kept = ShardOutcome(key)

        def strip(outcome: ShardOutcome) -> None:
            for member in outcome.members:
                contenders[rung_of[member.trial]].offer(member)

        if remembered is not None:
            outcomes: Iterator[ShardOutcome] = iter([remembered])
            total = 1
        else:
            tasks = self._tasks(key, waiting)
            total = len(tasks)
            outcomes = self.journal.run(self._in_time(tasks), strip)
        self._states.clear()
        for done, outcome in enumerate(outcomes, start=1):
            self.throughput.add(outcome, remembered=remembered is not None)
            for member in outcome.members:
                rung = rung_of[member.trial]
                self._record(number, rung, member)
                scored[rung][member.trial] = self.trials[member.trial].error
                if self.trials[member.trial].state is TrialState.FAILED:
                    member.state = None
            kept.members.extend(outcome.members)
            kept.member_steps += outcome.member_steps
            kept.seconds += outcome.seconds
            kept.predicted_seconds += outcome.predicted_seconds
            kept.cut = kept.cut or outcome.cut
            self._report(number, waiting, done, total)
        going_on: dict[int, list[int]] = {}
        for rung in sorted(waiting):
            cohort = self._cut_down(rung, scored[rung])
            if cohort:
                going_on[rung + 1] = cohort
        moving = {trial for cohort in going_on.values() for trial in cohort}
        for member in kept.members:
            if member.trial not in moving:
                member.state = None
            elif member.state is not None:
                self._states[member.trial] = member.state
        missing = len(rung_of) - len(kept.members)
        if missing:
            self.cut.append(
                f"{missing} trials of round {number} were left out when the time for screening was up"
            )
        # members of a round that time has cut stand at different steps and cannot go on together
        self._cut_short = kept.cut = kept.cut or missing > 0
        if remembered is None:
            kept.members.sort(key=lambda member: member.trial)
            self.journal.close_round(key, kept, f"round-{number - 1:03d}" if number else None)
        self.journal.log(
            "round", round=number, trials=len(self.trials), promoted=len(moving), missing=missing
        )
        return_free_memory()
        self._report(number, waiting, total, total, rung_completed=True, alive=len(moving))
        return going_on

    def _room(self, rung: int, cohort: int) -> int:
        return survivors(cohort + len(self._past[rung]), self.settings.reduction_factor)

    def _tasks(self, key: str, waiting: dict[int, list[int]]) -> list[ShardTask]:
        """Shards of a round, highest rung first: the longest work begins earliest."""
        tasks = []
        for rung in sorted(waiting, reverse=True):
            trials = [self.trials[number] for number in waiting[rung]]
            cuts = cut_work([trial.config for trial in trials], self.data, cache_scale=self.cache_scale)
            for place, cut in enumerate(cuts):
                members = [trials[index] for index in cut]
                tasks.append(
                    ShardTask(
                        key=f"{key}-{rung}-{place:04d}",
                        trials=tuple(trial.number for trial in members),
                        configs=tuple(trial.config for trial in members),
                        states=tuple(self._states.get(trial.number) for trial in members),
                        data=self.data,
                        until_epoch=self.plan.rungs[rung],
                        total_epochs=self.plan.rungs[-1],
                        deadline=self.plan.deadline,
                    )
                )
        return tasks

    def _in_time(self, tasks: list[ShardTask]) -> Iterator[ShardTask]:
        """Tasks until the time for screening is up; the first always runs."""
        for place, task in enumerate(tasks):
            if place > 0 and self._time_is_up():
                return
            yield task

    def _record(self, number: int, rung: int, member: MemberOutcome) -> None:
        trial = self.trials[member.trial]
        trial.records.append(
            RungRecord(number, rung, member.epochs, member.error, member.train_loss, member.seconds)
        )
        if member.failure is not None:
            trial.state = TrialState.FAILED
            trial.failure = member.failure

    def _cut_down(self, rung: int, scored: dict[int, float]) -> list[int]:
        """Promote from a cohort and prune the others."""
        past = self._past[rung]
        last = rung == len(self.plan.rungs) - 1
        chosen = [] if last else promoted(scored, past, self.settings.reduction_factor)
        past.extend(error for _, error in sorted(scored.items()))
        staying = set(chosen)
        for number in scored:
            trial = self.trials[number]
            if number not in staying and trial.state is not TrialState.FAILED:
                trial.state = TrialState.PRUNED
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


class _Contenders:
    """Keeps the states of those who can still be promoted, and lets go of all others at once.

    Memory then holds one state per promotion, not one per trial.
    """

    def __init__(self, room: int) -> None:
        self.room = room
        self._heap: list[tuple[float, int, Callable[[], None]]] = []

    def offer(self, member: MemberOutcome) -> None:
        """Take a member in; whoever falls out of the best ``room`` loses its state."""

        def drop() -> None:
            member.state = None

        if member.failure is not None or not math.isfinite(member.error):
            drop()
            return
        # the worst is on top: largest error first, then the highest number
        heapq.heappush(self._heap, (-member.error, -member.trial, drop))
        if len(self._heap) > self.room:
            heapq.heappop(self._heap)[2]()
