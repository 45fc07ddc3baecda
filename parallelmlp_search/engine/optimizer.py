"""Optimizer of a population on the host: AdamW and SGD in cache-sized pieces, or compiled loops.

See :mod:`parallelmlp_search.engine.step_coefficients` for the form of the update. Blocks that learn or decay
at another rate than their member have their own coefficients, see
:mod:`parallelmlp_search.engine.parameter_groups`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parallelmlp_search.engine.optimizer_pieces import OptimizerBuffers, Piece, clip_pieces, update_piece
from parallelmlp_search.engine.parameter_groups import ParameterGroup, apply_factors, parameter_groups
from parallelmlp_search.engine.population import Population
from parallelmlp_search.engine.step_coefficients import MemberVectors, average_share, constant_table
from parallelmlp_search.kernels.numba.dispatch import compiled_loops, uses_compiled

__all__ = ["PackedOptimizer"]

PIECE = 1 << 15
"""Elements updated at once: 128 KiB per buffer in float32, five buffers in an L2 cache of 1 MiB."""

TABLE_STEPS = 64
"""Steps whose coefficients are computed at once."""


class PackedOptimizer:
    """Optimizer for all members of a population.

    Parameters
    ----------
    population
        Parameters, moments and averages are updated in place.
    gradients
        Flat buffer of the layout's size.
    total_steps
        Steps of the full training, the horizon of the schedules.
    compiled
        True to use the compiled loops; None uses them where they are installed.
    """

    def __init__(
        self, population: Population, gradients: Tensor, total_steps: int, *, compiled: bool | None = None
    ) -> None:
        self.population = population
        self.total_steps = max(1, total_steps)
        layout, configs = population.layout, population.row_configs()
        dtype, device = gradients.dtype, gradients.device
        constants = constant_table(configs, dtype, device)
        self._vectors = MemberVectors.of(configs, "cpu")
        self._buffers = OptimizerBuffers(layout, population.flats, gradients, constants, PIECE)
        self._frozen = torch.zeros(len(configs), dtype=torch.bool)
        self._gradients = gradients
        self._groups = [
            parameter_groups(bucket, configs[layout.stacked_rows(number)])
            for number, bucket in enumerate(layout.buckets)
        ]
        self._known_pieces: dict[int, list[Piece]] = {}
        self._table_start = 0
        self._tables: list[list[Tensor]] = []
        self._numbers: list[list[NDArray[np.float32]]] = []
        self._compiled: list[_CompiledStep] | None = None
        if uses_compiled(dtype, device, wanted=compiled):
            self._compiled = [
                _CompiledStep(population, gradients, number, constants, groups)
                for number, groups in enumerate(self._groups)
            ]

    def _pieces(self, number: int) -> list[Piece]:
        """Pieces of a bucket, cached."""
        if number not in self._known_pieces:
            self._known_pieces[number] = self._buffers.pieces(number, self._groups[number])
        return self._known_pieces[number]

    def _place(self, step: int) -> int:
        """Place of a step in the tables, which are computed if they do not hold it."""
        if not self._tables or not 0 <= step - self._table_start < TABLE_STEPS:
            self._table_start = step
            table = self._vectors.coefficients(
                range(step, step + TABLE_STEPS), self.total_steps, self._frozen
            )
            self._tables, self._numbers = [], []
            for number in range(len(self._groups)):
                own = self._group_tables(table, number)
                self._tables.append([part.unsqueeze(3) for part in own])
                if self._compiled is not None:
                    self._numbers.append([part.contiguous().numpy() for part in own])
        return step - self._table_start

    def _group_tables(self, table: Tensor, number: int) -> list[Tensor]:
        """Coefficients ``(steps, 4, P_b)`` of each parameter group of a bucket."""
        layout = self.population.layout
        own = table[:, :, layout.stacked_rows(number)]
        tables = []
        for group in self._groups[number]:
            factored = own
            if group.has_factors:
                parts = apply_factors(
                    own.unbind(1), group.factors.unbind(0), layout.buckets[number].shape.optimizer
                )
                factored = torch.stack(parts, dim=1)
            tables.append(factored.to(self._gradients))
        return tables

    def compiled_steps(self, number: int, steps: range) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the coefficients with which a compiled loop takes several steps of a bucket.

        Returns
        -------
        tables
            ``(groups, steps, 4, P_b)``: rate, keep, scale and offset of each parameter group.
        shares
            ``(steps,)``: share of the new weights in the average, 0 where it is not updated.
        """
        tables, later = [], steps.start
        while later < steps.stop:
            first = self._place(later)
            stop = first + steps.stop - later
            tables.append(np.stack([numbers[first:stop] for numbers in self._numbers[number]]))
            later += tables[-1].shape[1]
        shares = [average_share(step) for step in steps]
        return np.concatenate(tables, axis=1), np.array(shares, dtype=np.float32)

    def groups(self, number: int) -> list[ParameterGroup]:
        """Return the parameter groups of a bucket, in the order of :meth:`compiled_steps`."""
        return self._groups[number]

    def freeze(self, rows: Tensor) -> None:
        """Stop stacked rows ``(P,)`` bool for good: their parameters, moments and rates become zero."""
        self._frozen |= rows.cpu()
        self._tables = []
        for number in range(len(self._groups)):
            if not bool(rows[self.population.layout.stacked_rows(number)].any()):
                continue
            for piece in self._pieces(number):
                dead = rows[piece.rows]
                if bool(dead.any()):
                    for tensor in (piece.parameter, piece.gradient, piece.first, piece.second, piece.average):
                        tensor[dead] = 0.0

    def clip(self) -> None:
        """Scale the gradient of each member with a ``clip_norm`` down to that norm, as torch does."""
        for number in range(len(self._groups)):
            self.clip_bucket(number)

    def clip_bucket(self, number: int) -> None:
        """Clip the gradients of one bucket."""
        if self.population.layout.buckets[number].shape.clip:
            clip_pieces(self._pieces(number), self._buffers.clip_norms)

    def step(self) -> None:
        """Take step number ``population.step`` and count it."""
        for number in range(len(self._groups)):
            self.step_bucket(number, self.population.step)
        self.population.step += 1

    def step_bucket(self, number: int, step: int) -> None:
        """Take step number ``step`` with the members of one bucket.

        Call it right after the bucket's backward pass, while its gradients are in the cache.
        """
        share = average_share(step)
        place = self._place(step)
        if self._compiled is not None:
            self._compiled[number]([numbers[place] for numbers in self._numbers[number]], share)
            return
        bucket = self.population.layout.buckets[number]
        tables = [table[place].unbind(0) for table in self._tables[number]]
        for piece in self._pieces(number):
            coefficients = tables[piece.group]
            if len(piece.parameter) < bucket.n_members:
                coefficients = tuple(values[piece.local] for values in coefficients)
            update_piece(piece, coefficients, bucket.shape.optimizer)
            if share:
                piece.average.lerp_(piece.parameter, share)


