"""Trains batches of a study's trials, from asking to telling."""

from __future__ import annotations

import contextlib
import copy
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Self

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from parallelmlp_search._signals import Interrupts
from parallelmlp_search.distribute import MemberOutcome, one_thread, worker_count
from parallelmlp_search.integrations.optuna.study.batch import Batch
from parallelmlp_search.integrations.optuna.study.heartbeat import SEED, Attendance, surplus
from parallelmlp_search.integrations.optuna.study.objective import PreparedObjective
from parallelmlp_search.integrations.optuna.study.study_session import AskedTrial, Desk, ask
from parallelmlp_search.search.run.workers import Workers
from parallelmlp_search.space import MLPConfig

__all__ = ["StudyCallback", "Trainer"]

StudyCallback = Callable[[optuna.Study, FrozenTrial], None]

TIME_UP, REPEATED = "the time was up before it was trained", "another repeats the same trial"

logger = logging.getLogger("optuna.parallelmlp_search")
"""Below Optuna's own, so that its verbosity and its lines are those of any study."""


class Trainer:
    """Trains batches of a study, from asking to telling; whatever ends it, no trial is left running."""

    def __init__(
        self,
        study: optuna.Study,
        objective: PreparedObjective,
        n_jobs: int | None = None,
        catch: type[Exception] | tuple[type[Exception], ...] = (),
        callbacks: Sequence[StudyCallback] = (),
        heartbeat: float = 10.0,
        deadline: float | None = None,
        *,
        alone_with_ours: bool = False,
    ) -> None:
        self.study = study
        self.objective = objective
        self.n_workers = 1 if objective.data.rows.inputs.is_cuda else worker_count(n_jobs)
        self.catch = catch
        self.callbacks = callbacks
        self.deadline = deadline
        self.attendance = Attendance(study, heartbeat, alone_with_ours=alone_with_ours)
        self.interrupts = Interrupts()
        self.member_steps = 0
        self._desk = Desk(study, self.attendance.marks)
        self._running: set[int] = set()
        self._told: list[int] = []
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(self.interrupts)
        self._stack.enter_context(one_thread())
        self._stack.enter_context(self.attendance)
        data = self.objective.data
        self._workers = Workers(self._stack, self.n_workers, on_gpu=data.rows.inputs.is_cuda)
        self._data = data
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def run(
        self,
        count: int,
        stopped: Callable[[], bool],
        *,
        remaining: float = 0.0,
        wanted: float = math.inf,
    ) -> None:
        """One batch of ``count`` trials.

        Parameters
        ----------
        count
            How many to ask for.
        stopped
            Tells whether to ask for no more.
        remaining
            How many more are expected to follow.
        wanted
            Trials that the study shall have in all; what comes on top, since others asked as well, fails.
        """
        try:
            trials = self._ask(count, stopped)
            if trials and wanted < math.inf:
                too_many = surplus(self.study.get_trials(deepcopy=False), wanted) & set(trials)
                if too_many:
                    with self._stage() as study:
                        for number in too_many:
                            self._tell(study, number, state=TrialState.FAIL)
                trials = {number: config for number, config in trials.items() if number in self._running}
            if trials:
                self._expect(list(trials.values()), remaining)
                self._train(trials)
        except BaseException:
            self._give_up()
            raise

    def _give_up(self) -> None:
        """Leave no trial running, whatever has happened."""
        self._told.clear()
        with self._desk.stage() as (study, _):
            for number in self._desk.running(study, self._running):
                study.tell(number, state=TrialState.FAIL, skip_if_finished=True)
        self._running.clear()

    def _expect(self, configs: list[MLPConfig], remaining: float) -> None:
        """Start worker processes where what is coming is worth it."""
        data = self.objective.data
        each = sum(data.epoch_seconds(config) for config in configs) / len(configs)
        seconds = each * self.objective.rungs[-1] * (len(configs) + remaining) / 3
        if self.deadline is not None:
            seconds = min(seconds, self.n_workers * (self.deadline - time.monotonic()))
        self._workers.expect(seconds)
        self._data = self._workers.share(self._data)

    @contextlib.contextmanager
    def _stage(self) -> Iterator[optuna.Study]:
        """Work on the study as it is now; callbacks see what was told when it has been written."""
        numbers: dict[int, int | None] = {}
        try:
            with self._desk.stage() as (study, numbers):
                yield study
        finally:
            # trials that another worker has finished, having taken this one for dead, are let go
            self._running -= {number for number, real in numbers.items() if real is None}
        self._call_back([number for number in self._told if numbers.get(number, number) is not None])

    def _call_back(self, told: list[int]) -> None:
        self._told = []
        if not told or not (self.callbacks or logger.isEnabledFor(logging.WARNING)):
            return
        trials, best = self.study.get_trials(deepcopy=False), self._best()
        for number in told:
            _announce(trials[number], best)
            for callback in self.callbacks:
                with self.interrupts.allowed():
                    callback(self.study, copy.deepcopy(trials[number]))

    def _best(self) -> str:
        """How the best trial is told of, or nothing."""
        if not logger.isEnabledFor(logging.INFO) or len(self.study.directions) > 1:
            return ""
        with contextlib.suppress(ValueError):  # none is complete, or none feasible
            best = self.study.best_trial
            return f" Best is trial {best.number} with value: {best.value}."
        return ""

    def _ask(self, count: int, stopped: Callable[[], bool]) -> dict[int, MLPConfig]:
        """Configurations of new trials by their numbers; those that need no training are told."""
        configs: dict[int, MLPConfig] = {}
        begun: list[int] = []
        numbers: dict[int, int | None] = {}
        try:
            with self._desk.stage() as (study, numbers):
                for _ in range(count):
                    late = self.deadline is not None and time.monotonic() >= self.deadline
                    if late or stopped() or study._stop_flag:
                        break
                    self.interrupts.check()
                    trial = ask(study)
                    begun.append(trial.number)
                    if not self.attendance.admits(trial):
                        trial.set_user_attr("failure", REPEATED)
                        study.tell(trial, state=TrialState.FAIL)
                        continue
                    state = TrialState.FAIL
                    try:
                        configs[trial.number] = self.objective.configure(trial)
                    except optuna.TrialPruned:
                        state = TrialState.PRUNED
                    except self.catch as error:
                        trial.set_user_attr("failure", repr(error))
                    if trial.number not in configs:
                        study.tell(trial, state=state)
                    elif not self._desk.direct:
                        # whoever tries it again if this worker dies does it with the same seed
                        trial.set_user_attr(SEED, configs[trial.number].seed)
        finally:
            real = {number: number if self._desk.direct else numbers.get(number) for number in begun}
            self._running |= {kept for kept in real.values() if kept is not None}
        done = [kept for number in begun if number not in configs and (kept := real[number]) is not None]
        self._running -= set(done)
        self._call_back(done)
        return {kept: config for number, config in configs.items() if (kept := real[number]) is not None}

    def _train(self, trials: dict[int, MLPConfig]) -> None:
        objective = self.objective
        numbers, configs = list(trials), list(trials.values())
        batch = Batch(configs, self._data, objective.rungs[-1], n_workers=self.n_workers)
        alive = list(range(len(trials)))
        for rung, epochs in enumerate(objective.rungs):
            with self.interrupts.allowed():
                outcomes = batch.advance(alive, epochs, deadline=self.deadline)
            self.member_steps += batch.member_steps
            batch.member_steps = 0
            onward = self._settle(
                {numbers[member]: configs[member] for member in alive},
                {numbers[member]: outcome for member, outcome in outcomes.items()},
                rung,
            )
            alive = [member for member in alive if numbers[member] in onward]
            batch.keep(alive)
            if not alive:
                return

    def _settle(
        self, trials: dict[int, MLPConfig], outcomes: dict[int, MemberOutcome], rung: int
    ) -> set[int]:
        """Report, judge and tell what a rung has brought; numbers of the trials that go on."""
        objective, epochs = self.objective, self.objective.rungs[rung]
        last = rung == len(objective.rungs) - 1
        prunes = len(objective.objectives) == 1
        with self._stage() as study:
            healthy = []
            for number, config in trials.items():
                outcome = outcomes.get(number)
                with self._ours(number):
                    trial = AskedTrial(study, number)
                    if outcome is None:
                        # its turn had not come when the time was up
                        state = TrialState.PRUNED if rung > 0 and prunes else TrialState.FAIL
                        trial.set_user_attr("failure", TIME_UP)
                        self._tell(study, number, state=state)
                    elif outcome.failure is not None:
                        objective.note(trial, config, outcome)
                        self._tell(study, number, state=TrialState.FAIL)
                    else:
                        if prunes and outcome.epochs >= epochs:
                            trial.report(objective.score(outcome), objective.steps[rung])
                        healthy.append(trial)
            # all report before anyone is judged, so that the order within a batch does not matter
            judged = prunes and not last
            pruned = {trial.number for trial in healthy if judged and trial.should_prune()}
            onward = set()
            for trial in healthy:
                number, config = trial.number, trials[trial.number]
                outcome = outcomes[number]
                short = outcome.epochs < epochs
                with self._ours(number):
                    if short and not prunes:
                        objective.note(trial, config, outcome)
                        self._tell(study, number, state=TrialState.FAIL)
                    elif last or short or number in pruned:
                        self._end(study, trial, config, outcome, complete=last and not short)
                    else:
                        onward.add(number)
        return onward & self._running

    def _end(
        self,
        study: optuna.Study,
        trial: AskedTrial,
        config: MLPConfig,
        outcome: MemberOutcome,
        *,
        complete: bool,
    ) -> None:
        """Tell a trial that is complete or pruned; objectives and constraints of a user's own may fail."""
        values, state = None, None if complete else TrialState.PRUNED
        try:
            self.objective.note(trial, config, outcome)
            if complete:
                values = self.objective.values(config, outcome)
        except self.catch as error:
            trial.set_user_attr("failure", repr(error))
            state = TrialState.FAIL
        self._tell(study, trial.number, values=values, state=state)

    def _tell(
        self,
        study: optuna.Study,
        number: int,
        *,
        values: Sequence[float] | None = None,
        state: TrialState | None = None,
    ) -> None:
        if number not in self._running:
            return
        study.tell(number, values, state, skip_if_finished=True)
        self._running.discard(number)
        self._told.append(number)
        if self._desk.direct:
            self._call_back([number])

    @contextlib.contextmanager
    def _ours(self, number: int) -> Iterator[None]:
        """Let go of a trial that another worker has finished, having taken this one for dead."""
        try:
            yield
        except UpdateFinishedTrialError:
            self._running.discard(number)


def _announce(trial: FrozenTrial, best: str) -> None:
    """Say what became of a trial, as Optuna's own loop does."""
    if trial.state is TrialState.COMPLETE:
        values = trial.values
        shown = f"value: {values[0]}" if len(values) == 1 else f"values: {values}"
        logger.info(f"Trial {trial.number} finished with {shown} and parameters: {trial.params}.{best}")
    elif trial.state is TrialState.PRUNED:
        logger.info(f"Trial {trial.number} pruned. ")
    elif trial.state is TrialState.FAIL:
        reason = trial.user_attrs.get("failure", "it has no value that counts")
        level = logging.INFO if reason in (TIME_UP, REPEATED) else logging.WARNING
        logger.log(level, f"Trial {trial.number} failed with parameters: {trial.params} because: {reason}.")
