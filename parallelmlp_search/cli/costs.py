"""Costs of errors in the options ``--costs`` and ``--ordinal``."""

from __future__ import annotations

import csv
import re
from pathlib import Path

from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.selection import Costs

AUTO = "auto"
"""Value of ``--ordinal`` for the order that the classes show."""


def parse_costs(costs: str | None, ordinal: str | None) -> Costs | None:
    """Return the costs of both options; None without any.

    Parameters
    ----------
    costs
        ``TRUE:PREDICTED=COST,...``, or a CSV file with predicted classes as columns and the true ones in its
        first column.
    ordinal
        ``auto``, or the classes in their order.

    Raises
    ------
    InvalidParameterError
        If both are given, or one has another form.

    Examples
    --------
    >>> parse_costs("bad:good=5,good:bad=1", None).pairs
    (('bad', 'good', 5.0), ('good', 'bad', 1.0))
    """
    matrix = None
    if costs is not None:
        path = Path(costs)
        matrix = _read(path) if path.suffix.lower() == ".csv" else _pairs(costs)
    return Costs.of(matrix, _fields(ordinal) if ordinal not in (None, AUTO) else ordinal == AUTO)


def _fields(text: str | None) -> list[str]:
    """Parts of a text between commas; a part with a comma is quoted as in a CSV file."""
    return next(csv.reader([text or ""], skipinitialspace=True))


def _pairs(text: str) -> dict[tuple[str, str], float]:
    found = {}
    for part in _fields(text):
        match = re.fullmatch(r"(.+):(.+)=([^=]+)", part)
        if match is None:
            raise InvalidParameterError(
                f"costs must be TRUE:PREDICTED=COST,... or the path of a .csv file, but got {text!r}"
            )
        found[match[1].strip(), match[2].strip()] = _number(match[3], part)
    return found


def _read(path: Path) -> dict[tuple[str, str], float]:
    """Costs of a CSV file."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            (_, *predicted), *rows = [row for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error, ValueError) as error:
        raise InvalidParameterError(f"the costs in {str(path)!r} cannot be read: {error}") from None
    found: dict[tuple[str, str], float] = {}
    for true, *cells in rows:
        if len(cells) != len(predicted):
            raise InvalidParameterError(
                f"the costs in {str(path)!r} must have {len(predicted)} numbers per row, "
                f"but the row {true!r} has {len(cells)}"
            )
        found |= {(true, label): _number(cell, cell) for label, cell in zip(predicted, cells, strict=True)}
    return found


def _number(text: str, shown: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InvalidParameterError(f"costs must be numbers, but got {shown!r}") from None
