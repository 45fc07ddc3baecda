"""One training step in which the host decides nothing: what a CUDA graph can hold.

Everything that changes from step to step is read from tensors on the device through a step counter that the
step itself advances: rows of the batch, coefficients of the optimiser, dropout. Shapes and addresses stay.
The arithmetic is that of :mod:`parallelmlp_search.engine.trainer`; members whose loss stops being finite are
noted on the device and frozen by the host at the end of a window of steps, since they cannot disturb the
others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from parallelmlp_search.engine.device.dropout_fields import uniform_field
from parallelmlp_search.engine.network import PackedNetwork
from parallelmlp_search.engine.parameter_groups import factor_groups
from parallelmlp_search.engine.population import Population
from parallelmlp_search.engine.schedule import dropout_rates
from parallelmlp_search.kernels.losses import get_loss
from parallelmlp_search.kernels.triton.availability import runs_on
from parallelmlp_search.kernels.triton.flat_step_launch import FlatOptimizer
from parallelmlp_search.kernels.triton.launch import StepTables
from parallelmlp_search.packing.layout import Block

__all__ = ["DeviceStep"]


@dataclass(frozen=True, slots=True)
class _BlockViews:
    """One parameter of all members of a bucket, ``(P, row_size)`` in each flat buffer."""

    decays: bool
    factors: Tensor | None  # (3, P, 1) of rate, decay and epsilon
    scratch: Tensor
    parameter: Tensor
    gradient: Tensor
    first: Tensor
    second: Tensor
    average: Tensor


class DeviceStep:
    """Buffers and operations of one step for some buckets of a population.

    Parameters
    ----------
    population
        Trained in place; ``population.step`` is left to the caller.
    buckets
        Numbers of the buckets that this step trains.
    rows
        Inputs (n, D), target and weights of the training rows, on the device.
    batch_size, seed
        Rows of a batch, and the seed of dropout.
    loss
        Name of the loss.
    constants : Tensor of shape (5, P)
        Per-member constants of :func:`~parallelmlp_search.engine.device.step_tables.constant_table`.
    most_steps
        Steps that the tables of a window may have.
    total_steps
        Steps of full training, the denominator of every schedule.
    fused
        Whether one kernel takes the optimiser's step for all members; on a CUDA device with Triton, if not
        given.
    """

    def __init__(
        self,
        population: Population,
        buckets: Sequence[int],
        rows: tuple[Tensor, Tensor, Tensor | None],
        *,
        batch_size: int,
        seed: int,
        loss: str,
        constants: Tensor,
        most_steps: int,
        total_steps: int,
        fused: bool | None = None,
    ) -> None:
        layout = population.layout
        self._layout, self._numbers, self._seed = layout, tuple(buckets), seed
        self._inputs, self._target, self._weight = rows
        dtype, device = self._inputs.dtype, self._inputs.device
        n_members = layout.n_members
        configs = population.row_configs()
        dropout = torch.tensor([config.dropout for config in configs], dtype=torch.float64)
        self._network = PackedNetwork(
            layout,
            batch_size,
            dtype=dtype,
            device=device,
            training=True,
            dropout=dropout,
            compiled=False,
        )
        gradients = torch.zeros_like(population.parameters)
        self._parameters = self._network.bind(population.parameters)
        self._gradients = self._network.bind(gradients)
        self._loss = get_loss(loss)
        self._spans = [slice(a, b) for a, b in zip(layout.row_offsets, layout.row_offsets[1:], strict=False)]
        self._mix_first, self._mix_second, self._momentum, self._norms, smoothing = constants.unsqueeze(
            2
        ).unbind(0)
        self._smoothing = None
        if any(config.label_smoothing > 0 for config in configs):
            self._smoothing = smoothing.squeeze(1)
        dropped = [layout.buckets[n].shape for n in self._numbers if layout.buckets[n].shape.dropout]
        self._depth = max((shape.depth for shape in dropped), default=0)
        self._width = max((max(shape.widths, default=0) for shape in dropped), default=0)
        self._batch_size = batch_size
        self._flats, self._flat_gradients, self._constants = population.flats, gradients, constants
        if fused is None:
            fused = device.type == "cuda" and runs_on(device)
        groups = [
            [
                (torch.from_numpy(np.stack(factors)), blocks)
                for factors, blocks in factor_groups(layout.buckets[n], configs[self._spans[n]])
            ]
            for n in self._numbers
        ]
        self._optimizer = FlatOptimizer(layout, self._numbers, device, groups, dtype) if fused else None
        self._blocks = self._views(population, gradients, groups)

        self._order = torch.zeros(most_steps, batch_size, dtype=torch.int64, device=device)
        self._table = torch.zeros(most_steps, 4, n_members, dtype=dtype, device=device)
        self._shares = torch.zeros(most_steps, dtype=dtype, device=device)
        self._configs, self._total_steps = configs, max(1, total_steps)
        scheduled = dropout_rates(configs, torch.zeros(1, dtype=torch.float64)) is not None
        table = torch.zeros(most_steps, n_members, dtype=torch.float64, device=device)
        self._rates = table if scheduled else None
        self._local = torch.zeros(1, dtype=torch.int64, device=device)
        self._step = torch.zeros(1, dtype=torch.int64, device=device)
        self._losses = torch.zeros(n_members, dtype=dtype, device=device)
        self.loss_sums = torch.zeros(n_members, dtype=dtype, device=device)
        """Sum of the losses of all steps since it was last set to zero, ``(P,)``."""
        self.failed_at = torch.full((n_members,), -1, dtype=torch.int64, device=device)
        """First step whose loss was not finite, or -1, ``(P,)``."""

    def _views(
        self,
        population: Population,
        gradients: Tensor,
        groups: Sequence[Sequence[tuple[Tensor, Sequence[Block]]]],
    ) -> dict[int, list[_BlockViews]]:
        flats = population.flats
        layout = population.layout
        dtype, device = gradients.dtype, gradients.device
        blocks = [(n, block) for n in self._numbers for block in layout.buckets[n].blocks]
        largest = max(layout.buckets[n].n_members * block.row_size for n, block in blocks)
        scratch = torch.empty(largest, dtype=dtype, device=device)
        tensors = (
            population.parameters, gradients,
            flats["first_moment"], flats["second_moment"], flats["average"],
        )  # fmt: skip
        views: dict[int, list[_BlockViews]] = {}
        for number, of_bucket in zip(self._numbers, groups, strict=True):
            n_members = layout.buckets[number].n_members
            views[number] = []
            for factors, own_blocks in of_bucket:
                own = factors.unsqueeze(2).to(device, dtype) if bool((factors != 1.0).any()) else None
                for block in own_blocks:
                    size = n_members * block.row_size
                    cut = [t[block.offset : block.offset + size].view(n_members, -1) for t in tensors]
                    views[number].append(
                        _BlockViews(block.decays, own, scratch[:size].view(n_members, -1), *cut)
                    )
        return views

    def load(self, tables: StepTables, first_step: int) -> None:
        """Copy the tables of a window to where the step reads them, and start it at its first step."""
        n_steps = tables.n_steps
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
        """Take the next step of the window; with ``averaging`` the averaged weights follow it."""
        rows = self._order.index_select(0, self._local).view(-1)
        batch = self._inputs.index_select(0, rows)
        target = self._target.index_select(-1, rows)
        weight = None if self._weight is None else self._weight.index_select(0, rows)
        coefficients = self._table.index_select(0, self._local).view(4, -1, 1)
        share = self._shares.index_select(0, self._local)
        fields = [
            uniform_field(self._seed, self._step, layer, self._width, self._batch_size)
            for layer in range(self._depth)
        ]
        rates = None if self._rates is None else self._rates.index_select(0, self._local).view(-1)
        for number in self._numbers:
            bucket, span = self._network.buckets[number], self._spans[number]
            bucket.draw_dropout(fields, None if rates is None else rates[span])
            outputs = bucket.forward(self._parameters[number], batch)
            smoothing = None if self._smoothing is None else self._smoothing[span]
            self._losses[span] = bucket.losses(self._loss, outputs, target, weight, smoothing)
            bucket.backward(self._parameters[number], self._gradients[number], batch)
            self._clip(number, span)
            if self._optimizer is None:
                self._update(number, span, coefficients[:, span], share if averaging else None)
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

    def _clip(self, number: int, span: slice) -> None:
        """Scale the gradient of each member of a bucket down to its largest norm."""
        if not self._layout.buckets[number].shape.clip:
            return
        blocks = self._blocks[number]
        squares = torch.zeros_like(self._norms[span])
        for block in blocks:
            squares = squares + block.gradient.square().sum(dim=1, keepdim=True)
        factor = (self._norms[span] / (squares.sqrt() + 1e-6)).clamp_(max=1.0)
        for block in blocks:
            block.gradient.mul_(factor)

    def _update(self, number: int, span: slice, coefficients: Tensor, share: Tensor | None) -> None:
        """Step the members of a bucket, as :mod:`parallelmlp_search.engine.optimizer` does."""
        shape = self._layout.buckets[number].shape
        for block in self._blocks[number]:
            rate, keep, scale, offset = coefficients.unbind(0)
            parameter, gradient, scratch = block.parameter, block.gradient, block.scratch
            if block.factors is not None:
                of_rate, of_decay, of_epsilon = block.factors.unbind(0)
                adamw = shape.optimizer == "adamw"
                rate, keep = of_rate * rate, 1.0 - of_decay * (1.0 - keep) if adamw else of_decay * keep
                scale, offset = scale / of_rate, offset / of_epsilon
            if shape.optimizer == "adamw":
                block.first.lerp_(gradient, self._mix_first[span])
                torch.mul(gradient, gradient, out=scratch)
                block.second.lerp_(scratch, self._mix_second[span])
                torch.sqrt(block.second, out=scratch)
                torch.addcmul(offset, scratch, scale, out=scratch)
                if block.decays:
                    parameter.mul_(keep)
                parameter.addcdiv_(block.first, scratch, value=-1.0)
            else:
                if block.decays:
                    gradient.addcmul_(parameter, keep)
                block.first.mul_(self._momentum[span]).add_(gradient)
                parameter.addcmul_(block.first, rate, value=-1.0)
            if share is not None:
                block.average.lerp_(parameter, share)
