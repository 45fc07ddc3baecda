"""`SearchSpace`: sampling, varying and enumerating configurations, and round trips."""

from __future__ import annotations

import json
import math
import pickle
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.space import Categorical, Float, Int, MLPConfig, SearchSpace, When
from parallelmlp_search.space.enumeration import combinations

SEEDS = st.integers(0, 2**32 - 1)
RAGGED = SearchSpace(
    {
        "width_2": Int(1, 97, log=True),  # depends on a later name
        "depth": Int(0, 3),
        "width_1": Categorical((7, 13)),
        "width_3": Int(8, 16, step=4),
        "momentum": Float(0.5, 0.99, when=When("optimizer", equals="sgd")),
        "beta2": Categorical((0.9, 0.99), when=When("optimizer", among=("adamw",))),
        "optimizer": Categorical(("adamw", "sgd"), when=When("depth", at_least=1)),
        "residual": Categorical((False, True), when=When("depth", at_least=2)),
        "learning_rate": Float(1e-4, 1e-1, log=True),
    }
)
LISTED = SearchSpace(
    {
        "widths": Categorical(((), (8,), (8, 8), (16, 4, 1))),
        "normalization": Categorical(("none", "layer"), when=When("depth", at_least=2)),
        "seed": Int(0, 2),
    }
)
SPACES = {
    "ragged": RAGGED,
    "listed": LISTED,
    **{name: SearchSpace.preset(name) for name in ("paper", "small", "default", "deep")},
    "fixed_depth": SearchSpace({"width_1": Int(1, 9), "width_2": Int(1, 9)}),
    "one": SearchSpace({"batch_size": Categorical((32,))}),
}
ANY_SPACE = st.sampled_from(sorted(SPACES)).map(SPACES.__getitem__)


@given(ANY_SPACE, SEEDS)
def test_samples_are_inside_distinct_and_reproducible(space: SearchSpace, seed: int) -> None:
    configs = space.sample(12, np.random.default_rng(seed))
    assert len(configs) == min(12, space.size())
    assert all(space.contains(config) for config in configs)
    assert len({space.key(config) for config in configs}) == len(configs)
    assert configs == space.sample(12, np.random.default_rng(seed))


