"""Packed counterpart of ``study.optimize``: trials are asked, trained, pruned and told in batches."""

from __future__ import annotations

import math
import time
from dataclasses import fields
from typing import Any

import optuna
from optuna.samplers import BaseSampler, BruteForceSampler, GridSampler, QMCSampler, RandomSampler

from parallelmlp_search._checks import check_integer, check_positive
from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.integrations.optuna.compatibility import stoppable
from parallelmlp_search.integrations.optuna.study.objective import PackedObjective, Space
from parallelmlp_search.integrations.optuna.study.trainer import Trainer, TrainingOptions

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
    **options: Any,
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
    **options
        Fields of :class:`TrainingOptions`, which are ``batch_size``, ``n_jobs``, ``catch``, ``callbacks`` and
        ``heartbeat``, and further parameters of :class:`PackedObjective`, such as ``metric``, ``max_epochs``,
        ``objectives``.

    Raises
    ------
    InvalidParameterError
        If a parameter is invalid or does not fit the study.
    """
    names = {field.name for field in fields(TrainingOptions)}
    training = TrainingOptions(**{name: value for name, value in options.items() if name in names})
    objective_params = {name: value for name, value in options.items() if name not in names}
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
    n_left = math.inf if n_trials is None else check_integer("n_trials", n_trials, 0)
    deadline = None if timeout is None else time.monotonic() + check_positive("timeout", timeout)
    check_positive("heartbeat", training.heartbeat)
    if training.batch_size == "auto":
        batch_size = automatic_batch_size(study.sampler, n_trials)
    else:
        batch_size = check_integer("batch_size, if not 'auto',", training.batch_size, 1)
    with stoppable(study) as is_stopped, Trainer(study, objective, training, deadline) as trainer:
        while n_left > 0 and not is_stopped() and (deadline is None or time.monotonic() < deadline):
            trainer.heartbeat.retry_lost_trials()
            count = int(min(batch_size, n_left))
            n_left -= count
            trainer.run_batch(count, is_stopped, n_remaining=n_left)


def automatic_batch_size(sampler: BaseSampler, n_trials: int | None) -> int:
    """Return the number of trials of a batch that suits a sampler."""
    if isinstance(sampler, RandomSampler | QMCSampler | GridSampler | BruteForceSampler):
        return min(MAX_BATCH_SIZE, n_trials or MAX_LEARNING_BATCH_SIZE)
    share = MAX_LEARNING_BATCH_SIZE if n_trials is None else -(-n_trials // N_LEARNING_BATCHES)
    return max(MIN_LEARNING_BATCH_SIZE, min(MAX_LEARNING_BATCH_SIZE, share))
