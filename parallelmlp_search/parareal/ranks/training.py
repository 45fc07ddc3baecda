"""Epochs over the rows of a part: the serial twin, a parareal network in one process, or one rank of it.

Batches come from the same stream as those of a population, the loss from the same functions, and the choosing
rows judge the averaged weights at the same moments, so that a promoted network compares with the finalists.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from parallelmlp_search.distribute import ShardData
from parallelmlp_search.engine import BatchStream
from parallelmlp_search.kernels import get_loss
from parallelmlp_search.parareal.method.network import OutputGradient
from parallelmlp_search.parareal.method.profiling import core_wait
from parallelmlp_search.parareal.ranks.checkpoint import Keeper
from parallelmlp_search.parareal.ranks.distributed import DistributedParareal

__all__ = ["EVALUATIONS", "Trained", "member_outputs", "output_gradient", "train_network"]

EVALUATIONS = 20
"""Snapshots of training at which the best epoch may lie, as for finalists."""


@dataclass
class Trained:
    """What training came to; the same on every rank but for ``weights``.

    Attributes
    ----------
    best_error, best_epoch
        Error on the choosing rows at the best moment, infinite if training diverged, and its epoch.
    epochs, errors, losses
        Snapshots, errors on the choosing rows, mean training losses since the moment before.
    weights
        Flat weights of this process's slices at the best moment.
    steps, seconds, step_seconds
        Steps taken here, wall-clock seconds of them, and the median of one in seconds.
    waited
        Share of the time for which ranks were ready and had no core, since other programs had it, summed over
        slices.
    failure
        Why training ended early, or None.
    """

    best_error: float = math.inf
    best_epoch: float = 0.0
    epochs: list[float] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    weights: Tensor | None = None
    steps: int = 0
    seconds: float = 0.0
    step_seconds: float = math.nan
    waited: float = 0.0
    failure: str | None = None

    def notes(self) -> dict[str, Any]:
        """What a checkpoint remembers."""
        names = ("best_error", "best_epoch", "epochs", "errors", "losses", "seconds")
        return {name: getattr(self, name) for name in names}


def output_gradient(
    loss: str, target: Tensor, weight: Tensor | None = None, *, smoothing: float = 0.0, share: float = 1.0
) -> OutputGradient:
    """Loss of outputs ``(N, C)`` and its gradient by them, from the losses of a population.

    Parameters
    ----------
    loss
        Name for :func:`parallelmlp_search.kernels.get_loss`.
    target, weight
        Target ``(N,)`` or ``(C, N)``, and weights ``(N,)`` or None, of these rows.
    smoothing
        Label smoothing.
    share
        Factor on both: the share of these rows in a minibatch that several replicas or pieces make up.
    """
    if loss == "cross_entropy":
        return _cross_entropy(target, weight, smoothing, share)
    function = get_loss(loss)

    def gradient(outputs: Tensor) -> tuple[Tensor, Tensor]:
        packed = outputs.T.contiguous().unsqueeze(0)
        result = torch.empty_like(packed)
        smooth = packed.new_full((1,), smoothing) if smoothing > 0 else None
        value = function(packed, target, result, weight, smooth)[0]
        back = result[0].T
        return (value, back) if share == 1.0 else (value * share, back * share)

    return gradient


def _cross_entropy(target: Tensor, weight: Tensor | None, smoothing: float, share: float) -> OutputGradient:
    """The same for one network and classes, in half as many calls.

    All slices wait for the loss, and what a call needs is out of the caches by then: 150 us with the loss of
    a population, 90 with this one (128 rows, 26 classes, one core of an AMD EPYC).
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
    """Outputs ``(n, C)`` as those of a population of one, ``(1, C, n)``."""
    return outputs.T.contiguous().unsqueeze(0)


