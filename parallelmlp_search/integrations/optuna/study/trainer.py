"""Training of batches of a study's trials, from asking to telling."""

from __future__ import annotations

import contextlib
import copy
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState

from parallelmlp_search._signals import Interrupts
from parallelmlp_search.distribute import one_thread, worker_count
from parallelmlp_search.integrations.optuna.study.batch import Batch, Result
from parallelmlp_search.integrations.optuna.study.heartbeat import SEED_ATTR, Heartbeat, excess_trials
from parallelmlp_search.integrations.optuna.study.objective import PreparedObjective
from parallelmlp_search.integrations.optuna.study.study_session import StudySession, ask, reopen_trial
from parallelmlp_search.search.run.budget import Throughput
from parallelmlp_search.search.run.workers import Workers
from parallelmlp_search.space import MLPConfig

StudyCallback = Callable[[optuna.Study, FrozenTrial], None]

TIME_LIMIT_EXCEEDED = "the time limit was exceeded before it was trained"

DUPLICATE_RETRY = "another trial repeats the same one"

logger = logging.getLogger("optuna.parallelmlp_search")
"""Below Optuna's own logger, so that its verbosity and format apply."""


@dataclass(frozen=True)
class TrainingOptions:
    """Options of the training of trials.

    Attributes
    ----------
    batch_size
        Number of trials that are asked and trained together. ``"auto"`` is all of them, at most 1000, for
        samplers that do not learn (random, quasi-random, grid), else a fifth, between 16 and 200.
    n_jobs
        Number of workers; None for all cores. It does not affect results.
    catch
        Exceptions of user-defined functions (spaces, objectives, constraints) that fail a trial instead of
        ending the training.
    callbacks
        Functions called with the study and each finished trial.
    heartbeat
        Seconds between the heartbeats of this worker, for a study in a storage that other workers use too.
        Trials of a worker that has missed six are enqueued again.
    """

    batch_size: int | str = "auto"
    n_jobs: int | None = None
    catch: type[Exception] | tuple[type[Exception], ...] = ()
    callbacks: Sequence[StudyCallback] = ()
    heartbeat: float = 10.0


