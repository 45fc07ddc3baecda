"""Selection of a finalist's snapshot by out-of-fold predictions of validation rows."""

from __future__ import annotations

from dataclasses import replace

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


def snapshots(
    preparation: Preparation, rows: np.ndarray, validation: list[float], others: list[float]
) -> Snapshots:
    """Snapshots with the given errors on validation rows and on other rows."""
    target = torch.from_numpy(preparation.target[rows]).float()
    is_validation = torch.from_numpy(np.isin(rows, preparation.validation_rows))
    errors = torch.where(
        is_validation, torch.tensor(validation).view(-1, 1), torch.tensor(others).view(-1, 1)
    )
    count = len(validation)
    weights = torch.arange(count, dtype=torch.float32).view(-1, 1)
    return Snapshots(torch.arange(1.0, count + 1), weights, (target + errors).unsqueeze(1))


class TestFolds:
    def test_shared_folds_train_on_every_row_that_they_do_not_predict(self) -> None:
        preparation = prepared()
        parts = preparation.folds(4, hold_out_validation=False)
        assert sorted(np.concatenate([part.predicted_rows for part in parts])) == list(range(N_ROWS))
        for part in parts:
            assert len(part.data.rows.inputs) + len(part.predicted_rows) == N_ROWS
            assert part.data.validation_inputs is None

    def test_held_out_validation_rows_are_the_only_difference_of_the_folds(self) -> None:
        preparation = prepared()
        shared, held_out = preparation.folds(4, hold_out_validation=False), preparation.folds(4)
        for one, other in zip(shared, held_out, strict=True):
            assert one.preprocessor.to_dict() == other.preprocessor.to_dict()
            assert one.head == other.head
            oof = np.setdiff1d(one.predicted_rows, preparation.validation_rows)
            assert np.array_equal(oof, other.predicted_rows)
            assert other.data.validation_inputs is not None
            assert len(other.data.validation_inputs) == len(preparation.validation_rows)
            assert len(other.data.rows.inputs) < len(one.data.rows.inputs)

    def test_rows_in_time_hold_out_the_last_ones(self) -> None:
        preparation = prepared(time=np.arange(N_ROWS))
        assert not preparation.trains_on_validation_rows
        for part in preparation.folds(3, hold_out_validation=False):
            assert not set(part.predicted_rows) & set(preparation.validation_rows)
            assert part.data.validation_inputs is not None


class TestSelection:
    @pytest.mark.parametrize("is_selecting_only", [True, False])  # runs of version 0.1 keep all rows
    def test_only_validation_rows_select_the_snapshot(self, is_selecting_only: bool) -> None:
        preparation = prepared()
        parts = preparation.folds(3, hold_out_validation=False)
        selection = SnapshotSelection(preparation, parts)
        for fold, part in enumerate(parts):
            kept = snapshots(preparation, part.predicted_rows, [3.0, 0.5, 2.0], [3.0, 2.0, 0.0])
            if is_selecting_only:
                places = np.isin(part.predicted_rows, preparation.validation_rows)
                kept = replace(kept, predictions=kept.predictions[:, :, torch.from_numpy(places)])
            chosen = selection.add(7, fold, kept)
            assert bool(chosen) == (fold == 2)
        assert sorted(chosen) == [0, 1, 2]
        assert [network.vector.tolist() for network in chosen.values()] == [[1.0]] * 3
        assert [network.epoch for network in chosen.values()] == [2.0] * 3

    def test_one_snapshot_is_selected_for_all_folds(self) -> None:
        preparation = prepared()
        parts = preparation.folds(3, hold_out_validation=False)
        selection = SnapshotSelection(preparation, parts)
        errors = [[0.0, 1.0], [4.0, 1.0], [4.0, 1.0]]
        for fold, part in enumerate(parts):
            chosen = selection.add(
                0, fold, snapshots(preparation, part.predicted_rows, errors[fold], [1.0, 1.0])
            )
        assert [network.vector.tolist() for network in chosen.values()] == [[1.0]] * 3

    def test_ties_select_the_last_snapshot_and_a_stopped_fold_keeps_its_last(self) -> None:
        preparation = prepared()
        parts = preparation.folds(3, hold_out_validation=False)
        selection = SnapshotSelection(preparation, parts)
        for fold, part in enumerate(parts):
            errors = [2.0, 1.0] if fold == 0 else [2.0, 1.0, 1.0]
            chosen = selection.add(0, fold, snapshots(preparation, part.predicted_rows, errors, errors))
        assert [network.vector.tolist() for network in chosen.values()] == [[1.0], [2.0], [2.0]]

    @pytest.mark.filterwarnings("ignore::RuntimeWarning")
    def test_snapshots_without_a_score_are_skipped(self) -> None:
        preparation = prepared()
        parts = preparation.folds(2, hold_out_validation=False)
        selection = SnapshotSelection(preparation, parts)
        for fold, part in enumerate(parts):
            errors = [2.0, float("nan")]
            chosen = selection.add(0, fold, snapshots(preparation, part.predicted_rows, errors, errors))
        assert [network.vector.tolist() for network in chosen.values()] == [[0.0]] * 2


def test_validation_rows_train_finalists_but_do_not_enter_the_score() -> None:
    """A feature that is nonzero only in validation rows affects the model but not the score."""
    preparation = prepared()
    frame = preparation.problem.frame.copy()
    target = preparation.problem.target.copy()
    frame["rare"] = 0.0
    frame.loc[preparation.validation_rows, "rare"] = 1.0
    target[preparation.validation_rows] += 50.0
    problem = Problem(frame=frame, target=target, task="regression")
    settings = SearchSettings(search_space="small", n_trials=4, max_epochs=40, n_finalists=2, n_folds=2)
    result = run(problem, settings, n_jobs=1)
    examples = frame.head(2).assign(rare=[0.0, 1.0])
    low, high = result.model.predictions(examples)[0]
    assert high - low > 10.0
    assert result.honest is not None
    assert result.honest.score < 25.0
