"""Files of predictions, and plain values of results."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from parallelmlp_search.cli.plain_values import plain, records
from parallelmlp_search.cli.predictions import check_output, write_table
from parallelmlp_search.exceptions import InvalidParameterError


def test_plain_values_are_json() -> None:
    frame = pd.DataFrame(
        {
            "n": pd.array([1, None], dtype="Int64"),
            "x": [np.nan, np.inf],
            "t": ["a", None],
            "w": [[64, 32], np.array([1])],
            "d": pd.to_datetime(["2024-01-01", None]),
        }
    )
    rows = json.loads(json.dumps(records(frame), allow_nan=False))
    assert rows[0] == {"n": 1, "x": None, "t": "a", "w": [64, 32], "d": "2024-01-01 00:00:00"}
    assert rows[1] == {"n": None, "x": None, "t": None, "w": [1], "d": None}
    assert plain({"a": (np.float32(0.5), np.bool_(True))}) == {"a": [0.5, True]}


def test_output_suffixes(tmp_path: Path) -> None:
    assert check_output("-") == ".csv"
    assert check_output(str(tmp_path / "a.csv.gz")) == ".csv.gz"
    with pytest.raises(InvalidParameterError, match=r"did you mean '\.parquet'"):
        check_output(str(tmp_path / "a.parqet"))


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    write_table(pd.DataFrame({"a": [1]}), str(path))
    with pytest.raises((ValueError, TypeError)):
        write_table(pd.DataFrame({"a": [1, "x"]}, dtype=object), str(path))
    assert list(pd.read_parquet(path)["a"]) == [1]
    assert [p.name for p in tmp_path.iterdir()] == ["out.parquet"]
