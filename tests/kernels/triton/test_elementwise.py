"""Activations, slopes and losses inside a kernel against those of the CPU path."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl

from parallelmlp_search.kernels.activations import ACTIVATION_KERNELS
from parallelmlp_search.kernels.losses import get_loss
from parallelmlp_search.kernels.triton.elementwise import activation, loss_and_gradient
from parallelmlp_search.space import ACTIVATIONS


@triton.jit
def _apply(z, a, slope, NAME: tl.constexpr, SIZE: tl.constexpr):
    i = tl.arange(0, SIZE)
    value, derivative = activation(tl.load(z + i), NAME)
    tl.store(a + i, value)
    tl.store(slope + i, derivative)


@triton.jit
def _run_loss(outputs, share, target, loss, gradient, smoothing, n_rows, LOSS: tl.constexpr, C: tl.constexpr,
              C_PAD: tl.constexpr, ROWS: tl.constexpr):  # fmt: skip
    c = tl.arange(0, C_PAD)
    n = tl.arange(0, ROWS)
    valid = n < n_rows
    place = c[:, None] * n_rows + n[None, :]
    mask = (c < C)[:, None] & valid[None, :]
    x = tl.load(outputs + place, mask=mask, other=0.0)
    s = tl.load(share + n, mask=valid, other=0.0)
    losses, g = loss_and_gradient(x, s, target, n, valid, n_rows, C, tl.load(smoothing), LOSS, C_PAD)
    tl.store(loss + n, losses)
    tl.store(gradient + place, g, mask=mask)


POINTS = torch.cat(
    [
        torch.linspace(-6, 6, 49),
        torch.tensor([-90.0, -25.0, -0.5, 0.5, 1e-7, -1e-7, 0.0, 19.9, 20.1, 25.0, 88.0]),
    ]
)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_activations_and_their_slopes(name: str, dtype: torch.dtype, device: str) -> None:
    z = torch.cat([POINTS, torch.zeros(64 - len(POINTS))]).to(device, dtype)
    got, slope = torch.empty_like(z), torch.empty_like(z)
    _apply[(1,)](z, got, slope, NAME=name, SIZE=64)
    kernel = ACTIVATION_KERNELS[name]
    expected, gradient = torch.empty_like(z), torch.empty_like(z)
    kernel.forward(z, expected)
    kernel.backward(torch.ones_like(z), expected if kernel.saves_output else z, gradient)
    tolerance = 1e-14 if dtype == torch.float64 else 3e-6
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(slope, gradient, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_nan_stays_nan(name: str, device: str) -> None:
    # otherwise a diverged member is not detected
    z = torch.full((16,), torch.nan, device=device)
    got, slope = torch.zeros_like(z), torch.zeros_like(z)
    _apply[(1,)](z, got, slope, NAME=name, SIZE=16)
    assert bool(got.isnan().all())


@pytest.mark.parametrize(
    ("loss", "n_outputs", "padded"),
    [
        ("cross_entropy", 2, 16),
        ("cross_entropy", 10, 16),
        ("cross_entropy", 17, 32),
        ("binary_logits", 1, 1),
        ("binary_logits", 1, 16),
        ("binary_logits", 3, 16),
        ("squared_error", 1, 1),
        ("squared_error", 3, 16),
    ],
)
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_losses_and_their_gradients(
    loss: str, n_outputs: int, padded: int, smoothing: float, device: str
) -> None:
    generator = torch.Generator().manual_seed(n_outputs)
    n_rows = 11
    outputs = 5.0 * torch.randn(n_outputs, n_rows, generator=generator, dtype=torch.float64)
    weight = torch.rand(n_rows, generator=generator, dtype=torch.float64)
    if loss == "squared_error":
        target = torch.randn(n_outputs, n_rows, generator=generator, dtype=torch.float64)
    elif loss == "binary_logits" and n_outputs > 1:
        target = torch.randint(0, 2, (n_outputs, n_rows), generator=generator)
    else:
        target = torch.randint(0, max(2, n_outputs), (n_rows,), generator=generator)
    outputs, weight, target = outputs.to(device), weight.to(device), target.to(device)
    smooth = torch.tensor([smoothing], dtype=torch.float64, device=device)
    gradient = torch.zeros_like(outputs)
    losses = torch.empty(16, dtype=torch.float64, device=device)
    share = weight / weight.sum()
    _run_loss[(1,)](
        outputs, share, target, losses, gradient, smooth, n_rows=n_rows, LOSS=loss, C=n_outputs,
        C_PAD=padded, ROWS=16,
    )  # fmt: skip
    expected_gradient = torch.empty_like(outputs).unsqueeze(0)
    expected = get_loss(loss)(outputs.unsqueeze(0), target, expected_gradient, weight, smooth)
    torch.testing.assert_close(losses.sum(), expected[0], rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(gradient, expected_gradient[0], rtol=1e-12, atol=1e-14)
    assert bool((losses[n_rows:] == 0).all())
