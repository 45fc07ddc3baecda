"""Searches with costs of errors and with ordered classes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
import torch
from sklearn.metrics import cohen_kappa_score

from parallelmlp_search import ParallelMLPClassifier, load
from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.export import export_model
from parallelmlp_search.export.standalone import Model
from parallelmlp_search.integrations.optuna import PackedObjective, optimize
from parallelmlp_search.parareal.ranks.jobs import Job
from parallelmlp_search.report.page.reproduce import search_command
from parallelmlp_search.report.wording import describe_postprocessing
from parallelmlp_search.search import Problem, RunDirectory, SearchResult, SearchSettings, TrainedModel, run
from parallelmlp_search.search.problem.preparation import Preparation
from parallelmlp_search.selection import Costs, get_metric
from parallelmlp_search.space import Categorical, SearchSpace

Make = Callable[..., Any]

SPACE = SearchSpace({"width": Categorical((8, 16)), "learning_rate": Categorical((0.02,))})
COSTS = {("bad", "good"): 12.0, ("bad", "fair"): 6.0}
NAMES = np.array(["bad", "fair", "good"])


def table(n_rows: int = 500, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    """Three ordered classes that overlap."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(rng.normal(size=(n_rows, 3)), columns=list("abc"))
    signal = frame["a"] + 0.5 * frame["b"] + 0.8 * rng.normal(size=n_rows)
    return frame, NAMES[np.digitize(signal, [-0.7, 0.7])]


def mean_cost(target: np.ndarray, predicted: np.ndarray) -> float:
    pairs = zip(target, predicted, strict=True)
    return float(np.mean([COSTS.get((true, label), float(true != label)) for true, label in pairs]))


@pytest.fixture(scope="module")
def costly(
    tmp_path_factory: pytest.TempPathFactory, make_settings: Make
) -> tuple[SearchResult, RunDirectory]:
    directory = RunDirectory.create(tmp_path_factory.mktemp("runs") / "run")
    settings = make_settings(
        search_space=SPACE, costs=Costs.of(COSTS), n_trials=4, max_epochs=8, n_finalists=2
    )
    return run(Problem(*table(), "multiclass"), settings, directory=directory, n_jobs=1), directory


def test_predictions_minimise_the_cost(costly: tuple[SearchResult, RunDirectory]) -> None:
    result, directory = costly
    model, (new, target) = result.model, table(seed=1)
    assert result.metric == "expected_cost"
    probabilities = model.predictions(new)
    least = (np.array(model.costs).T @ probabilities).argmin(axis=0)
    np.testing.assert_array_equal(model.predict(new), NAMES[least])
    likely = NAMES[probabilities.argmax(axis=0)]
    assert mean_cost(target, model.predict(new)) < 0.9 * mean_cost(target, likely)
    assert result.honest is not None
    assert result.honest.score == pytest.approx(mean_cost(target, model.predict(new)), abs=0.3)
    rows = np.flatnonzero(result.oof_folds >= 0)
    predicted = np.empty(len(target), dtype=NAMES.dtype)
    for fold, one in enumerate(model.single_folds):
        own = result.oof_folds == fold
        predicted[own] = one.predict(table()[0][own])
    assert result.honest.naive == pytest.approx(mean_cost(table()[1][rows], predicted[rows]), abs=0.02)
    assert directory.settings() == SearchSettings.from_dict(directory.settings().to_dict())


def test_stored_and_exported_models_decide_alike(
    costly: tuple[SearchResult, RunDirectory], tmp_path: Path
) -> None:
    result, directory = costly
    new = table(seed=1)[0]
    again = TrainedModel.load(directory.model_folder)
    assert (again.costs, again.decision_weights) == (result.model.costs, result.model.decision_weights)
    np.testing.assert_array_equal(again.predict(new), result.model.predict(new))
    assert (again.predict(new) != NAMES[again.predictions(new).argmax(axis=0)]).any()
    written = Model(export_model(result.model, tmp_path / "numpy", "numpy"))
    assert written.predict(new).tolist() == again.predict(new).tolist()
    texts = dict(describe_postprocessing(directory.result()))
    assert texts["decision"] == "the class of least expected cost, out of 3"
    assert "decision weights" not in texts
    loaded = load(directory.path)
    assert loaded.cost_matrix == COSTS
    np.testing.assert_array_equal(loaded.predict(new), again.predict(new))


def test_the_prior_predicts_the_class_of_least_cost(costly: tuple[SearchResult, RunDirectory]) -> None:
    result, _ = costly
    rows = table()[1][result.oof_folds >= 0]
    least = min(mean_cost(rows, np.full(len(rows), name)) for name in NAMES)
    prior = next(one.score for one in result.baselines if one.name == "prior")
    assert prior == pytest.approx(least)


