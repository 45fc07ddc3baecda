"""Tuned decision thresholds improve a metric of labels on new rows."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.selection import (
    METRICS,
    Bootstrap,
    adjust_for_postprocessing,
    apply_temperature,
    at_best_threshold,
    bias_corrected_score,
    bias_correction,
    greedy_ensemble,
    tune_thresholds,
    weight_classes,
)
from parallelmlp_search.selection.thresholds import _BinaryTuner, _MulticlassTuner, _widest_plateau

LABELS = ("accuracy", "balanced_accuracy", "f1", "f1_macro", "mcc")


def informed(
    n_rows: int, shares: tuple[float, ...], seed: int, sharp: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Calibrated probabilities (C, N) of rows with these shares of classes."""
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
def test_rare_classes_gain_on_new_rows(name: str, shares: tuple[float, ...]) -> None:
    predictions, target = informed(1500, shares, seed=0)
    found = tune_thresholds(predictions, target, METRICS[name])
    assert found is not None
    assert found.gain > found.standard_error / 2
    assert np.mean(found.weights) == pytest.approx(1.0)
    assert found.weights[0] == min(found.weights) < 1
    fresh, truth = informed(20_000, shares, seed=1)
    gain = score(name, weight_classes(fresh, found.weights), truth) - score(name, fresh, truth)
    assert gain > 0.02
    # Reversed weights lose.
    assert (
        score(name, weight_classes(fresh, found.weights[::-1]), truth) < score(name, fresh, truth) + gain / 2
    )


def test_accuracy_of_calibrated_probabilities_does_not_suffer() -> None:
    for seed in range(6):
        predictions, target = informed(800, (0.6, 0.4), seed)
        found = tune_thresholds(predictions, target, METRICS["accuracy"], seed=seed)
        fresh, truth = informed(20_000, (0.6, 0.4), 100 + seed)
        tuned = fresh if found is None else weight_classes(fresh, found.weights)
        assert score("accuracy", tuned, truth) > score("accuracy", fresh, truth) - 0.006


def test_a_shift_of_the_probabilities_is_reversed() -> None:
    predictions, target = informed(4000, (0.5, 0.5), seed=3)
    found = tune_thresholds(weight_classes(predictions, (0.3, 1.7)), target, METRICS["accuracy"])
    assert found is not None
    # 0.3 w_0 = 1.7 w_1, within the precision of 4,000 rows
    assert math.log(found.weights[0] / found.weights[1]) == pytest.approx(math.log(1.7 / 0.3), abs=0.4)


@pytest.mark.parametrize("name", LABELS)
def test_binary_tuner_finds_the_best_of_all_thresholds(name: str) -> None:
    predictions, target = informed(60, (0.7, 0.3), seed=5)
    weight = torch.from_numpy(np.random.default_rng(0).integers(0, 3, 60)).double()
    tuner = _BinaryTuner(predictions.log(), target, METRICS[name].formula, 1.0)
    best = score(name, weight_classes(predictions, tuple(tuner(weight).exp().tolist())), target, weight)
    positive = predictions[1]
    edges = positive.sort().values
    every = [
        score(name, torch.stack([1 - label, label]), target, weight)
        for threshold in ((edges[1:] + edges[:-1]) / 2).tolist()
        for label in ((positive > threshold).double(),)
    ]
    assert best == pytest.approx(max(every), abs=1e-12)
    assert best > score(name, predictions, target, weight) - 1e-12
    assert len(set(every)) > 5  # thresholds differ


