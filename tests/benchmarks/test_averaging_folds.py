"""Gain of averaging the networks of all folds."""

from __future__ import annotations

import pytest

from benchmarks.averaging import gains, run, table_of


def test_gains_are_relative_to_the_error_of_one_fold() -> None:
    rows = [
        {"set": "a", "seed": 0, "folds": 5, "ensemble": 3, "fold": 2.0, "error": 1.5}
        | {"honest": 1.8, "expected": -0.2},
        {"set": "b", "seed": 0, "folds": 8, "ensemble": 1, "fold": 0.1, "error": 0.1}
        | {"honest": 0.09, "expected": -0.01},
    ]
    expected, real = gains(rows)
    assert expected == pytest.approx([-0.1, -0.1])
    assert real == pytest.approx([-0.25, 0.0])
    lines = table_of(rows).splitlines()
    assert lines[2] == "| a, 0 | 5 | 3 | 2 | 1.5 | -25.0% | -10.0% |"
    assert lines[-1] == "| mean | | | | | -12.5% | -10.0% |"


def test_a_search_is_scored_fold_by_fold() -> None:
    row = run("vowel", 0, 4.0)
    assert row["folds"] >= 2
    assert (
        0.0 < row["error"] < row["fold"]
    )  # the log-loss of an average is at most the mean of the log-losses
    assert row["expected"] <= 0.0
