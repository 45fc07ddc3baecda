"""Division of members into shards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from parallelmlp_search.distribute.shard_data import ShardData
from parallelmlp_search.distribute.shard_memory import working_bytes
from parallelmlp_search.packing import cut_shards
from parallelmlp_search.packing.bucketing import SHARD_ELEMENTS, SHARD_NEURONS
from parallelmlp_search.space import MLPConfig

DEVICE_SHARE = 0.5
"""Share of the memory of a device that the predicted memory of a shard may take.

The rest is for rows, graphs, fragments, and errors of the prediction. Where it does not suffice, a shard is
halved."""

MIN_SHARDS = 8
"""Shards to aim at where members are few, so that several workers have work."""

MIN_ELEMENTS = 1 << 16
"""Hidden activations of a shard below which it is not split further to reach :data:`MIN_SHARDS`."""


def device_bytes(device: torch.device) -> int | None:
    """Return the memory of a CUDA device, or None for other devices."""
    return int(torch.cuda.get_device_properties(device).total_memory) if device.type == "cuda" else None


def cut_work(
    configs: list[MLPConfig],
    data: ShardData,
    n_bytes: Sequence[int] | None = None,
    min_shards: int = MIN_SHARDS,
) -> list[tuple[int, ...]]:
    """Split members into shards: equal batch size, columns and target, enough of them for several workers.

    The result, indices of the members of each shard, depends on the members and the data alone. The data name
    the most memory of a shard. A device trains one shard at a time, so its shards are as large as its memory
    allows.

    Parameters
    ----------
    configs, data
        Members and their rows.
    n_bytes
        Memory of each member in training, or None for no limit.
    min_shards
        Shards to aim at where members are few.

    Returns
    -------
    list of tuple of int
    """
    shapes = [data.architecture(config) for config in configs]
    alike: dict[tuple[Any, ...], list[int]] = {}
    total = 0
    for member, config in enumerate(configs):
        batch = data.batch_rows(config)
        alike.setdefault((batch, shapes[member].columns, data.transform_of(config)), []).append(member)
        total += batch * shapes[member].n_activations
    shards: list[tuple[int, ...]] = []
    for (batch, *_), members in sorted(alike.items()):
        if data.device.type == "cpu":
            elements = min(SHARD_ELEMENTS, max(MIN_ELEMENTS, total // min_shards), SHARD_NEURONS * batch)
        else:
            elements = total
        cuts = cut_shards(
            [shapes[m] for m in members],
            n_rows=batch,
            shard_elements=elements,
            n_bytes=None if n_bytes is None else [n_bytes[m] for m in members],
            shard_bytes=shard_bytes(data),
        )
        shards.extend(tuple(members[index] for index in cut) for cut in cuts)
    return shards


def shard_bytes(data: ShardData) -> int | None:
    """Return the most memory of the members of a shard, or None for no limit."""
    if (memory := device_bytes(data.device)) is not None:
        return int(DEVICE_SHARE * memory) - working_bytes(data)
    return None if data.memory is None else data.memory.shard - working_bytes(data)
