"""Initial weights of members, from their seeds and possibly from training rows."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parallelmlp_search.engine.data_driven import Placement, fit, fitted_elements
from parallelmlp_search.engine.rows import Rows
from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.packing.architecture import Architecture
from parallelmlp_search.packing.monotone import constrain
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

HOST_ELEMENTS, DEVICE_ELEMENTS = 1 << 18, 1 << 26
"""Elements of a tensor of members that are fitted together: 2 MiB on a core, 512 MiB on a device."""

DRAWN_ELEMENTS = 1 << 21
"""Weights that are drawn together: 16 MiB."""


def initial_vector(
    architecture: Architecture, config: MLPConfig, *, repeat: int = 0, rows: Rows | None = None
) -> Tensor:
    """Draw the initial parameters of a member.

    The schemes are ``kaiming_uniform`` (default of :class:`torch.nn.Linear`: weights and biases uniform in
    +-1/sqrt(fan_in)) and, with biases of zero, ``kaiming_normal`` (variance 2/fan_in), ``xavier_uniform`` and
    ``xavier_normal`` (2/(fan_in + fan_out)), ``lecun_normal`` (1/fan_in) and ``data_driven``: as
    ``lecun_normal``, then layer by layer hidden neurons are scaled to a variance of one over rows, and their
    biases place their zeros near rows.

    The weights of monotone networks are moved to their allowed sides, see
    :func:`~parallelmlp_search.packing.monotone.constrain`. Embeddings start as
    :class:`~parallelmlp_search.packing.periodic.Periodic` and :class:`torch.nn.Embedding` for any
    scheme. Scales and adapters are 1, but the input adapters of the first
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
    return initial_vectors([architecture], [config], repeat=repeat, rows=rows)[0]


def initial_vectors(
    architectures: Sequence[Architecture],
    configs: Sequence[MLPConfig],
    *,
    repeat: int = 0,
    rows: Rows | None = None,
) -> Tensor:
    """Draw the initial parameters of members of one :func:`group`, as :func:`initial_vector` does.

    Parameters
    ----------
    architectures, configs
        Architectures and configurations of the members.
    repeat, rows
        As of :func:`initial_vector`. Data-driven weights are fitted on the device of the rows.

    Returns
    -------
    Tensor
        Canonical vectors ``(P, n_parameters)``, float64, on the CPU.

    Raises
    ------
    InvalidParameterError
        If a data-driven initialization has no rows.
    """
    fitted = configs[0].initialization == "data_driven"
    if fitted and rows is None:
        raise InvalidParameterError("initialization 'data_driven' needs rows, but got none")
    vectors = torch.empty(len(configs), architectures[0].n_parameters, dtype=torch.float64)
    n_rows = rows.shape[0] if fitted and rows is not None else None
    on_host = rows is None or rows.device.type == "cpu"
    # the cores have nothing else to do while a device trains
    n_threads = 1 if on_host else os.cpu_count() or 1
    placements = _draw_all(vectors, architectures, configs, repeat=repeat, n_rows=n_rows, n_threads=n_threads)
    if fitted and rows is not None:
        chosen = torch.from_numpy(np.stack([one.rows for one in placements]))
        given = rows[chosen.view(-1).to(rows.device)].double().view(*chosen.shape, -1)
        moved = vectors.to(rows.device)
        activations = [one.activation for one in architectures]
        fit(architectures[0], activations, moved, given, placements)
        vectors = moved.cpu()
    return vectors


def group(architecture: Architecture, config: MLPConfig) -> tuple[Architecture, bool]:
    """Return what members have in common whose weights are drawn together."""
    shape = replace(architecture, activation="", dropout=False, clip=False, optimizer="", classifies=False)
    return shape, config.initialization == "data_driven"


def together(architecture: Architecture, config: MLPConfig, device: torch.device) -> int:
    """Return the most members of a group to draw at once.

    Parameters
    ----------
    architecture, config
        Architecture and configuration of one of them.
    device
        Device of the rows.

    Returns
    -------
    int
    """
    most = DRAWN_ELEMENTS // max(1, architecture.n_parameters)
    if config.initialization == "data_driven":
        room = HOST_ELEMENTS if device.type == "cpu" else DEVICE_ELEMENTS
        most = min(most, room // fitted_elements(architecture))
    return max(1, most)


def _draw_all(
    vectors: Tensor,
    architectures: Sequence[Architecture],
    configs: Sequence[MLPConfig],
    *,
    repeat: int,
    n_rows: int | None,
    n_threads: int,
) -> list[Placement]:
    """Fill canonical vectors; NumPy draws without the interpreter's lock."""
    draw = partial(_draw, repeat=repeat, n_rows=n_rows)
    each = list(vectors.numpy()), architectures, configs
    if n_threads == 1:
        found = list(map(draw, *each))
    else:
        with ThreadPoolExecutor(n_threads) as pool:
            found = list(pool.map(draw, *each))
    return [placement for placement in found if placement is not None]


def _draw(
    vector: NDArray[np.float64],
    architecture: Architecture,
    config: MLPConfig,
    *,
    repeat: int,
    n_rows: int | None,
) -> Placement | None:
    """Fill a canonical vector, and draw the numbers of a data-driven fit if there are rows."""
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([config.seed, repeat])))
    scheme, start = config.initialization, 0
    for layer, kind, n_out, n_in in architecture.block_shapes():
        size = n_out * n_in
        piece = vector[start : start + size]
        start += size
        is_head = layer == architecture.depth
        starts_at_zero = is_head and config.head_initialization == "zero"
        if kind == "weight":
            fan_in = n_in
            weights = _weights(rng, scheme, n_in, architecture.n_outputs if is_head else n_out, size)
            piece[:] = 0.0 if starts_at_zero else weights
        elif kind in _EMBEDDING_DRAWS:
            piece[:] = _EMBEDDING_DRAWS[kind](rng, size)
            if kind == "frequency":
                piece *= config.frequency_scale
        elif kind == "bias" and scheme == "kaiming_uniform" and not starts_at_zero:
            bound = 1.0 / math.sqrt(fan_in)
            piece[:] = rng.uniform(-bound, bound, size)
        elif kind == "input_adapter" and layer == 0:
            piece[:] = rng.choice([-1.0, 1.0], size)
        else:
            piece[:] = 1.0 if kind in _STARTING_AT_ONE else 0.0
    if architecture.signs:
        constrain(vector, architecture)
    return None if n_rows is None else Placement.draw(architecture, n_rows, rng)


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
