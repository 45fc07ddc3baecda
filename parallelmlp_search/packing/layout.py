"""Layout of a packed population: frozen, hashable, free of torch.

A :class:`Layout` places every parameter of every member in one flat buffer. Members of one shape share a
:class:`Bucket`. Inside a bucket each kind of parameter (the weights of layer 1, the biases of layer 1, ...)
is one :class:`Block` of shape ``(P, rows, columns)``, so that one batched matrix product computes all members
of the bucket, and each member is contiguous inside a block.

Members that are narrower than their bucket are padded with zeros. Padding never changes a result: padded
weights start at zero and their gradients are exactly zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby

from parallelmlp_search.packing.architecture import Architecture

ALIGNMENT = 16
"""Blocks start at multiples of 16 elements: 64 bytes in float32, one cache line, one vector register."""

DECAYING = frozenset({"weight", "scale", "frequency", "mixing", "category"})
"""Kinds of blocks with weight decay: all but biases, phases, offsets, normalization and adapters."""


def aligned(size: int) -> int:
    """Round a size up to a multiple of :data:`ALIGNMENT`."""
    return -(-size // ALIGNMENT) * ALIGNMENT


@dataclass(frozen=True, slots=True)
class Segment:
    """Rows ``[start, stop)`` of a bucket with the same activation."""

    activation: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Block:
    """One parameter of all members of a bucket: ``(P, rows, columns)`` from ``offset`` of the flat buffer."""

    layer: int
    kind: str
    rows: int
    columns: int
    offset: int

    @property
    def row_size(self) -> int:
        """Elements of one member."""
        return self.rows * self.columns

    @property
    def decays(self) -> bool:
        """True if the parameter has weight decay."""
        return self.kind in DECAYING


@dataclass(frozen=True)
class Bucket:
    """Members of one padded shape.

    Attributes
    ----------
    shape
        Padded architecture; its ``activation`` is empty where segments differ.
    members
        Member of each row, by its index in the planned population.
    architectures
        True architecture of each row.
    segments
        Runs of rows with the same activation.
    blocks
        Parameters in canonical order.
    """

    shape: Architecture
    members: tuple[int, ...]
    architectures: tuple[Architecture, ...]
    segments: tuple[Segment, ...]
    blocks: tuple[Block, ...]

    @property
    def n_members(self) -> int:
        """Number of members ``P`` of the bucket."""
        return len(self.members)

    @cached_property
    def is_padded(self) -> bool:
        """True if any member is narrower than the bucket."""
        return any(architecture.widths != self.shape.widths for architecture in self.architectures)

    def padded_layers(self) -> tuple[bool, ...]:
        """For each hidden layer, True if some member is narrower there."""
        return tuple(
            any(architecture.widths[layer] != width for architecture in self.architectures)
            for layer, width in enumerate(self.shape.widths)
        )

    def block(self, layer: int, kind: str) -> Block | None:
        """Return the block of a layer and kind, or None if the shape has no such parameter."""
        for block in self.blocks:
            if block.layer == layer and block.kind == kind:
                return block
        return None


@dataclass(frozen=True)
class Layout:
    """Position of every parameter of every member in the flat buffer."""

    buckets: tuple[Bucket, ...]
    size: int
    """Elements of the flat buffer, padding included."""
    positions: tuple[tuple[int, int], ...] = field(repr=False)
    """``(bucket, row)`` of each member."""

    @property
    def n_members(self) -> int:
        """Number of members ``P`` of the population."""
        return len(self.positions)

    @cached_property
    def row_offsets(self) -> tuple[int, ...]:
        """First stacked row of each bucket, and the number of rows at the end."""
        offsets = [0]
        for bucket in self.buckets:
            offsets.append(offsets[-1] + bucket.n_members)
        return tuple(offsets)

    def stacked_rows(self, bucket: int) -> slice:
        """Return the stacked rows of a bucket."""
        return slice(*self.row_offsets[bucket : bucket + 2])

    @cached_property
    def members(self) -> tuple[int, ...]:
        """Member index of each stacked row."""
        return tuple(member for bucket in self.buckets for member in bucket.members)

    def architecture(self, member: int) -> Architecture:
        """Return the true architecture of a member."""
        bucket, row = self.positions[member]
        return self.buckets[bucket].architectures[row]


def build_layout(groups: list[tuple[Architecture, list[int]]], architectures: list[Architecture]) -> Layout:
    """Return the layout with one bucket of the given padded shape for each group of members.

    Rows of a bucket are ordered by activation, then by member index, so that each activation is one segment.
    """
    buckets: list[Bucket] = []
    positions: list[tuple[int, int]] = [(-1, -1)] * len(architectures)
    offset = 0
    for shape, group in groups:
        rows = sorted(group, key=lambda member: (architectures[member].activation, member))
        segments: list[Segment] = []
        for row, member in enumerate(rows):
            positions[member] = (len(buckets), row)
        start = 0
        for activation, run in groupby(architectures[member].activation for member in rows):
            stop = start + len(list(run))
            segments.append(Segment(activation, start, stop))
            start = stop
        blocks: list[Block] = []
        for layer, kind, n_rows, n_columns in shape.block_shapes():
            blocks.append(Block(layer, kind, n_rows, n_columns, offset))
            offset += aligned(len(rows) * n_rows * n_columns)
        common = segments[0].activation if len(segments) == 1 else ""
        buckets.append(
            Bucket(
                shape=replace(shape, activation=common),
                members=tuple(rows),
                architectures=tuple(architectures[member] for member in rows),
                segments=tuple(segments),
                blocks=tuple(blocks),
            )
        )
    return Layout(buckets=tuple(buckets), size=offset, positions=tuple(positions))


def expanded_layout(bucket: Bucket, n_each: int) -> Layout:
    """Return a layout of one bucket with ``n_each`` plain networks for each member, side by side."""
    architectures = [a.expanded for a in bucket.architectures for _ in range(n_each)]
    return build_layout([(bucket.shape.expanded, list(range(len(architectures))))], architectures)


@dataclass(frozen=True)
class MatmulLayout:
    """Layout of one modified matrix multiplication, ragged in both dimensions.

    Member ``m`` maps ``in_widths[m]`` hidden neurons to ``out_widths[m]`` outputs. The activations of all
    members are stacked along the first axis, and so are the outputs; the weights are one flat vector that
    holds each member's ``(out, in)`` matrix row by row.
    """

    in_widths: tuple[int, ...]
    out_widths: tuple[int, ...]

    @property
    def n_members(self) -> int:
        """Number of members ``P``."""
        return len(self.in_widths)

    @property
    def n_in(self) -> int:
        """Stacked input neurons."""
        return sum(self.in_widths)

    @property
    def n_out(self) -> int:
        """Stacked outputs."""
        return sum(self.out_widths)

    @property
    def n_weights(self) -> int:
        """Elements of the flat weight vector."""
        return sum(i * o for i, o in zip(self.in_widths, self.out_widths, strict=True))

    @cached_property
    def runs(self) -> tuple[tuple[int, int, int, int, int, int], ...]:
        """Maximal runs of equal shape: ``(P, in, out, in_offset, out_offset, weight_offset)``."""
        runs: list[tuple[int, int, int, int, int, int]] = []
        in_offset = out_offset = weight_offset = 0
        for (n_in, n_out), run in groupby(zip(self.in_widths, self.out_widths, strict=True)):
            count = len(list(run))
            runs.append((count, n_in, n_out, in_offset, out_offset, weight_offset))
            in_offset += count * n_in
            out_offset += count * n_out
            weight_offset += count * n_in * n_out
        return tuple(runs)

    @cached_property
    def flat_runs(self) -> list[int]:
        """``P, in, out`` of each run, one after the other: plain numbers for a torch operator."""
        return [number for run in self.runs for number in run[:3]]

    @classmethod
    def from_runs(cls, flat_runs: Sequence[int]) -> MatmulLayout:
        """Return the layout of :attr:`flat_runs`."""
        triples = [flat_runs[start : start + 3] for start in range(0, len(flat_runs), 3)]
        return cls(
            in_widths=tuple(n_in for count, n_in, _ in triples for _ in range(count)),
            out_widths=tuple(n_out for count, _, n_out in triples for _ in range(count)),
        )
