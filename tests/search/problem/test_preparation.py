"""Training, validation and out-of-fold rows of a search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from parallelmlp_search.exceptions import DataError
from parallelmlp_search.search import Problem
from parallelmlp_search.search.problem.preparation import MIN_SPLIT_ROWS, Preparation, seed_of

Make = Callable[..., Any]
Rows = np.ndarray[Any, Any]


@pytest.fixture
def divide(make_settings: Make, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Function from a problem to its preparation and (training, predicted) rows of screening and folds."""

    def divided(
        problem: Problem, n_folds: int = 3, *, hold_out_validation: bool = True, **values: Any
    ) -> tuple[Preparation, list[tuple[Rows, Rows]]]:
        parts: list[tuple[Rows, Rows]] = []
        part = Preparation._part

        def recording(self: Preparation, train: Rows, predict: Rows | None, seed: int, **options: Any) -> Any:
            parts.append((train, np.empty(0, dtype=int) if predict is None else predict))
            return part(self, train, predict, seed, **options)

        monkeypatch.setattr(Preparation, "_part", recording)
        preparation = Preparation(problem, make_settings(**values))
        preparation.screening()
        preparation.folds(preparation.allowed_folds(n_folds), hold_out_validation=hold_out_validation)
        return preparation, parts

    return divided


def _sets(*rows: Rows) -> list[set[int]]:
    return [set(map(int, part)) for part in rows]


@pytest.mark.parametrize("hold_out_validation", [True, False])
@pytest.mark.parametrize("name", ["spambase", "satimage", "diamonds"])
def test_validation_oof_and_training_rows_are_disjoint(
    name: str, hold_out_validation: bool, make_problem: Make, divide: Make
) -> None:
    preparation, (screening, *folds) = divide(
        make_problem(name, 300), hold_out_validation=hold_out_validation
    )
    oof, validation = _sets(preparation.oof_rows, preparation.validation_rows)
    assert oof | validation == set(range(300))
    assert not oof & validation
    assert 0.1 < len(validation) / 300 < 0.3
    assert _sets(screening[0])[0] == oof
    used = oof if hold_out_validation else oof | validation
    predicted: list[int] = []
    for train, predict in folds:
        inside, outside = _sets(train, predict)
        assert not inside & outside
        assert inside | outside == used
        predicted.extend(outside)
    assert sorted(predicted) == sorted(used)


@pytest.mark.parametrize("hold_out_validation", [True, False])
def test_no_group_is_on_both_sides_of_a_split(
    hold_out_validation: bool, make_problem: Make, divide: Make
) -> None:
    groups = np.array(
        [f"g{number}" for number in np.random.default_rng(0).integers(0, 40, 300)], dtype=object
    )
    preparation, (_, *folds) = divide(
        make_problem("spambase", 300, groups=groups), hold_out_validation=hold_out_validation
    )

    def of(rows: Rows) -> set[str]:
        return set(groups[rows])

    assert not of(preparation.oof_rows) & of(preparation.validation_rows)
    for train, predict in folds:
        assert len(predict) > 0
        assert not of(train) & of(predict)
    # without groups, rows of the same value are on both sides
    free, (_, *free_folds) = divide(make_problem("spambase", 300))
    assert of(free.oof_rows) & of(free.validation_rows)
    assert all(of(train) & of(predict) for train, predict in free_folds)


def test_later_rows_never_train_for_earlier_ones(make_problem: Make, divide: Make) -> None:
    time = np.random.default_rng(1).permutation(300).astype(float)
    preparation, (_, *folds) = divide(make_problem("diamonds", 300, time=time))
    assert time[preparation.validation_rows].min() > time[preparation.oof_rows].max()
    for train, predict in folds:
        assert time[train].max() < time[predict].min()


def test_groups_and_times_limit_the_number_of_folds(make_problem: Make, make_settings: Make) -> None:
    def allowed(**values: Any) -> int:
        return Preparation(make_problem("spambase", 300, **values), make_settings()).allowed_folds(8)

    assert allowed() == 8
    assert allowed(groups=np.arange(300) % 5) == 4
    # of six years the last has the validation rows, and five years allow four folds
    assert allowed(time=2000 + np.arange(300) % 6) == 4


def test_one_group_cannot_be_divided(make_problem: Make, make_settings: Make) -> None:
    with pytest.raises(DataError, match="group"):
        Preparation(make_problem("spambase", 60, groups=np.zeros(60)), make_settings())


