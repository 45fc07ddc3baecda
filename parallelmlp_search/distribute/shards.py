"""Shards: members that share training rows and batch size, trained as one population by one worker."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from parallelmlp_search._memory import is_out_of_memory
from parallelmlp_search.distribute.memory import release_device_memory
from parallelmlp_search.distribute.shard_cuts import MIN_SHARDS, cut_work, shard_bytes
from parallelmlp_search.distribute.shard_data import ShardData
from parallelmlp_search.distribute.shard_memory import member_bytes, working_bytes
from parallelmlp_search.distribute.snapshots import SnapshotKeeper, Snapshots
from parallelmlp_search.engine import (
    BatchStream,
    Evaluation,
    History,
    MemberState,
    Population,
    TrainingSettings,
    predict,
    train,
)
from parallelmlp_search.kernels.numba.dispatch import following
from parallelmlp_search.kernels.precision import product_precision
from parallelmlp_search.packing.cost import overhead_seconds
from parallelmlp_search.space import MLPConfig

FULL_STATE = ("parameters", "first_moment", "second_moment", "average")
"""Vectors of a state from which training can continue."""


class StopSignal(threading.Event):
    """Tells the threads of this process to abandon their shards; a copy in another process is never set."""

    def __reduce__(self) -> tuple[type[StopSignal], tuple[()]]:
        return StopSignal, ()


@dataclass(frozen=True)
class ShardTask:
    """Members of one shard and the training that they get; built by :func:`shard_tasks`.

    Attributes
    ----------
    trials, configs, states
        Number, configuration and state of each member; a fresh member has no state.
    until_epoch, total_epochs
        Epochs of this task and of full training.
    evaluate_every
        Epochs between evaluations; None evaluates at the end only.
    repeat
        Number of the initialization of each configuration.
    keep
        Names of the vectors in the states of the outcome.
    deadline, stop
        Reading of :func:`time.monotonic`, and signal, at which training ends, or None.
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
    keep: tuple[str, ...] = FULL_STATE
    deadline: float | None = None
    stop: StopSignal | None = None

    @property
    def predicted_seconds(self) -> float:
        """Predicted seconds on one core."""
        done = max((state.step for state in self.states if state is not None), default=0)
        batch = self.data.batch_rows(self.configs[0])
        steps = max(0.0, self.until_epoch * self.data.n_rows / batch - done)
        shapes = {self.data.architecture(config) for config in self.configs}
        buckets = {(shape.family, shape.widths): shape for shape in shapes}
        overhead = sum(overhead_seconds(shape) for shape in buckets.values())
        training = steps * (overhead + sum(self.data.step_seconds(config) for config in self.configs))
        return training + self.n_evaluations * self.evaluation_seconds

    @property
    def evaluation_seconds(self) -> float:
        """Predicted seconds of one evaluation on one core."""
        data = self.data
        inputs = data.validation_inputs if data.snapshot_inputs is None else data.snapshot_inputs
        n_rows = 0 if inputs is None else inputs.shape[0]
        return sum(self.data.forward_seconds(config, n_rows) for config in self.configs)

    @property
    def predicted_bytes(self) -> int:
        """Predicted memory that training takes."""
        return working_bytes(self.data) + sum(self.member_bytes())

    def member_bytes(self) -> list[int]:
        """Return the predicted memory that training each member takes."""
        n_snapshots = 0 if self.data.snapshot_inputs is None else self.n_evaluations
        return [member_bytes(self.data, config, len(self.keep), n_snapshots) for config in self.configs]

    @property
    def n_evaluations(self) -> int:
        """Number of evaluations."""
        return 1 if self.evaluate_every is None else math.ceil(self.until_epoch / self.evaluate_every)

    def part(self, members: Sequence[int]) -> ShardTask:
        """The same task for some of the members."""
        return replace(
            self,
            trials=tuple(self.trials[m] for m in members),
            configs=tuple(self.configs[m] for m in members),
            states=tuple(self.states[m] for m in members),
        )


@dataclass
class MemberOutcome:
    """Result of one member: its last error, or the reason why it failed."""

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
    snapshots: Snapshots | None = None


@dataclass
class ShardOutcome:
    """Result of a shard, or of several together.

    ``seconds`` is the elapsed time of the worker. ``loop_seconds``, the part inside the training loop, and
    ``path_steps`` are those of :class:`~parallelmlp_search.engine.History`.
    """

    key: str
    members: list[MemberOutcome] = field(default_factory=list)
    member_steps: int = 0
    seconds: float = 0.0
    predicted_seconds: float = 0.0
    cut: bool = False
    loop_seconds: float = 0.0
    path_steps: dict[str, int] = field(default_factory=dict)

    def add(self, other: ShardOutcome) -> None:
        """Append the members of another outcome, and its steps and seconds."""
        self.members.extend(other.members)
        self.member_steps += other.member_steps
        self.path_steps = dict(Counter(self.path_steps) + Counter(other.path_steps))
        self.loop_seconds += other.loop_seconds
        self.seconds += other.seconds
        self.predicted_seconds += other.predicted_seconds
        self.cut = self.cut or other.cut


