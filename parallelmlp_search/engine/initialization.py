"""Initial weights of a member, from its own seed alone."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parallelmlp_search.packing.layout import Architecture
from parallelmlp_search.packing.periodic import FREQUENCY_DEVIATION
from parallelmlp_search.space.config import PERIODIC_FREQUENCIES

__all__ = ["initial_vector"]

_MIXING_BOUND = 1.0 / math.sqrt(PERIODIC_FREQUENCIES)

_EMBEDDING_DRAWS: dict[str, Callable[[np.random.Generator, int], NDArray[np.float64]]] = {
    "frequency": lambda rng, size: rng.normal(0.0, FREQUENCY_DEVIATION, size),
    "phase": lambda rng, size: rng.uniform(-math.pi, math.pi, size),
    "mixing": lambda rng, size: rng.uniform(-_MIXING_BOUND, _MIXING_BOUND, size),
    "offset": lambda rng, size: rng.uniform(-_MIXING_BOUND, _MIXING_BOUND, size),
}


def initial_vector(architecture: Architecture, scheme: str, seed: int, *, repeat: int = 0) -> Tensor:
    """Canonical vector of a fresh member, float64 ``(n_parameters,)``.

    Drawn in float64 and rounded later, so that a population starts from the same numbers in any precision.

    Parameters
    ----------
    architecture
        The member's architecture.
    scheme
        ``kaiming_uniform`` is the default of :class:`torch.nn.Linear`: weights and biases uniform in
        +-1/sqrt(fan_in). ``kaiming_normal``: N(0, 2/fan_in); ``xavier_uniform`` and ``xavier_normal``:
        variance 2/(fan_in + fan_out); ``lecun_normal``: N(0, 1/fan_in). Their biases are zero. An embedding
        starts as :class:`~parallelmlp_search.packing.periodic.Periodic` does, whatever the scheme.
    seed
        The configuration's seed.
    repeat
        Distinguishes copies of one configuration, such as the folds'.
    """
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, repeat])))
    pieces: list[Tensor] = []
    for _, kind, rows, columns in architecture.block_shapes():
        if kind == "weight":
            fan_in, fan_out = columns, rows
            pieces.append(torch.from_numpy(_weights(rng, scheme, fan_in, fan_out)))
        elif kind in _EMBEDDING_DRAWS:
            pieces.append(torch.from_numpy(_EMBEDDING_DRAWS[kind](rng, rows * columns)))
        elif kind == "bias" and scheme == "kaiming_uniform":
            bound = 1.0 / math.sqrt(fan_in)
            pieces.append(torch.from_numpy(rng.uniform(-bound, bound, rows)))
        else:
            pieces.append(torch.full((rows,), 1.0 if kind == "gain" else 0.0, dtype=torch.float64))
    return torch.cat(pieces)


def _weights(
    rng: np.random.Generator, scheme: str, fan_in: int, fan_out: int
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    size = fan_in * fan_out
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
    }[scheme]
    return rng.normal(0.0, deviation, size)
