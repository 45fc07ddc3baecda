"""Cuts of a serial network into slices of depth that make a step as short as possible."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from parallelmlp_search._checks import check_integer
from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.parareal.method.blocks import ModelProfile, Shape
from parallelmlp_search.parareal.method.coarse_networks import (
    Connector,
    automatic_coarse,
    automatic_preprocessor,
)

__all__ = ["Partition", "balanced_cuts", "plan_partition"]

MESSAGE_COST = 4e6
"""Operations that take as long as sending a message between two processes of a host and resuming work after
it, with cold caches: 60 us, of which the socket takes 6."""

MESSAGE_SECONDS = 6e-5
"""The same in seconds."""


@dataclass(frozen=True)
class Partition:
    """Partition of the blocks of a serial network into slices.

    Attributes
    ----------
    bounds
        ``T + 1`` block numbers: slice ``j`` holds the blocks from ``bounds[j]`` to ``bounds[j + 1]``.
    shapes
        Shapes of a row at the input of each slice and after the last, ``T + 1`` of them.
    costs
        Cost of the fine network of each slice.
    """

    bounds: tuple[int, ...]
    shapes: tuple[Shape, ...]
    costs: tuple[float, ...]


def plan_partition(
    profile: ModelProfile,
    slices: int,
    *,
    cuts: Sequence[int] | None = None,
    message: float | None = None,
    coarse: Connector = automatic_coarse,
    preprocessor: Connector = automatic_preprocessor,
) -> Partition:
    """Choose the blocks at which a network is cut.

    Parameters
    ----------
    profile
        Shapes and costs of the network.
    slices
        Number ``T`` of slices, >= 1.
    cuts
        Numbers of the blocks at which slices 2 to ``T`` begin; balanced by cost by default.
    message
        Cost of a message between slices, in the unit of the profile; by default that between two processes
        of one host.
    coarse, preprocessor
        As for :func:`~parallelmlp_search.parareal.decompose`.

    Returns
    -------
    Partition

    Raises
    ------
    InvalidParameterError
        If a value breaks its rule.
    """
    slices = check_integer("slices", slices, 1)
    n_blocks = profile.n_blocks
    costs = [block.cost for block in profile.blocks[:n_blocks]]
    starts = tuple(cuts or ())
    if message is None:
        message = MESSAGE_SECONDS if profile.measured else MESSAGE_COST
    if cuts is None and slices > 1:
        extra = _connector_cost(profile, preprocessor, tuple(profile.example.shape[1:]), first=True)
        sweep = _connector_cost(profile, coarse, profile.middle)
        starts = balanced_cuts(costs, slices, extra=extra, message=message, sweep=sweep)
    elif list(starts) != sorted({*starts}) or len(starts) != slices - 1:
        raise InvalidParameterError(f"cuts must be {slices - 1} growing numbers of blocks, but got {cuts!r}")
    elif starts and not (starts[0] > 0 and starts[-1] < n_blocks):
        raise InvalidParameterError(f"cuts must lie between 1 and {n_blocks - 1}, but got {cuts!r}")
    bounds = (0, *starts, n_blocks)
    shapes = (*(profile.blocks[start].inputs for start in bounds[:-1]), profile.blocks[n_blocks - 1].outputs)
    totals = tuple(sum(costs[first:last]) for first, last in itertools.pairwise(bounds))
    return Partition(bounds, shapes, totals)


def _connector_cost(
    profile: ModelProfile, connector: Connector, inputs: Shape, *, first: bool = False
) -> float:
    """Cost of a preprocessor or coarse network in the middle of the network; 0 if it is not known."""
    if isinstance(connector, Sequence):
        return 0.0
    with torch.random.fork_rng(devices=[]):  # the weights of the real ones must not depend on this trial
        try:
            module = connector(inputs, profile.middle)
        except InvalidParameterError:
            return 0.0  # no slice can begin here
        return profile.cost(module, inputs, first=first)


def balanced_cuts(
    costs: Sequence[float], slices: int, *, extra: float = 0.0, message: float = 0.0, sweep: float = 0.0
) -> tuple[int, ...]:
    """Cut blocks so that the time of a step is minimal.

    A later slice has more time: its input arrives later, and its gradient comes back earlier. Two messages
    lie between the first slice and the second, and two messages and a sweep between any other two.

    Parameters
    ----------
    costs
        Cost of each block.
    slices
        Number ``T`` of slices; each gets at least one block.
    extra
        Additional cost of every slice but the first: its preprocessor. The head does not count, since all
        other slices wait for it.
    message, sweep
        Cost of a message, one way, and of a coarse network, forward and backward.

    Returns
    -------
    tuple of int
        ``T - 1`` numbers of the blocks at which slices 2 to ``T`` begin.

    Raises
    ------
    InvalidParameterError
        If there are fewer blocks than slices.
    """
    if len(costs) < slices:
        raise InvalidParameterError(
            f"slices must be at most {len(costs)}, the number of blocks before the head, but got {slices}"
        )
    # cost of a slice beside its blocks, minus the time that it has more than the first
    extras = [0.0, *(extra - 2.0 * j * message - (j - 1) * sweep for j in range(1, slices))]
    low, high = min(extras), sum(costs) + max(extras)
    best = _cuts_within(costs, extras, high)
    for _ in range(60):
        limit = 0.5 * (low + high)
        cuts = _cuts_within(costs, extras, limit)
        if cuts is None:
            low = limit
        else:
            best, high = cuts, limit
    assert best is not None
    return best


def _cuts_within(costs: Sequence[float], extras: Sequence[float], limit: float) -> tuple[int, ...] | None:
    """Cuts with every slice within a limit, or None. Slices are filled from the last to the first."""
    slices, cuts, block = len(extras), [], len(costs)
    for j in range(slices - 1, -1, -1):
        block -= 1
        total = extras[j] + costs[block]
        if total > limit:
            return None
        while block > j and total + costs[block - 1] <= limit:
            block -= 1
            total += costs[block]
        cuts.append(block)
    return tuple(reversed(cuts[:-1])) if block == 0 else None
