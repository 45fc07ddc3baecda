"""Configurations that a search tries, and their order."""

from __future__ import annotations

from typing import Any

import pytest
from optuna.samplers import RandomSampler

from parallelmlp_search.search import SearchSettings
from parallelmlp_search.search.proposals.proposals import Proposals, cheap_share
from parallelmlp_search.search.run.budget import Throughput
from parallelmlp_search.search.run.journal import Journal
from parallelmlp_search.search.run.trial import RungRecord, Trial
from parallelmlp_search.space import TUNED_DEFAULTS, Categorical, MLPConfig, SearchSpace, tuned_defaults_in
from parallelmlp_search.space.config import FIELD_NAMES


def proposed(settings: SearchSettings, n_fresh: int = 40, n: int = 40) -> list[tuple[MLPConfig, str]]:
    proposals = Proposals(settings, Journal(Throughput(1)), n_fresh=n_fresh)
    return proposals.take(0, n, [])


def test_a_search_of_the_default_space_begins_with_tuned_defaults() -> None:
    found = proposed(SearchSettings())
    assert [config for config, _ in found[: len(TUNED_DEFAULTS)]] == list(TUNED_DEFAULTS)
    origins = [origin for _, origin in found]
    assert origins == ["known"] * len(TUNED_DEFAULTS) + ["random"] * (40 - len(TUNED_DEFAULTS))
    identities = {config.identity() for config, _ in found}
    assert len(identities) == 40


def test_initial_configurations_come_first_and_only_once() -> None:
    initial = TUNED_DEFAULTS[1]
    found = proposed(SearchSettings(initial=(initial,)))
    assert found[0] == (initial, "initial")
    assert [config for config, _ in found].count(initial) == 1
    assert [origin for _, origin in found].count("known") == len(TUNED_DEFAULTS) - 1


@pytest.mark.parametrize(("n_fresh", "expected"), [(1, 0), (3, 1), (8, 4), (200, len(TUNED_DEFAULTS))])
def test_tuned_defaults_take_at_most_half_of_the_fresh_trials(n_fresh: int, expected: int) -> None:
    found = proposed(SearchSettings(), n_fresh, n_fresh)
    assert [origin for _, origin in found].count("known") == expected


def test_tuned_defaults_are_not_added_to_other_spaces_and_samplers() -> None:
    space = SearchSpace({"width": Categorical((8, 16)), "learning_rate": Categorical((0.001, 0.01))})
    assert tuned_defaults_in(space) == ()
    assert {origin for _, origin in proposed(SearchSettings(search_space=space), 4, 4)} == {"random"}
    small = SearchSpace(_settings_of(TUNED_DEFAULTS[0]))
    assert tuned_defaults_in(small) == (TUNED_DEFAULTS[0],)
    assert {origin for _, origin in proposed(SearchSettings(search_space=small, sampler="grid"), 4, 4)} == {
        "grid"
    }


def _neurons(config: MLPConfig) -> float:
    return float(sum(config.widths))


def test_cheap_configurations_are_preferred_under_a_time_limit() -> None:
    """The cost applies to fresh proposals and proposals near elites, but not to tuned defaults."""
    settings = SearchSettings()
    journal = Journal(Throughput(1))
    found = {}
    for name, cost in (("plain", None), ("cheap", _neurons)):
        proposals = Proposals(settings, journal, n_fresh=60, n_refined=60, cost=cost)
        fresh = proposals.take(0, 60, [])
        trials = [Trial(n, config, origin, 0) for n, (config, origin) in enumerate(fresh)]
        for trial in trials:
            trial.records.append(RungRecord(0, 0, 1.0, float(trial.number % 7), 0.0, 0.0))
        near = proposals.take(1, 60, trials)
        assert [config for config, _ in fresh[: len(TUNED_DEFAULTS)]] == list(TUNED_DEFAULTS)
        assert len({config.identity() for config, _ in [*fresh, *near]}) == 120
        found[name] = [
            sum(_neurons(config) for config, origin in batch if origin != "known") for batch in (fresh, near)
        ]
    assert found["cheap"][0] < 0.8 * found["plain"][0]
    assert found["cheap"][1] < 0.8 * found["plain"][1]


@pytest.mark.parametrize("sampler", ["qmc", "grid"])
def test_evenly_spread_points_ignore_the_cost(sampler: str) -> None:
    settings = SearchSettings(sampler=sampler)
    journal = Journal(Throughput(1))
    plain, cheap = (
        Proposals(settings, journal, n_fresh=30, cost=cost).take(0, 30, []) for cost in (None, _neurons)
    )
    assert plain == cheap


@pytest.mark.parametrize("sampler", ["random", "qmc", "grid", "tpe", RandomSampler(seed=0)])
def test_the_share_of_proposals_that_prefer_cheap_ones_is_known(sampler: Any) -> None:
    settings = SearchSettings(sampler=sampler, refinement=0.25)
    weighed: list[MLPConfig] = []

    def cost(config: MLPConfig) -> float:
        weighed.append(config)
        return 1.0

    n_refined = round(40 * settings.refined_share)
    proposals = Proposals(
        settings, Journal(Throughput(1)), n_fresh=40 - n_refined, n_refined=n_refined, cost=cost
    )
    share, trials = 0.0, []
    for number, n in enumerate((40 - n_refined, n_refined)):
        weighed.clear()
        trials = [
            Trial(k, config, origin, 0)
            for k, (config, origin) in enumerate(proposals.take(number, n, trials))
        ]
        for trial in trials:
            trial.records.append(RungRecord(0, 0, 1.0, float(trial.number % 7), 0.0, 0.0))
        share += n / 40 if weighed else 0.0
    assert share == pytest.approx(cheap_share(settings))


def _settings_of(config: MLPConfig) -> dict[str, Categorical]:
    return {name: Categorical((getattr(config, name),)) for name in FIELD_NAMES if name != "seed"}


def test_an_extension_keeps_the_proportion_of_fresh_and_refined() -> None:
    proposals = Proposals(SearchSettings("small", refinement=0.25), Journal(Throughput(1)), n_fresh=0)
    assert proposals.wanted(100) == 0
    proposals.extend(40)
    assert proposals.wanted(100) == 30
    proposals.take(0, 30, [])
    assert 0 < proposals.wanted(100) <= 10


def test_a_grid_is_extended_by_points_of_a_grid() -> None:
    settings = SearchSettings(sampler="grid")
    proposals = Proposals(settings, Journal(Throughput(1)), n_fresh=0)
    proposals.extend(40)
    found = proposals.take(0, proposals.wanted(100), [])
    assert [origin for _, origin in found] == ["grid"] * 40
    assert proposals.wanted(100) == 0
