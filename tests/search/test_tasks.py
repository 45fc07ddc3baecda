"""Searches over every kind of target and table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from parallelmlp_search.exceptions import DataError, DataWarning
from parallelmlp_search.search import Problem, RunDirectory, TrainedModel, run

Make = Callable[..., Any]


def test_regression(make_problem: Make, make_settings: Make) -> None:
    problem: Problem = make_problem("diamonds", 600)
    result = run(problem, make_settings(max_epochs=20), n_jobs=1)
    assert result.metric == "rmse"
    values = result.model.predict(problem.frame)
    assert values.shape == (600,)
    error = float(np.sqrt(np.mean((values - problem.target) ** 2)))
    assert error < 0.5 * problem.target.std()
    assert result.honest is not None
    assert result.honest.score > 0
    # the score of an error is the error itself
    assert np.allclose(result.trials["score"], result.trials["error"])


def test_several_outputs(make_problem: Make, make_settings: Make, tmp_path: Path) -> None:
    one: Problem = make_problem("diamonds", 300)
    target = np.column_stack([one.target, -3 * one.target + 5, np.random.default_rng(0).normal(size=300)])
    problem = replace(one, target=target)
    model = run(problem, make_settings(max_epochs=20), n_jobs=1).model
    assert model.predictions(problem.frame).shape == (3, 300)
    values = model.predict(problem.frame)
    assert values.shape == (300, 3)
    for output, least in ((0, 0.8), (1, 0.8)):
        assert np.corrcoef(values[:, output], target[:, output])[0, 1] > least
    model.save(tmp_path / "model")
    assert np.array_equal(TrainedModel.load(tmp_path / "model").predict(problem.frame), values)
    # one column of two dimensions stays two-dimensional
    column = run(replace(one, target=one.target[:, None]), make_settings(), n_jobs=1).model
    assert column.predict(one.frame).shape == (300, 1)


@pytest.mark.parametrize(("name", "n_classes"), [("satimage", 6), ("letter", 26)])
def test_many_classes(name: str, n_classes: int, make_problem: Make, make_settings: Make) -> None:
    problem: Problem = make_problem(name, 500)
    result = run(problem, make_settings(max_epochs=12), n_jobs=1)
    probabilities = result.model.predictions(problem.frame)
    assert probabilities.shape == (n_classes, 500)
    assert np.allclose(probabilities.sum(0), 1)
    assert list(result.model.classes) == sorted(set(problem.target))
    labels = result.model.predict(problem.frame)
    assert np.mean(labels == problem.target) > 3 / n_classes


def test_a_class_of_one_row(make_problem: Make, make_settings: Make) -> None:
    problem: Problem = make_problem("satimage", 120)
    target = problem.target.copy()
    target[5] = "rare"
    result = run(replace(problem, target=target), make_settings(), n_jobs=1)
    assert "rare" in result.model.classes
    assert np.isfinite(result.model.predictions(problem.frame)).all()


@pytest.mark.parametrize(
    "labels",
    [
        np.array([False, True]),
        np.array([0, 1]),
        np.array([-1, 7]),
        np.array([0.5, 1.5]),
        np.array(["n", "y"]),
    ],
    ids=["bool", "int", "negative", "float", "str"],
)
def test_predicted_labels_have_the_type_of_the_target(
    labels: np.ndarray[Any, Any], spam: Problem, make_settings: Make, tmp_path: Path
) -> None:
    target = labels[(spam.target == "spam").astype(int)]
    model = run(replace(spam, target=target), make_settings(n_trials=3), n_jobs=1).model
    predicted = model.predict(spam.frame)
    assert predicted.dtype.kind == labels.dtype.kind
    assert set(predicted) <= set(labels)
    assert np.mean(predicted == target) > 0.7
    model.save(tmp_path / "model")
    assert np.array_equal(TrainedModel.load(tmp_path / "model").predict(spam.frame), predicted)


def test_categories_and_missing_values(make_problem: Make, make_settings: Make) -> None:
    problem: Problem = make_problem("adult", 500)
    assert problem.frame.isna().any().any()
    model = run(problem, make_settings(), n_jobs=1).model
    new = problem.frame.copy()
    new["workclass"] = "never seen"
    new["age"] = np.nan
    with pytest.warns(DataWarning, match=r"'workclass'.* 100 % of its cells"):
        assert np.isfinite(model.predictions(new)).all()


def test_row_weights_change_the_model(make_settings: Make) -> None:
    """Of two contradictory halves, the one with larger weights determines predictions and score."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(400, 3))
    side = np.arange(400) % 2
    frame = pd.DataFrame(inputs, columns=["a", "b", "c"])
    target = np.where(side == 0, inputs[:, 0] > 0, inputs[:, 0] <= 0).astype(int)

    def share_of_first(weight: np.ndarray[Any, Any]) -> float:
        problem = Problem(frame, target, "binary", weight=weight)
        model = run(problem, make_settings(max_epochs=12, n_trials=6), n_jobs=1).model
        return float(np.mean(model.predict(frame) == (inputs[:, 0] > 0)))

    assert share_of_first(np.where(side == 0, 1.0, 0.05)) > 0.8
    assert share_of_first(np.where(side == 1, 1.0, 0.05)) < 0.2


