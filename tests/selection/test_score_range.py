"""Corrected scores stay in the range of their metric, and small corrections are the additive ones."""

from __future__ import annotations

import math
from dataclasses import astuple

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from parallelmlp_search import ParallelMLPClassifier
from parallelmlp_search.selection import (
    METRICS,
    Bootstrap,
    HonestScore,
    adjust_for_averaging,
    adjust_for_postprocessing,
    averaging_gain,
    bias_corrected_score,
    greedy_ensemble,
)
from parallelmlp_search.selection.deviance import Deviance
from parallelmlp_search.selection.score_range import ScoreRange

RANGES = [ScoreRange(0.0, 1.0), ScoreRange(-1.0, 1.0), ScoreRange(0.0, 2.0), ScoreRange(low=0.0)]
RANGES += [ScoreRange(high=1.0), ScoreRange()]
SHARES = st.floats(0.0, 1.0)
CHANGES = st.floats(-1e6, 1e6)


def inside(bounds: ScoreRange, share: float) -> float:
    """Score of a range, at a share of its finite part."""
    low = bounds.low if math.isfinite(bounds.low) else -5.0
    high = bounds.high if math.isfinite(bounds.high) else 5.0
    return min(max(low + share * (high - low), low), high)


@given(st.sampled_from(RANGES), SHARES, CHANGES)
@example(ScoreRange(0.0, 1.0), 0.99, 0.02)
@example(ScoreRange(0.0, 1.0), 1.0, 0.02)
@example(ScoreRange(0.0, 1.0), 1.0, -0.02)
@example(ScoreRange(-1.0, 1.0), 1e-17, 5.0)
def test_no_change_leaves_the_range(bounds: ScoreRange, share: float, change: float) -> None:
    score = inside(bounds, share)
    moved = bounds.shift(score, change)
    assert bounds.low <= moved <= bounds.high
    assert (moved - score) * change >= -1e-15 * abs(change)
    assert abs(moved - score) <= abs(change) + 1e-9


@given(st.sampled_from(RANGES), SHARES, SHARES, CHANGES)
def test_the_order_of_scores_is_kept(bounds: ScoreRange, first: float, second: float, change: float) -> None:
    low, high = (bounds.shift(inside(bounds, share), change) for share in sorted((first, second)))
    assert low <= high + 1e-9


@given(st.sampled_from(RANGES), SHARES, SHARES)
def test_distances_lead_back(bounds: ScoreRange, first: float, second: float) -> None:
    start, end = inside(bounds, first), inside(bounds, second)
    assert bounds.at(start, bounds.distance(start, end)) == pytest.approx(end, abs=1e-7)


@pytest.mark.parametrize("bounds", RANGES)
def test_small_changes_are_added(bounds: ScoreRange) -> None:
    """The difference to the sum falls with the third power of the change."""
    score = inside(bounds, 0.7)
    differences = [abs(bounds.shift(score, change) - (score + change)) for change in (0.04, 0.02, 0.01)]
    assert differences[0] < 0.001
    if any(map(math.isfinite, (bounds.high,))):
        assert differences[0] / differences[1] == pytest.approx(8.0, rel=0.1)
        assert differences[1] / differences[2] == pytest.approx(8.0, rel=0.1)


def test_a_perfect_score_can_only_fall() -> None:
    bounds = ScoreRange(0.0, 1.0)
    assert bounds.shift(1.0, 0.3) == 1.0
    assert bounds.shift(1.0, -0.02) == pytest.approx(0.98, abs=1e-4)
    assert bounds.shift(0.0, -0.3) == 0.0


def _classes(n_classes: int, n_members: int, n_rows: int, certain: float) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    target = torch.arange(n_rows) % n_classes
    logits = torch.randn(n_members, n_classes, n_rows, generator=generator)
    logits += certain * torch.nn.functional.one_hot(target, n_classes).T
    return logits.softmax(1), target


def _values(n_members: int, n_rows: int, noise: float) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(1, n_rows, generator=generator, dtype=torch.float64)
    return target + noise * torch.randn(n_members, 1, n_rows, generator=generator).double(), target


