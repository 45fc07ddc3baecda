"""Trains batches of a study's trials, from asking to telling."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Self

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState

from parallelmlp_search.distribute import MemberOutcome, one_thread, worker_count
from parallelmlp_search.integrations.optuna.attendance import Attendance, surplus
from parallelmlp_search.integrations.optuna.batch import Batch
from parallelmlp_search.integrations.optuna.desk import Desk
from parallelmlp_search.integrations.optuna.objective import PreparedObjective
from parallelmlp_search.search.workers import Workers
from parallelmlp_search.space import MLPConfig

__all__ = ["StudyCallback", "Trainer"]

StudyCallback = Callable[[optuna.Study, FrozenTrial], None]


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
        self._desk = Desk(study, self.attendance.marks)
        self._running: dict[int, Trial] = {}
        self._stack = contextlib.ExitStack()
        self.member_steps = 0

    def __enter__(self) -> Self:
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
        self._stack.close()

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
            trials, configs = self._ask(count, stopped)
            if trials and wanted < math.inf:
                too_many = surplus(self.study.get_trials(deepcopy=False), wanted)
                for trial in trials:
                    if trial.number in too_many:
                        self._tell(trial, state=TrialState.FAIL)
                kept = [place for place, trial in enumerate(trials) if trial.number in self._running]
                trials, configs = [trials[place] for place in kept], [configs[place] for place in kept]
            if trials:
                self._expect(configs, remaining)
                self._train(trials, configs)
        finally:
            for trial in list(self._running.values()):
                with contextlib.suppress(UpdateFinishedTrialError):
                    self.study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
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

    def _ask(self, count: int, stopped: Callable[[], bool]) -> tuple[list[Trial], list[MLPConfig]]:
        trials: list[Trial] = []
        configs: list[MLPConfig] = []
        self._desk.open()
        for _ in range(count):
            if stopped() or (self.deadline is not None and time.monotonic() >= self.deadline):
                break
            asked = self._desk.ask()
            config, state = None, TrialState.FAIL
            try:
                config = self.objective.configure(asked)
            except optuna.TrialPruned:
                state = TrialState.PRUNED
            except self.catch as error:
                asked.set_user_attr("failure", repr(error))
            except BaseException:
                self._running |= {trial.number: trial for trial in [self._desk.keep(asked)] if trial}
                raise
            trial = self._desk.keep(asked)
            if trial is None:
                continue
            self._running[trial.number] = trial
            if config is None:
                self._tell(trial, state=state)
            else:
                trials.append(trial)
                configs.append(config)
        self._desk.close()
        return trials, configs

    def _train(self, trials: list[Trial], configs: list[MLPConfig]) -> None:
        objective = self.objective
        batch = Batch(configs, self._data, objective.rungs[-1], n_workers=self.n_workers)
        alive = list(range(len(trials)))
        prunes = len(objective.objectives) == 1
        for rung, epochs in enumerate(objective.rungs):
            outcomes = batch.advance(alive, epochs, deadline=self.deadline)
            self.member_steps += batch.member_steps
            batch.member_steps = 0
            last = rung == len(objective.rungs) - 1
            healthy = []
            for member in alive:
                trial, outcome = trials[member], outcomes.get(member)
                if outcome is None:
                    # its turn had not come when the time was up
                    state = TrialState.PRUNED if rung > 0 and prunes else TrialState.FAIL
                    trial.set_user_attr("failure", "the time was up before it was trained")
                    self._tell(trial, state=state)
                elif outcome.failure is not None:
                    with self._ours(trial):
                        objective.note(trial, configs[member], outcome)
                    self._tell(trial, state=TrialState.FAIL)
                else:
                    healthy.append(member)
                    if prunes and outcome.epochs >= epochs:
                        with self._ours(trial):
                            trial.report(objective.score(outcome), objective.steps[rung])
            # all report before anyone is judged, so that the order within a batch does not matter
            healthy = [member for member in healthy if trials[member].number in self._running]
            pruned = self._judge([trials[member] for member in healthy]) if prunes and not last else set()
            alive = []
            for member in healthy:
                trial, outcome = trials[member], outcomes[member]
                short = outcome.epochs < epochs
                if short or trial.number in pruned:
                    with self._ours(trial):
                        objective.note(trial, configs[member], outcome)
                    failed = short and not prunes
                    self._tell(trial, state=TrialState.FAIL if failed else TrialState.PRUNED)
                elif last:
                    self._complete(trial, configs[member], outcome)
                else:
                    alive.append(member)
            batch.keep(alive)
            if not alive:
                return

    def _judge(self, trials: list[Trial]) -> set[int]:
        """Numbers of the trials that the study's pruner ends."""
        verdicts = self._desk.prunes(trials)
        return {trial.number for trial, prune in zip(trials, verdicts, strict=True) if prune}

    def _complete(self, trial: Trial, config: MLPConfig, outcome: MemberOutcome) -> None:
        with self._ours(trial):
            self.objective.note(trial, config, outcome)
        self._tell(trial, values=self.objective.values(config, outcome))

    def _tell(
        self, trial: Trial, *, values: Sequence[float] | None = None, state: TrialState | None = None
    ) -> None:
        if trial.number not in self._running:
            return
        with self._ours(trial):
            told = self.study.tell(trial, values, state, skip_if_finished=True)
            del self._running[trial.number]
            for callback in self.callbacks:
                callback(self.study, told)

    @contextlib.contextmanager
    def _ours(self, trial: Trial) -> Iterator[None]:
        """Let go of a trial that another worker has finished, having taken this one for dead."""
        try:
            yield
        except UpdateFinishedTrialError:
            self._running.pop(trial.number, None)
