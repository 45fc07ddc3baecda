from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallelmlp_search.report.wording import (
    describe_config,
    describe_interval,
    format_clock,
    format_count,
    format_duration,
    format_epochs,
    format_score,
    format_with_error,
)


@pytest.mark.parametrize(
    ("score", "words"),
    [
        (0.91, "0.9100"),
        (0.0, "0.0000"),
        (-0.25, "-0.2500"),
        (12.3456, "12.346"),
        (543.21, "543.2"),
        (1_234_567.8, "1,234,567.8"),
        (0.00123, "0.00123"),
        (3.2e-7, "3.2e-07"),
        (1e12, "1e+12"),
        (None, "-"),
        (math.nan, "-"),
        (math.inf, "inf"),
    ],
)
def test_scores(score: float | None, words: str) -> None:
    assert format_score(score) == words


@given(st.floats(-1e12, 1e12))
def test_a_formatted_score_is_short_and_close(score: float) -> None:
    words = format_score(score)
    assert len(words) <= 14
    assert float(words.replace(",", "")) == pytest.approx(score, rel=2e-3, abs=6e-5)


@pytest.mark.parametrize(
    ("score", "error", "words"),
    [
        (0.912345, 0.00213, "0.9123 ± 0.0021"),
        (0.98, 0.0210, "0.980 ± 0.021"),
        (543.21, 12.4, "543 ± 12"),
        (5432.1, 124.0, "5,432 ± 124"),
        (0.9, 0.0, "0.9000"),  # a standard error of 0 is not known
        (0.9, math.nan, "0.9000"),
        (0.9, None, "0.9000"),
    ],
)
def test_scores_with_their_error(score: float, error: float | None, words: str) -> None:
    assert format_with_error(score, error) == words


@given(st.floats(0, 9.9e14))
def test_counts_take_five_characters(number: float) -> None:
    words = format_count(number)
    assert len(words) <= 5
    size = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}.get(words[-1], 1)
    assert float(words.rstrip("kMGT")) * size == pytest.approx(number, rel=0.06, abs=0.5)


def test_durations() -> None:
    assert [format_clock(s) for s in (-1, 0, 59.99, 60, 3599, 3600)] == [
        "0:00",
        "0:00",
        "0:59",
        "1:00",
        "59:59",
        "1:00:00",
    ]
    assert [format_duration(s) for s in (0.004, 1.0, 99.9, 100, 3599.7, 7300)] == [
        "0.00 s",
        "1.0 s",
        "99.9 s",
        "1 min 40 s",
        "1 h 00 min",
        "2 h 01 min",
    ]
    assert [format_epochs(e) for e in (None, 4.0, 4.25, 3)] == ["0", "4", "4.2", "3"]


@pytest.mark.parametrize(
    ("widths", "words"),
    [
        ([64, 32], "64-32 relu lr 0.001"),
        (np.array([64, 32]), "64-32 relu lr 0.001"),  # as Parquet returns a list
        ("64-32", "64-32 relu lr 0.001"),
        ([], "linear lr 0.001"),  # no hidden layer, no activation
    ],
)
def test_configurations(widths: object, words: str) -> None:
    record = {"config_widths": widths, "config_activation": "relu", "config_learning_rate": 1e-3}
    assert describe_config(record | {"config_dropout": 0.0}) == words
    assert describe_config(record | {"config_dropout": 0.25}) == f"{words} drop 0.25"


def test_submembers_are_part_of_a_configuration() -> None:
    record = {"config_widths": [8], "config_submembers": 4, "config_sharing": "mini"}
    assert describe_config(record) == "8 relu x4 mini lr 0.001"


@pytest.mark.parametrize(
    ("honest", "words"),
    [
        (
            {"standard_error": 0.02, "low": 0.8, "high": 0.9, "naive": 0.87, "averaging": 0.004},
            "95 % interval 0.800 to 0.900, 0.870 without bias correction, +0.004 for averaging folds",
        ),
        ({"standard_error": 124.0, "low": 800.0, "high": 1900.0}, "95 % interval 800 to 1,900"),
        ({"standard_error": None, "naive": 0.87, "averaging": 0.0}, "0.8700 without bias correction"),
    ],
    ids=["all", "no decimals", "no interval"],
)
def test_intervals(honest: dict[str, float | None], words: str) -> None:
    assert describe_interval(honest) == words