def train_network(
    engine: DistributedParareal,
    data: ShardData,
    *,
    batch_size: int,
    epochs: float,
    smoothing: float = 0.0,
    evaluations: int = EVALUATIONS,
    keeper: Keeper | None = None,
    on_step: Callable[[int], object] | None = None,
) -> Trained:
    """Train, judge, keep the best weights; every rank calls it with the same arguments.

    Parameters
    ----------
    engine
        The network; its weights are left as after the last step.
    data
        Rows to train on and to be judged by, the same on every rank.
    batch_size
        Rows of a minibatch over all replicas.
    epochs
        Passes over the rows.
    smoothing
        Label smoothing.
    evaluations
        Snapshots at which the network is judged.
    keeper
        Where checkpoints go, after each moment; training goes on from the last one.
    on_step
        Called with the number of steps taken, after each.
    """
    world = engine.world
    rows = data.rows
    stream = BatchStream(rows.inputs.shape[0], batch_size, data.seed)
    last = stream.steps(epochs)
    moments = _moments(stream, epochs, max(1.0, epochs / evaluations))
    found = Trained()
    found.weights = engine.flat.values.detach().clone()
    if keeper is not None and (kept := keeper.load(engine)) is not None:
        notes, more = kept
        for name, value in notes.items():
            setattr(found, name, value)
        found.weights = more["best"]
    began, waited = time.monotonic(), core_wait()
    before = found.seconds
    loss_sum: Tensor | None = None
    count = 0
    took: list[float] = []
    while engine.optimizer.step_number < last:
        tick = time.perf_counter()
        step = engine.optimizer.step_number
        inputs, function = _minibatch(engine, data, stream, step, smoothing)
        loss = engine.step(inputs, function)
        if loss is not None:
            loss_sum = loss if loss_sum is None else loss_sum + loss
        count += 1
        took.append(time.perf_counter() - tick)
        if on_step is not None:
            on_step(engine.optimizer.step_number)
        epoch = moments.get(step + 1)
        if epoch is None:
            continue
        error, mean_loss = _judged(engine, data, loss_sum, count)
        loss_sum, count = None, 0
        found.epochs.append(epoch)
        found.errors.append(error)
        found.losses.append(mean_loss)
        found.seconds = before + time.monotonic() - began
        if not math.isfinite(mean_loss):
            found.failure = f"its loss became {mean_loss} in epoch {epoch:g}"
            break
        if error <= found.best_error:
            found.best_error, found.best_epoch = error, epoch
            average = engine.optimizer.average
            found.weights.copy_((engine.flat.values if average is None else average).detach())
        if keeper is not None:
            keeper.save(engine, found.notes(), best=found.weights)
    found.steps = last
    found.seconds = before + time.monotonic() - began
    waits = torch.tensor((core_wait() - waited) / max(1e-9, time.monotonic() - began), dtype=torch.float64)
    found.waited = float(world.sum_over_slices(waits.to(world.device)))
    # the first steps also make what is kept for the others
    found.step_seconds = statistics.median(took[min(3, len(took) - 1) :]) if took else math.nan
    found.step_seconds = world.share_from_last([found.step_seconds])[0]
    return found


def _moments(stream: BatchStream, epochs: float, every: float) -> dict[int, float]:
    """Steps after which the network is judged, with the epochs completed there."""
    moments: dict[int, float] = {}
    count = 1
    while count * every < epochs - 1e-9:
        moments.setdefault(stream.steps(count * every), count * every)
        count += 1
    moments[stream.steps(epochs)] = epochs
    return moments


def _minibatch(
    engine: DistributedParareal, data: ShardData, stream: BatchStream, step: int, smoothing: float
) -> tuple[Tensor, OutputGradient]:
    """This replica's rows of a minibatch and their loss; only the last slice looks at the target."""
    world = engine.world
    numbers = stream.rows(step)
    mine = numbers if world.replicas == 1 else numbers.tensor_split(world.replicas)[world.replica]
    mine = mine.to(data.rows.inputs.device)
    if not engine.is_last:
        return data.rows.inputs.index_select(0, mine), _never
    inputs, target, weight = data.rows.batch(mine)
    share = 1.0
    if world.replicas > 1:
        if weight is None or data.rows.weight is None:
            share = len(mine) / len(numbers)
        else:
            share = float(weight.sum() / data.rows.weight[numbers.to(weight.device)].sum().clamp(min=1e-30))
    return inputs, output_gradient(data.loss, target, weight, smoothing=smoothing, share=share)


def _never(outputs: Tensor) -> tuple[Tensor, Tensor]:
    raise AssertionError("only the last slice has a loss")


def _judged(
    engine: DistributedParareal, data: ShardData, loss_sum: Tensor | None, count: int
) -> tuple[float, float]:
    """Error of the averaged weights on the choosing rows, and mean training loss, on every rank."""
    assert data.validation_inputs is not None  # promotion holds rows back that choose
    with engine.weights(engine.optimizer.average):
        outputs = engine.predict(data.validation_inputs)
    values = [math.nan, math.nan]
    if outputs is not None:
        predictions = data.head.predictions(member_outputs(outputs))
        error = data.metric.error(predictions, data.validation_target, data.validation_weight)
        # replicas have their shares of the loss, and must go on or give up together
        total = torch.zeros(2, dtype=torch.float64, device=engine.world.device)
        total[0] = error[0].double() / engine.world.replicas
        total[1] = math.nan if loss_sum is None else loss_sum.double() / max(1, count)
        engine.world.sum_over_replicas(total)
        values = total.tolist()
    error_value, mean_loss = engine.world.share_from_last(values)
    return (error_value if math.isfinite(error_value) else math.inf), mean_loss
