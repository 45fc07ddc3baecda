"""Training loop over the rows of a fold, for the serial twin, a parareal network or one rank of it.

Batches come from the same stream as those of a population, the loss from the same functions, and the averaged
weights are evaluated on the validation rows at the same snapshots. A promoted network is therefore comparable
with the finalists.
"""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from parallelmlp_search.distribute import ShardData
from parallelmlp_search.engine import BatchStream
from parallelmlp_search.engine.heads import head_predictions
from parallelmlp_search.engine.rows import as_tensor, take_rows
from parallelmlp_search.kernels.losses import get_loss
from parallelmlp_search.parareal.method.network import OutputGradient
from parallelmlp_search.parareal.method.profiling import cpu_wait_seconds
from parallelmlp_search.parareal.ranks.checkpoint import Checkpointer
from parallelmlp_search.parareal.ranks.distributed import DistributedParareal

N_SNAPSHOTS = 20
"""Snapshots of training among which the best is chosen, as for finalists."""

N_WARM_UP_STEPS = 3
"""Steps without which the median step time is taken: they also create buffers."""


@dataclass
class TrainingResult:
    """Result of training; the same on every rank except ``weights``."""

    weights: Tensor  # flat weights of the slices of this process at the best snapshot
    best_error: float = math.inf  # on the validation rows
    best_epoch: float = 0.0
    epochs: list[float] = field(default_factory=list)  # of each snapshot, as the next two
    errors: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)  # mean training loss since the previous snapshot
    steps: int = 0
    seconds: float = 0.0
    step_seconds: float = math.nan  # median
    waited: float = 0.0  # share of the time in which ranks were ready without a core, summed over slices
    failure: str | None = None  # reason for which training ended early

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the weights, JSON-able."""
        return {name: value for name, value in vars(self).items() if name != "weights"}


def output_gradient(
    loss: str, target: Tensor, weight: Tensor | None = None, *, smoothing: float = 0.0, share: float = 1.0
) -> OutputGradient:
    """Return a function from outputs ``(N, C)`` to their loss and its gradient.

    Parameters
    ----------
    loss
        Name for :func:`parallelmlp_search.kernels.get_loss`.
    target, weight
        Target ``(N,)`` or ``(C, N)``, and weights ``(N,)`` or None, of these rows.
    smoothing
        Label smoothing.
    share
        Factor on both: the share of these rows in a minibatch that is divided.

    Returns
    -------
    callable
    """
    if loss == "cross_entropy":
        return _cross_entropy(target, weight, smoothing, share)
    function = get_loss(loss)

    def gradient(outputs: Tensor) -> tuple[Tensor, Tensor]:
        packed = member_outputs(outputs)
        result = torch.empty_like(packed)
        smooth = packed.new_full((1,), smoothing) if smoothing > 0 else None
        value = function(packed, target, result, weight, smooth)[0]
        back = result[0].T
        return (value, back) if share == 1.0 else (value * share, back * share)

    return gradient


def _cross_entropy(target: Tensor, weight: Tensor | None, smoothing: float, share: float) -> OutputGradient:
    """Cross-entropy of one network, in half as many calls as that of a population.

    All slices wait for the loss, with cold caches: 150 us with the loss of a population, 90 us with this one
    (128 rows, 26 classes, one core of an AMD EPYC).
    """
    index = target.view(-1, 1)
    shares: Tensor | float = share / len(target)
    if weight is not None:
        shares = (share * weight / weight.sum().clamp(min=torch.finfo(weight.dtype).tiny)).view(-1, 1)

    def gradient(outputs: Tensor) -> tuple[Tensor, Tensor]:
        log_probability = torch.log_softmax(outputs, dim=1)
        back = log_probability.exp()
        picked = log_probability.gather(1, index)
        if smoothing > 0:
            spread = smoothing / outputs.shape[1]
            picked = (1.0 - smoothing) * picked + spread * log_probability.sum(dim=1, keepdim=True)
            back.sub_(spread)
        back.scatter_add_(1, index, back.new_full(index.shape, smoothing - 1.0)).mul_(shares)
        value = -picked.sum() * shares if isinstance(shares, float) else -(picked * shares).sum()
        return value, back

    return gradient


def member_outputs(outputs: Tensor) -> Tensor:
    """Return outputs ``(n, C)`` in the layout of a population of one, ``(1, C, n)``."""
    return outputs.T.contiguous().unsqueeze(0)


def train_network(
    engine: DistributedParareal,
    data: ShardData,
    *,
    batch_size: int,
    epochs: float,
    smoothing: float = 0.0,
    checkpointer: Checkpointer | None = None,
) -> TrainingResult:
    """Train for a number of epochs and keep the best weights; every rank calls it.

    Parameters
    ----------
    engine
        Network, before its first step.
    data
        Training and validation rows, the same on every rank.
    batch_size
        Rows of a minibatch, over all replicas.
    epochs
        Passes over the training rows.
    smoothing
        Label smoothing.
    checkpointer
        Saves after each snapshot. Training resumes from its last checkpoint.

    Returns
    -------
    TrainingResult
    """
    stream = BatchStream(data.rows.inputs.shape[0], batch_size, data.seed)
    snapshots = _snapshots(stream, epochs)
    result = TrainingResult(engine.flat.values.detach().clone(), steps=stream.steps(epochs))
    if checkpointer is not None and (saved := checkpointer.load(engine)) is not None:
        notes, tensors = saved
        result = TrainingResult(**{**notes, "steps": result.steps}, weights=tensors["best"])
    began, waited, before = time.monotonic(), cpu_wait_seconds(), result.seconds
    durations: list[float] = []
    losses: list[Tensor | None] = []
    while (step := engine.optimizer.step_number) < result.steps:
        started = time.perf_counter()
        losses.append(engine.step(*_minibatch(engine, data, stream, smoothing)))
        durations.append(time.perf_counter() - started)
        if step + 1 not in snapshots:
            continue
        _record_snapshot(result, engine, data, snapshots[step + 1], losses)
        losses.clear()
        result.seconds = before + time.monotonic() - began
        if result.failure is not None:
            break
        if checkpointer is not None:
            checkpointer.save(engine, result.to_dict(), best=result.weights)
    elapsed = time.monotonic() - began
    result.seconds = before + elapsed
    communicator = engine.communicator
    share = torch.tensor((cpu_wait_seconds() - waited) / max(1e-9, elapsed), dtype=torch.float64)
    result.waited = float(communicator.sum_over_slices(share.to(communicator.device)))
    regular = durations[min(N_WARM_UP_STEPS, len(durations) - 1) :]
    median = statistics.median(regular) if regular else math.nan
    result.step_seconds = communicator.broadcast_from_last([median])[0]
    return result


def _snapshots(stream: BatchStream, epochs: float) -> dict[int, float]:
    """Steps after which the network is evaluated, with the epochs completed there."""
    every = max(1.0, epochs / N_SNAPSHOTS)
    snapshots: dict[int, float] = {}
    count = 1
    while count * every < epochs - 1e-9:
        snapshots.setdefault(stream.steps(count * every), count * every)
        count += 1
    snapshots[stream.steps(epochs)] = epochs
    return snapshots


def _minibatch(
    engine: DistributedParareal, data: ShardData, stream: BatchStream, smoothing: float
) -> tuple[Tensor, OutputGradient]:
    """Rows of this replica in the next minibatch, and their loss, which only the last slice computes."""
    communicator = engine.communicator
    numbers = stream.rows(engine.optimizer.step_number)
    mine = numbers.tensor_split(communicator.n_replicas)[communicator.replica_index]
    mine = mine.to(data.rows.inputs.device)
    if not engine.is_last:
        return take_rows(data.rows.inputs, mine), _no_loss
    inputs, target, weight = data.rows.batch(mine)
    share = 1.0
    if communicator.n_replicas > 1:
        if weight is None or data.rows.weight is None:
            share = len(mine) / len(numbers)
        else:
            share = float(weight.sum() / data.rows.weight[numbers.to(weight.device)].sum().clamp(min=1e-30))
    return inputs, output_gradient(data.loss, target, weight, smoothing=smoothing, share=share)


def _no_loss(outputs: Tensor) -> tuple[Tensor, Tensor]:
    raise AssertionError("only the last slice has a loss")


def _record_snapshot(
    result: TrainingResult,
    engine: DistributedParareal,
    data: ShardData,
    epoch: float,
    losses: list[Tensor | None],
) -> None:
    """Evaluate the averaged weights on the validation rows, on every rank, and keep them if they are best."""
    assert data.validation_inputs is not None
    communicator, average = engine.communicator, engine.optimizer.average
    with engine.weights(average):
        outputs = engine.predict(as_tensor(data.validation_inputs))
    values = [math.nan, math.nan]
    if outputs is not None:
        predictions = head_predictions(data.head, member_outputs(outputs))
        error = data.metric.error(predictions, data.validation_target, data.validation_weight)
        # replicas have parts of the loss, and must make the same choice
        total = torch.zeros(2, dtype=torch.float64, device=communicator.device)
        total[0] = error[0].double() / communicator.n_replicas
        total[1] = torch.stack([loss for loss in losses if loss is not None]).double().mean()
        communicator.sum_over_replicas(total)
        values = total.tolist()
    error_value, mean_loss = communicator.broadcast_from_last(values)
    error_value = error_value if math.isfinite(error_value) else math.inf
    result.epochs.append(epoch)
    result.errors.append(error_value)
    result.losses.append(mean_loss)
    if not math.isfinite(mean_loss):
        result.failure = f"its loss became {mean_loss} in epoch {epoch:g}"
    elif error_value <= result.best_error:
        result.best_error, result.best_epoch = error_value, epoch
        result.weights.copy_((engine.flat.values if average is None else average).detach())
