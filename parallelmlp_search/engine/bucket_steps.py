"""Training steps of all buckets of a population, on the host's call: forward, loss, backward, optimiser."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from parallelmlp_search.engine.batches import BatchStream, dropout_fields
from parallelmlp_search.engine.member_bucket import MemberBucket, is_covered
from parallelmlp_search.engine.network import PackedNetwork
from parallelmlp_search.engine.optimizer import PackedOptimizer
from parallelmlp_search.engine.population import Population
from parallelmlp_search.engine.schedule import dropout_rates
from parallelmlp_search.kernels.losses import get_loss
from parallelmlp_search.kernels.numba.dispatch import MemberRows, compiled_loss
from parallelmlp_search.packing import Architecture, flops_per_step

__all__ = ["MAX_STEPS", "Batch", "BucketSteps", "window_steps"]

MAX_STEPS = 32
"""Steps that a bucket takes at most before it is the next one's turn.

Meanwhile its weights and moments stay in a cache. Microseconds a member-step of the paper's population: 2.6
with 8 steps at once, 2.4 with 16, 2.2 with 32 and 64."""

WINDOW_FLOP = 1.6e10
"""Work of a population in one window, some 0.2 s: so often a deadline is looked at."""

WINDOW_INPUTS = 1 << 20
"""Inputs of all rows of a window, which lie twice in memory: 4 MiB each in float32."""

WINDOW_FIELDS = 1 << 21
"""Numbers of the fields of dropout of a window: 8 MiB, in the third cache."""

Batch = tuple[Tensor, Tensor, Tensor | None]
"""Inputs ``(N, D)``, target, and weights of the rows or None."""


def window_steps(architectures: Sequence[Architecture], n_rows: int, n_fields: int = 0) -> int:
    """Steps that the members of a population take at once.

    By counted work, inputs and numbers of dropout a step (``n_fields``): clocks would end windows elsewhere
    each time.
    """
    work = sum(flops_per_step(a, n_rows) for a in architectures)
    inputs = n_rows * max(1, architectures[0].n_inputs)
    most = min(MAX_STEPS, int(WINDOW_FLOP / work), WINDOW_INPUTS // inputs)
    return max(1, min(most, WINDOW_FIELDS // n_fields) if n_fields else most)


class BucketSteps:
    """Takes steps of a population, one bucket after the other.

    Parameters
    ----------
    population
        Trained in place.
    stream
        Stream of the batches: their size, and the seed of dropout.
    loss
        Name for :func:`parallelmlp_search.kernels.get_loss`.
    total_epochs
        Horizon of the schedules.
    dtype, device
        Of the rows.
    field_width
        Rows of the dropout field; at least the widest member.
    compiled
        Whether to use the compiled loops.
    """

    def __init__(
        self,
        population: Population,
        stream: BatchStream,
        loss: str,
        total_epochs: float,
        *,
        dtype: torch.dtype,
        device: torch.device,
        field_width: int,
        compiled: bool,
    ) -> None:
        layout = population.layout
        configs = population.row_configs()
        self._stream, self._device = stream, device
        gradients = torch.zeros_like(population.parameters)
        self.optimizer = PackedOptimizer(population, gradients, stream.steps(total_epochs), compiled=compiled)
        self._spans = [slice(*layout.row_offsets[n : n + 2]) for n in range(len(layout.buckets))]
        self._covered = [
            MemberBucket(population, number, self.optimizer)
            if compiled and is_covered(bucket, loss)
            else None
            for number, bucket in enumerate(layout.buckets)
        ]
        self._configs = configs
        self._total_steps = max(1, stream.steps(total_epochs))
        dropping = [bucket.shape for bucket in layout.buckets if bucket.shape.dropout]
        self._known_fields: dict[int, list[Tensor]] = {}
        self._depth = max((shape.depth for shape in dropping), default=0)
        self._width = max(field_width, *(max(shape.widths, default=0) for shape in dropping), 0)
        members = [a for bucket in layout.buckets for a in bucket.architectures]
        n_fields = self._depth * self._width * stream.batch_size
        self.window = window_steps(members, stream.batch_size, n_fields)
        """Steps that may be asked for at once; the result does not depend on it."""
        self._losses = torch.zeros(self.window, layout.n_members, dtype=dtype, device=device)
        if all(self._covered):
            return
        dropout = torch.tensor([config.dropout for config in configs], dtype=torch.float64)
        smoothing = torch.tensor([config.label_smoothing for config in configs], dtype=torch.float64)
        self._smoothing = smoothing.to(device, dtype) if bool((smoothing > 0).any()) else None
        self._network = PackedNetwork(
            layout,
            stream.batch_size,
            dtype=dtype,
            device=device,
            training=True,
            dropout=dropout,
            compiled=compiled,
        )
        self._parameters = self._network.bind(population.parameters)
        self._gradients = self._network.bind(gradients)
        self._loss = compiled_loss(loss) if compiled else get_loss(loss)

    def __call__(self, step: int, batches: Sequence[Batch], alive: Tensor) -> Tensor:
        """Losses ``(T, P)`` of the steps from number ``step`` on, valid until the next call.

        Parameters
        ----------
        batches
            One for each step, :attr:`window` at most.
        alive
            ``(P,)``: members that have not failed.
        """
        losses = self._losses[: len(batches)]
        rows, fields = None, None
        if any(self._covered):
            rows = MemberRows.of(batches)
            if any(covered is not None and covered.dropout for covered in self._covered) and self._depth:
                fields = rows.fields([self._fields(step + later) for later in range(len(batches))])
        progress = torch.arange(step, step + len(batches), dtype=torch.float64) / self._total_steps
        for number, (span, covered) in enumerate(zip(self._spans, self._covered, strict=True)):
            if covered is not None:
                assert rows is not None
                losses[:, span] = covered(rows, step, alive, fields, progress)
                continue
            bucket = self._network.buckets[number]
            views, into = self._parameters[number], self._gradients[number]
            smoothing = None if self._smoothing is None else self._smoothing[span]
            rates = dropout_rates(self._configs[span], progress)
            for later, (batch, target, weight) in enumerate(batches):
                if self._depth:
                    drawn = self._fields(step + later)
                    bucket.draw_dropout(drawn, None if rates is None else rates[later])
                outputs = bucket.forward(views, batch)
                losses[later, span] = bucket.losses(self._loss, outputs, target, weight, smoothing)
                bucket.backward(views, into, batch)
                self.optimizer.clip_bucket(number)
                self.optimizer.step_bucket(number, step + later)
        self._known_fields.clear()
        return losses

    def _fields(self, step: int) -> list[Tensor]:
        """The fields of dropout of a step, which all buckets share."""
        if step not in self._known_fields:
            seed, n_rows = self._stream.seed, self._stream.batch_size
            drawn = dropout_fields(seed, step, self._depth, self._width, n_rows)
            self._known_fields[step] = [field.to(self._device) for field in drawn]
        return self._known_fields[step]