@pytest.mark.parametrize("name", ["balanced_accuracy", "f1", "f1_macro", "mcc"])
def test_members_are_scored_at_their_best_thresholds(name: str) -> None:
    pairs = [informed(50, (0.7, 0.3), seed=5, sharp=sharp) for sharp in (0.3, 1.0)]
    target = pairs[0][1]
    members = torch.stack([pairs[0][0], pairs[1][0], pairs[0][0].round(decimals=1)])  # the last with ties
    weight = torch.from_numpy(np.random.default_rng(0).integers(0, 3, 50)).double()
    metric = METRICS[name]
    compared = at_best_threshold(metric, 2)
    assert compared.name == metric.name
    every = []
    for member in members:
        values = member[1].unique().tolist()
        labels = torch.stack([(member[1] > threshold).double() for threshold in values])
        every.append(metric(torch.stack([1 - labels, labels], 1), target, weight).max())
    assert torch.allclose(compared(members, target, weight), torch.stack(every))
    assert not torch.allclose(metric(members, target, weight), torch.stack(every))


def test_metrics_without_a_best_threshold_are_unchanged() -> None:
    for name, n_classes in (("accuracy", 2), ("roc_auc", 2), ("f1", 3), ("rmse", None)):
        assert at_best_threshold(METRICS[name], n_classes) is METRICS[name]


@pytest.mark.parametrize("name", LABELS)
def test_multiclass_tuner_improves_the_metric(name: str) -> None:
    predictions, target = informed(400, (0.6, 0.2, 0.1, 0.06, 0.04), seed=2)
    weight = torch.from_numpy(np.random.default_rng(1).integers(1, 4, 400)).double()
    tuner = _MulticlassTuner(predictions.log(), target, METRICS[name].formula, 1.0)
    tuned = weight_classes(predictions, tuple(tuner(weight).exp().tolist()))
    assert score(name, tuned, target, weight) >= score(name, predictions, target, weight)
    if name != "accuracy":
        assert score(name, tuned, target, weight) > score(name, predictions, target, weight) + 0.02


def test_ends_of_the_widest_plateau() -> None:
    scores = torch.tensor([0.5, 0.9, 0.9, 0.2, 0.9, math.nan])
    low, high = torch.arange(6.0), torch.arange(1.0, 7.0)
    assert _widest_plateau(scores, low, high) == (1, 2)
    assert _widest_plateau(scores, low, high + torch.tensor([0.0, 0, 0, 0, 5, 0])) == (4, 4)


def test_one_row_does_not_move_the_threshold() -> None:
    """A threshold that depends on one row is not the median: a third of the samples lack that row."""
    predictions, target = informed(300, (0.9, 0.1), seed=8, sharp=0.7)
    found = tune_thresholds(predictions, target, METRICS["f1"], seed=0)
    assert found is not None
    moved = predictions.clone()
    moved_row = int((target == 1).nonzero()[0])
    moved[:, moved_row] = torch.tensor([0.9999, 0.0001])
    again = tune_thresholds(moved, target, METRICS["f1"], seed=0)
    assert again is not None
    assert abs(math.log(again.weights[1] / found.weights[1])) < 0.25


def test_row_weights_are_used() -> None:
    predictions, target = informed(1500, (0.8, 0.2), seed=4)
    light = tune_thresholds(predictions, target, METRICS["accuracy"])
    heavy = tune_thresholds(
        predictions, target, METRICS["accuracy"], weight=torch.where(target == 1, 20.0, 1.0)
    )
    assert heavy is not None
    assert heavy.weights[1] > 1.5
    assert light is None or light.weights[1] < 1.3


