"""Update of AdamW and SGD on pieces of the flat buffers, with a vector of hyperparameters per member."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from parallelmlp_search.engine.parameter_groups import ParameterGroup
from parallelmlp_search.packing.layout import Layout
from parallelmlp_search.packing.monotone import bounds
from parallelmlp_search.packing.pack import block_rows


@dataclass(frozen=True, slots=True)
class Piece:
    """Views of one block for some members of a bucket, all ``(members, row_size)``.

    ``rows`` and ``local`` are the members as stacked rows and as rows of the bucket, ``group`` is the number
    of the parameter group. ``is_adamw`` is False for SGD as :class:`torch.optim.SGD` without dampening.
    ``bounds`` are the least and largest values ``(row_size,)`` of the parameter, or None.
    """

    parameter: Tensor
    gradient: Tensor
    first: Tensor
    second: Tensor
    average: Tensor
    scratch: Tensor
    rows: slice
    local: slice
    decays: bool
    group: int
    mix_first: Tensor
    mix_second: Tensor
    momentum: Tensor
    is_adamw: bool
    bounds: tuple[Tensor, Tensor] | None

    def update(self, coefficients: Sequence[Tensor]) -> None:
        """Take a step, given rate, keep, scale and offset ``(members, 1)``, and return to the bounds."""
        self._step(coefficients)
        if self.bounds is not None:
            torch.clamp(self.parameter, *self.bounds, out=self.parameter)

    def _step(self, coefficients: Sequence[Tensor]) -> None:
        rate, keep, scale, offset = coefficients
        if not self.is_adamw:
            if self.decays:
                self.gradient.addcmul_(self.parameter, keep)
            self.first.mul_(self.momentum).add_(self.gradient)
            self.parameter.addcmul_(self.first, rate, value=-1.0)
            return
        scratch = self.scratch
        self.first.lerp_(self.gradient, self.mix_first)
        torch.mul(self.gradient, self.gradient, out=scratch)
        self.second.lerp_(scratch, self.mix_second)
        torch.sqrt(self.second, out=scratch)
        if scratch.is_cuda:
            torch.addcmul(offset, scratch, scale, out=scratch)
        else:  # two passes of 0.1 ns an element; addcmul takes 0.5 ns where it broadcasts
            scratch.mul_(scale).add_(offset)
        if self.decays:
            self.parameter.mul_(keep)
        self.parameter.addcdiv_(self.first, scratch, value=-1.0)


class OptimizerBuffers:
    """Flat buffers that an optimizer updates.

    Parameters
    ----------
    layout, flats, gradients
        Layout, flat buffers of a population and of the gradients.
    constants
        Constants ``(5, P)`` of :func:`~parallelmlp_search.engine.step_coefficients.constant_table`.
    max_elements
        Elements of a piece, which has at least one member; None makes each block one piece.

    Attributes
    ----------
    clip_norms
        Largest norms ``(P, 1)`` of the gradients.
    """

    def __init__(
        self,
        layout: Layout,
        flats: Mapping[str, Tensor],
        gradients: Tensor,
        constants: Tensor,
        max_elements: int | None,
    ) -> None:
        self._layout, self._max_elements = layout, max_elements
        names = ("parameters", "first_moment", "second_moment", "average")
        parameters, *others = (flats[name] for name in names)
        self._flats = (parameters, gradients, *others)
        self._mix_first, self._mix_second, self._momentum, self.clip_norms, _ = constants.unsqueeze(2)
        sizes = [(bucket.n_members, block.row_size) for bucket in layout.buckets for block in bucket.blocks]
        largest = max(self._members_at_once(*size) * size[1] for size in sizes)
        self._scratch = gradients.new_empty(largest)

    def _members_at_once(self, n_members: int, row_size: int) -> int:
        if self._max_elements is None:
            return n_members
        return min(n_members, max(1, self._max_elements // row_size))

    def pieces(self, number: int, groups: Sequence[ParameterGroup]) -> Iterator[Piece]:
        """Yield the pieces of a bucket with the given parameter groups, block by block."""
        bucket, first_row = self._layout.buckets[number], self._layout.row_offsets[number]
        group_of = {block: number for number, group in enumerate(groups) for block in group.blocks}
        of_blocks = bounds(bucket.shape)
        for block in bucket.blocks:
            flats = [block_rows(flat, bucket, block) for flat in self._flats]
            limits = of_blocks.get((block.layer, block.kind))
            own = limits and [torch.from_numpy(limit).view(-1).to(self._scratch) for limit in limits]
            at_once = self._members_at_once(bucket.n_members, block.row_size)
            for start in range(0, bucket.n_members, at_once):
                local = slice(start, min(start + at_once, bucket.n_members))
                rows = slice(first_row + local.start, first_row + local.stop)
                parameter, gradient, first, second, average = (flat[local] for flat in flats)
                yield Piece(
                    parameter,
                    gradient,
                    first,
                    second,
                    average,
                    scratch=self._scratch[: parameter.numel()].view(parameter.shape),
                    rows=rows,
                    local=local,
                    decays=block.decays,
                    group=group_of[block],
                    mix_first=self._mix_first[rows],
                    mix_second=self._mix_second[rows],
                    momentum=self._momentum[rows],
                    is_adamw=bucket.shape.optimizer == "adamw",
                    bounds=None if own is None else (own[0], own[1]),
                )


def clip_pieces(pieces: Sequence[Piece], clip_norms: Tensor) -> None:
    """Scale the gradient of each member down to its largest norm ``(P, 1)``, as torch does."""
    squares = torch.zeros_like(clip_norms)
    for piece in pieces:
        squares[piece.rows] += piece.gradient.square().sum(dim=1, keepdim=True)
    factors = (clip_norms / (squares.sqrt() + 1e-6)).clamp(max=1.0)
    for piece in pieces:
        piece.gradient.mul_(factors[piece.rows])