@pytest.mark.parametrize("metric", [None, "accuracy", "log_loss"])
def test_ranks_of_a_promotion_have_the_metric(
    metric: str | None, tmp_path: Path, make_settings: Make
) -> None:
    settings = make_settings(search_space=SPACE, costs=Costs.of(COSTS), metric=metric)
    data = Preparation(Problem(*table(60), "multiclass"), settings).screening().data
    job = Job(tmp_path, (), 2)
    job.save_rows(0, data)
    assert job.load_rows(0).metric == data.metric
    probabilities = torch.softmax(torch.randn(1, 3, 60, generator=torch.Generator().manual_seed(0)), 1)
    plain = get_metric(data.metric.name, "multiclass")(probabilities, torch.arange(60) % 3)
    found = data.metric(probabilities, torch.arange(60) % 3)
    assert (float(plain[0]) == pytest.approx(float(found[0]))) == (metric == "log_loss")


def test_the_command_that_repeats_a_run() -> None:
    info = {"source": {"data": "/t.csv", "target": "y"}, "settings": {"costs": Costs.of(COSTS).to_dict()}}
    assert "--costs bad:good=12,bad:fair=6 " in str(search_command(info, "run"))
    info["settings"] = {"costs": Costs.of(None, True).to_dict()}
    assert "--ordinal auto " in str(search_command(info, "run"))


@pytest.mark.parametrize("metric", [None, "quadratic_kappa", "accuracy", "log_loss"])
def test_ordered_classes(metric: str | None) -> None:
    frame, target = table()
    new, truth = table(seed=1)
    options = {"search_space": SPACE, "n_trials": 2, "max_epochs": 6, "n_finalists": 1, "random_state": 0}
    model = ParallelMLPClassifier(metric=metric, ordinal=True, **options).fit(frame, target)
    assert model.result_.metric == (metric or "ordinal_mae")
    probabilities = model.predict_proba(new).T
    steps = np.abs(np.arange(3)[:, None] - np.arange(3))
    loss = steps**2 if metric == "quadratic_kappa" else steps
    np.testing.assert_array_equal(model.predict(new), NAMES[(loss @ probabilities).argmin(axis=0)])
    if metric is None:
        found = model.explain(new, truth, n_repeats=1, max_rows=120, n_attributed=0, columns=["c"])
        assert found.summary["metric"] == "ordinal_mae"
        rows = np.abs(np.searchsorted(NAMES, truth) - np.searchsorted(NAMES, model.predict(new)))
        assert found.summary["score"] == pytest.approx(rows.mean(), abs=0.12)
    if metric == "quadratic_kappa":
        kappa = cohen_kappa_score(truth, model.predict(new), weights="quadratic")
        assert kappa == pytest.approx(model.honest_score_, abs=0.1)


def test_a_search_with_costs_needs_classes_and_fitting_metrics() -> None:
    frame, target = table()
    settings = SearchSettings("small", costs=Costs.of(None, True))
    with pytest.raises(InvalidParameterError, match="cost_matrix and ordinal need classes"):
        settings.check_task("regression")
    for options, message in (
        ({"metric": "expected_cost"}, "metric 'expected_cost' needs a cost_matrix"),
        ({"metric": "ordinal_mae", "cost_matrix": COSTS}, "needs ordered classes: set ordinal"),
        ({"cost_matrix": {("bad", "none"): 1}}, "class 'none', which the target does not have"),
    ):
        with pytest.raises(InvalidParameterError, match=message):
            ParallelMLPClassifier("small", **options).fit(frame, target)


def test_a_constant_model_decides_by_costs() -> None:
    target = np.array(["bad"] * 5 + ["good"] * 15)
    with pytest.warns(UserWarning, match="no informative column"):
        model = ParallelMLPClassifier(cost_matrix={("bad", "good"): 5}).fit(np.zeros((20, 1)), target)
    assert set(model.predict(np.zeros((3, 1)))) == {"bad"}  # 5 x 0.25 > 1 x 0.75


def test_trials_of_a_study_are_scored_by_costs() -> None:
    study = optuna.create_study(direction="minimize")
    frame, target = table(200)
    objective = PackedObjective(frame, target, SPACE, cost_matrix=COSTS, max_epochs=2)
    assert objective.metric.name == "expected_cost"
    optimize(study, objective, n_trials=2)
    assert all(0 < trial.value < 12 for trial in study.trials)


@pytest.mark.parametrize(
    ("costs", "words"),
    [
        ([[0, 1], [9, 0]], ": yes if its probability exceeds 0.1, else no"),
        ([[-1, 0], [0, -1]], ": yes if its probability exceeds 0.5, else no"),
        ([[0, 1], [0, 1]], ""),  # an error that is cheaper than the right class
    ],
)
def test_two_classes_have_a_threshold(costs: list[list[float]], words: str) -> None:
    names = ["no", "yes"]
    named = {name: dict(zip(names, row, strict=True)) for name, row in zip(names, costs, strict=True)}
    assert dict(describe_postprocessing({"costs": named}))["decision"] == (
        "the class of least expected cost" + words
    )
