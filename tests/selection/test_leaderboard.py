"""Leaderboard: order, ties, records and frame."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.selection import Entry, Leaderboard
from parallelmlp_search.space import MLPConfig


def entry(trial: int, error: float | None, **changes: object) -> Entry:
    score = None if error is None else 1 - error
    return Entry(**{"trial": trial, "metric": "accuracy", "error": error, "score": score, **changes})


def test_best_first_with_ties_by_parameters_and_number():
    board = Leaderboard(
        [
            entry(4, 0.3),
            entry(3, 0.1, n_parameters=50),
            entry(1, 0.1, n_parameters=50),
            entry(2, 0.1, n_parameters=10),
            entry(0, 0.2),
        ]
    )
    assert [e.trial for e in board] == [2, 1, 3, 0, 4]
    assert board.ranks == (1, 1, 1, 4, 5)


def test_failed_trials_rank_last():
    board = Leaderboard(
        [
            entry(0, 0.0, state="failed", failure="the loss became infinite at step 7"),
            entry(1, math.nan),
            entry(2, None, state="failed", failure="out of memory"),
            entry(3, 0.9),
        ]
    )
    assert [e.trial for e in board] == [3, 0, 1, 2]
    assert board.ranks == (1, None, None, None)
    frame = board.to_frame()
    assert frame["failure"].tolist()[1] == "the loss became infinite at step 7"
    assert frame["error"].isna().tolist() == [False, False, True, True]


def test_trials_of_a_higher_rung_rank_first():
    board = Leaderboard(
        [entry(0, 0.05, rung=0, state="pruned"), entry(1, 0.10, rung=2), entry(2, 0.05, rung=2)]
    )
    assert [e.trial for e in board] == [2, 1, 0]
    assert board.ranks == (1, 2, 3)  # the same error, but not comparable
    assert [e.trial for e in Leaderboard([entry(0, 0.05), entry(1, 0.10)])] == [0, 1]


def test_configurations_are_flat_columns_of_plain_values():
    board = Leaderboard(
        [
            entry(0, np.float64(0.2), config=MLPConfig(widths=(8, 4)), train_seconds=np.float32(1.5)),
            entry(1, 0.3, config={"betas": (0.9, math.inf)}),
        ]
    )
    frame = board.to_frame()
    assert frame["config_widths"][0] == [8, 4]
    assert frame["config_activation"][0] == "relu"
    assert frame["train_seconds"][0] == 1.5
    assert frame["config_betas"][1] == [0.9, None]
    assert frame["rank"].tolist() == [1, 2]


def test_frame():
    board = Leaderboard([entry(0, 0.2, config={"x": 1}), entry(1, None, state="failed", failure="diverged")])
    frame = board.to_frame()
    assert frame["trial"].tolist() == [0, 1]
    assert frame["rank"].dtype == "Int64"
    assert frame["rank"].isna().tolist() == [False, True]
    assert frame["score"].dtype == np.float64
    assert "config_x" in frame
    pd.testing.assert_frame_equal(frame, Leaderboard(reversed(board.entries)).to_frame())


def test_an_empty_board():
    board = Leaderboard([])
    assert len(board) == 0
    assert board.to_frame().empty
    assert "trial" in board.to_frame()
    assert repr(board) == "Leaderboard()"


def test_a_trial_number_appears_once():
    with pytest.raises(InvalidParameterError, match="different trials, but got 3 twice"):
        Leaderboard([entry(3, 0.1), entry(3, 0.2)])
