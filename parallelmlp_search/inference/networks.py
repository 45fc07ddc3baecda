"""Trained networks as plain layers with NumPy weights.

A configuration is trained once per fold, and a network with submembers is several networks that share most
weights. :class:`PlainNetworks` holds all of them side by side: ``F`` folds of ``K`` submembers. Scales of
inputs and embeddings of categories are multiplied into the weights, so a network is a short list of products.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parallelmlp_search.packing import Architecture
from parallelmlp_search.packing.architecture import EMBEDDING
from parallelmlp_search.packing.layout import Layout
from parallelmlp_search.space.config import PERIODIC_FREQUENCIES, PERIODIC_OUTPUTS

Floats = NDArray[Any]
Indices = NDArray[np.intp]
Blocks = Mapping[tuple[int, str], Floats]
"""Parameters of a network by layer and kind, see :meth:`Architecture.block_shapes`."""


@dataclass(frozen=True, eq=False)
class PeriodicWaves:
    """Periodic embedding of the first ``n`` inputs; the mixtures follow the inputs.

    Attributes
    ----------
    frequency, phase
        Of the waves, in radians, ``(F, n, 1, 16)``.
    mixing, offset
        Mixtures of the waves ``(F, n, 16, 3)`` and their offsets ``(F, n, 1, 3)``.
    """

    frequency: Floats
    phase: Floats
    mixing: Floats
    offset: Floats


@dataclass(frozen=True, eq=False)
class PlainLayer:
    """Linear map with what follows it, of ``F`` folds and ``K`` submembers.

    The output is ``[x +] activation(normalize((x * input_factor) @ weight * output_factor + bias))``. An axis
    of length 1 stands for all folds or submembers.

    Attributes
    ----------
    weight
        ``(F, K or 1, inputs, outputs)``.
    bias
        ``(F, K or 1, 1, outputs)``, or None.
    activation
        One of :data:`parallelmlp_search.space.ACTIVATIONS`.
    input_factor, output_factor
        Factors of submembers ``(F, K, 1, inputs)`` and ``(F, K, 1, outputs)``, or None.
    gain, shift
        Of the layer normalization, ``(F, 1, 1, outputs)``, or None without one.
    residual
        True if the layer adds its input.
    projection
        Zeros and ones ``(F, 1, inputs, outputs)`` that select the inputs which a residual layer adds, or None
        for all of them.
    """

    weight: Floats
    bias: Floats | None = None
    activation: str = "identity"
    input_factor: Floats | None = None
    output_factor: Floats | None = None
    gain: Floats | None = None
    shift: Floats | None = None
    residual: bool = False
    projection: Floats | None = None


@dataclass(frozen=True, eq=False)
class PlainNetworks:
    """Networks of one configuration: one per fold, or ``K`` submembers per fold.

    Attributes
    ----------
    columns
        Ranges ``(first, end)`` of the encoded columns that are their inputs.
    waves
        Periodic embedding of the first inputs, or None.
    layers
        Layers in order; the last one is the head.
    """

    columns: tuple[tuple[int, int], ...]
    waves: PeriodicWaves | None
    layers: tuple[PlainLayer, ...]

    @property
    def floats_per_row(self) -> int:
        """Numbers that the largest layer computes for one row."""
        submembers = 1
        sizes: list[int] = []
        for layer in self.layers:
            n_folds, n_own, inputs, outputs = layer.weight.shape
            submembers = max(submembers, n_own)
            if layer.input_factor is not None:
                submembers = max(submembers, layer.input_factor.shape[1])
                outputs = max(inputs, outputs)
            sizes.append(n_folds * outputs)
        return submembers * max(sizes)


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """Network of one fold: its architecture, its parameters, and the places of its inputs.

    Attributes
    ----------
    architecture, blocks
        Architecture, and parameters by layer and kind.
    places
        For each encoded column of the fold, its column in the rows that are common to all folds.
    """

    architecture: Architecture
    blocks: Blocks
    places: Indices

    @property
    def seen(self) -> Indices:
        """Common columns that are the inputs of the network, in their order."""
        ranges = self.architecture.columns or ((0, self.architecture.n_inputs),)
        return np.concatenate([self.places[first:end] for first, end in ranges])


def member_blocks(flat: Floats, layout: Layout, member: int) -> Blocks:
    """Return the parameters of a member of a flat buffer by layer and kind, as views without padding.

    Parameters
    ----------
    flat, layout, member
        Flat buffer, its layout, and index of the member.

    Returns
    -------
    mapping
    """
    number, row = layout.positions[member]
    bucket = layout.buckets[number]
    found = {}
    for block, (_, _, rows, columns) in zip(
        bucket.blocks, bucket.architectures[row].block_shapes(), strict=True
    ):
        start = block.offset + row * block.row_size
        whole = flat[start : start + block.row_size].reshape(block.rows, block.columns)
        found[block.layer, block.kind] = whole[:rows, :columns]
    return found


def plain_networks(networks: Sequence[TrainedNetwork]) -> PlainNetworks:
    """Return the networks of one configuration, one per fold, as plain layers.

    Folds may differ in the columns of the first layer alone. Missing columns get weights of zero.
    """
    used = np.zeros(1 + max(int(network.places.max(initial=0)) for network in networks), dtype=bool)
    for network in networks:
        used[network.seen] = True
    edges = np.flatnonzero(np.diff(used, prepend=False, append=False))
    position = np.cumsum(used) - 1  # of a common column among the used ones
    n_used = int(used.sum())
    # factors of submembers are on the embedded inputs, so the embedding is then a layer of its own
    embeds = any(n.architecture.categories and (0, "input_adapter") in n.blocks for n in networks)
    n_embedded = max(network.architecture.fan_in for network in networks) if embeds else None
    chains = [_layers(network, position[network.seen], n_used, n_embedded) for network in networks]
    return PlainNetworks(
        columns=tuple(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)),
        waves=_waves(networks) if networks[0].architecture.n_periodic else None,
        layers=tuple(_stacked(layers) for layers in zip(*chains, strict=True)),
    )


def _stacked(layers: Sequence[PlainLayer]) -> PlainLayer:
    """Join layers of single networks along the axis of folds."""
    values: dict[str, Any] = {}
    for name, first in vars(layers[0]).items():
        if name == "projection":
            continue
        parts = [getattr(layer, name) for layer in layers]
        is_array = isinstance(first, np.ndarray)
        values[name] = np.concatenate(parts).astype(np.float32, copy=False) if is_array else first
    values["residual"] = any(layer.residual for layer in layers)
    values["projection"] = _projections(layers)
    return PlainLayer(**values)


def _projections(layers: Sequence[PlainLayer]) -> Floats | None:
    """Projections of all folds; that of a fold whose layer is not residual is zero.

    A first layer is residual if it is as wide as its inputs, of which folds may have other numbers.
    """
    if all(layer.projection is None for layer in layers):
        return None
    shape = layers[0].weight.shape[2:]
    zeros = np.zeros((1, 1, *shape))
    found = np.concatenate([zeros if layer.projection is None else layer.projection for layer in layers])
    if shape[0] == shape[1] and (found == np.eye(shape[0])).all():
        return None
    return found.astype(np.float32)


def _layers(
    network: TrainedNetwork, places: Indices, n_used: int, n_embedded: int | None
) -> list[PlainLayer]:
    """Layers of the network of one fold, whose inputs have the given places among ``n_used`` columns.

    With ``n_embedded`` the embedding of categories is a layer with that many outputs.
    """
    architecture, blocks = network.architecture, network.blocks
    n_inputs = n_used + PERIODIC_OUTPUTS * architecture.n_periodic
    rows = np.concatenate([places, np.arange(n_used, n_inputs)])
    layers: list[PlainLayer] = []
    first = _layer(network, 0)
    weight, factor = first.weight, first.input_factor
    if n_embedded is not None:
        embedding = _placed(_category_embedding(architecture, blocks)[None, None], rows, n_inputs)
        rows, n_inputs = np.arange(architecture.fan_in), n_embedded
        layers.append(PlainLayer(_placed(embedding.swapaxes(2, 3), rows, n_inputs).swapaxes(2, 3)))
    elif architecture.categories:
        weight = _category_embedding(architecture, blocks) @ weight
    if factor is not None:
        factor = _placed(factor.swapaxes(2, 3), rows, n_inputs).swapaxes(2, 3)
    projection = _placed(np.eye(len(rows))[None, None], rows, n_inputs) if first.residual else None
    weight = _placed(weight, rows, n_inputs)
    layers.append(replace(first, weight=weight, input_factor=factor, projection=projection))
    layers += [_layer(network, number) for number in range(1, architecture.depth + 1)]
    return layers


def _layer(network: TrainedNetwork, number: int) -> PlainLayer:
    """One layer of a network on its own inputs, scales of inputs included."""
    architecture, blocks = network.architecture, network.blocks
    is_head = number == architecture.depth
    heads = architecture.submembers if is_head else 1

    def block(kind: str, *shape: int) -> Floats | None:
        found = blocks.get((number, kind))
        return None if found is None else found.reshape(1, *shape)

    outputs = architecture.n_outputs if is_head else architecture.widths[number]
    weight = blocks[number, "weight"]
    weight = weight.reshape(1, heads, outputs, weight.shape[1]).swapaxes(2, 3)
    if number == 0 and architecture.scaled:
        weight = weight * blocks[EMBEDDING, "scale"]
    own_biases = heads > 1 or architecture.has_adapter(number, output=True)
    return PlainLayer(
        weight=weight,
        bias=block("bias", architecture.submembers if own_biases else 1, 1, outputs),
        activation="identity" if is_head else architecture.activation,
        input_factor=block("input_adapter", architecture.submembers, 1, weight.shape[2]),
        output_factor=block("output_adapter", architecture.submembers, 1, outputs),
        gain=block("gain", 1, 1, outputs),
        shift=block("shift", 1, 1, outputs),
        residual=not is_head and bool(architecture.residual) and architecture.residual[number],
    )


def _placed(matrix: Floats, rows: Indices, n_rows: int) -> Floats:
    """Place the rows of matrices ``(..., R, O)`` among ``n_rows`` rows of zeros."""
    placed = np.zeros((*matrix.shape[:-2], n_rows, matrix.shape[-1]), dtype=matrix.dtype)
    placed[..., rows, :] = matrix
    return placed


def _category_embedding(architecture: Architecture, blocks: Blocks) -> Floats:
    """Matrix ``(columns, inputs of the first layer)`` that embeds one-hot columns and keeps all others."""
    if not architecture.categories:
        return np.eye(architecture.fan_in, dtype=np.float32)
    values = blocks[EMBEDDING, "category"][:, 0]
    matrix = np.zeros((architecture.expanded.fan_in, architecture.fan_in), dtype=values.dtype)
    for columns, inputs, elements in architecture.input_runs():
        size = inputs.stop - inputs.start
        matrix[columns, inputs] = np.eye(size) if elements is None else values[elements].reshape(-1, size)
    return matrix


def _waves(networks: Sequence[TrainedNetwork]) -> PeriodicWaves:
    """Periodic embeddings of all folds."""

    def stacked(kind: str, *shape: int) -> Floats:
        parts = [network.blocks[EMBEDDING, kind] for network in networks]
        return np.stack(parts).reshape(len(parts), networks[0].architecture.n_periodic, *shape)

    mixing = stacked("mixing", PERIODIC_OUTPUTS, PERIODIC_FREQUENCIES).swapaxes(2, 3)
    return PeriodicWaves(
        frequency=stacked("frequency", 1, PERIODIC_FREQUENCIES) * np.float32(2.0 * math.pi),
        phase=stacked("phase", 1, PERIODIC_FREQUENCIES),
        mixing=np.ascontiguousarray(mixing),
        offset=stacked("offset", 1, PERIODIC_OUTPUTS),
    )
