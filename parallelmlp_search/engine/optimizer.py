"""AdamW and SGD with a vector of hyperparameters per member, in cache-sized pieces of the flat buffers.

The update of AdamW (Loshchilov and Hutter 2019) is ``p <- p (1 - lr wd) - lr m' / (sqrt(v') + eps)`` with the
corrected moments ``m' = m / c1`` and ``v' = v / c2``. Written as ``p <- p d - m / (A sqrt(v) + B)`` with
``A = c1 / (lr sqrt(c2))`` and ``B = eps c1 / lr`` it needs seven passes, whatever differs between members,
and no state but the two moments. Weight decay reaches weights and scales, not what shifts.
Blocks that learn or decay at other rates than their members have tables of their own, see
:mod:`parallelmlp_search.engine.parameter_groups`.

SGD is that of :class:`torch.optim.SGD`: decay is added to the gradient, momentum has no dampening.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parallelmlp_search.engine.parameter_groups import RateFactors, factor_groups, factored
from parallelmlp_search.engine.population import Population
from parallelmlp_search.engine.schedule import schedule_factors
from parallelmlp_search.kernels.numba.dispatch import compiled_loops, uses_compiled
from parallelmlp_search.packing.layout import Block

__all__ = ["EPSILON", "PackedOptimizer", "average_share"]

EPSILON = 1e-8
"""The epsilon of AdamW, as in torch."""

PIECE = 1 << 15
"""Elements that are updated before moving on: 128 KiB a buffer in float32, five buffers in a 1 MiB L2."""

AVERAGE_EVERY = 4
"""Steps between two updates of the averaged weights."""

AVERAGE_POWER = 9.0
"""Step ``s`` enters the averaged weights in proportion to ``s**9``: about the last tenth of training counts,
however long it has lasted (polynomial-decay averaging, Shamir and Zhang 2013)."""

TABLE_STEPS = 64


@dataclass(frozen=True, slots=True)
class _Piece:
    """Views of some members' part of one block, all ``(members, row_size)``."""

    parameter: Tensor
    gradient: Tensor
    first: Tensor
    second: Tensor
    average: Tensor
    scratch: Tensor
    rows: slice
    local: slice  # the same rows, counted from the bucket's first
    decays: bool
    group: int  # which table of coefficients of its bucket is its own
    mix_first: Tensor
    mix_second: Tensor
    momentum: Tensor


