"""Products of unusual shapes against the general products."""

from __future__ import annotations

import pytest
import torch

from parallelmlp_search.engine.products import (
    NARROW_INPUTS,
    FirstLayerGradient,
    head_input_gradient,
    padded_columns,
)
from parallelmlp_search.kernels.batched import affine_input_gradient


@pytest.mark.parametrize("n_inputs", [1, 10, 15, 16, 31])  # 15 leaves one column for the biases
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("n_members", "width"), [(1, 1), (3, 7)])
def test_first_layer_gradient(n_inputs: int, bias: bool, n_members: int, width: int) -> None:
    generator = torch.Generator().manual_seed(n_inputs)
    assert padded_columns(n_inputs) > n_inputs
    shape = (n_members * width, padded_columns(n_inputs))
    narrow = FirstLayerGradient(n_inputs, 6, torch.full(shape, float("nan"), dtype=torch.float64))
    for _ in range(2):  # the second batch must not depend on the first
        grad = torch.randn(n_members, width, 6, dtype=torch.float64, generator=generator)
        rows = torch.randn(6, n_inputs, dtype=torch.float64, generator=generator)
        results = []
        for function in (narrow, FirstLayerGradient(n_inputs, 6, None)):
            weight = torch.full((n_members, width, n_inputs), float("nan"), dtype=torch.float64)
            shift = torch.full((n_members, width, 1), float("nan"), dtype=torch.float64) if bias else None
            function(grad, rows, weight, shift)
            results.append((weight, shift))
        torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-13, atol=1e-13)
        if bias:
            torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-13, atol=1e-13)
            assert not torch.allclose(results[0][0][:, :, :1], results[0][1])


def test_wide_tables_use_the_general_product() -> None:
    assert padded_columns(NARROW_INPUTS) == 0
    assert padded_columns(NARROW_INPUTS - 1) == NARROW_INPUTS


@pytest.mark.parametrize("n_outputs", [1, 3])
def test_head_input_gradient(n_outputs: int) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(4, n_outputs, 5, dtype=torch.float64, generator=generator)
    grad = torch.randn(4, n_outputs, 6, dtype=torch.float64, generator=generator)
    got, expected = (torch.full((4, 5, 6), float("nan"), dtype=torch.float64) for _ in range(2))
    head_input_gradient(weight, grad, got)
    affine_input_gradient(weight, grad, expected)
    torch.testing.assert_close(got, expected, rtol=1e-13, atol=1e-13)
    head_input_gradient(weight, 2.0 * grad, got)
    assert not torch.allclose(got, expected)
