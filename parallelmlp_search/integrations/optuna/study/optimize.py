"""Packed counterpart of ``study.optimize``: trials are asked, trained, pruned and told in batches."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Sequence
from numbers import Integral
from typing import Any

import optuna
from optuna.samplers import BruteForceSampler, GridSampler, QMCSampler, RandomSampler

from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.integrations.optuna.compatibility import stoppable
from parallelmlp_search.integrations.optuna.study.objective import PackedObjective, Space
from parallelmlp_search.integrations.optuna.study.trainer import StudyCallback, Trainer

__all__ = ["MAX_BATCH_SIZE", "optimize", "resolve_batch_size"]

MAX_BATCH_SIZE = 1000

N_LEARNING_BATCHES = 5
"""Number of batches for a sampler that learns from results."""

MIN_LEARNING_BATCH_SIZE, MAX_LEARNING_BATCH_SIZE = 16, 200


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
    **objective_params: Any,
) -> None:
    """Train trials of a study in packed batches.

    Trials come from the study's sampler, enqueued ones first. All trials of a batch report at every rung,
    then the study's pruner ends some, and the others train on. A network whose loss diverges is a failed
    trial and does not affect the others.

    Parameters
    ----------
    study
        Study with one direction per objective. Pruning needs a single one, as in Optuna itself.
    X, y
        Features and target; or ``X`` is a :class:`PackedObjective`, which contains both.
    space
        Search space, name of a preset, file, mapping to domains or Optuna distributions, or function from a
        trial to an ``MLPConfig``.
    n_trials
        Number of trials; None to continue until ``timeout`` or until a callback calls ``study.stop()``.
    timeout
        Seconds after which no training begins. Running trials then end as pruned ones.
    batch_size
        Number of trials that are asked and trained together. ``"auto"`` is all of them, at most 1000, for
        samplers that do not learn (random, quasi-random, grid), else a fifth, between 16 and 200.
    n_jobs
        Number of workers; None for all cores. It does not affect results.
    catch
        Exceptions of your own functions (``space``, objectives, constraints) that fail the trial instead of
        ending the optimization.
    callbacks
        Functions called with the study and each finished trial.
    heartbeat
        Seconds between the heartbeats of this worker, for a study in a storage that other workers use too.
        Trials of a worker that has missed six are enqueued again.
    **objective_params
        Further parameters of :class:`PackedObjective`, such as ``metric``, ``max_epochs``, ``objectives``.

    Raises
    ------
    InvalidParameterError
        If a parameter is invalid or does not fit the study.
    """
    if isinstance(X, PackedObjective):
        if y is not None or objective_params or space != "default":
            raise InvalidParameterError(
                "X is a PackedObjective, which brings target, space and the rest: leave them out"
            )
        objective = X
    elif y is None:
        raise InvalidParameterError("y must be given unless X is a PackedObjective")
    else:
        objective = PackedObjective(X, y, space, **objective_params)
    objective.check(study)
    if n_trials is not None and n_trials < 0:
        raise InvalidParameterError(f"n_trials must be >= 0, but got {n_trials!r}")
    if timeout is not None and not timeout > 0:
        raise InvalidParameterError(f"timeout must be > 0 seconds, but got {timeout!r}")
    if not heartbeat > 0:
        raise InvalidParameterError(f"heartbeat must be > 0 seconds, but got {heartbeat!r}")
    max_trials = resolve_batch_size(study, batch_size, n_trials)
    deadline = None if timeout is None else time.monotonic() + timeout
    done = 0
    with contextlib.ExitStack() as stack:
        is_stopped = stack.enter_context(stoppable(study))
        trainer = stack.enter_context(
            Trainer(study, objective, n_jobs, catch, callbacks, heartbeat, deadline)
        )
        while (n_trials is None or done < n_trials) and not is_stopped():
            if deadline is not None and time.monotonic() >= deadline:
                break
            trainer.heartbeat.retry_lost_trials()
            count = max_trials if n_trials is None else min(max_trials, n_trials - done)
            done += count
            n_remaining = math.inf if n_trials is None else n_trials - done
            trainer.run_batch(count, is_stopped, n_remaining=n_remaining)


def resolve_batch_size(study: optuna.Study, batch_size: int | str, n_trials: int | None) -> int:
    """Return the number of trials of a batch.

    Parameters
    ----------
    study
        The study, whose sampler determines an automatic size.
    batch_size
        Number of trials, or ``"auto"``.
    n_trials
        Number of trials in all; None for no limit.

    Returns
    -------
    int

    Raises
    ------
    InvalidParameterError
        If ``batch_size`` is neither ``"auto"`` nor a positive integer.
    """
    if batch_size != "auto":
        if isinstance(batch_size, bool) or not isinstance(batch_size, Integral) or batch_size < 1:
            raise InvalidParameterError(
                f"batch_size must be 'auto' or an integer >= 1, but got {batch_size!r}"
            )
        return int(batch_size)
    if isinstance(study.sampler, RandomSampler | QMCSampler | GridSampler | BruteForceSampler):
        return min(MAX_BATCH_SIZE, n_trials or MAX_LEARNING_BATCH_SIZE)
    share = MAX_LEARNING_BATCH_SIZE if n_trials is None else -(-n_trials // N_LEARNING_BATCHES)
    return max(MIN_LEARNING_BATCH_SIZE, min(MAX_LEARNING_BATCH_SIZE, share))
