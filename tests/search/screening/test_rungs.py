"""Successive halving as pure functions of scores."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallelmlp_search.search.screening.rungs import advancing, ladder, ladder_cost, survivors

ERRORS = st.one_of(st.floats(0, 10), st.sampled_from([0.5, math.nan, math.inf]))
COHORTS = st.lists(ERRORS, min_size=1, max_size=60).map(lambda errors: dict(enumerate(errors)))


# ---------------------------------------------------------------------- ladder


@pytest.mark.parametrize(
    ("max_epochs", "factor", "rungs"),
    [
        (27, 3, (1, 3, 9, 27)),
        (81, 3, (3, 9, 27, 81)),
        (100, 3, (3, 11, 33, 100)),
        (8, 2, (1, 2, 4, 8)),
        (1, 3, (1,)),
        (2, 3, (1, 2)),
        (16, 4, (1, 4, 16)),
    ],
)
def test_ladder(max_epochs: int, factor: int, rungs: tuple[int, ...]) -> None:
    assert ladder(max_epochs, factor) == rungs


@given(max_epochs=st.integers(1, 2000), factor=st.integers(2, 8), n_rungs=st.integers(1, 6))
def test_the_last_rung_of_a_ladder_is_full_training(max_epochs: int, factor: int, n_rungs: int) -> None:
    rungs = ladder(max_epochs, factor, n_rungs=n_rungs)
    assert rungs[-1] == max_epochs
    assert rungs[0] >= 1
    assert list(rungs) == sorted(set(rungs))
    assert len(rungs) <= n_rungs


@pytest.mark.parametrize(("n", "factor", "expected"), [(0, 3, 0), (1, 3, 1), (3, 3, 1), (4, 3, 2), (9, 2, 5)])
def test_survivors(n: int, factor: int, expected: int) -> None:
    assert survivors(n, factor) == expected


# ---------------------------------------------------------------------- advancing


def test_the_best_third_advances_in_order_of_error() -> None:
    cohort = {10: 0.5, 11: 0.1, 12: 0.9, 13: 0.3, 14: 0.7, 15: 0.2}
    assert advancing(cohort, [], 3) == [11, 15]
    assert advancing(cohort, [], 2) == [11, 15, 13]


def test_ties_go_to_the_lower_number() -> None:
    assert advancing({7: 0.5, 3: 0.5, 5: 0.5}, [], 3) == [3]


def test_failed_trials_count_but_never_advance() -> None:
    cohort = {0: math.nan, 1: math.inf, 2: 0.4, 3: math.nan, 4: 0.6, 5: -math.inf}
    assert advancing(cohort, [], 3) == [2, 4]
    assert advancing({0: math.nan, 1: math.inf}, [], 2) == []
    assert advancing({}, [0.1, 0.2], 2) == []


def test_a_later_cohort_is_compared_with_all_earlier_trials() -> None:
    cohort = {0: 0.5, 1: 0.6, 2: 0.7}
    assert advancing(cohort, [], 3) == [0]
    # nine earlier trials are better; four of twelve advance, and earlier trials take all four places
    assert advancing(cohort, [0.1] * 9, 3) == []
    # nine earlier trials are worse: the whole cohort is among the best four
    assert advancing(cohort, [0.9] * 9, 3) == [0, 1, 2]
    # failed earlier trials increase the number of places and are never ahead
    assert advancing(cohort, [math.nan] * 9, 3) == [0, 1, 2]


def test_earlier_trials_win_ties() -> None:
    assert advancing({0: 0.5}, [0.5, 0.6, 0.7], 4) == []
    assert advancing({0: 0.4999}, [0.5, 0.6, 0.7], 4) == [0]


@given(cohort=COHORTS, past=st.lists(ERRORS, max_size=40), factor=st.integers(2, 5))
def test_advancing_trials_are_a_prefix_of_the_ranking(
    cohort: dict[int, float], past: list[float], factor: int
) -> None:
    chosen = advancing(cohort, past, factor)
    ranking = sorted((error, trial) for trial, error in cohort.items() if math.isfinite(error))
    assert chosen == [trial for _, trial in ranking[: len(chosen)]]
    room = survivors(len(cohort) + len(past), factor)
    assert len(chosen) <= room
    if not past:
        assert len(chosen) == min(room, len(ranking))


@given(cohort=COHORTS, factor=st.integers(2, 5), seed=st.randoms(use_true_random=False))
def test_the_order_of_a_cohort_does_not_matter(cohort: dict[int, float], factor: int, seed: object) -> None:
    items = list(cohort.items())
    seed.shuffle(items)  # type: ignore[attr-defined]
    assert advancing(dict(items), [0.3], factor) == advancing(cohort, [0.3], factor)


# ---------------------------------------------------------------------- cost


def test_ladder_cost_is_the_mean_over_a_large_cohort() -> None:
    # 27 trials take 27 x 1, 9 x 2, 3 x 6 and 1 x 18 epochs
    assert ladder_cost((1, 3, 9, 27), 3) == pytest.approx((27 + 18 + 18 + 18) / 27)
    assert ladder_cost((5,), 3) == 5


@given(max_epochs=st.integers(2, 500), factor=st.integers(2, 5))
def test_halving_costs_less_than_full_training_and_more_than_the_first_rung(
    max_epochs: int, factor: int
) -> None:
    rungs = ladder(max_epochs, factor)
    assert rungs[0] <= ladder_cost(rungs, factor) <= max_epochs
