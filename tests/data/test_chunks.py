"""Text tables that are parsed chunk by chunk are the same as those that are parsed at once."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from parallelmlp_search.data import chunks, delimited, read_table

COLUMNS = {
    "integers": ["1", "2", "3", "4", "5", "6", "7"],
    "integers, then floats": ["1", "2", "3", "4", "5.5", "6", "7"],
    "integers, then none": ["1", "2", "3", "4", "", "", ""],
    "integers, then text": ["007", "2", "3", "4", "x", "6", "7"],
    "large integers": ["1", "2", "3", "9007199254740993", "18446744073709551615", "-1", "7"],
    "booleans, then none": ["True", "FALSE", "true", "False", "", "NA", "True"],
    "booleans, then text": ["true", "", "TRUE", "False", "yes", "no", "True"],
    "none, then text": ["", "", "", "", "x", '"a, b"', "c"],
    "none, then numbers": ["", "", "", "", "1", "2", "3"],
    "text": ["a", "b", "", "d", "e", "f", "g"],
}


@pytest.mark.parametrize("rows_of_chunk", [1, 2, 3, 100])
def test_chunks_give_the_same_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows_of_chunk: int
) -> None:
    lines = ['"' + '","'.join(COLUMNS) + '"', *(",".join(row) for row in zip(*COLUMNS.values(), strict=True))]
    path = tmp_path / "table.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    whole = read_table(path)
    monkeypatch.setattr(delimited, "CHUNK_FIELDS", rows_of_chunk * len(COLUMNS))
    parsed = read_table(path)
    pd.testing.assert_frame_equal(parsed, whole)
    assert whole["integers, then text"][0] == "007"


def test_only_columns_of_several_dtypes_are_parsed_again() -> None:
    parts = chunks.ColumnChunks(["a", "b", "c"])
    parts.add(pd.DataFrame({"a": [1], "b": [1], "c": ["x"]}))
    parts.add(pd.DataFrame({"a": [2], "b": [1.5], "c": [1]}))
    assert parts.mixed() == ["c"]
    frame = parts.joined(pd.DataFrame({"c": ["x", "1"]}))
    assert frame.to_dict("list") == {"a": [1, 2], "b": [1.0, 1.5], "c": ["x", "1"]}
    assert frame.dtypes["a"] == "int64"
