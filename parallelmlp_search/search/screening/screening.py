"""Screening: thousands of trials on rungs, until few are left.

A round trains all cohorts that wait, new trials at the lowest rung and advanced ones at theirs, as one set
of shards. Then the best of each cohort advance, and new trials replace the others: fresh ones first, then
proposals near the elites.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from parallelmlp_search.distribute import MemberOutcome
from parallelmlp_search.search.proposals.proposals import Proposals
from parallelmlp_search.search.run.budget import SearchPlan
from parallelmlp_search.search.run.context import SearchContext
from parallelmlp_search.search.run.trial import RungRecord, Trial, TrialState
from parallelmlp_search.search.screening.rung_loop import Cohort, RungLoop
from parallelmlp_search.search.screening.rungs import advancing, survivors

MAX_TRIALS = 20_000

MIN_EXTENSION = 8
"""Trials below which an extension of screening is not worth a round."""

PATIENCE = 4
"""Extensions without a lower error after which screening leaves its time to the finalists."""

N_TIMED_TRIALS = 200
"""Latest trials whose mean cost predicts that of the next."""


class Screener(Protocol):
    """Screening by several processes that share the trials."""

    def agree(self, context: SearchContext, rungs: tuple[float, ...]) -> tuple[float, ...]:
        """Check that all processes search the same problem, and return their common rungs."""
        ...

    def screen(self, context: SearchContext, plan: SearchPlan) -> tuple[list[Trial], list[str]]:
        """All trials, numbered from 0, and sentences on work that the deadline left out."""
        ...


class Screening:
    """Screening by this process.

    Parameters
    ----------
    context
        Context of the search.
    plan
        Rungs, trials, capacity, deadline.
    deadline
        Plans the deadline anew, or None to keep that of the plan.

    Attributes
    ----------
    trials
        All trials by number.
    left_out
        Sentences on work that the deadline left out.
    """

    def __init__(
        self, context: SearchContext, plan: SearchPlan, deadline: Callable[[], float] | None = None
    ) -> None:
        self.context = context
        self._deadline = deadline
        self.plan = plan
        self.trials: list[Trial] = []
        self.left_out: list[str] = []
        self._loop = RungLoop(context.journal)
        self._past: list[list[float]] = [[] for _ in plan.rungs]
        self._lowest: list[float] = []  # lowest error of full training before each extension
        self._proposals = Proposals(
            context.settings,
            context.journal,
            n_fresh=plan.n_fresh,
            n_refined=plan.n_refined,
            n_rounds=len(plan.rungs) - 1,
            deadline=plan.deadline,
            # cheap trials are preferred only under a time limit
            cost=None if plan.deadline is None else context.data.epoch_seconds,
            latency=context.latency,
        )

    def run(self) -> list[Trial]:
        """Screen until no trial waits and none is left to propose, or until the deadline."""
        waiting: dict[int, list[int]] = {}
        number = 0
        while True:
            new = self._propose(number, sum(len(cohort) for cohort in waiting.values()))
            if new:
                waiting[0] = [trial.number for trial in new]
            if not waiting:
                break
            waiting = self._round(number, waiting)
            number += 1
            if self._deadline is not None:
                self.plan = replace(self.plan, deadline=self._deadline())
            # an entry of the journal, so that a resumed run ends its screening here too
            if self.context.journal.entry(f"ended-{number}", self._is_over):
                break
        for trial in self.trials:
            if trial.state is TrialState.WAITING:
                trial.state = TrialState.PRUNED
        return self.trials

    def _is_over(self) -> bool:
        return self._loop.is_incomplete or self._is_late() or self.context.reporter.stopped

    def _is_late(self) -> bool:
        return self.plan.deadline is not None and time.monotonic() >= self.plan.deadline

    # ------------------------------------------------------------------ proposals

    def _propose(self, number: int, alive: int) -> list[Trial]:
        """New trials for a round, within capacity and budget."""
        entry = self.context.journal.entry
        wanted = due = self._proposals.wanted(self.plan.capacity - alive)
        if due == 0 and not alive and self.plan.fills_time:
            self._proposals.extend(entry(f"extend-{number}", self._extension))
            wanted = due = self._proposals.wanted(self.plan.capacity)
        if self.plan.deadline is not None:
            wanted = entry(f"draw-{number}", lambda: self._affordable(due))
        if wanted <= 0:
            return []
        size = self.context.data.architecture
        new = [
            Trial(len(self.trials) + place, config, origin, number, n_parameters=size(config).n_parameters)
            for place, (config, origin) in enumerate(self._proposals.take(number, wanted, self.trials))
        ]
        self.trials.extend(new)
        return new

    def _extension(self) -> int:
        """Trials beyond the plan that there is time for; 0 if they are few or the last ones did not help."""
        self._lowest.append(min(self._past[-1], default=math.inf))
        if len(self._lowest) > PATIENCE and self._lowest[-1] >= self._lowest[-1 - PATIENCE]:
            return 0
        room = min(self.plan.capacity, MAX_TRIALS - len(self.trials))
        extension = self._affordable(room) // 2  # later rungs take the other half
        return extension if extension >= MIN_EXTENSION else 0

    def _affordable(self, wanted: int) -> int:
        """Reduce a number of trials to those that can reach the first rung before the deadline."""
        if self.plan.deadline is None or not self.trials:
            return wanted
        left = self.plan.deadline - time.monotonic()
        sample = self.trials[-N_TIMED_TRIALS:]
        seconds = sum(self.context.data.epoch_seconds(trial.config) for trial in sample) / len(sample)
        # the first rung, and as much for the later rungs of the few that advance
        each = self.context.throughput.wall_seconds(seconds * self.plan.rungs[0] * 2.0)
        return max(0, min(wanted, int(0.8 * left / max(each, 1e-9))))

    # ------------------------------------------------------------------ one round

    def _round(self, number: int, waiting: dict[int, list[int]]) -> dict[int, list[int]]:
        """Train every cohort to its rung; return the trials that advance, by their next rung."""
        cohorts = [self._cohort(rung, waiting[rung]) for rung in sorted(waiting)]
        scored: dict[int, dict[int, float]] = {rung: {} for rung in waiting}
        progress = {
            "round": number,
            "rung": max(waiting),
            "n_rungs": len(self.plan.rungs),
            "alive": sum(len(cohort) for cohort in waiting.values()),
        }
        key = f"round-{number:03d}"
        for shard in self._loop.train(key, cohorts, deadline=self.plan.deadline, min_shards=1):
            rung = shard.cohort.number
            for member in shard.members:
                self._record(number, rung, member)
                scored[rung][member.trial] = self.trials[member.trial].error
            progress |= {"done": shard.done, "total": shard.total}
            self.context.reporter.report("screening", self.trials, **progress)
        next_waiting = {rung + 1: self._advance(rung, scored[rung]) for rung in sorted(waiting)}
        next_waiting = {rung: cohort for rung, cohort in next_waiting.items() if cohort}
        alive = {trial for cohort in next_waiting.values() for trial in cohort}
        self._loop.advance(alive)
        missing = self._loop.missing
        if missing and not self.plan.fills_time:  # extensions are not promised
            self.left_out.append(
                f"{missing} trials of round {number} were left out at the end of the time for screening"
            )
        self.context.journal.log(
            "round", round=number, trials=len(self.trials), advanced=len(alive), missing=missing
        )
        progress |= {"done": progress.get("total", 1), "alive": len(alive)}
        self.context.reporter.report("screening", self.trials, rung_completed=True, **progress)
        return next_waiting

    def _cohort(self, rung: int, numbers: list[int]) -> Cohort:
        factor = self.context.settings.reduction_factor
        return Cohort(
            rung,
            {number: self.trials[number].config for number in numbers},
            self.context.data,
            until_epoch=self.plan.rungs[rung],
            total_epochs=self.plan.rungs[-1],
            room=survivors(len(numbers) + len(self._past[rung]), factor),
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
        chosen = [] if last else advancing(scored, past, self.context.settings.reduction_factor)
        past.extend(error for _, error in sorted(scored.items()))
        for number in scored.keys() - set(chosen):
            if self.trials[number].state is not TrialState.FAILED:
                self.trials[number].state = TrialState.PRUNED
        return chosen
