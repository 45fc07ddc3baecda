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
from parallelmlp_search.kernels.compiled import MemberRows, compiled_loss
from parallelmlp_search.kernels.losses import get_loss
from parallelmlp_search.packing import Architecture, flops_per_step

__all__ = ["MOST_STEPS", "Batch", "BucketSteps", "window_steps"]

MOST_STEPS = 32
"""Steps that a bucket takes at most before it is the next one's turn.

Meanwhile its weights and moments stay in a cache. Microseconds a member-step of the paper's population: 2.6
with 8 steps at once, 2.4 with 16, 2.2 with 32 and 64."""

WINDOW_FLOP = 4e9
"""Work of a population in one window, some 60 ms: so often a deadline is looked at."""

Batch = tuple[Tensor, Tensor, Tensor | None]
"""Inputs ``(N, D)``, target, and weights of the rows or None."""


WINDOW_INPUTS = 1 << 20
"""Inputs of all rows of a window, which lie twice in memory: 4 MiB each in float32."""


def window_steps(architectures: Sequence[Architecture], n_rows: int) -> int:
    """Steps at once of the members of a population, by counted work: clocks would end windows elsewhere."""
    if any(a.dropout for a in architectures):
        return 1  # the fields of a step are drawn once for all buckets
    work = sum(flops_per_step(a, n_rows) for a in architectures)
    inputs = n_rows * max(1, architectures[0].n_inputs)
    return max(1, min(MOST_STEPS, int(WINDOW_FLOP / work), WINDOW_INPUTS // inputs))


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
            MemberBucket(population, number) if compiled and is_covered(bucket, loss) else None
            for number, bucket in enumerate(layout.buckets)
        ]
        members = [a for bucket in layout.buckets for a in bucket.architectures]
        self.window = window_steps(members, stream.batch_size)
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
        dropping = [bucket.shape for bucket in layout.buckets if bucket.shape.dropout]
        self._field_step = -1
        self._depth = max((shape.depth for shape in dropping), default=0)
        self._width = max(field_width, *(max(shape.widths, default=0) for shape in dropping), 0)

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
        rows = MemberRows.of(batches) if any(self._covered) else None
        for number, (span, covered) in enumerate(zip(self._spans, self._covered, strict=True)):
            if covered is not None:
                assert rows is not None
                losses[:, span] = covered(rows, self.optimizer, step, alive)
                continue
            bucket = self._network.buckets[number]
            views, into = self._parameters[number], self._gradients[number]
            smoothing = None if self._smoothing is None else self._smoothing[span]
            for later, (batch, target, weight) in enumerate(batches):
                if self._depth:
                    bucket.draw_dropout(self._fields(step + later))
                outputs = bucket.forward(views, batch)
                losses[later, span] = self._loss(outputs, target, bucket.output_gradient, weight, smoothing)
                bucket.backward(views, into, batch)
                self.optimizer.clip_bucket(number)
                self.optimizer.step_bucket(number, step + later)
        return losses

    def _fields(self, step: int) -> list[Tensor]:
        """The fields of dropout of a step, which all buckets share."""
        if self._field_step != step:
            seed, n_rows = self._stream.seed, self._stream.batch_size
            drawn = dropout_fields(seed, step, self._depth, self._width, n_rows)
            self._drawn, self._field_step = [field.to(self._device) for field in drawn], step
        return self._drawn
