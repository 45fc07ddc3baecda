"""Weights of classes that raise a metric of labels on rows that had no say in them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.selection import (
    METRICS,
    as_predicted,
    at_best_cut,
    bias_corrected_score,
    tune_decision,
    weigh,
)
from parallelmlp_search.selection.thresholds import _ManyClasses, _TwoClasses, widest_plateau

LABELS = ("accuracy", "balanced_accuracy", "f1", "f1_macro", "mcc")


def informed(
    n_rows: int, shares: tuple[float, ...], seed: int, sharp: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Calibrated probabilities (C, N) of rows whose classes have these shares."""
    rng = np.random.default_rng(seed)
    target = rng.choice(len(shares), size=n_rows, p=shares)
    seen = rng.normal(size=(len(shares), n_rows))
    seen[target, np.arange(n_rows)] += sharp
    logits = torch.from_numpy(sharp * seen + np.log(shares)[:, None])
    return logits.softmax(0), torch.from_numpy(target)


def score(name: str, predictions: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None = None):
    return float(METRICS[name](predictions[None], target, weight)[0])


@pytest.mark.parametrize("name", ["balanced_accuracy", "f1", "f1_macro", "mcc"])
@pytest.mark.parametrize("shares", [(0.92, 0.08), (0.7, 0.15, 0.1, 0.05)], ids=["two", "four"])
def test_rare_classes_are_named_more_often_and_new_rows_gain(name: str, shares: tuple[float, ...]) -> None:
    predictions, target = informed(1500, shares, seed=0)
    found = tune_decision(predictions, target, METRICS[name])
    assert found is not None
    assert found.gain > found.noise / 2
    assert np.mean(found.weights) == pytest.approx(1.0)
    assert found.weights[0] == min(found.weights) < 1
    fresh, truth = informed(20_000, shares, seed=1)
    gain = score(name, weigh(fresh, found.weights), truth) - score(name, fresh, truth)
    assert gain > 0.02
    # the wrong way round would lose
    assert score(name, weigh(fresh, found.weights[::-1]), truth) < score(name, fresh, truth) + gain / 2


def test_nothing_is_gained_for_the_accuracy_of_calibrated_probabilities() -> None:
    for seed in range(6):
        predictions, target = informed(800, (0.6, 0.4), seed)
        found = tune_decision(predictions, target, METRICS["accuracy"], seed=seed)
        fresh, truth = informed(20_000, (0.6, 0.4), 100 + seed)
        tuned = fresh if found is None else weigh(fresh, found.weights)
        assert score("accuracy", tuned, truth) > score("accuracy", fresh, truth) - 0.006


def test_probabilities_that_were_shifted_are_shifted_back() -> None:
    predictions, target = informed(4000, (0.5, 0.5), seed=3)
    found = tune_decision(weigh(predictions, (0.3, 1.7)), target, METRICS["accuracy"])
    assert found is not None
    # 0.3 w_0 = 1.7 w_1, within what 4,000 rows tell
    assert math.log(found.weights[0] / found.weights[1]) == pytest.approx(math.log(1.7 / 0.3), abs=0.4)


@pytest.mark.parametrize("name", LABELS)
def test_two_classes_get_the_best_of_all_cuts(name: str) -> None:
    predictions, target = informed(60, (0.7, 0.3), seed=5)
    weight = torch.from_numpy(np.random.default_rng(0).integers(0, 3, 60)).double()
    search = _TwoClasses(predictions.log(), target, METRICS[name].formula, 1.0)
    best = score(name, weigh(predictions, tuple(search(weight).exp().tolist())), target, weight)
    positive = predictions[1]
    edges = positive.sort().values
    every = [
        score(name, torch.stack([1 - named, named]), target, weight)
        for cut in ((edges[1:] + edges[:-1]) / 2).tolist()
        for named in ((positive > cut).double(),)
    ]
    assert best == pytest.approx(max(every), abs=1e-12)
    assert best > score(name, predictions, target, weight) - 1e-12
    assert len(set(every)) > 5  # so that not every cut would do


@pytest.mark.parametrize("name", ["balanced_accuracy", "f1", "f1_macro", "mcc"])
def test_members_compared_at_their_best_cuts(name: str) -> None:
    pairs = [informed(50, (0.7, 0.3), seed=5, sharp=sharp) for sharp in (0.3, 1.0)]
    target = pairs[0][1]
    members = torch.stack([pairs[0][0], pairs[1][0], pairs[0][0].round(decimals=1)])  # the last with ties
    weight = torch.from_numpy(np.random.default_rng(0).integers(0, 3, 50)).double()
    metric = METRICS[name]
    compared = at_best_cut(metric, 2)
    assert compared.name == metric.name
    every = []
    for member in members:
        values = member[1].unique().tolist()
        named = torch.stack([(member[1] > cut).double() for cut in values])
        every.append(metric(torch.stack([1 - named, named], 1), target, weight).max())
    assert torch.allclose(compared(members, target, weight), torch.stack(every))
    assert not torch.allclose(metric(members, target, weight), torch.stack(every))


def test_where_the_best_cut_is_not_asked_for() -> None:
    for name, n_classes in (("accuracy", 2), ("roc_auc", 2), ("f1", 3), ("rmse", None)):
        assert at_best_cut(METRICS[name], n_classes) is METRICS[name]


