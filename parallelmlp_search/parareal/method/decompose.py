"""A serial network cut into slices of depth: ``nn.Sequential`` to :class:`PararealNetwork`."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from parallelmlp_search.exceptions import InvalidParameterError, near_miss
from parallelmlp_search.parareal.method.blocks import (
    MESSAGE_COST,
    balanced_cuts,
    counted_cost,
    dry_run,
    measured_cost,
    statistics_kept,
)
from parallelmlp_search.parareal.method.coarse_networks import (
    automatic_coarse,
    automatic_preprocessor,
    check_bridge,
)
from parallelmlp_search.parareal.method.network import PararealNetwork, Slice

__all__ = ["Bridge", "Cut", "decompose", "plan_cuts"]

Shape = tuple[int, ...]
Bridge = Callable[[Shape, Shape], nn.Module]
"""Makes a module from the shape of a row that it takes and of the one that it gives."""

BALANCES = ("counted", "measured")

MESSAGE_SECONDS = 6e-5
"""A message with all that is done about it, as :data:`MESSAGE_COST` has it."""


@dataclass(frozen=True)
class Cut:
    """Where a serial network is cut.

    Attributes
    ----------
    starts
        Blocks at which slices 1 to ``T`` begin; the first is 0.
    n_blocks
        Blocks before the head.
    shapes
        Shapes of a row at the input of each slice and behind the last, ``T + 1`` of them.
    costs
        Cost of the fine network of each slice.
    """

    starts: tuple[int, ...]
    n_blocks: int
    shapes: tuple[Shape, ...]
    costs: tuple[float, ...]


def decompose(
    model: nn.Sequential,
    slices: int,
    example: Tensor,
    *,
    coarse: Bridge | Sequence[nn.Module] | None = None,
    preprocessor: Bridge | Sequence[nn.Module] | None = None,
    head: int = 1,
    cuts: Sequence[int] | None = None,
    balance: str = "counted",
    share: bool = False,
) -> PararealNetwork:
    """Cut a network into slices of depth and join them by coarse networks.

    Parameters
    ----------
    model
        A Sequential of blocks, each of which maps one tensor to another.
    slices
        Number ``T`` of slices, >= 1. One slice is the serial network itself.
    example
        A minibatch ``(N, ...)``; a dry run over it finds the shapes. Nothing is learned from it.
    coarse, preprocessor
        ``T - 1`` modules for slices 2 to ``T``, or a function that makes one from the shapes of the rows that
        it takes and gives; automatic by default (:func:`automatic_coarse`, :func:`automatic_preprocessor`).
    head
        How many of the last blocks form the head, which runs once, behind the last slice; >= 0.
    cuts
        Numbers of the blocks at which slices 2 to ``T`` begin; balanced by cost by default.
    balance
        ``counted`` operations, the same on every machine, or ``measured`` seconds.
    share
        Use the model's own blocks instead of copies.

    Returns
    -------
    PararealNetwork
        With the blocks' weights in its fine networks and fresh ones in all others.

    Raises
    ------
    InvalidParameterError
        If a value breaks its rule or shapes do not fit; the message names which.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> blocks = [nn.Sequential(nn.Linear(8, 8), nn.ReLU()) for _ in range(6)]
    >>> network = decompose(nn.Sequential(*blocks, nn.Linear(8, 2)), 3, torch.zeros(4, 8))
    >>> network.n_slices, network(torch.zeros(5, 8)).shape
    (3, torch.Size([5, 2]))
    """
    cut = plan_cuts(
        model,
        slices,
        example,
        head=head,
        cuts=cuts,
        balance=balance,
        coarse=coarse,
        preprocessor=preprocessor,
    )
    blocks = list(model) if share else list(copy.deepcopy(model))
    tail = blocks[cut.n_blocks :]
    bounds = (*cut.starts, cut.n_blocks)
    with torch.no_grad(), statistics_kept(model):
        parts = []
        for j in range(slices):
            fine = nn.Sequential(*blocks[bounds[j] : bounds[j + 1]])
            last = nn.Sequential(*tail) if tail and j == slices - 1 else None
            if j == 0:
                parts.append(Slice(fine, head=last))
                continue
            before, after = cut.shapes[j], cut.shapes[j + 1]
            guess = _bridge("preprocessor", preprocessor, automatic_preprocessor, j, slices, example, before)
            rows = example.new_zeros(example.shape[0], *before)
            shallow = _bridge("coarse", coarse, automatic_coarse, j, slices, rows, after)
            parts.append(Slice(fine, preprocessor=guess, coarse=shallow, head=last))
    return PararealNetwork(parts)


def plan_cuts(
    model: nn.Sequential,
    slices: int,
    example: Tensor,
    *,
    head: int = 1,
    cuts: Sequence[int] | None = None,
    balance: str = "counted",
    coarse: Bridge | Sequence[nn.Module] | None = None,
    preprocessor: Bridge | Sequence[nn.Module] | None = None,
    message: float | None = None,
) -> Cut:
    """Where :func:`decompose` cuts, with shapes and costs; parameters and errors as there.

    ``message`` is what a message from slice to slice costs, in the unit of the balance; by default what it
    costs between two processes of one host.
    """
    if not isinstance(model, nn.Sequential):
        raise InvalidParameterError(f"model must be an nn.Sequential, but got {type(model).__name__}")
    if isinstance(slices, bool) or not isinstance(slices, int) or slices < 1:
        raise InvalidParameterError(f"slices must be an integer >= 1, but got {slices!r}")
    if not 0 <= head < len(model):
        raise InvalidParameterError(
            f"head must be >= 0 and leave a block before it, but got {head} of {len(model)}"
        )
    if balance not in BALANCES:
        raise InvalidParameterError(
            f"balance must be one of {', '.join(BALANCES)}, but got {balance!r}"
            f"{near_miss(str(balance), BALANCES)}"
        )
    measured = balance == "measured"
    facts = dry_run(list(model), example, measured=measured)
    n_blocks = len(model) - head
    costs = [fact.cost for fact in facts[:n_blocks]]
    starts = tuple(cuts or ())
    if message is None:
        message = MESSAGE_SECONDS if measured else MESSAGE_COST
    if cuts is None and slices > 1:
        middle = facts[n_blocks // 2].inputs
        rows = example.new_zeros(example.shape[0], *middle)
        starts = balanced_cuts(
            costs,
            slices,
            extra=_bridge_cost(preprocessor or automatic_preprocessor, example, middle, measured, first=True),
            message=message,
            sweep=_bridge_cost(coarse or automatic_coarse, rows, middle, measured),
        )
    elif list(starts) != sorted({*starts}) or len(starts) != slices - 1:
        raise InvalidParameterError(f"cuts must be {slices - 1} growing numbers of blocks, but got {cuts!r}")
    elif starts and not (starts[0] > 0 and starts[-1] < n_blocks):
        raise InvalidParameterError(f"cuts must lie between 1 and {n_blocks - 1}, but got {cuts!r}")
    starts = (0, *starts)
    bounds = (*starts, n_blocks)
    shapes = (*(facts[start].inputs for start in starts), facts[n_blocks - 1].outputs)
    totals = tuple(sum(costs[first:last]) for first, last in itertools.pairwise(bounds))
    return Cut(starts, n_blocks, shapes, totals)


def _bridge_cost(
    make: Bridge | Sequence[nn.Module], rows: Tensor, outputs: Shape, measured: bool, *, first: bool = False
) -> float:
    """What a preprocessor or a coarse network costs: that of one in the middle of the network."""
    if isinstance(make, Sequence):
        return 0.0
    with torch.random.fork_rng(devices=[]):  # a trial, which must not move the weights of the real ones
        try:
            bridge = make(tuple(rows.shape[1:]), outputs).to(rows.device, rows.dtype)
        except InvalidParameterError:
            return 0.0  # the middle is no place for a cut
        cost = measured_cost if measured else counted_cost
        return cost(bridge, rows, first=first)


def _bridge(
    name: str,
    wanted: Bridge | Sequence[nn.Module] | None,
    automatic: Bridge,
    j: int,
    slices: int,
    rows: Tensor,
    outputs: Shape,
) -> nn.Module:
    if isinstance(wanted, Sequence):
        if len(wanted) != slices - 1:
            raise InvalidParameterError(
                f"{name} must have one module for each slice but the first, {slices - 1}, "
                f"but has {len(wanted)}"
            )
        bridge = wanted[j - 1]
    else:
        bridge = (wanted or automatic)(tuple(rows.shape[1:]), outputs)
    bridge = bridge.to(rows.device, rows.dtype)
    with statistics_kept(bridge):
        check_bridge(f"{name} of slice {j + 1}", bridge, rows, outputs)
    return bridge
