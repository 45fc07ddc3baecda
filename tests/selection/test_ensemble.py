"""The batched greedy ensemble against the plain loop of Caruana et al."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parallelmlp_search.exceptions import InvalidParameterError, SearchFailedError
from parallelmlp_search.selection import (
    METRICS,
    CostLimit,
    bias_corrected_score,
    get_metric,
    greedy_ensemble,
)
from parallelmlp_search.selection.ensemble import MemberPool
from parallelmlp_search.selection.inputs import GroundTruth

CASES = [
    *[(name, 2) for name in ("accuracy", "log_loss", "roc_auc", "brier", "mcc", "f1")],
    *[(name, 5) for name in ("accuracy", "log_loss", "roc_auc", "brier", "f1_macro", "balanced_accuracy")],
    *[(name, 0) for name in ("rmse", "mae", "r2", "pinball:0.9")],
]


def table(n_classes: int, n_members: int = 9, n_rows: int = 120, seed: int = 0, dtype=torch.float64):
    """Members with different errors, so that averaging helps."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(n_members, max(n_classes, 2), n_rows, generator=generator, dtype=torch.float64)
    skill = torch.linspace(0.4, 1.2, n_members, dtype=torch.float64)[:, None, None]
    if n_classes:
        target = torch.randint(n_classes, (n_rows,), generator=generator)
        logits = noise + skill * torch.nn.functional.one_hot(target, n_classes).T
        return logits.softmax(1).to(dtype), target
    target = torch.randn(2, n_rows, generator=generator, dtype=torch.float64)
    return (target + noise / skill).to(dtype), target


def plain_greedy(predictions, target, metric, n_rounds, weight=None, complexity=None):
    """One member, one candidate, one metric call at a time."""
    complexity = [0] * len(predictions) if complexity is None else complexity
    total, picks, scores = torch.zeros_like(predictions[0]), [], []
    for _ in range(n_rounds):
        best = None
        for p in sorted(range(len(predictions)), key=lambda p: (complexity[p], p)):
            if not predictions[p].isfinite().all():
                continue
            average = (total + predictions[p]) / (len(picks) + 1)
            error = metric.error(average[None], target, weight).item()
            if best is None or error < best[0] - 1e-12:
                best = (error, p)
        picks.append(best[1])
        scores.append(metric.to_error(best[0]))
        total += predictions[best[1]]
        if best[0] <= 0:
            break
    errors = [metric.to_error(score) for score in scores]
    kept = next(i for i, error in enumerate(errors) if error <= min(errors) + 1e-12)
    return picks[: kept + 1], scores


def metric_of(name, n_classes):
    return get_metric(name, {0: "regression", 2: "binary"}.get(n_classes, "multiclass"))


@pytest.mark.parametrize(("name", "n_classes"), CASES)
@pytest.mark.parametrize("weighted", [False, True])
def test_equals_the_plain_loop(name, n_classes, weighted):
    predictions, target = table(n_classes)
    metric = metric_of(name, n_classes)
    weight = torch.rand(120, generator=torch.Generator().manual_seed(1)) if weighted else None
    complexity = [5, 3, 9, 1, 1, 2, 2, 8, 4]
    found = greedy_ensemble(predictions, target, metric, n_rounds=12, weight=weight, complexity=complexity)
    picks, scores = plain_greedy(predictions, target, metric, 12, weight, complexity)
    assert list(found.selected) == picks
    np.testing.assert_allclose(found.scores, scores, rtol=1e-10)
    expected = torch.bincount(torch.tensor(picks), minlength=9).double() / len(picks)
    assert torch.equal(found.weights, expected)
    combined = metric(found.combine(predictions)[None], target, weight).item()
    assert combined == pytest.approx(found.score, rel=1e-9)
    best_single = metric.error(predictions, target, weight).min().item()
    assert metric.to_error(found.score) <= best_single + 1e-12
    assert len(set(picks)) > 1  # otherwise averaging is not tested


def test_row_weights_change_the_selection():
    predictions, target = table(5)
    metric = METRICS["log_loss"]
    early = greedy_ensemble(predictions, target, metric, weight=(torch.arange(120) < 30).double())
    late = greedy_ensemble(predictions, target, metric, weight=(torch.arange(120) >= 90).double())
    assert early.selected != late.selected


