"""Configurations proposed from a space: distinct, in the space, exhaustive if finite, and near elites."""

from __future__ import annotations

import math

import numpy as np
import pytest

from parallelmlp_search.search import SAMPLERS, Trial, TrialState
from parallelmlp_search.search.proposals.samplers import (
    MAX_LISTED,
    N_ELITES,
    propose_cheap,
    propose_fresh,
    propose_near,
)
from parallelmlp_search.search.run.trial import RungRecord
from parallelmlp_search.space import Categorical, Float, Int, MLPConfig, SearchSpace, When

CONTINUOUS = SearchSpace(
    {
        "depth": Int(1, 3),
        "width": Int(4, 64, log=True),
        "activation": Categorical(("relu", "tanh")),
        "learning_rate": Float(1e-4, 1e-1, log=True),
        "normalization": Categorical(("none", "layer"), when=When("depth", at_least=2)),
    }
)
FINITE = SearchSpace({"width": Int(1, 5), "activation": Categorical(("relu", "tanh"))})
SEEDED = SearchSpace({"width": Int(2, 3), "seed": Int(0, 4)})
SINGLE = SearchSpace({"width": Categorical((7,))})


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def _keys(space: SearchSpace, configs: list[MLPConfig]) -> set[object]:
    return {space.key(config) for config in configs}


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(
    ("space", "n"),
    [(space, n) for space in (CONTINUOUS, FINITE, SEEDED, SINGLE) for n in (1, 7, 60)]
    + [(SearchSpace.preset("default"), 60)],
)
def test_proposals_differ_and_are_in_the_space(space: SearchSpace, sampler: str, n: int) -> None:
    configs = propose_fresh(space, sampler, n, _rng(), known=[])
    assert len(configs) == min(n, space.size())
    assert len(_keys(space, configs)) == len(configs)
    assert all(space.contains(config) for config in configs)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_known_configurations_are_not_proposed_again(sampler: str) -> None:
    first = propose_fresh(FINITE, sampler, 6, _rng(1), known=[])
    second = propose_fresh(FINITE, sampler, 6, _rng(2), known=first)
    assert len(second) == 4
    assert not _keys(FINITE, first) & _keys(FINITE, second)
    assert propose_fresh(FINITE, sampler, 6, _rng(3), known=first + second) == []


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_seeds_in_the_space_distinguish_configurations(sampler: str) -> None:
    configs = propose_fresh(SEEDED, sampler, 100, _rng(), known=[])
    assert sorted((config.widths, config.seed) for config in configs) == [
        ((width,), seed) for width in (2, 3) for seed in range(5)
    ]


@pytest.mark.parametrize("sampler", ["random", "qmc"])
def test_proposals_depend_on_the_generator_only(sampler: str) -> None:
    configs = propose_fresh(CONTINUOUS, sampler, 20, _rng(4), known=[])
    assert configs == propose_fresh(CONTINUOUS, sampler, 20, _rng(4), known=[])
    assert configs != propose_fresh(CONTINUOUS, sampler, 20, _rng(5), known=[])


def test_the_grid_of_a_continuous_space_is_as_coarse_as_possible() -> None:
    few = propose_fresh(CONTINUOUS, "grid", 4, _rng(), known=[])
    many = propose_fresh(CONTINUOUS, "grid", 200, _rng(), known=[])
    assert len({config.learning_rate for config in few}) < len({config.learning_rate for config in many})


def test_points_of_a_large_grid_are_spread_over_it() -> None:
    """The first points of the grid all have the same depth."""
    listed = propose_fresh(CONTINUOUS, "grid", 13, _rng(), known=[])
    n_larger = CONTINUOUS.grid_size(2)
    assert 13 < n_larger < 60
    assert {config.depth for config in listed} == {1, 3}
    assert {CONTINUOUS.key(config) for config in listed} < _keys(CONTINUOUS, CONTINUOUS.grid(2))
    again = propose_fresh(CONTINUOUS, "grid", n_larger - 13, _rng(1), known=listed)
    assert _keys(CONTINUOUS, listed + again) == _keys(CONTINUOUS, CONTINUOUS.grid(2))


def test_a_large_grid_is_not_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    space = SearchSpace.preset("default")
    assert space.grid_size(1) > MAX_LISTED

    def never(*_: object) -> None:
        raise AssertionError("the grid was listed")

    monkeypatch.setattr(SearchSpace, "grid", never)
    configs = propose_fresh(space, "grid", 60, _rng(), known=[])
    more = propose_fresh(space, "grid", 60, _rng(), known=configs)
    assert len(_keys(space, configs + more)) == 120
    assert len({config.learning_rate for config in configs}) == 1  # the coarsest grid has one value
    assert len({config.activation for config in configs}) > 3


def test_qmc_points_leave_no_large_gaps() -> None:
    space = SearchSpace({"width": Categorical((4,)), "learning_rate": Float(1e-4, 1e-1, log=True)})

    def largest_gap(sampler: str, seed: int) -> float:
        configs = propose_fresh(space, sampler, 64, _rng(seed), known=[])
        points = np.sort([math.log10(config.learning_rate) for config in configs])
        return float(np.diff(np.concatenate([[-4.0], points, [-1.0]])).max())

    quasi = [largest_gap("qmc", seed) for seed in range(8)]
    plain = [largest_gap("random", seed) for seed in range(8)]
    assert max(quasi) < min(plain)


# ---------------------------------------------------------------------- near the elites


