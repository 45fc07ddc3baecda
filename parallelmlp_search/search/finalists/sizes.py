"""Sizes of cross-fitting that memory limits: snapshots, and finalists that train at once."""

from __future__ import annotations

from parallelmlp_search.distribute.shard_memory import FLOAT_BYTES
from parallelmlp_search.search.problem.preparation import Preparation
from parallelmlp_search.search.run.memory import FinalistSizes

N_SNAPSHOTS = 10
"""Snapshots of a finalist's training, with weights and predictions."""

TIMED_GROUP_SIZE, UNTIMED_GROUP_SIZE = 4, 8
"""Most finalists that are cross-fitted at once with and without a time limit. The snapshots of a group are in
memory until all folds are trained."""

MAX_SNAPSHOT_VALUES, MAX_GROUP_VALUES = 1 << 25, 1 << 26
"""Most predictions in the snapshots of one finalist, 128 MiB, and of a group."""

SNAPSHOT_SHARE = 1 / 32
"""Share of a memory limit for the predictions in the snapshots of one finalist."""


def snapshots_fit(preparation: Preparation) -> bool:
    """Return True if validation rows can train and snapshots fit into memory.

    Where they do not fit, validation rows are a small share of the table.
    """
    limit, most = preparation.settings.memory_bytes, MAX_SNAPSHOT_VALUES
    if limit is not None:
        most = min(most, int(SNAPSHOT_SHARE * limit) // FLOAT_BYTES)
    return preparation.trains_on_validation_rows and N_SNAPSHOTS * _n_selecting(preparation) <= most


def _n_selecting(preparation: Preparation) -> int:
    """Predictions of a finalist on the validation rows."""
    return preparation.problem.head.n_predictions * len(preparation.validation_rows)


def finalist_sizes(preparation: Preparation, n_folds: int) -> FinalistSizes:
    """Return the sizes that decide on the memory of finalists."""
    n_snapshots = N_SNAPSHOTS if snapshots_fit(preparation) else 0
    n_values = preparation.problem.head.n_predictions * preparation.problem.n_rows
    return FinalistSizes(n_folds, n_snapshots, n_values, _n_selecting(preparation))


def group_size(preparation: Preparation) -> int:
    """Return how many finalists are cross-fitted at once, without a memory limit."""
    most = UNTIMED_GROUP_SIZE if preparation.settings.time_limit is None else TIMED_GROUP_SIZE
    return max(1, min(most, MAX_GROUP_VALUES // max(1, N_SNAPSHOTS * _n_selecting(preparation))))
