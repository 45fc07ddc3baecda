"""Outputs and hand-written gradients of the packed network against autograd through plain networks."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from parallelmlp_search.engine.network import PackedNetwork
from parallelmlp_search.engine.population import Population
from parallelmlp_search.kernels.losses import get_loss
from parallelmlp_search.packing import DataShape
from parallelmlp_search.packing.pack import build_module, read_member, write_member
from parallelmlp_search.space import MLPConfig
from parallelmlp_search.space.config import ACTIVATIONS, NORMALIZATIONS

D, C, N = 5, 3, 6
CONFIGS = st.builds(
    MLPConfig,
    # some are as wide as the inputs, so that the first layer is residual too
    widths=st.lists(st.sampled_from([1, 2, 3, 5, 5, 5, 8]), max_size=4).map(tuple),
    activation=st.sampled_from(ACTIVATIONS),
    bias=st.booleans(),
    residual=st.booleans(),
    normalization=st.sampled_from(NORMALIZATIONS),
    seed=st.integers(0, 5),
)


def _problem() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    rows = torch.randn(N, D, dtype=torch.float64, generator=generator)
    return rows, torch.randint(0, C, (N,), generator=generator)


def _gradients(population: Population, rows: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs (P, C, N) in stacked-row order and flat gradients of one step."""
    layout = population.layout
    network = PackedNetwork(layout, N, dtype=torch.float64, training=True)
    gradients = torch.zeros_like(population.parameters)
    outputs = []
    for number, bucket in enumerate(network.buckets):
        parameters = network.bind(population.parameters)[number]
        outputs.append(bucket.forward(parameters, rows).clone())
        get_loss("cross_entropy")(outputs[-1], target, bucket.output_gradient)
        bucket.backward(network.bind(gradients)[number])
    return torch.cat(outputs), gradients


@given(st.lists(CONFIGS, min_size=1, max_size=8), st.booleans())
def test_gradients_are_those_of_autograd(configs: list[MLPConfig], merge: bool) -> None:
    rows, target = _problem()
    population = Population.create(configs, DataShape(D, C), rows=rows, merge=merge)
    before = population.parameters.clone()
    outputs, gradients = _gradients(population, rows, target)
    assert torch.equal(population.parameters, before)
    padding = gradients.clone()
    for row, member in enumerate(population.layout.members):
        architecture = population.layout.architecture(member)
        vector = read_member(population.parameters, population.layout, member)
        network = build_module(architecture, vector)
        own = network(rows)
        torch.testing.assert_close(outputs[row], own.detach().T, rtol=1e-10, atol=1e-10)
        torch.nn.functional.cross_entropy(own, target).backward()
        expected = torch.cat([p.grad.reshape(-1) for p in network.parameters() if p.grad is not None])
        got = read_member(gradients, population.layout, member)
        # normalization over one neuron divides rounding errors by the root of 1e-5, over two nearly so
        tolerance = 1e-8 if architecture.normalization == "layer" else 1e-11
        torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)
        write_member(padding, population.layout, member, torch.zeros_like(got))
    assert not padding.any()  # exactly zero, so that padding never grows


def test_gradients_depend_on_the_rows() -> None:
    population = Population.create([MLPConfig(widths=(4, 3))] * 2, DataShape(D, C), rows=_problem()[0])
    rows, target = _problem()
    _, first = _gradients(population, rows, target)
    _, second = _gradients(population, rows + 1e-3, target)
    _, third = _gradients(population, rows, (target + 1) % C)
    assert not torch.allclose(first, second, rtol=1e-6, atol=1e-9)
    assert not torch.allclose(first, third, rtol=1e-6, atol=1e-9)


@given(st.lists(CONFIGS, min_size=1, max_size=6))
def test_training_and_prediction_compute_the_same(configs: list[MLPConfig]) -> None:
    population = Population.create(configs, DataShape(D, C), rows=_problem()[0])
    rows, target = _problem()
    outputs, _ = _gradients(population, rows, target)
    predicted = PackedNetwork(population.layout, N, dtype=torch.float64).predict(population.parameters, rows)
    assert torch.equal(predicted, outputs)


@pytest.mark.parametrize("rate", [0.0, 0.25, 0.9])
def test_dropout_uses_the_rate_of_each_member(rate: float) -> None:
    # a wide identity layer copies its input to many neurons; the output counts the kept ones
    width = 4000
    config = MLPConfig(widths=(width,), activation="identity", bias=False, dropout=0.5, batch_size=1)
    other = config.replace(dropout=0.5)
    population = Population.create(
        [config, other], DataShape(1, 1), rows=torch.ones(1, 1, dtype=torch.float64)
    )
    population.parameters.fill_(1.0)
    rates = torch.tensor([rate, 0.5], dtype=torch.float64)
    network = PackedNetwork(population.layout, 1, dtype=torch.float64, training=True, dropout=rates)
    (bucket,) = network.buckets
    field = torch.rand(width, 1, generator=torch.Generator().manual_seed(0))
    bucket.draw_dropout([field])
    outputs = bucket.forward(network.bind(population.parameters)[0], torch.ones(1, 1, dtype=torch.float64))
    for member, own in enumerate((rate, 0.5)):
        kept = int((field >= own).sum())
        assert float(outputs[member]) == pytest.approx(kept / (1.0 - own), rel=1e-12)
        assert kept == pytest.approx(width * (1 - own), rel=0.1)
    # without a new draw the same neurons are dropped; prediction drops none
    again = bucket.forward(network.bind(population.parameters)[0], torch.ones(1, 1, dtype=torch.float64))
    assert torch.equal(outputs, again)
    plain = PackedNetwork(population.layout, 1, dtype=torch.float64)
    predicted = plain.predict(population.parameters, torch.ones(1, 1, dtype=torch.float64))
    assert (predicted == width).all()
