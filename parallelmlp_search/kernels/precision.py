"""Precision of products of float32 matrices on a CUDA device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

PRECISIONS = ("ieee", "tf32")
"""``ieee``: float32. ``tf32``: factors are rounded to ten bits of mantissa, and sums are float32."""


@contextmanager
def product_precision(precision: str, device: torch.device) -> Iterator[None]:
    """Use a precision inside the context, whatever torch is set to; on a CPU there is only one.

    Parameters
    ----------
    precision
        One of :data:`PRECISIONS`.
    device
        Device of the matrices.
    """
    if device.type != "cuda":
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
