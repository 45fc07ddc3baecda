"""Decomposition of a serial network into slices of depth: ``nn.Sequential`` to :class:`PararealNetwork`."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from parallelmlp_search._checks import check_choice, check_integer
from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.parareal.method.blocks import (
    ModelProfile,
    Shape,
    preserve_running_statistics,
    profile_model,
)
from parallelmlp_search.parareal.method.coarse_networks import (
    Connector,
    automatic_coarse,
    automatic_preprocessor,
)
from parallelmlp_search.parareal.method.network import PararealNetwork, Slice

MESSAGE_COST = 4e6
"""Operations that take as long as sending a message between two processes of a host and resuming work after
it, with cold caches: 60 us, of which the socket takes 6."""

MESSAGE_SECONDS = 6e-5
"""The same in seconds."""


def decompose(
    model: nn.Sequential,
    slices: int,
    example: Tensor,
    *,
    coarse: Connector = automatic_coarse,
    preprocessor: Connector = automatic_preprocessor,
    head: int = 1,
    cuts: Sequence[int] | str = "counted",
) -> PararealNetwork:
    """Cut a network into slices of depth and connect them by coarse networks.

    Parameters
    ----------
    model
        A Sequential of blocks, each of which maps one tensor to another. Its blocks are copied.
    slices
        Number ``T`` of slices, >= 1. One slice is the serial network itself.
    example
        A minibatch ``(N, ...)``; a dry run over it finds the shapes. Nothing is learned from it.
    coarse, preprocessor
        ``T - 1`` modules for slices 2 to ``T``, or a function that makes one from the shapes of a row of its
        input and output.
    head
        Number of last blocks that form the head, which runs once, after the last slice; >= 0.
    cuts
        Numbers of the blocks at which slices 2 to ``T`` begin. ``counted`` balances operations, the same on
        every machine; ``measured`` balances seconds.

    Returns
    -------
    PararealNetwork
        The blocks' weights in its fine networks, new weights in preprocessors and coarse networks.

    Raises
    ------
    InvalidParameterError
        If a value breaks its rule or shapes do not fit.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> blocks = [nn.Sequential(nn.Linear(8, 8), nn.ReLU()) for _ in range(6)]
    >>> network = decompose(nn.Sequential(*blocks, nn.Linear(8, 2)), 3, torch.zeros(4, 8))
    >>> network.n_slices, network(torch.zeros(5, 8)).shape
    (3, torch.Size([5, 2]))
    """
    if isinstance(cuts, str):
        check_choice("cuts", cuts, ("counted", "measured"))
    profile = profile_model(model, example, head=head, measured=cuts == "measured")
    given = None if isinstance(cuts, str) else cuts
    partition = plan_partition(profile, slices, cuts=given, coarse=coarse, preprocessor=preprocessor)
    blocks = list(copy.deepcopy(model))
    tail = blocks[profile.n_blocks :]
    parts = []
    for j, (begin, end) in enumerate(itertools.pairwise(partition.bounds)):
        fine = nn.Sequential(*blocks[begin:end])
        last = nn.Sequential(*tail) if tail and j == slices - 1 else None
        if j == 0:
            parts.append(Slice(fine, head=last))
            continue
        before, after = partition.shapes[j : j + 2]
        guess = _connect("preprocessor", preprocessor, (j, slices), example, before)
        correct = _connect("coarse", coarse, (j, slices), profile.minibatch(before), after)
        parts.append(Slice(fine, preprocessor=guess, coarse=correct, head=last))
    return PararealNetwork(parts)


def _connect(
    name: str, connector: Connector, number: tuple[int, int], rows: Tensor, outputs: Shape
) -> nn.Module:
    """Module of slice ``j`` of ``T``, checked on a minibatch."""
    j, slices = number
    if isinstance(connector, Sequence):
        if len(connector) != slices - 1:
            raise InvalidParameterError(
                f"{name} must have one module for each slice but the first, {slices - 1}, "
                f"but has {len(connector)}"
            )
        module = connector[j - 1]
    else:
        module = connector(tuple(rows.shape[1:]), outputs)
    module = module.to(rows.device, rows.dtype)
    name = f"{name} of slice {j + 1}"
    try:
        with torch.no_grad(), preserve_running_statistics(module):
            found = module(rows)
    except RuntimeError as error:
        raise InvalidParameterError(
            f"{name} must take rows of shape {tuple(rows.shape[1:])}, but refuses them: "
            f"{str(error).splitlines()[0]}"
        ) from error
    if tuple(found.shape) != (rows.shape[0], *outputs):
        raise InvalidParameterError(
            f"{name} must give rows of shape {tuple(outputs)}, but gives {tuple(found.shape[1:])}"
        )
    return module


@dataclass(frozen=True)
class Partition:
    """Partition of the blocks of a serial network into ``T`` slices."""

    bounds: tuple[int, ...]  # slice j holds the blocks from bounds[j] to bounds[j + 1]
    shapes: tuple[Shape, ...]  # of a row at the input of each slice and after the last
    costs: tuple[float, ...]  # of the fine network of each slice


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
    slices, cuts, coarse, preprocessor
        As for :func:`decompose`; ``cuts`` are balanced by default.
    message
        Cost of a message between slices, in the unit of the profile; by default that between two processes
        of one host.

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
        extra = _connector_cost(profile, preprocessor, profile.example)
        sweep = _connector_cost(profile, coarse, profile.minibatch(profile.middle))
        starts = _balanced_cuts(costs, slices, extra=extra, message=message, sweep=sweep)
    elif list(starts) != sorted({*starts}) or len(starts) != slices - 1:
        raise InvalidParameterError(f"cuts must be {slices - 1} growing numbers of blocks, but got {cuts!r}")
    elif starts and not (starts[0] > 0 and starts[-1] < n_blocks):
        raise InvalidParameterError(f"cuts must lie between 1 and {n_blocks - 1}, but got {cuts!r}")
    bounds = (0, *starts, n_blocks)
    shapes = (*(profile.blocks[start].inputs for start in bounds[:-1]), profile.blocks[n_blocks - 1].outputs)
    totals = tuple(sum(costs[begin:end]) for begin, end in itertools.pairwise(bounds))
    return Partition(bounds, shapes, totals)


def _connector_cost(profile: ModelProfile, connector: Connector, rows: Tensor) -> float:
    """Cost of a preprocessor or coarse network in the middle of the network; 0 if it is unknown."""
    if isinstance(connector, Sequence):
        return 0.0
    with torch.random.fork_rng(devices=[]):  # the weights of the real ones must not depend on this trial
        try:
            module = connector(tuple(rows.shape[1:]), profile.middle)
        except InvalidParameterError:
            return 0.0  # no slice can begin here
        return profile.cost(module, rows)


def _balanced_cuts(
    costs: Sequence[float], slices: int, *, extra: float = 0.0, message: float = 0.0, sweep: float = 0.0
) -> tuple[int, ...]:
    """Block numbers at which slices 2 to ``T`` begin, so that the time of a step is minimal.

    A later slice has more time: its input arrives later, and its gradient comes back earlier. Two messages
    lie between the first slice and the second, and two messages and a sweep between any other two. ``extra``
    is the cost of a preprocessor, ``message`` that of a message one way, ``sweep`` that of a coarse network.
    The head does not count, since all other slices wait for it.
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