def test_class_weights_change_the_predicted_share(make_problem: Make, make_settings: Make) -> None:
    problem: Problem = make_problem("credit_g", 400)
    # ROC AUC does not depend on the decision threshold, so selection does not undo the class weights
    settings = make_settings(max_epochs=6, metric="roc_auc")

    def share_of_bad(class_weight: Any) -> float:
        weighted = replace(problem, class_weight=class_weight)
        return float(np.mean(run(weighted, settings, n_jobs=1).model.predict(problem.frame) == "bad"))

    assert share_of_bad({"bad": 20.0, "good": 1.0}) > share_of_bad(None) + 0.2


def test_groups_and_time(make_problem: Make, make_settings: Make, tmp_path: Path) -> None:
    groups = np.random.default_rng(0).integers(0, 30, 300)
    grouped = run(make_problem("spambase", 300, groups=groups), make_settings(), n_jobs=1)
    assert grouped.honest is not None
    time = np.random.default_rng(1).permutation(300).astype(float)
    directory = RunDirectory.create(tmp_path / "run")
    ordered = run(
        make_problem("diamonds", 300, time=time), make_settings(max_epochs=8), directory=directory, n_jobs=1
    )
    assert ordered.honest is not None
    from safetensors.torch import load_file

    saved = load_file(tmp_path / "run" / "oof.safetensors")
    covered, rows = saved["covered"].numpy(), saved["rows"].numpy()
    assert 0.5 < covered.mean() < 1
    # the first span is never predicted, everything after it is
    assert time[rows[~covered]].max() < time[rows[covered]].min()
    assert bool(torch.isnan(saved["predictions"][:, :, ~saved["covered"]]).all())
    assert bool(torch.isfinite(saved["predictions"][:, :, saved["covered"]]).all())


def test_a_time_column_may_have_few_values(make_problem: Make, make_settings: Make) -> None:
    years = 2018 + np.arange(240) % 5
    result = run(make_problem("diamonds", 240, time=years), make_settings(n_folds=None), n_jobs=1)
    assert result.n_folds == 3


@pytest.mark.parametrize("n_rows", [2, 3, 7, 19, 20, 23])
@pytest.mark.parametrize("task", ["binary", "regression"])
def test_tiny_tables(n_rows: int, task: str, make_settings: Make) -> None:
    rng = np.random.default_rng(n_rows)
    frame = pd.DataFrame({"x": np.arange(n_rows, dtype=float), "y": rng.normal(size=n_rows)})
    target = (np.arange(n_rows) % 2) if task == "binary" else np.arange(n_rows, dtype=float)
    result = run(Problem(frame, target, task), make_settings(n_trials=6), n_jobs=1)  # type: ignore[arg-type]
    assert result.model.predict(frame).shape == (n_rows,)
    assert np.isfinite(result.model.predictions(frame)).all()
    assert (result.honest is None) == (n_rows < 20)
    assert result.n_folds == (1 if n_rows < 20 else 3)


def test_tiny_tables_of_many_classes(make_settings: Make) -> None:
    frame = pd.DataFrame({"x": np.arange(24.0), "constant": 1.0})
    target = np.array(list("abcdefgh") * 3, dtype=object)
    result = run(Problem(frame, target, "multiclass"), make_settings(n_trials=6), n_jobs=1)
    assert result.model.predictions(frame).shape == (8, 24)


def test_a_single_class_is_an_error(make_problem: Make, make_settings: Make) -> None:
    problem = make_problem("spambase", 50)
    with pytest.raises(DataError, match="at least two classes"):
        run(replace(problem, target=np.array(["spam"] * 50, dtype=object)), make_settings())


@pytest.mark.parametrize("metric", ["accuracy", "log_loss", "f1", "mcc", "balanced_accuracy"])
def test_every_metric_of_classes_ranks(metric: str, spam: Problem, make_settings: Make) -> None:
    result = run(spam, make_settings(metric=metric, n_trials=6), n_jobs=1)
    assert result.metric == metric
    complete = result.trials[result.trials["state"] == "complete"]
    final = complete.sort_values("rung").groupby("trial").tail(1)
    assert result.best_trial == int(final.sort_values(["error", "n_parameters"])["trial"].iloc[0])
