"""Rows of requests against the same rows in a frame, to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parallelmlp_search.data.coercion import as_keys, as_numbers, keys_of, numbers_of
from parallelmlp_search.inference.requests import RequestPredictor
from tests.inference.test_ensemble import model_of, table

KINDS = ({"x": "numeric"}, {"x": "categorical"}, {"x": "numeric"})
"""Kinds of a column that differ between folds, so that they are read apart."""


@pytest.mark.parametrize("kinds", [None, KINDS], ids=["one group", "two groups"])
@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_rows_are_predicted_as_in_a_frame(task: str, kinds: Any) -> None:
    model = model_of(task, kinds=kinds)
    predictor = RequestPredictor(model)
    assert predictor.needed == ("x", "y", "town")
    assert len(model.ensemble.groups) == (1 if kinds is None else 2)
    for n_rows in (1, 4, 5, 40):
        frame = table(60).tail(n_rows)
        (answer,) = predictor.answers([frame.to_dict("records")])
        np.testing.assert_array_equal(answer.values, model.predictions(frame))
        assert answer.notes == []


@pytest.mark.filterwarnings("ignore")  # of the frame
def test_requests_that_are_predicted_together_get_their_own_rows_and_notes() -> None:
    model = model_of("regression")
    rows: list[dict[str, Any]] = table(7).to_dict("records")
    rows[2] = rows[2] | {"x": "much", "y": None}
    rows[3] = rows[3] | {"x": "more", "town": []}
    rows[6] = {"y": 1.0, "town": "elsewhere"}
    requests = [rows[:1], rows[1:4], rows[4:]]
    answers = RequestPredictor(model).answers(requests)
    together = model.predictions(pd.DataFrame(rows))
    np.testing.assert_array_equal(np.concatenate([a.values for a in answers], axis=1), together)
    assert [len(answer.notes) for answer in answers] == [0, 1, 0]
    assert answers[1].notes == [
        "column 'x' was numeric in training, but 'much' cannot be read as such; it counts as missing"
    ]


CELLS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4)
    | st.sampled_from(["7", " 7.0", "1e3", "1_0", "nan", "-inf", ""])
    | st.lists(st.integers(0, 3), max_size=2) | st.dictionaries(st.text(max_size=1), st.none(), max_size=1)
)  # fmt: skip


@settings(max_examples=150)
@given(st.lists(CELLS, max_size=8))
def test_cells_of_json_are_converted_as_in_a_column(cells: list[Any]) -> None:
    column = pd.Series(cells, dtype=object)
    np.testing.assert_array_equal(numbers_of(cells), as_numbers(column))
    codes, keys = keys_of(cells)
    expected, others = as_keys(column)
    assert [keys[code] if code >= 0 else "" for code in codes] == [
        others[code] if code >= 0 else "" for code in expected
    ]
    assert len(set(keys)) == len(keys)


def test_integers_beyond_the_largest_float_are_infinite() -> None:
    np.testing.assert_array_equal(numbers_of([1, None, -(10**400)]), [1.0, np.nan, -np.inf])
