"""Training on the host in windows of steps, one bucket after the other."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from parallelmlp_search.engine.bucket_network import Targets
from parallelmlp_search.engine.member_bucket import MemberBucket, MemberWindow, is_supported
from parallelmlp_search.engine.network import PackedNetwork
from parallelmlp_search.engine.optimizer import PackedOptimizer
from parallelmlp_search.engine.population import Population
from parallelmlp_search.engine.schedule import dropout_rates
from parallelmlp_search.engine.settings import Batch, TrainingRows, TrainingSettings
from parallelmlp_search.engine.windows import WindowBatches, WindowNoise
from parallelmlp_search.kernels.losses import get_loss
from parallelmlp_search.kernels.numba.dispatch import compiled_loss, uses_compiled
from parallelmlp_search.packing import Architecture, flops_per_step

MAX_STEPS = 32
"""Maximum number of steps that a bucket takes before the next bucket.

Meanwhile its weights and moments stay in a cache. A member-step of the population of the paper takes 2.6 us
with 8 steps at once, 2.4 us with 16 and 2.2 us with 32 or 64."""

MAX_WINDOW_FLOP = 1.6e10
"""Work of a population in one window, about 0.2 s: the interval at which a deadline is checked."""

MAX_WINDOW_INPUTS = 1 << 20
"""Inputs of all rows of a window, of which there are two copies: 4 MiB each in float32."""

MAX_WINDOW_FIELDS = 1 << 21
"""Elements of the dropout fields of a window: 8 MiB, which fits the L3 cache."""


def window_steps(architectures: Sequence[Architecture], n_rows: int, n_fields: int = 0) -> int:
    """Return the steps of a window by counted work; a clock would end windows elsewhere in each run.

    Parameters
    ----------
    architectures
        Members of a population.
    n_rows, n_fields
        Rows ``N`` of a batch, and elements of the dropout fields of one step.

    Returns
    -------
    int
    """
    work = sum(flops_per_step(a, n_rows) for a in architectures)
    inputs = n_rows * max(1, architectures[0].n_inputs)
    most = min(MAX_STEPS, int(MAX_WINDOW_FLOP / work), MAX_WINDOW_INPUTS // inputs)
    return max(1, min(most, MAX_WINDOW_FIELDS // n_fields) if n_fields else most)


class HostTraining:
    """Training of a population by the host.

    Parameters
    ----------
    population
        Trained in place.
    rows, settings
        As for :func:`~parallelmlp_search.engine.trainer.train`.

    Attributes
    ----------
    loop_seconds
        CPU time of this thread in the loops over steps, without preparing batches and dropout fields.
    """

    def __init__(self, population: Population, rows: TrainingRows, settings: TrainingSettings) -> None:
        layout, configs, stream = population.layout, population.row_configs(), settings.stream
        dtype, self._device = rows.inputs.dtype, rows.inputs.device
        compiled = uses_compiled(dtype, self._device, wanted=settings.compiled)
        self._population, self._configs, self._stream = population, configs, stream
        gradients = torch.zeros_like(population.parameters)
        self._optimizer = PackedOptimizer(population, gradients, settings.total_steps, compiled=compiled)
        # buckets that one compiled call trains for several steps, or None
        self._members = [
            MemberBucket(population, number, self._optimizer, settings.loss)
            if compiled and is_supported(bucket, settings.loss)
            else None
            for number, bucket in enumerate(layout.buckets)
        ]
        self._compiled = torch.zeros(layout.n_members, dtype=torch.bool)
        for number, loop in enumerate(self._members):
            self._compiled[layout.stacked_rows(number)] = loop is not None
        dropping = [bucket.shape.widths for bucket in layout.buckets if bucket.shape.dropout]
        widths = [max(layer) for layer in itertools.zip_longest(*dropping, fillvalue=0)]
        n_fields = len(widths) * max(widths, default=0) * stream.batch_size
        members = [a for bucket in layout.buckets for a in bucket.architectures]
        steps = range(population.step, settings.last_step)
        self._window = min(window_steps(members, stream.batch_size, n_fields), max(1, len(steps)))
        self._noise = None
        if widths:
            sizes = stream.batch_size, self._window
            self._noise = WindowNoise(stream.seed, widths, *sizes, compiled=compiled)
        self._window_batches = None
        if any(self._members):
            of_labels = settings.loss == "binary_logits" and rows.target.ndim == 2
            self._window_batches = WindowBatches(rows, stream, self._window, of_labels=of_labels)
        self._batches = rows.batches(stream, steps)
        self._losses = torch.zeros(self._window, layout.n_members, dtype=dtype, device=self._device)
        self._loss_sum = torch.zeros(layout.n_members, dtype=dtype, device=self._device)
        self._seconds_per_step = 0.0
        self.loop_seconds = 0.0
        self._alive = population.failed_at < 0
        self._optimizer.freeze((~self._alive).to(self._device))
        if all(self._members):
            return
        smoothing = torch.tensor([config.label_smoothing for config in configs], dtype=torch.float64)
        self._smoothing = smoothing.to(self._loss_sum) if bool((smoothing > 0).any()) else None
        self._network = PackedNetwork(
            layout,
            stream.batch_size,
            dtype=dtype,
            device=self._device,
            training=True,
            dropout=torch.tensor([config.dropout for config in configs], dtype=torch.float64),
            compiled=compiled,
        )
        self._parameters = self._network.bind(population.parameters)
        self._gradients = self._network.bind(gradients)
        self._loss = compiled_loss(settings.loss) if compiled else get_loss(settings.loss)

    def window(self, until_step: int, deadline: float | None) -> int:
        """Return the steps to take next: up to ``until_step``, and less shortly before the deadline."""
        count = min(until_step - self._population.step, self._window)
        if deadline is None or time.monotonic() + count * self._seconds_per_step < deadline:
            return count
        if self._seconds_per_step == 0.0:
            return 1
        fitting = int((deadline - time.monotonic()) / self._seconds_per_step)
        return max(1, min(count, fitting))

    def advance(self, n_steps: int) -> dict[str, int]:
        """Take steps, freeze members whose loss is not finite, and return the member-steps of each path."""
        started = time.monotonic()
        population, step = self._population, self._population.step
        loops = self.loops(range(step, step + n_steps))
        began = time.thread_time()
        for loop in loops:
            loop()
        self.loop_seconds += time.thread_time() - began
        losses = self._losses[:n_steps]
        taken = self._alive * n_steps
        if not math.isfinite(losses.sum().item()):
            broken = ~torch.isfinite(losses).cpu() & self._alive
            failed = broken.any(0)
            if bool(failed.any()):
                # the update has spoiled no other member, and freezing sets these to zero
                self._optimizer.freeze(failed.to(self._device))
                first = broken.to(torch.int8).argmax(0)
                population.failed_at[failed] = step + first[failed]
                taken[failed] = first[failed]
                self._alive &= ~failed
        # one step after the other: the sum must not depend on the window
        if self._device.type == "cpu":
            sums = np.vstack([self._loss_sum.numpy(), losses.numpy()])
            np.add.accumulate(sums, axis=0, out=sums)
            self._loss_sum.copy_(torch.from_numpy(sums[-1]))
        else:
            for row in losses:
                self._loss_sum += row
        population.step += n_steps
        self._seconds_per_step = (time.monotonic() - started) / n_steps
        compiled = int(taken[self._compiled].sum())
        return {"compiled": compiled, "plain": int(taken.sum()) - compiled}

    def take_losses(self) -> Tensor:
        """Return the sum of the losses ``(P,)`` since the last call, on the CPU."""
        total = self._loss_sum.cpu().clone()
        self._loss_sum.zero_()
        return total

    def loops(self, steps: range) -> list[Callable[[], None]]:
        """Return the loops over the next steps, one for each bucket, with all that they need prepared."""
        losses = self._losses[: len(steps)]
        noise = None if self._noise is None else self._noise.of(steps)
        window = batches = None
        if self._window_batches is not None:
            window = MemberWindow(self._window_batches.of(steps), steps, self._alive, noise)
        if not all(self._members):
            fields = None
            if self._noise is not None and noise is not None:
                fields = self._noise.fields(noise, self._device)
            batches = _Batches(list(itertools.islice(self._batches, len(steps))), fields)
        found: list[Callable[[], None]] = []
        for number, members in enumerate(self._members):
            own = losses[:, self._population.layout.stacked_rows(number)]
            if members is not None:
                assert window is not None
                found.append(partial(_write_losses, own, members.prepare(window)))
            else:
                assert batches is not None
                found.append(partial(self._loop_plainly, number, steps, batches, own))
        return found

    def _loop_plainly(self, number: int, steps: range, batches: _Batches, losses: Tensor) -> None:
        """Take steps with one bucket and tensor operations, and write its losses ``(T, P_b)``."""
        span, bucket = self._population.layout.stacked_rows(number), self._network.buckets[number]
        smoothing = None if self._smoothing is None else self._smoothing[span]
        progress = torch.arange(steps.start, steps.stop, dtype=torch.float64) / self._optimizer.total_steps
        rates = dropout_rates(self._configs[span], progress)
        for place, (batch, target, weight) in enumerate(batches.steps):
            if batches.fields is not None:
                bucket.draw_dropout(batches.fields[place], None if rates is None else rates[place])
            bucket.forward(self._parameters[number], batch)
            losses[place] = bucket.losses(self._loss, Targets(target, weight, smoothing))
            bucket.backward(self._gradients[number])
            self._optimizer.clip_bucket(number)
            self._optimizer.step_bucket(number, steps[place])


class _Batches(NamedTuple):
    """Batches of successive steps, and dropout fields by step and layer or None."""

    steps: list[Batch]
    fields: list[list[Tensor]] | None


def _write_losses(losses: Tensor, loop: Callable[[], Tensor]) -> None:
    losses.copy_(loop())
