"""The modified matrix multiplication as an operator that torch knows.

``torch.ops.parallelmlp_search.modified_matmul(activations, weight, runs, backend)`` has a gradient, shapes
for fake tensors (so that ``torch.compile`` and ``torch.export`` see through it) and casts under autocast like
torch's own products. The layout travels as plain numbers, :attr:`MatmulLayout.flat_runs`, since an operator
takes no objects.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from parallelmlp_search.kernels.batched import ragged_backward, ragged_forward
from parallelmlp_search.kernels.triton.ragged_launch import triton_backward, triton_forward
from parallelmlp_search.packing.layout import MatmulLayout

__all__ = ["operator"]

NAMESPACE = "parallelmlp_search"

_FORWARD: dict[str, Callable[[Tensor, Tensor, MatmulLayout], Tensor]] = {
    "batched": ragged_forward,
    "triton": triton_forward,
}
_BACKWARD: dict[str, Callable[[Tensor, Tensor, Tensor, MatmulLayout], tuple[Tensor, Tensor]]] = {
    "batched": ragged_backward,
    "triton": triton_backward,
}


@lru_cache(maxsize=64)
def _cached_layout(runs: tuple[int, ...]) -> MatmulLayout:
    return MatmulLayout.from_runs(runs)


def _layout(runs: Sequence[int]) -> MatmulLayout:
    return _cached_layout(tuple(runs))


def _multiply(activations: Tensor, weight: Tensor, runs: Sequence[int], backend: str) -> Tensor:
    return _FORWARD[backend](activations.contiguous(), weight.contiguous(), _layout(runs))


def _gradients(
    grad: Tensor, activations: Tensor, weight: Tensor, runs: Sequence[int], backend: str
) -> tuple[Tensor, Tensor]:
    arguments = (grad.contiguous(), activations.contiguous(), weight.contiguous())
    return _BACKWARD[backend](*arguments, _layout(runs))


operator: Any = torch.library.custom_op(
    f"{NAMESPACE}::modified_matmul",
    _multiply,
    mutates_args=(),
    schema="(Tensor activations, Tensor weight, SymInt[] runs, str backend) -> Tensor",
)
"""Forward: (n_in, N), (n_weights,) -> (n_out, N)."""

_gradient_operator: Any = torch.library.custom_op(
    f"{NAMESPACE}::modified_matmul_backward",
    _gradients,
    mutates_args=(),
    schema=(
        "(Tensor grad, Tensor activations, Tensor weight, SymInt[] runs, str backend) -> (Tensor, Tensor)"
    ),
)


def _fake_multiply(activations: Tensor, weight: Tensor, runs: Sequence[int], backend: str) -> Tensor:
    n_out = sum(runs[start] * runs[start + 2] for start in range(0, len(runs), 3))
    return activations.new_empty(n_out, activations.shape[1])


def _fake_gradients(
    grad: Tensor, activations: Tensor, weight: Tensor, runs: Sequence[int], backend: str
) -> tuple[Tensor, Tensor]:
    return activations.new_empty(activations.shape), weight.new_empty(weight.shape)


def _remember(ctx: Any, inputs: tuple[Tensor, Tensor, Sequence[int], str], output: Tensor) -> None:
    activations, weight, ctx.runs, ctx.backend = inputs
    ctx.save_for_backward(activations, weight)


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
    activations, weight = ctx.saved_tensors
    grad_activations, grad_weight = _gradient_operator(grad, activations, weight, ctx.runs, ctx.backend)
    return grad_activations, grad_weight, None, None


def _autocast(device_type: str) -> Callable[..., Tensor]:
    """What the operator does under autocast: cast as torch's own products do, then multiply."""

    def cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
        return tensor if tensor.dtype == torch.float64 else tensor.to(dtype)

    def run(activations: Tensor, weight: Tensor, runs: Sequence[int], backend: str) -> Tensor:
        dtype = torch.get_autocast_dtype(device_type)
        with torch.autocast(device_type, enabled=False):
            result: Tensor = operator(cast(activations, dtype), cast(weight, dtype), runs, backend)
        return result

    return run


operator.register_fake(_fake_multiply)
_gradient_operator.register_fake(_fake_gradients)
operator.register_autograd(_differentiate, setup_context=_remember)
_library: Any = torch.library.Library(NAMESPACE, "FRAGMENT")  # type: ignore[no-untyped-call]
_library.impl("modified_matmul", _autocast("cpu"), "AutocastCPU")
_library.impl("modified_matmul", _autocast("cuda"), "AutocastCUDA")