def shard_tasks(
    key: str,
    configs: Mapping[int, MLPConfig],
    data: ShardData,
    *,
    states: Mapping[int, MemberState] | None = None,
    min_shards: int = MIN_SHARDS,
    **options: Any,
) -> list[ShardTask]:
    """Tasks that train members up to an epoch, split into shards by :func:`cut_work`.

    Parameters
    ----------
    key
        Start of the names of the shards.
    configs, states
        Configuration of each member, and state of each that is not fresh, by the numbers of the members.
    data
        Rows, loss, metric. Its device determines the size of the shards.
    min_shards
        Shards to aim at where members are few.
    options
        Other fields of :class:`ShardTask`.

    Returns
    -------
    list of ShardTask
    """
    states = states or {}
    whole = ShardTask(
        key=key,
        trials=tuple(configs),
        configs=tuple(configs.values()),
        states=tuple(states.get(trial) for trial in configs),
        data=data,
        **options,
    )
    n_bytes = None if shard_bytes(data) is None else whole.member_bytes()
    cuts = cut_work(list(configs.values()), data, n_bytes, min_shards)
    return [replace(whole.part(cut), key=f"{key}-{place:04d}") for place, cut in enumerate(cuts)]


@contextmanager
def one_thread() -> Iterator[None]:
    """Use one intra-operator thread, so that results do not depend on the number of workers."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def train_shard(task: ShardTask) -> ShardOutcome:
    """Train a shard on one thread; where memory runs out, train its halves, and single members twice."""
    data = task.data
    with one_thread(), following(data.path), product_precision(data.precision, data.device):
        return _train(task)


def _train(task: ShardTask) -> ShardOutcome:
    is_single = len(task.configs) == 1
    for _ in range(2 if is_single else 1):
        try:
            return _train_whole(task)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            reason = str(error).splitlines()[0] if str(error) else "out of memory"
        # outside of the except block, so that the buffers of the failed attempt are freed first
        release_device_memory(task.data.device)
    if is_single:
        size, why = task.data.architecture(task.configs[0]).n_parameters, f"out of memory: {reason}"
        failed = MemberOutcome(task.trials[0], 0.0, math.nan, math.nan, size, 0.0, failure=why)
        return ShardOutcome(task.key, [failed])
    outcome = ShardOutcome(task.key)
    middle = len(task.configs) // 2
    for members in (range(middle), range(middle, len(task.configs))):
        outcome.add(_train(task.part(members)))
        release_device_memory(task.data.device)  # the second half needs the memory of the first
    return outcome


def _train_whole(task: ShardTask) -> ShardOutcome:
    started = time.monotonic()
    data = task.data.seen_by(task.configs[0])
    population = Population.create(
        task.configs, data.shape, states=task.states, repeat=task.repeat, rows=data.rows.inputs
    )
    keeper = None if data.snapshot_inputs is None else SnapshotKeeper(population, data)
    history = train(
        population,
        data.rows,
        TrainingSettings(
            stream=BatchStream(data.n_rows, task.configs[0].batch_size, data.seed),
            loss=data.loss,
            until_epoch=task.until_epoch,
            total_epochs=task.total_epochs,
            evaluation=_evaluation(data, keeper),
            evaluate_every=task.evaluate_every,
            deadline=task.deadline,
            stopped=task.stop.is_set if task.stop else (lambda: False),
        ),
    )
    predictions = None
    if data.prediction_inputs is not None and keeper is None:
        which = "average" if data.validation_inputs is None else "best"
        outputs = predict(population, data.prediction_inputs, which=which)
        predictions = data.predictions(outputs).cpu()
    if data.device.type == "cuda":
        # one copy of everything: the states of thousands of members are tens of thousands of small copies
        population.flats = {name: flat.cpu() for name, flat in population.flats.items()}
    seconds = time.monotonic() - started
    members = _members(task, population, history)
    costs = [data.epoch_seconds(config) for config in task.configs]
    rows = population.member_rows().tolist()
    for number, (member, row) in enumerate(zip(members, rows, strict=True)):
        member.seconds = seconds * costs[number] / sum(costs)
        if predictions is not None:
            member.prediction = predictions[row].clone()
        if keeper is not None:
            epochs = torch.tensor(history.epochs, dtype=torch.float64)
            member.snapshots = Snapshots(epochs, *keeper.stacked(number, row))
    return ShardOutcome(
        task.key,
        members,
        history.member_steps,
        seconds,
        task.predicted_seconds,
        history.cut,
        history.loop_seconds,
        dict(history.path_steps),
    )


def _evaluation(data: ShardData, keeper: SnapshotKeeper | None) -> Evaluation | None:
    """Evaluation during training: snapshots, or errors of the validation rows."""
    if keeper is not None:
        assert data.validation_inputs is None
        assert data.snapshot_inputs is not None
        return Evaluation(data.snapshot_inputs, keeper)
    if data.validation_inputs is None:
        return None

    def error(outputs: Tensor) -> Tensor:
        predictions = data.validation_predictions(outputs)
        return data.metric.error(predictions, data.validation_target, data.validation_weight)

    return Evaluation(data.validation_inputs, error)


def _members(task: ShardTask, population: Population, history: History) -> list[MemberOutcome]:
    """Outcomes of all members, without seconds and predictions."""
    is_validated = task.data.validation_inputs is not None
    members = []
    for number, row in enumerate(population.member_rows().tolist()):
        state = population.state(number, task.keep)
        best = float(population.best_error[row])
        failure = None
        if state.failed_at >= 0:
            failure = f"the loss stopped being finite at step {state.failed_at}"
        elif is_validated and not math.isfinite(best):
            failure = "no prediction could be scored"
        members.append(
            MemberOutcome(
                trial=task.trials[number],
                epochs=history.epochs[-1] if history.epochs else task.until_epoch,
                error=float(history.errors[-1][row]) if is_validated and history.errors else best,
                train_loss=float(history.train_losses[-1][row]) if history.train_losses else math.nan,
                n_parameters=population.layout.architecture(number).n_parameters,
                seconds=0.0,
                best_epoch=state.best_epoch,
                failure=failure,
                state=state,
            )
        )
    return members
