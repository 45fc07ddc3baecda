"""Initial weights have the spread of their scheme and depend on the member's seed alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from parallelmlp_search.engine import Population, initialization
from parallelmlp_search.engine.data_driven import N_FITTED_ROWS
from parallelmlp_search.engine.initialization import initial_vector
from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.packing import Architecture, DataShape
from parallelmlp_search.packing.pack import build_module, read_member
from parallelmlp_search.space import ColumnGroups, MLPConfig
from parallelmlp_search.space.config import INITIALIZATIONS, SHARINGS

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


def _drawn(scheme: str, *, seed: int = 0, repeat: int = 0) -> torch.Tensor:
    return initial_vector(SHAPE, MLPConfig(widths=(H,), initialization=scheme, seed=seed), repeat=repeat)


@pytest.mark.parametrize("scheme", DEVIATIONS)
def test_statistics_of_each_scheme(scheme: str) -> None:
    parameters = _named(SHAPE, _drawn(scheme))
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
    ours = _named(SHAPE, _drawn("kaiming_uniform"))
    for name, theirs in (("0.weight", reference.weight), ("0.bias", reference.bias)):
        assert float(ours[name].std()) == pytest.approx(float(theirs.detach().std()), rel=0.08)
        assert float(ours[name].abs().max()) == pytest.approx(float(theirs.detach().abs().max()), rel=0.02)


def test_every_scheme_without_rows_is_tested() -> None:
    assert set(DEVIATIONS) == set(INITIALIZATIONS) - {"data_driven"}


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize(("residual", "normalization"), [(False, "none"), (True, "none"), (False, "layer")])
def test_data_driven_neurons_fit_the_rows(activation: str, residual: bool, normalization: str) -> None:
    """Neurons have a variance of one and a zero near a row in every hidden layer, for any input scale."""
    config = MLPConfig(
        widths=(9, 9, 5),
        activation=activation,
        residual=residual,
        normalization=normalization,
        initialization="data_driven",
        input_scale_rate=1.0,
        seed=4,
    )
    rows = 40.0 * torch.randn(N_FITTED_ROWS, 6, generator=torch.Generator().manual_seed(0)) + 7.0
    architecture = Architecture.of(config, DataShape(6, 2))
    network = build_module(architecture, initial_vector(architecture, config, rows=rows))
    found: list[torch.Tensor] = []
    linears = [module for module in network.modules() if isinstance(module, torch.nn.Linear)]
    for linear in linears:
        linear.register_forward_hook(lambda module, inputs, outputs: found.append(outputs.detach()))
    network(rows.double())
    for outputs in found[:-1]:
        torch.testing.assert_close(outputs.std(0, unbiased=False), torch.ones(outputs.shape[1]).double())
        # near a row, but not at a row, where rounding would decide
        assert float(outputs.abs().amin(0).min()) > 1e-6
        assert float(outputs.abs().amin(0).max()) < 0.5
    assert not linears[-1].bias.any()
    # the zeros of different neurons differ
    zeros = found[0].abs().argmin(0)
    assert len(zeros.unique()) > 6


def test_neurons_that_do_not_vary_stay_finite() -> None:
    config = MLPConfig(widths=(3,), initialization="data_driven", bias=False)
    vector = initial_vector(Architecture.of(config, DataShape(2, 1)), config, rows=torch.ones(5, 2))
    assert bool(vector.isfinite().all())
    with pytest.raises(InvalidParameterError, match="needs rows"):
        initial_vector(Architecture.of(config, DataShape(2, 1)), config)


@pytest.mark.parametrize("scheme", INITIALIZATIONS)
def test_a_head_may_start_at_zero(scheme: str) -> None:
    config = MLPConfig(widths=(H,), initialization=scheme, head_initialization="zero")
    vector = initial_vector(SHAPE, config, rows=torch.randn(10, D))
    named = _named(SHAPE, vector)
    assert not named["3.weight"].any()
    assert not named["3.bias"].any()
    assert named["0.weight"].any()


@pytest.mark.parametrize("sharing", SHARINGS)
def test_submembers_fit_their_own_rows(sharing: str) -> None:
    """Neurons have a variance of one over rows and submembers, and zeros near rows of a submember."""
    config = MLPConfig(
        widths=(9, 5), activation="tanh", initialization="data_driven", submembers=4, sharing=sharing, seed=4
    )
    rows = 40.0 * torch.randn(N_FITTED_ROWS, 6, generator=torch.Generator().manual_seed(0)) + 7.0
    architecture = Architecture.of(config, DataShape(6, 2))
    network = build_module(architecture, initial_vector(architecture, config, rows=rows))
    found: list[torch.Tensor] = []
    for module in (network[1], network[3]):
        module.register_forward_hook(lambda module, inputs, outputs: found.append(outputs.detach()))
    network(rows.double())
    for layer, outputs in zip((network[1], network[3]), found, strict=True):
        assert outputs.shape[:2] == (N_FITTED_ROWS, 4)
        spread = (outputs - layer.bias.detach()).flatten(0, 1).std(0, unbiased=False)
        torch.testing.assert_close(spread, torch.ones(outputs.shape[2]).double())
        nearest = outputs.abs().amin(0)  # (K, H)
        nearest = nearest if sharing == "full" else nearest.amin(0)
        assert 1e-6 < float(nearest.min()) < float(nearest.max()) < 0.5
        assert layer.bias.shape == outputs.shape[2 if sharing == "mini" else 1 :]


@pytest.mark.parametrize("scheme", ["xavier_normal", "lecun_normal"])
def test_each_submember_has_a_head_that_starts_like_any_other(scheme: str) -> None:
    config = MLPConfig(widths=(H,), initialization=scheme, submembers=8)
    architecture = Architecture.of(config, DataShape(D, C))
    heads = _named(architecture, initial_vector(architecture, config))["3.weight"]
    assert heads.shape == (8 * C, H)
    expected = DEVIATIONS[scheme](H, C)
    assert heads.std().item() == pytest.approx(expected, rel=5 / math.sqrt(2 * heads.numel()))
    assert heads.std().item() != pytest.approx(DEVIATIONS["xavier_normal"](H, 8 * C), rel=1e-3)
    zero = initial_vector(architecture, config.replace(head_initialization="zero"))
    assert not _named(architecture, zero)["3.weight"].any()


def test_drawing_does_not_use_the_generator_of_torch() -> None:
    before = torch.get_rng_state()
    config = MLPConfig(widths=(H,), initialization="data_driven")
    build_module(SHAPE, initial_vector(SHAPE, config, rows=torch.ones(10, D)))
    assert torch.equal(torch.get_rng_state(), before)


def test_seeds_repeats_and_schemes_differ() -> None:
    first = _drawn("kaiming_uniform")
    assert first.dtype == torch.float64
    assert first.shape == (SHAPE.n_parameters,)
    assert torch.equal(first, _drawn("kaiming_uniform"))
    assert torch.equal(first, _drawn("kaiming_uniform", repeat=0))
    assert not torch.equal(first, _drawn("kaiming_uniform", seed=1))
    assert not torch.equal(first, _drawn("kaiming_uniform", repeat=1))
    assert not torch.equal(first, _drawn("xavier_uniform"))


@pytest.mark.parametrize("merge", [True, False])
def test_initial_weights_do_not_depend_on_other_members(merge: bool) -> None:
    rows = torch.zeros(1, 4, dtype=torch.float64)
    config = MLPConfig(widths=(7, 5), seed=42)
    others = [MLPConfig(widths=(w, 9), seed=w, activation="tanh") for w in range(1, 9)]
    alone = Population.create([config], DataShape(4, 2), rows=rows)
    packed = Population.create([*others, config, *others], DataShape(4, 2), rows=rows, merge=merge)
    vector = read_member(packed.parameters, packed.layout, len(others))
    assert torch.equal(vector, read_member(alone.parameters, alone.layout, 0))
    assert torch.equal(vector, initial_vector(alone.layout.architecture(0), config))
    # in float32 the same weights, rounded
    single = Population.create([config], DataShape(4, 2))
    assert torch.equal(read_member(single.parameters, single.layout, 0), vector.float())
    repeated = Population.create([config], DataShape(4, 2), repeat=3, rows=rows)
    assert not torch.equal(read_member(repeated.parameters, repeated.layout, 0), vector)


@pytest.mark.parametrize("sharing", [None, *SHARINGS])
def test_members_that_are_fitted_together_equal_members_alone(sharing: str | None) -> None:
    """One shape with every embedding, residual layers and several activations, in float64."""
    rows = torch.randn(300, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    data = DataShape(7, 2, ColumnGroups(n_numbers=3))
    configs = [
        MLPConfig(
            widths=(9, 9, 5),
            activation=activation,
            residual=True,
            normalization="layer",
            initialization="data_driven",
            numeric_embedding="periodic",
            input_scale_rate=1.0,
            submembers=1 if sharing is None else 4,
            sharing=sharing or "mini",
            seed=seed,
        )
        for seed, activation in enumerate(("relu", "tanh", "relu", "mish", "sine"))
    ]
    packed = Population.create(configs, data, rows=rows)
    for member, config in enumerate(configs):
        alone = initial_vector(Architecture.of(config, data), config, rows=rows)
        vector = read_member(packed.parameters, packed.layout, member)
        torch.testing.assert_close(vector, alone, rtol=1e-12, atol=1e-12)
    other = initial_vector(Architecture.of(configs[0], data), configs[1], rows=rows)
    assert not torch.allclose(read_member(packed.parameters, packed.layout, 0), other, atol=1e-3)


def test_threads_draw_the_same_numbers() -> None:
    configs = [MLPConfig(widths=(H,), initialization="data_driven", seed=seed) for seed in range(7)]
    drawn = []
    for n_threads in (1, 3):
        vectors = torch.empty(7, SHAPE.n_parameters, dtype=torch.float64)
        placements = initialization._draw_all(
            vectors, [SHAPE] * 7, configs, repeat=2, n_rows=50, n_threads=n_threads
        )
        drawn.append((vectors, [one.rows.tolist() for one in placements]))
    assert torch.equal(drawn[0][0], drawn[1][0])
    assert drawn[0][1] == drawn[1][1]
    assert not torch.equal(drawn[0][0][0], drawn[0][0][1])
