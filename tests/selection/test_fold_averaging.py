"""The estimated gain of averaging folds against simulated networks whose gain is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.selection import (
    Bootstrap,
    HonestScore,
    adjust_for_averaging,
    averaging_gain,
    bias_corrected_score,
    get_metric,
    greedy_ensemble,
)
from parallelmlp_search.selection import fold_averaging as averaging
from parallelmlp_search.selection.score_range import ScoreRange

RMSE = get_metric("rmse", "regression")


def _networks(n_members: int, n_folds: int, n_rows: int, shared: float) -> tuple[Tensor, Tensor]:
    """Predictions (folds, members, 1, rows) of zeros: noise of variance 1, a share of it common to a fold."""
    generator = torch.Generator().manual_seed(0)
    own = torch.randn(n_folds, n_members, 1, n_rows, generator=generator, dtype=torch.float64)
    common = torch.randn(n_folds, 1, 1, n_rows, generator=generator, dtype=torch.float64)
    bias = torch.randn(n_rows, generator=generator, dtype=torch.float64)
    return bias + math.sqrt(shared) * common + math.sqrt(1.0 - shared) * own, torch.zeros(1, n_rows)


@pytest.mark.parametrize(("n_members", "n_folds"), [(1, 5), (2, 4), (6, 5)])
def test_gain_of_squared_errors(n_members: int, n_folds: int) -> None:
    """Without a common part, averaging lowers the loss of single networks from sqrt(2) towards 1."""
    predictions, target = _networks(max(2, n_members), n_folds, 100_000, 0.0)
    weights = torch.zeros(max(2, n_members), dtype=torch.float64)
    weights[:n_members] = 1.0 / n_members
    gain = averaging_gain(predictions[0], target, RMSE, weights, n_folds)
    count = len(weights)
    whole = (math.sqrt(1.0 + 1.0 / count) - math.sqrt(2.0)) / (1.0 - 1.0 / count)
    left = averaging.REMAINING_GAIN + (1.0 - averaging.REMAINING_GAIN) / n_members
    assert gain == pytest.approx(whole * left * (1.0 - 1.0 / n_folds), rel=0.05)
    assert gain < 0.0


def test_gain_grows_with_the_number_of_networks() -> None:
    predictions, target = _networks(3, 1, 500, 0.5)
    weights = torch.tensor([0.5, 0.3, 0.2])
    found = [averaging_gain(predictions[0], target, RMSE, weights, n) for n in (1, 2, 3, 10)]
    assert found[0] == 0.0
    assert found == sorted(found, reverse=True)
    assert found[3] / found[1] == pytest.approx(0.9 / 0.5)


def test_equal_members_gain_nothing() -> None:
    predictions, target = _networks(1, 1, 500, 0.5)
    twins = predictions[0].expand(3, -1, -1)
    assert averaging_gain(twins, target, RMSE, torch.full((3,), 1 / 3), 5) == pytest.approx(0.0, abs=1e-12)


def test_gain_is_zero_if_averaging_harms() -> None:
    target = torch.tensor([0, 0, 0, 1, 1, 1])
    accuracy = get_metric("accuracy", "binary")
    good = torch.tensor([0.6, 0.6, 0.6, 0.4, 0.4, 0.4])
    one = torch.tensor([0.6, 0.1, 0.6, 0.4, 0.4, 0.4])
    other = torch.tensor([0.1, 0.6, 0.6, 0.4, 0.4, 0.4])
    members = torch.stack([torch.stack([p, 1.0 - p]) for p in (good, one, other)])
    alone = averaging_gain(members[1:], target, accuracy, torch.tensor([0.5, 0.5]), 5)
    assert alone == 0.0  # each is wrong once, their average twice


def test_a_single_member_is_compared_with_the_best_other_member() -> None:
    predictions, target = _networks(3, 1, 2000, 0.5)
    members = predictions[0] * torch.tensor([1.0, 3.0, 1.1]).view(3, 1, 1)
    only = torch.tensor([1.0, 0.0, 0.0])
    with_best = averaging_gain(members[[0, 2]], target, RMSE, only[:2], 5)
    assert averaging_gain(members, target, RMSE, only, 5) == with_best < 0.0
    members[2] = math.nan
    worse = averaging_gain(members[:2], target, RMSE, only[:2], 5)
    assert averaging_gain(members, target, RMSE, only, 5) == worse != with_best
    assert averaging_gain(members[:1], target, RMSE, only[:1], 5) == 0.0


@pytest.mark.parametrize("factor", [2.0, 5.0, 50.0])
def test_a_bad_member_does_not_increase_the_gain(factor: float) -> None:
    """The large error of a network far from the others is nothing that averaging folds would gain."""
    predictions, target = _networks(2, 1, 20_000, 0.0)
    only = torch.tensor([1.0, 0.0])
    fair = averaging_gain(predictions[0], target, RMSE, only, 5)
    bad = predictions[0] * torch.tensor([1.0, factor]).view(2, 1, 1)
    assert fair <= averaging_gain(bad, target, RMSE, only, 5) <= 0.0


def test_row_weights_are_used() -> None:
    predictions, target = _networks(2, 1, 300, 0.5)
    weights = torch.tensor([0.5, 0.5])
    heavy = torch.cat([torch.ones(100), torch.zeros(200)])
    found = averaging_gain(predictions[0], target, RMSE, weights, 5, weight=heavy)
    assert found == pytest.approx(
        averaging_gain(predictions[0][..., :100], target[..., :100], RMSE, weights, 5)
    )


def test_number_of_networks_is_checked() -> None:
    predictions, target = _networks(2, 1, 30, 0.5)
    with pytest.raises(InvalidParameterError, match="n_networks must be an integer >= 1, but got 0"):
        averaging_gain(predictions[0], target, RMSE, torch.tensor([0.5, 0.5]), 0)


def test_score_is_shifted_and_its_error_increased() -> None:
    honest = HonestScore(2.0, 0.3, 1.5, 2.4, 1.9, 30)
    moved, error = adjust_for_averaging(honest, -0.2, ScoreRange()), 0.2 * averaging.RELATIVE_ERROR
    assert moved.score == pytest.approx(1.8)
    assert moved.standard_error == pytest.approx(math.hypot(0.3, error))
    assert moved.low == pytest.approx(1.8 - math.hypot(0.5, 1.96 * error))
    assert moved.high == pytest.approx(1.8 + math.hypot(0.4, 1.96 * error))
    assert (moved.naive, moved.n_bootstraps) == (1.9, 30)
    assert moved.averaging == pytest.approx(-0.2)
    assert adjust_for_averaging(honest, 0.0, ScoreRange()) is honest
    unknown = HonestScore(math.nan, math.nan, math.nan, math.nan, 1.9, 0)
    assert adjust_for_averaging(unknown, -0.2, ScoreRange()) is unknown


def test_shifted_score_approaches_that_of_the_average_of_folds() -> None:
    """Members are as far apart as the constant assumes."""
    n_folds, n_members = 5, 4
    predictions, target = _networks(n_members, n_folds, 20_000, averaging.REMAINING_GAIN)
    weights = torch.full((n_members,), 1.0 / n_members, dtype=torch.float64)
    ensemble = greedy_ensemble(predictions[0], target, RMSE)
    bootstrap = Bootstrap(n_samples=5, max_rows=1000)
    honest = bias_corrected_score(predictions[0], target, RMSE, ensemble, bootstrap=bootstrap)
    # Members of one fold are closer to each other than networks of different folds: half of the variance.
    gain = averaging_gain(predictions[0], target, RMSE, weights, n_folds)
    real = math.sqrt(float(predictions.mean((0, 1)).square().mean())) - honest.score
    assert gain < 0.0
    assert 0.35 * real > gain > 1.2 * real