def test_nothing_is_tuned_with_too_few_data() -> None:
    predictions, target = informed(29, (0.8, 0.2), seed=0)
    assert tune_thresholds(predictions, target, METRICS["f1"]) is None
    predictions, target = informed(300, (0.8, 0.2), seed=0)
    assert tune_thresholds(predictions, target, METRICS["f1"], groups=np.zeros(300)) is None
    assert tune_thresholds(predictions, target, METRICS["f1"], groups=np.arange(300) // 2) is not None
    broken = predictions.clone()
    broken[0, 0] = math.nan
    assert tune_thresholds(broken, target, METRICS["f1"]) is None
    same = torch.tensor([[0.8], [0.2]]).expand(2, 300)  # no threshold lies between rows
    assert tune_thresholds(same, target, METRICS["f1"]) is None


def test_same_seed_same_weights() -> None:
    predictions, target = informed(400, (0.85, 0.15), seed=1, sharp=0.7)
    first, second, other = (tune_thresholds(predictions, target, METRICS["f1"], seed=s) for s in (0, 0, 1))
    assert first == second != other


@pytest.mark.parametrize("name", ["roc_auc", "log_loss", "brier"])
def test_metrics_of_probabilities_are_rejected(name: str) -> None:
    predictions, target = informed(100, (0.8, 0.2), seed=0)
    with pytest.raises(InvalidParameterError, match=f"must depend on labels .* but got '{name}'"):
        tune_thresholds(predictions, target, METRICS[name])


def test_thresholds_tuned_on_noise_do_not_score_better_than_chance() -> None:
    """Weights are tuned on the validation rows and scored on the out-of-fold rows."""
    metric = METRICS["balanced_accuracy"]
    reported, optimistic = [], []
    for seed in range(24):
        rng = np.random.default_rng(seed)
        positive = torch.from_numpy(rng.beta(2, 5, size=(4, 500)))
        predictions = torch.stack([1 - positive, positive], 1)
        target = torch.from_numpy(rng.integers(0, 2, 500))
        validation, oof = slice(0, 100), slice(100, 500)
        found = tune_thresholds(predictions[0, :, validation], target[validation], metric, seed=seed)
        weights = None if found is None else found.weights
        bootstrap = Bootstrap(n_samples=4, seed=seed)
        ensemble = greedy_ensemble(predictions[..., oof], target[oof], metric, n_rounds=1)
        honest = bias_corrected_score(
            predictions[..., oof], target[oof], metric, ensemble, bootstrap=bootstrap
        )
        plain = predictions[0, :, oof]
        after = adjust_for_postprocessing(
            honest, plain, weight_classes(plain, weights), target[oof], metric, bootstrap=bootstrap
        )
        reported.append(after.score)
        tuned = weight_classes(predictions[0, :, validation], weights)
        optimistic.append(score(metric.name, tuned, target[validation]))
    error = float(np.std(reported, ddof=1)) / math.sqrt(len(reported))
    assert abs(np.mean(reported) - 0.5) < 2.5 * error
    assert np.mean(optimistic) > 0.5 + 2.5 * error  # the score on the rows of the tuning


def test_a_temperature_costs_no_bootstrap_where_ranks_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    predictions, target = informed(600, (0.85, 0.15), seed=0)
    metric = METRICS["roc_auc"]
    ensemble = greedy_ensemble(predictions[None], target, metric)
    honest = bias_corrected_score(predictions[None], target, metric, ensemble)
    tempered = apply_temperature(predictions, 0.7)
    monkeypatch.setattr(bias_correction, "_standard_error", pytest.fail)
    assert adjust_for_postprocessing(honest, predictions, tempered, target, metric) == honest


def test_score_is_shifted_by_the_effect_of_the_weights() -> None:
    predictions, target = informed(600, (0.85, 0.15), seed=0)
    ensemble = greedy_ensemble(predictions[None], target, METRICS["f1"])
    honest = bias_corrected_score(predictions[None], target, METRICS["f1"], ensemble)
    same = adjust_for_postprocessing(honest, predictions, predictions, target, METRICS["f1"])
    assert same == honest
    tuned = weight_classes(predictions, (0.5, 1.5))
    after = adjust_for_postprocessing(honest, predictions, tuned, target, METRICS["f1"])
    shift = score("f1", tuned, target) - score("f1", predictions, target)
    assert shift > 0.05
    # a step h towards the bound 1 at distance d is d tanh(h / d), less than h by at most h**3 / (3 d**2)
    for before, found in ((honest.score, after.score), (honest.naive, after.naive)):
        loss = before + shift - found
        assert 0 < loss < shift**3 / (3 * (1 - before) ** 2)
        assert found == pytest.approx(before + (1 - before) * math.tanh(shift / (1 - before)), abs=1e-12)
    assert after.low < after.score < after.high
    assert 0.02 < after.standard_error < 0.08
