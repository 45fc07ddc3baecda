"""Conversion of plain networks into packed tensors and back.

Outside a population a member is its canonical vector: its parameters without padding, in the order of
:meth:`~parallelmlp_search.packing.layout.Architecture.block_shapes`. States hold such vectors, and a plain
:class:`torch.nn.Sequential` is built from one.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import TypeVar

import torch
from torch import Tensor, nn

from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.packing.architecture import Architecture
from parallelmlp_search.packing.bucketing import plan
from parallelmlp_search.packing.layout import Block, Bucket, Layout
from parallelmlp_search.packing.modules import ACTIVATION_MODULES, CategoryEmbedding, InputScale, Residual
from parallelmlp_search.packing.periodic import Periodic
from parallelmlp_search.packing.submembers import AdaptedLinear, SubmemberHeads, SubmemberMean, Submembers

Module = TypeVar("Module", bound=nn.Module)

_DRAWING = threading.Lock()
"""Held while the state of torch's generator is set aside, since threads build networks at the same time."""


def select_columns(rows: Tensor, ranges: Sequence[tuple[int, int]]) -> Tensor:
    """Return the columns of rows ``(n, *)`` in ranges ``(first, end)``; a single range is a view."""
    parts = [rows[:, first:end] for first, end in ranges]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def block_rows(flat: Tensor, bucket: Bucket, block: Block) -> Tensor:
    """Return a view ``(P, row_size)`` of one block of a flat buffer.

    Parameters
    ----------
    flat, bucket, block
        Flat buffer, bucket, and one of its blocks.

    Returns
    -------
    Tensor
    """
    size = bucket.n_members * block.row_size
    return flat[block.offset : block.offset + size].view(bucket.n_members, block.row_size)


def read_member(flat: Tensor, layout: Layout, member: int) -> Tensor:
    """Copy the parameters of a member out of a flat buffer.

    Parameters
    ----------
    flat, layout, member
        Flat buffer, its layout, and index of the member.

    Returns
    -------
    Tensor
        Canonical vector ``(n_parameters,)``.
    """
    return torch.cat([piece.reshape(-1) for piece in _member_pieces(flat, layout, member)])


def write_member(flat: Tensor, layout: Layout, member: int, vector: Tensor) -> None:
    """Write a canonical vector into a flat buffer; padding is left as it is.

    Parameters
    ----------
    flat, layout, member
        Flat buffer, its layout, and index of the member.
    vector
        Canonical vector ``(n_parameters,)``.

    Raises
    ------
    InvalidParameterError
        If the vector has another size than the member. Nothing is written then.
    """
    pieces = _member_pieces(flat, layout, member)
    sizes = [piece.numel() for piece in pieces]
    if vector.shape != (sum(sizes),):
        raise InvalidParameterError(
            f"vector must have shape ({sum(sizes)},) for member {member}, but got {tuple(vector.shape)}"
        )
    for piece, values in zip(pieces, torch.split(vector, sizes), strict=True):
        piece.copy_(values.view(piece.shape))


def write_members(flat: Tensor, layout: Layout, members: Sequence[int], vectors: Tensor) -> None:
    """Write canonical vectors of members of one bucket and equal shapes; padding is left as it is.

    Parameters
    ----------
    flat, layout, members
        Flat buffer, its layout, and indices of the members.
    vectors
        Canonical vectors ``(P, n_parameters)``.
    """
    places = [layout.positions[member] for member in members]
    bucket = layout.buckets[places[0][0]]
    rows = torch.tensor([row for _, row in places])
    start = 0
    for block, (_, _, n_rows, n_columns) in zip(
        bucket.blocks, bucket.architectures[places[0][1]].block_shapes(), strict=True
    ):
        values = vectors[:, start : start + n_rows * n_columns].view(-1, n_rows, n_columns)
        pieces = block_rows(flat, bucket, block).view(-1, block.rows, block.columns)
        pieces[:, :n_rows, :n_columns].index_copy_(0, rows, values.to(flat.dtype))
        start += n_rows * n_columns


def _member_pieces(flat: Tensor, layout: Layout, member: int) -> list[Tensor]:
    """Unpadded views of the parameters of a member, in canonical order."""
    number, row = layout.positions[member]
    bucket = layout.buckets[number]
    pieces = []
    shapes = bucket.architectures[row].block_shapes()
    for block, (_, _, n_rows, n_columns) in zip(bucket.blocks, shapes, strict=True):
        start = block.offset + row * block.row_size
        piece = flat[start : start + block.row_size].view(block.rows, block.columns)
        pieces.append(piece[:n_rows, :n_columns])
    return pieces


