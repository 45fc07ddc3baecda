"""Training step without decisions of the host, which a CUDA graph can capture.

Everything that changes from step to step is read from tensors on the device, by a counter that the step
advances: rows of the batch, coefficients of the optimizer, dropout. Shapes and addresses stay. The arithmetic
is that of :mod:`parallelmlp_search.engine.host_training`. Members whose loss is not finite are marked on the
device. The host freezes them at the end of a window of steps, since they cannot disturb other members.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from parallelmlp_search.engine.batches import BatchStream
from parallelmlp_search.engine.bucket_network import Targets
from parallelmlp_search.engine.device.dropout_fields import uniform_field
from parallelmlp_search.engine.network import PackedNetwork
from parallelmlp_search.engine.optimizer_pieces import OptimizerBuffers, clip_pieces
from parallelmlp_search.engine.parameter_groups import parameter_groups
from parallelmlp_search.engine.population import Population
from parallelmlp_search.engine.schedule import dropout_rates
from parallelmlp_search.kernels.losses import get_loss
from parallelmlp_search.kernels.triton.availability import runs_on
from parallelmlp_search.kernels.triton.flat_step_launch import FlatOptimizer
from parallelmlp_search.kernels.triton.launch import StepTables


class DeviceStep:
    """Buffers and operations of one step for some buckets of a population.

    Parameters
    ----------
    population, buckets
        Population, trained in place up to ``population.step``, and numbers of the buckets to train.
    rows
        Inputs (n, D), target and weights of the training rows, on the device.
    stream, loss
        Stream of the batches and name of the loss.
    constants
        Constants ``(5, P)`` of :func:`~parallelmlp_search.engine.step_coefficients.constant_table`.
    max_steps, total_steps
        Maximum number of steps of a window, and steps of the full training.
    fused
        True if one kernel takes the optimizer's step for all members; None for a CUDA device with Triton, if
        no weight has bounds.

    Attributes
    ----------
    loss_sums
        Sum of the losses ``(P,)`` of all steps since it was last set to zero.
    failed_at
        First step ``(P,)`` whose loss was not finite, or -1.
    """

    def __init__(
        self,
        population: Population,
        buckets: Sequence[int],
        rows: tuple[Tensor, Tensor, Tensor | None],
        *,
        stream: BatchStream,
        loss: str,
        constants: Tensor,
        max_steps: int,
        total_steps: int,
        fused: bool | None = None,
    ) -> None:
        layout, configs = population.layout, population.row_configs()
        self._layout, self._numbers, self._stream = layout, tuple(buckets), stream
        self._inputs, self._target, self._weight = rows
        dtype, device = self._inputs.dtype, self._inputs.device
        gradients = torch.zeros_like(population.parameters)
        self._network = PackedNetwork(
            layout,
            stream.batch_size,
            dtype=dtype,
            device=device,
            training=True,
            dropout=torch.tensor([config.dropout for config in configs], dtype=torch.float64),
            compiled=False,
        )
        self._parameters = self._network.bind(population.parameters)
        self._gradients = self._network.bind(gradients)
        self._loss = get_loss(loss)
        self._smoothing = constants[4] if any(config.label_smoothing > 0 for config in configs) else None
        dropped = [layout.buckets[n].shape for n in self._numbers if layout.buckets[n].shape.dropout]
        self._depth = max((shape.depth for shape in dropped), default=0)
        self._width = max((max(shape.widths, default=0) for shape in dropped), default=0)
        self._flats, self._flat_gradients, self._constants = population.flats, gradients, constants
        groups = [parameter_groups(layout.buckets[n], configs[layout.stacked_rows(n)]) for n in self._numbers]
        if fused is None:
            bounded = any(layout.buckets[n].shape.signs for n in self._numbers)
            fused = device.type == "cuda" and runs_on(device) and not bounded
        pairs = [[(group.factors, group.blocks) for group in own] for own in groups]
        self._optimizer = FlatOptimizer(layout, self._numbers, device, pairs, dtype) if fused else None
        self._buffers = OptimizerBuffers(layout, population.flats, gradients, constants, None)
        self._pieces = {
            n: list(self._buffers.pieces(n, g)) for n, g in zip(self._numbers, groups, strict=True)
        }
        self._groups = {
            n: [g._replace(factors=g.factors.unsqueeze(2).to(device, dtype)) for g in own]
            for n, own in zip(self._numbers, groups, strict=True)
        }
        n_members = layout.n_members
        self._order = torch.zeros(max_steps, stream.batch_size, dtype=torch.int64, device=device)
        self._table = torch.zeros(max_steps, 4, n_members, dtype=dtype, device=device)
        self._shares = torch.zeros(max_steps, dtype=dtype, device=device)
        self._configs, self._total_steps = configs, max(1, total_steps)
        has_schedule = dropout_rates(configs, torch.zeros(1, dtype=torch.float64)) is not None
        rates = torch.zeros(max_steps, n_members, dtype=torch.float64, device=device)
        self._rates = rates if has_schedule else None
        self._local = torch.zeros(1, dtype=torch.int64, device=device)
        self._step = torch.zeros(1, dtype=torch.int64, device=device)
        self._losses = torch.zeros(n_members, dtype=dtype, device=device)
        self.loss_sums = torch.zeros(n_members, dtype=dtype, device=device)
        self.failed_at = torch.full((n_members,), -1, dtype=torch.int64, device=device)

    def load(self, tables: StepTables) -> None:
        """Copy the tables of a window to the addresses that the step reads, and go to its first step."""
        n_steps, first_step = tables.n_steps, tables.first_position // self._stream.batch_size
        self._order[:n_steps].copy_(tables.order.view(n_steps, -1))
        self._table[:n_steps].copy_(tables.coefficients)
        self._shares[:n_steps].copy_(tables.shares)
        if self._rates is not None:
            progress = torch.arange(first_step, first_step + n_steps, dtype=torch.float64) / self._total_steps
            rates = dropout_rates(self._configs, progress)
            assert rates is not None
            self._rates[:n_steps].copy_(rates)
        self._local.zero_()
        self._step.fill_(first_step)

    def take(self, averaging: bool) -> None:
        """Take the next step of the window; ``averaging`` also updates the averaged weights."""
        rows = self._order.index_select(0, self._local).view(-1)
        batch = self._inputs.index_select(0, rows)
        target = self._target.index_select(-1, rows)
        weight = None if self._weight is None else self._weight.index_select(0, rows)
        fields = [
            uniform_field(self._stream.seed, self._step, layer, self._width, self._stream.batch_size)
            for layer in range(self._depth)
        ]
        rates = None if self._rates is None else self._rates.index_select(0, self._local).view(-1)
        for number in self._numbers:
            bucket, span = self._network.buckets[number], self._layout.stacked_rows(number)
            bucket.draw_dropout(fields, None if rates is None else rates[span])
            bucket.forward(self._parameters[number], batch)
            smoothing = None if self._smoothing is None else self._smoothing[span]
            self._losses[span] = bucket.losses(self._loss, Targets(target, weight, smoothing))
            bucket.backward(self._gradients[number])
            if self._layout.buckets[number].shape.clip:
                clip_pieces(self._pieces[number], self._buffers.clip_norms)
            if self._optimizer is None:
                self._update(number, averaging)
        if self._optimizer is not None:
            self._optimizer.step(
                self._flats,
                self._flat_gradients,
                self._table,
                self._shares,
                self._local,
                self._constants,
                averaging=averaging,
            )
        self.loss_sums.add_(self._losses)
        fails = torch.isfinite(self._losses).logical_not_().logical_and_(self.failed_at < 0)
        self.failed_at.copy_(torch.where(fails, self._step, self.failed_at))
        self._local.add_(1)
        self._step.add_(1)

    def _update(self, number: int, averaging: bool) -> None:
        """Step the members of a bucket, block by block."""
        table = self._table.index_select(0, self._local).view(4, -1, 1)
        own = table[:, self._layout.stacked_rows(number)].unbind(0)
        share = self._shares.index_select(0, self._local)
        tables = [group.apply(own) for group in self._groups[number]]
        for piece in self._pieces[number]:
            piece.update(tables[piece.group])
            if averaging:
                piece.average.lerp_(piece.parameter, share)
