"""Initial weights of a member, from its seed and possibly from training rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from parallelmlp_search.engine.rows import Rows
from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.packing.architecture import EMBEDDING, Architecture
from parallelmlp_search.packing.modules import ACTIVATION_MODULES, embed_categories
from parallelmlp_search.packing.periodic import append_waves
from parallelmlp_search.space import MLPConfig
from parallelmlp_search.space.config import PERIODIC_FREQUENCIES, category_dimension

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
    architecture: Architecture, config: MLPConfig, *, repeat: int = 0, rows: Rows | None = None
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

    The passes are those of the modules of :func:`~parallelmlp_search.packing.pack.build_module`. They are
    not built here: modules without drawn weights need a device of torch whose first use takes 2.5 s.
    """
    fitted = vector.clone()
    shapes = list(architecture.block_shapes())
    pieces = torch.split(fitted, [n_rows * n_columns for *_, n_rows, n_columns in shapes])
    blocks = {
        (layer, kind): piece.view(n_rows, n_columns)
        for (layer, kind, n_rows, n_columns), piece in zip(shapes, pieces, strict=True)
    }
    activation = ACTIVATION_MODULES[architecture.activation]()
    values = _embedded(architecture, blocks, rows)
    for layer, width in enumerate(architecture.widths):
        given = {kind: piece for (number, kind), piece in blocks.items() if number == layer}
        inputs = values
        adapted = values * given["input_adapter"] if "input_adapter" in given else values
        weight, bias = given["weight"], given.get("bias")
        if bias is not None and "output_adapter" not in given:
            bias = bias.view(-1)
        _fit_layer(weight, bias, adapted, rng)
        if layer == architecture.depth - 1:
            break
        if "input_adapter" in given:
            values = nn.functional.linear(adapted, weight)
            values = values * given["output_adapter"] if "output_adapter" in given else values
            values = values if bias is None else values + bias
        else:
            values = nn.functional.linear(adapted, weight, bias)
        if "gain" in given:
            gain, shift = given["gain"].view(-1), given["shift"].view(-1)
            values = nn.functional.layer_norm(values, (width,), gain, shift)
        values = activation(values)
        if architecture.residual and architecture.residual[layer]:
            values = inputs + values
    return fitted


def _embedded(architecture: Architecture, blocks: Mapping[tuple[int, str], Tensor], rows: Tensor) -> Tensor:
    """Inputs ``(n, I)`` of the first layer, or ``(n, K, I)`` with submembers, of rows ``(n, D)``."""
    values = rows
    if architecture.n_periodic:
        frequency, phase, mixing, offset = (
            blocks[EMBEDDING, kind] for kind in ("frequency", "phase", "mixing", "offset")
        )
        shape = (architecture.n_periodic, -1)
        values = append_waves(
            values, frequency, phase, mixing.view(*shape, frequency.shape[1]), offset.view(shape)
        )
    if architecture.categories:
        sizes = [(size, category_dimension(size)) for _, size in architecture.categories]
        pieces = torch.split(blocks[EMBEDDING, "category"].view(-1), [math.prod(shape) for shape in sizes])
        embeddings = [piece.view(shape) for piece, shape in zip(pieces, sizes, strict=True)]
        values = embed_categories(values, architecture.categories, embeddings)
    if architecture.scaled:
        values = values * blocks[EMBEDDING, "scale"].view(-1)
    if architecture.submembers > 1:
        values = values.unsqueeze(1).expand(-1, architecture.submembers, -1)
    return values


def _fit_layer(weight: Tensor, bias: Tensor | None, inputs: Tensor, rng: np.random.Generator) -> None:
    """Scale weights ``(H, I)``, and draw biases ``(H,)`` or ``(K, H)``, for inputs ``(n, [K,] I)``."""
    outputs = inputs @ weight.T
    spread = outputs.flatten(0, -2).std(dim=0, unbiased=False)
    spread = torch.where(spread > MIN_SPREAD, spread, torch.ones_like(spread))
    weight.div_(spread.unsqueeze(1))
    if bias is None:
        return
    # (n, H), or (n, K, H) where each submember has its own biases
    candidates = outputs if bias.ndim == 2 else outputs.flatten(0, -2)
    zeros = torch.from_numpy(rng.integers(0, len(candidates), tuple(bias.shape)))
    shifts = JITTER * torch.from_numpy(rng.normal(size=tuple(bias.shape)))
    bias.copy_(shifts - candidates.gather(0, zeros.unsqueeze(0)).squeeze(0) / spread)
