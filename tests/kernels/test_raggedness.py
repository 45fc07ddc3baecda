"""Random ragged layouts, in a separate file since a GPU machine may lack hypothesis."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parallelmlp_search.kernels.matmul import modified_matmul
from parallelmlp_search.kernels.reference import loop_matmul
from parallelmlp_search.packing import MatmulLayout


@st.composite
def layouts(draw: st.DrawFn) -> MatmulLayout:
    widths = draw(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=9))
    return MatmulLayout(tuple(i for i, _ in widths), tuple(o for _, o in widths))


@pytest.mark.parametrize("backend", ["batched", "triton", "reference"])
@settings(max_examples=40)
@given(layout=layouts(), n_rows=st.integers(1, 5))
def test_random_layouts(backend: str, device: str, layout: MatmulLayout, n_rows: int) -> None:
    generator = torch.Generator().manual_seed(layout.n_weights)
    leaves = [
        torch.randn(*shape, dtype=torch.float64, generator=generator).to(device).requires_grad_()
        for shape in ((layout.n_in, n_rows), (layout.n_weights,))
    ]
    expected = loop_matmul(*leaves, layout)
    got = modified_matmul(*leaves, layout, backend=backend)
    torch.testing.assert_close(got, expected, rtol=1e-13, atol=1e-13)
    wanted = torch.autograd.grad(expected.sin().sum(), leaves)
    for one, other in zip(torch.autograd.grad(got.sin().sum(), leaves), wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-13, atol=1e-13)
