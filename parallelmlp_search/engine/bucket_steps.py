"""Training steps of all buckets of a population, on the host's call: forward, loss, backward, optimiser."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from parallelmlp_search.engine.batches import BatchStream, dropout_fields
from parallelmlp_search.engine.network import PackedNetwork
from parallelmlp_search.engine.optimizer import PackedOptimizer
from parallelmlp_search.engine.population import Population
from parallelmlp_search.engine.shallow import ShallowBucket, is_shallow
from parallelmlp_search.kernels.compiled import ShallowRows, compiled_loss
from parallelmlp_search.kernels.losses import get_loss

__all__ = ["SHALLOW_STEPS", "Batch", "BucketSteps"]

SHALLOW_STEPS = 32
"""Steps that a population takes at once where one call trains each of its buckets.

Microseconds a member-step of the paper's population: 2.6 with 8 at once, 2.4 with 16, 2.2 with 32 and 64. A
shard takes some 1.3 ms a step, so that a deadline is looked at every 40 ms."""

Batch = tuple[Tensor, Tensor, Tensor | None]
"""Inputs ``(N, D)``, target, and weights of the rows or None."""


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
        covered = compiled and loss == "binary_logits"
        self._shallow = [
            ShallowBucket(population, number) if covered and is_shallow(bucket) else None
            for number, bucket in enumerate(layout.buckets)
        ]
        self.window = SHALLOW_STEPS if all(self._shallow) else 1
        """Steps that may be asked for at once; the result does not depend on it."""
        self._losses = torch.zeros(self.window, layout.n_members, dtype=dtype, device=device)
        if all(self._shallow):
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
        rows = ShallowRows.of(batches) if any(self._shallow) else None
        fields: list[Tensor] = []
        if not all(self._shallow) and self._depth:
            fields = dropout_fields(
                self._stream.seed, step, self._depth, self._width, self._stream.batch_size
            )
            fields = [field.to(self._device) for field in fields]
        for number, (span, shallow) in enumerate(zip(self._spans, self._shallow, strict=True)):
            if shallow is not None:
                assert rows is not None
                losses[:, span] = shallow(rows, self.optimizer, step, alive)
                continue
            (batch, target, weight), bucket = batches[0], self._network.buckets[number]
            smoothing = None if self._smoothing is None else self._smoothing[span]
            bucket.draw_dropout(fields)
            outputs = bucket.forward(self._parameters[number], batch)
            losses[0, span] = self._loss(outputs, target, bucket.output_gradient, weight, smoothing)
            bucket.backward(self._parameters[number], self._gradients[number], batch)
            self.optimizer.clip_bucket(number)
            self.optimizer.step_bucket(number)
        return losses