class _CompiledStep:
    """Update of one bucket with one call per parameter group."""

    def __init__(
        self,
        population: Population,
        gradients: Tensor,
        number: int,
        constants: Tensor,
        groups: Sequence[ParameterGroup],
    ) -> None:
        layout, flats = population.layout, population.flats
        names = ("first_moment", "second_moment", "average")
        buffers = [flats["parameters"], gradients, *(flats[name] for name in names)]
        self._buffers = [buffer.numpy() for buffer in buffers]
        self._groups = [
            np.array([(block.offset, block.row_size, block.decays) for block in blocks], dtype=np.int64)
            for _, blocks in groups
        ]
        is_adamw = layout.buckets[number].shape.optimizer == "adamw"
        mixes = constants[:2] if is_adamw else constants[2].expand(2, -1)
        self._mixes = mixes[:, layout.stacked_rows(number)].contiguous().numpy()
        self._run = compiled_loops().adamw if is_adamw else compiled_loops().sgd

    def __call__(self, tables: Sequence[NDArray[np.float32]], share: float) -> None:
        """Take a step, given the coefficients ``(4, P_b)`` of each parameter group."""
        for blocks, table in zip(self._groups, tables, strict=True):
            self._run(*self._buffers, blocks, table, self._mixes, np.float32(share))
