"""Errors of out-of-fold rows as intervals and sets: coverage, adaptivity, refits, stored files, limits."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from parallelmlp_search.exceptions import DataError, InvalidParameterError, RunDirectoryError
from parallelmlp_search.inference.intervals import by_row, predicted_intervals, predicted_sets
from parallelmlp_search.inference.uncertainty import FILE, Uncertainty
from parallelmlp_search.search import Problem, SearchResult, TrainedModel, run
from parallelmlp_search.search.finalists import uncertainty as fitting
from parallelmlp_search.search.finalists.uncertainty import (
    OutOfFold,
    measure_uncertainty,
)

Make = Callable[..., Any]


def noisy(n_rows: int, seed: int, noise: bool = True) -> tuple[pd.DataFrame, Any]:
    """Target whose noise grows from 0.1 to 2 with the column ``b``."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(rng.uniform(-1.0, 1.0, (n_rows, 3)), columns=["a", "b", "c"])
    size = np.where(frame["b"] > 0, 2.0, 0.1) if noise else np.full(n_rows, 0.5)
    return frame, (frame["a"] + size * rng.normal(size=n_rows)).to_numpy()


@pytest.fixture(scope="module")
def settings(make_settings: Make) -> Any:
    return make_settings(n_trials=6, max_epochs=6, n_finalists=2, baselines=False)


@pytest.fixture(scope="module")
def searched(settings: Any) -> SearchResult:
    return run(Problem.from_table(*noisy(1500, 0), task="regression"), settings, n_jobs=1)


@pytest.fixture(scope="module")
def new_rows() -> tuple[pd.DataFrame, Any]:
    return noisy(2000, 1)


def test_intervals_cover_new_rows(searched: SearchResult, new_rows: tuple[pd.DataFrame, Any]) -> None:
    frame, target = new_rows
    ends = predicted_intervals(searched.model, frame, (0.5, 0.9))[:, :, 0]
    covered = ((ends[:, 0] <= target) & (target <= ends[:, 1])).mean(axis=1)
    # four standard errors of 1,200 errors and 2,000 new rows, and the gain of averaging folds
    assert covered == pytest.approx([0.5, 0.9], abs=0.06)
    assert searched.uncertainty is not None
    measured = {level["coverage"]: level for level in searched.uncertainty["levels"]}
    assert measured[0.9]["measured"] == pytest.approx(0.9, abs=0.02)
    assert measured[0.9]["width"][0] == pytest.approx(float((ends[1, 1] - ends[1, 0]).mean()), rel=0.1)
    assert searched.uncertainty["n_rows"] == (searched.oof_folds >= 0).sum()


def test_intervals_are_wide_where_errors_are_large(
    searched: SearchResult, new_rows: tuple[pd.DataFrame, Any]
) -> None:
    frame, target = new_rows
    lower, upper = predicted_intervals(searched.model, frame, (0.9,))[0, :, 0]
    is_noisy = (frame["b"] > 0).to_numpy()
    assert np.mean((upper - lower)[is_noisy]) > 3.0 * np.mean((upper - lower)[~is_noisy])
    assert np.mean((lower <= target)[is_noisy] & (target <= upper)[is_noisy]) > 0.85
    assert searched.model.uncertainty is not None
    # the same errors without trees miss many of the noisy rows
    rows = _out_of_fold(searched)
    constant, facts = measure_uncertainty(searched.model, rows, 0, is_adaptive=False)
    assert facts is not None
    assert not facts["adaptive"]
    lower, upper = predicted_intervals(constant, frame, (0.9,))[0, :, 0]
    assert np.mean((lower <= target)[is_noisy] & (target <= upper)[is_noisy]) < 0.84


def _out_of_fold(result: SearchResult) -> OutOfFold:
    """Out-of-fold rows of the search over :func:`noisy`, predicted by the networks of their folds."""
    frame, target = noisy(1500, 0)
    rows = np.flatnonzero(result.oof_folds >= 0)
    folds = result.oof_folds[rows]
    every = np.stack([one.predictions(frame.iloc[rows]) for one in result.model.single_folds])
    predictions = every[folds, :, np.arange(len(rows))].T
    return OutOfFold(frame, rows, target[None, rows], predictions, folds, None, False)


def test_stored_errors_are_those_of_networks_that_have_not_seen_the_row(searched: SearchResult) -> None:
    again, facts = measure_uncertainty(searched.model, _out_of_fold(searched), _seed(searched))
    assert facts is not None
    assert searched.uncertainty is not None
    own, found = searched.model.uncertainty, again.uncertainty
    assert own is not None
    assert found is not None
    np.testing.assert_allclose(
        found.scores, own.scores, rtol=1e-2, atol=1e-3
    )  # predicted in NumPy, not torch
    assert facts["levels"][2]["measured"] == pytest.approx(
        searched.uncertainty["levels"][2]["measured"], abs=5e-3
    )


