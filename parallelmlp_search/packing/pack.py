"""Plain networks into packed tensors and back.

A member outside a population is its canonical vector: for each layer the weights row by row, then biases,
then the gain and shift of the normalisation, without padding; an embedding comes first. The whole order is
that of :meth:`~parallelmlp_search.packing.layout.Architecture.block_shapes`. Vectors are what is compacted,
saved and turned into plain :class:`torch.nn.Sequential` networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest

import torch
from torch import Tensor, nn

from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.packing.bucketing import plan
from parallelmlp_search.packing.layout import Architecture, Layout
from parallelmlp_search.packing.modules import (
    ACTIVATION_MODULES,
    CategoryEmbedding,
    InputScale,
    Residual,
)
from parallelmlp_search.packing.periodic import Periodic
from parallelmlp_search.packing.submembers import AdaptedLinear, SubmemberHeads, SubmemberMean, Submembers

__all__ = [
    "block_view",
    "build_module",
    "extract",
    "module_architecture",
    "module_vector",
    "pack",
    "read_member",
    "repack",
    "seen_columns",
    "write_member",
]


def seen_columns(rows: Tensor, runs: Sequence[tuple[int, int]]) -> Tensor:
    """The columns of rows ``(n, *)`` that lie in runs ``(first, end)``; a single run is a view."""
    parts = [rows[:, first:end] for first, end in runs]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def block_view(flat: Tensor, layout: Layout, bucket: int, layer: int, kind: str) -> Tensor | None:
    """View ``(P, rows, columns)`` of one block of a flat buffer, or None where it does not exist."""
    block = layout.buckets[bucket].block(layer, kind)
    if block is None:
        return None
    n_members = layout.buckets[bucket].n_members
    size = n_members * block.row_size
    return flat[block.offset : block.offset + size].view(n_members, block.rows, block.columns)


def read_member(flat: Tensor, layout: Layout, member: int) -> Tensor:
    """Canonical vector ``(n_parameters,)`` of a member, without padding, as a copy."""
    pieces = [piece.reshape(-1) for piece in _member_pieces(flat, layout, member)]
    return torch.cat(pieces)


def write_member(flat: Tensor, layout: Layout, member: int, vector: Tensor) -> None:
    """Write a canonical vector into a member's place; the padding is left as it is.

    Raises
    ------
    InvalidParameterError
        If the vector has another number of elements than the member; nothing is written then.
    """
    pieces = _member_pieces(flat, layout, member)
    expected = sum(piece.numel() for piece in pieces)
    if vector.shape != (expected,):
        raise InvalidParameterError(
            f"vector must have shape ({expected},) for member {member}, but got {tuple(vector.shape)}"
        )
    offset = 0
    for piece in pieces:
        size = piece.numel()
        piece.copy_(vector[offset : offset + size].view(piece.shape))
        offset += size


def _member_pieces(flat: Tensor, layout: Layout, member: int) -> list[Tensor]:
    """Unpadded views of a member's parameters, in canonical order."""
    bucket_index, row = layout.positions[member]
    bucket = layout.buckets[bucket_index]
    true_shapes = bucket.architectures[row].block_shapes()
    pieces = []
    for block, (_, _, rows, columns) in zip(bucket.blocks, true_shapes, strict=True):
        start = block.offset + row * block.row_size
        piece = flat[start : start + block.row_size].view(block.rows, block.columns)
        pieces.append(piece[:rows, :columns])
    return pieces


def repack(flat: Tensor, layout: Layout, members: Sequence[int], target: Layout) -> Tensor:
    """Gather ``members`` into the flat buffer of another layout, in that order (select and compact)."""
    result = flat.new_zeros(target.size)
    for place, member in enumerate(members):
        write_member(result, target, place, read_member(flat, layout, member))
    return result


def build_module(
    architecture: Architecture, vector: Tensor | None = None, *, dropout: float = 0.0
) -> nn.Sequential:
    """A plain network of this architecture, with the weights of a canonical vector if one is given.

    Hidden layers are ``Linear, [LayerNorm], activation, [Dropout]``, wrapped into :class:`Residual` where
    the architecture says so; the head is a ``Linear``. A periodic embedding comes first, then one of
    categories, then scales of the inputs. Submembers
    that share weights begin with :class:`Submembers` behind those, have :class:`AdaptedLinear` where they
    differ, and end in :class:`SubmemberHeads` and :class:`SubmemberMean`. Inputs and outputs are row-major,
    ``(N, D)`` to ``(N, C)``.
    """
    if vector is None:
        return nn.Sequential(*_layers(architecture, dropout))
    with torch.device("meta"):  # nothing is drawn that would be overwritten
        network = nn.Sequential(*_layers(architecture, dropout))
    network.to(vector.dtype).to_empty(device=vector.device)
    offset = 0
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(vector[offset : offset + parameter.numel()].view(parameter.shape))
            offset += parameter.numel()
    return network


def _layers(architecture: Architecture, dropout: float) -> list[nn.Module]:
    """Modules of a network, one after the other, with weights as torch draws them."""
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
        block: list[nn.Module] = [_linear(architecture, layer, fan_in, width)]
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


def _linear(architecture: Architecture, layer: int, fan_in: int, width: int) -> nn.Linear | AdaptedLinear:
    if not architecture.has_adapter(layer):
        return nn.Linear(fan_in, width, bias=architecture.bias)
    return AdaptedLinear(
        architecture.submembers,
        fan_in,
        width,
        bias=architecture.bias,
        full=architecture.has_adapter(layer, output=True),
        first=layer == 0,
    )


