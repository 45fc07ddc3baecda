"""``study.optimize`` for packed networks: ask many trials, train them at once, prune at rungs, tell all."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import optuna
from optuna.samplers import BruteForceSampler, GridSampler, QMCSampler, RandomSampler

from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.integrations.optuna.study.objective import PackedObjective, Space
from parallelmlp_search.integrations.optuna.study.trainer import StudyCallback, Trainer

__all__ = ["MAX_AT_ONCE", "optimize", "trials_at_once"]

MAX_AT_ONCE = 1000
"""Trials of a batch whose sampler learns nothing from results."""

ROUNDS, MIN_AT_ONCE, MAX_LEARNING = 5, 16, 200
"""A sampler that learns gets its trials in about five batches of 16 to 200."""


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
    heartbeat: float = 10.0,
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
        A search space, a preset's name, a file, a mapping to domains or distributions of Optuna, or a
        function from a trial to an ``MLPConfig``.
    n_trials
        Trials to run; None to go on until ``timeout`` or until a callback calls ``study.stop()``.
    timeout
        Seconds after which nothing is begun. Trials that are being trained then end where they stand, as
        pruned ones.
    batch_size
        Trials that are asked for and trained at once. ``auto`` is all of them, up to a thousand, where the
        sampler does not learn (random, quasi-random, grid), else a fifth, between 16 and 200.
    n_jobs
        Workers; None for all cores. Results do not depend on it.
    catch
        Exceptions of functions of your own (``space``, objectives, constraints) that make a failed trial
        instead of ending everything.
    callbacks
        Called with the study and each trial that has been told.
    heartbeat
        Seconds between the signs of life that this worker writes on a study in a storage, where others may
        work on it. Trials of a worker that has missed six are enqueued again.
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
    if not heartbeat > 0:
        raise InvalidParameterError(f"heartbeat must be > 0 seconds, but got {heartbeat!r}")
    at_once = trials_at_once(study, batch_size, n_trials)
    deadline = None if timeout is None else time.monotonic() + timeout
    done = 0
    with contextlib.ExitStack() as stack:
        stopped = stack.enter_context(stoppable(study))
        trainer = stack.enter_context(
            Trainer(study, objective, n_jobs, catch, callbacks, heartbeat, deadline)
        )
        while (n_trials is None or done < n_trials) and not stopped():
            if deadline is not None and time.monotonic() >= deadline:
                break
            trainer.attendance.sweep()
            count = at_once if n_trials is None else min(at_once, n_trials - done)
            done += count
            remaining = math.inf if n_trials is None else n_trials - done
            trainer.run(count, stopped, remaining=remaining)


def trials_at_once(study: optuna.Study, wanted: int | str, n_trials: int | None) -> int:
    """Trials of a batch: what was wanted, or as many as suit the study's sampler."""
    if isinstance(wanted, bool) or (isinstance(wanted, str) and wanted != "auto"):
        raise InvalidParameterError(f"batch_size must be 'auto' or an integer >= 1, but got {wanted!r}")
    if not isinstance(wanted, str):
        if wanted < 1:
            raise InvalidParameterError(f"batch_size must be 'auto' or an integer >= 1, but got {wanted!r}")
        return wanted
    if isinstance(study.sampler, RandomSampler | QMCSampler | GridSampler | BruteForceSampler):
        return min(MAX_AT_ONCE, n_trials or MAX_LEARNING)
    share = MAX_LEARNING if n_trials is None else -(-n_trials // ROUNDS)
    return max(MIN_AT_ONCE, min(MAX_LEARNING, share))


@contextlib.contextmanager
def stoppable(study: optuna.Study) -> Iterator[Callable[[], bool]]:
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
