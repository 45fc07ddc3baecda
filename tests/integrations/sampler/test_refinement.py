"""Refinement sampler: comparison with random search, seeds, repetitions, inheritance, cost."""

from __future__ import annotations

import itertools
import math
import pickle
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import (
    BaseDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from benchmarks.refinement_sampler import DOCS, conditional
from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.integrations.optuna import RefinementSampler, optimize
from parallelmlp_search.integrations.optuna.sampler.refinement import MUTATION_REACHES
from tests.integrations.conftest import SPACE, Table

X = FloatDistribution(0.0, 1.0)


def _run(sampler: BaseSampler, n_trials: int, **options: Any) -> optuna.Study:
    study = optuna.create_study(sampler=sampler, **options)
    study.optimize(conditional, n_trials=n_trials)
    return study


def _params(study: optuna.Study) -> list[dict[str, Any]]:
    return [trial.params for trial in study.trials]


def _frozen(value: float | None = None, x: float = 0.5, **options: Any) -> FrozenTrial:
    values = options.pop("values", None)
    return create_trial(params={"x": x}, distributions={"x": X}, value=value, values=values, **options)


def _pruned(reports: dict[int, float], **options: Any) -> FrozenTrial:
    return _frozen(state=TrialState.PRUNED, intermediate_values=reports, **options)


def test_it_beats_random_search_at_equal_trials() -> None:
    ours = [_run(RefinementSampler(seed=seed), 100).best_value for seed in range(20)]
    random = [_run(RandomSampler(seed=seed), 100).best_value for seed in range(20)]
    assert np.median(ours) < 0.5 * np.median(random)
    assert sum(a < b for a, b in zip(ours, random, strict=True)) >= 16
    # without refinement it is random search
    startup = [_run(RefinementSampler(seed=seed, n_startup_trials=100), 100).best_value for seed in range(20)]
    assert np.median(startup) > 0.7 * np.median(random)


def test_the_same_seed_gives_the_same_trials() -> None:
    first, second, other = (_run(RefinementSampler(seed=seed), 50) for seed in (7, 7, 8))
    assert _params(first) == _params(second)
    assert _params(first) != _params(other)
    assert _params(_run(RefinementSampler(), 2)) != _params(_run(RefinementSampler(), 2))


def test_reseeding_gives_other_trials() -> None:
    reseeded = RefinementSampler(seed=7)
    reseeded.reseed_rng()
    assert _params(_run(reseeded, 5)) != _params(_run(RefinementSampler(seed=7), 5))


@pytest.mark.parametrize("when", [10, 40])
def test_a_pickled_sampler_continues_the_same_trials(when: int) -> None:
    whole = _run(RefinementSampler(seed=3), 50)
    study = _run(RefinementSampler(seed=3), when)
    study.sampler = pickle.loads(pickle.dumps(study.sampler))
    study.optimize(conditional, n_trials=50 - when)
    assert _params(study) == _params(whole)


def test_threads_can_share_a_sampler() -> None:
    sampler = RefinementSampler(seed=0, n_startup_trials=10)
    study = _run(sampler, 0)
    study.optimize(conditional, n_trials=120, n_jobs=4)
    assert all(trial.state is TrialState.COMPLETE for trial in study.trials)
    assert len({tuple(params.items()) for params in _params(study)}) == 120


def test_studies_with_one_sampler_are_independent() -> None:
    sampler = RefinementSampler(seed=1, n_startup_trials=5)
    storage = optuna.storages.InMemoryStorage()
    studies = [optuna.create_study(storage=storage, sampler=sampler) for _ in range(2)]
    for _ in range(30):
        for study in studies:
            study.optimize(conditional, n_trials=1)
    alone = _run(RefinementSampler(seed=1, n_startup_trials=5), 30)
    assert _params(studies[0]) == _params(studies[1]) == _params(alone)


@pytest.mark.parametrize("told", [0, 40])
def test_untold_trials_of_a_batch_are_all_different(told: int) -> None:
    study = _run(RefinementSampler(seed=0), told)
    for _ in range(200):
        conditional(study.ask())
    assert len({tuple(params.items()) for params in _params(study)}) == told + 200


def test_trials_that_suggest_after_all_are_asked_are_all_different() -> None:
    study = optuna.create_study(sampler=RefinementSampler(seed=0, n_startup_trials=4))
    for _ in range(3):
        trials = [study.ask() for _ in range(8)]
        pairs = [(one.suggest_int("a", 0, 5), one.suggest_categorical("b", "pqrs")) for one in trials]
        for trial, (a, b) in zip(trials, pairs, strict=True):
            study.tell(trial, a + (b == "p"))
    assert len({tuple(params.values()) for params in _params(study)}) == 24  # the space has no more


def _small(trial: optuna.Trial) -> float:
    """18 configurations: 2 + 4 x 4."""
    if trial.suggest_categorical("kind", ["plain", "wide"]) == "plain":
        return float(trial.suggest_int("a", 0, 1))
    return trial.suggest_float("b", 0.1, 0.4, step=0.1) + trial.suggest_int("c", 1, 64, step=21)


@pytest.mark.parametrize("storage", [None, "sqlite:///{}/study.db"])
def test_a_small_space_is_exhausted_before_a_trial_is_repeated(storage: str | None, tmp_path: Path) -> None:
    place = storage and storage.format(tmp_path)
    study = optuna.create_study(storage=place, sampler=RefinementSampler(seed=0, n_startup_trials=3))
    study.optimize(_small, n_trials=18)
    assert len({tuple(params.items()) for params in _params(study)}) == 18
    study.optimize(_small, n_trials=3)  # all are tried, and trials are repeated
    assert len(study.trials) == 21
    plain = optuna.create_study(sampler=RandomSampler(seed=0))
    plain.optimize(_small, n_trials=18)
    assert len({tuple(params.items()) for params in _params(plain)}) < 18


def test_trials_from_elsewhere_are_not_repeated() -> None:
    study = optuna.create_study(sampler=RefinementSampler(seed=0, n_startup_trials=3))
    distributions: dict[str, BaseDistribution] = {"a": IntDistribution(0, 3), "b": IntDistribution(0, 2)}
    for a, b in itertools.product(range(4), range(3)):
        if (a, b) not in ((2, 1), (3, 2)):
            params = {"a": a, "b": b}
            study.add_trial(create_trial(params=params, distributions=distributions, value=float(a)))
    rest = [study.ask(distributions).params for _ in range(2)]
    assert sorted(tuple(params.values()) for params in rest) == [(2, 1), (3, 2)]


def test_a_child_that_equals_its_parent_is_moved() -> None:
    # half of the children would equal the parent
    study = optuna.create_study(sampler=RefinementSampler(seed=0, n_startup_trials=1, n_elites=1))
    study.enqueue_trial({"x": 0.5, "c": "p"})

    def objective(trial: optuna.Trial) -> float:
        return trial.suggest_float("x", 0, 1) + (trial.suggest_categorical("c", "pq") == "q")

    study.optimize(objective, n_trials=60)
    assert len({tuple(params.values()) for params in _params(study)}) == 60


def test_enqueued_and_fixed_parameters_are_kept() -> None:
    study = _run(RefinementSampler(seed=0, n_startup_trials=5), 20)
    study.enqueue_trial({"depth": 1, "optimizer": "lion"})
    study.optimize(conditional, n_trials=1)
    params = study.trials[-1].params
    assert (params["depth"], params["optimizer"]) == (1, "lion")
    assert params.keys() == {"depth", "width_0", "learning_rate", "optimizer"}


def _children(trials: Sequence[FrozenTrial], n: int, **options: Any) -> list[dict[str, Any]]:
    study = optuna.create_study(sampler=RefinementSampler(n_startup_trials=1, seed=0, **options))
    study.add_trials(trials)
    distributions = {f"x{index}": X for index in range(8)}
    return [study.ask(distributions).params for _ in range(n)]


def _point(value: float, level: float) -> FrozenTrial:
    names = [f"x{index}" for index in range(8)]
    return create_trial(
        params=dict.fromkeys(names, level), distributions=dict.fromkeys(names, X), value=value
    )


def test_about_two_parameters_of_a_parent_move() -> None:
    children = _children([_point(0.0, 0.5)], 300, crossover_share=0.0)
    moved = [[value - 0.5 for value in child.values() if value != 0.5] for child in children]
    counts = [len(one) for one in moved]
    assert min(counts) == 1
    assert 1.8 < np.mean(counts) < 2.5
    steps = np.abs(np.concatenate(moved))
    # the median of |N(0, s)| is 0.67 s, and s is one of three
    assert 0.67 * MUTATION_REACHES[0] < np.median(steps) < 0.67 * MUTATION_REACHES[2]
    assert steps.max() > 0.4
    assert np.mean(steps < 0.02) > 0.05


def test_a_crossover_inherits_from_both_parents_and_moves_little() -> None:
    parents = [_point(0.0, 0.25), _point(1.0, 0.75)]
    crossed = [list(child.values()) for child in _children(parents, 200, crossover_share=1.0)]
    mixed = [child for child in crossed if {0.25, 0.75} <= set(child)]
    assert len(mixed) > 60  # both parents are the same trial in five of nine draws
    assert all(min(abs(x - 0.25), abs(x - 0.75)) < 0.25 for child in crossed for x in child)
    alone = [list(child.values()) for child in _children(parents, 200, crossover_share=0.0)]
    assert not any({0.25, 0.75} <= set(child) for child in alone)


def test_better_elites_have_more_children() -> None:
    levels = np.linspace(0.1, 0.9, 15)
    points = [_point(float(rank), float(level)) for rank, level in enumerate(levels)]
    counts = dict.fromkeys(range(15), 0)
    for child in _children(points, 600, crossover_share=0.0):
        values = list(child.values())
        common = max(set(values), key=values.count)
        if common in levels:
            counts[int(np.flatnonzero(levels == common)[0])] += 1
    assert counts[0] > counts[5] > counts[11] > 0
    assert counts[12] == counts[13] == counts[14] == 0


def test_startup_trials_are_random() -> None:
    study = optuna.create_study(sampler=RefinementSampler(n_startup_trials=6, seed=0))
    study.add_trials([_frozen(float(value)) for value in range(4)])
    study.add_trials([_frozen(state=TrialState.FAIL), _frozen(state=TrialState.RUNNING)])
    study.add_trial(_pruned({0: 1.0}))  # the fifth finished trial
    drawn = [study.ask({"x": X, "y": X}).params["x"] for _ in range(20)]
    assert 0.5 not in drawn
    study.add_trial(_frozen(9.0))
    drawn = [study.ask({"x": X, "y": X}).params["x"] for _ in range(20)]
    assert 0.5 in drawn or np.std(drawn) < 0.25


def test_several_objectives_are_refined() -> None:
    def objective(trial: optuna.Trial) -> tuple[float, float]:
        x = [trial.suggest_float(f"x{index}", 0, 1) for index in range(6)]
        far = sum((value - 0.5) ** 2 for value in x[1:])
        return x[0] + far, 1.0 - x[0] + far

    volumes = []
    for sampler in (RefinementSampler(seed=0), RandomSampler(seed=0)):
        study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
        study.optimize(objective, n_trials=150)
        volumes.append(min(sum(trial.values) for trial in study.best_trials))
    assert volumes[0] < 0.5 + 0.5 * volumes[1]
    assert volumes[0] < 1.0 + 0.5 * (volumes[1] - 1.0)


def test_brackets_of_hyperband_share_their_elites() -> None:
    def objective(trial: optuna.Trial) -> float:
        value = conditional(trial)
        for step in range(1, 10):
            trial.report(value + 1.0 / step, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return value

    pruner = optuna.pruners.HyperbandPruner(min_resource=1, max_resource=9, reduction_factor=3)
    sampler = RefinementSampler(seed=0, n_startup_trials=8)
    study = optuna.create_study(study_name="brackets", sampler=sampler, pruner=pruner)
    study.optimize(objective, n_trials=60)
    (records,) = sampler._records.values()
    (record,) = records.values()
    assert record.elites.n_finished == 59
    assert {trial.state for trial in study.trials} == {TrialState.COMPLETE, TrialState.PRUNED}
    assert study.best_value < 1.0


def test_finished_trials_are_not_read_again() -> None:
    study = optuna.create_study(sampler=RefinementSampler(seed=0, n_startup_trials=2))
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=300)
    (records,) = study.sampler._records.values()
    (record,) = records.values()
    study.ask()
    assert len(record._unfinished) <= 1
    assert len(record.plans) <= 2
    assert len(record.elites._ordered) == 12


def test_threads_can_ask_one_study() -> None:
    study = optuna.create_study(sampler=RefinementSampler(seed=0, n_startup_trials=4))
    errors: list[BaseException] = []

    def ask() -> None:
        try:
            for _ in range(20):
                trial = study.ask()
                study.tell(trial, conditional(trial))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(study.trials) == 120


@pytest.mark.parametrize("storage", [None, "sqlite:///{}/study.db"])
def test_packed_trials_are_refined(table: Table, storage: str | None, tmp_path: Path) -> None:
    sampler = RefinementSampler(seed=0, n_startup_trials=16)
    place = storage and storage.format(tmp_path)
    study = optuna.create_study(storage=place, direction="maximize", sampler=sampler)
    optimize(study, *table, SPACE, n_trials=48, batch_size=16, max_epochs=3)
    assert all(trial.state.is_finished() for trial in study.trials)
    assert len({tuple(params.items()) for params in _params(study)}) == 48
    rates = [math.log10(params["learning_rate"]) for params in _params(study)]
    assert len(set(rates[:16])) == 16
    assert set(rates[16:]) & set(rates[:16])  # children inherit most values


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"n_startup_trials": -1}, "n_startup_trials must be an integer >= 0, but got -1"),
        ({"n_startup_trials": 2.5}, "n_startup_trials must be an integer"),
        ({"n_elites": 0}, "n_elites must be an integer >= 1, but got 0"),
        ({"n_elites": True}, "n_elites must be an integer"),
        ({"crossover_share": 1.5}, r"crossover_share must be in \[0, 1\], but got 1.5"),
        ({"crossover_share": math.nan}, "crossover_share must be a finite number"),
        ({"seed": -1}, "seed must be an integer >= 0, but got -1"),
        ({"seed": "0"}, "seed must be an integer"),
    ],
)
def test_invalid_parameters_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidParameterError, match=words):
        RefinementSampler(**changes)


@pytest.mark.parametrize("name", ["n_startup_trials", "n_elites", "crossover_share"])
def test_the_document_names_the_defaults(name: str) -> None:
    default = (RefinementSampler.__init__.__kwdefaults__ or {})[name]
    assert re.search(rf"`{name}` \({default}\)", DOCS.read_text(encoding="utf-8"))