@pytest.mark.parametrize("name", LABELS)
def test_many_classes_end_no_worse_and_count_as_the_metric_does(name: str) -> None:
    predictions, target = informed(400, (0.6, 0.2, 0.1, 0.06, 0.04), seed=2)
    weight = torch.from_numpy(np.random.default_rng(1).integers(1, 4, 400)).double()
    search = _ManyClasses(predictions.log(), target, METRICS[name].formula, 1.0)
    tuned = weigh(predictions, tuple(search(weight).exp().tolist()))
    assert score(name, tuned, target, weight) >= score(name, predictions, target, weight)
    if name != "accuracy":
        assert score(name, tuned, target, weight) > score(name, predictions, target, weight) + 0.02


def test_the_widest_plateau_and_its_both_ends() -> None:
    scores = torch.tensor([0.5, 0.9, 0.9, 0.2, 0.9, math.nan])
    low, high = torch.arange(6.0), torch.arange(1.0, 7.0)
    assert widest_plateau(scores, low, high) == (1, 2)
    assert widest_plateau(scores, low, high + torch.tensor([0.0, 0, 0, 0, 5, 0])) == (4, 4)


def test_one_lucky_row_does_not_move_the_cut() -> None:
    """A best cut that a single row makes is not the median of bootstraps, of which a third lack that row."""
    predictions, target = informed(300, (0.9, 0.1), seed=8, sharp=0.7)
    found = tune_decision(predictions, target, METRICS["f1"], seed=0)
    assert found is not None
    moved = predictions.clone()
    lucky = int((target == 1).nonzero()[0])
    moved[:, lucky] = torch.tensor([0.9999, 0.0001])
    again = tune_decision(moved, target, METRICS["f1"], seed=0)
    assert again is not None
    assert abs(math.log(again.weights[1] / found.weights[1])) < 0.25


def test_weights_of_rows_count() -> None:
    predictions, target = informed(1500, (0.8, 0.2), seed=4)
    light = tune_decision(predictions, target, METRICS["accuracy"])
    heavy = tune_decision(
        predictions, target, METRICS["accuracy"], weight=torch.where(target == 1, 20.0, 1.0)
    )
    assert heavy is not None
    assert heavy.weights[1] > 1.5
    assert light is None or light.weights[1] < 1.3


def test_too_little_to_tell_is_left_alone() -> None:
    predictions, target = informed(29, (0.8, 0.2), seed=0)
    assert tune_decision(predictions, target, METRICS["f1"]) is None
    predictions, target = informed(300, (0.8, 0.2), seed=0)
    assert tune_decision(predictions, target, METRICS["f1"], groups=np.zeros(300)) is None
    assert tune_decision(predictions, target, METRICS["f1"], groups=np.arange(300) // 2) is not None
    broken = predictions.clone()
    broken[0, 0] = math.nan
    assert tune_decision(broken, target, METRICS["f1"]) is None
    same = torch.tensor([[0.8], [0.2]]).expand(2, 300)  # no cut lies between rows
    assert tune_decision(same, target, METRICS["f1"]) is None


def test_the_same_seed_gives_the_same_weights() -> None:
    predictions, target = informed(400, (0.85, 0.15), seed=1, sharp=0.7)
    first, second, other = (tune_decision(predictions, target, METRICS["f1"], seed=s) for s in (0, 0, 1))
    assert first == second != other


@pytest.mark.parametrize("name", ["roc_auc", "log_loss", "brier"])
def test_a_metric_of_probabilities_is_refused(name: str) -> None:
    predictions, target = informed(100, (0.8, 0.2), seed=0)
    with pytest.raises(InvalidParameterError, match=f"must look at labels to be tuned for, but got '{name}'"):
        tune_decision(predictions, target, METRICS[name])


def test_decisions_of_noise_do_not_report_better_than_chance() -> None:
    """Weights are tuned on some rows; what they are said to be worth comes from others."""
    metric = METRICS["balanced_accuracy"]
    reported, flattered = [], []
    for seed in range(24):
        rng = np.random.default_rng(seed)
        positive = torch.from_numpy(rng.beta(2, 5, size=(4, 500)))
        predictions = torch.stack([1 - positive, positive], 1)
        target = torch.from_numpy(rng.integers(0, 2, 500))
        choosing, reporting = slice(0, 100), slice(100, 500)
        found = tune_decision(predictions[0, :, choosing], target[choosing], metric, seed=seed)
        weights = None if found is None else found.weights
        honest = bias_corrected_score(
            predictions[..., reporting], target[reporting], metric, n_bootstraps=4, n_rounds=1, seed=seed
        )
        plain = predictions[0, :, reporting]
        after = as_predicted(honest, plain, weigh(plain, weights), target[reporting], metric, seed=seed)
        reported.append(after.score)
        tuned = weigh(predictions[0, :, choosing], weights)
        flattered.append(score(metric.name, tuned, target[choosing]))
    error = float(np.std(reported, ddof=1)) / math.sqrt(len(reported))
    assert abs(np.mean(reported) - 0.5) < 2.5 * error
    assert np.mean(flattered) > 0.5 + 2.5 * error  # which the rows that tuned would have reported


def test_the_score_moves_by_what_the_treatment_does_on_its_rows() -> None:
    predictions, target = informed(600, (0.85, 0.15), seed=0)
    honest = bias_corrected_score(predictions[None], target, METRICS["f1"], seed=0)
    same = as_predicted(honest, predictions, predictions, target, METRICS["f1"])
    assert same == honest
    tuned = weigh(predictions, (0.5, 1.5))
    after = as_predicted(honest, predictions, tuned, target, METRICS["f1"])
    shift = score("f1", tuned, target) - score("f1", predictions, target)
    assert shift > 0.05
    assert after.score == pytest.approx(honest.score + shift)
    assert after.naive == pytest.approx(score("f1", tuned, target))
    assert after.low < after.score < after.high
    assert 0.02 < after.standard_error < 0.08
