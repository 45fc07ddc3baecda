"""Decomposition of a serial network: ``nn.Sequential`` to :class:`PararealNetwork`."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from parallelmlp_search._checks import check_choice
from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.parareal.method.blocks import Shape, preserve_running_statistics, profile_model
from parallelmlp_search.parareal.method.coarse_networks import (
    Connector,
    automatic_coarse,
    automatic_preprocessor,
)
from parallelmlp_search.parareal.method.network import PararealNetwork, Slice
from parallelmlp_search.parareal.method.partition import plan_partition

__all__ = ["decompose"]

BALANCES = ("counted", "measured")


def decompose(
    model: nn.Sequential,
    slices: int,
    example: Tensor,
    *,
    coarse: Connector | None = None,
    preprocessor: Connector | None = None,
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
        input and output; by default :func:`automatic_coarse` and :func:`automatic_preprocessor`.
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
    if isinstance(cuts, str):
        check_choice("cuts", cuts, BALANCES)
    coarse, preprocessor = coarse or automatic_coarse, preprocessor or automatic_preprocessor
    profile = profile_model(model, example, head=head, measured=cuts == "measured")
    partition = plan_partition(
        profile,
        slices,
        cuts=None if isinstance(cuts, str) else cuts,
        coarse=coarse,
        preprocessor=preprocessor,
    )
    blocks = list(copy.deepcopy(model))
    tail = blocks[profile.n_blocks :]
    parts = []
    for j in range(slices):
        fine = nn.Sequential(*blocks[partition.bounds[j] : partition.bounds[j + 1]])
        last = nn.Sequential(*tail) if tail and j == slices - 1 else None
        if j == 0:
            parts.append(Slice(fine, head=last))
            continue
        before, after = partition.shapes[j], partition.shapes[j + 1]
        number = (j, slices)
        guess = _connect("preprocessor", preprocessor, number, example, before)
        correct = _connect("coarse", coarse, number, profile.minibatch(before), after)
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
