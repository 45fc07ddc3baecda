"""Metrics, thresholds and calibration of several labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sklearn.metrics as reference
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import make_scorer

from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.inference.outputs import tempered_labels
from parallelmlp_search.selection import (
    LABEL_METRICS,
    apply_temperature,
    at_best_threshold,
    bias_corrected_score,
    fit_label_temperature,
    get_metric,
    greedy_ensemble,
    tune_thresholds,
    weight_classes,
)

P, L, N = 5, 4, 83


def _log_loss(y, p, w):
    return np.mean([reference.log_loss(y[:, k], p[:, k], sample_weight=w, labels=[0, 1]) for k in range(L)])


def _roc_auc(y, p, w):
    varied = [k for k in range(L) if 0 < y[w > 0, k].mean() < 1]
    return np.mean([reference.roc_auc_score(y[:, k], p[:, k], sample_weight=w) for k in varied])


def _f1(average):
    return lambda y, p, w: reference.f1_score(y, p > 0.5, average=average, sample_weight=w, zero_division=0)


REFERENCES = {
    "log_loss": _log_loss,
    "roc_auc": _roc_auc,
    "brier": lambda y, p, w: np.average(((y - p) ** 2).mean(axis=1), weights=w),
    "f1_macro": _f1("macro"),
    "f1_micro": _f1("micro"),
    "f1_samples": _f1("samples"),
    "hamming_loss": lambda y, p, w: reference.hamming_loss(y, p > 0.5, sample_weight=w),
    "subset_accuracy": lambda y, p, w: reference.accuracy_score(y, p > 0.5, sample_weight=w),
}


def sample(seed: int = 0, n_rows: int = N) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Probabilities (P, L, n), targets (L, n), of which the last is rare, and weights (n,), some zero."""
    rng = np.random.default_rng(seed)
    target = (rng.random((L, n_rows)) < np.array([0.5, 0.3, 0.7, 0.08])[:, None]).astype(float)
    noise = rng.normal(size=(P, L, n_rows))
    predictions = 1.0 / (1.0 + np.exp(-(2.0 * target - 1.2 + noise)))
    weight = rng.integers(0, 4, n_rows).astype(float)
    return torch.from_numpy(predictions), torch.from_numpy(target), torch.from_numpy(weight)


def test_every_metric_has_a_reference() -> None:
    assert set(REFERENCES) == set(LABEL_METRICS)


@pytest.mark.parametrize("name", list(REFERENCES))
@pytest.mark.parametrize("constant", [None, 0.0, 1.0])
def test_metrics_are_those_of_scikit_learn(name: str, constant: float | None) -> None:
    predictions, target, weight = sample()
    if constant is not None:  # a label that all rows have or lack
        target[3] = constant
    found = LABEL_METRICS[name](predictions, target, weight)
    expected = [REFERENCES[name](target.numpy().T, one.numpy().T, weight.numpy()) for one in predictions]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert found.unique().numel() > 1
    assert not torch.allclose(found, LABEL_METRICS[name](predictions, target))


@given(st.integers(0, 1000))
def test_the_average_of_members_is_projected_as_the_average_of_projections(seed: int) -> None:
    predictions, target, _ = sample(seed, 20)
    for metric in LABEL_METRICS.values():
        parts = metric.formula.project(predictions, target).double()
        whole = metric.formula.project(predictions.mean(0, keepdim=True), target).double()
        torch.testing.assert_close(parts.mean(0, keepdim=True), whole, rtol=1e-12, atol=1e-12)


def test_no_auc_without_rows_with_and_without_a_label() -> None:
    predictions, target, _ = sample()
    assert LABEL_METRICS["roc_auc"](predictions, torch.zeros_like(target)).isnan().all()
    assert LABEL_METRICS["log_loss"](predictions, torch.zeros_like(target)).isfinite().all()


def test_names_of_the_task() -> None:
    assert get_metric("accuracy", "multilabel") is LABEL_METRICS["subset_accuracy"]
    assert get_metric("neg_log_loss", "multilabel") is LABEL_METRICS["log_loss"]
    with pytest.raises(
        InvalidParameterError, match=r"metric must be one of log_loss, roc_auc, .* but got 'f1_mcro'"
    ):
        get_metric("f1_mcro", "multilabel")
    with pytest.raises(InvalidParameterError, match="metric must fit the task 'multilabel'"):
        get_metric("rmse", "multilabel")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("average_precision", lambda y, p: reference.average_precision_score(y, p)),
        ("jaccard_macro", lambda y, p: reference.jaccard_score(y, p > 0.5, average="macro")),
        (reference.coverage_error, reference.coverage_error),
        (
            make_scorer(reference.fbeta_score, beta=2, average="macro"),
            lambda y, p: reference.fbeta_score(y, p > 0.5, beta=2, average="macro"),
        ),
        (reference.zero_one_loss, lambda y, p: reference.zero_one_loss(y, p > 0.5)),
    ],
)
def test_scorers_of_scikit_learn_see_the_labels(given: Any, expected: Any) -> None:
    predictions, target, _ = sample(3)
    metric = get_metric(given, "multilabel").checked_on(target.numpy().T)
    found = metric(predictions, target)
    wanted = [expected(target.numpy().T.astype(int), one.numpy().T) for one in predictions]
    np.testing.assert_allclose(found, wanted, rtol=1e-9)