class Trainer:
    """Trains batches of a study; no trial is left running, whatever ends the training.

    Parameters
    ----------
    study
        Study to work on.
    objective
        Objective of its trials.
    options
        Workers, callbacks, caught exceptions, heartbeat.
    deadline
        Reading of :func:`time.monotonic` after which no training begins, or None.
    throughput
        Number of workers, which also counts the training steps; None for one by ``n_jobs``.
    all_workers_beat
        True if all workers of the study have a heartbeat.
    """

    def __init__(
        self,
        study: optuna.Study,
        objective: PreparedObjective,
        options: TrainingOptions,
        deadline: float | None = None,
        *,
        throughput: Throughput | None = None,
        all_workers_beat: bool = False,
    ) -> None:
        self.study = study
        self.objective = objective
        self.options = options
        self.deadline = deadline
        self.heartbeat = Heartbeat(study, options.heartbeat, all_workers_beat=all_workers_beat)
        self.interrupts = Interrupts()
        on_gpu = objective.data.device.type != "cpu"
        self._throughput = throughput or Throughput(1 if on_gpu else worker_count(options.n_jobs))
        self._session = StudySession(study, self.heartbeat.owner_attrs)
        self._running: set[int] = set()
        self._told: list[int] = []
        self._stack = contextlib.ExitStack()
        self._workers = Workers(self._stack, self._throughput.n_workers, on_gpu=on_gpu)
        self._data = objective.data
        self._prunes = len(objective.objectives) == 1

    def __enter__(self) -> Self:
        self._stack.enter_context(self.interrupts)
        self._stack.enter_context(one_thread())
        self._stack.enter_context(self.heartbeat)
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def run_batch(
        self,
        count: int,
        is_stopped: Callable[[], bool],
        *,
        n_remaining: float = 0.0,
        max_trials: float = math.inf,
    ) -> None:
        """Train one batch of trials.

        Parameters
        ----------
        count
            Number of trials to ask.
        is_stopped
            Returns True if no more trials are to be asked.
        n_remaining
            Number of trials that are expected after this batch.
        max_trials
            Number of trials of the study; excess ones, which several workers may ask together, fail.
        """
        try:
            trials = self._ask(count, is_stopped)
            if trials and max_trials < math.inf:
                excess = excess_trials(self.study.get_trials(deepcopy=False), max_trials) & set(trials)
                if excess:
                    with self._stage() as study:
                        for number in excess:
                            self._tell(study, number, TrialState.FAIL)
                trials = {number: config for number, config in trials.items() if number in self._running}
            if trials:
                self._start_processes(list(trials.values()), n_remaining)
                self._train(trials)
        except BaseException:
            self._fail_running_trials()
            raise

    def _fail_running_trials(self) -> None:
        self._told.clear()
        with self._session.stage() as (study, _):
            for number in self._session.running_trials(study, self._running):
                study.tell(number, state=TrialState.FAIL, skip_if_finished=True)
        self._running.clear()

    def _start_processes(self, configs: list[MLPConfig], n_remaining: float) -> None:
        """Start worker processes if the expected work is worth it."""
        data = self.objective.data
        mean = sum(data.epoch_seconds(config) for config in configs) / len(configs)
        seconds = mean * self.objective.rungs[-1] * (len(configs) + n_remaining) / 3
        if self.deadline is not None:
            seconds = min(seconds, self._throughput.n_workers * (self.deadline - time.monotonic()))
        self._workers.expect(seconds)
        self._data = self._workers.share(self._data)

    @contextlib.contextmanager
    def _stage(self) -> Iterator[optuna.Study]:
        """Work on the current study; callbacks are called after its changes are written."""
        numbers: dict[int, int | None] = {}
        try:
            with self._session.stage() as (study, numbers):
                yield study
        finally:
            # another worker took this one for dead and finished its trials
            self._running -= {number for number, real in numbers.items() if real is None}
        self._call_back([number for number in self._told if numbers.get(number, number) is not None])

    def _call_back(self, told: list[int]) -> None:
        self._told = []
        if not told or not (self.options.callbacks or logger.isEnabledFor(logging.WARNING)):
            return
        trials, best = self.study.get_trials(deepcopy=False), self._describe_best()
        for number in told:
            _log_trial(trials[number], best)
            for callback in self.options.callbacks:
                with self.interrupts.allowed():
                    callback(self.study, copy.deepcopy(trials[number]))

    def _describe_best(self) -> str:
        if not logger.isEnabledFor(logging.INFO) or len(self.study.directions) > 1:
            return ""
        with contextlib.suppress(ValueError):  # no trial is complete and feasible
            best = self.study.best_trial
            return f" Best is trial {best.number} with value: {best.value}."
        return ""

    def _ask(self, count: int, is_stopped: Callable[[], bool]) -> dict[int, MLPConfig]:
        """Return the configurations of new trials by number; trials without training are told."""
        configs: dict[int, MLPConfig] = {}
        asked: list[int] = []
        numbers: dict[int, int | None] = {}
        try:
            with self._session.stage() as (study, numbers):
                for _ in range(count):
                    late = self.deadline is not None and time.monotonic() >= self.deadline
                    if late or is_stopped():
                        break
                    self.interrupts.check()
                    trial = ask(study)
                    asked.append(trial.number)
                    config = self._configure(study, trial)
                    if config is not None:
                        configs[trial.number] = config
        finally:
            in_memory = self._session.in_memory
            real = {number: number if in_memory else numbers.get(number) for number in asked}
            self._running |= {kept for kept in real.values() if kept is not None}
        done = [kept for number in asked if number not in configs and (kept := real[number]) is not None]
        self._running -= set(done)
        self._call_back(done)
        return {kept: config for number, config in configs.items() if (kept := real[number]) is not None}

    def _configure(self, study: optuna.Study, trial: Trial) -> MLPConfig | None:
        """Return the configuration of a trial, or tell the trial and return None."""
        state = TrialState.FAIL
        if self.heartbeat.should_train(trial):
            try:
                config = self.objective.configure(trial)
            except optuna.TrialPruned:
                state = TrialState.PRUNED
            except self.options.catch as error:
                trial.set_user_attr("failure", repr(error))
            else:
                if not self._session.in_memory:
                    trial.set_user_attr(SEED_ATTR, config.seed)  # for a retry, if this worker dies
                return config
        else:
            trial.set_user_attr("failure", DUPLICATE_RETRY)
        study.tell(trial, state=state)
        return None

    def _train(self, trials: dict[int, MLPConfig]) -> None:
        rungs = self.objective.rungs
        batch = Batch(trials, self._data, rungs, self._throughput, self.deadline)
        for rung in range(len(rungs)):
            with self.interrupts.allowed():
                results = batch.train(rung, trials)
            onward = self._finish_rung(rung, trials, results)
            trials = {number: config for number, config in trials.items() if number in onward}
            if not trials:
                return

    def _finish_rung(self, rung: int, trials: Iterable[int], results: Mapping[int, Result]) -> set[int]:
        """Report, prune and tell the trials of a rung; returns the numbers of those that advance."""
        epochs = self.objective.rungs[rung]
        is_last = rung == len(self.objective.rungs) - 1
        with self._stage() as study:
            healthy = []
            for number in trials:
                trial = reopen_trial(study, number)
                with self._unless_lost(number):
                    if self._report(study, trial, results.get(number), rung):
                        healthy.append(trial)
            # all trials report before the first is judged, so that their order does not matter
            judged = healthy if self._prunes and not is_last else []
            pruned = {trial.number for trial in judged if trial.should_prune()}
            onward = set()
            for trial in healthy:
                number, result = trial.number, results[trial.number]
                with self._unless_lost(number):
                    if result.outcome.epochs < epochs or number in pruned:
                        self._end(study, trial, result, TrialState.PRUNED)
                    elif is_last:
                        self._end(study, trial, result)
                    else:
                        onward.add(number)
        return onward & self._running

    def _report(self, study: optuna.Study, trial: Trial, result: Result | None, rung: int) -> bool:
        """Report the score of a trial; returns False for a trial without a score, which is told instead."""
        if result is None:
            trial.set_user_attr("failure", TIME_LIMIT_EXCEEDED)
            state = TrialState.PRUNED if rung > 0 and self._prunes else TrialState.FAIL
            self._tell(study, trial.number, state)
            return False
        is_short = result.outcome.epochs < self.objective.rungs[rung]
        if result.outcome.failure is not None or (is_short and not self._prunes):
            self.objective.set_attributes(trial, result)
            self._tell(study, trial.number, TrialState.FAIL)
            return False
        if self._prunes and not is_short:
            trial.report(self.objective.score(result), self.objective.steps[rung])
        return True

    def _end(
        self, study: optuna.Study, trial: Trial, result: Result, state: TrialState | None = None
    ) -> None:
        """Tell a pruned or complete trial; it fails if a user-defined function does."""
        values = None
        try:
            self.objective.set_attributes(trial, result)
            if state is None:
                values = self.objective.values(result)
        except self.options.catch as error:
            trial.set_user_attr("failure", repr(error))
            state = TrialState.FAIL
        self._tell(study, trial.number, state, values)

    def _tell(
        self, study: optuna.Study, number: int, state: TrialState | None, values: list[float] | None = None
    ) -> None:
        if number not in self._running:
            return
        study.tell(number, values, state, skip_if_finished=True)
        self._running.discard(number)
        self._told.append(number)
        if self._session.in_memory:
            self._call_back([number])

    @contextlib.contextmanager
    def _unless_lost(self, number: int) -> Iterator[None]:
        """Drop a trial that another worker has finished, because it took this one for dead."""
        try:
            yield
        except UpdateFinishedTrialError:
            self._running.discard(number)


def _log_trial(trial: FrozenTrial, best: str) -> None:
    """Log the end of a trial as Optuna's own loop does."""
    if trial.state is TrialState.COMPLETE:
        values = trial.values
        shown = f"value: {values[0]}" if len(values) == 1 else f"values: {values}"
        logger.info(f"Trial {trial.number} finished with {shown} and parameters: {trial.params}.{best}")
    elif trial.state is TrialState.PRUNED:
        logger.info(f"Trial {trial.number} pruned. ")
    elif trial.state is TrialState.FAIL:
        reason = trial.user_attrs.get("failure", "it has no finite value")
        level = logging.INFO if reason in (TIME_LIMIT_EXCEEDED, DUPLICATE_RETRY) else logging.WARNING
        logger.log(level, f"Trial {trial.number} failed with parameters: {trial.params} because: {reason}.")
