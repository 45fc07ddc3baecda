"""Costs of errors, ordered classes, and the decision of least expected cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from parallelmlp_search.cli.costs import parse_costs
from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.inference.outputs import decided
from parallelmlp_search.selection import (
    METRICS,
    Costs,
    decided_by,
    decision_matrix,
    weight_classes,
    with_costs,
)
from parallelmlp_search.selection.costs import fits_costs, is_ordinal, resolved

NAMES = np.array(["bad", "fair", "good"])
TABLE = [[0.0, 1.0, 5.0], [1.0, 0.0, 1.0], [2.0, 1.0, 0.0]]
STEPS = ((0.0, 1.0, 2.0), (1.0, 0.0, 1.0), (2.0, 1.0, 0.0))


def resolve(cost_matrix: Any = None, ordinal: Any = False, classes: Any = NAMES) -> Any:
    costs = Costs.of(cost_matrix, ordinal)
    assert costs is not None
    assert Costs.from_dict(costs.to_dict()) == costs
    return costs.resolve(np.asarray(classes))


def test_all_forms_of_costs_are_one(tmp_path: Path) -> None:
    expected = tuple(map(tuple, TABLE))
    assert resolve(TABLE) == expected
    assert resolve(np.array(TABLE)) == expected
    order = ["good", "bad", "fair"]
    frame = pd.DataFrame(TABLE, index=NAMES, columns=NAMES).loc[order, order]
    assert resolve(frame) == expected
    assert resolve({("bad", "good"): 5, ("good", "bad"): 2.0}) == expected
    frame.to_csv(tmp_path / "costs.csv")
    for text in (str(tmp_path / "costs.csv"), "bad:good=5, good:bad=2"):
        costs = parse_costs(text, None)
        assert costs is not None
        assert costs.resolve(NAMES) == expected
    assert parse_costs(None, None) is None
    assert (
        resolve({(1, 0): 3}, classes=[0, 1]) == resolve({("1", "0"): 3}, classes=[0, 1]) == ((0, 1), (3, 0))
    )


@pytest.mark.parametrize(
    ("ordinal", "classes", "expected"),
    [
        (True, [1, 2, 7], STEPS),
        (True, ["low", "medium", "high"], ((0, 2, 1), (2, 0, 1), (1, 1, 0))),
        (["b", "a", "c"], ["a", "b", "c"], ((0, 1, 1), (1, 0, 2), (1, 2, 0))),
        ([3, 1, 2], [1, 2, 3], ((0, 1, 1), (1, 0, 2), (1, 2, 0))),
        (["a", "unused", "b", "c"], ["a", "b", "c"], STEPS),
    ],
)
def test_orders_of_classes(ordinal: Any, classes: list[Any], expected: Any) -> None:
    classes = sorted(classes)
    if classes[0] == "high":
        expected = ((0, 2, 1), (2, 0, 1), (1, 1, 0))  # high, low, medium
    found = resolve(None, ordinal, classes)
    assert found == expected
    assert is_ordinal(found)
    assert not is_ordinal(tuple(map(tuple, TABLE)))


@pytest.mark.parametrize(
    ("cost_matrix", "ordinal", "message"),
    [
        ([[0, 1, 2], [1, 0, 1]], False, "cost_matrix must hold a finite cost for each true class"),
        ([[0, np.nan], [1, 0]], False, "finite cost"),
        ("bad", False, "cost_matrix must hold"),
        ({"bad": 1}, False, "must map pairs .true, predicted. to finite costs, but maps 'bad' to 1"),
        ({("bad", "good"): "x"}, False, "to finite costs, but maps"),
        ([[0, 1], [1, 0]], False, r"the 3 classes bad, fair, good, but has the shape \(2, 2\)"),
        ({("bad", "god"): 1}, False, "class 'god', which the target does not have; did you mean 'good'"),
        (np.ones((3, 3)), False, "must have different costs in some row"),
        (TABLE, True, "only one of cost_matrix and ordinal can decide"),
        (None, "bad,good", "ordinal must be True or different classes in their order, but got 'bad,good'"),
        (None, ["bad", "bad", "good"], "ordinal must be True or different classes"),
        (None, ["bad", "good"], "the order of the 3 classes bad, fair, good, but lacks 'fair'"),
    ],
)
def test_bad_costs(cost_matrix: Any, ordinal: Any, message: str) -> None:
    with pytest.raises(InvalidParameterError, match=message):
        resolve(cost_matrix, ordinal)


def test_names_without_an_order() -> None:
    with pytest.raises(InvalidParameterError, match="which their names do not show"):
        resolve(None, True, ["apple", "pear", "plum"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bad=5", "costs must be TRUE:PREDICTED=COST"),
        ("bad:good=many", "costs must be numbers, but got 'bad:good=many'"),
        ("nowhere/costs.csv", "cannot be read"),
    ],
)
def test_bad_options(text: str, message: str) -> None:
    with pytest.raises(InvalidParameterError, match=message):
        parse_costs(text, None)


def test_a_file_with_a_short_row(tmp_path: Path) -> None:
    path = tmp_path / "costs.csv"
    path.write_text(",bad,good\nbad,0,1\ngood,2\n")
    with pytest.raises(InvalidParameterError, match="must have 2 numbers per row, but the row 'good' has 1"):
        parse_costs(str(path), None)


@given(st.integers(2, 6), st.integers(0, 2**32 - 1))
def test_the_decision_has_the_least_expected_cost(n_classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    costs = tuple(map(tuple, rng.normal(size=(n_classes, n_classes)).tolist()))
    probabilities = rng.dirichlet(np.ones(n_classes), 20).T
    decision = decision_matrix(costs)
    assert 0 <= np.min(decision) <= np.max(decision) == 1
    expected = np.array(costs).T @ probabilities
    found = decided(probabilities, decision)
    np.testing.assert_allclose(expected[found, np.arange(20)], expected.min(axis=0), atol=1e-12)
    twin = weight_classes(torch.from_numpy(probabilities)[None], decision)
    assert twin[0].argmax(dim=0).tolist() == found.tolist()


def test_vectors_of_weights_still_multiply() -> None:
    probabilities = np.array([[0.6, 0.2], [0.3, 0.3], [0.1, 0.5]])
    assert decided(probabilities, None).tolist() == [0, 2]
    assert decided(probabilities, (0.1, 2.0, 0.9)).tolist() == [1, 1]


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("is_weighted", [False, True])
def test_metrics_equal_plain_ones(n_classes: int, is_weighted: bool) -> None:
    rng = np.random.default_rng(0)
    target = rng.integers(0, n_classes, 60)
    predictions = torch.from_numpy(rng.dirichlet(np.ones(n_classes), (3, 60))).transpose(1, 2)
    weight = rng.random(60) * (rng.random(60) > 0.2) if is_weighted else np.ones(60)
    costs = tuple(map(tuple, rng.random((n_classes, n_classes)).tolist()))
    truth = torch.from_numpy(target)
    cost = with_costs(METRICS["expected_cost"], costs)
    kappa = METRICS["quadratic_kappa"]
    for member in range(3):
        label = predictions[member].argmax(dim=0).numpy()
        own = predictions[[member]]
        by_hand = np.average(np.array(costs)[target, label], weights=weight)
        assert float(cost(own, truth, weight)[0]) == pytest.approx(by_hand)
        expected = cohen_kappa_score(target, label, weights="quadratic", sample_weight=weight)
        assert float(kappa(own, truth, weight)[0]) == pytest.approx(expected)
        steps = np.average(np.abs(target - label), weights=weight)
        assert float(METRICS["ordinal_mae"](own, truth, weight)[0]) == pytest.approx(steps)
    decision = decision_matrix(costs)
    whole = decided_by(cost, decision)(predictions, truth, weight)
    assert torch.equal(whole, cost(weight_classes(predictions, decision), truth, weight))
    assert bool((whole <= cost(predictions, truth, weight) + 1).all())
    assert decided_by(METRICS["log_loss"], decision) is METRICS["log_loss"]


def test_kappa_of_constants_is_zero() -> None:
    predictions = torch.tensor([[[1.0, 1.0], [0.0, 0.0]]])
    assert float(METRICS["quadratic_kappa"](predictions, torch.tensor([0, 0]))[0]) == 0.0


def test_metrics_need_their_costs() -> None:
    table = tuple(map(tuple, TABLE))
    assert fits_costs(METRICS["f1"], None)
    for name in ("expected_cost", "ordinal_mae", "quadratic_kappa"):
        with pytest.raises(InvalidParameterError, match=f"metric '{name}' needs"):
            resolved(None, NAMES, METRICS[name])
    with pytest.raises(InvalidParameterError, match="'quadratic_kappa' needs ordered classes: set ordinal"):
        with_costs(METRICS["quadratic_kappa"], table)
    metric, costs, decision = resolved(Costs.of(None, NAMES.tolist()), NAMES, METRICS["quadratic_kappa"])
    assert costs == STEPS
    assert decision == ((1.0, 0.75, 0.0), (0.0, 0.25, 0.0), (0.0, 0.75, 1.0))
    # two classes at both ends: the middle has a lower squared cost than either
    assert decided(np.array([[0.5], [0.0], [0.5]]), decision).tolist() == [1]
    assert metric.formula.score_range(3).low == -1
