"""Samplers of Optuna in a search: proposals improve, differ, are in the space, and are reproducible."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest

from parallelmlp_search.exceptions import InvalidParameterError, MissingDependencyError
from parallelmlp_search.search import Problem, RunDirectory, SearchResult, SearchSettings, run
from parallelmlp_search.search.proposals.optuna_sampler import MAX_ASKED, NAMED, OptunaProposals
from parallelmlp_search.search.run.trial import RungRecord, Trial, TrialState
from parallelmlp_search.space import Categorical, Float, Int, MLPConfig, SearchSpace, When

SPACE = SearchSpace(
    {
        "depth": Int(1, 3),
        "width": Int(4, 256, log=True),
        "learning_rate": Float(1e-4, 1e-1, log=True),
        "dropout": Float(0.0, 0.5),
        "activation": Categorical(("relu", "tanh")),
        "residual": Categorical((True, False), when=When("depth", at_least=2)),
    }
)
FINITE = SearchSpace({"width": Int(1, 5), "activation": Categorical(("relu", "tanh"))})

TARGET_RATE = 3e-3


def _error(config: MLPConfig) -> float:
    """Error with its minimum at a learning rate of 0.003, a width of 64 and no dropout."""
    rate = np.log10(config.learning_rate / TARGET_RATE)
    return float(rate**2 + np.log2(config.widths[0] / 64) ** 2 / 8 + config.dropout)


def _scored(
    configs: list[MLPConfig], start: int = 0, rungs: Callable[[int], int] = lambda _: 0
) -> list[Trial]:
    trials = []
    for number, config in enumerate(configs, start=start):
        trial = Trial(number, config, "random", 0, TrialState.PRUNED)
        trial.records.append(RungRecord(0, rungs(number), 1.0, _error(config), 0.0, 0.0))
        trials.append(trial)
    return trials


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("name", [*NAMED, "an object"])
def test_proposals_are_near_elites(name: str) -> None:
    trials = _scored(SPACE.sample(60, _rng()))
    sampler: Any = optuna.samplers.TPESampler(seed=1) if name == "an object" else name
    proposals = OptunaProposals(SPACE, sampler, seed=0)
    for _ in range(3 if name == "cmaes" else 1):  # evolution takes generations
        known = [trial.config for trial in trials]
        configs = proposals.propose(trials, 24, _rng(1), known=known)
        assert len(configs) == 24
        assert len({SPACE.key(config) for config in known + configs}) == len(known) + 24
        assert all(SPACE.contains(config) for config in configs)
        trials += _scored(configs, start=len(trials))
    learned = np.median([_error(config) for config in configs])
    uniform = np.median([_error(config) for config in SPACE.sample(400, _rng(2))])
    assert learned < 0.6 * uniform


def _median_rate(trials: list[Trial]) -> float:
    configs = OptunaProposals(SPACE, "tpe", 0).propose(trials, 20, _rng(), known=[])
    return float(np.median([config.learning_rate for config in configs]))


def test_trials_are_compared_by_rung_before_error() -> None:
    # trials with low rates reach a higher rung in spite of larger errors, so proposals have low rates
    configs = SPACE.sample(80, _rng())
    trials = _scored(configs, rungs=lambda number: int(configs[number].learning_rate < 4e-4))
    assert _median_rate(trials) < 1e-3
    assert _median_rate(_scored(configs)) > 1e-3


@pytest.mark.parametrize("name", NAMED)
def test_proposals_are_a_function_of_the_trials(name: str) -> None:
    trials = _scored(SPACE.sample(30, _rng()))
    first, second = (
        OptunaProposals(SPACE, name, seed=4).propose(trials, 3, _rng(1), known=[]) for _ in range(2)
    )
    other = OptunaProposals(SPACE, name, seed=5).propose(trials, 3, _rng(1), known=[])
    assert first == second != other


@pytest.mark.parametrize("name", ["tpe", "an object"])
def test_a_small_space_is_exhausted(name: str) -> None:
    sampler: Any = optuna.samplers.TPESampler(seed=1) if name == "an object" else name
    proposals = OptunaProposals(FINITE, sampler, seed=0)
    first = proposals.propose([], 6, _rng(), known=[])
    rest = proposals.propose(_scored(first), 6, _rng(1), known=first)
    assert len(first) == 6
    assert len({FINITE.key(config) for config in first + rest}) == 10
    assert proposals.propose(_scored(first + rest), 6, _rng(2), known=first + rest) == []


def test_a_gaussian_process_proposes_a_few_and_the_rest_are_near_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(MAX_ASKED, "gp", 4)
    trials = _scored(SPACE.sample(40, _rng()))
    proposals = OptunaProposals(SPACE, "gp", seed=0)
    configs = proposals.propose(trials, 3 * MAX_ASKED["gp"], _rng(), known=[])
    assert len({SPACE.key(config) for config in configs}) == 3 * MAX_ASKED["gp"]
    asked, near = configs[: MAX_ASKED["gp"]], configs[MAX_ASKED["gp"] :]
    points = np.array([SPACE.to_unit(SPACE.to_values(config)) for config in asked])
    distances = [np.abs(points - SPACE.to_unit(SPACE.to_values(config))).sum(axis=1).min() for config in near]
    far = [
        np.abs(points - SPACE.to_unit(SPACE.to_values(config))).sum(axis=1).min()
        for config in SPACE.sample(100, _rng(3))
    ]
    assert np.median(distances) < 0.5 * np.median(far)


def test_a_slow_sampler_is_asked_only_once() -> None:
    trials = _scored(SPACE.sample(40, _rng()))
    asked = []

    class Slow(optuna.samplers.RandomSampler):
        def before_trial(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
            asked.append(trial.number)

    configs = OptunaProposals(SPACE, Slow(seed=1), seed=0).propose(trials, 12, _rng(), known=[], seconds=0.0)
    assert len(asked) == 1
    assert len({SPACE.key(config) for config in configs}) == 12
    OptunaProposals(SPACE, Slow(seed=1), seed=0).propose(trials, 12, _rng(), known=[])
    assert len(asked) == 1 + 12


def test_the_sampler_of_the_user_is_not_modified() -> None:
    sampler = optuna.samplers.TPESampler(seed=1)
    before = sampler._rng.rng.get_state()[1].tolist()
    OptunaProposals(SPACE, sampler, seed=0).propose(_scored(SPACE.sample(20, _rng())), 5, _rng(), known=[])
    assert sampler._rng.rng.get_state()[1].tolist() == before


def test_a_missing_package_or_sampler_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cmaes", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'parallelmlp-search\[cmaes\]'"):
        OptunaProposals(SPACE, "cmaes", 0)
    with pytest.raises(InvalidParameterError, match="fit again with the same sampler"):
        OptunaProposals(SPACE, "optuna.samplers.TPESampler", 0)


@pytest.mark.parametrize("sampler", ["tpe", "cmaes", "gp", "an object"])
def test_a_search_uses_the_sampler(
    spam: Problem, make_settings: Callable[..., SearchSettings], sampler: str
) -> None:
    given: Any = optuna.samplers.TPESampler(seed=1) if sampler == "an object" else sampler
    result = run(spam, make_settings(sampler=given), n_jobs=1)
    origins = result.trials.drop_duplicates("trial")["origin"].value_counts().to_dict()
    if sampler == "an object":
        assert origins == {"optuna.samplers._tpe.sampler.TPESampler": 20}
    else:
        assert origins == {"random": 6, sampler: 14}


def test_a_resumed_search_proposes_the_same_configurations(
    spam: Problem,
    make_settings: Callable[..., SearchSettings],
    assert_same_table: Callable[[pd.DataFrame, pd.DataFrame], None],
    tmp_path: Path,
) -> None:
    settings = make_settings(sampler="tpe")
    uninterrupted = run(spam, settings, n_jobs=1)
    rungs: list[Any] = []

    def interrupt(progress: Any) -> None:
        if progress.rung_completed:
            rungs.append(progress)
            if len(rungs) == 2:
                raise KeyboardInterrupt

    directory = RunDirectory.create(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        run(spam, settings, directory=directory, callbacks=[interrupt], n_jobs=1)
    resumed = run(spam, directory.settings(), directory=directory, n_jobs=2)
    assert_same_table(resumed.trials, uninterrupted.trials)


def test_a_run_stores_the_class_of_a_sampler_object(
    spam: Problem, make_settings: Callable[..., SearchSettings], tmp_path: Path
) -> None:
    settings = make_settings(sampler=optuna.samplers.RandomSampler(seed=1), n_trials=6)
    directory = RunDirectory.create(tmp_path / "run")
    run(spam, settings, directory=directory, n_jobs=1)
    kept = json.loads((directory.path / "run.json").read_text())["settings"]["sampler"]
    assert kept == directory.settings().sampler == "optuna.samplers._random.RandomSampler"
    with pytest.raises(InvalidParameterError, match="only Python can pass"):
        run(spam, directory.settings(), n_jobs=1)


@pytest.mark.parametrize("sampler", ["tpi", 3, optuna.pruners.NopPruner()])
def test_an_invalid_sampler_is_an_error(sampler: Any) -> None:
    with pytest.raises(InvalidParameterError, match="sampler must be one of random, qmc, grid, tpe"):
        SearchSettings(sampler=sampler)


# ---------------------------------------------------------------------- initial configurations


def _initial(space: SearchSpace) -> tuple[MLPConfig, ...]:
    return tuple(space.sample(3, _rng(9)))


def test_initial_configurations_are_the_first_trials(
    spam: Problem, make_settings: Callable[..., SearchSettings], found: SearchResult
) -> None:
    plain = make_settings()
    initial = _initial(plain.space)
    result = run(spam, make_settings(initial=(*initial, initial[0])), n_jobs=1)
    origins = result.trials.drop_duplicates("trial").set_index("trial")["origin"]
    assert origins[:3].tolist() == ["initial"] * 3
    assert origins.value_counts().to_dict() == {"initial": 3, "random": 3, "refined": 14}
    rates = result.trials.drop_duplicates("trial").set_index("trial")["config_learning_rate"]
    assert rates[:3].tolist() == [config.learning_rate for config in initial]


def test_settings_keep_their_initial_configurations() -> None:
    space = SearchSpace.preset("small")
    settings = SearchSettings(search_space=space, initial=_initial(space), sampler="cmaes")
    assert SearchSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


def test_an_initial_configuration_must_be_in_the_space() -> None:
    with pytest.raises(InvalidParameterError, match="width"):
        SearchSettings(search_space=FINITE, initial=(MLPConfig(widths=(300,)),))
    with pytest.raises(InvalidParameterError, match="initial must hold configurations"):
        SearchSettings(search_space=FINITE, initial=("relu",))  # type: ignore[arg-type]
