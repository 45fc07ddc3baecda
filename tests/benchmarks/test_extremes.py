"""Extreme tables: shapes, the linear model, one search, and the figures on file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import extremes
from benchmarks.extremes import CASES, RESULTS, Case, linear, run


@pytest.mark.parametrize(
    ("name", "rows", "columns", "classes"),
    [("150 rows", 150, 4, 3), ("1,000 columns", 3000, 1000, 2), ("50 classes", 20_000, 16, 50)],
)
def test_tables_have_the_named_shapes(name: str, rows: int, columns: int, classes: int) -> None:
    inputs, target = CASES[name].make(np.random.default_rng(0))
    assert inputs.shape == (rows, columns)
    assert len(np.unique(target)) == classes
    again, _ = CASES[name].make(np.random.default_rng(0))
    assert np.array_equal(inputs, again)


def test_one_class_is_rare() -> None:
    _, target = CASES["1 % of one class"].make(np.random.default_rng(0))
    assert target.mean() == pytest.approx(0.01, abs=1e-3)


def test_the_linear_model_is_fitted_on_the_training_rows() -> None:
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((400, 3)).astype(np.float32)
    line = inputs @ np.array([1.0, -2.0, 0.5]) + 3.0
    halves = [(inputs[part], line[part]) for part in (slice(0, 200), slice(200, 400))]
    assert linear(Case(extremes.million, 1.0, "rmse"), *halves) == pytest.approx(0.0, abs=1e-4)
    classes = [(rows, (values > 3.0).astype(np.int64)) for rows, values in halves]
    assert linear(Case(extremes.wide, 1.0, "roc_auc"), *classes) > 0.99
    assert linear(Case(extremes.tiny, 1.0, "log_loss"), *classes) < 0.3


@pytest.mark.slow
def test_a_search_runs_and_is_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(extremes.CASES, "150 rows", Case(extremes.tiny, 6.0, "log_loss"))  # type: ignore[index]
    row = run("150 rows", tmp_path)
    assert row["rows"] == 112
    assert 0.0 < row["held_back"] < 1.1
    assert row["seconds"] > 1.0
    assert row["peak_megabytes"] > 50.0
    assert row["trials"] >= 1


def test_searches_on_file_beat_the_linear_model_in_time() -> None:
    rows = json.loads(RESULTS.read_text(encoding="utf-8"))["rows"]
    assert [row["case"] for row in rows] == list(CASES)
    for row in rows:
        better = row["linear"] > row["held_back"]
        assert better == (row["metric"] != "roc_auc"), row["case"]
        assert row["seconds"] <= row["limit"] + 5.0, row["case"]
