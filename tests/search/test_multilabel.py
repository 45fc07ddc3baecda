"""Searches for several labels, and models that predict them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from parallelmlp_search.exceptions import DataError, InvalidParameterError
from parallelmlp_search.inference import TrainedModel
from parallelmlp_search.search import Problem, RunDirectory, SearchResult, run
from parallelmlp_search.search.problem.problem import TargetColumns
from parallelmlp_search.selection import LABEL_METRICS

Make = Callable[..., Any]
Searched = tuple[SearchResult, RunDirectory]
NAMES = ("likes", "buys", "leaves")


def table(n_rows: int = 300, seed: int = 0) -> pd.DataFrame:
    """Four numbers, a category, and three labels, of which the last is rare."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(rng.normal(size=(n_rows, 4)), columns=list("pqrs"))
    frame["town"] = rng.choice(["north", "south", "west"], n_rows)
    scores = [frame["p"] - frame["q"], frame["r"] + (frame["town"] == "west"), frame["s"] - 1.3]
    for name, score in zip(NAMES, scores, strict=True):
        frame[name] = (score + 0.5 * rng.normal(size=n_rows) > 0).astype(int)
    return frame


def problem(frame: pd.DataFrame | None = None, **values: Any) -> Problem:
    return Problem.from_table(table() if frame is None else frame, TargetColumns(NAMES), **values)


@pytest.fixture(scope="module")
def searched(
    make_settings: Make, tmp_path_factory: pytest.TempPathFactory
) -> tuple[SearchResult, RunDirectory]:
    directory = RunDirectory.create(tmp_path_factory.mktemp("labels") / "run")
    settings = make_settings(metric="f1_macro", n_trials=9, max_epochs=12)
    return run(problem(), settings, directory=directory, n_jobs=1), directory


def test_a_search_learns_all_labels(searched: Searched) -> None:
    result, _ = searched
    model, new = result.model, table(400, seed=1)
    labels = new[list(NAMES)].to_numpy()
    probabilities = model.predictions(new)
    predicted = model.predict(new)
    assert probabilities.shape == (3, 400)
    assert predicted.shape == (400, 3)
    assert set(np.unique(predicted)) == {0, 1}
    truth = torch.from_numpy(labels.T.astype(float))
    auc = float(LABEL_METRICS["roc_auc"](torch.from_numpy(probabilities)[None], truth))
    assert auc > 0.85
    assert (predicted == labels).mean() > 0.8
    honest = result.honest
    assert honest is not None
    assert honest.low <= honest.score <= honest.high
    found = float(LABEL_METRICS["f1_macro"](torch.from_numpy(predicted.T.astype(float))[None], truth))
    assert abs(found - honest.score) < 0.12
    assert [one.name for one in result.baselines] == ["prior", "linear", "gradient_boosting"]
    assert result.baselines[0].score < honest.score


def test_thresholds_belong_to_labels(searched: Searched) -> None:
    result, directory = searched
    model = result.model
    assert model.decision_weights is not None
    thresholds = directory.result()["thresholds"]
    assert list(thresholds) == list(NAMES)
    assert directory.result()["decision_weights"] is None
    assert directory.result()["task"] == "multilabel"
    assert thresholds["leaves"] < 0.5  # of a rare label
    new = table(100, seed=2)
    above = np.array(list(thresholds.values())) < model.predictions(new).T
    np.testing.assert_array_equal(model.predict(new), above)
    plain = replace(model, decision_weights=None)
    np.testing.assert_array_equal(plain.predict(new), model.predictions(new).T > 0.5)


def test_a_stored_model_predicts_the_same(searched: Searched) -> None:
    result, directory = searched
    new = table(50, seed=3)
    stored = TrainedModel.load(directory.model_folder)
    np.testing.assert_array_equal(stored.predictions(new), result.model.predictions(new))
    np.testing.assert_array_equal(stored.predict(new), result.model.predict(new))
    assert stored.output_columns("any") == list(NAMES)
    assert stored.target_columns == list(NAMES)


def test_out_of_fold_predictions_are_those_of_the_networks(
    searched: Searched,
) -> None:
    # torch and NumPy: what folds predicted in the search, and what their networks predict from the table
    result, directory = searched
    from safetensors.numpy import load_file

    stored = load_file(directory.path / "oof.safetensors")
    whole, model = problem(), replace(result.model, temperature=1.0)
    numbers, weights = stored["rows"], result.model.weights
    places = [list(stored["trials"]).index(trial) for trial in model.trials]
    mixed = np.tensordot(weights, stored["predictions"][places].astype(float), axes=1)
    for fold in range(len(model.folds)):
        mine = stored["folds"] == fold
        found = model.of_fold(fold).predictions(whole.frame.iloc[numbers[mine]])
        np.testing.assert_allclose(found, mixed[:, mine], atol=2e-6)


def test_the_same_search_twice(make_settings: Make) -> None:
    settings = make_settings(n_trials=6, max_epochs=3)
    first, second = (run(problem(), settings, n_jobs=jobs) for jobs in (1, 2))
    assert first.honest == second.honest
    assert first.model.decision_weights is None  # the log loss needs no thresholds
    pd.testing.assert_series_equal(
        first.leaderboard.to_frame()["score"], second.leaderboard.to_frame()["score"]
    )


@pytest.mark.parametrize("metric", [None, "roc_auc", "f1_micro", "subset_accuracy"])
def test_rare_and_constant_labels(metric: str | None, make_settings: Make) -> None:
    frame = table(120)
    frame["leaves"] = 0
    frame.loc[7, "leaves"] = 1
    frame["buys"] = 1
    result = run(problem(frame), make_settings(metric=metric, n_trials=4, max_epochs=2), n_jobs=1)
    assert np.isfinite(result.model.predictions(frame)).all()
    assert result.honest is not None
    assert np.isfinite(result.honest.score)


@pytest.mark.parametrize("role", ["groups", "time", "weight"])
def test_roles_of_rows(role: str, make_settings: Make) -> None:
    frame = table(150)
    frame["role"] = np.arange(150) % 15
    result = run(problem(frame, **{role: "role"}), make_settings(n_trials=4, max_epochs=2), n_jobs=1)
    assert result.honest is not None
    assert "role" not in result.model.feature_names


def test_tiny_tables(make_settings: Make) -> None:
    result = run(problem(table(12)), make_settings(n_trials=3, max_epochs=2), n_jobs=1)
    assert result.honest is None
    assert result.model.predict(table(5)).shape == (5, 3)


def test_what_needs_one_target_is_refused(make_settings: Make) -> None:
    with pytest.raises(InvalidParameterError, match="makes the task one of several labels"):
        problem(class_weight="balanced")
    with pytest.raises(DataError, match=r"labels are in 'buys' and numbers are in 'p': start one search per"):
        Problem.from_table(table(), TargetColumns(["buys", "p"]))
    frame = table(60).assign(likes=0, buys=0, leaves=0)
    frame.loc[3, "likes"] = 1
    whole, settings = problem(frame), make_settings(metric="roc_auc")
    with pytest.raises(DataError, match="rows that validate have the same labels"):
        run(whole, settings)
