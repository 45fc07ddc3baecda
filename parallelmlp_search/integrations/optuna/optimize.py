"""``study.optimize`` for packed networks: ask many trials, train them at once, prune at rungs, tell all."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import optuna
from optuna.samplers import BruteForceSampler, GridSampler, QMCSampler, RandomSampler
from optuna.trial import FrozenTrial, Trial, TrialState

from parallelmlp_search.distribute import MemberOutcome, one_thread, worker_count
from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.integrations.optuna.objective import Batch, PackedObjective, Space
from parallelmlp_search.space import MLPConfig

__all__ = ["MOST_AT_ONCE", "optimize", "trials_at_once"]

StudyCallback = Callable[[optuna.Study, FrozenTrial], None]

MOST_AT_ONCE = 1000
"""Trials of a batch whose sampler learns nothing from results."""

ROUNDS, FEWEST_AT_ONCE, MOST_LEARNING = 8, 16, 128
"""A sampler that learns gets its trials in about eight batches of 16 to 128."""


def optimize(
    study: optuna.Study,
    X: Any,
    y: Any = None,
    space: Space = "default",
    *,
    n_trials: int | None = None,
    timeout: float | None = None,
    batch_size: int | str = "auto",
    n_jobs: int | None = None,
    catch: type[Exception] | tuple[type[Exception], ...] = (),
    callbacks: Sequence[StudyCallback] = (),
    **question: Any,
) -> None:
    """Train trials of a study in packed batches.

    Trials come from the study's own sampler, enqueued ones first; every rung is reported to every trial of
    the batch, the study's own pruner then decides who goes on, and all are told. A network whose loss stops
    being finite makes a failed trial and leaves the others alone.

    Parameters
    ----------
    study
        A study with one direction for each objective. Pruning, as in Optuna itself, needs a single one.
    X, y
        Features and target; or ``X`` is a :class:`PackedObjective`, which is then used as it stands.
    space
        A search space, a preset's name, a file, a mapping, or a function from a trial to an ``MLPConfig``.
    n_trials
        Trials to run; None to go on until ``timeout`` or until a callback calls ``study.stop()``.
    timeout
        Seconds after which nothing is begun. Trials that are being trained then end where they stand, as
        pruned ones.
    batch_size
        Trials that are asked for and trained at once. ``auto`` is all of them, up to a thousand, where the
        sampler does not learn (random, quasi-random, grid), else an eighth, between 16 and 128.
    n_jobs
        Workers; None for all cores. Results do not depend on it.
    catch
        Exceptions of a function ``space`` that make a failed trial instead of ending everything.
    callbacks
        Called with the study and each trial that has been told.
    **question
        Further parameters of :class:`PackedObjective`: ``metric``, ``max_epochs``, ``objectives``, ...

    Raises
    ------
    InvalidParameterError
        If a parameter or the study does not fit.
    """
    if isinstance(X, PackedObjective):
        if y is not None or question or space != "default":
            raise InvalidParameterError(
                "X is a PackedObjective, which brings target, space and the rest: leave them out"
            )
        objective = X
    elif y is None:
        raise InvalidParameterError("y must be given unless X is a PackedObjective")
    else:
        objective = PackedObjective(X, y, space, **question)
    objective.check(study)
    if n_trials is not None and n_trials < 0:
        raise InvalidParameterError(f"n_trials must be >= 0, but got {n_trials!r}")
    if timeout is not None and not timeout > 0:
        raise InvalidParameterError(f"timeout must be > 0 seconds, but got {timeout!r}")
    at_once = trials_at_once(study, batch_size, n_trials)
    n_workers = 1 if objective.data.rows.inputs.is_cuda else worker_count(n_jobs)
    deadline = None if timeout is None else time.monotonic() + timeout
    done = 0
    with one_thread(), _stoppable(study) as stopped:
        while (n_trials is None or done < n_trials) and not stopped():
            if deadline is not None and time.monotonic() >= deadline:
                break
            count = at_once if n_trials is None else min(at_once, n_trials - done)
            done += count
            _Round(study, objective, n_workers, catch, callbacks, deadline).run(count, stopped)


def trials_at_once(study: optuna.Study, wanted: int | str, n_trials: int | None) -> int:
    """Trials of a batch: what was wanted, or as many as suit the study's sampler."""
    if isinstance(wanted, bool) or (isinstance(wanted, str) and wanted != "auto"):
        raise InvalidParameterError(f"batch_size must be 'auto' or an integer >= 1, but got {wanted!r}")
    if not isinstance(wanted, str):
        if wanted < 1:
            raise InvalidParameterError(f"batch_size must be 'auto' or an integer >= 1, but got {wanted!r}")
        return wanted
    if isinstance(study.sampler, RandomSampler | QMCSampler | GridSampler | BruteForceSampler):
        return min(MOST_AT_ONCE, n_trials or MOST_LEARNING)
    share = MOST_LEARNING if n_trials is None else -(-n_trials // ROUNDS)
    return max(FEWEST_AT_ONCE, min(MOST_LEARNING, share))


@contextlib.contextmanager
def _stoppable(study: optuna.Study) -> Iterator[Callable[[], bool]]:
    """Let ``study.stop()`` work in callbacks, as it does inside ``study.optimize``."""
    local = study._thread_local
    if local.in_optimize_loop:
        raise InvalidParameterError("optimize must not be called from inside another optimize of the study")
    local.in_optimize_loop = True
    study._stop_flag = False
    try:
        yield lambda: study._stop_flag
    finally:
        local.in_optimize_loop = False


class _Round:
    """One batch, from asking to telling; whatever ends it, no trial is left running."""

    def __init__(
        self,
        study: optuna.Study,
        objective: PackedObjective,
        n_workers: int,
        catch: type[Exception] | tuple[type[Exception], ...],
        callbacks: Sequence[StudyCallback],
        deadline: float | None,
    ) -> None:
        self.study = study
        self.objective = objective
        self.n_workers = n_workers
        self.catch = catch
        self.callbacks = callbacks
        self.deadline = deadline
        self._running: dict[int, Trial] = {}

    def run(self, count: int, stopped: Callable[[], bool]) -> None:
        try:
            trials, configs = self._ask(count, stopped)
            if trials:
                self._train(trials, configs)
        finally:
            for trial in list(self._running.values()):
                self.study.tell(trial, state=TrialState.FAIL)

    def _ask(self, count: int, stopped: Callable[[], bool]) -> tuple[list[Trial], list[MLPConfig]]:
        trials: list[Trial] = []
        configs: list[MLPConfig] = []
        for _ in range(count):
            if stopped() or (self.deadline is not None and time.monotonic() >= self.deadline):
                break
            trial = self.study.ask()
            self._running[trial.number] = trial
            try:
                config = self.objective.configure(trial)
            except optuna.TrialPruned:
                self._tell(trial, state=TrialState.PRUNED)
                continue
            except self.catch as error:
                trial.set_user_attr("failure", repr(error))
                self._tell(trial, state=TrialState.FAIL)
                continue
            trials.append(trial)
            configs.append(config)
        return trials, configs

    def _train(self, trials: list[Trial], configs: list[MLPConfig]) -> None:
        objective = self.objective
        batch = Batch(objective, configs, n_workers=self.n_workers)
        alive = list(range(len(trials)))
        prunes = len(objective.objectives) == 1
        for rung, epochs in enumerate(objective.rungs):
            outcomes = batch.advance(alive, epochs, deadline=self.deadline)
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
                    objective.note(trial, configs[member], outcome)
                    self._tell(trial, state=TrialState.FAIL)
                else:
                    healthy.append(member)
                    if prunes and outcome.epochs >= epochs:
                        trial.report(objective.score(outcome), int(epochs))
            # all report before anyone is judged, so that the order within a batch does not matter
            alive = []
            for member in healthy:
                trial, outcome = trials[member], outcomes[member]
                short = outcome.epochs < epochs
                if short or (not last and prunes and trial.should_prune()):
                    objective.note(trial, configs[member], outcome)
                    failed = short and not prunes
                    self._tell(trial, state=TrialState.FAIL if failed else TrialState.PRUNED)
                elif last:
                    self._complete(trial, configs[member], outcome)
                else:
                    alive.append(member)
            batch.drop([member for member in healthy if member not in set(alive)])
            if not alive:
                return

    def _complete(self, trial: Trial, config: MLPConfig, outcome: MemberOutcome) -> None:
        self.objective.note(trial, config, outcome)
        self._tell(trial, values=self.objective.values(config, outcome))

    def _tell(
        self, trial: Trial, *, values: Sequence[float] | None = None, state: TrialState | None = None
    ) -> None:
        told = self.study.tell(trial, values, state)
        del self._running[trial.number]
        for callback in self.callbacks:
            callback(self.study, told)
