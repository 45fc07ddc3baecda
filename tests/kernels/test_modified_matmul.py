"""Backends of the modified matrix multiplication: values, gradients and errors."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.kernels.matmul import BACKENDS, modified_matmul
from parallelmlp_search.packing import MatmulLayout

# Triton interprets its kernels without a device
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

LAYOUTS = {
    "one member": MatmulLayout((5,), (3,)),
    "width 1 on both sides": MatmulLayout((1, 1, 1), (1, 1, 1)),
    "the paper's head, C = 1": MatmulLayout((1, 2, 3, 100), (1, 1, 1, 1)),
    "the paper's head, C = 10": MatmulLayout((7, 7, 3), (10, 10, 10)),
    "a prime number of members of prime widths": MatmulLayout(
        (2, 3, 5, 7, 11, 13, 17), (3, 3, 3, 2, 2, 2, 19)
    ),
    "runs of equal shape": MatmulLayout((4, 4, 4, 2, 2, 4), (3, 3, 3, 3, 3, 3)),
    "equal inputs, ragged outputs": MatmulLayout((4, 4, 4), (1, 2, 2)),
}
rows = pytest.mark.parametrize("layout", list(LAYOUTS.values()), ids=list(LAYOUTS))


def _inputs(layout: MatmulLayout, n_rows: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(layout.n_weights)

    def random(*shape: int) -> Tensor:
        values = torch.randn(*shape, dtype=torch.float64, generator=generator)
        return values.to(DEVICE).requires_grad_()

    return random(layout.n_in, n_rows), random(layout.n_weights), random(layout.n_out)


@rows
@pytest.mark.parametrize("with_bias", [False, True])
def test_backends_agree_in_values_and_gradients(layout: MatmulLayout, with_bias: bool) -> None:
    results = {}
    for backend in BACKENDS:
        activations, weight, bias = _inputs(layout)
        outputs = modified_matmul(
            activations, weight, layout, bias=bias if with_bias else None, backend=backend
        )
        assert outputs.shape == (layout.n_out, 6)
        # not linear in the outputs, so that their gradients differ
        outputs.sin().sum().backward()
        results[backend] = [outputs, activations.grad, weight.grad]
        assert (bias.grad is not None) == with_bias
        if with_bias:
            results[backend].append(bias.grad)
    for backend in BACKENDS:
        for got, expected in zip(results[backend], results["loop"], strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-13, atol=1e-13)


@rows
def test_gradients_equal_finite_differences(layout: MatmulLayout) -> None:
    activations, weight, bias = _inputs(layout, n_rows=2)
    assert torch.autograd.gradcheck(
        lambda a, w, b: modified_matmul(a, w, layout, bias=b, backend="batched"),
        (activations, weight, bias),
        fast_mode=True,
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_member_by_hand(backend: str) -> None:
    layout = LAYOUTS["a prime number of members of prime widths"]
    activations, weight, bias = (tensor.detach() for tensor in _inputs(layout))
    outputs = modified_matmul(activations, weight, layout, bias=bias, backend=backend)
    start_in = start_out = start_weight = 0
    for n_in, n_out in zip(layout.in_widths, layout.out_widths, strict=True):
        matrix = weight[start_weight : start_weight + n_in * n_out].reshape(n_out, n_in)
        own = matrix @ activations[start_in : start_in + n_in]
        own += bias[start_out : start_out + n_out].unsqueeze(1)
        torch.testing.assert_close(outputs[start_out : start_out + n_out], own, rtol=1e-13, atol=1e-13)
        start_in, start_out, start_weight = start_in + n_in, start_out + n_out, start_weight + n_in * n_out


@pytest.mark.parametrize("backend", BACKENDS)
def test_members_never_mix(backend: str) -> None:
    layout = MatmulLayout((3, 2, 3), (2, 2, 2))
    activations, weight, _ = (tensor.detach() for tensor in _inputs(layout))
    before = modified_matmul(activations, weight, layout, backend=backend)
    changed = activations.clone()
    changed[3:5] = float("nan")  # the second member's
    after = modified_matmul(changed, weight, layout, backend=backend)
    assert torch.equal(after[:2], before[:2])
    assert torch.equal(after[4:], before[4:])
    assert after[2:4].isnan().all()


def test_strided_arguments() -> None:
    layout = LAYOUTS["runs of equal shape"]
    activations, weight, _ = (tensor.detach() for tensor in _inputs(layout))
    expected = modified_matmul(activations, weight, layout)
    strided = torch.stack([weight, weight], dim=1)[:, 0]
    assert not strided.is_contiguous()
    transposed = activations.t().contiguous().t()
    assert torch.equal(modified_matmul(transposed, strided, layout), expected)
    # the gradient of a sum arrives as an expanded scalar
    weight.requires_grad_(True)
    modified_matmul(activations, weight, layout).sum().backward()
    one_member = weight.grad[:12].view(3, 4)  # type: ignore[index]
    torch.testing.assert_close(one_member, activations[:4].sum(dim=1).expand(3, 4))


@pytest.mark.parametrize(
    ("activations", "weight", "bias", "words"),
    [
        ((4, 3), (4,), None, r"activations must have shape \(5, N\), but got \(4, 3\)"),
        ((5,), (5,), None, r"activations must have shape \(5, N\), but got \(5,\)"),
        ((5, 3), (4,), None, r"weight must have shape \(5,\), but got \(4,\)"),
        ((5, 3), (1, 5), None, r"weight must have shape \(5,\), but got \(1, 5\)"),
        ((5, 3), (5,), (3,), r"bias must have shape \(2,\), but got \(3,\)"),
    ],
)
def test_shapes_are_checked(
    activations: tuple[int, ...], weight: tuple[int, ...], bias: tuple[int, ...] | None, words: str
) -> None:
    layout = MatmulLayout((2, 3), (1, 1))
    with pytest.raises(InvalidParameterError, match=words):
        modified_matmul(
            torch.ones(activations),
            torch.ones(weight),
            layout,
            bias=None if bias is None else torch.ones(bias),
        )


def test_an_unknown_backend_is_an_error_with_a_hint() -> None:
    layout = MatmulLayout((1,), (1,))
    with pytest.raises(InvalidParameterError, match="but got 'batchd'; did you mean 'batched'"):
        modified_matmul(torch.ones(1, 1), torch.ones(1), layout, backend="batchd")