# ------------------------------------------------------------------------- thresholds


@pytest.mark.parametrize("name", ["f1_macro", "f1_micro", "f1_samples", "hamming_loss", "subset_accuracy"])
def test_tuned_thresholds_help_on_new_rows(name: str) -> None:
    metric = LABEL_METRICS[name]
    predictions, target, _ = sample(1, 900)
    predictions = predictions * 0.6  # too low, so that a threshold of one half misses most labels
    found = tune_thresholds(predictions[0, :, :450], target[:, :450], metric)
    assert found is not None
    assert len(found.weights) == L
    if name in ("f1_micro", "f1_samples"):
        assert len(set(found.weights)) == 1
    plain, tuned = predictions[:1, :, 450:], weight_classes(predictions[:1, :, 450:], found.weights)
    before, after = metric.error(plain, target[:, 450:]), metric.error(tuned, target[:, 450:])
    assert float(after) < float(before) - 0.02


def test_thresholds_of_labels_without_rows_stay() -> None:
    predictions, target, _ = sample(1, 300)
    target[3] = 0.0
    found = tune_thresholds(0.6 * predictions[0], target, LABEL_METRICS["f1_macro"])
    assert found is not None
    assert found.weights[3] == 1.0
    assert found.weights[0] > 1.0
    assert tune_thresholds(predictions[0, :, :20], target[:, :20], LABEL_METRICS["f1_macro"]) is None


@pytest.mark.parametrize("name", ["f1_macro", "f1_micro"])
def test_members_are_compared_at_their_best_thresholds(name: str) -> None:
    predictions, target, weight = sample(2)
    metric = LABEL_METRICS[name]
    best = at_best_threshold(metric, None)(predictions, target, weight)
    cuts = np.linspace(0.02, 0.98, 97)
    if name == "f1_micro":
        plain = [
            [float(metric(one[None] * (0.5 / cut), target, weight)) for cut in cuts] for one in predictions
        ]
        expected = np.max(plain, axis=1)
    else:
        expected = np.zeros(P)
        for member, one in enumerate(predictions):
            scores = [
                [
                    reference.f1_score(target[k], one[k] > cut, sample_weight=weight, zero_division=0)
                    for cut in cuts
                ]
                for k in range(L)
            ]
            expected[member] = np.max(scores, axis=1).mean()
    assert (best.numpy() >= expected - 1e-9).all()
    np.testing.assert_allclose(best, expected, atol=0.03)
    assert at_best_threshold(LABEL_METRICS["hamming_loss"], None) is LABEL_METRICS["hamming_loss"]


# ------------------------------------------------------------------------ calibration


def test_one_temperature_calibrates_all_labels() -> None:
    predictions, target, _ = sample(4, 2000)
    odds = torch.logit(predictions[0])
    sharp = torch.sigmoid(3.0 * odds)
    temperature = fit_label_temperature(sharp, target)
    assert temperature > 1.3
    loss = LABEL_METRICS["log_loss"]
    cooler = apply_temperature(sharp, temperature, of_labels=True)
    assert float(loss(cooler[None], target)) < float(loss(sharp[None], target))
    np.testing.assert_allclose(cooler, tempered_labels(sharp.numpy(), temperature), rtol=1e-9)
    np.testing.assert_allclose(cooler, torch.sigmoid(torch.logit(sharp) / temperature), rtol=1e-6)
    assert apply_temperature(sharp, 1.0, of_labels=True) is sharp


# --------------------------------------------------------------------- honest scores


@pytest.mark.parametrize("name", list(REFERENCES))
def test_selection_and_correction_take_every_metric(name: str) -> None:
    predictions, target, _ = sample(5, 200)
    metric = LABEL_METRICS[name]
    ensemble = greedy_ensemble(predictions, target, metric, n_rounds=6)
    honest = bias_corrected_score(predictions, target, metric, ensemble)
    assert metric.to_error(honest.score) >= metric.to_error(honest.naive) - 1e-9
    assert honest.low <= honest.score <= honest.high