def module_architecture(module: nn.Sequential) -> Architecture:
    """Architecture of a plain network as :func:`build_module` makes them.

    Raises
    ------
    InvalidParameterError
        If the network holds a module that a packed population has no place for, or holds the right ones in
        another order or with other settings.
    """
    names = {type(factory()): name for name, factory in ACTIVATION_MODULES.items()}
    linears: list[nn.Linear | AdaptedLinear | SubmemberHeads] = []
    residual: list[bool] = []
    activations: set[str] = set()
    normalized = dropout = scaled = classifies = False
    submembers = 1
    embedding: Periodic | None = None
    of_categories: CategoryEmbedding | None = None

    def visit(block: nn.Sequential, inside: bool) -> None:
        nonlocal normalized, dropout, scaled, submembers, classifies, embedding, of_categories
        for part in block:
            if isinstance(part, Residual):
                visit(part, True)
            elif isinstance(part, nn.Linear | AdaptedLinear | SubmemberHeads):
                linears.append(part)
                residual.append(inside)
            elif isinstance(part, nn.LayerNorm):
                normalized = True
            elif isinstance(part, nn.Dropout):
                dropout = True
            elif isinstance(part, Periodic):
                embedding = part
            elif isinstance(part, CategoryEmbedding):
                of_categories = part
            elif isinstance(part, InputScale):
                scaled = True
            elif isinstance(part, Submembers):
                submembers = part.submembers
            elif type(part) in names:
                activations.add(names[type(part)])
            elif isinstance(part, SubmemberMean):
                classifies = part.classifies
            else:
                raise InvalidParameterError(
                    f"a packed network is made of Linear, LayerNorm, Dropout, Residual, Periodic, "
                    f"CategoryEmbedding, InputScale, what submembers are made of, and known activations, "
                    f"but got {type(part).__name__}"
                )

    visit(module, False)
    if not linears or len(activations) > 1:
        raise InvalidParameterError(
            f"a packed network has one Linear or more and one activation for all its hidden layers, "
            f"but got {len(linears)} Linear and the activations {sorted(activations)}"
        )
    if of_categories is not None and residual[0]:
        raise InvalidParameterError(
            "a packed network adds no embedded categories to a layer, but got CategoryEmbedding "
            "before a Residual: put a Linear between"
        )
    if scaled and residual[0]:
        raise InvalidParameterError(
            "a packed network adds no inputs with scales to a layer, but got InputScale "
            "before a Residual: put a Linear between"
        )
    n_inputs = linears[0].in_features if of_categories is None else of_categories.n_inputs
    architecture = Architecture(
        n_inputs=n_inputs if embedding is None else embedding.n_inputs,
        widths=tuple(linear.out_features for linear in linears[:-1]),
        n_outputs=linears[-1].out_features,
        activation=activations.pop() if activations else "identity",
        bias=linears[0].bias is not None,
        normalization="layer" if normalized else "none",
        residual=tuple(residual[:-1]),
        dropout=dropout,
        n_periodic=0 if embedding is None else embedding.n_numbers,
        scaled=scaled,
        submembers=submembers,
        sharing="full" if any(_is_full(linear) for linear in linears) else "mini",
        classifies=classifies,
        categories=() if of_categories is None else of_categories.categories,
    )
    # the right modules in another order, or with other settings, would train as a different network
    with torch.device("meta"):
        wanted = _structure(build_module(architecture))
    for expected, got in zip_longest(wanted, _structure(module), fillvalue="nothing more"):
        if expected != got:
            raise InvalidParameterError(
                f"a packed network repeats Linear, [LayerNorm], activation, [Dropout], all with their "
                f"default settings, behind Periodic, CategoryEmbedding and InputScale if any, and ends in a "
                f"Linear, or with Submembers in SubmemberHeads and SubmemberMean: "
                f"expected {expected} next, but got {got}"
            )
    return architecture


def _is_full(linear: nn.Module) -> bool:
    return isinstance(linear, AdaptedLinear) and linear.output_adapter is not None


def _structure(module: nn.Module) -> list[str]:
    """Modules in order as text, blocks opened, without what changes no output while evaluating."""
    lines: list[str] = []
    for part in module.children():
        if isinstance(part, Residual):
            lines.extend(["Residual", *_structure(part), "the end of Residual"])
        elif not isinstance(part, nn.Dropout | nn.Identity):
            lines.append(repr(part).replace(", inplace=True", "").replace("inplace=True", ""))
    return lines


def module_vector(module: nn.Module) -> Tensor:
    """Canonical vector of a plain network, detached."""
    return torch.cat([parameter.detach().reshape(-1) for parameter in module.parameters()])


def pack(modules: Sequence[nn.Sequential], *, merge: bool = True) -> tuple[Layout, Tensor]:
    """Plan a population from plain networks and pack their weights.

    Returns
    -------
    (Layout, Tensor)
        The plan and the flat buffer of its parameters; :func:`extract` gives each network back.
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
    """A member as a plain ``nn.Sequential`` that gives the same output, with weights of its own."""
    architecture = replace(layout.architecture(member), dropout=dropout > 0)
    return build_module(architecture, read_member(flat, layout, member), dropout=dropout)
