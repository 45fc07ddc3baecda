"""Reference implementations: the paper's multiply and scatter-add, and a plain loop over members.

Both are slow, simple and differentiable by autograd. Every faster path is compared with them.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parallelmlp_search.packing.layout import MatmulLayout


@lru_cache(maxsize=64)
def _indices(layout: MatmulLayout) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Stacked input and stacked output of each weight.

    Arrays, since a cached tensor that was created during tracing would stay a fake tensor.
    """
    inputs, outputs = [], []
    in_offset = out_offset = 0
    for n_in, n_out in zip(layout.in_widths, layout.out_widths, strict=True):
        inputs.append(np.tile(np.arange(in_offset, in_offset + n_in), n_out))
        outputs.append(np.repeat(np.arange(out_offset, out_offset + n_out), n_in))
        in_offset += n_in
        out_offset += n_out
    return np.concatenate(inputs), np.concatenate(outputs)


def scatter_matmul(activations: Tensor, weight: Tensor, layout: MatmulLayout) -> Tensor:
    """Modified matrix multiplication by broadcasting and scatter-add (Farias et al. 2022, section 3).

    ``Y[o, n] = sum over weights w that feed o of weight[w] * activations[source(w), n]``.

    Parameters
    ----------
    activations : Tensor of shape (layout.n_in, N)
    weight : Tensor of shape (layout.n_weights,)
    layout : MatmulLayout

    Returns
    -------
    Tensor of shape (layout.n_out, N)
    """
    sources, targets = (torch.as_tensor(index, device=activations.device) for index in _indices(layout))
    products = weight.unsqueeze(1) * activations[sources]
    result = activations.new_zeros(layout.n_out, activations.shape[1])
    return result.index_add(0, targets, products)


def loop_matmul(activations: Tensor, weight: Tensor, layout: MatmulLayout) -> Tensor:
    """Modified matrix multiplication by one product per member.

    Parameters
    ----------
    activations : Tensor of shape (layout.n_in, N)
    weight : Tensor of shape (layout.n_weights,)
    layout : MatmulLayout

    Returns
    -------
    Tensor of shape (layout.n_out, N)
    """
    results = []
    in_offset = weight_offset = 0
    for n_in, n_out in zip(layout.in_widths, layout.out_widths, strict=True):
        matrix = weight[weight_offset : weight_offset + n_in * n_out].view(n_out, n_in)
        results.append(matrix @ activations[in_offset : in_offset + n_in])
        in_offset += n_in
        weight_offset += n_in * n_out
    return torch.cat(results)