def _binary(target: list[str], **values: Any) -> Problem:
    frame = pd.DataFrame({"a": np.random.default_rng(0).normal(size=len(target))})
    return Problem.from_table(frame, target, **values)


def test_classes_sorted_in_time_are_refused_with_the_reason(make_settings: Make) -> None:
    """The early rows have one class: no network could learn the other."""
    late = _binary(["n"] * 100 + ["p"] * 20, time=range(120))
    with pytest.raises(
        DataError, match="time must leave two classes to train on, but all 96 earlier rows have 'n'"
    ):
        Preparation(late, make_settings())
    halves = _binary(["n"] * 60 + ["p"] * 60, time=range(120))
    words = (
        "metric 'roc_auc' needs rows of two classes, but all 24 rows that validate, the latest, have 'p': "
        "choose another metric"
    )
    with pytest.raises(DataError, match=words):
        Preparation(halves, make_settings())
    Preparation(halves, make_settings(metric="log_loss"))
    Preparation(_binary(["n", "p"] * 60, time=range(120)), make_settings())


def test_groups_of_one_class_are_refused_with_the_reason(make_settings: Make) -> None:
    problem = _binary(["n"] * 40 + ["p"] * 80, groups=[0] * 40 + [1] * 40 + [2] * 40)
    with pytest.raises(DataError, match="needs rows of two classes, but all 40 rows that validate have 'p'"):
        Preparation(problem, make_settings())


@pytest.mark.parametrize("n_rows", [MIN_SPLIT_ROWS - 1, MIN_SPLIT_ROWS])
def test_below_twenty_rows_there_are_no_validation_rows(
    n_rows: int, make_problem: Make, divide: Make
) -> None:
    preparation, (_, *folds) = divide(make_problem("spambase", n_rows))
    tiny = n_rows < MIN_SPLIT_ROWS
    assert preparation.is_tiny is tiny
    assert (preparation.n_oof == n_rows) is tiny
    assert (len(folds) == 1) is tiny
    if tiny:
        assert len(folds[0][0]) == len(folds[0][1]) == n_rows


def test_preprocessing_and_scaling_are_fitted_on_training_rows_only(
    make_problem: Make, make_settings: Make
) -> None:
    problem: Problem = make_problem("diamonds", 300)
    before = Preparation(problem, make_settings())
    target = problem.target.copy()
    frame = problem.frame.copy()
    target[before.validation_rows] *= 100
    frame.loc[before.validation_rows, "carat"] *= 100
    after = Preparation(replace(problem, target=target, frame=frame), make_settings())
    # the split depends on ranks of the target, so the rows of the first split are kept
    after.oof_rows, after.validation_rows = before.oof_rows, before.validation_rows
    first, second = before.screening(), after.screening()
    assert first.head == second.head
    assert torch.equal(first.data.rows.inputs, second.data.rows.inputs)
    assert torch.equal(first.data.rows.target, second.data.rows.target)
    # the validation rows did change
    assert not torch.equal(first.data.validation_target, second.data.validation_target)
    target[before.oof_rows[:50]] *= 100
    assert Preparation(replace(problem, target=target), make_settings()).screening().head != first.head


def test_row_weights_train_and_score_but_class_weights_only_train(
    make_problem: Make, make_settings: Make
) -> None:
    weight = np.linspace(0.5, 2, 200)
    plain = Preparation(make_problem("spambase", 200), make_settings())
    weighted = Preparation(make_problem("spambase", 200, weight=weight), make_settings())
    balanced = Preparation(make_problem("spambase", 200, class_weight="balanced"), make_settings())
    rows = np.arange(3)
    assert plain.weights(rows) is None
    assert plain.screening().data.rows.weight is None
    assert weighted.weights(rows) is not None
    assert weighted.screening().data.rows.weight is not None
    assert balanced.weights(rows) is None
    training = balanced.screening().data.rows
    assert training.weight is not None
    totals = [float(training.weight[training.target == label].sum()) for label in (0, 1)]
    assert totals[0] == pytest.approx(totals[1], rel=0.05)


def test_seeds_depend_on_all_parts() -> None:
    assert seed_of(1, 2) == seed_of(1, 2)
    assert len({seed_of(1, 2), seed_of(2, 1), seed_of(1, 2, 1), seed_of(1, 3)}) == 4
