"""Forward pass of plain layers in NumPy.

The reference is :func:`parallelmlp_search.packing.pack.build_module`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from parallelmlp_search.inference.activations import ACTIVATION_FUNCTIONS
from parallelmlp_search.inference.networks import PeriodicWaves, PlainLayer, PlainNetworks

Floats = NDArray[Any]

LAYER_NORM_EPSILON = 1e-5


def network_outputs(networks: PlainNetworks, rows: Floats) -> Floats:
    """Return the outputs ``(F, K, n, C)`` of networks.

    Parameters
    ----------
    networks
        Networks of one configuration.
    rows
        Encoded rows ``(F, n, D)``, or ``(1, n, D)`` if all folds encode alike.

    Returns
    -------
    array of shape (F, K, n, C)
    """
    parts = [rows[:, :, first:end] for first, end in networks.columns]
    inputs = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)
    if networks.waves is not None:
        inputs = _with_waves(networks.waves, inputs)
    values = inputs[:, None]
    for layer in networks.layers:
        values = _layer_outputs(layer, values)
    return values


def _layer_outputs(layer: PlainLayer, inputs: Floats) -> Floats:
    """Outputs ``(F, K, n, O)`` of a layer for inputs ``(F, K, n, I)``; either axis may have length 1."""
    values = inputs if layer.input_factor is None else inputs * layer.input_factor
    values = _product(values, layer.weight)
    if layer.output_factor is not None:
        values *= layer.output_factor
    if layer.bias is not None:
        values += layer.bias
    if layer.gain is not None and layer.shift is not None:
        values -= values.mean(axis=3, keepdims=True)
        variance = np.einsum("...o,...o->...", values, values)[..., None] / values.shape[3]
        values *= layer.gain / np.sqrt(variance + LAYER_NORM_EPSILON)
        values += layer.shift
    values = ACTIVATION_FUNCTIONS[layer.activation](values)
    if layer.residual:
        values += inputs if layer.projection is None else _product(inputs, layer.projection)
    return values


def _product(values: Floats, weight: Floats) -> Floats:
    """Products ``(F, K, n, O)`` of values ``(F, K, n, I)`` and weights ``(F, K, I, O)``."""
    n_folds, n_submembers, n_rows, n_inputs = values.shape
    if n_submembers > 1 and weight.shape[1] == 1:
        # submembers with common weights are further rows of one product
        joined = values.reshape(n_folds, 1, n_submembers * n_rows, n_inputs) @ weight
        return joined.reshape(-1, n_submembers, n_rows, weight.shape[3])
    product: Floats = values @ weight
    return product


def _with_waves(waves: PeriodicWaves, inputs: Floats) -> Floats:
    """Inputs ``(F, n, D)`` with the mixtures of their waves."""
    n_folds, n_numbers = waves.frequency.shape[:2]
    numbers = inputs[:, :, :n_numbers].swapaxes(1, 2)[..., None]  # (F, numbers, rows, 1)
    angles = numbers * waves.frequency
    angles += waves.phase
    np.cos(angles, out=angles)
    mixed = angles @ waves.mixing
    mixed += waves.offset
    n_rows, n_columns = inputs.shape[1:]
    joined = np.empty((n_folds, n_rows, n_columns + n_numbers * mixed.shape[3]), dtype=inputs.dtype)
    joined[:, :, :n_columns] = inputs
    joined[:, :, n_columns:] = mixed.transpose(0, 2, 1, 3).reshape(n_folds, n_rows, -1)
    return joined
