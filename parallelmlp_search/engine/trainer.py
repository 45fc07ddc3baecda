"""Train a population up to a step, with failure, snapshots and history per member."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from parallelmlp_search.engine.acceleration import AccelerationPlan, choose_acceleration
from parallelmlp_search.engine.batches import BatchStream
from parallelmlp_search.engine.bucket_steps import Batch, BucketSteps
from parallelmlp_search.engine.device.cuda_graph import Capture
from parallelmlp_search.engine.device.training import DeviceTraining, train_in_windows
from parallelmlp_search.engine.network import PackedNetwork, window_rows
from parallelmlp_search.engine.population import Population
from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.kernels.numba.dispatch import uses_compiled

__all__ = ["Evaluation", "History", "TrainingRows", "predict", "train"]

EVALUATION_ROWS = 512
"""Rows that go through the network at once when no gradient is needed."""


GATHERED_ELEMENTS = 1 << 16
"""Inputs that are gathered at once, batches together: 256 KiB in float32."""

GATHERED_BATCHES = 32


@dataclass(frozen=True)
class TrainingRows:
    """Rows to train on: ``inputs`` (n, D); ``target`` (n,) classes or (C, n) numbers; ``weight`` (n,)."""

    inputs: Tensor
    target: Tensor
    weight: Tensor | None = None

    def batches(self, stream: BatchStream, first_step: int, last_step: int) -> Iterator[Batch]:
        """Batches ``first_step`` to ``last_step - 1``, several gathered at once to save calls."""
        device = self.inputs.device
        size = stream.batch_size
        together = max(1, min(GATHERED_BATCHES, GATHERED_ELEMENTS // (size * max(1, self.inputs.shape[1]))))
        for first in range(first_step, last_step, together):
            count = min(together, last_step - first)
            rows = torch.cat([stream.rows(step) for step in range(first, first + count)]).to(device)
            inputs, target, weight = self.batch(rows)
            weights = [None] * count if weight is None else torch.split(weight, size)
            targets = torch.split(target, size, dim=-1)
            yield from zip(torch.split(inputs, size), targets, weights, strict=True)

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Inputs ``(N, D)``, target and weights of the given rows."""
        weight = None if self.weight is None else self.weight[rows]
        target = self.target[:, rows] if self.target.ndim == 2 else self.target[rows]
        return self.inputs.index_select(0, rows), target, weight


@dataclass(frozen=True)
class Evaluation:
    """How members are judged while they train.

    ``error`` maps outputs ``(P, C, n)`` of the rows ``inputs`` (n, D) to errors ``(P,)``, lower is better,
    NaN for a member that cannot be judged.
    """

    inputs: Tensor
    error: Callable[[Tensor], Tensor]


@dataclass
class History:
    """What happened, in stacked-row order: one entry a moment of evaluation.

    Attributes
    ----------
    epochs
        Epochs completed at each moment.
    errors
        Validation errors ``(P,)`` of the averaged weights at each moment.
    train_losses
        Mean training loss ``(P,)`` since the moment before.
    member_steps
        Training steps taken, summed over members that were alive.
    seconds
        Wall-clock time.
    cut
        Whether the deadline ended training early.
    """

    epochs: list[float] = field(default_factory=list)
    errors: list[Tensor] = field(default_factory=list)
    train_losses: list[Tensor] = field(default_factory=list)
    member_steps: int = 0
    seconds: float = 0.0
    cut: bool = False


def predict(population: Population, inputs: Tensor, *, which: str = "parameters") -> Tensor:
    """Outputs ``(P, C, n)`` in stacked-row order, from the flat buffer named ``which``."""
    n_rows = window_rows(inputs.shape[0], EVALUATION_ROWS)
    network = PackedNetwork(population.layout, n_rows, dtype=inputs.dtype, device=inputs.device)
    return network.predict(population.flats[which], inputs)