def _trial(number: int, config: MLPConfig, error: float, rung: int = 0) -> Trial:
    return Trial(number, config, "random", 0, records=[RungRecord(0, rung, 1.0, error, 0.1, 0.0)])


def _trials(space: SearchSpace, n: int) -> list[Trial]:
    """Trials whose error is the distance of their learning rate from 0.01, in decades."""
    configs = propose_fresh(space, "random", n, _rng(9), known=[])
    return [
        _trial(number, config, abs(math.log10(config.learning_rate) + 2))
        for number, config in enumerate(configs)
    ]


def test_proposals_near_elites_are_new_and_in_the_space() -> None:
    trials = _trials(CONTINUOUS, 60)
    known = [trial.config for trial in trials]
    configs = propose_near(CONTINUOUS, trials, 40, _rng(), known=known)
    assert len(configs) == 40
    assert all(CONTINUOUS.contains(config) for config in configs)
    assert len(_keys(CONTINUOUS, configs + known)) == 100


def test_proposals_near_elites_are_nearer_than_fresh_ones() -> None:
    trials = _trials(CONTINUOUS, 60)
    near = propose_near(CONTINUOUS, trials, 40, _rng(), known=[])
    fresh = propose_fresh(CONTINUOUS, "random", 40, _rng(), known=[])

    def distance(configs: list[MLPConfig]) -> float:
        return float(np.mean([abs(math.log10(config.learning_rate) + 2) for config in configs]))

    assert distance(near) < 0.6 * distance(fresh)


def test_only_elites_are_parents() -> None:
    """All elites are narrow and the others wide, so no child is wide."""
    space = SearchSpace({"width": Int(1, 1000), "activation": Categorical(("relu", "tanh"))})
    trials = [_trial(n, MLPConfig(widths=(5,), seed=n), 0.1) for n in range(N_ELITES)]
    others = [_trial(n + N_ELITES, MLPConfig(widths=(995,)), 0.9) for n in range(N_ELITES)]
    children = propose_near(space, trials + others, 15, _rng(), known=[])
    assert children
    assert max(config.widths[0] for config in children) < 900
    from_others = propose_near(space, others, 15, _rng(), known=[])
    assert max(config.widths[0] for config in from_others) > 900


def test_a_higher_rung_ranks_above_a_lower_error() -> None:
    space = SearchSpace({"width": Int(1, 1000)})
    high = [_trial(n, MLPConfig(widths=(5,)), 0.5, rung=2) for n in range(N_ELITES)]
    low = [_trial(n + N_ELITES, MLPConfig(widths=(995,)), 0.1, rung=0) for n in range(N_ELITES)]
    children = propose_near(space, high + low, 10, _rng(), known=[])
    assert max(config.widths[0] for config in children) < 900


def test_failed_and_unscored_trials_are_no_elites() -> None:
    config = MLPConfig(widths=(5,))
    failed = _trial(0, config, 0.1)
    failed.state = TrialState.FAILED
    unscored = Trial(1, config, "random", 0)
    trials = [failed, unscored, _trial(2, config, math.nan)]
    assert propose_near(CONTINUOUS, trials, 5, _rng(), known=[]) == []
    assert propose_near(CONTINUOUS, [], 5, _rng(), known=[]) == []


def test_proposals_near_elites_exhaust_a_small_space() -> None:
    trials = [_trial(n, config, 0.1 * n) for n, config in enumerate(FINITE.grid()[:8])]
    configs = propose_near(FINITE, trials, 50, _rng(), known=[trial.config for trial in trials])
    assert _keys(FINITE, configs) <= _keys(FINITE, FINITE.grid()[8:])
    only = [_trial(0, MLPConfig(widths=(7,)), 0.1)]
    assert propose_near(SINGLE, only, 3, _rng(), known=[only[0].config]) == []


def test_children_of_one_elite_have_different_seeds() -> None:
    trials = _trials(CONTINUOUS, 1)
    children = propose_near(CONTINUOUS, trials, 12, _rng(), known=[])
    assert len({child.seed for child in children}) == 12
    named = [_trial(0, MLPConfig(widths=(2,), seed=1), 0.1)]
    assert all(child.seed in range(5) for child in propose_near(SEEDED, named, 5, _rng(), known=[]))


@pytest.mark.parametrize("ratio", [2.0, 10.0])
def test_the_probability_decreases_with_the_cost(ratio: float) -> None:
    """The probability of the expensive configuration of two is ``1 / (1 + ratio)``."""
    cheap, expensive = MLPConfig(widths=(4,)), MLPConfig(widths=(5,))
    rng = _rng()

    def cost(config: MLPConfig) -> float:
        return ratio if config is expensive else 1.0

    taken = [propose_cheap(lambda n: [cheap, expensive], 1, cost, rng)[0] for _ in range(4000)]
    share = sum(config is expensive for config in taken) / len(taken)
    expected = 1.0 / (1.0 + ratio)
    assert share == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / len(taken)))


def test_cheap_proposals_have_no_duplicates_and_keep_few_candidates() -> None:
    configs = propose_fresh(CONTINUOUS, "random", 20, _rng(), known=[])
    taken = propose_cheap(lambda n: configs, 8, lambda config: float(sum(config.widths)), _rng())
    assert len(_keys(CONTINUOUS, taken)) == 8
    assert _keys(CONTINUOUS, taken) < _keys(CONTINUOUS, configs)
    assert propose_cheap(lambda n: configs[:3], 8, lambda config: 1.0, _rng()) == configs[:3]
    assert propose_cheap(lambda n: configs[:n], 8, None, _rng()) == configs[:8]
