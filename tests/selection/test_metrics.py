"""Metrics against scikit-learn's functions, member by member."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics as reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.kernels.numba.library import ensure_compiled
from parallelmlp_search.selection import METRICS, get_metric, metrics, roc_auc
from parallelmlp_search.selection.roc_auc import binary_auc

P, N = 7, 101


def _macro_auc(y, p, w):
    present = np.unique(y[w > 0])
    return np.mean([reference.roc_auc_score(y == c, p[c], sample_weight=w) for c in present])


def _brier(y, p, w):
    distance = ((p - np.eye(len(p))[y].T) ** 2).sum(0)
    return np.average(distance, weights=w) * (0.5 if len(p) == 2 else 1.0)


CLASSIFICATION = {
    "accuracy": lambda y, p, w: reference.accuracy_score(y, p.argmax(0), sample_weight=w),
    "balanced_accuracy": lambda y, p, w: reference.recall_score(
        y, p.argmax(0), sample_weight=w, average="macro", labels=np.unique(y), zero_division=0
    ),
    "log_loss": lambda y, p, w: reference.log_loss(y, p.T, sample_weight=w, labels=np.arange(len(p))),
    "roc_auc": lambda y, p, w: (
        reference.roc_auc_score(y, p[1], sample_weight=w) if len(p) == 2 else _macro_auc(y, p, w)
    ),
    "f1": lambda y, p, w: reference.f1_score(
        y,
        p.argmax(0),
        sample_weight=w,
        average="binary" if len(p) == 2 else "macro",
        zero_division=0,
    ),
    "f1_macro": lambda y, p, w: reference.f1_score(
        y, p.argmax(0), sample_weight=w, average="macro", zero_division=0
    ),
    "mcc": lambda y, p, w: reference.matthews_corrcoef(y, p.argmax(0), sample_weight=w),
    "brier": _brier,
}
REGRESSION = {
    "rmse": lambda y, p, w: reference.root_mean_squared_error(y.T, p.T, sample_weight=w),
    "mae": lambda y, p, w: reference.mean_absolute_error(y.T, p.T, sample_weight=w),
    "r2": lambda y, p, w: reference.r2_score(y.T, p.T, sample_weight=w),
    "pinball": lambda y, p, w: reference.mean_pinball_loss(y.T, p.T, sample_weight=w),
    "pinball:0.9": lambda y, p, w: reference.mean_pinball_loss(y.T, p.T, sample_weight=w, alpha=0.9),
}


def _of_outputs(score, power):
    return lambda y, p, w: np.mean(
        [score(*pair, sample_weight=w, power=power) for pair in zip(np.atleast_2d(y), p, strict=True)]
    )


for kind, power in (("poisson", 1), ("gamma", 2), ("tweedie", 1.5)):
    REGRESSION[f"{kind}_deviance"] = _of_outputs(reference.mean_tweedie_deviance, power)
    REGRESSION[f"d2_{kind}"] = _of_outputs(reference.d2_tweedie_score, power)
REGRESSION["tweedie_deviance:1.9"] = _of_outputs(reference.mean_tweedie_deviance, 1.9)


def probabilities(seed: int, n_classes: int, ties: bool) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(n_classes, (N,), generator=generator)
    raw = torch.rand(P, n_classes, N, generator=generator, dtype=torch.float64)
    raw += 0.4 * torch.nn.functional.one_hot(target, n_classes).T
    if ties:
        raw = (raw * 3).round() + 1
    return raw / raw.sum(1, keepdim=True), target


def row_weights(kind: str) -> torch.Tensor | None:
    generator = torch.Generator().manual_seed(5)
    if kind == "none":
        return None
    weight = torch.rand(N, generator=generator, dtype=torch.float64)
    return weight * (weight > 0.3) if kind == "zeros" else weight


@pytest.mark.parametrize("name", CLASSIFICATION)
@pytest.mark.parametrize("n_classes", [2, 3, 7])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("weights", ["none", "some", "zeros"])
def test_classification_equals_scikit_learn(name, n_classes, ties, weights):
    predictions, target = probabilities(3, n_classes, ties)
    weight = row_weights(weights)
    metric = get_metric(name, "binary" if n_classes == 2 else "multiclass", n_classes=n_classes)
    scores = metric(predictions, target, weight)
    plain = np.ones(N) if weight is None else weight.numpy()
    expected = [CLASSIFICATION[name](target.numpy(), member, plain) for member in predictions.numpy()]
    assert scores.dtype == torch.float64
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-10)
    assert len(np.unique(expected)) > 1  # members differ
    error = metric.error(predictions, target, weight)
    np.testing.assert_allclose(error, 1 - scores if metric.greater_is_better else scores)


@pytest.mark.parametrize(("name", "error"), [("roc_auc", 0.25), ("log_loss", 0.75)])
def test_scores_and_errors_are_inverse_for_floats_series_and_tensors(name, error):
    metric = METRICS[name]
    assert metric.to_error(0.75) == error
    assert (
        metric.to_error(pd.Series([0.75])).tolist()
        == metric.to_error(torch.tensor([0.75])).tolist()
        == [error]
    )
    assert metric.to_score(error) == 0.75


def test_balanced_accuracy_equals_scikit_learn():
    predictions, target = probabilities(3, 3, False)
    expected = [reference.balanced_accuracy_score(target, member.argmax(0)) for member in predictions]
    np.testing.assert_allclose(METRICS["balanced_accuracy"](predictions, target), expected, atol=1e-12)


@pytest.mark.parametrize("name", REGRESSION)
@pytest.mark.parametrize("n_outputs", [1, 3])
@pytest.mark.parametrize("weights", ["none", "some", "zeros"])
def test_regression_equals_scikit_learn(name, n_outputs, weights):
    generator = torch.Generator().manual_seed(0)
    target = 50 + 9 * torch.randn(n_outputs, N, generator=generator, dtype=torch.float64)
    predictions = target + torch.randn(P, n_outputs, N, generator=generator, dtype=torch.float64)
    weight = row_weights(weights)
    scores = get_metric(name, "regression")(predictions, target, weight)
    plain = np.ones(N) if weight is None else weight.numpy()
    expected = [REGRESSION[name](target.numpy(), member, plain) for member in predictions.numpy()]
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-10)
    if n_outputs == 1:
        torch.testing.assert_close(get_metric(name, "regression")(predictions, target[0], weight), scores)


@pytest.mark.parametrize("name", CLASSIFICATION)
def test_a_class_without_rows(name):
    predictions, target = probabilities(1, 4, False)
    target = torch.where(target == 2, 0, target)
    scores = METRICS[name](predictions, target)
    expected = [CLASSIFICATION[name](target.numpy(), m, np.ones(N)) for m in predictions.numpy()]
    np.testing.assert_allclose(scores, expected, atol=1e-10)


def test_auc_and_correlation_of_a_single_class():
    for n_classes in (2, 3):
        predictions, _ = probabilities(1, n_classes, False)
        target = torch.zeros(N, dtype=torch.int64)
        assert METRICS["roc_auc"](predictions, target).isnan().all()
        assert (METRICS["mcc"](predictions, target) == 0).all()
    predictions, target = probabilities(1, 2, False)
    weight = (target == 1).double()
    assert METRICS["roc_auc"](predictions, target, weight).isnan().all()


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(),
    n_rows=st.integers(2, 30),
    n_levels=st.integers(1, 6),
)
def test_auc_counts_pairs(data, n_rows, n_levels):
    scores = data.draw(
        st.lists(st.lists(st.integers(0, n_levels), min_size=n_rows, max_size=n_rows), min_size=1, max_size=3)
    )
    positive = data.draw(st.lists(st.booleans(), min_size=n_rows, max_size=n_rows))
    weight = data.draw(st.lists(st.integers(0, 3), min_size=n_rows, max_size=n_rows))
    s, y, w = np.array(scores, float), np.array(positive), np.array(weight, float)
    pairs = (w * y)[:, None] * (w * ~y)[None]
    better = (s[:, :, None] > s[:, None, :]) + 0.5 * (s[:, :, None] == s[:, None, :])
    area = binary_auc(torch.tensor(s), torch.tensor(y), torch.tensor(w))
    if pairs.sum() == 0:
        assert area.isnan().all()
    else:
        np.testing.assert_allclose(area, (better * pairs).sum((1, 2)) / pairs.sum(), atol=1e-12)


@pytest.mark.parametrize("n_levels", [1, 3, 1000, None])  # None: hardly any ties
def test_compiled_auc_equals_tensor_operations(n_levels, monkeypatch):
    pytest.importorskip("numba")
    ensure_compiled()
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(3, 2500, generator=generator) * torch.tensor([[1.0], [1e-30], [1e30]])
    if n_levels is not None:
        scores = torch.randint(-n_levels, n_levels, scores.shape, generator=generator) / torch.tensor(3.0)
    positive = torch.rand(2500, generator=generator) < 0.3
    weight = torch.randint(0, 3, (2500,), generator=generator).double()
    assert scores.numel() >= roc_auc.MIN_COMPILED
    found = binary_auc(scores, positive, weight)
    monkeypatch.setattr(roc_auc, "_compiled_areas", None)
    assert found.shape == (3,)
    monkeypatch.setenv("PMLP_COMPILED", "0")
    torch.testing.assert_close(found, binary_auc(scores, positive, weight), rtol=1e-12, atol=0)
    assert not torch.allclose(found, binary_auc(scores, ~positive, weight)) or n_levels == 1


def test_compiled_auc_counts_zeros_of_both_signs_as_ties():
    pytest.importorskip("numba")
    ensure_compiled()
    scores = torch.zeros(1, 5000)
    scores[0, ::2] = -0.0
    positive = torch.arange(5000) % 2 == 0
    assert binary_auc(scores, positive, torch.ones(5000).double()).tolist() == [0.5]


@pytest.mark.parametrize("name", [*CLASSIFICATION, *REGRESSION])
@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_non_finite_member_scores_nan_alone(name, broken):
    if name in CLASSIFICATION:
        predictions, target = probabilities(1, 3, False)
        metric = get_metric(name, "multiclass")
    else:
        predictions, target = torch.rand(P, 1, N).double(), torch.rand(N).double()
        metric = get_metric(name, "regression")
    before = metric(predictions, target)
    predictions[4, 0, 17] = broken
    after = metric(predictions, target)
    assert after.isnan().tolist() == [p == 4 for p in range(P)]
    keep = torch.arange(P) != 4
    assert torch.equal(before[keep], after[keep])


@pytest.mark.parametrize("name", ["accuracy", "log_loss", "roc_auc", "mcc"])
def test_chunks_of_members_change_nothing(name, monkeypatch):
    predictions, target = probabilities(2, 3, False)
    whole = METRICS[name](predictions, target)
    monkeypatch.setattr(metrics, "CHUNK_ELEMENTS", 2 * 3 * N)
    assert [s.stop - s.start for s in metrics.member_chunks(predictions)] == [2, 2, 2, 1]
    torch.testing.assert_close(METRICS[name](predictions, target), whole, rtol=1e-14, atol=0)


def test_log_loss_of_a_wrong_probability_of_one_is_finite():
    predictions = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]], dtype=torch.float64)
    right, wrong = METRICS["log_loss"](predictions, torch.tensor([0, 1])).tolist()
    assert right < 1e-15
    assert wrong == pytest.approx(-np.log(np.finfo(float).eps))
    assert METRICS["log_loss"](predictions.float(), torch.tensor([0, 1]))[1] == pytest.approx(
        -np.log(np.finfo(np.float32).eps), rel=1e-6
    )


def test_ties_predict_the_first_class():
    halves = torch.full((1, 2, 3), 0.5)
    thirds = torch.full((1, 3, 3), 1 / 3)
    for predictions in (halves, thirds):
        assert METRICS["accuracy"](predictions, torch.tensor([0, 0, 1])).item() == pytest.approx(2 / 3)


def test_deviances_of_zeros_and_scaled_values():
    target = torch.tensor([[0.0, 3.0, 1.0, 0.0]], dtype=torch.float64)
    predictions = torch.tensor([[[0.5, 2.0, 1.0, 0.1]], [[0.0, 2.0, 1.0, 0.1]]], dtype=torch.float64)
    for power in (1.0, 1.5):
        name = f"tweedie_deviance:{power}"
        metric = get_metric(name, "regression")
        expected = reference.mean_tweedie_deviance(target[0], predictions[0, 0], power=power)
        found = metric(predictions, target)
        assert float(found[0]) == pytest.approx(expected)
        assert bool(torch.isfinite(found).all())  # a prediction of zero counts as a small one
        scaled = metric.in_units((4.0,), (1.0,))((predictions - 1.0) / 4.0, (target - 1.0) / 4.0)
        np.testing.assert_allclose(scaled, found, rtol=1e-6)
    with pytest.raises(
        InvalidParameterError, match="'poisson_deviance' needs a target >= 0, but row 1 has -1"
    ):
        METRICS["poisson_deviance"].checked_on(np.array([1.0, -1.0]))
    with pytest.raises(InvalidParameterError, match="> 0, but row 0 has 0: use poisson or tweedie"):
        METRICS["d2_gamma"].checked_on(np.array([0.0, 1.0]))
    constant = torch.full((1, 3), 2.0)
    assert METRICS["d2_poisson"](torch.full((1, 1, 3), 2.0), constant).tolist() == [1.0]
    assert METRICS["d2_poisson"](torch.full((1, 1, 3), 1.0), constant).tolist() == [0.0]


def test_r2_of_a_constant_target():
    predictions = torch.tensor([[[5.0, 5.0]], [[5.0, 6.0]]])
    assert METRICS["r2"](predictions, torch.tensor([5.0, 5.0])).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_half_and_single_precision(dtype):
    predictions, target = probabilities(2, 3, False)
    for name in CLASSIFICATION:
        wide = METRICS[name](predictions.to(dtype).double(), target)
        torch.testing.assert_close(METRICS[name](predictions.to(dtype), target), wide, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "task", "found"),
    [
        ("AUC", "binary", "roc_auc"),
        ("log-loss", "multiclass", "log_loss"),
        ("neg_log_loss", "binary", "log_loss"),
        ("Balanced Accuracy", "binary", "balanced_accuracy"),
        ("neg_root_mean_squared_error", "regression", "rmse"),
        ("quantile:0.25", "regression", "pinball:0.25"),
        ("pinball:0.5", "regression", "pinball"),
        ("neg_mean_poisson_deviance", "regression", "poisson_deviance"),
        ("d2_tweedie:1.9", "regression", "d2_tweedie:1.9"),
        (METRICS["mcc"], "binary", "mcc"),
    ],
)
def test_names(name, task, found):
    metric = get_metric(name, task)
    assert metric.name == found
    assert pickle.loads(pickle.dumps(metric)) == metric


def test_quantiles_differ():
    assert get_metric("pinball:0.9", "regression") != get_metric("pinball:0.1", "regression")


@pytest.mark.parametrize(
    ("name", "task", "n_classes", "message"),
    [
        ("acuracy", "binary", None, "did you mean 'accuracy'"),
        (
            "rmse",
            "binary",
            None,
            "metric must fit the task 'binary' .*but got 'rmse', which is for regression",
        ),
        ("roc_auc", "regression", None, "rmse, mae, r2, pinball"),
        ("pinball:2", "regression", None, "between 0 and 1, but got '2'"),
        ("pinball:x", "regression", None, "between 0 and 1, but got 'x'"),
        ("tweedie_deviance:3", "regression", None, "POWER' must lie in .1, 2., but got '3'"),
        ("rmse:2", "regression", None, "metric must be one of"),
        (3, "regression", None, "a function or a Metric, but got int"),
        ("rmse", "regresion", None, "did you mean 'regression'"),
        ("f1", "binary", 3, "n_classes must be 2 for task 'binary', but got 3"),
        ("f1", "multiclass", 2, "at least 3"),
    ],
)
def test_bad_names(name, task, n_classes, message):
    with pytest.raises(InvalidParameterError, match=message):
        get_metric(name, task, n_classes=n_classes)


def test_default_metrics():
    defaults = [get_metric(None, task).name for task in metrics.TASKS]
    assert defaults == ["roc_auc", "log_loss", "rmse", "log_loss"]
    with pytest.raises(InvalidParameterError, match="task must be one of"):
        get_metric(None, "ranking")


@pytest.mark.parametrize(
    ("predictions", "target", "weight", "message"),
    [
        (torch.rand(2, 3), torch.zeros(3).long(), None, "floating-point tensor"),
        (torch.zeros(1, 2, 3).long(), torch.zeros(3).long(), None, "floating-point tensor"),
        (torch.rand(0, 2, 3), torch.zeros(3).long(), None, "at least one member"),
        (torch.rand(1, 1, 3), torch.zeros(3).long(), None, "at least 2 classes"),
        (torch.rand(1, 2, 3), torch.zeros(4).long(), None, "integers of shape"),
        (torch.rand(1, 2, 3), torch.zeros(3), None, "float32"),
        (torch.rand(1, 2, 3), torch.tensor([0, 1, 2]), None, "from 0 to 1, but got 2"),
        (torch.rand(1, 2, 3), torch.tensor([0, -1, 1]), None, "but got -1"),
        (torch.rand(1, 2, 3), torch.zeros(3).long(), torch.ones(2), "one value per row"),
        (torch.rand(1, 2, 3), torch.zeros(3).long(), torch.tensor([1.0, -2.0, 1.0]), ">= 0 .*but got -2"),
        (torch.rand(1, 2, 3), torch.zeros(3).long(), torch.zeros(3), "all rows have weight 0"),
    ],
)
def test_bad_inputs(predictions, target, weight, message):
    with pytest.raises(InvalidParameterError, match=message):
        METRICS["accuracy"](predictions, target, weight)


def test_bad_values():
    with pytest.raises(InvalidParameterError, match=r"numbers of shape \(1, 3\)"):
        METRICS["rmse"](torch.rand(1, 1, 3), torch.rand(2, 3))
    with pytest.raises(InvalidParameterError, match="target must be finite"):
        METRICS["rmse"](torch.rand(1, 1, 2), torch.tensor([1.0, float("nan")]))
