"""Our refinement as a sampler of Optuna: its contract, what it learns from, and that nothing comes twice."""

from __future__ import annotations

import itertools
import json
import math
import pickle
import re
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import StudyDirection
from optuna.testing.pytest_samplers import BasicSamplerTestCase, MultiObjectiveSamplerTestCase
from optuna.trial import FrozenTrial, TrialState, create_trial

from benchmarks.publishing import between
from benchmarks.refinement_sampler import DOCS, MARKS, RESULTS, conditional, table
from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.integrations.optuna import RefinementSampler, optimize
from parallelmlp_search.integrations.optuna.sampler.axes import Axis
from parallelmlp_search.integrations.optuna.sampler.elites import Elites
from parallelmlp_search.integrations.optuna.sampler.refinement import MUTATION_REACHES
from tests.integrations.conftest import SPACE, Table

X = FloatDistribution(0.0, 1.0)
DOWN, UP = StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE


class _Contract:
    """The sampler that Optuna's own suite is to test: while it draws at random, and while it refines."""

    @pytest.fixture(params=[100, 0, 3])
    def sampler(self, request: pytest.FixtureRequest) -> Callable[[], BaseSampler]:
        return lambda: RefinementSampler(n_startup_trials=request.param, seed=0)


class TestBasicContract(_Contract, BasicSamplerTestCase):
    pass


class TestMultiObjectiveContract(_Contract, MultiObjectiveSamplerTestCase):
    pass


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
    # and it is the refinement that does it
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
def test_a_pickled_sampler_goes_on_as_it_would_have(when: int) -> None:
    whole = _run(RefinementSampler(seed=3), 50)
    study = _run(RefinementSampler(seed=3), when)
    study.sampler = pickle.loads(pickle.dumps(study.sampler))
    study.optimize(conditional, n_trials=50 - when)
    assert _params(study) == _params(whole)


def test_threads_share_a_sampler() -> None:
    sampler = RefinementSampler(seed=0, n_startup_trials=10)
    study = _run(sampler, 0)
    study.optimize(conditional, n_trials=120, n_jobs=4)
    assert all(trial.state is TrialState.COMPLETE for trial in study.trials)
    assert len({tuple(params.items()) for params in _params(study)}) == 120


def test_two_studies_share_a_sampler_and_nothing_else() -> None:
    sampler = RefinementSampler(seed=1, n_startup_trials=5)
    storage = optuna.storages.InMemoryStorage()
    studies = [optuna.create_study(storage=storage, sampler=sampler) for _ in range(2)]
    for _ in range(30):
        for study in studies:
            study.optimize(conditional, n_trials=1)
    alone = _run(RefinementSampler(seed=1, n_startup_trials=5), 30)
    assert _params(studies[0]) == _params(studies[1]) == _params(alone)


# Batches and repetitions


@pytest.mark.parametrize("told", [0, 40])
def test_a_batch_that_is_asked_for_without_telling_is_all_different(told: int) -> None:
    study = _run(RefinementSampler(seed=0), told)
    for _ in range(200):
        conditional(study.ask())
    assert len({tuple(params.items()) for params in _params(study)}) == told + 200


def test_asking_first_and_suggesting_later_is_all_different_as_well() -> None:
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
def test_a_small_space_is_exhausted_before_anything_comes_twice(storage: str | None, tmp_path: Path) -> None:
    place = storage and storage.format(tmp_path)
    study = optuna.create_study(storage=place, sampler=RefinementSampler(seed=0, n_startup_trials=3))
    study.optimize(_small, n_trials=18)
    assert len({tuple(params.items()) for params in _params(study)}) == 18
    study.optimize(_small, n_trials=3)  # nothing new is left, and it goes on all the same
    assert len(study.trials) == 21
    plain = optuna.create_study(sampler=RandomSampler(seed=0))
    plain.optimize(_small, n_trials=18)
    assert len({tuple(params.items()) for params in _params(plain)}) < 18


def test_trials_of_others_are_not_repeated() -> None:
    study = optuna.create_study(sampler=RefinementSampler(seed=0, n_startup_trials=3))
    distributions: dict[str, BaseDistribution] = {"a": IntDistribution(0, 3), "b": IntDistribution(0, 2)}
    for a, b in itertools.product(range(4), range(3)):
        if (a, b) not in ((2, 1), (3, 2)):
            params = {"a": a, "b": b}
            study.add_trial(create_trial(params=params, distributions=distributions, value=float(a)))
    rest = [study.ask(distributions).params for _ in range(2)]
    assert sorted(tuple(params.values()) for params in rest) == [(2, 1), (3, 2)]


