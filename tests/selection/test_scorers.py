"""Metrics that scikit-learn or the user computes."""

from __future__ import annotations

import functools
import math
import pickle
from typing import Any

import cloudpickle
import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from parallelmlp_search.exceptions import InvalidParameterError, MetricError
from parallelmlp_search.selection import Bootstrap, bias_corrected_score, get_metric, greedy_ensemble
from parallelmlp_search.selection.scorers import REGRESSION_SCORERS, ScorerFormula, metric_name

P, N = 4, 90
LABELS = np.array(["bad", "good"], dtype=object)


def profit_score(y_true: Any, y_pred: Any) -> float:
    """Gain per row, without bounds: the labels are those of the user."""
    good = y_pred == "good"
    return float(100 * np.mean(good & (y_true == "good")) - 300 * np.mean(good & (y_true == "bad")))


def rank_score(y_true: Any, y_score: Any) -> float:
    return float(sk.roc_auc_score(y_true, y_score))


def predictions(n_classes: int) -> tuple[torch.Tensor, np.ndarray]:
    rng = np.random.default_rng(n_classes)
    target = rng.integers(n_classes, size=N)
    raw = rng.random((P, n_classes, N)) + 0.5 * np.eye(n_classes)[:, target]
    return torch.from_numpy(raw / raw.sum(axis=1, keepdims=True)), target


def labels_of(n_classes: int) -> np.ndarray:
    return LABELS if n_classes == 2 else np.array(["a", "b", "c"], dtype=object)


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("f1_weighted", lambda y, p, labels: sk.f1_score(y, labels[p.argmax(1)], average="weighted")),
        ("balanced_accuracy", lambda y, p, labels: sk.balanced_accuracy_score(y, labels[p.argmax(1)])),
        ("neg_log_loss", lambda y, p, labels: sk.log_loss(y, p)),  # a name of ours: lower is better
        (
            sk.make_scorer(sk.d2_log_loss_score, response_method="predict_proba"),
            lambda y, p, labels: sk.d2_log_loss_score(y, p),
        ),
        (
            sk.make_scorer(sk.fbeta_score, beta=2, average="macro"),
            lambda y, p, labels: sk.fbeta_score(y, labels[p.argmax(1)], beta=2, average="macro"),
        ),
        (
            sk.make_scorer(sk.log_loss, greater_is_better=False, response_method="predict_proba"),
            lambda y, p, labels: -sk.log_loss(y, p),
        ),
        (sk.hamming_loss, lambda y, p, labels: sk.hamming_loss(y, labels[p.argmax(1)])),
        (
            functools.partial(sk.jaccard_score, average="macro"),
            lambda y, p, labels: sk.jaccard_score(y, labels[p.argmax(1)], average="macro"),
        ),
    ],
)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_scores_of_classes_equal_scikit_learn(metric: Any, expected: Any, n_classes: int) -> None:
    predicted, target = predictions(n_classes)
    labels, task = labels_of(n_classes), "binary" if n_classes == 2 else "multiclass"
    found = get_metric(metric, task, n_classes=n_classes, classes=labels).checked_on(target)
    truth = [expected(labels[target], one.T, labels) for one in predicted.numpy()]
    np.testing.assert_allclose(found(predicted, torch.from_numpy(target)), truth, rtol=1e-12)
    assert len(set(truth)) > 1


@pytest.mark.parametrize("center", [0.0, 5e6])
@pytest.mark.parametrize("n_outputs", [1, 2])
@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("neg_mean_absolute_percentage_error", lambda y, p: -sk.mean_absolute_percentage_error(y, p)),
        ("neg_mean_squared_log_error", lambda y, p: -sk.mean_squared_log_error(y, p)),
        ("explained_variance", sk.explained_variance_score),
        (sk.mean_squared_error, sk.mean_squared_error),
    ],
)
def test_scores_of_values_equal_scikit_learn_in_the_units_of_the_target(
    metric: Any, expected: Any, n_outputs: int, center: float
) -> None:
    rng = np.random.default_rng(0)
    y = center + 1 + rng.random((N, n_outputs))
    values = y + 0.1 * rng.random((P, N, n_outputs))
    unit = 4.0
    found = get_metric(metric, "regression").in_units((unit,) * n_outputs, (center,) * n_outputs)
    scaled = torch.from_numpy((values.transpose(0, 2, 1) - center) / unit)
    found = found.checked_on((y - center) / unit)
    truth = [expected(y[:, 0], one[:, 0]) if n_outputs == 1 else expected(y, one) for one in values]
    target = torch.from_numpy(((y - center) / unit).T)
    np.testing.assert_allclose(found(scaled, target), truth, rtol=1e-6)
    if center and metric != "explained_variance":  # which neither shifts nor units change
        other = found.in_units((1.0,) * n_outputs)
        assert not np.allclose(other(scaled, target), truth, rtol=1e-3)