def train(
    population: Population,
    rows: TrainingRows,
    *,
    stream: BatchStream,
    loss: str,
    until_epoch: float,
    total_epochs: float,
    evaluation: Evaluation | None = None,
    evaluate_every: float | None = None,
    deadline: float | None = None,
    field_width: int | None = None,
    stopped: Callable[[], bool] = lambda: False,
    acceleration: str = "auto",
    capture: Capture | None = None,
    compiled: bool | None = None,
) -> History:
    """Train until ``until_epoch`` of ``total_epochs`` epochs.

    Parameters
    ----------
    population
        Trained in place, from wherever it stands.
    rows, stream
        Training rows and the stream of their batches.
    loss
        Name for :func:`parallelmlp_search.kernels.get_loss`.
    until_epoch, total_epochs
        Where to stop now, and the horizon of the schedules.
    evaluation
        If given, members are judged by their averaged weights at the end and every ``evaluate_every`` epochs,
        and the weights of the best moment (ties: the last) are kept as ``best``.
    deadline
        Reading of :func:`time.monotonic` at which to stop early, after an evaluation of what there is.
    stopped
        Asked before every step, or every few where one call takes several; once it answers True, training is
        abandoned where it stands.
    field_width
        Rows of the dropout field; at least the widest member, which is the default.
    acceleration
        One of :data:`~parallelmlp_search.engine.acceleration.ACCELERATIONS`.
    capture
        How a step becomes a graph, for tests; as a CUDA graph, if not given.
    compiled
        Whether to use the compiled loops (float32 on a CPU only); None where they are installed.

    Returns
    -------
    History

    Raises
    ------
    InvalidParameterError
        If the rows do not fit the population or the loss, or a value is unknown or cannot be had here.
    MissingDependencyError
        If ``compiled`` is true and numba is not installed.
    """
    started = time.monotonic()
    layout = population.layout
    inputs = rows.inputs
    dtype, device = inputs.dtype, inputs.device
    _check_rows(population, rows, loss)
    plan = choose_acceleration(
        layout,
        population.row_configs(),
        loss=loss,
        dtype=dtype,
        device=device,
        acceleration=acceleration,
        seconds_left=None if deadline is None else deadline - started,
    )
    if not plan.is_plain:
        history = _train_on_device(
            population, rows, plan, capture, stream, loss, until_epoch, total_epochs, evaluation,
            evaluate_every, deadline, stopped,
        )  # fmt: skip
        history.seconds = time.monotonic() - started
        return history
    steps = BucketSteps(
        population,
        stream,
        loss,
        total_epochs,
        dtype=dtype,
        device=device,
        field_width=field_width or 0,
        compiled=uses_compiled(dtype, device, wanted=compiled),
    )
    history = History()
    alive = population.failed_at < 0
    steps.optimizer.freeze((~alive).to(device))
    last_step = stream.steps(until_epoch)
    moments = _moments(stream, population.step, last_step, until_epoch, evaluate_every)
    loss_sum = torch.zeros(layout.n_members, dtype=dtype, device=device)
    loss_count = 0
    pace = 0.0  # seconds a step
    n_alive = int(alive.sum())
    batches = rows.batches(stream, population.step, last_step)
    while population.step < last_step and not stopped():
        step = population.step
        end = min((moment for moment in moments if moment > step), default=last_step)
        count = min(end - step, steps.window)
        now = time.monotonic()
        if deadline is not None and now + count * pace >= deadline:  # the last window ends with the time
            count = max(1, min(count, int((deadline - now) / pace))) if pace > 0.0 else 1
        losses = steps(step, list(itertools.islice(batches, count)), alive)
        history.member_steps += n_alive * count
        if not math.isfinite(losses.sum().item()):
            broken = ~torch.isfinite(losses).cpu() & alive
            failed = broken.any(0)
            if bool(failed.any()):
                # after the update, which has spoiled nobody else: freezing sets all of them to zero
                steps.optimizer.freeze(failed.to(device))
                first = broken.to(torch.int8).argmax(0)
                population.failed_at[failed] = step + first[failed]
                history.member_steps -= int((count - first[failed]).sum())
                alive &= ~failed
                n_alive = int(alive.sum())
        for row in losses:  # one after the other: the sum must not depend on the window
            loss_sum += row
        loss_count += count
        steps.optimizer.advance(count)
        pace = (time.monotonic() - now) / count
        late = deadline is not None and time.monotonic() >= deadline
        history.cut = late and population.step < last_step
        if population.step in moments or history.cut:
            epoch = moments.get(population.step, population.step * stream.batch_size / stream.n_rows)
            history.epochs.append(epoch)
            history.train_losses.append(loss_sum.cpu() / loss_count)
            loss_sum.zero_()
            loss_count = 0
            if evaluation is not None:
                history.errors.append(_evaluate(population, evaluation, alive, epoch))
        if late:
            break
    history.seconds = time.monotonic() - started
    return history


