"""Kinds of columns in the option ``--columns``, and signs of columns in ``--monotonic``."""

from __future__ import annotations

import csv
from collections.abc import Sequence

from parallelmlp_search._checks import check_choice
from parallelmlp_search.data.cells.recognition import COLUMN_TYPES
from parallelmlp_search.exceptions import InvalidParameterError

SIGNS = {"+1": 1, "1": 1, "+": 1, "-1": -1, "-": -1, "0": 0}
"""Signs of monotone columns as they can be written."""


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
        for name in _split(names, "columns must be KIND=NAME,...", option):
            if types.get(name, kind) != kind:
                raise InvalidParameterError(f"columns sets two kinds of {name!r}: {types[name]} and {kind}")
            types[name] = kind
    return types or None


def parse_monotonic(options: Sequence[str] | None) -> dict[str, int] | None:
    """Return the sign of each monotone column.

    >>> parse_monotonic(["age=+1,price=-1"])
    {'age': 1, 'price': -1}

    Raises
    ------
    InvalidParameterError
        If an option is not of the form NAME=SIGN,..., or a column has two signs.
    """
    signs: dict[str, int] = {}
    for option in options or ():
        for part in _split(option, "monotonic must be NAME=SIGN,...", option):
            name, _, sign = part.rpartition("=")
            if not name or sign.strip() not in SIGNS:
                raise InvalidParameterError(
                    f"monotonic must be NAME=SIGN,... with the signs +1, -1 or 0, but got {part!r}"
                )
            if signs.setdefault(name, SIGNS[sign.strip()]) != SIGNS[sign.strip()]:
                raise InvalidParameterError(f"monotonic sets two signs of {name!r} in {option!r}")
    return signs or None


def _split(names: str, rule: str, option: str) -> list[str]:
    try:
        return next(csv.reader([names], skipinitialspace=True))
    except csv.Error:
        raise InvalidParameterError(
            f"{rule}, but got {option!r}: put a name with a line break in quotes"
        ) from None
