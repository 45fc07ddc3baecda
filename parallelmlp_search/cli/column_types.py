"""Kinds of columns in the option ``--columns``."""

from __future__ import annotations

import csv
from collections.abc import Sequence

from parallelmlp_search._checks import check_choice
from parallelmlp_search.data.cells.recognition import COLUMN_TYPES
from parallelmlp_search.exceptions import InvalidParameterError


def parse_column_types(options: Sequence[str] | None) -> dict[str, str] | None:
    """Return the kind of each named column.

    A name with a comma is quoted as in a CSV file.

    >>> parse_column_types(["currency=price,cost", 'ignore="last, first"'])
    {'price': 'currency', 'cost': 'currency', 'last, first': 'ignore'}

    Raises
    ------
    InvalidParameterError
        If an option is not of the form KIND=NAME,..., a kind is unknown, or a column has two kinds.
    """
    types: dict[str, str] = {}
    for option in options or ():
        kind, equals, names = option.partition("=")
        if not equals or not names:
            raise InvalidParameterError(f"columns must be KIND=NAME,..., but got {option!r}")
        if kind not in COLUMN_TYPES and names in COLUMN_TYPES:
            raise InvalidParameterError(
                f"columns must be KIND=NAME,..., but got {option!r}: write {names}={kind}"
            )
        check_choice("columns", kind, COLUMN_TYPES)
        for name in _split(names, option):
            if types.get(name, kind) != kind:
                raise InvalidParameterError(f"columns sets two kinds of {name!r}: {types[name]} and {kind}")
            types[name] = kind
    return types or None


def _split(names: str, option: str) -> list[str]:
    try:
        return next(csv.reader([names], skipinitialspace=True))
    except csv.Error:
        raise InvalidParameterError(
            f"columns must be KIND=NAME,..., but got {option!r}: put a name with a line break in quotes"
        ) from None
