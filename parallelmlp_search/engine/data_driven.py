"""Data-driven initial weights: hidden neurons are scaled and shifted to their outputs on training rows.

Zeros near rows spread the bends of a layer over the data. A variance of one in every layer makes learning
rates comparable between tables (Holzmueller et al. 2024, who draw the rows differently). Parameters that
submembers share are fitted to the rows of all submembers, their own biases to their own rows.

Members of equal shape are computed together. The passes are those of the modules of
:func:`~parallelmlp_search.packing.pack.build_module`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from parallelmlp_search.packing.architecture import EMBEDDING, Architecture
from parallelmlp_search.packing.modules import ACTIVATION_MODULES, embed_categories
from parallelmlp_search.packing.periodic import append_waves
from parallelmlp_search.space.config import category_dimension

N_FITTED_ROWS = 256
"""Training rows used by a data-driven initialization."""

JITTER = 0.1
"""Standard deviation of the distance between a neuron's zero and a row, relative to that of its values. With
a zero exactly at a row, rounding would decide on which side of the bend the row lies."""

MIN_SPREAD = 1e-6
"""Standard deviation over the rows below which a neuron is not scaled to a variance of one."""

Blocks = Mapping[tuple[int, str], Tensor]


class Placement(NamedTuple):
    """Random numbers of one member.

    Attributes
    ----------
    rows
        Numbers of the training rows ``(n,)``.
    zeros, shifts
        For each hidden layer, the rows at which neurons have their zeros, and distances from them: ``(H,)``,
        or ``(K, H)`` where submembers have their own biases. Empty without biases.
    """

    rows: NDArray[np.int64]
    zeros: list[NDArray[np.int64]]
    shifts: list[NDArray[np.float64]]

    @classmethod
    def draw(cls, architecture: Architecture, n_rows: int, rng: np.random.Generator) -> Placement:
        """Draw the numbers for one of ``n_rows`` training rows.

        Parameters
        ----------
        architecture
            Architecture of the member.
        n_rows
            Number of training rows.
        rng
            Generator of the member.

        Returns
        -------
        Placement
        """
        rows = rng.choice(n_rows, min(N_FITTED_ROWS, n_rows), replace=False)
        placement = cls(rows, [], [])
        for layer, width in enumerate(architecture.widths if architecture.bias else ()):
            own = architecture.has_adapter(layer, output=True)
            shape = (architecture.submembers, width) if own else (width,)
            n_candidates = len(rows) * (1 if own else architecture.submembers)
            placement.zeros.append(rng.integers(0, n_candidates, shape))
            placement.shifts.append(rng.normal(size=shape))
        return placement


def fitted_elements(architecture: Architecture) -> int:
    """Return the elements of the largest tensor that the fit of one member needs."""
    widest = max(
        architecture.expanded.n_inputs + architecture.n_waves, architecture.fan_in, *architecture.widths, 1
    )
    return N_FITTED_ROWS * architecture.submembers * widest


@torch.no_grad()
def fit(
    architecture: Architecture,
    activations: Sequence[str],
    vectors: Tensor,
    rows: Tensor,
    placements: Sequence[Placement],
) -> None:
    """Fit members of one shape to rows, in place.

    Parameters
    ----------
    architecture
        Architecture of all members, but for their activations.
    activations
        Activation of each of the ``P`` members.
    vectors
        Canonical vectors ``(P, n_parameters)``, float64.
    rows
        Rows ``(P, n, D)`` of each member, float64.
    placements
        Random numbers of each member.
    """
    blocks = _blocks(architecture, vectors)
    runs = _runs(activations)
    n_submembers = architecture.submembers
    values = _embedded(architecture, blocks, rows)
    for layer, width in enumerate(architecture.widths):
        weight, inputs = blocks[layer, "weight"], values
        if (layer, "input_adapter") in blocks and layer == 0:
            # random signs; all other adapters start at 1
            values = values * blocks[layer, "input_adapter"].unsqueeze(1)
        outputs = torch.bmm(values.flatten(1, -2), weight.transpose(1, 2))
        # a third of the time of torch.std along this dimension
        spread = (outputs - outputs.mean(dim=1, keepdim=True)).square_().mean(dim=1).sqrt_()
        spread = torch.where(spread > MIN_SPREAD, spread, 1.0)
        weight.div_(spread.unsqueeze(2))
        outputs.div_(spread.unsqueeze(1))
        if n_submembers > 1:
            outputs = outputs.view(len(outputs), -1, n_submembers, width)
        if architecture.bias:
            zeros, shifts = (
                torch.from_numpy(np.stack([numbers[layer] for numbers in drawn])).to(vectors.device)
                for drawn in zip(*((one.zeros, one.shifts) for one in placements), strict=True)
            )
            candidates = outputs if zeros.ndim == 3 else outputs.flatten(1, -2)
            bias = JITTER * shifts - candidates.gather(1, zeros.unsqueeze(1)).squeeze(1)
            blocks[layer, "bias"].copy_(bias.view_as(blocks[layer, "bias"]))
            outputs += (
                bias.unsqueeze(1) if bias.ndim + 1 == outputs.ndim else bias.view(len(bias), 1, 1, width)
            )
        if layer == architecture.depth - 1:
            break
        if architecture.normalization == "layer":
            outputs = nn.functional.layer_norm(outputs, (width,))
        for name, start, stop in runs:
            outputs[start:stop] = ACTIVATION_MODULES[name]()(outputs[start:stop])
        values = inputs + outputs if architecture.residual and architecture.residual[layer] else outputs


def _blocks(architecture: Architecture, vectors: Tensor) -> Blocks:
    """Views ``(P, rows, columns)`` of the parameters, by layer and kind."""
    blocks, start = {}, 0
    for layer, kind, n_rows, n_columns in architecture.block_shapes():
        stop = start + n_rows * n_columns
        blocks[layer, kind] = vectors[:, start:stop].view(-1, n_rows, n_columns)
        start = stop
    return blocks


def _runs(activations: Sequence[str]) -> list[tuple[str, int, int]]:
    """Activation, first and end of each run of members with the same activation."""
    runs, start = [], 0
    for name, run in groupby(activations):
        stop = start + len(list(run))
        runs.append((name, start, stop))
        start = stop
    return runs


def _embedded(architecture: Architecture, blocks: Blocks, rows: Tensor) -> Tensor:
    """Inputs ``(P, n, I)`` of the first layer, or ``(P, n, K, I)`` with submembers, of rows ``(P, n, D)``."""
    values = rows
    if architecture.n_periodic:
        frequency, phase, mixing, offset = (
            blocks[EMBEDDING, kind] for kind in ("frequency", "phase", "mixing", "offset")
        )
        shape = (len(rows), architecture.n_periodic, -1)
        values = append_waves(
            values, frequency, phase, mixing.view(*shape, frequency.shape[2]), offset.view(shape)
        )
    if architecture.categories:
        sizes = [(size, category_dimension(size)) for _, size in architecture.categories]
        pieces = torch.split(blocks[EMBEDDING, "category"], [math.prod(shape) for shape in sizes], dim=1)
        embeddings = [piece.view(-1, *shape) for piece, shape in zip(pieces, sizes, strict=True)]
        values = embed_categories(values, architecture.categories, embeddings)
    # input scales start at 1
    if architecture.submembers > 1:
        values = values.unsqueeze(2).expand(-1, -1, architecture.submembers, -1)
    return values
