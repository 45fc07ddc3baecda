"""The corrected score against a truth that is known because the data are simulated."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from parallelmlp_search.exceptions import InvalidParameterError, SearchFailedError
from parallelmlp_search.selection import METRICS, bias_corrected_score, greedy_ensemble


def coin_tosses(n_members: int, n_rows: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Members that know nothing about the target: the true accuracy and AUC of any choice is 1/2."""
    generator = torch.Generator().manual_seed(seed)
    positive = torch.rand(n_members, n_rows, generator=generator)
    return torch.stack([1 - positive, positive], 1), torch.randint(2, (n_rows,), generator=generator)


def informed(n_members: int, n_rows: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(2, (n_rows,), generator=generator)
    shared = torch.randn(n_rows, generator=generator)
    own = torch.randn(n_members, n_rows, generator=generator)
    positive = (2.0 * target - 1.0 + shared + 0.7 * own).sigmoid()
    return torch.stack([1 - positive, positive], 1), target


@pytest.mark.parametrize("name", ["accuracy", "roc_auc"])
@pytest.mark.parametrize("ensemble", [False, True])
def test_the_best_of_many_useless_members_is_not_believed(name, ensemble):
    predictions, target = coin_tosses(200, 300, seed=1)
    honest = bias_corrected_score(predictions, target, METRICS[name], ensemble=ensemble, seed=0)
    chance = {"accuracy": math.sqrt(1 / (4 * 300)), "roc_auc": math.sqrt(301 / (12 * 150 * 150))}[name]
    assert honest.naive > 0.5 + 2 * chance  # what the winner claims, against the error of one fair coin
    assert abs(honest.score - 0.5) < 2 * honest.standard_error
    assert honest.low < 0.5 < honest.high


def test_with_one_member_there_is_nothing_to_correct():
    predictions, target = informed(1, 2000, seed=0)
    honest = bias_corrected_score(predictions, target, METRICS["accuracy"], n_bootstraps=60)
    assert abs(honest.score - honest.naive) < 0.3 * honest.standard_error


def test_the_standard_error_of_an_accuracy_is_that_of_a_share():
    predictions, target = informed(1, 2000, seed=0)
    honest = bias_corrected_score(predictions, target, METRICS["accuracy"], n_bootstraps=100)
    binomial = math.sqrt(honest.naive * (1 - honest.naive) / 2000)
    assert honest.standard_error == pytest.approx(binomial, rel=0.25)
    assert (honest.high - honest.low) / 3.92 == pytest.approx(binomial, rel=0.3)


def test_it_comes_close_to_the_score_on_new_rows():
    metric = METRICS["roc_auc"]
    misses = []
    for seed in range(12):
        predictions, target = informed(24, 4400, seed)
        seen, new = slice(400), slice(400, None)
        chosen = greedy_ensemble(predictions[..., seen], target[seen], metric)
        honest = bias_corrected_score(predictions[..., seen], target[seen], metric, chosen=chosen)
        assert honest.naive == pytest.approx(chosen.score, abs=1e-6)
        truth = metric(chosen.combine(predictions[..., new])[None], target[new]).item()
        misses.append((honest.score - truth) / honest.standard_error)
    assert sum(abs(miss) < 2 for miss in misses) >= 10
    assert abs(np.mean(misses)) < 1


def test_losses_are_corrected_upwards():
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(200, generator=generator)
    predictions = torch.randn(100, 1, 200, generator=generator)
    for name in ("rmse", "mae", "r2"):
        metric = METRICS[name]
        honest = bias_corrected_score(predictions, target, metric, ensemble=False)
        assert metric.to_error(honest.score) > metric.to_error(honest.naive)


def test_groups_are_drawn_whole():
    """Ten copies of each row look like ten times the evidence unless they are drawn together."""
    predictions, target = informed(8, 200, seed=3)
    predictions, target = predictions.repeat(1, 1, 10), target.repeat(10)
    groups = np.array([f"g{i % 200}" for i in range(2000)])
    rows = bias_corrected_score(predictions, target, METRICS["accuracy"])
    whole = bias_corrected_score(predictions, target, METRICS["accuracy"], groups=groups)
    assert whole.standard_error > 2 * rows.standard_error


def test_the_seed_decides_everything():
    predictions, target = informed(6, 300, seed=0)
    first = bias_corrected_score(predictions, target, METRICS["roc_auc"], seed=4)
    assert bias_corrected_score(predictions, target, METRICS["roc_auc"], seed=4) == first
    assert bias_corrected_score(predictions, target, METRICS["roc_auc"], seed=5) != first
    sequence = np.random.SeedSequence(4)
    assert bias_corrected_score(predictions, target, METRICS["roc_auc"], seed=sequence) == first
    assert bias_corrected_score(predictions, target, METRICS["roc_auc"], seed=sequence) == first


def test_choosing_on_fewer_rows_is_less_well_informed_not_flattered():
    predictions, target = coin_tosses(50, 1000, seed=2)
    honest = bias_corrected_score(predictions, target, METRICS["accuracy"], max_rows=50, ensemble=False)
    assert abs(honest.score - 0.5) < 2 * honest.standard_error


def test_row_weights_count():
    predictions, target = informed(6, 400, seed=0)
    # The rows that the first member gets right: with weight on them alone its accuracy is 1.
    right = (predictions[0].argmax(0) == target).double()
    honest = bias_corrected_score(predictions, target, METRICS["accuracy"], weight=right)
    assert honest.naive == honest.score == 1.0
    assert bias_corrected_score(predictions, target, METRICS["accuracy"]).score < 1.0


def test_broken_members_change_nothing():
    predictions, target = informed(6, 300, seed=0)
    alone = bias_corrected_score(predictions[[0, 2, 3, 5]], target, METRICS["log_loss"])
    predictions[1, 0, 7], predictions[4] = torch.nan, torch.inf
    assert bias_corrected_score(predictions, target, METRICS["log_loss"]) == alone


def test_draws_of_one_class_are_drawn_again():
    predictions, target = informed(4, 40, seed=0)
    target[:] = 0
    target[3] = target[17] = 1
    honest = bias_corrected_score(predictions, target, METRICS["roc_auc"])
    assert honest.n_bootstraps == 30
    assert math.isfinite(honest.score)


def test_too_few_rows_to_say():
    predictions, _ = informed(3, 2, seed=0)
    honest = bias_corrected_score(predictions, torch.tensor([0, 1]), METRICS["roc_auc"])
    assert math.isnan(honest.score)
    assert math.isnan(honest.standard_error)
    assert math.isfinite(honest.naive)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_bootstraps": 1}, "n_bootstraps must be an integer >= 2, but got 1"),
        ({"n_rounds": 0}, "n_rounds must be an integer >= 1"),
        ({"max_rows": 1}, "max_rows must be an integer >= 2"),
        ({"seed": -1}, "seed must be an integer >= 0"),
        ({"groups": np.zeros(20)}, "at least 2 groups"),
        ({"groups": np.zeros(3)}, "one label per row"),
    ],
)
def test_bad_parameters(changes, message):
    predictions, target = informed(3, 20, seed=0)
    with pytest.raises(InvalidParameterError, match=message):
        bias_corrected_score(predictions, target, METRICS["accuracy"], **changes)


def test_no_member_with_a_score():
    predictions, target = informed(3, 20, seed=0)
    with pytest.raises(SearchFailedError, match="no member can be picked"):
        bias_corrected_score(predictions * torch.nan, target, METRICS["accuracy"])