def test_a_copy_is_moved_off_a_continuous_parent() -> None:
    # only a choice of two is free to move, so half of the children would be the parent itself
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


# What a trial takes from its parents


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
    # the median of |N(0, s)| is 0.67 s: the three reaches are in it, fine and coarse
    assert 0.67 * MUTATION_REACHES[0] < np.median(steps) < 0.67 * MUTATION_REACHES[2]
    assert steps.max() > 0.4
    assert np.mean(steps < 0.02) > 0.05


def test_a_cross_takes_from_both_and_moves_little() -> None:
    parents = [_point(0.0, 0.25), _point(1.0, 0.75)]
    crossed = [list(child.values()) for child in _children(parents, 200, crossover_share=1.0)]
    mixed = [child for child in crossed if {0.25, 0.75} <= set(child)]
    assert len(mixed) > 60  # both parents are the same in five of nine draws
    assert all(min(abs(x - 0.25), abs(x - 0.75)) < 0.25 for child in crossed for x in child)
    alone = [list(child.values()) for child in _children(parents, 200, crossover_share=0.0)]
    assert not any({0.25, 0.75} <= set(child) for child in alone)


def test_better_leaders_have_more_children() -> None:
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


def test_startup_trials_ignore_the_leaders() -> None:
    study = optuna.create_study(sampler=RefinementSampler(n_startup_trials=6, seed=0))
    study.add_trials([_frozen(float(value)) for value in range(4)])
    study.add_trials([_frozen(state=TrialState.FAIL), _frozen(state=TrialState.RUNNING)])
    study.add_trial(_pruned({0: 1.0}))  # counts, and makes five
    drawn = [study.ask({"x": X, "y": X}).params["x"] for _ in range(20)]
    assert 0.5 not in drawn
    study.add_trial(_frozen(9.0))
    drawn = [study.ask({"x": X, "y": X}).params["x"] for _ in range(20)]
    assert 0.5 in drawn or np.std(drawn) < 0.25


@pytest.mark.parametrize(
    ("old", "value", "new", "fits"),
    [
        (FloatDistribution(0, 10), 3.0, FloatDistribution(0, 5), True),
        (FloatDistribution(0, 10), 7.0, FloatDistribution(0, 5), False),
        (FloatDistribution(0, 10), 3.25, FloatDistribution(0, 5, step=0.5), False),
        (FloatDistribution(0, 10), 3.5, FloatDistribution(0, 5, step=0.5), True),
        (IntDistribution(0, 10), 3, FloatDistribution(0, 5), False),
        (IntDistribution(0, 10), 3, IntDistribution(1, 9, step=2), True),
        (IntDistribution(0, 10), 4, IntDistribution(1, 9, step=2), False),
        (CategoricalDistribution("ab"), "a", CategoricalDistribution("ab"), True),
        (CategoricalDistribution("ab"), "a", CategoricalDistribution("abc"), False),
    ],
)
def test_a_value_of_another_distribution_is_taken_where_it_fits(
    old: BaseDistribution, value: Any, new: BaseDistribution, fits: bool
) -> None:
    assert Axis.of(new).accepts(old, value) is fits


@pytest.mark.parametrize(
    "choices", [("a", None, True, 2.5), (1, 2, 4), (3, 1), (float("nan"), 1.0), (0,), (-1, True)]
)
def test_any_choices_have_places(choices: tuple[Any, ...]) -> None:
    axis = Axis.of(CategoricalDistribution(choices))
    for choice in choices:
        assert axis.domain.contains(axis.encode(choice))
        assert axis.decode(axis.encode(choice)) is choice
    with pytest.raises(InvalidParameterError, match="float, int or categorical"):
        Axis.of(None)  # type: ignore[arg-type]


def test_choices_in_rising_order_have_neighbours() -> None:
    rng = np.random.default_rng(0)
    near = {Axis.of(CategoricalDistribution(range(20))).domain.neighbour(10, rng, 0.02) for _ in range(50)}
    assert near == {9, 11}
    words = Axis.of(CategoricalDistribution([str(index) for index in range(20)]))
    assert len({words.domain.neighbour("10", rng, 0.02) for _ in range(200)}) == 19


