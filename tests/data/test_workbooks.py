"""Sheets of workbooks, read as a text file of the same cells would be."""

from __future__ import annotations

import datetime
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pandas as pd
import pytest

from parallelmlp_search.data import read_table, reading
from parallelmlp_search.exceptions import DataError, DataWarning, InvalidParameterError

Rows = Sequence[Sequence[Any]]


def write(path: Path, merged: Sequence[str] = (), **sheets: Rows) -> Path:
    """Write a workbook."""
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
        for area in merged:
            sheet.merge_cells(area)
    book.save(path)
    return path


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        read_table(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_cells_are_those_of_a_text_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "whole": rng.integers(0, 9, 50),
            "number": rng.normal(size=50).round(3),
            "gaps": np.where(np.arange(50) % 7 == 0, np.nan, np.arange(50)),
            "name": [f"n{row % 4}" if row % 5 else "NA" for row in range(50)],
            "mixed": [row if row % 2 else "about 3" for row in range(50)],
            "code": [f"{row:04}" for row in range(50)],
        }
    )
    write(
        tmp_path / "t.xlsx",
        rows=[list(frame), *frame.astype(object).where(frame.notna(), None).values.tolist()],
    )
    frame.to_csv(tmp_path / "t.csv", index=False)
    found, wanted = read_table(tmp_path / "t.xlsx"), read_table(tmp_path / "t.csv")
    # a cell of text keeps its zeros; a text file cannot say that it is text
    assert found.pop("code").tolist() == [f"{row:04}" for row in range(50)]
    pd.testing.assert_frame_equal(found, wanted.drop(columns="code"))


def test_dates_times_durations_truth_values_and_errors(tmp_path: Path) -> None:
    day, hours = datetime.date(2024, 3, 1), datetime.timedelta(hours=30)
    rows = [
        ["day", "instant", "time", "span", "ok", "ratio"],
        [day, datetime.datetime(2024, 3, 1, 10, 30), datetime.time(10, 30), hours, True, 1.5],
        [None, None, None, None, None, "#DIV/0!"],
        [day, None, datetime.time(11, 0), 2 * hours, False, 2],
    ]
    frame = read_table(write(tmp_path / "t.xlsx", rows=rows))
    assert [str(dtype)[:9] for dtype in frame.dtypes[["day", "instant", "span"]]] == [
        "datetime6", "datetime6", "timedelta",
    ]  # fmt: skip
    assert frame["day"][0] == pd.Timestamp("2024-03-01")
    assert frame["span"][1] == pd.Timedelta(hours=60)  # the row between holds an error only
    assert frame["time"].tolist() == ["10:30:00", "11:00:00"]
    assert frame["ok"].tolist() == [True, False]
    assert frame["ratio"].tolist() == [1.5, 2.0]


def test_merged_names_titles_and_empty_columns(tmp_path: Path) -> None:
    rows = [
        ["Sales by region"],
        [],
        ["region", "2023", None, "2024", None, None, None],
        [None, "q1", "q2", "q1", "q2", None, None],
        ["north", 1, 2, 3, 4, None, "x"],
        [None, 5, 6, 7, 8, None, "y"],
        [],
        ["south", 9, 10, 11, 12, None, None],
    ]
    path = write(tmp_path / "t.xlsx", merged=["A3:A4", "B3:C3", "D3:E3", "A5:A6"], rows=rows)
    with pytest.warns(DataWarning, match=r"1 row is skipped above the header of .*t.xlsx"):
        frame = read_table(path)
    assert list(frame) == ["region", "2023 q1", "2023 q2", "2024 q1", "2024 q2", "Unnamed: 6"]
    assert frame["region"].tolist() == ["north", "north", "south"]
    assert frame["2024 q2"].tolist() == [4, 8, 12]


def test_a_merged_name_above_numbers_is_one_header_row(tmp_path: Path) -> None:
    path = write(tmp_path / "t.xlsx", merged=["A1:B1"], rows=[["size", None, "y"], [1, 2, 3], [4, 5, 6]])
    with pytest.warns(DataWarning, match="column names repeat"):
        frame = read_table(path)
    assert list(frame) == ["size", "size.1", "y"]
    assert frame["size.1"].tolist() == [2, 5]


def test_sheets_by_name(tmp_path: Path) -> None:
    rows = [["a", "b"], [1, 2]]
    path = write(tmp_path / "t.xlsx", first=rows, second=[["c", "d"], [3, 4]], notes=[["only a note"]])
    assert list(read_table(path, sheet="second")) == ["c", "d"]
    assert refusal(path) == f"{str(path)!r} has 2 sheets with rows, so name one: 'first', 'second'"
    assert "did you mean 'second'?" in refusal(path, sheet="secnd")
    assert list(read_table(write(tmp_path / "u.xlsx", first=rows, empty=[]))) == ["a", "b"]
    assert (
        refusal(write(tmp_path / "v.xlsx", empty=[]))
        == f"{str(tmp_path / 'v.xlsx')!r} has no sheet with rows"
    )
    assert "has a header, but no rows" in refusal(write(tmp_path / "w.xlsx", s=[["a"]]), sheet="s")
    (tmp_path / "t.csv").write_text("a\n1\n")
    with pytest.raises(InvalidParameterError, match=r"sheet is for workbooks, but got 'first' for .*t.csv"):
        read_table(tmp_path / "t.csv", sheet="first")


def test_several_workbooks_by_pattern(tmp_path: Path) -> None:
    for number in (1, 2):
        write(tmp_path / f"part-{number}.xlsx", rows=[["a", "b"], [number, 5]])
    for pattern in ("part-*.xlsx", "part-*"):
        assert read_table(tmp_path / pattern)["a"].tolist() == [1, 2]


@pytest.mark.filterwarnings("ignore::parallelmlp_search.exceptions.DataWarning")
def test_damaged_workbooks(tmp_path: Path) -> None:
    rows = [["n", "word"], *([row, f"w{row % 3}"] for row in range(200))]
    whole = write(tmp_path / "t.xlsx", rows=rows).read_bytes()
    path = tmp_path / "damaged.xlsx"
    refused = []
    rng = np.random.default_rng(0)
    for number in range(60):
        content = bytearray(whole)
        for place in rng.integers(len(whole), size=4):
            content[place] = rng.integers(256)
        path.write_bytes(content if number else b"no workbook")
        try:
            read_table(path)
        except DataError as error:
            refused.append(str(error))
    assert len(refused) > 10
    assert all(str(path) in message and "\n" not in message for message in refused)
    for n_bytes in (10, 1000, len(whole) - 10):
        path.write_bytes(whole[:n_bytes])
        assert "cannot be read" in refusal(path)
    path.write_bytes(b"")
    assert refusal(path) == f"{str(path)!r} is empty"


def test_a_workbook_that_grows_in_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "t.xlsx", rows=[["a", "b"], [1, 2]])
    content = io.BytesIO(path.read_bytes())
    with zipfile.ZipFile(content, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/more.xml", b" " * 20_000_000)
    path.write_bytes(content.getvalue())
    monkeypatch.setattr(reading, "available_bytes", lambda: 8_000_000)
    assert "takes more than half of the 8 MB of memory" in refusal(path)
    write(path, rows=[["a", "b"], [1, 2], *[[None]] * 199_999, [3, 4]])
    assert "takes more than half of the 8 MB of memory" in refusal(path)
