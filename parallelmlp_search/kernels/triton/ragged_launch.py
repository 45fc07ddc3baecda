"""Launches of the ragged kernels for the layout of a modified matrix multiplication."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parallelmlp_search.kernels.triton.availability import (
    current,
    is_interpreted,
    kernel_module,
    tile_precision,
)
from parallelmlp_search.packing.layout import MatmulLayout

BLOCK = 32
"""Rows of a tile. Members are small, and each wastes half a tile on average."""

DEEP = 32
"""Length of a block of the shared dimension."""

MAX_COLUMNS = 64
"""Columns of a tile of a product."""

_PURPOSE = "for backend 'triton'"


def _members(layout: MatmulLayout) -> tuple[NDArray[np.int64], ...]:
    """Inputs, outputs, and starts of the inputs, outputs and weights of each member."""
    n_in = np.asarray(layout.in_widths, dtype=np.int64)
    n_out = np.asarray(layout.out_widths, dtype=np.int64)

    def starts(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.cumsum(sizes) - sizes

    return n_in, n_out, starts(n_in), starts(n_out), starts(n_in * n_out)


def _repeated(counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Member of each tile, and number of the tile within the member."""
    owner = np.repeat(np.arange(len(counts)), counts)
    return owner, np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)


@lru_cache(maxsize=32)
def product_table(layout: MatmulLayout, transposed: bool, device: torch.device) -> Tensor:
    """Return the tiles of a product, int64 ``(programs, 6)``, for :func:`.ragged.product_tiles`."""
    n_in, n_out, in_start, out_start, weight_start = _members(layout)
    if transposed:
        n_in, n_out, in_start, out_start = n_out, n_in, out_start, in_start
    owner, number = _repeated(-(-n_out // BLOCK))
    columns = [weight_start[owner], out_start[owner], in_start[owner], n_out[owner], n_in[owner]]
    return torch.from_numpy(np.stack([*columns, number * BLOCK], axis=1)).to(device)


@lru_cache(maxsize=32)
def outer_table(layout: MatmulLayout, device: torch.device) -> Tensor:
    """Return the tiles of the matrices, int64 ``(programs, 7)``, for :func:`.ragged.outer_tiles`."""
    n_in, n_out, in_start, out_start, weight_start = _members(layout)
    across = -(-n_in // BLOCK)
    owner, number = _repeated(-(-n_out // BLOCK) * across)
    row, column = np.divmod(number, across[owner])
    columns = [weight_start[owner], out_start[owner], in_start[owner], n_out[owner], n_in[owner]]
    return torch.from_numpy(np.stack([*columns, row * BLOCK, column * BLOCK], axis=1)).to(device)


def _settings(dtype: torch.dtype) -> dict[str, Any]:
    import triton.language as tl

    accumulate = tl.float64 if dtype == torch.float64 else tl.float32
    return {
        "ACCUMULATE": accumulate,
        "PRECISION": tile_precision(dtype),
        "UPCAST": dtype == torch.bfloat16 and is_interpreted(),
        "num_warps": 4,
        "enable_fp_fusion": True,
    }


def _product(matrix: Tensor, right: Tensor, layout: MatmulLayout, transposed: bool) -> Tensor:
    kernels = kernel_module("ragged", right.device, purpose=_PURPOSE)
    n_columns = right.shape[1]
    result = right.new_empty(layout.n_in if transposed else layout.n_out, n_columns)
    tiles = product_table(layout, transposed, right.device)
    columns = min(MAX_COLUMNS, max(16, 1 << (n_columns - 1).bit_length()))
    if not result.numel():
        return result
    with current(right.device):
        kernels.product_tiles[(tiles.shape[0], -(-n_columns // columns))](
            matrix,
            right,
            result,
            tiles,
            n_columns,
            TRANSPOSED=transposed,
            BLOCK=BLOCK,
            COLUMNS=columns,
            DEEP=DEEP,
            **_settings(right.dtype),
        )
    return result


def triton_forward(activations: Tensor, weight: Tensor, layout: MatmulLayout) -> Tensor:
    """Multiply contiguous tensors of the shapes of `reference.scatter_matmul`."""
    return _product(weight, activations, layout, transposed=False)


def triton_backward(
    grad: Tensor, activations: Tensor, weight: Tensor, layout: MatmulLayout
) -> tuple[Tensor, Tensor]:
    """Return the gradients of :func:`triton_forward` by activations and weights."""
    kernels = kernel_module("ragged", grad.device, purpose=_PURPOSE)
    grad_activations = _product(weight, grad, layout, transposed=True)
    grad_weight = torch.empty_like(weight)
    tiles = outer_table(layout, grad.device)
    with current(grad.device):
        kernels.outer_tiles[(tiles.shape[0],)](
            grad,
            activations,
            grad_weight,
            tiles,
            grad.shape[1],
            BLOCK=BLOCK,
            DEEP=DEEP,
            **_settings(grad.dtype),
        )
    return grad_activations, grad_weight