@pytest.mark.filterwarnings("ignore:'k' .* greater than or equal to 'n_classes':UserWarning")
def test_every_name_of_scikit_learn_is_for_one_kind_of_task() -> None:
    """A scorer that does not apply is refused by a trial on the target."""
    rng = np.random.default_rng(0)
    classes, values = rng.integers(2, size=40), 1 + rng.random(40)
    for name in sk.get_scorer_names():
        task = "regression" if REGRESSION_SCORERS.fullmatch(name) else "binary"
        metric = get_metric(name, task)
        if task == "binary":
            with pytest.raises(InvalidParameterError, match="must fit the task 'regression'"):
                get_metric(name, "regression")
        if name.endswith("_samples"):  # for several labels per row
            with pytest.raises(InvalidParameterError, match="fails on the target of this table"):
                metric.checked_on(classes)
        else:
            metric.checked_on(values if task == "regression" else classes)


class TestLabels:
    def test_a_function_sees_the_labels_of_the_user(self) -> None:
        predicted, target = predictions(2)
        metric = get_metric(profit_score, "binary", classes=LABELS).checked_on(target)
        expected = [profit_score(LABELS[target], LABELS[one.argmax(0)]) for one in predicted.numpy()]
        np.testing.assert_allclose(metric(predicted, torch.from_numpy(target)), expected)
        assert len(set(expected)) > 1  # numbers in place of labels would give 0 for all

    def test_the_positive_class_is_the_second_unless_the_scorer_names_it(self) -> None:
        predicted, target = predictions(2)
        truth = LABELS[target]
        for options, positive in (({}, "good"), ({"pos_label": "bad"}, "bad")):
            scorer = sk.make_scorer(sk.fbeta_score, beta=2, **options)
            metric = get_metric(scorer, "binary", classes=LABELS).checked_on(target)
            expected = [
                sk.fbeta_score(truth, LABELS[one.argmax(0)], beta=2, pos_label=positive)
                for one in predicted.numpy()
            ]
            np.testing.assert_allclose(metric(predicted, torch.from_numpy(target)), expected)

    def test_a_function_of_scores_sees_the_probability_of_the_second_class(self) -> None:
        predicted, target = predictions(2)
        metric = get_metric(rank_score, "binary", classes=LABELS).checked_on(target)
        own = get_metric("roc_auc", "binary")
        truth = torch.from_numpy(target)
        np.testing.assert_allclose(metric(predicted, truth), own(predicted, truth), rtol=1e-12)


class TestWeights:
    def test_weights_are_passed_or_repeat_rows(self) -> None:
        predicted, target = predictions(2)
        truth, counts = torch.from_numpy(target), np.arange(N) % 3
        expected = get_metric("balanced_accuracy", "binary")(predicted, truth, counts)
        takes = get_metric(sk.make_scorer(sk.balanced_accuracy_score), "binary").checked_on(target)

        def balanced_score(y_true: Any, y_pred: Any) -> float:
            return float(sk.balanced_accuracy_score(y_true, y_pred))

        repeats = get_metric(balanced_score, "binary").checked_on(target)
        for metric, passed in ((takes, True), (repeats, False)):
            assert isinstance(metric.formula, ScorerFormula)
            assert metric.formula.takes_weight is passed
            np.testing.assert_allclose(metric(predicted, truth, counts), expected)
        with pytest.raises(InvalidParameterError, match="takes no sample_weight, but the rows have weights"):
            get_metric(balanced_score, "binary").checked_on(target, counts + 0.5)
        with pytest.raises(MetricError, match="takes no sample_weight"):
            repeats(predicted, truth, counts + 0.5)


