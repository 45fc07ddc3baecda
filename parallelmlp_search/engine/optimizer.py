"""Optimizer of a population on the host: AdamW and SGD in cache-sized pieces, or compiled loops.

See :mod:`parallelmlp_search.engine.step_coefficients` for the form of the update. Blocks that learn or decay
at another rate than their member have their own coefficients, see
:mod:`parallelmlp_search.engine.parameter_groups`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parallelmlp_search.engine.optimizer_pieces import OptimizerBuffers, Piece, clip_pieces
from parallelmlp_search.engine.parameter_groups import ParameterGroup, parameter_groups
from parallelmlp_search.engine.population import Population
from parallelmlp_search.engine.step_coefficients import (
    StepCoefficients,
    StepTable,
    average_share,
    average_shares,
    constant_table,
)
from parallelmlp_search.kernels.numba.arguments import OptimizerStep, pack
from parallelmlp_search.kernels.numba.dispatch import uses_compiled
from parallelmlp_search.kernels.numba.library import loops

MAX_PIECE_ELEMENTS = 1 << 15
"""Elements updated at once: 128 KiB per buffer in float32, five buffers in an L2 cache of 1 MiB."""


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

    Attributes
    ----------
    constants, groups
        Constants ``(5, P)`` of members, and parameter groups of each bucket.
    """

    def __init__(
        self, population: Population, gradients: Tensor, total_steps: int, *, compiled: bool | None = None
    ) -> None:
        self._population, self._gradients = population, gradients
        self.total_steps = max(1, total_steps)
        layout, configs = population.layout, population.row_configs()
        self.constants = constant_table(configs, gradients)
        self._coefficients = StepCoefficients(configs, total_steps, "cpu")
        self._buffers = OptimizerBuffers(
            layout, population.flats, gradients, self.constants, MAX_PIECE_ELEMENTS
        )
        self._frozen = torch.zeros(len(configs), dtype=torch.bool)
        self.groups: list[list[ParameterGroup]] = [
            parameter_groups(bucket, configs[layout.stacked_rows(number)])
            for number, bucket in enumerate(layout.buckets)
        ]
        self._known_pieces: dict[int, list[Piece]] = {}
        self._tables: StepTable[tuple[list[Any], NDArray[np.float32]]] = StepTable(len(configs))
        self._is_compiled = uses_compiled(gradients.dtype, gradients.device, wanted=compiled)
        if self._is_compiled:
            flats = population.flats
            names = ("first_moment", "second_moment", "average")
            buffers = [flats["parameters"], gradients, *(flats[name] for name in names)]
            parameters, own_gradients, first, second, average = (buffer.numpy() for buffer in buffers)
            self._arrays = parameters, own_gradients, first, second, average
            self._compiled_arguments: dict[
                int, tuple[bool, list[NDArray[np.int64]], NDArray[np.float32]]
            ] = {}

    def _pieces(self, number: int) -> list[Piece]:
        """Pieces of a bucket, cached."""
        if number not in self._known_pieces:
            self._known_pieces[number] = list(self._buffers.pieces(number, self.groups[number]))
        return self._known_pieces[number]

    def _step_tables(self, steps: range) -> tuple[list[Any], NDArray[np.float32]]:
        """Coefficients of steps by bucket, and the share of the new weights in the average.

        Those of a bucket are ``(groups, steps, 4, P_b)``; a NumPy array for the compiled loops.
        """
        table = self._coefficients.table(steps, self._frozen)
        tables = [self._group_tables(table, number) for number in range(len(self.groups))]
        return tables, average_shares(steps)

    def _group_tables(self, table: Tensor, number: int) -> Any:
        own = table[:, :, self._population.layout.stacked_rows(number)].unbind(1)
        tables = [torch.stack(list(group.apply(own)), dim=1) for group in self.groups[number]]
        stacked = torch.stack(tables).to(self._gradients)
        return stacked.numpy() if self._is_compiled else stacked

    def compiled_steps(self, number: int, steps: range) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the coefficients with which a compiled loop takes several steps of a bucket.

        Returns
        -------
        tables
            ``(groups, steps, 4, P_b)``: rate, keep, scale and offset of each parameter group.
        shares
            ``(steps,)``: share of the new weights in the average, 0 where it is not updated.
        """
        (tables, shares), place = self._tables.at(steps, self._step_tables)
        return tables[number][:, place], shares[place]

    def freeze(self, rows: Tensor) -> None:
        """Stop stacked rows ``(P,)`` bool for good: their parameters, moments and rates become zero."""
        self._frozen |= rows.cpu()
        self._tables.clear()
        for number in range(len(self.groups)):
            if not bool(rows[self._population.layout.stacked_rows(number)].any()):
                continue
            for piece in self._pieces(number):
                dead = rows[piece.rows]
                if bool(dead.any()):
                    for tensor in (piece.parameter, piece.gradient, piece.first, piece.second, piece.average):
                        tensor[dead] = 0.0

    def clip_bucket(self, number: int) -> None:
        """Scale the gradient of each member of a bucket with ``clip_norm`` down to it, as torch does."""
        if self._population.layout.buckets[number].shape.clip:
            clip_pieces(self._pieces(number), self._buffers.clip_norms)

    def step_bucket(self, number: int, step: int) -> None:
        """Take step number ``step`` with the members of one bucket.

        Call it right after the bucket's backward pass, while its gradients are in the cache.
        """
        (tables, _), place = self._tables.at(range(step, step + 1), self._step_tables)
        share, own = average_share(step), tables[number][:, place.start]
        bucket = self._population.layout.buckets[number]
        # the compiled step knows no bounds; buckets with bounds rarely come here
        if self._is_compiled and not bucket.shape.signs:
            self._step_compiled(number, own, share)
            return
        n_members = bucket.n_members
        groups = [torch.as_tensor(table).unsqueeze(2).unbind(0) for table in own]
        for piece in self._pieces(number):
            coefficients = groups[piece.group]
            if len(piece.parameter) < n_members:
                coefficients = tuple(values[piece.local] for values in coefficients)
            piece.update(coefficients)
            if share:
                piece.average.lerp_(piece.parameter, share)

    def _step_compiled(self, number: int, tables: Sequence[NDArray[np.float32]], share: float) -> None:
        """Take a step of a bucket, given the coefficients ``(4, P_b)`` of each parameter group."""
        if number not in self._compiled_arguments:
            is_adamw = self._population.layout.buckets[number].shape.optimizer == "adamw"
            mixes = self.constants[:2] if is_adamw else self.constants[2].expand(2, -1)
            mixes = mixes[:, self._population.layout.stacked_rows(number)].contiguous()
            blocks = [
                np.array([(block.offset, block.row_size, block.decays) for block in group.blocks], np.int64)
                for group in self.groups[number]
            ]
            self._compiled_arguments[number] = is_adamw, blocks, mixes.numpy()
        is_adamw, all_blocks, mix = self._compiled_arguments[number]
        for own, table in zip(all_blocks, tables, strict=True):
            n_blocks, n_members = len(own), table.shape[1]
            sizes = n_blocks, n_members, int(is_adamw)
            step = OptimizerStep(*self._arrays, own, table, mix, share, *sizes)
            loops().run("optimizer_step", pack(step))
