"""Plan of the memory of a search, and its predicted peak."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from parallelmlp_search.distribute import FULL_STATE, ShardData, ShardTask, run_shards, shard_tasks
from parallelmlp_search.distribute.shard_memory import FLOAT_BYTES
from parallelmlp_search.search.finalists.baseline_memory import baseline_bytes
from parallelmlp_search.search.finalists.sizes import finalist_sizes, group_size
from parallelmlp_search.search.proposals.samplers import propose_fresh
from parallelmlp_search.search.run.budget import SearchPlan, default_folds
from parallelmlp_search.search.run.context import SearchContext
from parallelmlp_search.search.run.memory import MemoryPlan, measured_base
from parallelmlp_search.space import MLPConfig

MIN_CAPACITY = 4
"""Least members that are alive at once."""

N_LARGE_SAMPLED = 400
"""Configurations of which the largest decides on the least memory."""


def plan_memory(context: SearchContext) -> MemoryPlan | None:
    """Plan the memory of a search under a limit.

    A member is trained for a step first, in each process, since that loads libraries.

    Raises
    ------
    InvalidParameterError
        If the limit is below the minimum.
    """
    settings, data, preparation = context.settings, context.data, context.preparation
    if settings.memory_bytes is None:
        return None
    rng = np.random.default_rng([settings.seed, 9])
    sample = propose_fresh(settings.space, "random", N_LARGE_SAMPLED, rng, known=[])
    largest = max(sample, key=lambda config: data.architecture(config).n_parameters)
    n_parameters = data.architecture(largest).n_parameters
    epochs = data.batch_rows(largest) / data.n_rows
    (task,) = shard_tasks("memory", {0: largest}, data, until_epoch=epochs, total_epochs=epochs)
    n_workers = 1 if data.stored is None else context.throughput.n_workers  # stored for processes
    for outcome in run_shards([task] * n_workers, n_workers=n_workers):
        outcome.members.clear()
    n_folds = settings.n_folds or default_folds(preparation.n_oof)
    sizes = finalist_sizes(preparation, n_folds)
    table_bytes = FLOAT_BYTES * preparation.problem.n_rows * data.n_inputs
    return MemoryPlan.make(
        settings.memory_bytes,
        measured_base() + (0 if preparation.shares_table else n_folds * table_bytes),
        largest_shard=task.predicted_bytes + sizes.of_shard(n_parameters),
        states=MIN_CAPACITY * FLOAT_BYTES * len(FULL_STATE) * n_parameters,
        sizes=sizes,
        largest=n_parameters,
    )


def state_bytes(data: ShardData, sample: Sequence[MLPConfig]) -> float:
    """Mean memory of the state of a member between two rungs."""
    n_parameters = sum(data.architecture(config).n_parameters for config in sample) / len(sample)
    return FLOAT_BYTES * len(FULL_STATE) * n_parameters


def estimated_peak(context: SearchContext, plan: SearchPlan, sample: Sequence[MLPConfig]) -> int:
    """Return the memory that a search will use at most, in bytes.

    Parameters
    ----------
    context, plan
        Context, with a plan of the memory, and plan of the search.
    sample
        Configurations that stand for all.

    Returns
    -------
    int
    """
    assert context.memory is not None
    n_workers, data, preparation = context.throughput.n_workers, context.data, context.preparation
    n_members = min(plan.capacity, plan.n_fresh + plan.n_refined)
    states = state_bytes(data, sample) * n_members / context.settings.reduction_factor
    cohort = dict(enumerate(sample[:n_members]))
    screening = shard_tasks("memory", cohort, data, until_epoch=1.0, total_epochs=1.0)
    sizes = finalist_sizes(preparation, plan.n_folds)
    group = dict(enumerate(sample[: min(plan.n_finalists, group_size(preparation))]))
    fold = shard_tasks("memory", group, data, until_epoch=1.0, total_epochs=1.0, keep=())
    mean = round(sum(data.architecture(config).n_parameters for config in sample) / len(sample))
    finalists = plan.n_finalists * sizes.kept(mean)
    snapshots = sum(sizes.of_shard(mean) for _ in range(min(n_workers, len(fold))))
    stages = (
        2.0 * states + _together(screening, n_workers),
        finalists + len(group) * sizes.waiting(mean) + snapshots + _together(fold, n_workers),
        finalists + sizes.scoring,
        baseline_bytes(context, plan.n_folds),
    )
    return context.memory.base + round(max(stages))


def _together(tasks: Sequence[ShardTask], n_workers: int) -> int:
    """Memory of the largest shards, one per worker."""
    return sum(sorted(task.predicted_bytes for task in tasks)[-n_workers:])