def _seed(result: SearchResult) -> int:
    from parallelmlp_search.search.problem.preparation import seed_of

    return seed_of(0, 7)


def test_ends_contain_the_prediction_and_do_not_cross(
    searched: SearchResult, new_rows: tuple[pd.DataFrame, Any]
) -> None:
    frame = new_rows[0]
    coverages = (0.01, 0.1, 0.5, 0.9, 0.99)
    lower, upper = np.moveaxis(predicted_intervals(searched.model, frame, coverages)[:, :, 0], 1, 0)
    prediction = searched.model.predict(frame)
    assert (lower <= prediction).all()
    assert (prediction <= upper).all()
    assert (np.diff(lower, axis=0) <= 0).all()
    assert (np.diff(upper, axis=0) >= 0).all()
    target = noisy(1500, 0)[1]
    assert (lower.min(), upper.max()) >= (target.min() - 1e-3, 0)
    assert upper.max() <= target.max() + 1e-3


def test_a_saved_model_has_the_same_intervals(
    searched: SearchResult, new_rows: tuple[pd.DataFrame, Any], tmp_path: Path
) -> None:
    frame = new_rows[0].head(50)
    searched.model.save(tmp_path)
    expected = predicted_intervals(searched.model, frame, (0.8, 0.9))
    assert np.array_equal(predicted_intervals(TrainedModel.load(tmp_path), frame, (0.8, 0.9)), expected)
    again = pickle.loads(pickle.dumps(searched.model))
    assert np.array_equal(predicted_intervals(again, frame, (0.8, 0.9)), expected)
    # a model without errors leaves none behind
    replace(searched.model, uncertainty=None).save(tmp_path)
    assert not (tmp_path / FILE).exists()
    with pytest.raises(DataError, match=r"the model holds none: .* search again"):
        predicted_intervals(TrainedModel.load(tmp_path), frame, (0.9,))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n_groups": 2}, "it has 2 groups, but the model has 3 folds"),
        ({"scores": -np.ones((1, 5), dtype=np.float32), "groups": np.zeros(5, dtype=np.int16)}, ">= 0"),
        (
            {"scores": np.ones((2, 5), dtype=np.float32), "groups": np.zeros(5, dtype=np.int16)},
            "other shapes",
        ),
        ({"groups": np.full(1200, 7, dtype=np.int16)}, "belong to a group"),
        ({"bounds": np.full((2, 1), np.nan)}, "finite"),
        ({"bounds": None}, "other shapes"),
        ({"weight": np.zeros(1200, dtype=np.float32)}, "not all 0"),
    ],
)
def test_a_damaged_file_is_one_sentence(
    searched: SearchResult, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    searched.model.save(tmp_path)
    assert searched.model.uncertainty is not None
    replace(searched.model.uncertainty, **change).save(tmp_path)
    with pytest.raises(RunDirectoryError, match=f"could not read .*{FILE}.*{words}"):
        TrainedModel.load(tmp_path)


def test_a_refitted_model_has_one_group(
    settings: Any, new_rows: tuple[pd.DataFrame, Any], tmp_path: Path
) -> None:
    frame, target = new_rows
    problem = Problem.from_table(*noisy(1500, 0), task="regression")
    model = run(problem, replace(settings, refit=True), n_jobs=1).model
    assert model.uncertainty is not None
    assert (model.refitted, model.uncertainty.n_groups) == (True, 1)
    ends = predicted_intervals(model, frame, (0.9,))[0, :, 0]
    assert np.mean((ends[0] <= target) & (target <= ends[1])) == pytest.approx(0.9, abs=0.05)
    model.save(tmp_path)
    assert np.array_equal(predicted_intervals(TrainedModel.load(tmp_path), frame, (0.9,))[0, :, 0], ends)


def test_a_model_with_networks_of_some_folds_has_one_group(
    searched: SearchResult, new_rows: tuple[pd.DataFrame, Any], tmp_path: Path
) -> None:
    frame, target = new_rows
    fewer = replace(searched.model, folds=searched.model.folds[:2])
    model, _ = measure_uncertainty(fewer, _out_of_fold(searched), 0)
    assert model.uncertainty is not None
    assert model.uncertainty.n_groups == 1
    model.save(tmp_path)
    lower, upper = predicted_intervals(TrainedModel.load(tmp_path), frame, (0.9,))[0, :, 0]
    assert np.mean((lower <= target) & (target <= upper)) == pytest.approx(0.9, abs=0.05)


def test_sets_cover_new_rows_and_contain_the_prediction(make_problem: Make, settings: Any) -> None:
    whole = make_problem("satimage", 2400)
    part = Problem.from_table(whole.frame.head(1200), whole.target[:1200])
    result = run(part, settings, n_jobs=1)
    frame, truth = whole.frame.iloc[1200:], whole.target[1200:]
    sets = predicted_sets(result.model, frame, (0.5, 0.9, 0.99))
    assert result.model.classes is not None
    numbers = np.searchsorted(result.model.classes, truth)
    covered = sets[:, numbers, np.arange(len(truth))].mean(axis=1)
    assert covered[1] >= 0.87
    assert covered[2] >= 0.97
    assert sets[:, result.model.class_numbers(result.model.predictions(frame)), np.arange(len(truth))].all()
    assert (sets[0] <= sets[1]).all()
    assert (sets[1] <= sets[2]).all()
    sizes = sets.sum(axis=1).mean(axis=1)
    assert 1.0 <= sizes[0] <= sizes[1] < sizes[2] < 6.0
    assert result.uncertainty is not None
    level = result.uncertainty["levels"][-1]
    assert level["coverage"] == 0.99
    assert level["measured"] == pytest.approx(0.99, abs=0.02)
    assert level["size"] == pytest.approx(sizes[2], rel=0.25)


@pytest.mark.parametrize("role", ["groups", "time", "weight"])
def test_groups_times_and_weights(settings: Any, role: str) -> None:
    frame, target = noisy(600, 3)
    rng = np.random.default_rng(0)
    values = {
        "groups": rng.integers(0, 30, 600),
        "time": np.arange(600),
        "weight": rng.uniform(0.5, 2.0, 600),
    }
    problem = Problem.from_table(frame, target, task="regression", **{role: values[role]})
    result = run(problem, settings, n_jobs=1)
    assert result.uncertainty is not None
    level = next(level for level in result.uncertainty["levels"] if level["coverage"] == 0.9)
    assert level["measured"] == pytest.approx(0.9, abs=0.08)
    assert result.model.uncertainty is not None
    assert (result.model.uncertainty.weight is not None) is (role == "weight")
    assert np.isfinite(predicted_intervals(result.model, frame, (0.9,))).all()


def test_several_outputs_and_extreme_targets(settings: Any) -> None:
    frame, target = noisy(400, 4)
    both = np.stack([target, 1e200 * target], axis=1)
    result = run(Problem.from_table(frame, both, task="regression"), settings, n_jobs=1)
    ends = predicted_intervals(result.model, frame, (0.9,))
    assert ends.shape == (1, 2, 2, 400)
    covered = ((ends[0, 0] <= both.T) & (ends[0, 1] >= both.T)).mean(axis=1)
    assert (covered > 0.85).all()
    assert result.uncertainty is not None
    first, second = result.uncertainty["levels"][2]["width"]
    assert second == pytest.approx(1e200 * first, rel=0.3)


def test_tiny_tables_and_too_high_coverages(settings: Any) -> None:
    frame, target = noisy(15, 5)
    tiny = run(Problem.from_table(frame, target, task="regression"), settings, n_jobs=1)
    assert (tiny.uncertainty, tiny.model.uncertainty) == (None, None)
    frame, target = noisy(40, 5)
    small = run(Problem.from_table(frame, target, task="regression"), settings, n_jobs=1)
    assert small.uncertainty is not None
    assert not small.uncertainty["adaptive"]
    assert [level["coverage"] for level in small.uncertainty["levels"]] == [0.5, 0.8, 0.9, 0.95]
    with pytest.raises(InvalidParameterError, match=r"coverage must be at most 0\.9697 with 32 out-of-fold"):
        predicted_intervals(small.model, frame, (0.99,))


def test_many_rows_are_sampled(searched: SearchResult, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "MAX_ROWS", 1000)
    model, facts = measure_uncertainty(searched.model, _out_of_fold(searched), 0)
    assert model.uncertainty is not None
    assert facts is not None
    assert (model.uncertainty.scores.shape, facts["n_rows"]) == ((1, 1000), 1200)


def test_without_time_for_trees_they_are_left_out(
    make_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = Problem.from_table(*noisy(600, 0), task="regression")
    monkeypatch.setattr(fitting, "uncertainty_seconds", lambda _: 1000.0)  # after planning
    settings = make_settings(n_trials=4, time_limit=4.0, baselines=False)
    with warnings.catch_warnings(action="ignore"):  # of a busy machine that leaves trials out
        result = run(problem, settings, n_jobs=1)
    assert result.uncertainty is not None
    assert result.uncertainty["adaptive"] is False


def test_rows_come_first_and_coverages_last() -> None:
    values = np.arange(2 * 2 * 3 * 4).reshape(2, 2, 3, 4)  # coverages, ends, outputs, rows
    found = by_row(values, [0.5, 0.9])
    assert found.shape == (4, 3, 2, 2)
    assert found[1, 2, 0, 1] == values[1, 0, 2, 1]
    assert by_row(values[:1], 0.5).shape == (4, 3, 2)
    assert by_row(values[:, 0], [0.5, 0.9]).shape == (4, 3, 2)


def test_uncertainty_is_stored_without_derived_values(searched: SearchResult) -> None:
    assert searched.model.uncertainty is not None
    assert isinstance(searched.model.uncertainty, Uncertainty)
    _ = searched.model.uncertainty.conformal
    assert "conformal" not in searched.model.uncertainty.__getstate__()
