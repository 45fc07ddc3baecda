"""Shards of cross-fitting: finalists in groups, each on every fold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from parallelmlp_search.distribute import ShardData, ShardTask, shard_tasks
from parallelmlp_search.search.finalists.sizes import N_SNAPSHOTS
from parallelmlp_search.search.problem.preparation import Part
from parallelmlp_search.search.run.budget import FinalistPlan
from parallelmlp_search.search.run.trial import Trial

MIN_GROUP_SIZE, N_GROUPS = 2, 8
"""Finalists of a group under a time limit, and least groups of more than two. Small groups leave little time
unused. Finalists of a group with equal batches share their batches and dropout noise, which take a tenth of
the time of a finalist that trains alone."""

UNTIMED_SHARDS = 2
"""Shards of a group in each fold without a time limit. With a limit, a group with equal batches is one shard
in each fold: all folds together give several workers work."""

N_EVALUATIONS = 20
"""Evaluations of a finalist's training on the validation rows."""


def grouped_tasks(
    finalists: Sequence[Trial], parts: Sequence[Part], plan: FinalistPlan, required: int | None
) -> Iterator[list[ShardTask]]:
    """Yield the shards of each group of finalists on every fold.

    Parameters
    ----------
    finalists, parts
        Finalists, best first; one part per fold.
    plan
        Epochs, and largest size of a group.
    required
        Finalists that are planned under a time limit; further ones are extra. None without a limit.

    Yields
    ------
    list of ShardTask
        Most important group first.
    """
    if required is None:
        groups, min_shards = _chunks(finalists, plan.group_size), UNTIMED_SHARDS
    else:
        groups, min_shards = _timed_groups(finalists, required, plan.group_size, parts[0].data), 1
    for number, group in enumerate(groups):
        yield _tasks(number, group, parts, plan.max_epochs, min_shards)


def _chunks(finalists: Sequence[Trial], size: int) -> list[Sequence[Trial]]:
    return [finalists[start : start + size] for start in range(0, len(finalists), size)]


def _timed_groups(
    finalists: Sequence[Trial], required: int, size: int, data: ShardData
) -> list[Sequence[Trial]]:
    """Planned finalists in groups that share batches, ordered by the best of each; then the extra ones."""
    alike: dict[tuple[object, ...], list[Trial]] = {}
    for trial in finalists[:required]:
        config = trial.config
        kind = data.batch_rows(config), data.architecture(config).columns, data.transform_of(config)
        alike.setdefault(kind, []).append(trial)
    most = min(size, max(MIN_GROUP_SIZE, required // N_GROUPS))
    groups = [group for trials in alike.values() for group in _chunks(trials, most)]
    place = {trial.number: number for number, trial in enumerate(finalists)}
    groups.sort(key=lambda group: place[group[0].number])
    return groups + _chunks(finalists[required:], min(size, MIN_GROUP_SIZE))


def _tasks(
    number: int, group: Sequence[Trial], parts: Sequence[Part], max_epochs: int, min_shards: int = 1
) -> list[ShardTask]:
    """Shards of a group on every fold, the most expensive first."""
    tasks: list[ShardTask] = []
    for fold, part in enumerate(parts):
        keep_snapshots = part.data.snapshot_inputs is not None
        tasks += shard_tasks(
            f"finalists-{number:02d}-{fold:02d}",
            {trial.number: trial.config for trial in group},
            part.data,
            until_epoch=max_epochs,
            total_epochs=max_epochs,
            evaluate_every=max(1.0, max_epochs / (N_SNAPSHOTS if keep_snapshots else N_EVALUATIONS)),
            repeat=fold + 1,
            min_shards=min_shards,
            keep=() if keep_snapshots else ("best",),
        )
    return sorted(tasks, key=lambda task: (-task.predicted_seconds, task.key))
