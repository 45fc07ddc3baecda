"""Initial weights of a member, from its own seed, and where it looks at rows, from those."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.packing.layout import Architecture
from parallelmlp_search.packing.modules import Residual
from parallelmlp_search.packing.pack import build_module, module_vector
from parallelmlp_search.packing.submembers import AdaptedLinear, SubmemberHeads
from parallelmlp_search.space import MLPConfig
from parallelmlp_search.space.config import PERIODIC_FREQUENCIES

__all__ = ["initial_vector"]

_MIXING_BOUND = 1.0 / math.sqrt(PERIODIC_FREQUENCIES)

_EMBEDDING_DRAWS: dict[str, Callable[[np.random.Generator, int], NDArray[np.float64]]] = {
    "frequency": lambda rng, size: rng.normal(0.0, 1.0, size),
    "category": lambda rng, size: rng.normal(0.0, 1.0, size),
    "phase": lambda rng, size: rng.uniform(-math.pi, math.pi, size),
    "mixing": lambda rng, size: rng.uniform(-_MIXING_BOUND, _MIXING_BOUND, size),
    "offset": lambda rng, size: rng.uniform(-_MIXING_BOUND, _MIXING_BOUND, size),
}

_STARTING_AT_ONE = ("gain", "scale", "input_adapter", "output_adapter")

LOOKED_AT = 256
"""Rows that a data-driven initialisation looks at."""

JITTER = 0.1
"""How far beside a row's value a neuron's zero lies, as a deviation in units of the values' own. At the value
itself rounding would decide on which side of its bend the row lies."""

SMALLEST_SPREAD = 1e-6
"""Neurons that vary less over the rows are not scaled up to a variance of one."""


def initial_vector(
    architecture: Architecture, config: MLPConfig, *, repeat: int = 0, rows: Tensor | None = None
) -> Tensor:
    """Canonical vector of a fresh member, float64 ``(n_parameters,)``.

    Drawn in float64 and rounded later, so that a population starts from the same numbers in any precision.

    Parameters
    ----------
    architecture
        The member's architecture.
    config
        Its configuration, whose ``initialization`` is one of

        ``kaiming_uniform``
            the default of :class:`torch.nn.Linear`: weights and biases uniform in +-1/sqrt(fan_in);
        ``kaiming_normal``
            N(0, 2/fan_in), biases zero, as in all that follow;
        ``xavier_uniform``, ``xavier_normal``
            variance 2/(fan_in + fan_out);
        ``lecun_normal``
            N(0, 1/fan_in);
        ``data_driven``
            N(0, 1/fan_in), but each hidden neuron is scaled to a variance of one over rows and its bias
            puts its zero near one of them, layer by layer (the head is not scaled).

        A head that starts at zero has no weights but zeros. Embeddings start as
        :class:`~parallelmlp_search.packing.periodic.Periodic` and :class:`torch.nn.Embedding` do, whatever
        the scheme; scales are 1, and so are adapters, but for random signs on the inputs of the first layer.
    repeat
        Distinguishes copies of one configuration, such as the folds'.
    rows
        Training rows ``(n, D)``, at which ``data_driven`` looks.

    Raises
    ------
    InvalidParameterError
        If a data-driven initialisation has no rows to look at.
    """
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([config.seed, repeat])))
    scheme = config.initialization
    pieces: list[Tensor] = []
    for layer, kind, n_out, n_in in architecture.block_shapes():
        size = n_out * n_in
        if kind == "weight":
            fan_in = n_in
            head = layer == architecture.depth
            weights = _weights(rng, scheme, n_in, architecture.n_outputs if head else n_out, size)
            if head and config.head_initialization == "zero":
                weights = np.zeros_like(weights)
            pieces.append(torch.from_numpy(weights))
        elif kind in _EMBEDDING_DRAWS:
            drawn = _EMBEDDING_DRAWS[kind](rng, size)
            pieces.append(torch.from_numpy(config.frequency_scale * drawn if kind == "frequency" else drawn))
        elif (
            kind == "bias"
            and scheme == "kaiming_uniform"
            and not _starts_at_zero(layer, architecture, config)
        ):
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
        raise InvalidParameterError("initialization 'data_driven' needs rows to look at, but got none")
    chosen = torch.from_numpy(rng.choice(rows.shape[0], min(LOOKED_AT, rows.shape[0]), replace=False))
    return _fitted(architecture, vector, rows[chosen.to(rows.device)].cpu().double(), rng)


def _starts_at_zero(layer: int, architecture: Architecture, config: MLPConfig) -> bool:
    return layer == architecture.depth and config.head_initialization == "zero"


def _weights(
    rng: np.random.Generator, scheme: str, fan_in: int, fan_out: int, size: int
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
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
    """The same with hidden neurons scaled and shifted by what they say of rows ``(n, D)`` (float64).

    Zeros at rows spread the bends of a layer over where the data are, and a variance of one in every layer
    makes learning rates mean the same whatever the table (Holzmueller et al. 2024, whose scheme differs in
    how it draws the rows). What submembers share is fitted to the rows as all of them see them; biases of
    their own to the rows as each one sees them.
    """
    network = build_module(architecture, vector)
    linears = [m for m in network.modules() if isinstance(m, nn.Linear | AdaptedLinear | SubmemberHeads)]
    seen = rows
    for part in network:
        if part is linears[-1]:
            break
        block = part if isinstance(part, Residual) else [part]
        before = seen
        for module in block:
            if isinstance(module, nn.Linear | AdaptedLinear):
                _fit_layer(module, seen, rng)
            seen = module(seen)
        if isinstance(part, Residual):
            seen = before + seen
    return module_vector(network)


def _fit_layer(layer: nn.Linear | AdaptedLinear, inputs: Tensor, rng: np.random.Generator) -> None:
    """Scale the weights of a layer and choose its biases, given its inputs ``(n, I)`` or ``(n, K, I)``."""
    if isinstance(layer, AdaptedLinear):  # whose factors of outputs are still 1
        inputs = inputs * layer.input_adapter
    outputs = inputs @ layer.weight.T
    spread = outputs.flatten(0, -2).std(dim=0, unbiased=False)
    spread = torch.where(spread > SMALLEST_SPREAD, spread, torch.ones_like(spread))
    layer.weight.div_(spread.unsqueeze(1))
    if layer.bias is None:
        return
    # (n, H), or where each submember has biases of its own (n, K, H)
    candidates = outputs / spread if layer.bias.ndim == 2 else (outputs / spread).flatten(0, -2)
    zeros = torch.from_numpy(rng.integers(0, len(candidates), tuple(layer.bias.shape)))
    beside = JITTER * torch.from_numpy(rng.normal(size=tuple(layer.bias.shape)))
    layer.bias.copy_(beside - candidates.gather(0, zeros.unsqueeze(0)).squeeze(0))