@settings(max_examples=40, deadline=None)
@given(data=st.data(), n_members=st.integers(1, 4), n_rows=st.integers(2, 8))
def test_equals_the_plain_loop_with_many_ties(data, n_members, n_rows):
    levels = st.lists(st.integers(0, 4), min_size=n_rows, max_size=n_rows)
    positive = torch.tensor([data.draw(levels) for _ in range(n_members)], dtype=torch.float64) / 4
    predictions = torch.stack([1 - positive, positive], 1)
    target = torch.tensor(data.draw(st.lists(st.integers(0, 1), min_size=n_rows, max_size=n_rows)))
    # Sums of quarters are exact, and so is their average over one, two or four picks.
    found = greedy_ensemble(predictions, target, METRICS["accuracy"], n_rounds=2)
    picks, scores = plain_greedy(predictions, target, METRICS["accuracy"], 2)
    assert list(found.selected) == picks
    np.testing.assert_allclose(found.scores, scores, atol=1e-12)


def test_one_round_selects_the_best_member():
    predictions, target = table(2)
    found = greedy_ensemble(predictions, target, METRICS["roc_auc"], n_rounds=1)
    assert found.selected == (int(METRICS["roc_auc"](predictions, target).argmax()),)
    assert torch.equal(found.combine(predictions), predictions[found.selected[0]])


@pytest.mark.parametrize("name", ["log_loss", "brier"])
def test_the_shortest_of_equal_ensembles_is_kept(name):
    predictions, target = table(2, n_members=1)
    found = greedy_ensemble(predictions.repeat(4, 1, 1), target, METRICS[name], n_rounds=6)
    assert found.selected == (0,)  # averaging four copies gains nothing: the first
    assert len(found.scores) == 6
    simplest = greedy_ensemble(
        predictions.repeat(4, 1, 1), target, METRICS[name], n_rounds=6, complexity=[9, 9, 2, 2]
    )
    assert simplest.selected == (2,)


def test_stops_at_an_error_of_zero():
    predictions, target = table(2)
    predictions[3] = torch.nn.functional.one_hot(target, 2).T
    found = greedy_ensemble(predictions, target, METRICS["accuracy"])
    assert (found.selected, found.scores) == ((3,), (1.0,))


@pytest.mark.parametrize(("name", "n_classes"), CASES)
def test_non_finite_members_are_never_selected(name, n_classes):
    predictions, target = table(n_classes)
    metric = metric_of(name, n_classes)
    keep = [0, 1, 2, 4, 5, 6, 8]
    alone = greedy_ensemble(predictions[keep], target, metric)
    predictions[3, 0, 5] = torch.nan
    predictions[7, 1, 5] = torch.inf
    found = greedy_ensemble(predictions, target, metric)
    assert found.selected == tuple(keep[pick] for pick in alone.selected)
    assert found.weights[[3, 7]].sum() == 0
    assert found.combine(predictions).isfinite().all()


def test_members_whose_squares_overflow_are_never_selected():
    predictions, target = table(0)
    predictions[2] = 1e200
    found = greedy_ensemble(predictions, target, METRICS["rmse"])
    assert 2 not in found.selected
    assert math.isfinite(found.score)


def test_no_member_with_a_finite_score():
    predictions, target = table(2)
    with pytest.raises(SearchFailedError, match="all 9 have a missing or infinite prediction"):
        greedy_ensemble(predictions * torch.nan, target, METRICS["accuracy"])
    with pytest.raises(SearchFailedError, match="none has a finite roc_auc"):
        greedy_ensemble(predictions, torch.zeros_like(target), METRICS["roc_auc"])


@pytest.mark.parametrize("name", ["log_loss", "accuracy", "roc_auc"])
def test_single_precision_agrees_with_double(name):
    predictions, target = table(5, n_rows=400)
    double = greedy_ensemble(predictions, target, METRICS[name], n_rounds=8)
    single = greedy_ensemble(predictions.float(), target, METRICS[name], n_rounds=8)
    assert single.score == pytest.approx(double.score, abs=1e-3)
    assert single.combine(predictions.float()).dtype == torch.float32