@given(ANY_SPACE, SEEDS)
def test_values_and_configurations_round_trip(space: SearchSpace, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = space.sample_values(rng)
    config = space.to_config(values, seed=5)
    assert space.to_values(config) == values
    assert space.to_config(space.to_values(config), seed=config.seed) == config
    assert config.seed == values.get("seed", 5)


@given(ANY_SPACE, SEEDS)
def test_the_unit_cube_round_trips(space: SearchSpace, seed: int) -> None:
    values = space.from_unit(np.random.default_rng(seed).random(space.n_dimensions))
    again = space.from_unit(space.to_unit(values))
    assert again.keys() == values.keys()
    for name, value in values.items():
        assert again[name] == (pytest.approx(value, rel=1e-9) if isinstance(value, float) else value)


@given(ANY_SPACE, SEEDS)
def test_mutations_and_crossovers_are_inside(space: SearchSpace, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = space.to_config(space.sample_values(rng)), space.to_config(space.sample_values(rng))
    child = space.mutate(a, rng, scale=0.1)
    assert space.contains(child)
    assert space.contains(space.crossover(a, b, rng))
    if space.size() > 1:
        assert space.key(child) != space.key(a)


def test_a_child_takes_every_name_from_a_parent() -> None:
    space = SPACES["default"]
    rng = np.random.default_rng(3)
    a, b = space.sample(2, rng)
    children = [space.crossover(a, b, rng) for _ in range(30)]
    for name in ("activation", "learning_rate", "dropout"):
        assert {getattr(child, name) for child in children} == {getattr(a, name), getattr(b, name)}
    assert len({space.key(child) for child in children}) > 10


def test_newly_active_names_get_random_values() -> None:
    space = SearchSpace(
        {"depth": Int(1, 2), "residual": Categorical((True,), when=When("depth", at_least=2))}
    )
    shallow = MLPConfig(widths=(64,))
    deep = space.mutate(shallow, np.random.default_rng(0))
    assert deep.widths == (64, 64)
    assert deep.residual
    assert not space.mutate(deep, np.random.default_rng(0)).residual


def test_small_spaces_give_fewer_samples() -> None:
    rng = np.random.default_rng(0)
    everything = LISTED.sample(1_000, rng)
    assert len(everything) == LISTED.size() == 3 * (1 + 1 + 2 + 2)
    assert LISTED.sample(5, rng, exclude=everything) == []
    rest = LISTED.sample(5, rng, exclude=everything[3:])
    assert {LISTED.key(c) for c in rest} == {LISTED.key(c) for c in everything[:3]}
    # unless the space names `seed`, configurations that differ in the seed alone are the same
    space = SearchSpace({"width": Int(1, 4)})
    known = [MLPConfig(widths=(width,), seed=99) for width in (1, 2, 3)]
    assert [config.widths for config in space.sample(9, rng, exclude=known)] == [(4,)]
    # a continuous domain of two floats
    narrow = SearchSpace({"dropout": Float(0.1, math.nextafter(0.1, 1.0))})
    assert len(narrow.sample(10, rng)) <= 2


def test_each_configuration_has_a_seed_of_its_own() -> None:
    configs = SPACES["small"].sample(200, np.random.default_rng(0))
    assert len({config.seed for config in configs}) == 200
    assert {config.seed for config in SPACES["paper"].sample(200, np.random.default_rng(0))} == set(range(10))


@pytest.mark.parametrize("name", ["listed", "paper", "fixed_depth", "one"])
def test_size_counts_the_grid(name: str) -> None:
    space = SPACES[name]
    grid = space.grid()
    assert len(grid) == len({space.key(config) for config in grid}) == space.size()
    assert all(space.contains(config) for config in grid[:200])


def test_size_with_conditions_equals_enumeration() -> None:
    finite = SearchSpace(
        {name: d for name, d in RAGGED.domains.items() if name not in ("learning_rate", "momentum")}
    )
    assert finite.size() == sum(1 for _ in combinations(finite._structure, None)) == len(finite.grid())
    by_depth = {0: 1, 1: 2 * 3, 2: 2 * 97 * 3 * 2, 3: 2 * 97 * 3 * 3 * 2}  # optimiser: adamw twice, sgd once
    assert finite.size() == sum(by_depth.values())
    assert RAGGED.size() == SPACES["default"].size() == math.inf
    # a continuous domain that is never active does not count
    dead = SearchSpace({"depth": Int(1, 1), "dropout": Float(0, 0.5, when=When("depth", at_least=2))})
    assert dead.size() == 1


def test_grids_respect_the_resolution() -> None:
    space = SearchSpace({"learning_rate": Float(1e-4, 1e-2, log=True), "width": Int(1, 100)})
    grid = space.grid(3)
    assert len(grid) == 9
    assert sorted({config.learning_rate for config in grid}) == pytest.approx([1e-4, 1e-3, 1e-2])
    assert grid[0].widths == (1,)
    with pytest.raises(InvalidParameterError, match="resolution must be given"):
        space.grid()
    huge = SearchSpace({"width": Int(1, 10_000), "batch_size": Int(1, 10_000)})
    with pytest.raises(InvalidParameterError, match="at most 5000000 points, but this holds 100000000"):
        huge.grid()


def test_random_points_of_a_grid() -> None:
    rng = np.random.default_rng(0)
    grid = {RAGGED.key(config) for config in RAGGED.grid(2)}
    assert RAGGED.grid_size(2) == len(grid)
    points = [RAGGED.grid_point(2, rng) for _ in range(300)]
    assert {RAGGED.key(config) for config in points} < grid
    assert {config.depth for config in points} == {config.depth for config in RAGGED.grid(2)}
    small = SearchSpace({"width": Int(1, 3), "activation": Categorical(("relu", "tanh"))})
    assert {small.grid_point(2, rng) for _ in range(100)} == set(small.grid(2))
    huge = SearchSpace({"width": Int(1, 10_000), "batch_size": Int(1, 10_000)})
    assert huge.grid_size() == 100_000_000


def test_contains_compares_every_field() -> None:
    space = SPACES["fixed_depth"]
    config = space.sample(1, np.random.default_rng(0))[0]
    assert space.contains(config.replace(seed=12345))
    assert not space.contains(config.replace(dropout=0.1))
    assert not space.contains(config.replace(widths=(*config.widths, 4)))
    assert not space.contains(config.replace(widths=(10, 1)))
    assert not SPACES["default"].contains(MLPConfig(widths=(32, 48)))  # one width for all
    assert not SPACES["listed"].contains(MLPConfig(widths=(8,), normalization="layer"))  # inactive there
    with pytest.raises(InvalidParameterError, match=r"dropout must be 0\.0 here, but got 0\.1"):
        space.to_values(config.replace(dropout=0.1))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"widths": (8,), "seed": 0, "momentum": 0.1}, "no name 'momentum'"),
        ({"widths": (8,)}, "seed is missing, but active"),
        ({"widths": (8,), "seed": 0, "normalization": "layer"}, "normalization is given, but inactive"),
        ({"widths": (9,), "seed": 0}, r"widths must belong to .*, but got \(9,\)"),
    ],
)
def test_wrong_values_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidParameterError, match=words):
        LISTED.to_config(values)
    with pytest.raises(InvalidParameterError, match=words):
        LISTED.to_unit(values)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"activaton": ["relu"]}, "no name 'activaton'; did you mean 'activation'"),
        ({"activation": ["rellu"]}, "'activation' holds a value that is not allowed: .* did you mean 'relu'"),
        ({"dropout": {"type": "float", "low": 0, "high": 1}}, "dropout must be a number in"),
        (
            {"batch_size": {"type": "float", "low": 1, "high": 9}},
            "'batch_size' must be an Int or Categorical",
        ),
        (
            {"submembers": {"type": "float", "low": 1, "high": 9}},
            "'submembers' must be an Int or Categorical",
        ),
        ({"width": [0]}, "widths must be an integer >= 1, but got 0"),
        ({"depth": [-1]}, "depth must be an integer from 0"),
        ({"depth": [1.5]}, r"but got 1\.5"),
        ({"depth": [1, 2], "width_1": 8}, "of depth 2 must name width_2"),
        ({"depth": [1], "width_1": 8, "width_2": 8}, "width_2 is never used, since depth is at most 1"),
        ({"width_2": 8}, "must name width_1"),
        ({"width_0": 8}, "no name 'width_0'"),
        ({"width": 8, "width_1": 8}, "either width or width_1"),
        ({"widths": [[8]], "depth": 1}, "either widths or depth"),
        (
            {"residual": {"choices": [True], "when": {"name": "detph", "at_least": 2}}},
            "'residual' refers to 'detph', which the space does not name; did you mean 'depth'",
        ),
        (
            {
                "bias": {"choices": [True], "when": {"name": "residual", "equals": True}},
                "residual": {"choices": [True], "when": {"name": "bias", "equals": True}},
            },
            "conditions must not be circular, but those of 'bias', 'residual' are",
        ),
        ({"dropout": {"type": "float", "low": 1}}, "the domain of 'dropout' is not valid"),
    ],
)
def test_invalid_spaces_are_refused(spec: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidParameterError, match=words):
        SearchSpace.from_dict(spec)


