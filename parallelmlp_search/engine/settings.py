"""Inputs of training: rows, evaluation, settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from parallelmlp_search.engine.batches import BatchStream
from parallelmlp_search.engine.rows import Rows, take_rows

MAX_GATHERED_ELEMENTS = 1 << 16
"""Inputs gathered at once for several batches: 256 KiB in float32."""

MAX_GATHERED_BATCHES = 32

Batch = tuple[Tensor, Tensor, Tensor | None]
"""Inputs ``(N, D)``, target and weights of the rows of a batch."""

Capture = Callable[[Callable[[], None]], Callable[[], None]]
"""Function that records work and returns a function that repeats it on the same tensors."""


@dataclass(frozen=True)
class TrainingRows:
    """Rows to train on: ``inputs`` (n, D), ``target`` (n,) classes or (C, n) numbers, ``weight`` (n,)."""

    inputs: Rows
    target: Tensor
    weight: Tensor | None = None

    def batches(self, stream: BatchStream, steps: range) -> Iterator[Batch]:
        """Yield the batches of consecutive steps; several are gathered at once to save calls."""
        device, size = self.inputs.device, stream.batch_size
        fitting = MAX_GATHERED_ELEMENTS // (size * max(1, self.inputs.shape[1]))
        together = max(1, min(MAX_GATHERED_BATCHES, fitting))
        for first in range(steps.start, steps.stop, together):
            numbers = range(first, min(first + together, steps.stop))
            rows = stream.consecutive_rows(numbers).to(device)
            inputs, target, weight = self.batch(rows)
            weights = [None] * len(numbers) if weight is None else torch.split(weight, size)
            targets = torch.split(target, size, dim=-1)
            yield from zip(torch.split(inputs, size), targets, weights, strict=True)

    def batch(self, rows: Tensor) -> Batch:
        """Return inputs ``(N, D)``, target and weights of the given rows."""
        weight = None if self.weight is None else self.weight[rows]
        target = self.target[:, rows] if self.target.ndim == 2 else self.target[rows]
        return take_rows(self.inputs, rows), target, weight


@dataclass(frozen=True)
class Evaluation:
    """Evaluation of members during training.

    Attributes
    ----------
    inputs
        Rows ``(n, D)`` to predict.
    error
        Function from outputs ``(P, C, n)`` to errors ``(P,)``: lower is better, NaN if a member cannot be
        scored.
    """

    inputs: Rows
    error: Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Settings of :func:`~parallelmlp_search.engine.trainer.train`.

    Attributes
    ----------
    stream
        Stream of the batches.
    loss
        Name for :func:`parallelmlp_search.kernels.get_loss`.
    until_epoch, total_epochs
        Epoch at which to stop, and the horizon of the schedules.
    evaluation, evaluate_every
        Evaluation of the averaged weights at the end, and every `evaluate_every` epochs. The best
        snapshot (of equal ones the last) is kept as ``best``.
    deadline
        Reading of :func:`time.monotonic` at which training stops early, after a last evaluation.
    stopped
        Function called before every window of steps; training stops at once if it returns True.
    acceleration
        One of :data:`~parallelmlp_search.engine.acceleration.ACCELERATIONS`.
    capture
        Capture of a step; None captures CUDA graphs.
    compiled
        True to use the compiled loops (float32 on a CPU only); None uses them where they are installed.
    """

    stream: BatchStream
    loss: str
    until_epoch: float
    total_epochs: float
    evaluation: Evaluation | None = None
    evaluate_every: float | None = None
    deadline: float | None = None
    stopped: Callable[[], bool] = lambda: False
    acceleration: str = "auto"
    capture: Capture | None = None
    compiled: bool | None = None

    @property
    def total_steps(self) -> int:
        """Steps of the full training."""
        return self.stream.steps(self.total_epochs)

    @property
    def last_step(self) -> int:
        """Number of steps after which training stops."""
        return self.stream.steps(self.until_epoch)

    def evaluation_epochs(self) -> dict[int, float]:
        """Return the steps after which members are evaluated, with the completed epochs."""
        epochs = {self.last_step: self.until_epoch}
        if self.evaluate_every is not None:
            count = 1
            while (step := self.stream.steps(count * self.evaluate_every)) < self.last_step:
                epochs.setdefault(step, count * self.evaluate_every)
                count += 1
        return epochs
