"""Initial weights of a member, from its seed and possibly from training rows."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.packing.architecture import Architecture
from parallelmlp_search.packing.modules import Residual
from parallelmlp_search.packing.pack import build_module, module_vector
from parallelmlp_search.packing.submembers import AdaptedLinear, SubmemberHeads
from parallelmlp_search.space import MLPConfig
from parallelmlp_search.space.config import PERIODIC_FREQUENCIES

_MIXING_BOUND = 1.0 / math.sqrt(PERIODIC_FREQUENCIES)

_EMBEDDING_DRAWS: dict[str, Callable[[np.random.Generator, int], NDArray[np.float64]]] = {
    "frequency": lambda rng, size: rng.normal(0.0, 1.0, size),
    "category": lambda rng, size: rng.normal(0.0, 1.0, size),
    "phase": lambda rng, size: rng.uniform(-math.pi, math.pi, size),
    "mixing": lambda rng, size: rng.uniform(-_MIXING_BOUND, _MIXING_BOUND, size),
    "offset": lambda rng, size: rng.uniform(-_MIXING_BOUND, _MIXING_BOUND, size),
}

_STARTING_AT_ONE = ("gain", "scale", "input_adapter", "output_adapter")

N_FITTED_ROWS = 256
"""Training rows used by a data-driven initialization."""

JITTER = 0.1
"""Standard deviation of the distance between a neuron's zero and a row, relative to that of its values. With
a zero exactly at a row, rounding would decide on which side of the bend the row lies."""

MIN_SPREAD = 1e-6
"""Standard deviation over the rows below which a neuron is not scaled to a variance of one."""


def initial_vector(
    architecture: Architecture, config: MLPConfig, *, repeat: int = 0, rows: Tensor | None = None
) -> Tensor:
    """Draw the initial parameters of a member.

    The schemes are ``kaiming_uniform`` (default of :class:`torch.nn.Linear`: weights and biases uniform in
    +-1/sqrt(fan_in)) and, with biases of zero, ``kaiming_normal`` (variance 2/fan_in), ``xavier_uniform`` and
    ``xavier_normal`` (2/(fan_in + fan_out)), ``lecun_normal`` (1/fan_in) and ``data_driven``: as
    ``lecun_normal``, then layer by layer hidden neurons are scaled to a variance of one over rows, and their
    biases place their zeros near rows.

    Embeddings start as :class:`~parallelmlp_search.packing.periodic.Periodic` and
    :class:`torch.nn.Embedding` for any scheme. Scales and adapters are 1, but the input adapters of the first
    layer are random signs.

    Parameters
    ----------
    architecture, config
        Architecture and configuration of the member.
    repeat
        Number of the initialization of a configuration, such as its fold.
    rows
        Training rows ``(n, D)`` for ``data_driven``.

    Returns
    -------
    Tensor
        Canonical vector ``(n_parameters,)``, float64, so that any precision starts from the same numbers.

    Raises
    ------
    InvalidParameterError
        If a data-driven initialization has no rows.
    """
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([config.seed, repeat])))
    scheme = config.initialization
    pieces: list[Tensor] = []
    for layer, kind, n_out, n_in in architecture.block_shapes():
        size = n_out * n_in
        is_head = layer == architecture.depth
        starts_at_zero = is_head and config.head_initialization == "zero"
        if kind == "weight":
            fan_in = n_in
            weights = _weights(rng, scheme, n_in, architecture.n_outputs if is_head else n_out, size)
            pieces.append(torch.from_numpy(np.zeros_like(weights) if starts_at_zero else weights))
        elif kind in _EMBEDDING_DRAWS:
            drawn = _EMBEDDING_DRAWS[kind](rng, size)
            pieces.append(torch.from_numpy(config.frequency_scale * drawn if kind == "frequency" else drawn))
        elif kind == "bias" and scheme == "kaiming_uniform" and not starts_at_zero:
            bound = 1.0 / math.sqrt(fan_in)
            pieces.append(torch.from_numpy(rng.uniform(-bound, bound, size)))
        elif kind == "input_adapter" and layer == 0:
            pieces.append(torch.from_numpy(rng.choice([-1.0, 1.0], size)))
        else:
            start = 1.0 if kind in _STARTING_AT_ONE else 0.0
            pieces.append(torch.full((size,), start, dtype=torch.float64))
    vector = torch.cat(pieces)
    if scheme != "data_driven":
        return vector
    if rows is None:
        raise InvalidParameterError("initialization 'data_driven' needs rows, but got none")
    chosen = torch.from_numpy(rng.choice(rows.shape[0], min(N_FITTED_ROWS, rows.shape[0]), replace=False))
    return _fitted(architecture, vector, rows[chosen.to(rows.device)].cpu().double(), rng)


def _weights(
    rng: np.random.Generator, scheme: str, fan_in: int, fan_out: int, size: int
) -> NDArray[np.float64]:
    if scheme == "kaiming_uniform":
        bound = 1.0 / math.sqrt(fan_in)
        return rng.uniform(-bound, bound, size)
    if scheme == "xavier_uniform":
        bound = math.sqrt(6.0 / (fan_in + fan_out))
        return rng.uniform(-bound, bound, size)
    deviation = {
        "kaiming_normal": math.sqrt(2.0 / fan_in),
        "xavier_normal": math.sqrt(2.0 / (fan_in + fan_out)),
        "lecun_normal": math.sqrt(1.0 / fan_in),
        "data_driven": math.sqrt(1.0 / fan_in),
    }[scheme]
    return rng.normal(0.0, deviation, size)


@torch.no_grad()
def _fitted(architecture: Architecture, vector: Tensor, rows: Tensor, rng: np.random.Generator) -> Tensor:
    """Scale and shift the hidden neurons of a network to its outputs on rows ``(n, D)`` (float64).

    Zeros near rows spread the bends of a layer over the data. A variance of one in every layer makes learning
    rates comparable between tables (Holzmueller et al. 2024, who draw the rows differently). Parameters that
    submembers share are fitted to the rows of all submembers, their own biases to their own rows.
    """
    network = build_module(architecture, vector)
    linears = [m for m in network.modules() if isinstance(m, nn.Linear | AdaptedLinear | SubmemberHeads)]
    values = rows
    for part in network:
        if part is linears[-1]:
            break
        block = part if isinstance(part, Residual) else [part]
        inputs = values
        for module in block:
            if isinstance(module, nn.Linear | AdaptedLinear):
                _fit_layer(module, values, rng)
            values = module(values)
        if isinstance(part, Residual):
            values = inputs + values
    return module_vector(network)


def _fit_layer(layer: nn.Linear | AdaptedLinear, inputs: Tensor, rng: np.random.Generator) -> None:
    """Scale the weights of a layer and draw its biases, for inputs ``(n, I)`` or ``(n, K, I)``."""
    if isinstance(layer, AdaptedLinear):  # its output adapter is still 1
        inputs = inputs * layer.input_adapter
    outputs = inputs @ layer.weight.T
    spread = outputs.flatten(0, -2).std(dim=0, unbiased=False)
    spread = torch.where(spread > MIN_SPREAD, spread, torch.ones_like(spread))
    layer.weight.div_(spread.unsqueeze(1))
    if layer.bias is None:
        return
    # (n, H), or (n, K, H) where each submember has its own biases
    candidates = outputs / spread if layer.bias.ndim == 2 else (outputs / spread).flatten(0, -2)
    zeros = torch.from_numpy(rng.integers(0, len(candidates), tuple(layer.bias.shape)))
    shifts = JITTER * torch.from_numpy(rng.normal(size=tuple(layer.bias.shape)))
    layer.bias.copy_(shifts - candidates.gather(0, zeros.unsqueeze(0)).squeeze(0))