def _check_rows(population: Population, rows: TrainingRows, loss: str) -> None:
    """Rows that do not fit would be read, and written, beyond their end by loops that check no bounds."""
    shape = population.layout.buckets[0].shape
    inputs, target = rows.inputs, rows.target
    if inputs.ndim != 2 or inputs.shape[1] != shape.n_inputs:
        raise InvalidParameterError(
            f"inputs must have shape (n, {shape.n_inputs}), but got {tuple(inputs.shape)}"
        )
    if inputs.dtype != population.parameters.dtype:
        raise InvalidParameterError(
            f"inputs must have the dtype of the population, {population.parameters.dtype}, "
            f"but got {inputs.dtype}"
        )
    n_rows, of_classes = inputs.shape[0], loss in ("cross_entropy", "binary_logits")
    expected = (n_rows,) if of_classes else (shape.n_outputs, n_rows)
    for name, tensor, wanted in (("target", target, expected), ("weight", rows.weight, (n_rows,))):
        if tensor is not None and tuple(tensor.shape) != wanted:
            raise InvalidParameterError(f"{name} must have shape {wanted}, but got {tuple(tensor.shape)}")
    if loss == "cross_entropy" and target.numel():
        lowest, highest = (int(value) for value in torch.aminmax(target))
        if lowest < 0 or highest >= shape.n_outputs:
            raise InvalidParameterError(
                f"target must hold classes from 0 to {shape.n_outputs - 1}, "
                f"but got {lowest if lowest < 0 else highest}"
            )


def _train_on_device(
    population: Population,
    rows: TrainingRows,
    plan: AccelerationPlan,
    capture: Capture | None,
    stream: BatchStream,
    loss: str,
    until_epoch: float,
    total_epochs: float,
    evaluation: Evaluation | None,
    evaluate_every: float | None,
    deadline: float | None,
    stopped: Callable[[], bool],
) -> History:
    """The same training in windows of steps that the device takes on its own."""
    history = History()
    training = DeviceTraining(
        population,
        (rows.inputs, rows.target, rows.weight),
        stream=stream,
        loss=loss,
        total_steps=stream.steps(total_epochs),
        plan=plan,
        capture=capture,
    )
    last_step = stream.steps(until_epoch)

    def record(epoch: float, losses: Tensor) -> None:
        history.epochs.append(epoch)
        history.train_losses.append(losses)
        if evaluation is not None:
            history.errors.append(_evaluate(population, evaluation, population.failed_at < 0, epoch))

    history.member_steps, history.cut = train_in_windows(
        training,
        last_step=last_step,
        moments=_moments(stream, population.step, last_step, until_epoch, evaluate_every),
        deadline=deadline,
        stopped=stopped,
        record=record,
        epochs_at=lambda step: step * stream.batch_size / stream.n_rows,
    )
    return history


def _moments(
    stream: BatchStream, first_step: int, last_step: int, until_epoch: float, every: float | None
) -> dict[int, float]:
    """Steps after which members are judged, with the epochs completed there."""
    moments = {last_step: until_epoch}
    if every is not None:
        count = 1
        while stream.steps(count * every) < last_step:
            if stream.steps(count * every) > first_step:
                moments.setdefault(stream.steps(count * every), count * every)
            count += 1
    return moments


def _evaluate(population: Population, evaluation: Evaluation, alive: Tensor, epoch: float) -> Tensor:
    """Errors ``(P,)`` of the averaged weights; the best so far are copied into ``best``."""
    outputs = predict(population, evaluation.inputs, which="average")
    errors = evaluation.error(outputs).detach().to("cpu", torch.float64)
    errors = torch.where(alive, errors, torch.nan)
    better = errors <= population.best_error
    if bool(better.any()):
        population.best_error = torch.where(better, errors, population.best_error)
        population.best_epoch[better] = epoch
        average, best = population.flats["average"], population.flats["best"]
        for number, bucket in enumerate(population.layout.buckets):
            first = population.layout.row_offsets[number]
            chosen = better[first : first + bucket.n_members].nonzero().view(-1).to(average.device)
            if len(chosen) == 0:
                continue
            for block in bucket.blocks:
                size = bucket.n_members * block.row_size
                place = slice(block.offset, block.offset + size)
                source = average[place].view(bucket.n_members, -1)
                best[place].view(bucket.n_members, -1)[chosen] = source[chosen]
    return errors
