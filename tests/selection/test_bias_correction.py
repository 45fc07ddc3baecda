"""The honest score against a truth that is known because the data are simulated."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.selection import (
    METRICS,
    Bootstrap,
    HonestScore,
    bias_corrected_score,
    greedy_ensemble,
)


def honest_score(
    predictions: Tensor,
    target: Tensor,
    metric: str,
    *,
    n_rounds: int = 25,
    weight: Tensor | None = None,
    **bootstrap: Any,
) -> HonestScore:
    """Select an ensemble and correct its score."""
    ensemble = greedy_ensemble(predictions, target, METRICS[metric], n_rounds=n_rounds, weight=weight)
    return bias_corrected_score(
        predictions, target, METRICS[metric], ensemble, weight=weight, bootstrap=Bootstrap(**bootstrap)
    )


def coin_tosses(n_members: int, n_rows: int, seed: int) -> tuple[Tensor, Tensor]:
    """Members independent of the target: the true accuracy and AUC of any selection is 1/2."""
    generator = torch.Generator().manual_seed(seed)
    positive = torch.rand(n_members, n_rows, generator=generator)
    return torch.stack([1 - positive, positive], 1), torch.randint(2, (n_rows,), generator=generator)


def informed(n_members: int, n_rows: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(2, (n_rows,), generator=generator)
    shared = torch.randn(n_rows, generator=generator)
    own = torch.randn(n_members, n_rows, generator=generator)
    positive = (2.0 * target - 1.0 + shared + 0.7 * own).sigmoid()
    return torch.stack([1 - positive, positive], 1), target


@pytest.mark.parametrize("name", ["accuracy", "roc_auc"])
@pytest.mark.parametrize("n_rounds", [1, 25])
def test_the_best_of_many_useless_members_scores_like_chance(name: str, n_rounds: int) -> None:
    predictions, target = coin_tosses(200, 300, seed=1)
    honest = honest_score(predictions, target, name, n_rounds=n_rounds)
    chance = {"accuracy": math.sqrt(1 / (4 * 300)), "roc_auc": math.sqrt(301 / (12 * 150 * 150))}[name]
    assert honest.naive > 0.5 + 2 * chance  # against the standard error of one member
    assert abs(honest.score - 0.5) < 2 * honest.standard_error
    assert honest.low < 0.5 < honest.high


def test_with_one_member_there_is_nothing_to_correct() -> None:
    predictions, target = informed(1, 2000, seed=0)
    honest = honest_score(predictions, target, "accuracy", n_samples=60)
    assert abs(honest.score - honest.naive) < 0.3 * honest.standard_error


def test_standard_error_of_an_accuracy_is_binomial() -> None:
    predictions, target = informed(1, 2000, seed=0)
    honest = honest_score(predictions, target, "accuracy", n_samples=100)
    binomial = math.sqrt(honest.naive * (1 - honest.naive) / 2000)
    assert honest.standard_error == pytest.approx(binomial, rel=0.25)
    assert (honest.high - honest.low) / 3.92 == pytest.approx(binomial, rel=0.3)


def test_honest_score_is_close_to_the_score_on_new_rows() -> None:
    metric = METRICS["roc_auc"]
    deviations = []
    for seed in range(12):
        predictions, target = informed(24, 4400, seed)
        seen, new = slice(400), slice(400, None)
        ensemble = greedy_ensemble(predictions[..., seen], target[seen], metric)
        honest = bias_corrected_score(predictions[..., seen], target[seen], metric, ensemble)
        assert honest.naive == pytest.approx(ensemble.score, abs=1e-6)
        truth = metric(ensemble.combine(predictions[..., new])[None], target[new]).item()
        deviations.append((honest.score - truth) / honest.standard_error)
    assert sum(abs(deviation) < 2 for deviation in deviations) >= 10
    assert abs(np.mean(deviations)) < 1


@pytest.mark.parametrize("name", ["rmse", "mae", "r2"])
def test_errors_of_a_regression_are_corrected_upwards(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(200, generator=generator)
    predictions = torch.randn(100, 1, 200, generator=generator)
    honest = honest_score(predictions, target, name, n_rounds=1)
    assert METRICS[name].to_error(honest.score) > METRICS[name].to_error(honest.naive)


def test_groups_are_drawn_together() -> None:
    """Ten copies of each row look like ten times the evidence unless they are drawn together."""
    predictions, target = informed(8, 200, seed=3)
    predictions, target = predictions.repeat(1, 1, 10), target.repeat(10)
    groups = np.array([f"g{i % 200}" for i in range(2000)])
    by_row = honest_score(predictions, target, "accuracy")
    by_group = honest_score(predictions, target, "accuracy", groups=groups)
    assert by_group.standard_error > 2 * by_row.standard_error


def test_same_seed_same_score() -> None:
    predictions, target = informed(6, 300, seed=0)
    first = honest_score(predictions, target, "roc_auc", seed=4)
    assert honest_score(predictions, target, "roc_auc", seed=4) == first
    assert honest_score(predictions, target, "roc_auc", seed=5) != first
    sequence = np.random.SeedSequence(4)
    assert honest_score(predictions, target, "roc_auc", seed=sequence) == first
    assert honest_score(predictions, target, "roc_auc", seed=sequence) == first


@pytest.mark.parametrize("n_positive", [20, 2])  # of two positive rows, many samples draw none or both
def test_workers_do_not_change_the_score(n_positive: int) -> None:
    predictions, target = informed(6, 40, seed=1)
    target[:] = torch.arange(40) < n_positive
    one, three = (honest_score(predictions, target, "roc_auc", n_workers=n) for n in (1, 3))
    assert one == three
    assert honest_score(predictions, target, "roc_auc", n_samples=31, n_workers=3) != one


def test_selection_on_fewer_rows_is_not_optimistic() -> None:
    predictions, target = coin_tosses(50, 1000, seed=2)
    honest = honest_score(predictions, target, "accuracy", n_rounds=1, max_rows=50)
    assert abs(honest.score - 0.5) < 2 * honest.standard_error


def test_row_weights_are_used() -> None:
    predictions, target = informed(6, 400, seed=0)
    # With all weight on the rows that the first member predicts correctly its accuracy is 1.
    correct = (predictions[0].argmax(0) == target).double()
    honest = honest_score(predictions, target, "accuracy", weight=correct)
    assert honest.naive == honest.score == 1.0
    assert honest_score(predictions, target, "accuracy").score < 1.0


def test_non_finite_members_change_nothing() -> None:
    predictions, target = informed(6, 300, seed=0)
    alone = honest_score(predictions[[0, 2, 3, 5]], target, "log_loss")
    predictions[1, 0, 7], predictions[4] = torch.nan, torch.inf
    assert honest_score(predictions, target, "log_loss") == alone


def test_samples_of_one_class_are_replaced() -> None:
    predictions, target = informed(4, 40, seed=0)
    target[:] = 0
    target[3] = target[17] = 1
    honest = honest_score(predictions, target, "roc_auc")
    assert honest.n_bootstraps == 30
    assert math.isfinite(honest.score)


def test_two_rows_give_only_the_naive_score() -> None:
    predictions, _ = informed(3, 2, seed=0)
    honest = honest_score(predictions, torch.tensor([0, 1]), "roc_auc")
    assert math.isnan(honest.score)
    assert math.isnan(honest.standard_error)
    assert math.isfinite(honest.naive)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_samples": 1}, "n_samples must be an integer >= 2, but got 1"),
        ({"max_rows": 1}, "max_rows must be an integer >= 2"),
        ({"max_rows": 2.5}, "max_rows must be an integer >= 2, but got 2.5"),
        ({"seed": -1}, "seed must be an integer >= 0"),
        ({"groups": np.zeros(20)}, "at least 2 groups"),
        ({"groups": np.zeros(3)}, "one label per row"),
    ],
)
def test_bad_parameters(changes: dict[str, Any], message: str) -> None:
    predictions, target = informed(3, 20, seed=0)
    with pytest.raises(InvalidParameterError, match=message):
        honest_score(predictions, target, "accuracy", **changes)
