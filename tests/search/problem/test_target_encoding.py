"""Target encoding of parts: cross-fitted for training rows, and blind to the targets of other rows."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from parallelmlp_search.engine.rows import RowView, as_tensor
from parallelmlp_search.search import Problem, run
from parallelmlp_search.search.problem import encoding
from parallelmlp_search.search.problem.preparation import Part, Preparation
from parallelmlp_search.space import SearchSpace

Make = Callable[..., Any]
N = 500
SPACE = SearchSpace(
    {
        **SearchSpace.resolve("small").domains,
        "target_encoding": SearchSpace.resolve("default").domains["target_encoding"],
    }
)


def problem_of(task: str = "binary", **values: Any) -> Problem:
    rng = np.random.default_rng(0)
    town = rng.integers(0, 120, N)
    signal = np.sin(town) + 0.3 * rng.normal(size=N)
    target = {
        "binary": np.where(signal > 0, "yes", "no"),
        "multiclass": np.array(["a", "b", "c"])[np.digitize(signal, [-0.4, 0.4])],
        "regression": signal,
    }[task]
    frame = pd.DataFrame(
        {
            "x": rng.normal(size=N),
            "town": [f"town {number}" for number in town],
            "sex": rng.choice(["f", "m"], N),
        }
    )
    frame.loc[::50, "town"] = None
    return Problem(frame=frame, target=target, task=task, **values)  # type: ignore[arg-type]


def means_of(part: Part, inputs: Any) -> np.ndarray:
    n_means = part.preprocessor.columns_.n_means
    return as_tensor(inputs)[:, -n_means:].numpy() if n_means else np.empty((len(inputs), 0))


def parts_of(preparation: Preparation) -> list[Part]:
    folds = [part for held in (True, False) for part in preparation.folds(3, hold_out_validation=held)]
    return [preparation.screening(), *folds, preparation.whole()]


@pytest.mark.parametrize(("task", "width"), [("binary", 1), ("multiclass", 3), ("regression", 1)])
def test_rows_outside_of_the_fitted_ones_get_what_the_model_computes(
    task: str, width: int, make_settings: Make
) -> None:
    problem = problem_of(task)
    preparation = Preparation(problem, make_settings(search_space=SPACE))
    for part in parts_of(preparation):
        assert part.preprocessor.columns_.n_means == width
        whole = part.preprocessor.transform(problem.frame)
        assert np.abs(whole[:, -width:]).std() > 0.1
        if len(part.predicted_rows):
            predicted = as_tensor(part.data.prediction_inputs)
            np.testing.assert_array_equal(predicted, whole[part.predicted_rows])
        # training rows have other numbers
        assert not np.isin(means_of(part, part.data.rows.inputs)[:, 0], whole[:, -width]).all()
    # only the screening's validation rows are outside of the fitted rows
    screening = preparation.screening()
    whole = screening.preprocessor.transform(problem.frame)
    validation = as_tensor(screening.data.validation_inputs)
    np.testing.assert_array_equal(validation, whole[preparation.validation_rows])


@pytest.mark.parametrize("shared", [False, True])
def test_no_input_depends_on_targets_of_rows_that_are_predicted(
    shared: bool, make_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "MAX_TABLE_BYTES", 1000 if shared else 1 << 27)
    problem = problem_of("regression")
    rows = np.random.default_rng(1).permutation(N)
    train, predict = rows[:300], rows[300:]

    def fold(target: Any) -> Part:
        one = Preparation(replace(problem, target=target), make_settings(search_space=SPACE), hold_back=False)
        return one._part(train, predict, 1)

    def numbers(part: Part) -> np.ndarray:
        inputs = part.data.rows.inputs, part.data.prediction_inputs
        return np.concatenate([means_of(part, one) for one in inputs])

    before = fold(problem.target)
    assert isinstance(before.data.rows.inputs, RowView) is shared
    target = problem.target.copy()
    target[predict] = 10.0 + np.arange(len(predict))
    assert np.array_equal(numbers(fold(target)), numbers(before))
    target = problem.target.copy()
    target[train] = target[train][::-1]  # targets of training rows do change inputs
    assert not np.allclose(numbers(fold(target)), numbers(before))


def test_a_noise_column_has_no_correlation_with_its_own_targets(make_settings: Make) -> None:
    problem = problem_of("regression")
    rng = np.random.default_rng(3)
    frame = pd.DataFrame(
        {"noise": [f"n{value}" for value in rng.integers(0, 200, N)], "x": rng.normal(size=N)}
    )
    part = Preparation(replace(problem, frame=frame), make_settings(search_space=SPACE)).whole()
    target = part.data.rows.target[0].numpy()
    crossed = means_of(part, part.data.rows.inputs)[:, 0]
    plain = part.preprocessor.transform(frame)[:, -1]
    assert np.corrcoef(plain, target)[0, 1] > 0.4  # the leak that cross-fitting avoids
    assert abs(np.corrcoef(crossed, target)[0, 1]) < 0.15


def test_groups_stay_together(make_settings: Make) -> None:
    groups = np.repeat(np.arange(N // 5), 5)
    frame = pd.DataFrame({"who": [f"g{group}" for group in groups], "x": np.arange(N) % 7})
    problem = replace(problem_of("regression"), frame=frame, groups=groups)
    part = Preparation(problem, make_settings(search_space=SPACE)).whole()
    # a category of one group is unknown to the rows of the group
    assert not means_of(part, part.data.rows.inputs).any()
    assert part.preprocessor.transform(frame)[:, -1].any()


def test_the_shared_table_has_the_same_means(make_settings: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = make_settings(search_space=SPACE)
    alone = parts_of(Preparation(problem_of(), settings))
    monkeypatch.setattr(encoding, "MAX_TABLE_BYTES", 1000)
    shared = parts_of(Preparation(problem_of(), settings))
    for one, other in zip(alone, shared, strict=True):
        assert isinstance(other.data.rows.inputs, RowView)
        assert other.data.columns.n_means == one.data.columns.n_means
        np.testing.assert_array_equal(
            means_of(other, other.data.rows.inputs), means_of(one, one.data.rows.inputs)
        )
        assert other.data.rows.inputs.shape[1] == other.preprocessor.n_features_out_


@pytest.mark.parametrize("shared", [False, True])
def test_a_search_chooses_whether_networks_see_means(
    shared: bool, make_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "MAX_TABLE_BYTES", 1000 if shared else 1 << 27)
    problem = problem_of()
    result = run(problem, make_settings(search_space=SPACE, n_trials=8, metric="accuracy"), n_jobs=1)
    assert set(result.trials["config_target_encoding"]) == {True, False}
    assert result.honest is not None
    assert result.honest.score > 0.6
    assert (result.model.predict(problem.frame) == problem.target).mean() > 0.7


def test_means_are_left_out_without_a_choice_or_a_column(make_settings: Make) -> None:
    preparation = Preparation(problem_of(), make_settings(search_space="small"))
    assert preparation.screening().preprocessor.columns_.n_means == 0
    problem = replace(problem_of(), frame=problem_of().frame.drop(columns="town"))
    preparation = Preparation(problem, make_settings(search_space=SPACE))
    assert preparation.screening().preprocessor.columns_.n_means == 0


def test_stored_parts_keep_their_means(
    make_settings: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setattr(encoding, "MAX_TABLE_BYTES", 1000)
    for part in parts_of(Preparation(problem_of(), make_settings(search_space=SPACE)))[:3]:
        back = pickle.loads(pickle.dumps(part.data.store(tmp_path)))
        for name in ("validation_inputs", "prediction_inputs", "snapshot_inputs"):
            if (inputs := getattr(part.data, name)) is not None:
                assert torch.equal(as_tensor(getattr(back, name)), as_tensor(inputs))
        assert torch.equal(as_tensor(back.rows.inputs), as_tensor(part.data.rows.inputs))
    assert len(list(tmp_path.glob("table-*"))) == 1
