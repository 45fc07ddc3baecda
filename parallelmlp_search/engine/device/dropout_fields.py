"""Uniform numbers for dropout from a counter, on the device, without a stateful generator.

A field depends on seed, step, layer, neuron and row alone. So a graph can capture it, an interrupted training
computes it again, and the width of the widest member does not matter. The fields of the CPU
(:func:`parallelmlp_search.engine.batches.dropout_fields`) have the same distribution and other numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF


def _mix(x: Tensor) -> Tensor:
    """Scramble 32 bits held in int64: the finalizer of ``lowbias32`` (Wellons 2018)."""
    x = x ^ (x >> 16)
    x = (x * 0x7FEB352D) & _MASK
    x = x ^ (x >> 15)
    # the constant exceeds 2^31, so the product wraps around in int64; its low bits stay right
    x = (x * 0x846CA68B) & _MASK
    return x ^ (x >> 16)


def uniform_field(seed: int, step: Tensor, layer: int, width: int, n_rows: int) -> Tensor:
    """Return uniform numbers in [0, 1).

    Parameters
    ----------
    seed, step, layer
        Seed of the batches; number of the step, int64 ``(1,)`` on the device; number of the hidden layer.
    width, n_rows
        Neurons ``H`` and rows ``N``.

    Returns
    -------
    Tensor
        Float32 ``(H, N)``.
    """
    device = step.device
    key = _mix((step & _MASK) ^ _mix(torch.full_like(step, (seed * 0x9E3779B1 + layer * 0x85EBCA77) & _MASK)))
    neuron = _mix((torch.arange(width, device=device) * 0x9E3779B1 + key) & _MASK).view(-1, 1)
    bits = _mix((torch.arange(n_rows, device=device).view(1, -1) * 0xC2B2AE3D + neuron) & _MASK)
    # 24 bits fill the mantissa of float32
    return (bits >> 8).to(torch.float32).mul_(2.0**-24)
