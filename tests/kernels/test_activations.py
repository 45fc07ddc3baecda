"""Activations against their torch modules: values, gradients, extreme inputs and in-place operation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from parallelmlp_search.kernels.activations import ACTIVATION_KERNELS, ActivationKernel
from parallelmlp_search.packing.architecture import Architecture
from parallelmlp_search.packing.pack import build_module
from parallelmlp_search.space.config import ACTIVATIONS

every = pytest.mark.parametrize("kernel", list(ACTIVATION_KERNELS.values()), ids=list(ACTIVATION_KERNELS))

# without the kinks at 0 and +-0.5: their slope is a convention and has its own test
ORDINARY = torch.linspace(-6.0, 6.0, 1202, dtype=torch.float64) + 1e-4
EXTREME = torch.tensor(
    [-50.0, -30.0, -20.5, -20.0, 20.0, 20.5, 30.0, 50.0, -1e-9, 1e-9, 1e-300], dtype=torch.float64
)
KINKS = torch.tensor([-0.5, 0.0, 0.5], dtype=torch.float64)


def _module(name: str) -> torch.nn.Module:
    return build_module(Architecture(1, (1,), 1, activation=name, residual=(False,)))[1]


def _expected(name: str, z: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    z = z.clone().requires_grad_(True)
    output = _module(name)(z)
    output.backward(grad)
    assert z.grad is not None
    return output.detach(), z.grad


def _run(kernel: ActivationKernel, z: Tensor, grad: Tensor, *, in_place: bool) -> tuple[Tensor, Tensor]:
    """Forward and backward, in place where the kernel supports it."""
    z, grad = z.clone(), grad.clone()
    output = z if in_place and kernel.saves_output else torch.full_like(z, float("nan"))
    kernel.forward(z, output)
    saved = output if kernel.saves_output else z
    into = grad if in_place else torch.full_like(z, float("nan"))
    kernel.backward(grad, saved, into)
    return output, into


def test_every_activation_has_a_kernel() -> None:
    assert set(ACTIVATION_KERNELS) == set(ACTIVATIONS)
    assert len(ACTIVATION_KERNELS) == 13
    assert all(name == kernel.name for name, kernel in ACTIVATION_KERNELS.items())


@every
@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("z", [ORDINARY, EXTREME, KINKS], ids=["ordinary", "extreme", "kinks"])
def test_values_and_gradients_equal_those_of_torch(
    kernel: ActivationKernel, in_place: bool, z: Tensor
) -> None:
    grad = torch.cos(3.0 * torch.arange(len(z), dtype=torch.float64)) + 2.0
    output, gradient = _run(kernel, z, grad, in_place=in_place)
    expected_output, expected_gradient = _expected(kernel.name, z, grad)
    torch.testing.assert_close(output, expected_output, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-12, atol=1e-12)


@every
@pytest.mark.parametrize("in_place", [False, True])
def test_float32_is_accurate_to_rounding(kernel: ActivationKernel, in_place: bool) -> None:
    z = torch.cat([ORDINARY, EXTREME]).float()
    grad = torch.ones_like(z)
    output, gradient = _run(kernel, z, grad, in_place=in_place)
    expected_output, expected_gradient = _expected(kernel.name, z.double(), grad.double())
    assert output.dtype == gradient.dtype == torch.float32
    torch.testing.assert_close(output.double(), expected_output, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=2e-6, atol=2e-6)


@every
def test_only_the_given_view_of_a_buffer_is_written(kernel: ActivationKernel) -> None:
    buffer = torch.full((3, 4, 5), 9.0, dtype=torch.float64)
    z = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    kernel.forward(z, buffer[1])
    torch.testing.assert_close(buffer[1], _module(kernel.name)(z), rtol=1e-12, atol=1e-12)
    assert (buffer[[0, 2]] == 9.0).all()


@every
def test_zero_at_zero_is_correct(kernel: ActivationKernel) -> None:
    z = torch.zeros(3, dtype=torch.float64)
    output = torch.full_like(z, float("nan"))
    kernel.forward(z, output)
    assert bool((output == 0).all()) == kernel.zero_at_zero
    assert kernel.zero_at_zero == (kernel.name not in ("sigmoid", "softplus"))


@every
def test_nan_is_kept_and_does_not_spread(kernel: ActivationKernel) -> None:
    z = torch.tensor([1.0, float("nan"), 2.0], dtype=torch.float64)
    clean = torch.tensor([1.0, 1.5, 2.0], dtype=torch.float64)
    grad = torch.ones_like(z)
    output, gradient = _run(kernel, z, grad, in_place=True)
    expected = _run(kernel, clean, grad, in_place=True)
    assert torch.equal(output[[0, 2]], expected[0][[0, 2]])
    assert torch.equal(gradient[[0, 2]], expected[1][[0, 2]])
    # hardshrink compares, and the result of a comparison with NaN may vary
    assert kernel.name == "hardshrink" or bool(output[1].isnan())


@every
@pytest.mark.parametrize("infinity", [float("inf"), -float("inf")])
def test_infinities_give_the_same_finiteness_as_in_torch(kernel: ActivationKernel, infinity: float) -> None:
    z = torch.tensor([infinity], dtype=torch.float64)
    output, _ = _run(kernel, z, torch.ones_like(z), in_place=True)
    expected, _ = _expected(kernel.name, z, torch.ones_like(z))
    assert torch.equal(output.isfinite(), expected.isfinite())


def test_all_activations_differ() -> None:
    z = torch.tensor([-1.3, -0.4, 0.3, 1.7], dtype=torch.float64)
    outputs = []
    for kernel in ACTIVATION_KERNELS.values():
        out = torch.empty_like(z)
        kernel.forward(z, out)
        outputs.append(out)
    for first in range(13):
        for second in range(first):
            assert not torch.allclose(outputs[first], outputs[second], rtol=1e-3, atol=1e-3)