def test_slow_rounds_select_from_the_best_members():
    predictions, target = table(2, n_members=20)
    metric = METRICS["roc_auc"]
    best = set(metric(predictions, target).argsort(descending=True)[:8].tolist())
    everyone = greedy_ensemble(predictions, target, metric)
    projected = metric.formula.project(predictions, target)
    truth = GroundTruth(target, torch.ones(120).double())
    picks = MemberPool(projected, truth, metric).select(25, seconds=0.0).selected
    assert set(picks) <= best
    assert not set(everyone.selected) <= best
    found = greedy_ensemble(predictions[sorted(best)], target, metric)
    assert tuple(sorted(best)[pick] for pick in found.selected) == picks


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_rounds": 0}, "n_rounds must be an integer >= 1, but got 0"),
        ({"n_rounds": 2.5}, "but got 2.5"),
        ({"complexity": [1, 2]}, r"one value per member \(9\), but got 2"),
        ({"complexity": [float("nan")] * 9}, "complexity must not be missing"),
    ],
)
def test_bad_parameters(changes, message):
    predictions, target = table(2)
    with pytest.raises(InvalidParameterError, match=message):
        greedy_ensemble(predictions, target, METRICS["accuracy"], **changes)


def test_combine_needs_one_prediction_per_member():
    predictions, target = table(2)
    found = greedy_ensemble(predictions, target, METRICS["accuracy"])
    with pytest.raises(InvalidParameterError, match=r"shape \(9, C, N\)"):
        found.combine(predictions[:3])


def limited(costs, budget):
    """Limit without shared parts."""
    return CostLimit(costs, budget, torch.zeros(len(costs), 0, dtype=torch.bool), torch.zeros(0).double())


def test_shared_parts_count_once() -> None:
    uses = torch.tensor([[True, False], [True, False], [False, True]])
    limit = CostLimit(torch.ones(3).double(), 4.5, uses, torch.tensor([2.0, 3.0]).double())
    assert limit.alone.tolist() == [3.0, 3.0, 4.0]
    everyone = torch.arange(3)
    assert limit.exceeded_by([], everyone).tolist() == [False, False, False]
    # beside the first, the second needs 1 and the third 4 more
    assert limit.exceeded_by([0], everyone).tolist() == [False, False, True]
    assert limit.of([2, 0]).exceeded_by([1], torch.arange(2)).tolist() == [True, False]


def test_a_limit_of_the_cost_holds_and_is_used() -> None:
    rng = np.random.default_rng(0)
    target = torch.from_numpy(rng.normal(size=200))
    predictions = target + torch.from_numpy(rng.normal(size=(6, 1, 200)))
    costs = torch.tensor([5.0, 1.0, 1.0, 1.0, 1.0, 1.0], dtype=torch.float64)
    free = greedy_ensemble(predictions, target, get_metric("rmse", "regression"))
    for budget in (1.0, 2.5, 4.0, 100.0):
        limit = limited(costs, budget)
        found = greedy_ensemble(predictions, target, get_metric("rmse", "regression"), limit=limit)
        assert float(costs[found.weights > 0].sum()) <= budget
        assert found.limit is limit
        assert found.score >= free.score - 1e-12
    assert torch.equal(found.weights, free.weights)
    with pytest.raises(SearchFailedError):
        greedy_ensemble(predictions, target, get_metric("rmse", "regression"), limit=limited(costs, 0.5))


def test_a_repeated_selection_keeps_to_the_limit() -> None:
    """The expensive member is by far the best; without it the honest score is that of the others."""
    rng = np.random.default_rng(1)
    target = torch.from_numpy(rng.normal(size=400))
    noise = torch.tensor([0.01, 1.0, 1.0, 1.0])[:, None, None]
    predictions = target + noise * torch.from_numpy(rng.normal(size=(4, 1, 400)))
    metric = get_metric("rmse", "regression")
    limit = limited(torch.tensor([9.0, 1.0, 1.0, 1.0], dtype=torch.float64), 3.0)
    ensemble = greedy_ensemble(predictions, target, metric, limit=limit)
    honest = bias_corrected_score(predictions, target, metric, ensemble)
    assert honest.score > 0.4
