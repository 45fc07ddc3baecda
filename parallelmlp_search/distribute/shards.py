"""Work units: members that share training rows and batch size, trained as one population by one worker."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from parallelmlp_search.distribute.memory import is_out_of_memory, release_device_memory
from parallelmlp_search.distribute.shard_data import ShardData
from parallelmlp_search.distribute.snapshots import SnapshotKeeper, Snapshots
from parallelmlp_search.engine import (
    BatchStream,
    Evaluation,
    MemberState,
    Population,
    predict,
    train,
)
from parallelmlp_search.packing import cut_shards
from parallelmlp_search.packing.bucketing import SHARD_ELEMENTS
from parallelmlp_search.packing.cost import overhead_seconds
from parallelmlp_search.space import MLPConfig

__all__ = ["MemberOutcome", "ShardOutcome", "ShardTask", "StopSignal", "cut_work", "train_shard"]


class StopSignal:
    """Tells the threads of this process to abandon their shards.

    Another process gets one that never rings.
    """

    def __init__(self) -> None:
        self._event = threading.Event()

    def ring(self) -> None:
        """Ask for the end."""
        self._event.set()

    def __call__(self) -> bool:
        return self._event.is_set()

    def __reduce__(self) -> tuple[type[StopSignal], tuple[()]]:
        return StopSignal, ()


@dataclass(frozen=True)
class ShardTask:
    """One shard: which members, from which states, how far.

    ``keep`` names the vectors that come back in the outcome's states. ``states`` holds None for fresh
    members. With ``keep_snapshots``, for data that nobody is judged by, the averaged weights and the
    predictions of every moment of evaluation come back, and somebody else chooses.
    """

    key: str
    trials: tuple[int, ...]
    configs: tuple[MLPConfig, ...]
    states: tuple[MemberState | None, ...]
    data: ShardData
    until_epoch: float
    total_epochs: float
    evaluate_every: float | None = None
    repeat: int = 0
    keep: tuple[str, ...] = ("parameters", "first_moment", "second_moment", "average")
    keep_snapshots: bool = False
    deadline: float | None = None
    stop: StopSignal | None = None

    @property
    def predicted_seconds(self) -> float:
        """Predicted seconds on one core."""
        done = max((state.step for state in self.states if state is not None), default=0)
        batch = self.data.batch_rows(self.configs[0])
        steps = max(0.0, self.until_epoch * self.data.rows.inputs.shape[0] / batch - done)
        moments = 1.0 if self.evaluate_every is None else math.ceil(self.until_epoch / self.evaluate_every)
        shapes = {self.data.architecture(config) for config in self.configs}
        buckets = {(shape.family, shape.widths): shape for shape in shapes}
        overhead = sum(overhead_seconds(shape) for shape in buckets.values())
        training = steps * (overhead + sum(self.data.step_seconds(config) for config in self.configs))
        wanted = self.data.prediction_inputs if self.keep_snapshots else self.data.validation_inputs
        n_judged = 0 if wanted is None else wanted.shape[0]
        judging = sum(self.data.forward_seconds(config, n_judged) for config in self.configs)
        return training + moments * judging

    def part(self, members: range) -> ShardTask:
        """The same task for some of the members."""
        return replace(
            self,
            trials=tuple(self.trials[m] for m in members),
            configs=tuple(self.configs[m] for m in members),
            states=tuple(self.states[m] for m in members),
        )


@dataclass
class MemberOutcome:
    """What became of one member: its last error, and, if it failed, why."""

    trial: int
    epochs: float
    error: float
    train_loss: float
    n_parameters: int
    seconds: float
    best_epoch: float = 0.0
    failure: str | None = None
    state: MemberState | None = None
    prediction: Tensor | None = None
    moments: Snapshots | None = None

    def record(self) -> dict[str, Any]:
        """Everything but tensors, JSON-able."""
        names = ("trial", "epochs", "error", "train_loss", "n_parameters", "seconds", "best_epoch", "failure")
        return {name: getattr(self, name) for name in names}


@dataclass
class ShardOutcome:
    """What became of a shard."""

    key: str
    members: list[MemberOutcome] = field(default_factory=list)
    member_steps: int = 0
    seconds: float = 0.0
    predicted_seconds: float = 0.0
    cut: bool = False


MIN_SHARDS = 8
"""So many shards are cut where members are few, so that several workers find something to do."""

MIN_ELEMENTS = 1 << 16
"""Hidden activations below which a shard is not cut any smaller for that."""


def cut_work(
    configs: list[MLPConfig], data: ShardData, *, memory_limit: int | None = None, cache_scale: int = 1
) -> list[tuple[int, ...]]:
    """Cut members into shards: equal batch size and columns, enough of them to share out between workers.

    The cut is a function of the members and the data alone. ``cache_scale`` widens shards on devices that
    want larger ones.
    """
    architectures = [data.architecture(config) for config in configs]
    alike: dict[tuple[int, tuple[tuple[int, int], ...]], list[int]] = {}
    total = 0
    for member, config in enumerate(configs):
        batch = data.batch_rows(config)
        alike.setdefault((batch, architectures[member].columns), []).append(member)
        total += batch * architectures[member].n_activations
    elements = cache_scale * min(SHARD_ELEMENTS, max(MIN_ELEMENTS, total // MIN_SHARDS))
    shards: list[tuple[int, ...]] = []
    for (batch, _), members in sorted(alike.items()):
        cuts = cut_shards(
            [architectures[member] for member in members],
            n_rows=batch,
            memory_limit=memory_limit,
            shard_elements=elements,
        )
        shards.extend(tuple(members[index] for index in cut) for cut in cuts)
    return shards


@contextmanager
def one_thread() -> Iterator[None]:
    """One intra-operator thread in here: the same bits whatever the number of workers."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def train_shard(task: ShardTask) -> ShardOutcome:
    """Train a shard on one thread; halve it and go on where memory runs out."""
    with one_thread():
        return _train(task)


