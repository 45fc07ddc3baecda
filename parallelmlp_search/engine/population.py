"""Population of networks that train together, and the state of each of them."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from parallelmlp_search.engine.initialization import group, initial_vectors, together
from parallelmlp_search.engine.rows import Rows
from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.packing.architecture import Architecture, DataShape
from parallelmlp_search.packing.bucketing import CACHE_ELEMENTS, plan
from parallelmlp_search.packing.cost import GPU_SPEED
from parallelmlp_search.packing.layout import Layout
from parallelmlp_search.packing.pack import read_member, write_member, write_members
from parallelmlp_search.space import MLPConfig

FLAT_NAMES = ("parameters", "first_moment", "second_moment", "average", "best")
"""Flat buffers of a population, and vectors of a member's state."""


@dataclass
class MemberState:
    """State of one member outside a population, from which its training can go on anywhere.

    Attributes
    ----------
    vectors
        Canonical vectors by name (see :data:`FLAT_NAMES`), each ``(n_parameters,)``.
    step
        Steps taken.
    best_error, best_epoch
        Lowest validation error, and the epoch of the snapshot ``best``.
    failed_at
        Step whose loss was not finite, or -1.
    """

    vectors: dict[str, Tensor]
    step: int = 0
    best_error: float = float("inf")
    best_epoch: float = 0.0
    failed_at: int = -1


@dataclass
class Population:
    """Packed parameters, moments and averages of ``P`` members, and the state of each.

    Vectors ``(P,)`` are in *stacked-row order*: bucket after bucket, as in ``layout.members``.

    Attributes
    ----------
    configs
        Configuration of each member, in member order.
    flats
        Flat buffers ``(layout.size,)`` by name.
    """

    layout: Layout
    configs: tuple[MLPConfig, ...]
    flats: dict[str, Tensor]
    step: int = 0
    best_error: Tensor = field(default_factory=lambda: torch.empty(0))
    best_epoch: Tensor = field(default_factory=lambda: torch.empty(0))
    failed_at: Tensor = field(default_factory=lambda: torch.empty(0))

    @classmethod
    def create(
        cls,
        configs: Sequence[MLPConfig],
        data: DataShape,
        *,
        states: Sequence[MemberState | None] | None = None,
        repeat: int = 0,
        rows: Rows | None = None,
        merge: bool = True,
    ) -> Population:
        """Plan a population, and fill it with fresh weights or with states.

        Parameters
        ----------
        configs, data
            Configuration of each member, and inputs and outputs of all.
        states
            State of each member, None for a fresh one. All have taken equally many steps, since members read
            one stream of batches.
        repeat
            Number of the initialization, see
            :func:`~parallelmlp_search.engine.initialization.initial_vector`.
        rows
            Training rows ``(n, D)``, for dtype, device and data-driven initial weights; None for float32 on
            the CPU.
        merge
            True to merge small buckets, see :func:`~parallelmlp_search.packing.plan`.

        Returns
        -------
        Population

        Raises
        ------
        InvalidParameterError
            If there is no configuration, or members have taken different numbers of steps.
        """
        if not configs:
            raise InvalidParameterError("configs must hold at least one configuration, but got none")
        states = [None] * len(configs) if states is None else list(states)
        steps = {0 if state is None else state.step for state in states}
        if len(steps) > 1:
            raise InvalidParameterError(
                f"all members of a population must have taken equally many steps, but got {sorted(steps)}"
            )
        like = torch.empty(0, dtype=torch.float32, device="cpu") if rows is None else rows
        architectures = [Architecture.of(config, data) for config in configs]
        # a GPU has no cache to fit, and one wide bucket is one launch
        on_cpu = like.device.type == "cpu"
        layout = plan(
            architectures,
            n_rows=max(config.batch_size for config in configs),
            merge=merge,
            bucket_elements=CACHE_ELEMENTS if on_cpu else None,
            speed=1.0 if on_cpu else GPU_SPEED,
        )
        flats = {name: torch.zeros(layout.size, dtype=like.dtype) for name in FLAT_NAMES}
        best_error = torch.full((len(configs),), float("inf"), dtype=torch.float64)
        best_epoch = torch.zeros(len(configs), dtype=torch.float64)
        failed_at = torch.full((len(configs),), -1, dtype=torch.int64)
        for row, member in enumerate(layout.members):
            if (state := states[member]) is None:
                continue
            for name, vector in state.vectors.items():
                write_member(flats[name], layout, member, vector)
            best_error[row] = state.best_error
            best_epoch[row] = state.best_epoch
            failed_at[row] = state.failed_at
        fresh = {member for member, state in enumerate(states) if state is None}
        _initialize(flats["parameters"], layout, configs, fresh, repeat=repeat, rows=rows)
        return cls(
            layout=layout,
            configs=tuple(configs),
            flats={name: flat.to(like.device) for name, flat in flats.items()},
            step=steps.pop(),
            best_error=best_error,
            best_epoch=best_epoch,
            failed_at=failed_at,
        )

    @property
    def parameters(self) -> Tensor:
        """Flat buffer of the weights in training."""
        return self.flats["parameters"]

    @property
    def n_members(self) -> int:
        """Number of members ``P``."""
        return self.layout.n_members

    def row_configs(self) -> list[MLPConfig]:
        """Return the configurations in stacked-row order."""
        return [self.configs[member] for member in self.layout.members]

    def member_rows(self) -> Tensor:
        """Return the stacked row of each member, int64 ``(P,)``."""
        rows = torch.empty(self.n_members, dtype=torch.int64)
        rows[torch.tensor(self.layout.members)] = torch.arange(self.n_members)
        return rows

    def vector(self, member: int, flat: Tensor) -> Tensor:
        """Return the canonical vector of a member in a flat buffer of this layout."""
        return read_member(flat, self.layout, member)

    def state(self, member: int, names: Sequence[str] = FLAT_NAMES) -> MemberState:
        """Return a copy of the state of a member on the CPU, with the named vectors."""
        bucket, row = self.layout.positions[member]
        stacked = self.layout.row_offsets[bucket] + row
        return MemberState(
            vectors={name: read_member(self.flats[name], self.layout, member).cpu() for name in names},
            step=self.step,
            best_error=float(self.best_error[stacked]),
            best_epoch=float(self.best_epoch[stacked]),
            failed_at=int(self.failed_at[stacked]),
        )


def _initialize(
    flat: Tensor,
    layout: Layout,
    configs: Sequence[MLPConfig],
    fresh: Container[int],
    *,
    repeat: int,
    rows: Rows | None,
) -> None:
    """Write the initial weights of fresh members, many of equal shape at once."""
    device = torch.device("cpu") if rows is None else rows.device
    for bucket in layout.buckets:
        groups: dict[object, list[tuple[int, Architecture]]] = {}
        for member, architecture in zip(bucket.members, bucket.architectures, strict=True):
            if member in fresh:
                key = group(architecture, configs[member])
                groups.setdefault(key, []).append((member, architecture))
        for alike in groups.values():
            first, architecture = alike[0]
            size = together(architecture, configs[first], device)
            for start in range(0, len(alike), size):
                members, architectures = zip(*alike[start : start + size], strict=True)
                chosen = [configs[member] for member in members]
                vectors = initial_vectors(architectures, chosen, repeat=repeat, rows=rows)
                write_members(flat, layout, members, vectors)