def _assert_in_range(honest: HonestScore, bounds: ScoreRange) -> None:
    scores = (honest.low, honest.score, honest.high)
    assert all(bounds.low <= score <= bounds.high for score in (*scores, honest.naive)), honest
    assert list(scores) == sorted(scores)


@pytest.mark.parametrize(
    ("name", "n_classes"),
    [(name, n) for name, one in METRICS.items() for n in ((1,) if "regression" in one.tasks else (2, 3))],
)
@pytest.mark.parametrize("certain", [2.0, 8.0])
def test_honest_scores_are_in_the_range(name: str, certain: float, n_classes: int) -> None:
    """Few rows, members near the best or the worst score, and corrections far larger than the error."""
    metric = METRICS[name]
    if n_classes == 1:
        predictions, target = _values(8, 40, 4.0 * math.exp(-certain))
        if isinstance(metric.formula, Deviance):  # of amounts, which are positive
            predictions, target = predictions.exp(), target.exp()
    else:
        predictions, target = _classes(n_classes, 8, 40, certain)
    bounds = metric.formula.score_range(predictions.shape[1])
    scores = metric(predictions, target)
    assert bool(((scores >= bounds.low) & (scores <= bounds.high)).all())
    ensemble = greedy_ensemble(predictions, target, metric)
    honest = bias_corrected_score(predictions, target, metric, ensemble, bootstrap=Bootstrap(8, seed=1))
    _assert_in_range(honest, bounds)
    gain = averaging_gain(predictions, target, metric, ensemble.weights, 5)
    best = bounds.high if metric.greater_is_better else bounds.low
    for one in (gain, 3.0 * gain, math.copysign(2.0, best)):
        _assert_in_range(adjust_for_averaging(honest, one, bounds), bounds)
    combined = ensemble.combine(predictions)
    for other in (predictions[3], combined.flip(0), combined.flip(-1)):
        for before, after in ((combined, other), (other, combined)):
            changed = adjust_for_postprocessing(honest, before, after, target, metric)
            _assert_in_range(changed, bounds)


def test_brier_of_three_classes_reaches_two() -> None:
    brier = METRICS["brier"]
    for n_classes, worst in ((2, 1.0), (3, 2.0)):
        predictions = torch.zeros(1, n_classes, 4)
        predictions[0, 1] = 1.0
        assert float(brier(predictions, torch.zeros(4, dtype=torch.int64))[0]) == worst
        assert brier.formula.score_range(n_classes) == ScoreRange(0.0, worst)


@pytest.mark.parametrize("name", ["accuracy", "brier", "rmse"])
def test_the_mean_correction_is_the_gain_of_averaging(name: str) -> None:
    """Corrections of some percent of the error, as in searches, are those of an additive scale."""
    metric = METRICS[name]
    values = _values(6, 400, 0.3) if name == "rmse" else _classes(2, 6, 400, 1.5)
    predictions, target = values
    shared = predictions.mean(0, keepdim=True)
    predictions = shared + 0.3 * (predictions - shared)
    ensemble = greedy_ensemble(predictions, target, metric)
    honest = bias_corrected_score(predictions, target, metric, ensemble)
    error = metric.to_error(honest.score)
    for share in (0.02, 0.05, 0.1):
        gain = share * error * (1.0 if metric.greater_is_better else -1.0)
        moved = adjust_for_averaging(honest, gain, metric.formula.score_range(predictions.shape[1]))
        assert moved.score == pytest.approx(honest.score + gain, abs=0.0005 * error)
        assert moved.averaging == pytest.approx(gain, abs=0.0005 * error)


@pytest.mark.parametrize(("metric", "seed"), [("roc_auc", 0), ("mcc", 3)])
def test_scores_of_small_searches(metric: str, seed: int) -> None:
    """An easy table of 120 rows: the ROC-AUC was 1.010, with an interval up to 1.031."""
    X = np.random.default_rng(seed).normal(size=(120, 4))
    settings = {"n_trials": 4, "max_epochs": 2, "random_state": 0, "n_jobs": 1}
    model = ParallelMLPClassifier(metric=metric, **settings).fit(X, X[:, 0] > 0)
    assert model.result_ is not None
    assert model.result_.honest is not None
    _assert_in_range(model.result_.honest, METRICS[metric].formula.score_range(2))
    assert all(map(math.isfinite, astuple(model.result_.honest)))
