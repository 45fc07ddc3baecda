"""Numbers in cells: money, percentages, separators of thousands, decimal commas, units of measurement."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, cast, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from parallelmlp_search._checks import check_choice
from parallelmlp_search.data.cells.base import (
    MIN_ALIKE_SHARE,
    Candidate,
    Cells,
    convert,
    example,
    plain_number,
    unreadable_rows,
)
from parallelmlp_search.data.cells.units import (
    DIMENSIONS,
    MULTIPLIERS,
    PERCENTS,
    SECONDS,
    dimension_of,
    is_currency,
    is_missing,
)
from parallelmlp_search.data.coercion import Floats, as_numbers, is_fast_numeric

NumberKind = Literal["numeric", "currency", "percent", "quantity"]
Decimal = Literal[".", ","]

MIN_DISTINCT_UNKNOWN = 8
"""Minimum number of distinct values of a column with a unit that is not in the list."""

_SIGNS = "+\\-\u2212\u2013"
_CELL = re.compile(
    rf"(?P<open>\()?\s*(?P<first>[{_SIGNS}]?)\s*"
    rf"(?P<before>[^\d\s.,(){_SIGNS}'\u2019](?:[^\d(){_SIGNS}]{{0,10}}[^\d\s(){_SIGNS}])?)?"
    rf"\s*(?P<second>[{_SIGNS}]?)\s*"
    r"(?P<body>\d(?:[\d.,'\u2019\s]*\d)?|[.,]\d+)(?P<exponent>[eE][+-]?\d{1,3}(?!\d))?"
    rf"(?:\s*(?P<after>[^\d\s.,(){_SIGNS}](?:[^()]{{0,14}}[^\s()\-])?))?\s*(?P<last>-)?\s*(?P<close>\))?"
)
_POINT = re.compile(
    r"(?:[1-9]\d{0,2}([,'\u2019\s])\d{3}(?:\1\d{3})*|[1-9]\d?(?:,\d{2})+,\d{3}|\d+)?(?:\.\d+)?"
)  # the second form groups as in India
_COMMA = re.compile(r"(?:[1-9]\d{0,2}([.'\u2019\s])\d{3}(?:\1\d{3})*|\d+)?(?:,\d+)?")
_GRAMMARS: dict[Decimal, re.Pattern[str]] = {".": _POINT, ",": _COMMA}
_APPROXIMATE = frozenset({"~", "≈", "ca.", "ca", "approx.", "about"})
_NO_CENTS = re.compile(r"[.,][-\u2013\u2014]{1,2}$")
_DIMENSION_WORDS = {
    "frequency": "frequencies", "energy": "energies", "information": "sizes", "fahrenheit": "temperatures",
    "mass": "masses",
}  # fmt: skip


class Pieces(NamedTuple):
    """Parts of a cell: sign, digits with separators, power of ten, currency or "", and unit or ""."""

    sign: float
    body: str
    scale: float
    currency: str
    unit: str


@dataclass(frozen=True)
class NumberCells:
    """Reader of numbers.

    Parameters
    ----------
    number_kind
        ``numeric``, ``currency``, ``percent`` or ``quantity``.
    decimal
        Decimal sign.
    unit
        Unit of the result: a currency, a unit of measurement, or empty. Other units of the same dimension are
        converted; percentages become fractions.
    currencies
        Currencies of the training rows, where there are several. They become a column of their own, since
        amounts are not converted.
    """

    number_kind: NumberKind
    decimal: Decimal
    unit: str = ""
    currencies: tuple[str, ...] = ()
    form: ClassVar[str] = "numbers"

    @property
    def kind(self) -> str:
        """Kind of the column."""
        return self.number_kind

    @property
    def treatment(self) -> str:
        """Short description of the result."""
        if self.currencies:
            return "number, currency"
        return {"percent": "number, as a fraction", "quantity": f"number, in {self.unit}"}.get(
            self.number_kind, "number"
        )

    def describe(self) -> str:
        """Return what the cells hold, in words: ``money in $``."""
        if self.number_kind == "quantity":
            return f"numbers in {self.unit}"
        return {"currency": f"money in {self.unit}", "percent": "percentages"}.get(self.number_kind, "texts")

    def read(self, column: pd.Series) -> dict[str, Any]:
        """Return the numbers, and the currency of each row if there were several."""
        found: dict[str, Any] = {"": self._numbers(column)}
        if self.currencies:
            names = column.map(lambda cell: pieces.currency if (pieces := split(cell)) else None)
            found["currency"] = names.where(names.isin(self.currencies)).astype(object)
        return found

    def unreadable(self, column: pd.Series) -> npt.NDArray[np.bool_]:
        """Return the rows whose cells are neither missing nor numbers of this form."""
        return unreadable_rows(column, ~np.isnan(self._numbers(column)))

    def _numbers(self, column: pd.Series) -> Floats:
        if is_fast_numeric(column.dtype):
            return as_numbers(column)
        return convert(column, self.parse)

    def parse(self, cell: Any) -> float:
        """Return the number in a cell; NaN if it is missing or cannot be read."""
        if not isinstance(cell, str):
            return plain_number(cell)
        pieces = split(cell)
        if pieces is None:
            return np.nan
        factor = self._factor(pieces)
        return (
            np.nan
            if factor is None
            else pieces.sign * number(pieces.body, self.decimal) * pieces.scale * factor
        )

    def _factor(self, pieces: Pieces) -> float | None:
        unit = pieces.unit.lower()
        if pieces.currency and self.number_kind != "currency":
            return None
        if self.number_kind == "percent":
            return PERCENTS.get(unit, PERCENTS[self.unit] if not unit else None)
        if not unit:
            return 1.0
        if self.number_kind != "quantity":
            return MULTIPLIERS.get(unit)
        dimension = dimension_of(self.unit.lower())
        if dimension is None:
            return 1.0 if _singular(unit) == _singular(self.unit.lower()) else None
        units = DIMENSIONS[dimension]
        return units[unit] / units[self.unit.lower()] if unit in units else None

    def to_dict(self) -> dict[str, Any]:
        """Return a form that JSON can hold."""
        return {
            "kind": self.number_kind,
            "decimal": self.decimal,
            "unit": self.unit,
            "currencies": list(self.currencies),
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> NumberCells:
        """Inverse of `to_dict`."""
        return cls(
            cast(NumberKind, check_choice("kind", state["kind"], get_args(NumberKind))),
            cast(Decimal, check_choice("decimal", state["decimal"], get_args(Decimal))),
            str(state["unit"]),
            tuple(map(str, state["currencies"])),
        )


def split(cell: Any) -> Pieces | None:
    """Split a text into the parts of a number; None if it does not look like one."""
    if not isinstance(cell, str) or is_missing(cell):
        return None
    match = _CELL.fullmatch(_NO_CENTS.sub("", cell.strip()))
    if match is None or bool(match["open"]) is not bool(match["close"]):
        return None
    signs = [sign for sign in (match["first"], match["second"], match["last"]) if sign]
    if len(signs) + bool(match["open"]) > 1:
        return None
    scale = float(f"1{match['exponent'] or ''}")
    if not np.isfinite(scale):
        return None
    before, after = (match["before"] or "").strip(), (match["after"] or "").strip()
    currency = ""
    if before and before.lower() not in _APPROXIMATE:
        if not is_currency(before):
            return None
        currency = before
    if after:
        second, scale_of, after = _currency_and_multiplier(after, has_currency=bool(currency))
        currency = currency or second
        scale *= scale_of
    sign = -1.0 if match["open"] or (signs and signs[0] != "+") else 1.0
    return Pieces(sign, match["body"], scale, currency.upper(), after)


def _currency_and_multiplier(after: str, *, has_currency: bool) -> tuple[str, float, str]:
    """Currency, multiplier and remaining unit of the text behind a number."""
    lower = after.lower()
    if is_currency(after):
        return after, 1.0, ""
    for name in sorted(MULTIPLIERS, key=len, reverse=True):
        if lower.startswith(name):
            rest = after[len(name) :].strip()
            if is_currency(rest) if rest else has_currency:
                return rest, MULTIPLIERS[name], ""
    return "", 1.0, after


def number(body: str, decimal: Decimal) -> float:
    """Return the number of digits with separators; NaN if they are not grouped correctly.

    >>> number("1,234.5", "."), number("1.234,5", ","), number("1,23.5", ".")
    (1234.5, 1234.5, nan)
    """
    if not _GRAMMARS[decimal].fullmatch(body):
        return float("nan")
    kept = re.sub(r"[^\d,.]", "", body)
    return float(kept.replace(",", "")) if decimal == "." else float(kept.replace(".", "").replace(",", "."))


def fit_numbers(cells: Cells, decimal: Decimal | None = None) -> Candidate | None:
    """Find the form of the numbers in a column.

    Parameters
    ----------
    cells
        Values of the column.
    decimal
        Decimal sign of other columns of the table, for a column that could have either; None if unknown.

    Returns
    -------
    Candidate or None
        None if fewer than half of the cells are numbers with or without a unit.
    """
    pieces = [_as_pieces(value) for value in cells.values]
    is_number = np.array([one is not None for one in pieces], dtype=bool)
    if cells.share(is_number) < MIN_ALIKE_SHARE:
        return None
    form = _kind_and_unit(cells, pieces)
    if form is None:
        return None
    kind, unit, currencies = form
    sign, proven, is_ambiguous = _decimal(cells, pieces, kind, decimal)
    reader = NumberCells(kind, sign, unit, currencies)
    read = np.array([not np.isnan(reader.parse(value)) for value in cells.values], dtype=bool)
    share = cells.share(read)
    if share < MIN_ALIKE_SHARE:
        return None
    return Candidate(reader, share, _reason(reader, cells, pieces, read), proven, is_ambiguous)


def _as_pieces(value: Any) -> Pieces | None:
    if isinstance(value, str):
        return split(value)
    return None if np.isnan(plain_number(value)) else Pieces(1.0, "0", 1.0, "", "")


def _kind_and_unit(
    cells: Cells, pieces: Sequence[Pieces | None]
) -> tuple[NumberKind, str, tuple[str, ...]] | None:
    """Kind, unit and currencies of a column, or None if its units do not fit together."""
    currencies: Counter[str] = Counter()
    units: Counter[str] = Counter()
    for one, count in zip(pieces, cells.counts.tolist(), strict=True):
        if one is not None:
            currencies[one.currency] += count
            units[one.unit] += count
    total = units.total()
    bare = units.pop("", 0)
    no_currency = currencies.pop("", 0)
    if currencies and total - no_currency >= MIN_ALIKE_SHARE * total:
        names = tuple(name for name, count in currencies.most_common() if count >= 0.01 * total)
        return "currency", names[0], names if len(names) > 1 else ()
    if not units:
        return "numeric", "", ()
    lower = {unit.lower() for unit in units}
    most = units.most_common(1)[0][0]
    if bare > MIN_ALIKE_SHARE * total and not lower <= MULTIPLIERS.keys():
        return None
    if lower <= PERCENTS.keys():
        return "percent", most.lower(), ()
    if lower <= MULTIPLIERS.keys() and ("k" in lower or (bare and most.isupper())):
        return "numeric", "", ()
    known = Counter(dimension_of(unit.lower()) for unit in units.elements())
    dimension, count = known.most_common(1)[0]
    if dimension is not None and count >= 0.95 * units.total():
        mine = Counter({unit: n for unit, n in units.items() if dimension_of(unit.lower()) == dimension})
        return "quantity", mine.most_common(1)[0][0], ()
    same = sum(count for unit, count in units.items() if _singular(unit.lower()) == _singular(most.lower()))
    is_word = (most[:1].isalpha() and most.lower() not in SECONDS) or most in "\u00b0\u2032\u2033"
    if is_word and not bare and same >= 0.95 * total and len(cells.values) >= MIN_DISTINCT_UNKNOWN:
        return "quantity", most, ()
    return None


def _decimal(
    cells: Cells, pieces: Sequence[Pieces | None], kind: NumberKind, hint: Decimal | None
) -> tuple[Decimal, Decimal | None, bool]:
    """Decimal sign, the one that the cells prove or None, and True if there is no proof either way."""
    bodies = [one.body if one is not None else "" for one in pieces]
    fits = {
        sign: np.array([bool(body) and not np.isnan(number(body, sign)) for body in bodies], dtype=bool)
        for sign in _GRAMMARS
    }
    point, comma = (int(cells.counts[fits[sign]].sum()) for sign in (".", ","))
    if point != comma:
        sign: Decimal = "." if point > comma else ","
        has_sign = any(sep in body for body in bodies for sep in ".,")
        return sign, sign if has_sign else None, False
    separators = {sep for body in bodies for sep in ".," if sep in body}
    if len(separators) != 1:
        return ".", None, False
    (separator,) = cast("set[Decimal]", separators)
    other: Decimal = "," if separator == "." else "."
    if hint is not None:
        return hint, None, True
    # of digits in threes, money and counts are grouped; percentages are not
    is_grouped = kind != "percent" and (separator == "," or kind == "currency")
    return (other if is_grouped else separator), None, True


def _reason(
    reader: NumberCells, cells: Cells, pieces: Sequence[Pieces | None], read: npt.NDArray[np.bool_]
) -> str:
    shown = example(cells.values, read)
    if reader.number_kind == "currency":
        return f"money such as {shown}"
    if reader.number_kind == "percent":
        return f"percentages such as {shown}"
    if reader.number_kind == "quantity":
        dimension = dimension_of(reader.unit.lower())
        words = "numbers" if dimension is None else _DIMENSION_WORDS.get(dimension, f"{dimension}s")
        return f"{words} in {reader.unit} such as {shown}"
    if reader.decimal == ",":
        has_comma = np.array([one is not None and "," in one.body for one in pieces], dtype=bool)
        return f"numbers with decimal commas such as {example(cells.values, read & has_comma)}"
    grouped = np.array(
        [one is not None and not one.body.replace(".", "").isdigit() for one in pieces], dtype=bool
    )
    if (read & grouped).any():
        return f"numbers with grouped digits such as {example(cells.values, read & grouped)}"
    return "numbers as text"


def _singular(unit: str) -> str:
    return unit[:-1] if len(unit) > 3 and unit.endswith("s") else unit
