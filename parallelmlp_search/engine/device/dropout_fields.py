"""Uniform numbers for dropout from a counter, on the device, without a generator or its state.

A field is a pure function of seed, step, layer, neuron and row: it can be captured in a graph, found again
after an interruption, and does not depend on how wide the widest member is. The CPU's own fields
(:func:`parallelmlp_search.engine.batches.dropout_fields`) come from another generator, so that a member with
dropout trains with other noise on a GPU than on a CPU, of the same distribution.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["uniform_field"]

_MASK = 0xFFFFFFFF


def _mix(x: Tensor) -> Tensor:
    """Scramble 32 bits held in int64: the finaliser of ``lowbias32`` (Wellons 2018)."""
    x = x ^ (x >> 16)
    x = (x * 0x7FEB352D) & _MASK
    x = x ^ (x >> 15)
    # the constant is above 2^31: a product of two 32-bit numbers wraps around in int64, its low bits do not
    x = (x * 0x846CA68B) & _MASK
    return x ^ (x >> 16)


def uniform_field(seed: int, step: Tensor, layer: int, width: int, n_rows: int) -> Tensor:
    """Numbers in [0, 1), float32 ``(width, N)``; ``step`` is an int64 tensor ``(1,)`` on the device."""
    device = step.device
    key = _mix((step & _MASK) ^ _mix(torch.full_like(step, (seed * 0x9E3779B1 + layer * 0x85EBCA77) & _MASK)))
    neuron = _mix((torch.arange(width, device=device) * 0x9E3779B1 + key) & _MASK).view(-1, 1)
    bits = _mix((torch.arange(n_rows, device=device).view(1, -1) * 0xC2B2AE3D + neuron) & _MASK)
    # 24 bits fill the mantissa of float32
    return (bits >> 8).to(torch.float32).mul_(2.0**-24)
