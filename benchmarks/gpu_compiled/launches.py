"""Launches, shards and paths of searches, counted without a GPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.gpu_compiled.stand_in import StandIn
from benchmarks.publishing import ROOT
from parallelmlp_search.data import read_table
from parallelmlp_search.distribute import ShardData, ShardTask, shard_cuts, shard_tasks
from parallelmlp_search.engine import BatchStream, Population
from parallelmlp_search.engine import acceleration as acceleration_module
from parallelmlp_search.engine.acceleration import choose_acceleration
from parallelmlp_search.engine.device.step import DeviceStep
from parallelmlp_search.engine.population import FLAT_NAMES
from parallelmlp_search.engine.step_coefficients import constant_table
from parallelmlp_search.packing.bucketing import plan
from parallelmlp_search.packing.cost import GPU_SPEED
from parallelmlp_search.search import Problem, SearchSettings
from parallelmlp_search.search.problem.preparation import Preparation
from parallelmlp_search.space import MLPConfig, SearchSpace

TABLE, TARGET = "adult", "income"
N_TRIALS = 2000
MEMORIES = {"16 GB": 16e9, "140 GB": 140e9}
"""Memory of two devices in bytes."""

NO_LAUNCH = ("empty", "detach", "set_")
"""Operations that start nothing, besides views."""


class LaunchCounter(TorchDispatchMode):
    """Counts operations of torch that start at least one kernel each: all but views and empty tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count it."""
        name = func.name().partition("::")[2]
        returns = func._schema.returns
        is_view = bool(returns) and all(r.alias_info and not r.alias_info.is_write for r in returns)
        if not is_view and not name.startswith(NO_LAUNCH):
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


def on_a_device(data: ShardData) -> ShardData:
    """Return data whose rows are on a device without memory."""

    def moved(tensor: Any) -> Any:
        return None if tensor is None else torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")

    rows = replace(
        data.rows,
        inputs=moved(data.rows.inputs),
        target=moved(data.rows.target),
        weight=moved(data.rows.weight),
    )
    return replace(
        data,
        rows=rows,
        validation_inputs=moved(data.validation_inputs),
        validation_target=moved(data.validation_target),
        validation_weight=moved(data.validation_weight),
    )


def screening_data() -> ShardData:
    """Return the rows of the screening of a table, on a device without memory."""
    problem = Problem.from_table(read_table(ROOT / "datasets" / f"{TABLE}.csv.gz"), TARGET)
    preparation = Preparation(problem, SearchSettings("default", device="cpu"))
    return on_a_device(preparation.screening().data)


def sample(preset: str, n_trials: int = N_TRIALS) -> list[MLPConfig]:
    """Return configurations of a preset, the same in every call."""
    return SearchSpace.preset(preset).sample(n_trials, np.random.default_rng(0))


def first_rung(configs: Sequence[MLPConfig], data: ShardData, memory: float) -> list[ShardTask]:
    """Return the shards in which a device with so many bytes trains the first rung."""
    with mock.patch.object(shard_cuts, "device_bytes", return_value=int(memory)):
        return shard_tasks("rung", dict(enumerate(configs)), data, until_epoch=1.0, total_epochs=27.0)


def population_of(task: ShardTask) -> tuple[Population, ShardData]:
    """Return the population of a shard without weights, and the rows that it sees."""
    data = task.data.seen_by(task.configs[0])
    layout = plan(
        [data.architecture(config) for config in task.configs],
        n_rows=max(config.batch_size for config in task.configs),
        speed=GPU_SPEED,
    )
    flats = {name: torch.empty(layout.size, device="meta") for name in FLAT_NAMES}
    return Population(layout, task.configs, flats), data


def paths(task: ShardTask) -> tuple[Counter[str], Counter[str]]:
    """Return the members of a shard by path of training, and by reason for not being in the kernel."""
    population, data = population_of(task)
    with mock.patch.object(acceleration_module, "runs_on", return_value=True):
        chosen = choose_acceleration(
            population.layout, population.row_configs(), loss=data.loss, dtype=torch.float32, device="cuda"
        )
    members = [bucket.n_members for bucket in population.layout.buckets]
    by_path = Counter(
        persistent=sum(members[number] for number in chosen.persistent),
        graph=sum(members[number] for number in chosen.graph),
    )
    reasons: Counter[str] = Counter()
    for number, reason in chosen.obstacles.items():
        reasons[reason] += members[number]
    return by_path, reasons


def launches_per_step(task: ShardTask, driver: StandIn) -> int:
    """Return the launches of a captured training step of a shard, all of whose members use the graph."""
    population, data = population_of(task)
    stream = BatchStream(data.n_rows, task.configs[0].batch_size, seed=0)
    configs = population.row_configs()
    step = DeviceStep(
        population,
        range(len(population.layout.buckets)),
        (data.rows.inputs, data.rows.target, data.rows.weight),
        stream=stream,
        loss=data.loss,
        constants=constant_table(configs, population.parameters),
        max_steps=1,
        total_steps=stream.steps(27.0),
        fused=True,
    )
    before = driver.launches.total()
    with LaunchCounter() as counter:
        step.take(averaging=False)
    return counter.counts.total() + driver.launches.total() - before


def describe_preset(preset: str, data: ShardData, driver: StandIn) -> dict[str, Any]:
    """Return shards, paths, buckets and launches of a first rung.

    Parameters
    ----------
    preset
        Name of the search space.
    data
        Result of :func:`screening_data`.
    driver
        Driver in use.

    Returns
    -------
    dict
    """
    configs = sample(preset)
    shards = {name: first_rung(configs, data, memory) for name, memory in MEMORIES.items()}
    members: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for task in shards["140 GB"]:
        by_path, why = paths(task)
        members.update(by_path)
        reasons.update(why)
    largest = max(shards["140 GB"], key=lambda task: len(task.trials))
    return {
        "trials": len(configs),
        "shards": {name: len(tasks) for name, tasks in shards.items()},
        "share_of_members": {path: members[path] / len(configs) for path in ("persistent", "graph")},
        "members_by_reason": dict(reasons.most_common()),
        "largest_shard": {
            "members": len(largest.trials),
            "buckets": len(population_of(largest)[0].layout.buckets),
            "launches_per_step": launches_per_step(largest, driver),
        },
    }