def _train(task: ShardTask) -> ShardOutcome:
    try:
        return _train_whole(task)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        reason = str(error).splitlines()[0] if str(error) else "out of memory"
    # outside of the except block, so that the buffers of the failed attempt are freed first
    release_device_memory(task.data.rows.inputs.device)
    if len(task.configs) == 1:
        return _without_memory(task, reason)
    middle = len(task.configs) // 2
    halves = [_train(task.part(range(middle))), _train(task.part(range(middle, len(task.configs))))]
    return ShardOutcome(
        key=task.key,
        members=[member for half in halves for member in half.members],
        member_steps=sum(half.member_steps for half in halves),
        seconds=sum(half.seconds for half in halves),
        predicted_seconds=sum(half.predicted_seconds for half in halves),
        cut=any(half.cut for half in halves),
    )


def _without_memory(task: ShardTask, reason: str) -> ShardOutcome:
    config = task.configs[0]
    n_parameters = task.data.architecture(config).n_parameters
    outcome = MemberOutcome(
        task.trials[0], 0.0, math.nan, math.nan, n_parameters, 0.0, failure=f"out of memory: {reason}"
    )
    return ShardOutcome(task.key, [outcome])


def _train_whole(task: ShardTask) -> ShardOutcome:
    started = time.monotonic()
    data = task.data.seen_by(task.configs[0])
    rows = data.rows
    device = rows.inputs.device
    population = Population.create(
        task.configs,
        n_inputs=data.n_inputs,
        n_outputs=data.head.n_outputs,
        columns=data.columns,
        classifies=data.head.classifies,
        states=task.states,
        repeat=task.repeat,
        rows=rows.inputs,
        dtype=rows.inputs.dtype,
        device=device,
    )
    stream = BatchStream(rows.inputs.shape[0], task.configs[0].batch_size, data.seed)

    def error(outputs: Tensor) -> Tensor:
        assert data.validation_target is not None
        return data.metric.error(
            data.head.predictions(outputs), data.validation_target, data.validation_weight
        )

    judged = None if data.validation_inputs is None else Evaluation(data.validation_inputs, error)
    evaluation, keeper = judged, None
    if task.keep_snapshots:
        assert judged is None
        assert data.prediction_inputs is not None
        keeper = SnapshotKeeper(population, data.head)
        evaluation = Evaluation(data.prediction_inputs, keeper)
    history = train(
        population,
        rows,
        stream=stream,
        loss=data.loss,
        until_epoch=task.until_epoch,
        total_epochs=task.total_epochs,
        evaluation=evaluation,
        evaluate_every=task.evaluate_every,
        deadline=task.deadline,
        stopped=task.stop or (lambda: False),
    )
    predictions = None
    if data.prediction_inputs is not None and keeper is None:
        which = "average" if judged is None else "best"
        outputs = predict(population, data.prediction_inputs, which=which)
        predictions = data.head.stable_predictions(outputs).cpu()
    if device.type == "cuda":
        # once as a whole: states of thousands of members are tens of thousands of small copies
        population.flats = {name: flat.cpu() for name, flat in population.flats.items()}
    seconds = time.monotonic() - started
    costs = [data.epoch_seconds(config) for config in task.configs]
    total_cost = sum(costs)
    outcome = ShardOutcome(
        task.key,
        member_steps=history.member_steps,
        seconds=seconds,
        predicted_seconds=task.predicted_seconds,
        cut=history.cut,
    )
    for member, row in enumerate(population.member_rows().tolist()):
        state = population.state(member, task.keep)
        best = float(population.best_error[row])
        last = float(history.errors[-1][row]) if judged is not None and history.errors else best
        failure = None
        if state.failed_at >= 0:
            failure = f"the loss stopped being finite at step {state.failed_at}"
        elif judged is not None and not math.isfinite(best):
            failure = "no prediction could be scored"
        outcome.members.append(
            MemberOutcome(
                trial=task.trials[member],
                epochs=history.epochs[-1] if history.epochs else task.until_epoch,
                error=last,
                train_loss=float(history.train_losses[-1][row]) if history.train_losses else math.nan,
                n_parameters=population.layout.architecture(member).n_parameters,
                seconds=seconds * costs[member] / total_cost,
                best_epoch=state.best_epoch,
                failure=failure,
                state=state,
                prediction=None if predictions is None else predictions[row].clone(),
                moments=None if keeper is None else keeper.moments(member, row, history.epochs),
            )
        )
    return outcome