def build_module(
    architecture: Architecture, vector: Tensor | None = None, *, dropout: float = 0.0
) -> nn.Sequential:
    """Build a plain network.

    Hidden layers are ``Linear, [LayerNorm], activation, [Dropout]``, inside a :class:`Residual` where the
    layer is residual; the head is a ``Linear``. Before them come :class:`Periodic`,
    :class:`CategoryEmbedding` and :class:`InputScale`. A network of submembers has :class:`Submembers` next,
    :class:`AdaptedLinear` where submembers differ, and ends in :class:`SubmemberHeads` and
    :class:`SubmemberMean`.

    Parameters
    ----------
    architecture, vector
        Architecture, and canonical vector of the weights; None draws them as torch does.
    dropout
        Rate of the dropout modules; 0 leaves them out.

    Returns
    -------
    nn.Sequential
        Network from rows ``(N, D)`` to outputs ``(N, C)``.
    """
    if vector is None:
        return nn.Sequential(*_layers(architecture, dropout))
    # drawing weights that are overwritten takes a third of the time of the meta device, which first imports
    # torch._dynamo and triton: 1.1 s and 120 MB
    with _DRAWING, torch.random.fork_rng(devices=[]):
        network = nn.Sequential(*_layers(architecture, dropout))
    network.to(vector.device, vector.dtype)
    parameters = list(network.parameters())
    with torch.no_grad():
        sizes = [parameter.numel() for parameter in parameters]
        for parameter, values in zip(parameters, torch.split(vector, sizes), strict=True):
            parameter.copy_(values.view(parameter.shape))
    return network


def _layers(architecture: Architecture, dropout: float) -> list[nn.Module]:
    """Modules of a network in order, with weights as torch draws them."""
    layers: list[nn.Module] = []
    if architecture.n_periodic:
        layers.append(Periodic(architecture.n_inputs, architecture.n_periodic))
    if architecture.categories:
        layers.append(CategoryEmbedding(architecture.expanded.fan_in, architecture.categories))
    if architecture.scaled:
        layers.append(InputScale(architecture.fan_in))
    if architecture.submembers > 1:
        layers.append(Submembers(architecture.submembers))
    fan_in = architecture.fan_in
    for layer, width in enumerate(architecture.widths):
        linear: nn.Module = nn.Linear(fan_in, width, bias=architecture.bias)
        if architecture.has_adapter(layer):
            sizes = architecture.submembers, fan_in, width
            full = architecture.has_adapter(layer, output=True)
            linear = AdaptedLinear(*sizes, bias=architecture.bias, full=full, first=layer == 0)
        block = [linear]
        if architecture.normalization == "layer":
            block.append(nn.LayerNorm(width))
        block.append(ACTIVATION_MODULES[architecture.activation]())
        if dropout > 0:
            block.append(nn.Dropout(dropout))
        residual = bool(architecture.residual) and architecture.residual[layer]
        layers.extend([Residual(*block)] if residual else block)
        fan_in = width
    if architecture.submembers > 1:
        sizes = architecture.submembers, fan_in, architecture.n_outputs
        layers.append(SubmemberHeads(*sizes, bias=architecture.bias))
        layers.append(SubmemberMean(classifies=architecture.classifies))
    else:
        layers.append(nn.Linear(fan_in, architecture.n_outputs, bias=architecture.bias))
    return layers


