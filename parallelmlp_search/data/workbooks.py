"""Sheets of Excel and OpenDocument workbooks."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from parallelmlp_search._optional import require
from parallelmlp_search.data.cell_values import CELL_BYTES, column_of
from parallelmlp_search.data.frames import unique_names
from parallelmlp_search.data.memory_share import MemoryShare
from parallelmlp_search.exceptions import DataError, DataWarning, near_miss, one_line

SUFFIXES = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods")

_MAX_HEADER_ROWS = 8

_XML_BYTES = 2
"""Memory that parsing takes, per byte of XML."""


def read_workbook(path: Path, share: MemoryShare, sheet: str | None) -> pd.DataFrame:
    """Read a sheet of a workbook.

    The first row with at least two cells is the header; rows above it are skipped with a `DataWarning`. Names
    in merged cells are joined with those below: ``2023`` over ``q1`` and ``q2`` gives ``2023 q1`` and
    ``2023 q2``. Other merged cells all have the value of the first. Empty rows, and columns without name and
    cells, are left out.

    Parameters
    ----------
    path, share
        File, and the memory that reading it may take.
    sheet
        Name of the sheet; None for the only one that has cells.

    Returns
    -------
    pandas.DataFrame of shape (rows, columns)

    Raises
    ------
    DataError
        If the file is damaged or encrypted, the sheet does not exist or has no rows, or it needs too much
        memory.
    """
    calamine = require("python_calamine", extra="excel", purpose="to read a workbook")
    try:
        _require_memory(path, share)
        with calamine.CalamineWorkbook.from_path(str(path)) as workbook:
            found = _sheet(workbook, sheet, share.label)
            share.require(CELL_BYTES * found.total_height * found.total_width)
            rows = found.to_python(skip_empty_area=True)
            merged = found.merged_cell_ranges or []
            start = found.start or (0, 0)
    except calamine.PasswordError:
        raise DataError(
            f"{share.label!r} cannot be read: it is encrypted, so save it without a password"
        ) from None
    except (calamine.CalamineError, zipfile.BadZipFile, NotImplementedError, OSError) as error:
        raise DataError(f"{share.label!r} cannot be read: {one_line(error)}") from None
    share.require(sum(len(cell) if isinstance(cell, str) else CELL_BYTES for row in rows for cell in row))
    return _frame(rows, [_shifted(area, start) for area in merged], share.label)


def _require_memory(path: Path, share: MemoryShare) -> None:
    n_bytes = path.stat().st_size
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            n_bytes = sum(member.file_size for member in archive.infolist())
    share.require(_XML_BYTES * n_bytes)


def _sheet(workbook: Any, name: str | None, label: str) -> Any:
    names = list(workbook.sheet_names)
    if name is not None:
        if name not in names:
            listed = ", ".join(map(repr, names))
            raise DataError(f"{label!r} has no sheet {name!r}{near_miss(name, names)} (it has {listed})")
        return workbook.get_sheet_by_name(name)
    sheets = [
        workbook.get_sheet_by_name(one.name) for one in workbook.sheets_metadata if "Work" in str(one.typ)
    ]
    filled = [one for one in sheets if one.height > 1]
    if len(filled) > 1:
        raise DataError(
            f"{label!r} has {len(filled)} sheets with rows, so name one: "
            f"{', '.join(repr(one.name) for one in filled)}"
        )
    if not filled:
        raise DataError(f"{label!r} has no sheet with rows")
    return filled[0]


Area = tuple[tuple[int, int], tuple[int, int]]
"""First and last row and column of merged cells."""


def _shifted(area: Area, start: tuple[int, int]) -> Area:
    (top, left), (bottom, right) = area
    return (top - start[0], left - start[1]), (bottom - start[0], right - start[1])


def _frame(rows: list[list[Any]], merged: Sequence[Area], label: str) -> pd.DataFrame:
    width = max(map(len, rows), default=0)
    counts = [sum(cell != "" for cell in row) for row in rows]
    first = next((row for row, count in enumerate(counts) if count >= min(2, width)), 0)
    if skipped := sum(count > 0 for count in counts[:first]):
        lines = "1 row is" if skipped == 1 else f"{skipped} rows are"
        warnings.warn(f"{lines} skipped above the header of {label!r}", DataWarning, stacklevel=2)
    names, n_header = _names(rows, merged, first, width)
    for (top, left), (bottom, right) in merged:
        for row in rows[top : bottom + 1] if top >= first + n_header else ():
            row[left : right + 1] = [rows[top][left]] * (right + 1 - left)
    body = [
        row for row, count in zip(rows[first + n_header :], counts[first + n_header :], strict=True) if count
    ]
    if not body:
        raise DataError(f"{label!r} has a header, but no rows")
    columns = [[_cell(row[place]) for row in body] for place in range(width)]
    kept = [
        place for place in range(width) if names[place] or any(cell is not None for cell in columns[place])
    ]
    unique = unique_names([names[place] or f"Unnamed: {place}" for place in kept], label)
    return pd.DataFrame({name: column_of(columns[place]) for name, place in zip(unique, kept, strict=True)})


def _names(
    rows: Sequence[Sequence[Any]], merged: Sequence[Area], first: int, width: int
) -> tuple[list[str], int]:
    """Names of the columns, and the number of rows that hold them."""
    cells = {
        (row, place): cell
        for row, line in enumerate(rows[: first + _MAX_HEADER_ROWS])
        for place, cell in enumerate(line)
    }
    last, is_wide = first, False
    for (top, left), (bottom, right) in merged:
        if top == first:
            last, is_wide = max(last, bottom), is_wide or right > left
            for place in range(left, right + 1):
                cells[first, place] = cells.get((first, left), "")
    if is_wide and last == first and first + 1 < len(rows) and _all_names(rows[first + 1]):
        last += 1
    n_header = min(last - first + 1, len(rows) - first, _MAX_HEADER_ROWS)
    lines = [
        [_name(cells.get((first + row, place), "")) for row in range(n_header)] for place in range(width)
    ]
    return [" ".join(part for part in parts if part) for parts in lines], n_header


def _all_names(row: Sequence[Any]) -> bool:
    return all(isinstance(cell, str) for cell in row)


def _name(cell: Any) -> str:
    return " ".join(str(_cell(cell)).split()) if cell != "" else ""


def _cell(cell: Any) -> Any:
    """Cell without the formatting of the file: whole numbers as integers, empty cells as None."""
    if isinstance(cell, float) and cell.is_integer() and abs(cell) < 2**53:
        return int(cell)
    return None if cell == "" else cell
