"""Finalists train on the choosing rows too, and those choose the moment by out-of-fold predictions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from parallelmlp_search.distribute import Snapshots
from parallelmlp_search.search import Problem, SearchSettings, run
from parallelmlp_search.search.finalists.snapshot_selection import SnapshotSelection
from parallelmlp_search.search.problem.preparation import Preparation

N_ROWS = 120


def prepared(**problem: object) -> Preparation:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(N_ROWS, 3)), columns=list("abc"))
    target = frame["a"].to_numpy() + 0.1 * rng.normal(size=N_ROWS)
    return Preparation(Problem(frame=frame, target=target, task="regression", **problem), SearchSettings())  # type: ignore[arg-type]


def moments(
    preparation: Preparation, rows: np.ndarray, choosing: list[float], others: list[float]
) -> Snapshots:
    """Predictions that are off by so much at each moment, on the choosing rows and on the others."""
    target = torch.from_numpy(preparation.target[rows]).float()
    mine = torch.from_numpy(np.isin(rows, preparation.validation_rows))
    off = torch.where(mine, torch.tensor(choosing).view(-1, 1), torch.tensor(others).view(-1, 1))
    count = len(choosing)
    weights = torch.arange(count, dtype=torch.float32).view(-1, 1)
    return Snapshots(torch.arange(1.0, count + 1), weights, (target + off).unsqueeze(1))


class TestFolds:
    def test_shared_folds_train_on_every_row_that_they_do_not_predict(self) -> None:
        preparation = prepared()
        parts = preparation.folds(4, hold_out_validation=False)
        assert sorted(np.concatenate([part.predicted_rows for part in parts])) == list(range(N_ROWS))
        for part in parts:
            assert len(part.data.rows.inputs) + len(part.predicted_rows) == N_ROWS
            assert part.data.validation_inputs is None

    def test_held_folds_differ_only_in_what_the_choosing_rows_do(self) -> None:
        preparation = prepared()
        shared, held = preparation.folds(4, hold_out_validation=False), preparation.folds(4)
        for one, other in zip(shared, held, strict=True):
            assert one.preprocessor.to_dict() == other.preprocessor.to_dict()
            assert one.head == other.head
            reporting = np.setdiff1d(one.predicted_rows, preparation.validation_rows)
            assert np.array_equal(reporting, other.predicted_rows)
            assert other.data.validation_inputs is not None
            assert len(other.data.validation_inputs) == len(preparation.validation_rows)
            assert len(other.data.rows.inputs) < len(one.data.rows.inputs)

    def test_rows_in_time_keep_the_last_ones_apart(self) -> None:
        preparation = prepared(time=np.arange(N_ROWS))
        assert not preparation.trains_on_validation_rows
        for part in preparation.folds(3, hold_out_validation=False):
            assert not set(part.predicted_rows) & set(preparation.validation_rows)
            assert part.data.validation_inputs is not None


class TestChoice:
    def test_the_choosing_rows_choose_and_the_others_do_not(self) -> None:
        preparation = prepared()
        parts = preparation.folds(3, hold_out_validation=False)
        choice = SnapshotSelection(preparation, parts)
        for fold, part in enumerate(parts):
            kept = moments(preparation, part.predicted_rows, [3.0, 0.5, 2.0], [3.0, 2.0, 0.0])
            chosen = choice.add(7, fold, kept)
            assert bool(chosen) == (fold == 2)
        assert sorted(chosen) == [0, 1, 2]
        assert [network.vector.tolist() for network in chosen.values()] == [[1.0]] * 3
        assert torch.equal(chosen[2].prediction, kept.predictions[1])
        assert [network.epoch for network in chosen.values()] == [2.0] * 3

    def test_all_folds_together_choose_not_each_for_itself(self) -> None:
        preparation = prepared()
        parts = preparation.folds(3, hold_out_validation=False)
        choice = SnapshotSelection(preparation, parts)
        errors = [[0.0, 1.0], [4.0, 1.0], [4.0, 1.0]]
        for fold, part in enumerate(parts):
            chosen = choice.add(0, fold, moments(preparation, part.predicted_rows, errors[fold], [1.0, 1.0]))
        assert [network.vector.tolist() for network in chosen.values()] == [[1.0]] * 3

    def test_equal_moments_go_to_the_last_and_a_cut_fold_stands_still(self) -> None:
        preparation = prepared()
        parts = preparation.folds(3, hold_out_validation=False)
        choice = SnapshotSelection(preparation, parts)
        for fold, part in enumerate(parts):
            errors = [2.0, 1.0] if fold == 0 else [2.0, 1.0, 1.0]
            chosen = choice.add(0, fold, moments(preparation, part.predicted_rows, errors, errors))
        assert [network.vector.tolist() for network in chosen.values()] == [[1.0], [2.0], [2.0]]

    @pytest.mark.filterwarnings("ignore::RuntimeWarning")
    def test_moments_that_cannot_be_scored_are_passed_over(self) -> None:
        preparation = prepared()
        parts = preparation.folds(2, hold_out_validation=False)
        choice = SnapshotSelection(preparation, parts)
        for fold, part in enumerate(parts):
            errors = [2.0, float("nan")]
            chosen = choice.add(0, fold, moments(preparation, part.predicted_rows, errors, errors))
        assert [network.vector.tolist() for network in chosen.values()] == [[0.0]] * 2


def test_a_search_learns_from_the_choosing_rows_but_never_reports_on_them() -> None:
    """A feature that only the choosing rows know reaches the model, and not the score."""
    preparation = prepared()
    frame = preparation.problem.frame.copy()
    target = preparation.problem.target.copy()
    frame["rare"] = 0.0
    frame.loc[preparation.validation_rows, "rare"] = 1.0
    target[preparation.validation_rows] += 50.0
    problem = Problem(frame=frame, target=target, task="regression")
    settings = SearchSettings(search_space="small", n_trials=4, max_epochs=40, n_finalists=2, n_folds=2)
    result = run(problem, settings, n_jobs=1)
    told = frame.head(2).assign(rare=[0.0, 1.0])
    low, high = result.model.predictions(told)[0]
    assert high - low > 10.0
    assert result.honest is not None
    assert result.honest.score < 25.0
