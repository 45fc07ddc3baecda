"""Conformal ends and sets: equal to sorting all values, and covering what they promise."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.inference.conformal import ConformalScores, check_coverages

Array = np.ndarray[Any, Any]


def plain_upper_end(values: Array, weight: Array, coverage: float) -> float:
    """Upper end of one row from the values ``centre + score * scale`` of all scores, by sorting them."""
    order = np.argsort(values)
    within = np.cumsum(weight[order] / weight.mean())
    needed = coverage * (len(values) + 1) - 1e-9
    return float(values[order][np.flatnonzero(within >= needed)[0]])


@given(
    seed=st.integers(0, 10_000),
    n_groups=st.integers(1, 5),
    n_scores=st.integers(10, 60),
    coverage=st.sampled_from([0.1, 0.5, 0.8, 0.9]),
    weighted=st.booleans(),
    spread=st.sampled_from([0.0, 1e-3, 1.0, 100.0]),
)
def test_upper_ends_are_those_of_sorted_values(
    seed: int, n_groups: int, n_scores: int, coverage: float, weighted: bool, spread: float
) -> None:
    rng = np.random.default_rng(seed)
    scores, groups = rng.exponential(size=n_scores), rng.integers(0, n_groups, n_scores)
    weight = rng.uniform(0.2, 3.0, n_scores) if weighted else np.ones(n_scores)
    centres = rng.normal(size=(n_groups, 4)) * spread
    scales = np.exp(rng.normal(size=(n_groups, 4)))
    known = ConformalScores(scores, groups, n_groups, weight if weighted else None)
    found = known.upper_ends(centres, scales, coverage)
    for row in range(4):
        values = centres[groups, row] + scores * scales[groups, row]
        expected = plain_upper_end(values, weight, coverage)
        # the last halving leaves 2 ** -40 of the distance between the ends of single groups
        assert found[row] == pytest.approx(expected, abs=1e-11 * (1.0 + spread) * 100)
        assert known.upper_ends(centres, 1.5 * scales, coverage)[row] > found[row]


@given(seed=st.integers(0, 10_000), n_groups=st.integers(1, 4), coverage=st.sampled_from([0.2, 0.5, 0.9]))
def test_scores_within_are_those_with_few_smaller_ones(seed: int, n_groups: int, coverage: float) -> None:
    rng = np.random.default_rng(seed)
    scores, groups = rng.integers(0, 12, 30) / 12, rng.integers(0, n_groups, 30)  # with ties
    new = rng.integers(0, 12, (n_groups, 8)) / 12
    found = ConformalScores(scores, groups, n_groups).are_within(new, coverage)
    for row in range(8):
        smaller = sum(score < new[group, row] for score, group in zip(scores, groups, strict=True))
        assert found[row] == (smaller < coverage * 31 - 1e-9)


@given(seed=st.integers(0, 1000), low=st.floats(0.05, 0.9), more=st.floats(0.001, 0.05))
def test_ends_grow_with_the_coverage(seed: int, low: float, more: float) -> None:
    rng = np.random.default_rng(seed)
    known = ConformalScores(rng.exponential(size=40), rng.integers(0, 3, 40), 3)
    centres, scales = rng.normal(size=(3, 5)), np.exp(rng.normal(size=(3, 5)))
    assert (known.upper_ends(centres, scales, low) <= known.upper_ends(centres, scales, low + more)).all()
    scores = rng.exponential(size=(3, 5))
    assert (known.are_within(scores, low) <= known.are_within(scores, low + more)).all()


def test_one_group_is_split_conformal() -> None:
    scores = np.arange(1.0, 20.0)  # 19 scores: 90 % of 20 are 18
    known = ConformalScores(scores, np.zeros(19, dtype=int), 1)
    assert known.quantile(0.9) == 18.0
    assert known.quantile(0.91) == 19.0
    assert known.upper_ends(np.array([[5.0]]), np.array([[2.0]]), 0.9).tolist() == [41.0]
    assert known.are_within(np.array([[18.0, 18.1]]), 0.9).tolist() == [True, False]


def test_the_coverage_of_new_rows_is_that_asked_for() -> None:
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(2000):
        scores = rng.exponential(size=30)
        known = ConformalScores(scores[:29], np.zeros(29, dtype=int), 1)
        covered.append(scores[29] <= known.quantile(0.8))
    # exactly 24 of 30 by exchangeability; four standard errors
    assert np.mean(covered) == pytest.approx(0.8, abs=4 * math.sqrt(0.16 / 2000))


def test_a_group_without_rows_has_no_say() -> None:
    scores, groups = np.arange(1.0, 11.0), np.zeros(10, dtype=int)
    known = ConformalScores(scores, groups, 2)
    ends = known.upper_ends(np.array([[0.0], [100.0]]), np.ones((2, 1)), 0.5)
    assert ends == pytest.approx([6.0], abs=1e-9)


def test_weights_count_as_repeated_rows() -> None:
    scores, weight = np.array([1.0, 2.0, 3.0, 4.0]), np.array([6.0, 2.0, 1.0, 1.0])
    known = ConformalScores(scores, np.zeros(4, dtype=int), 1, weight)
    assert known.quantile(0.4) == 1.0
    assert ConformalScores(scores, np.zeros(4, dtype=int), 1).quantile(0.4) == 2.0


def test_too_few_rows_are_an_error_with_the_largest_coverage() -> None:
    known = ConformalScores(np.arange(9.0), np.zeros(9, dtype=int), 1)
    assert known.quantile(0.9) == 8.0
    with pytest.raises(InvalidParameterError, match=r"at most 0\.9 with 9 out-of-fold rows, but got 0\.91"):
        known.quantile(0.91)


@pytest.mark.parametrize("wrong", [0.0, 1.0, 90, "0.9", [], [0.5, 2.0], None, True, float("nan")])
def test_a_coverage_is_a_share(wrong: object) -> None:
    with pytest.raises(InvalidParameterError, match=r"coverage must be a number in \(0, 1\), such as 0\.9"):
        check_coverages(wrong)


def test_one_or_several_coverages() -> None:
    assert check_coverages(0.9) == (0.9,)
    assert check_coverages(np.array([0.5, 0.9])) == (0.5, 0.9)
