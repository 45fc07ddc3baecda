"""Plan of the memory of a search under a limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from parallelmlp_search._memory import resident_bytes
from parallelmlp_search.distribute import ShardData, TrainingMemory, return_free_memory
from parallelmlp_search.distribute.shard_memory import FLOAT_BYTES
from parallelmlp_search.search.problem.memory_room import too_low

STEP_BYTES = 1 << 25
"""The memory that is left is rounded down to multiples of 32 MiB. Otherwise shards would differ between runs
with the same limit, since libraries take a few megabytes more or less."""

PLANNED_SHARE = 0.93
"""Share of a limit that is planned. Predictions of single shards are off by up to 25 MB."""

SHARD_SHARE = 0.5
"""Share of the memory that is left for shards in training. States and finalists have the rest."""

WAITING_SHARE = 0.5
"""Share of the finalists' memory for snapshots that wait for the other folds."""

N_PREDICTION_COPIES = 4
"""Copies of the out-of-fold predictions of a finalist, from its folds to the selection of the ensemble."""

MIN_SCORED_VALUES = 1 << 20
SCORING_BYTES = 64
"""Predictions that are scored at once, or those of one finalist, and the temporary memory of each."""


@dataclass(frozen=True)
class FinalistSizes:
    """Sizes that decide on the memory of finalists.

    Attributes
    ----------
    n_folds, n_snapshots
        Folds ``S``, and snapshots of each network, 0 without.
    n_values, n_selecting
        Predictions of a finalist, rows times classes or outputs, and those that select a snapshot.
    """

    n_folds: int
    n_snapshots: int
    n_values: int
    n_selecting: int

    def kept(self, n_parameters: int) -> int:
        """Bytes of a cross-fitted finalist until the ensemble is selected."""
        return FLOAT_BYTES * (self.n_folds * n_parameters + N_PREDICTION_COPIES * self.n_values)

    def waiting(self, n_parameters: int) -> int:
        """Bytes of the snapshots of a finalist until all folds are trained."""
        return FLOAT_BYTES * self.n_snapshots * (self.n_folds * n_parameters + self.n_selecting)

    def of_shard(self, n_parameters: int) -> int:
        """Bytes of the snapshots of a network in training, which are in a list and then stacked."""
        return 2 * FLOAT_BYTES * self.n_snapshots * (n_parameters + self.n_selecting // self.n_folds)

    @property
    def scoring(self) -> int:
        """Temporary bytes of scoring."""
        return SCORING_BYTES * max(MIN_SCORED_VALUES, self.n_values)


@dataclass(frozen=True)
class MemoryPlan:
    """Memory of a search under a limit, in bytes.

    Attributes
    ----------
    limit, base
        Limit, and memory of program, table and encoded rows before training.
    room, shard
        Memory for training, and most of a shard of several members.
    estimate
        Predicted peak.
    """

    limit: int
    base: int
    room: int
    shard: int
    estimate: int = 0

    @classmethod
    def make(
        cls, limit: int, base: int, *, largest_shard: int, states: int, sizes: FinalistSizes, largest: int
    ) -> MemoryPlan:
        """Divide the memory that is left.

        Parameters
        ----------
        limit, base
            Limit, and memory that is used before training.
        largest_shard
            Memory of a shard of one large member.
        states
            Least memory for the states of members between rungs.
        sizes, largest
            Sizes of finalists, and parameters of a large one.

        Returns
        -------
        MemoryPlan

        Raises
        ------
        InvalidParameterError
            If the limit is below the minimum, which the message names.
        """
        finalists = 2 * sizes.kept(largest) + sizes.waiting(largest)
        needed = max(largest_shard + max(states, finalists), finalists + sizes.scoring)
        needed = -(-needed // STEP_BYTES) * STEP_BYTES
        room = int(PLANNED_SHARE * limit - base) // STEP_BYTES * STEP_BYTES
        if room < needed:
            raise too_low(limit, base, int((base + needed) / PLANNED_SHARE) - base)
        return cls(limit, base, room, max(largest_shard, int(SHARD_SHARE * room)))

    @property
    def rest(self) -> int:
        """Memory for states or finalists, besides shards."""
        return self.room - self.shard

    @property
    def training(self) -> TrainingMemory:
        """Limits of shards."""
        return TrainingMemory(self.base + self.room, self.shard)

    def fitting(self, n_parameters: Sequence[int], sizes: FinalistSizes, group_size: int) -> tuple[int, int]:
        """Return how many finalists fit into memory, and how many of them at once.

        Parameters
        ----------
        n_parameters
            Parameters of each finalist, the best first.
        sizes
            Folds and predictions.
        group_size
            Most finalists that are cross-fitted at once.

        Returns
        -------
        (n_finalists, group_size)
            At least 1 each.
        """
        found, waiting, kept = (1, 1), 1, 0
        for count, size in enumerate(n_parameters, start=1):
            waiting, kept = max(waiting, sizes.waiting(size)), kept + sizes.kept(size)
            group = max(1, min(group_size, int(WAITING_SHARE * self.rest / waiting)))
            fits = kept + group * waiting <= self.rest and kept + sizes.scoring <= self.room
            if count > 1 and not fits:
                break
            found = count, group
        return found

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values."""
        return asdict(self)


def measured_base() -> int:
    """Return the memory that the process uses now, without blocks that the C library holds back."""
    return_free_memory()
    return resident_bytes() or 0


def limited(data: ShardData, plan: MemoryPlan | None) -> ShardData:
    """Return the data of shards that keep to a plan."""
    return data if plan is None or data.device.type != "cpu" else replace(data, memory=plan.training)
