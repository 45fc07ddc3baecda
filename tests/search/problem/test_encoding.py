"""Encoding of parts: one matrix each, or views of one table where they would take too much memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from parallelmlp_search.engine.rows import RowView, as_tensor
from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.search import Problem, SearchSettings, run
from parallelmlp_search.search.problem import encoding, memory_room
from parallelmlp_search.search.problem.preparation import Part, Preparation

Make = Callable[..., Any]


@pytest.fixture
def large_tables_begin_at_a_kilobyte(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "MAX_TABLE_BYTES", 1000)


def _parts(problem: Problem, settings: SearchSettings) -> list[Part]:
    preparation = Preparation(problem, settings)
    return [preparation.screening(), *preparation.folds(3, hold_out_validation=False), preparation.whole()]


def test_parts_of_a_small_table_have_their_own_preprocessing(spam: Problem, make_settings: Make) -> None:
    parts = _parts(spam, make_settings())
    assert len({id(part.preprocessor) for part in parts}) == len(parts)
    assert not any(isinstance(part.data.rows.inputs, RowView) for part in parts)


@pytest.mark.usefixtures("large_tables_begin_at_a_kilobyte")
def test_parts_of_a_large_table_are_views_of_one(spam: Problem, make_settings: Make) -> None:
    preparation = Preparation(spam, make_settings())
    screening, folds = preparation.screening(), preparation.folds(3, hold_out_validation=False)
    views = [screening.data.rows.inputs, screening.data.validation_inputs]
    views += [inputs for fold in folds for inputs in (fold.data.rows.inputs, fold.data.prediction_inputs)]
    assert all(isinstance(view, RowView) for view in views)
    assert len({view.table.data_ptr() for view in views}) == 1
    # the values are those of the rows, with the preprocessing that was fitted to the out-of-fold rows
    expected = screening.preprocessor.transform(spam.frame)
    train = preparation.oof_rows
    assert torch.equal(as_tensor(screening.data.rows.inputs), torch.from_numpy(expected[train]))
    for fold in folds:
        seen = torch.from_numpy(expected[fold.predicted_rows])
        assert torch.equal(as_tensor(fold.data.prediction_inputs), seen)


@pytest.mark.usefixtures("large_tables_begin_at_a_kilobyte")
def test_preprocessing_of_a_large_table_is_fitted_to_a_sample(
    spam: Problem, make_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "FIT_ROWS", 50)
    fitted: list[int] = []
    fit = encoding.TablePreprocessor.fit

    def recording(self: Any, X: Any, y: Any = None) -> Any:
        fitted.append(len(X))
        return fit(self, X, y)

    monkeypatch.setattr(encoding.TablePreprocessor, "fit", recording)
    first = _parts(spam, make_settings())
    assert fitted == [50]
    again = _parts(spam, make_settings())
    assert np.array_equal(as_tensor(first[0].data.rows.inputs), as_tensor(again[0].data.rows.inputs))


def test_a_low_memory_limit_shares_smaller_tables(
    spam: Problem, make_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit, is_shared in ((3 * 10**11, False), (3 * 10**9, True)):
        monkeypatch.setattr(encoding, "TABLE_SHARE", 1e-5)
        (screening, *_) = _parts(spam, make_settings(memory_limit=limit))
        assert isinstance(screening.data.rows.inputs, RowView) is is_shared


@pytest.mark.usefixtures("large_tables_begin_at_a_kilobyte")
def test_processes_share_one_file_of_the_table(
    spam: Problem, make_settings: Make, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pickle

    parts = _parts(spam, make_settings())
    stored = [part.data.store(tmp_path) for part in parts]
    assert len(list(tmp_path.glob("table-*"))) == 1
    for part, one in zip(parts, stored, strict=True):
        back = pickle.loads(pickle.dumps(one))
        assert torch.equal(as_tensor(back.rows.inputs), as_tensor(part.data.rows.inputs))
        assert torch.equal(back.rows.target, part.data.rows.target)


@pytest.mark.usefixtures("large_tables_begin_at_a_kilobyte")
def test_a_search_on_a_shared_table_predicts_as_its_model_does(spam: Problem, make_settings: Make) -> None:
    result = run(spam, make_settings(n_trials=8), n_jobs=1)
    assert result.honest is not None
    assert 0.7 < result.honest.score <= 1.0
    accuracy = (result.model.predict(spam.frame) == spam.target).mean()
    assert accuracy > 0.8


def test_memory_is_checked_before_training_and_not_for_folds(
    spam: Problem, make_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = [500 * 10**6]
    monkeypatch.setattr(memory_room, "resident_bytes", lambda: used[0])
    preparation = Preparation(spam, make_settings(memory_limit="700M"))
    preparation.screening()
    used[0] = 650 * 10**6  # by training, which has its own part of the limit
    assert len(preparation.folds(3, hold_out_validation=False)) == 3
    with pytest.raises(InvalidParameterError, match="memory_limit must be at least"):
        Preparation(spam, make_settings(memory_limit="700M")).screening()