def test_invalid_points_and_numbers_are_refused() -> None:
    with pytest.raises(InvalidParameterError, match="vector must have 3 coordinates, but got 2"):
        SPACES["paper"].from_unit([0.1, 0.2])
    with pytest.raises(InvalidParameterError, match="n must be >= 0, but got -1"):
        SPACES["paper"].sample(-1, np.random.default_rng(0))


@pytest.mark.parametrize("name", sorted(SPACES))
def test_spaces_are_immutable_hashable_and_picklable(name: str) -> None:
    space = SPACES[name]
    again = SearchSpace.from_dict(json.loads(json.dumps(space.to_dict())))
    assert again == space == pickle.loads(pickle.dumps(space))
    assert hash(again) == hash(space)
    assert again.sample(5, np.random.default_rng(1)) == space.sample(5, np.random.default_rng(1))
    assert space != SearchSpace({"batch_size": Categorical((33,))})
    with pytest.raises(TypeError):
        space.domains["depth"] = Int(1, 2)  # type: ignore[index]


@pytest.mark.alone
def test_sampling_ten_thousand_configurations_takes_less_than_two_seconds() -> None:
    for name in ("default", "paper"):
        seconds = []
        for seed in range(3):
            start = time.process_time()
            assert len(SPACES[name].sample(10_000, np.random.default_rng(seed))) == 10_000
            seconds.append(time.process_time() - start)
        assert min(seconds) < 2.0  # 0.7 and 0.9 s measured on one core


def test_removed_fields_of_a_space_are_dropped_where_they_change_nothing() -> None:
    old = {
        "width": [8, 16],
        "feature_share": 1.0,
        "parametric_rate": {"type": "categorical", "choices": [0.0]},
    }
    assert SearchSpace.from_dict(old) == SearchSpace.from_dict({"width": [8, 16]})


@pytest.mark.parametrize("domain", [[1.0, 0.6], 0.6, {"type": "float", "low": 0.5, "high": 1.0}])
def test_removed_fields_of_a_space_that_change_networks_are_refused(domain: object) -> None:
    with pytest.raises(InvalidParameterError, match=r"feature_share .* removed after version 0\.1\.0"):
        SearchSpace.from_dict({"width": [8, 16], "feature_share": domain})
