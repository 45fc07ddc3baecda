"""The parareal network against the serial network, and its gradients against backpropagation."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.kernels.losses import get_loss
from parallelmlp_search.parareal import (
    Communicator,
    DistributedParareal,
    PararealNetwork,
    Recipe,
    Slice,
    decompose,
    deep_mlp,
    output_gradient,
)
from parallelmlp_search.parareal.method.blocks import profile_model
from parallelmlp_search.parareal.method.decompose import plan_partition
from parallelmlp_search.parareal.method.network import OutputGradient
from parallelmlp_search.space import MLPConfig

Make = Callable[..., Any]


def linear_network(depth: int = 9, width: int = 6) -> nn.Sequential:
    torch.manual_seed(0)
    blocks = [nn.Linear(width, width, bias=False) for _ in range(depth)]
    return nn.Sequential(*blocks, nn.Linear(width, 3)).double()


def exact_coarse(model: nn.Sequential, slices: int, rows: Tensor) -> list[nn.Module]:
    """Copies of the fine networks as coarse networks."""
    bounds = plan_partition(profile_model(model, rows), slices).bounds
    return [nn.Sequential(*copy.deepcopy(list(model))[first:last]) for first, last in pairwise(bounds)][1:]


@pytest.mark.parametrize("slices", [1, 2, 3, 4, 9])
def test_linear_slices_with_exact_coarse_networks_are_the_serial_network(slices: int) -> None:
    model = linear_network()
    rows = torch.randn(7, 6, dtype=torch.float64)
    network = decompose(model, slices, rows, coarse=exact_coarse(model, slices, rows))
    assert network.n_slices == slices
    assert (network(rows) - model(rows)).abs().max() < 1e-12


def test_other_coarse_networks_give_another_function() -> None:
    model = linear_network()
    rows = torch.randn(7, 6, dtype=torch.float64)
    assert (decompose(model, 3, rows)(rows) - model(rows)).abs().max() > 1e-3


def test_a_wrong_coarse_network_is_detected() -> None:
    model = linear_network()
    rows = torch.randn(7, 6, dtype=torch.float64)
    coarse = exact_coarse(model, 3, rows)
    with torch.no_grad():
        coarse[1][0].weight[0, 0] += 1e-3
    assert (decompose(model, 3, rows, coarse=coarse)(rows) - model(rows)).abs().max() > 1e-6


def accumulate_gradients(
    network: PararealNetwork, rows: Tensor, output_gradient: OutputGradient
) -> Tensor | None:
    """Gradients by explicit sweeps, as ranks compute them."""
    engine = DistributedParareal(network, Communicator(), Recipe(total_steps=1), rows)
    return engine.step(rows, output_gradient)


CONFIG = MLPConfig(widths=(8,) * 10, residual=True, normalization="layer", activation="silu")


@pytest.mark.parametrize("slices", [1, 2, 3, 5])
@pytest.mark.parametrize("trainable", [True, False], ids=["trainable", "without parameters"])
def test_explicit_sweeps_give_the_gradients_of_backpropagation(slices: int, trainable: bool) -> None:
    torch.manual_seed(1)
    rows = torch.randn(12, 8, dtype=torch.float64)
    target = torch.randint(0, 3, (12,))
    model = deep_mlp(CONFIG, n_inputs=8, n_outputs=3).double()
    identity: Any = lambda inputs, outputs: nn.Identity()  # noqa: E731
    connectors = {} if trainable else {"coarse": identity, "preprocessor": identity}
    network = decompose(model, slices, rows, **connectors)
    loss = nn.functional.cross_entropy(network(rows), target)
    expected = torch.autograd.grad(loss, list(network.parameters()))
    network.zero_grad()
    found = accumulate_gradients(network, rows, output_gradient("cross_entropy", target))
    assert found is not None
    assert abs(float(found - loss.detach())) < 1e-12
    for parameter, gradient in zip(network.parameters(), expected, strict=True):
        assert parameter.grad is not None
        assert (parameter.grad - gradient).abs().max() < 1e-12


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_loss_is_that_of_a_population(weighted: bool, smoothing: float) -> None:
    outputs = torch.randn(11, 4, dtype=torch.float64)
    target = torch.randint(0, 4, (11,))
    weight = torch.rand(11, dtype=torch.float64) if weighted else None
    expected = torch.empty(1, 4, 11, dtype=torch.float64)
    smooth = torch.full((1,), smoothing, dtype=torch.float64)
    packed = outputs.T.contiguous().unsqueeze(0)
    loss = get_loss("cross_entropy")(packed, target, expected, weight, smooth)
    for share in (1.0, 0.25):
        function = output_gradient("cross_entropy", target, weight, smoothing=smoothing, share=share)
        value, gradient = function(outputs)
        assert value.shape == ()
        torch.testing.assert_close(value, share * loss[0], rtol=0.0, atol=1e-14)
        torch.testing.assert_close(gradient, share * expected[0].T, rtol=0.0, atol=1e-14)
    other = output_gradient("cross_entropy", target.roll(1), weight, smoothing=smoothing)(outputs)
    assert abs(float(other[0] - loss[0])) > 1e-3


def test_gradients_by_hand() -> None:
    """Two linear slices of one number each, with all derivatives written out."""
    g1, g2, c, f, x, t = 0.7, -1.3, 0.4, 0.9, 2.0, 0.5

    def linear(weight: float) -> nn.Linear:
        layer = nn.Linear(1, 1, bias=False).double()
        nn.init.constant_(layer.weight, weight)
        return layer

    network = PararealNetwork(
        [Slice(linear(g1)), Slice(linear(g2), preprocessor=linear(c), coarse=linear(f))]
    )
    output = g2 * c * x + f * (g1 * x - c * x)

    def squared(outputs: Tensor) -> tuple[Tensor, Tensor]:
        return ((outputs - t) ** 2).sum() / 2, outputs - t

    loss = accumulate_gradients(network, torch.tensor([[x]], dtype=torch.float64), squared)
    assert loss is not None
    mu3 = output - t
    mu2 = f * mu3
    first, second = network.parts
    assert float(loss) == pytest.approx((output - t) ** 2 / 2)
    gradients = {
        "g1": (first.fine, mu2 * x),
        "g2": (second.fine, mu3 * c * x),
        "f": (second.coarse, mu3 * (g1 * x - c * x)),
        "c": (second.preprocessor, (g2 * mu3 - mu2) * x),
    }
    for name, (layer, expected) in gradients.items():
        assert isinstance(layer, nn.Linear), name
        assert layer.weight.grad is not None
        assert float(layer.weight.grad) == pytest.approx(expected, abs=1e-14), name


def test_network_is_an_ordinary_module() -> None:
    rows = torch.randn(4, 8)
    network = decompose(deep_mlp(CONFIG, n_inputs=8, n_outputs=3), 3, rows)
    assert {name.split(".")[1] for name in network.state_dict()} == {"0", "1", "2"}
    twin = decompose(deep_mlp(CONFIG, n_inputs=8, n_outputs=3), 3, rows)
    assert not torch.equal(twin(rows), network(rows))
    twin.load_state_dict(network.state_dict())
    assert torch.equal(twin(rows), network(rows))
    exported = torch.export.export(network, (rows,)).module()
    torch.testing.assert_close(exported(rows), network(rows))
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(rows), network(rows))


def test_slices_in_a_wrong_order_are_rejected() -> None:
    later = Slice(nn.Identity(), preprocessor=nn.Identity(), coarse=nn.Identity())
    with pytest.raises(InvalidParameterError, match="one first slice without"):
        PararealNetwork([later, Slice(nn.Identity())])
    with pytest.raises(InvalidParameterError, match="both a preprocessor and a coarse"):
        Slice(nn.Identity(), coarse=nn.Identity())
    with pytest.raises(InvalidParameterError, match="only the last slice"):
        PararealNetwork([Slice(nn.Identity(), head=nn.Identity()), later])