def module_architecture(module: nn.Sequential) -> Architecture:
    """Return the architecture of a plain network as :func:`build_module` builds it.

    Raises
    ------
    InvalidParameterError
        If the network has a module that a packed network cannot have, or modules in another order or with
        other settings.
    """
    parts = list(_parts(module))
    modules = [part for part, _ in parts]
    linear = nn.Linear | AdaptedLinear | SubmemberHeads
    linears = [part for part in modules if isinstance(part, linear)]
    residual = [inside for part, inside in parts if isinstance(part, linear)]
    names = {type(factory()): name for name, factory in ACTIVATION_MODULES.items()}
    activations = {names[type(part)] for part in modules if type(part) in names}
    if not linears or len(activations) > 1:
        raise InvalidParameterError(
            f"a packed network has one Linear or more and one activation for all its hidden layers, "
            f"but got {len(linears)} Linear and the activations {sorted(activations)}"
        )
    periodic, category = _first(modules, Periodic), _first(modules, CategoryEmbedding)
    submembers, mean = _first(modules, Submembers), _first(modules, SubmemberMean)
    scale = _first(modules, InputScale)
    for part in (category, scale):
        if part is not None and residual[0]:
            raise InvalidParameterError(
                f"a packed network has no {type(part).__name__} directly before a Residual: "
                "put a Linear between them"
            )
    n_inputs = linears[0].in_features if category is None else category.n_inputs
    architecture = Architecture(
        n_inputs=n_inputs if periodic is None else periodic.n_inputs,
        widths=tuple(linear.out_features for linear in linears[:-1]),
        n_outputs=linears[-1].out_features,
        activation=activations.pop() if activations else "identity",
        bias=linears[0].bias is not None,
        normalization="none" if _first(modules, nn.LayerNorm) is None else "layer",
        residual=tuple(residual[:-1]),
        dropout=_first(modules, nn.Dropout) is not None,
        n_periodic=0 if periodic is None else periodic.n_numbers,
        scaled=scale is not None,
        submembers=1 if submembers is None else submembers.submembers,
        sharing="full" if any(isinstance(part, AdaptedLinear) and part.full for part in linears) else "mini",
        classifies=mean is not None and mean.classifies,
        categories=() if category is None else category.categories,
    )
    # the right modules in another order, or with other settings, are another network
    with torch.device("meta"):
        expected_parts = _structure(build_module(architecture))
    for expected, got in zip_longest(expected_parts, _structure(module), fillvalue="nothing more"):
        if expected != got:
            raise InvalidParameterError(
                f"a packed network repeats Linear, [LayerNorm], activation, [Dropout], all with their "
                f"default settings, behind Periodic, CategoryEmbedding and InputScale if any, and ends in a "
                f"Linear, or with Submembers in SubmemberHeads and SubmemberMean: "
                f"expected {expected} next, but got {got}"
            )
    return architecture


def _parts(block: nn.Sequential, inside: bool = False) -> Iterator[tuple[nn.Module, bool]]:
    """Modules of a network in order, those of residual blocks one by one and with True."""
    known = (
        nn.Linear, AdaptedLinear, SubmemberHeads, nn.LayerNorm, nn.Dropout, Periodic, CategoryEmbedding,
        InputScale, Submembers, SubmemberMean, *(type(factory()) for factory in ACTIVATION_MODULES.values()),
    )  # fmt: skip
    for part in block:
        if isinstance(part, Residual):
            yield from _parts(part, True)
        elif isinstance(part, known):
            yield part, inside
        else:
            raise InvalidParameterError(
                f"a packed network has Linear, LayerNorm, Dropout, Residual, Periodic, CategoryEmbedding, "
                f"InputScale, the modules of submembers and known activations, but got {type(part).__name__}"
            )


def _first(modules: Sequence[nn.Module], kind: type[Module]) -> Module | None:
    """First module of a kind, or None."""
    return next((part for part in modules if isinstance(part, kind)), None)


def _structure(module: nn.Module) -> list[str]:
    """Text of each module in order, without modules and settings that do not affect evaluation."""
    lines: list[str] = []
    for part in module.children():
        if isinstance(part, Residual):
            lines.extend(["Residual", *_structure(part), "the end of Residual"])
        elif not isinstance(part, nn.Dropout | nn.Identity):
            lines.append(repr(part).replace(", inplace=True", "").replace("inplace=True", ""))
    return lines


def module_vector(module: nn.Module) -> Tensor:
    """Return the canonical vector of a plain network, detached."""
    return torch.cat([parameter.detach().reshape(-1) for parameter in module.parameters()])


def pack(modules: Sequence[nn.Sequential], *, merge: bool = True) -> tuple[Layout, Tensor]:
    """Plan a population of plain networks and pack their weights; ``merge`` as for ``plan``.

    Returns
    -------
    (Layout, Tensor)
        Layout and flat buffer of the parameters; :func:`extract` is the inverse.

    Raises
    ------
    InvalidParameterError
        If there is no network, or one cannot be packed.
    """
    if not modules:
        raise InvalidParameterError("modules must hold at least one network, but got none")
    layout = plan([module_architecture(module) for module in modules], merge=merge)
    vectors = [module_vector(module) for module in modules]
    flat = vectors[0].new_zeros(layout.size)
    for member, vector in enumerate(vectors):
        write_member(flat, layout, member, vector)
    return layout, flat


def extract(flat: Tensor, layout: Layout, member: int, *, dropout: float = 0.0) -> nn.Sequential:
    """Build the plain network of a member, with a copy of its weights.

    Parameters
    ----------
    flat, layout, member
        Flat buffer of the parameters, its layout, and index of the member.
    dropout
        Rate of the dropout modules; 0 leaves them out.

    Returns
    -------
    nn.Sequential
    """
    architecture = replace(layout.architecture(member), dropout=dropout > 0)
    return build_module(architecture, read_member(flat, layout, member), dropout=dropout)
