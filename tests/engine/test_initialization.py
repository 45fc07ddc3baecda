"""Initial weights: the right spread for each scheme, from the member's own seed alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from parallelmlp_search.engine import Population
from parallelmlp_search.engine.initialization import initial_vector
from parallelmlp_search.packing import Architecture
from parallelmlp_search.packing.pack import build_module, read_member
from parallelmlp_search.space import MLPConfig
from parallelmlp_search.space.config import INITIALIZATIONS

D, H, C = 40, 500, 3
SHAPE = Architecture(D, (H,), C, residual=(False,), normalization="layer")

DEVIATIONS = {
    "kaiming_uniform": lambda i, o: 1 / math.sqrt(3 * i),
    "kaiming_normal": lambda i, o: math.sqrt(2 / i),
    "xavier_uniform": lambda i, o: math.sqrt(2 / (i + o)),
    "xavier_normal": lambda i, o: math.sqrt(2 / (i + o)),
    "lecun_normal": lambda i, o: math.sqrt(1 / i),
}
BOUNDS = {
    "kaiming_uniform": lambda i, o: 1 / math.sqrt(i),
    "xavier_uniform": lambda i, o: math.sqrt(6 / (i + o)),
}


def _named(architecture: Architecture, vector: torch.Tensor) -> dict[str, torch.Tensor]:
    return {name: p.detach() for name, p in build_module(architecture, vector).named_parameters()}


@pytest.mark.parametrize("scheme", INITIALIZATIONS)
def test_statistics_of_each_scheme(scheme: str) -> None:
    parameters = _named(SHAPE, initial_vector(SHAPE, scheme, seed=0))
    for name, fan_in, fan_out in (("0.weight", D, H), ("3.weight", H, C)):
        weights = parameters[name].numpy().ravel()
        expected = DEVIATIONS[scheme](fan_in, fan_out)
        # five standard errors of a mean and of a deviation
        assert abs(weights.mean()) < 5 * expected / math.sqrt(weights.size)
        assert weights.std() == pytest.approx(expected, rel=5 / math.sqrt(2 * weights.size))
        if scheme in BOUNDS:
            bound = BOUNDS[scheme](fan_in, fan_out)
            assert 0.98 * bound < np.abs(weights).max() <= bound
        else:
            assert np.abs(weights).max() > 2.5 * expected  # a normal has tails
    biases = parameters["0.bias"]
    if scheme == "kaiming_uniform":
        assert 0.9 / math.sqrt(D) < float(biases.abs().max()) <= 1 / math.sqrt(D)
        assert float(parameters["3.bias"].abs().max()) <= 1 / math.sqrt(H)
    else:
        assert not biases.any()
        assert not parameters["3.bias"].any()
    assert (parameters["1.weight"] == 1).all()
    assert (parameters["1.bias"] == 0).all()


def test_the_default_is_that_of_torch() -> None:
    torch.manual_seed(0)
    reference = torch.nn.Linear(D, H)
    ours = _named(SHAPE, initial_vector(SHAPE, "kaiming_uniform", seed=0))
    for name, theirs in (("0.weight", reference.weight), ("0.bias", reference.bias)):
        assert float(ours[name].std()) == pytest.approx(float(theirs.detach().std()), rel=0.08)
        assert float(ours[name].abs().max()) == pytest.approx(float(theirs.detach().abs().max()), rel=0.02)


def test_seeds_repeats_and_schemes_differ() -> None:
    first = initial_vector(SHAPE, "kaiming_uniform", seed=0)
    assert first.dtype == torch.float64
    assert first.shape == (SHAPE.n_parameters,)
    assert torch.equal(first, initial_vector(SHAPE, "kaiming_uniform", seed=0))
    assert torch.equal(first, initial_vector(SHAPE, "kaiming_uniform", seed=0, repeat=0))
    assert not torch.equal(first, initial_vector(SHAPE, "kaiming_uniform", seed=1))
    assert not torch.equal(first, initial_vector(SHAPE, "kaiming_uniform", seed=0, repeat=1))
    assert not torch.equal(first, initial_vector(SHAPE, "xavier_uniform", seed=0))


@pytest.mark.parametrize("merge", [True, False])
def test_a_member_starts_alike_whoever_it_is_packed_with(merge: bool) -> None:
    config = MLPConfig(widths=(7, 5), seed=42)
    others = [MLPConfig(widths=(w, 9), seed=w, activation="tanh") for w in range(1, 9)]
    alone = Population.create([config], n_inputs=4, n_outputs=2, dtype=torch.float64)
    packed = Population.create(
        [*others, config, *others], n_inputs=4, n_outputs=2, dtype=torch.float64, merge=merge
    )
    vector = read_member(packed.parameters, packed.layout, len(others))
    assert torch.equal(vector, read_member(alone.parameters, alone.layout, 0))
    assert torch.equal(vector, initial_vector(alone.layout.architecture(0), config.initialization, 42))
    # the same in float32, but for the rounding
    single = Population.create([config], n_inputs=4, n_outputs=2)
    assert torch.equal(read_member(single.parameters, single.layout, 0), vector.float())
    repeated = Population.create([config], n_inputs=4, n_outputs=2, repeat=3, dtype=torch.float64)
    assert not torch.equal(read_member(repeated.parameters, repeated.layout, 0), vector)
