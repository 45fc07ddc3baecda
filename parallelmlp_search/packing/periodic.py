"""Periodic embedding as a plain module: the reference for :mod:`parallelmlp_search.engine.embedding`."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from parallelmlp_search.space.config import PERIODIC_FREQUENCIES, PERIODIC_OUTPUTS


def append_waves(x: Tensor, frequency: Tensor, phase: Tensor, mixing: Tensor, offset: Tensor) -> Tensor:
    """Append the embeddings of the first columns to rows.

    Parameters
    ----------
    x
        Rows ``(N, D)``; with leading dimensions for several networks, which the parameters have too.
    frequency, phase, mixing, offset
        Parameters as of :class:`Periodic`.

    Returns
    -------
    Tensor
        ``(N, D + 3 n_numbers)``.
    """
    numbers = x[..., : frequency.shape[-2]].unsqueeze(-1)
    waves = torch.cos(2.0 * math.pi * frequency.unsqueeze(-3) * numbers + phase.unsqueeze(-3))
    mixed = torch.einsum("...ndk,...dok->...ndo", waves, mixing) + offset.unsqueeze(-3)
    return torch.cat([x, mixed.flatten(-2)], dim=-1)


class Periodic(nn.Module):
    """Inputs, followed by three learned mixtures of sixteen waves of each of the first ``n_numbers`` columns.

    Number ``x`` gives ``W2 cos(2 pi w1 x + b1) + b2``: PBLD of Holzmueller et al. 2024 ("Better by Default"),
    after the periodic embeddings of Gorishniy et al. 2022. The number itself stays among the inputs.

    Parameters
    ----------
    n_inputs
        Columns ``D``.
    n_numbers
        Number of embedded columns, which come first.

    Attributes
    ----------
    frequency, phase
        ``w1`` and ``b1``, ``(n_numbers, 16)``.
    mixing, offset
        ``W2`` ``(n_numbers, 3, 16)`` and ``b2`` ``(n_numbers, 3)``.
    """

    def __init__(self, n_inputs: int, n_numbers: int) -> None:
        super().__init__()
        self.n_inputs, self.n_numbers = n_inputs, n_numbers
        bound = 1.0 / math.sqrt(PERIODIC_FREQUENCIES)
        waves = (n_numbers, PERIODIC_FREQUENCIES)
        # frequencies in waves per unit of the scaled number; 0.1 is the default of MLPConfig.frequency_scale
        self.frequency = nn.Parameter(0.1 * torch.randn(waves))
        self.phase = nn.Parameter(torch.empty(waves).uniform_(-math.pi, math.pi))
        mixing = torch.empty(n_numbers, PERIODIC_OUTPUTS, PERIODIC_FREQUENCIES)
        self.mixing = nn.Parameter(mixing.uniform_(-bound, bound))
        self.offset = nn.Parameter(torch.empty(n_numbers, PERIODIC_OUTPUTS).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """Map rows ``(N, D)`` to ``(N, D + 3 n_numbers)``."""
        return append_waves(x, self.frequency, self.phase, self.mixing, self.offset)

    def extra_repr(self) -> str:
        """Return the settings for ``repr``."""
        return f"n_inputs={self.n_inputs}, n_numbers={self.n_numbers}"