# Who leads


def _order(trials: Sequence[FrozenTrial], *directions: StudyDirection, count: int = 12) -> list[int]:
    leaders = Elites(directions, count)
    for number, trial in enumerate(trials):
        trial.number = number
        leaders.add(trial)
    return [trial.number for trial in leaders.best(np.random.default_rng(0))]


def test_complete_trials_lead_then_pruned_ones_that_came_far() -> None:
    trials = [
        _pruned({1: 0.1}),
        _frozen(3.0),
        _pruned({1: 0.0, 3: 9.0}),
        _frozen(1.0),
        _frozen(state=TrialState.FAIL),
        _pruned({1: 0.05}),
        _pruned({}),  # never reported
        _frozen(math.inf),
        _frozen(-math.inf),
        _pruned({5: math.nan}),
        _frozen(state=TrialState.RUNNING),
        _frozen(2.0),
    ]
    assert _order(trials, DOWN) == [3, 11, 1, 2, 5, 0]
    assert _order(trials, UP) == [1, 11, 3, 2, 0, 5]
    assert _order(trials, DOWN, count=2) == [3, 11]


def test_feasible_trials_lead() -> None:
    def limited(value: float, *constraints: float) -> FrozenTrial:
        trial = _frozen(value)
        trial.system_attrs = {"constraints": constraints}
        return trial

    trials = [limited(0.0, 2.0), limited(5.0, -1.0, 0.0), limited(1.0, 0.5, 0.5), _frozen(6.0)]
    assert _order(trials, DOWN) == [1, 3, 2, 0]
    for trial in trials:
        trial.values = [trial.values[0], 0.0]
    assert _order(trials, DOWN, DOWN) == [1, 3, 2, 0]


@pytest.mark.parametrize("n_objectives", [2, 3])
def test_fronts_are_those_of_optuna(n_objectives: int) -> None:
    from optuna.study._multi_objective import _fast_non_domination_rank

    rng = np.random.default_rng(n_objectives)
    values = rng.integers(0, 12, size=(150, n_objectives)).astype(float)
    directions = [UP] + [DOWN] * (n_objectives - 1)
    ranks = _fast_non_domination_rank(values * np.array([-1.0] + [1.0] * (n_objectives - 1)))
    for n_seen in (1, 2, 10, 60, 150):
        expected = _fast_non_domination_rank(values[:n_seen] * np.array([-1.0] + [1.0] * (n_objectives - 1)))
        chosen = _order([_frozen(values=list(row)) for row in values[:n_seen]], *directions, count=20)
        assert len(chosen) == len(set(chosen)) == min(20, n_seen)
        assert sorted(expected[chosen]) == sorted(expected)[:20]
        assert list(expected[chosen]) == sorted(expected[chosen])
    assert len(set(ranks)) > 3


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


def test_hyperbands_brackets_share_their_leaders() -> None:
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


# Cost and the rest


def test_a_trial_is_looked_at_until_it_has_finished() -> None:
    study = optuna.create_study(sampler=RefinementSampler(seed=0, n_startup_trials=2))
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=300)
    (records,) = study.sampler._records.values()
    (record,) = records.values()
    study.ask()
    assert len(record._unfinished) <= 1
    assert len(record.plans) <= 2
    assert len(record.elites._ordered) == 12


def test_many_threads_ask_one_study() -> None:
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
    assert set(rates[16:]) & set(rates[:16])  # children keep most of what their parents had


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
def test_what_does_not_fit_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidParameterError, match=words):
        RefinementSampler(**changes)


# Its page


PAGE = DOCS.read_text(encoding="utf-8")


def test_the_pages_program_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    exec(compile(program, "refinement_sampler.md", "exec"), {"__name__": "page"})
    assert float(capsys.readouterr().out) < 0.1


def test_the_pages_figures_are_those_on_file() -> None:
    rows = json.loads(RESULTS.read_text(encoding="utf-8"))["rows"]
    assert between(PAGE, MARKS) == table(rows) + "\n"


@pytest.mark.parametrize("name", ["n_startup_trials", "n_elites", "crossover_share"])
def test_the_page_names_the_defaults(name: str) -> None:
    default = (RefinementSampler.__init__.__kwdefaults__ or {})[name]
    assert re.search(rf"`{name}` \({default}\)", PAGE)
