"""Fingerprints are equal for equal data only."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from parallelmlp_search.data import fingerprint

FRAME = pd.DataFrame(
    {
        "n": [1.5, np.nan, -0.0],
        "i": [1, 2, 3],
        "c": ["a", None, "b"],
        "t": pd.to_datetime(["2024-01-01", None, "2024-01-03"]),
        "k": pd.Categorical(["x", "y", "x"]),
    }
)


def test_stable_across_sessions() -> None:
    assert fingerprint(pd.DataFrame({"a": [1, 2], "b": ["x", None]}), None, np.array([0.5, np.nan])) == (
        "d50b02eb783769b30dc6f6fa118f95d6804dfee443371eb293b1119639549687"
    )


def test_copies_and_other_indices_are_the_same() -> None:
    assert fingerprint(FRAME) == fingerprint(FRAME.copy())
    assert fingerprint(FRAME) == fingerprint(FRAME.set_axis([7, 8, 9]))
    assert fingerprint(FRAME) == fingerprint(FRAME.assign(c=FRAME["c"].astype(object)))
    array = np.arange(12.0).reshape(3, 4)
    assert fingerprint(array) == fingerprint(np.asfortranarray(array)) == fingerprint(array.astype(">f8"))


@pytest.mark.parametrize(
    "other",
    [
        FRAME.assign(n=[1.5, 0.0, -0.0]),
        FRAME.assign(n=[1.5, np.nan, 0.0]),
        FRAME.assign(i=FRAME["i"].astype("int32")),
        FRAME.assign(i=[1, 3, 2]),
        FRAME.assign(c=["a", "None", "b"]),
        FRAME.assign(c=["a", "b", None]),
        FRAME.assign(k=pd.Categorical(["x", "y", "y"])),
        FRAME.assign(t=pd.to_datetime(["2024-01-01", None, "2024-01-04"])),
        FRAME.rename(columns={"n": "m"}),
        FRAME[["i", "n", "c", "t", "k"]],
        FRAME[:2],
        FRAME.drop(columns="k"),
    ],
)
def test_any_difference_changes_the_fingerprint(other: pd.DataFrame) -> None:
    assert fingerprint(FRAME) != fingerprint(other)


def test_boundaries_of_texts_and_tables_change_the_fingerprint() -> None:
    assert fingerprint(pd.DataFrame({"a": ["xy", "z"]})) != fingerprint(pd.DataFrame({"a": ["x", "yz"]}))
    assert fingerprint([1.0], [2.0]) != fingerprint([1.0, 2.0])
    assert fingerprint([1.0], None) != fingerprint([1.0])
    assert fingerprint(pd.DataFrame({"a": [1, "1"]})) != fingerprint(pd.DataFrame({"a": ["1", "1"]}))
