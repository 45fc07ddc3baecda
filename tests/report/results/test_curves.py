"""Curves of the quality of probabilities, compared with scikit-learn and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score, confusion_matrix, roc_auc_score

from parallelmlp_search.report.results.curves import (
    MAX_POINTS,
    N_BINS,
    calibration_of,
    confusion_counts,
    precision_recall_curves,
    roc_curves,
    shown_classes,
    thinned,
    wilson_interval,
)
from parallelmlp_search.report.results.evaluated import EvaluatedRows


def rows_of(n_classes: int = 2, n_rows: int = 3000, *, weighted: bool = False) -> EvaluatedRows:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(n_classes, n_rows))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=0)
    target = np.array([rng.choice(n_classes, p=one) for one in probabilities.T])
    weight = rng.random(n_rows) + 0.5 if weighted else np.ones(n_rows)
    labels = tuple("abcdefghij"[:n_classes])
    return EvaluatedRows(
        labels, target, probabilities, probabilities.argmax(axis=0), weight / weight.mean(), "new"
    )


def test_probabilities_that_were_sampled_from_are_calibrated_and_others_are_not() -> None:
    rows = rows_of()
    found = calibration_of(rows)
    assert len(found.count) == N_BINS
    assert found.count.sum() == pytest.approx(len(rows))
    assert found.error < 0.03
    assert np.mean((found.low <= found.probability) & (found.probability <= found.high)) >= 0.8
    sharper = rows.predictions**3 / (rows.predictions**3).sum(axis=0)
    wrong = calibration_of(
        EvaluatedRows(rows.labels, rows.target, sharper, rows.predicted, rows.weight, "new")
    )
    assert wrong.error > 0.05


def test_calibration_of_several_classes_is_that_of_the_most_probable_one() -> None:
    rows = rows_of(3)
    found = calibration_of(rows)
    accuracy = np.mean(rows.predictions.argmax(axis=0) == rows.target)
    assert np.average(found.frequency, weights=found.count) == pytest.approx(accuracy)


def test_fewer_rows_than_bins_are_a_bin_each() -> None:
    rows = rows_of(n_rows=5)
    assert len(calibration_of(rows).count) == 5


@pytest.mark.parametrize(("hits", "count"), [(0, 7), (3, 10), (40, 40)])
def test_intervals_are_those_of_wilson(hits: int, count: int) -> None:
    low, high = wilson_interval(np.array([hits / count]), np.array([float(count)]))
    expected = binomtest(hits, count).proportion_ci(method="wilson")
    assert (low[0], high[0]) == pytest.approx((expected.low, expected.high), abs=1e-6)


@pytest.mark.parametrize("weighted", [False, True])
def test_areas_are_those_of_scikit_learn(weighted: bool) -> None:
    rows = rows_of(weighted=weighted)
    truth = (rows.target, rows.predictions[1])
    (curve,) = roc_curves(rows, [1])
    assert curve.area == pytest.approx(roc_auc_score(*truth, sample_weight=rows.weight))
    assert len(curve.x) <= MAX_POINTS
    assert (curve.x[0], curve.y[0], curve.x[-1], curve.y[-1]) == (0.0, 0.0, 1.0, 1.0)
    # the thinned curve has the same area
    assert np.trapezoid(curve.y, curve.x) == pytest.approx(curve.area, abs=2e-3)
    (curve,) = precision_recall_curves(rows, [1])
    assert curve.area == pytest.approx(average_precision_score(*truth, sample_weight=rows.weight))
    assert curve.share == pytest.approx(np.average(rows.target, weights=rows.weight))


def test_confusion_counts_are_those_of_scikit_learn() -> None:
    rows = rows_of(4, weighted=True)
    expected = confusion_matrix(rows.target, rows.predicted, sample_weight=rows.weight)
    np.testing.assert_allclose(confusion_counts(rows), expected)


def test_curves_are_drawn_of_the_most_frequent_classes_that_some_but_not_all_rows_have() -> None:
    rows = rows_of(4)
    counts = np.bincount(rows.target)
    assert shown_classes(rows, 2) == np.argsort(-counts, kind="stable")[:2].tolist()
    one = EvaluatedRows(("a", "b"), np.ones(5), np.full((2, 5), 0.5), np.ones(5, int), np.ones(5), "new")
    assert shown_classes(one, 2) == []
    assert shown_classes(rows_of(), 3) == [1]


def test_short_curves_are_not_thinned() -> None:
    x = np.linspace(0, 1, MAX_POINTS)
    assert thinned(x, x)[0] is x