class PackedOptimizer:
    """Steps all members of a population at once.

    Parameters
    ----------
    population
        Parameters, moments and averages are updated in place.
    gradients
        Flat buffer of the layout's size.
    total_steps
        Steps of full training, the denominator of every schedule.
    compiled
        Whether to use the compiled loops; None where they are installed.
    """

    def __init__(
        self, population: Population, gradients: Tensor, total_steps: int, *, compiled: bool | None = None
    ) -> None:
        self.population = population
        self.total_steps = max(1, total_steps)
        device, dtype = gradients.device, gradients.dtype
        configs = population.row_configs()

        def vector(values: Sequence[float]) -> Tensor:
            return torch.tensor(list(values), dtype=torch.float64)

        self._schedules = [config.schedule for config in configs]
        self._decay_schedules = [config.weight_decay_schedule for config in configs]
        adaptive = torch.tensor([config.optimizer == "adamw" for config in configs])
        self._adaptive = adaptive
        self._rates = vector([config.learning_rate for config in configs])
        self._decays = vector([config.weight_decay for config in configs])
        betas = vector([c.beta1 for c in configs]), vector([c.beta2 for c in configs])
        # the few values that occur, and who has which: powers of each are taken once
        self._betas = [torch.unique(beta, return_inverse=True) for beta in betas]
        self._dtype, self._device = dtype, device
        self._mix_first, self._mix_second = ((1.0 - beta).to(device, dtype).view(-1, 1) for beta in betas)
        self._momentum = vector([config.momentum for config in configs]).to(device, dtype).view(-1, 1)
        self._clips = vector([c.clip_norm or float("inf") for c in configs]).to(device, dtype)
        self._frozen = torch.zeros(len(configs), dtype=torch.bool)
        self._gradients = gradients
        self._scratch = torch.empty(max(PIECE, self._widest_row()), dtype=dtype, device=device)
        offsets = population.layout.row_offsets
        self._spans = [slice(first, last) for first, last in itertools.pairwise(offsets)]
        self._groups = [
            factor_groups(bucket, configs[span])
            for bucket, span in zip(population.layout.buckets, self._spans, strict=True)
        ]
        self._known_pieces: dict[int, list[_Piece]] = {}
        self._table_start = -1
        self._tables: list[list[Tensor]] | None = None
        self._numbers: list[list[NDArray[np.float32]]] = []
        self._compiled: list[_CompiledStep] | None = None
        if uses_compiled(dtype, device, wanted=compiled):
            self._compiled = [
                _CompiledStep(
                    population,
                    gradients,
                    number,
                    [self._mix_first, self._mix_second]
                    if bucket.shape.optimizer == "adamw"
                    else [self._momentum, self._momentum],
                    [blocks for _, blocks in self._groups[number]],
                )
                for number, bucket in enumerate(population.layout.buckets)
            ]

    def _widest_row(self) -> int:
        blocks = (block for bucket in self.population.layout.buckets for block in bucket.blocks)
        return max(block.row_size for block in blocks)

    def _pieces(self, number: int) -> list[_Piece]:
        """The blocks of a bucket in pieces of whole members that fit the cache, cut where first asked for."""
        if number not in self._known_pieces:
            self._known_pieces[number] = self._cut(number)
        return self._known_pieces[number]

    def _cut(self, number: int) -> list[_Piece]:
        layout, flats = self.population.layout, self.population.flats
        bucket = layout.buckets[number]
        first_row = layout.row_offsets[number]
        pieces = []
        group_of = {
            (block.layer, block.kind): group
            for group, (_, blocks) in enumerate(self._groups[number])
            for block in blocks
        }
        for block in bucket.blocks:
            per_piece = max(1, PIECE // block.row_size)
            for start in range(0, bucket.n_members, per_piece):
                count = min(per_piece, bucket.n_members - start)
                begin = block.offset + start * block.row_size
                size = count * block.row_size

                def view(flat: Tensor, begin: int = begin, size: int = size, count: int = count) -> Tensor:
                    return flat[begin : begin + size].view(count, -1)

                pieces.append(
                    _Piece(
                        parameter=view(flats["parameters"]),
                        gradient=view(self._gradients),
                        first=view(flats["first_moment"]),
                        second=view(flats["second_moment"]),
                        average=view(flats["average"]),
                        scratch=self._scratch[:size].view(count, -1),
                        rows=(rows := slice(first_row + start, first_row + start + count)),
                        local=slice(start, start + count),
                        decays=block.decays,
                        group=group_of[block.layer, block.kind],
                        mix_first=self._mix_first[rows],
                        mix_second=self._mix_second[rows],
                        momentum=self._momentum[rows],
                    )
                )
        return pieces

    def _prepare(self, step: int) -> int:
        """Make the tables of the next steps unless they are there; the place of this step in them."""
        if self._tables is None or not 0 <= step - self._table_start < TABLE_STEPS:
            self._table_start = step
            steps = torch.arange(step, step + TABLE_STEPS, dtype=torch.float64)
            table = self._table_of(steps)
            self._tables, self._numbers = [], []
            for bucket, span, groups in zip(
                self.population.layout.buckets, self._spans, self._groups, strict=True
            ):
                optimizer = bucket.shape.optimizer
                own = [
                    factored(table[:, :, span], factors, optimizer).to(self._device, self._dtype)
                    for factors, _ in groups
                ]
                self._tables.append([part.unsqueeze(3) for part in own])
                if self._compiled is not None:
                    self._numbers.append([part.contiguous().numpy() for part in own])
        return step - self._table_start

    def compiled_steps(
        self, number: int, step: int, count: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What a loop needs to take ``count`` steps with a bucket by itself.

        For each group of its blocks rate, keep, A and B of its members, ``(groups, count, 4, P_b)``, and the
        share of the new weights in the average after each step, ``(count,)``, 0 where it does not move.
        """
        tables, later = [], step
        while later < step + count:
            first = self._prepare(later)
            stop = first + step + count - later
            tables.append(np.stack([numbers[first:stop] for numbers in self._numbers[number]]))
            later += tables[-1].shape[1]
        shares = [average_share(s) if _averages(s) else 0.0 for s in range(step, step + count)]
        return np.concatenate(tables, axis=1), np.array(shares, dtype=np.float32)

    def groups(self, number: int) -> list[tuple[RateFactors, list[Block]]]:
        """Blocks of a bucket that share their coefficients, in the order of :meth:`compiled_steps`."""
        return self._groups[number]

    def _table_of(self, steps: Tensor) -> Tensor:
        """``(steps, 4, P)``: rate, keep, A and B of each member; instead of keep the decay of SGD."""
        progress = steps / self.total_steps
        rates = schedule_factors(self._schedules, progress) * self._rates
        rates[:, self._frozen] = 0.0
        decays = schedule_factors(self._decay_schedules, progress) * self._decays
        keeps = torch.where(self._adaptive, 1.0 - rates * decays, decays)
        counts = (steps + 1.0).unsqueeze(1)
        first, second = ((1.0 - values**counts)[:, which] for values, which in self._betas)
        # a rate of 0 becomes one so small that nothing moves, instead of a division by zero
        floors = rates.clamp(min=1e-30)
        scales = first / (floors * second.sqrt())
        offsets = EPSILON * first / floors
        return torch.stack([rates, keeps, scales, offsets], dim=1)

    def freeze(self, rows: Tensor) -> None:
        """Stop stacked rows ``(P,)`` bool for good: their parameters, moments and rates become zero."""
        self._frozen |= rows.cpu()
        self._tables = None
        for number, span in enumerate(self._spans):
            if not bool(rows[span].any()):
                continue
            for piece in self._pieces(number):
                dead = rows[piece.rows]
                if bool(dead.any()):
                    for tensor in (piece.parameter, piece.gradient, piece.first, piece.second, piece.average):
                        tensor[dead] = 0.0

    def clip(self) -> None:
        """Scale the gradient of each member with a ``clip_norm`` down to that norm, as torch does."""
        for number in range(len(self._spans)):
            self.clip_bucket(number)

    def clip_bucket(self, number: int) -> None:
        """:meth:`clip` for the members of one bucket."""
        if not self.population.layout.buckets[number].shape.clip:
            return
        pieces = self._pieces(number)
        squares = torch.zeros(self.population.n_members, dtype=self._dtype, device=self._device)
        for piece in pieces:
            squares[piece.rows] += piece.gradient.square().sum(dim=1)
        factors = (self._clips / (squares.sqrt() + 1e-6)).clamp(max=1.0).view(-1, 1)
        for piece in pieces:
            piece.gradient.mul_(factors[piece.rows])

    def step(self) -> None:
        """Take the step of number ``population.step`` and count it."""
        for number in range(len(self._spans)):
            self.step_bucket(number)
        self.advance()

    def advance(self, count: int = 1) -> None:
        """Count the steps, once every bucket has taken them."""
        self.population.step += count

    def step_bucket(self, number: int, step: int | None = None) -> None:
        """Take the step of number ``step``, or ``population.step``, with the members of one bucket.

        Right after the bucket's backward pass its gradients still lie in the cache.
        """
        step = self.population.step if step is None else step
        averaging = _averages(step)
        share = average_share(step)
        local = self._prepare(step)
        if self._compiled is not None:
            tables = [numbers[local] for numbers in self._numbers[number]]
            self._compiled[number](tables, share if averaging else 0.0)
            return
        assert self._tables is not None
        bucket = self.population.layout.buckets[number]
        adamw = bucket.shape.optimizer == "adamw"
        coefficients = [table[local].unbind(0) for table in self._tables[number]]
        for piece in self._pieces(number):
            rate, keep, scale, offset = coefficients[piece.group]
            rows = piece.local
            whole = rows.stop - rows.start == bucket.n_members
            if adamw and whole:
                _adamw(piece, keep, scale, offset)
            elif adamw:
                _adamw(piece, keep[rows], scale[rows], offset[rows])
            else:
                _sgd(piece, rate[rows], keep[rows])
            if averaging:
                piece.average.lerp_(piece.parameter, share)


class _CompiledStep:
    """The update of one bucket as one call for each group of blocks."""

    def __init__(
        self,
        population: Population,
        gradients: Tensor,
        number: int,
        mixes: list[Tensor],
        groups: Sequence[Sequence[Block]],
    ) -> None:
        layout, flats = population.layout, population.flats
        bucket = layout.buckets[number]
        names = ("first_moment", "second_moment", "average")
        buffers = [flats["parameters"], gradients, *(flats[name] for name in names)]
        self._buffers = [buffer.numpy() for buffer in buffers]
        self._groups = [_numbers_of(blocks) for blocks in groups]
        first, last = layout.row_offsets[number : number + 2]
        self._mixes = torch.cat(mixes, dim=1)[first:last].t().contiguous().numpy()
        loops = compiled_loops()
        self._run = loops.adamw if bucket.shape.optimizer == "adamw" else loops.sgd

    def __call__(self, tables: Sequence[NDArray[np.float32]], share: float) -> None:
        """``tables`` (4, P_b) of this step, one a group."""
        for blocks, table in zip(self._groups, tables, strict=True):
            self._run(*self._buffers, blocks, table, self._mixes, np.float32(share))


def _numbers_of(blocks: Iterable[Block]) -> np.ndarray[Any, Any]:
    return np.array([(block.offset, block.row_size, block.decays) for block in blocks], dtype=np.int64)


def _averages(step: int) -> bool:
    """Whether the averaged weights move after step number ``step``."""
    return (step + 1) % AVERAGE_EVERY == 0 or step == 0


def average_share(step: int) -> float:
    """Share of the weights after step number ``step`` in their running average; 1 at the first."""
    if step == 0:
        return 1.0
    count = (step + 1) // AVERAGE_EVERY
    return min(1.0, (AVERAGE_POWER + 1.0) / (count + AVERAGE_POWER + 1.0))


def _adamw(piece: _Piece, keep: Tensor, scale: Tensor, offset: Tensor) -> None:
    scratch = piece.scratch
    piece.first.lerp_(piece.gradient, piece.mix_first)
    torch.mul(piece.gradient, piece.gradient, out=scratch)
    piece.second.lerp_(scratch, piece.mix_second)
    torch.sqrt(piece.second, out=scratch)
    # two passes of 0.1 ns an element: the one of addcmul takes 0.5 where it has to spread its operands
    scratch.mul_(scale).add_(offset)
    if piece.decays:
        piece.parameter.mul_(keep)
    piece.parameter.addcdiv_(piece.first, scratch, value=-1.0)


def _sgd(piece: _Piece, rate: Tensor, decay: Tensor) -> None:
    if piece.decays:
        piece.gradient.addcmul_(piece.parameter, decay)
    piece.first.mul_(piece.momentum).add_(piece.gradient)
    piece.parameter.addcmul_(piece.first, rate, value=-1.0)