class TestSelection:
    def test_an_ensemble_of_a_score_without_bounds_runs_on(self) -> None:
        """Its errors are far below 0, which is the error of a perfect prediction for our metrics."""
        predicted, target = predictions(2)
        metric = get_metric(profit_score, "binary", classes=LABELS).checked_on(target)
        assert metric.least_error == -math.inf
        assert get_metric("roc_auc", "binary").least_error == 0.0
        truth = torch.from_numpy(target)
        found = greedy_ensemble(predicted, truth, metric, n_rounds=6)
        singles = metric(predicted, truth).tolist()
        assert found.score >= max(singles)
        assert len(found.scores) == 6
        honest = bias_corrected_score(predicted, truth, metric, found, bootstrap=Bootstrap(8))
        assert honest.naive == pytest.approx(found.score)
        assert honest.low < honest.score < honest.high

    def test_samples_on_which_it_fails_are_left_out(self) -> None:
        calls: list[int] = []

        def fussy_score(y_true: Any, y_pred: Any) -> float:
            calls.append(len(y_true))
            if len(calls) > 4 and len(calls) % 2:
                raise ValueError("only whole tables")
            return float(np.mean(y_true == y_pred))

        predicted, target = predictions(2)
        metric = get_metric(fussy_score, "binary").checked_on(target)
        calls.clear()
        truth = torch.from_numpy(target)
        ensemble = greedy_ensemble(predicted, truth, metric, n_rounds=1)
        calls.clear()
        found = bias_corrected_score(predicted, truth, metric, ensemble, bootstrap=Bootstrap(6))
        assert math.isfinite(found.naive)
        assert found.n_bootstraps <= 6


def test_metrics_travel_to_other_processes() -> None:
    predicted, target = predictions(2)
    truth = torch.from_numpy(target)
    local = sk.make_scorer(lambda y_true, y_pred: float(np.mean(y_true == y_pred)))
    for scorer, dumps in ((sk.make_scorer(sk.matthews_corrcoef), pickle.dumps), (local, cloudpickle.dumps)):
        metric = get_metric(scorer, "binary").checked_on(target)
        again = pickle.loads(dumps(metric))
        assert again(predicted, truth).tolist() == metric(predicted, truth).tolist()


@pytest.mark.parametrize(
    ("metric", "name"),
    [
        (profit_score, "profit_score"),
        (functools.partial(sk.fbeta_score, beta=2), "fbeta_score"),
        (sk.make_scorer(sk.fbeta_score, beta=2), "fbeta_score(beta=2)"),
        (sk.make_scorer(sk.max_error, greater_is_better=False), "neg_max_error"),
        (sk.make_scorer(sk.log_loss, response_method=("predict_proba", "predict")), "log_loss"),
        (sk.get_scorer("f1_macro"), "f1_score(pos_label=None, average=macro)"),
    ],
)
def test_names(metric: Any, name: str) -> None:
    assert metric_name(metric) == name


def _raises(y_true: Any, y_pred: Any) -> float:
    raise KeyError("age")


_raises.__name__ = "raising_score"


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (_raises, "metric 'raising_score' fails on the target of this table: KeyError: 'age'"),
        (lambda y_true, y_pred: 0.0, "metric '<lambda>' does not say whether greater is better: give it a"),
        (print, "metric must be a name, a scorer of scikit-learn or a function of y_true and y_pred, but"),
        (3, "metric must be a name, a scorer, a function or a Metric, but got int"),
        ("jacard", "or another scorer of scikit-learn, but got 'jacard'; did you mean 'jaccard'"),
        ("neg_max_error", "metric must fit the task 'binary' .*, but got 'neg_max_error', which is for regr"),
        ("python:profit_score", "metric 'profit_score' is a Python object, which a run does not hold: pass"),
    ],
)
def test_metrics_that_cannot_be_used(metric: Any, message: str) -> None:
    _, target = predictions(2)
    with pytest.raises(InvalidParameterError, match=message) as caught:
        get_metric(metric, "binary", classes=LABELS).checked_on(target)
    assert "\n" not in str(caught.value)


def test_a_result_that_is_no_number_is_refused() -> None:
    def listing_score(y_true: Any, y_pred: Any) -> Any:
        return [0.5]

    _, target = predictions(2)
    with pytest.raises(InvalidParameterError, match="it must return one number, but returned list"):
        get_metric(listing_score, "binary").checked_on(target)


def test_a_failure_for_every_member_is_one_sentence() -> None:
    predicted, target = predictions(2)
    metric = get_metric(_raises, "binary")
    with pytest.raises(MetricError, match="metric 'raising_score' failed: KeyError: 'age'"):
        metric(predicted, torch.from_numpy(target))
