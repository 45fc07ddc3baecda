"""Precision of products on a CUDA device: the setting of torch, and where it applies."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from parallelmlp_search.kernels.precision import product_precision
from parallelmlp_search.kernels.triton.availability import tile_precision


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("outside", ["highest", "high"])
@pytest.mark.parametrize("precision", ["ieee", "tf32"])
def test_a_cuda_device_uses_the_precision_inside_the_context(outside: str, precision: str) -> None:
    torch.set_float32_matmul_precision(outside)
    with product_precision(precision, torch.device("cuda", 1)):
        assert tile_precision(torch.float32) == precision
        assert tile_precision(torch.float64) == "ieee"
    assert torch.get_float32_matmul_precision() == outside


def test_the_cpu_keeps_the_setting_of_torch() -> None:
    torch.set_float32_matmul_precision("high")
    with product_precision("ieee", torch.device("cpu")):
        assert torch.get_float32_matmul_precision() == "high"
