"""Lists in cells: Python or JSON lists, and words that are joined by a separator."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from parallelmlp_search._checks import check_boolean, check_choice, check_integer, refuse
from parallelmlp_search.data.cells.base import (
    MIN_READ_SHARE,
    Candidate,
    Cells,
    example,
    is_missing_cell,
    plain_number,
)
from parallelmlp_search.data.cells.units import is_missing
from parallelmlp_search.data.coercion import category_key

MAX_ITEMS = 32
"""Most frequent items, each of which becomes a column."""

MIN_ITEM_ROWS = 5
"""Minimum number of rows with an item that becomes a column."""

MIN_OTHER_LISTS = 100
"""Lists of which none has a known item, for a warning; of fewer, all can have rare items by chance."""

MAX_POSITIONS = 64
"""Maximum length of lists of numbers that become one column per position."""

SEPARATORS = ("|", ";", ",")
JSON = "json"
_MAX_WORDS = 4
_BRACKETS = re.compile(r"[\[({].*[\])}]", re.DOTALL)
_QUOTED_ITEM = re.compile(r"'([^']*)'|\"([^\"]*)\"")


@dataclass(frozen=True)
class ListCells:
    """Reader of lists.

    Parameters
    ----------
    separator
        Separator of the items in a text, or ``json`` for texts in brackets. Objects that are lists are read
        as well.
    items
        Items that become a column each, which is 1 in rows whose list has it.
    n_positions
        Length of lists of numbers that become one column per position; 0 for others.
    numeric
        True for lists of numbers of different lengths, which become their mean, minimum and maximum.
    """

    separator: str
    items: tuple[str, ...] = ()
    n_positions: int = 0
    numeric: bool = False
    form: ClassVar[str] = "lists"

    @property
    def kind(self) -> str:
        """Kind of the column."""
        return "list"

    @property
    def treatment(self) -> str:
        """Short description of the result."""
        if self.n_positions:
            return f"{self.n_positions} numbers"
        if self.numeric:
            return "length, mean, min, max"
        return f"length, {len(self.items)} items"

    def read(self, column: pd.Series) -> dict[str, Any]:
        """Return the length of each list, and columns of its items or numbers."""
        lists = [self.parse(cell) for cell in column]
        if self.n_positions:
            matrix = np.full((len(lists), self.n_positions), np.nan)
            for row, items in enumerate(lists):
                if items is not None:
                    kept = [_number(item) for item in items[: self.n_positions]]
                    matrix[row, : len(kept)] = kept
            return {str(place): matrix[:, place] for place in range(self.n_positions)}
        found = {"length": np.array([np.nan if items is None else len(items) for items in lists])}
        if self.numeric:
            numbers = [[_number(item) for item in items or ()] for items in lists]
            for name, function in (("mean", np.mean), ("min", np.min), ("max", np.max)):
                values = [float(function(row)) if row else np.nan for row in numbers]
                found[name] = np.array(values, dtype=np.float64)
        keys = [set() if items is None else {category_key(item) for item in items} for items in lists]
        for item in self.items:
            found[item] = np.array([item in mine for mine in keys], dtype=np.float64)
        return found

    def unreadable(self, column: pd.Series) -> npt.NDArray[np.bool_]:
        """Return the rows whose cells are neither missing nor lists."""
        return np.array(
            [self.parse(cell) is None and not is_missing_cell(cell) for cell in column], dtype=bool
        )

    def has_other_items(self, found: Mapping[str, Any]) -> bool:
        """Return True if many lists were read and none has an item that training knew."""
        n_lists = int((found["length"] > 0).sum()) if self.items else 0
        return n_lists >= MIN_OTHER_LISTS and not any(found[item].any() for item in self.items)

    def parse(self, cell: Any) -> list[Any] | None:
        """Return the items of a cell; None if it is missing or no list."""
        return parse_list(cell, self.separator)

    def to_dict(self) -> dict[str, Any]:
        """Return a form that JSON can hold."""
        return {
            "separator": self.separator,
            "items": list(self.items),
            "n_positions": self.n_positions,
            "numeric": self.numeric,
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> ListCells:
        """Inverse of `to_dict`."""
        items = tuple(state["items"])
        if len(set(items)) < len(items) or not all(isinstance(item, str) for item in items):
            refuse("items", "distinct texts", items)
        return cls(
            check_choice("separator", state["separator"], (*SEPARATORS, JSON)),
            items,
            min(check_integer("n_positions", state["n_positions"], 0), MAX_POSITIONS),
            check_boolean("numeric", state["numeric"]),
        )


def parse_list(cell: Any, separator: str) -> list[Any] | None:
    """Return the items of a cell.

    Parameters
    ----------
    cell
        List, tuple, set, array, or text.
    separator
        Separator of the items in a text, or ``json``.

    Returns
    -------
    list or None
        None if the cell is missing or no list.
    """
    if isinstance(cell, (list, tuple, set, frozenset, np.ndarray)):
        return list(cell)
    if not isinstance(cell, str) or is_missing(cell):
        return None
    text = cell.strip()
    if separator != JSON:
        items = [item.strip() for item in text.split(separator)]
        return [item for item in items if item]
    if not _BRACKETS.fullmatch(text):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        quoted = [
            first or second for first, second in _QUOTED_ITEM.findall(text)
        ]  # lists as Python prints them
        inner = text[1:-1]  # arrays as NumPy prints them have blanks
        return quoted or [item.strip() for item in (inner.split(",") if "," in inner else inner.split())]
    return found if isinstance(found, list) else None


def fit_lists(cells: Cells, *, is_certain: bool = False) -> Candidate | None:
    """Find the form of the lists in a column; None if fewer than 95 % of its cells are lists.

    Texts are lists if they are in brackets, or if their parts between separators repeat much more often than
    the whole texts do. With ``is_certain``, any text with a separator is a list.
    """
    has_objects = any(not isinstance(value, str) for value in cells.values)
    for separator in (JSON,) if has_objects else (JSON, *SEPARATORS):
        lists = [parse_list(value, separator) for value in cells.values]
        read = np.array([items is not None for items in lists], dtype=bool)
        share = cells.share(read)
        if share < MIN_READ_SHARE:
            continue
        rows = [(items, count) for items, count in zip(lists, cells.counts.tolist(), strict=True) if items]
        has_several = any(len(items) > 1 for items, _ in rows)
        if separator != JSON and not ((is_certain and has_several) or _are_lists(rows, len(cells.values))):
            continue
        several = np.array([items is not None and len(items) > 1 for items in lists], dtype=bool)
        reason = f"lists such as {example(cells.values, several if several.any() else read)}"
        return Candidate(_list_reader(separator, rows), share, reason)
    return None


def _are_lists(rows: Sequence[tuple[list[Any], int]], n_distinct: int) -> bool:
    """True if the items repeat in any place of a list, are short, and many cells have several."""
    places: dict[str, set[int]] = {}
    for one, _ in rows:
        for place, item in enumerate(one):
            places.setdefault(item, set()).add(place)
    items = places.keys()
    n_items = sum(len(one) for one, _ in rows)
    several = sum(count for one, count in rows if len(one) > 1) / max(1, sum(count for _, count in rows))
    if several < 0.3 or len(items) * 3 > n_items or len(items) >= n_distinct:
        return False
    # a town and a state are no list: each has its own place
    in_several_places = sum(len(mine) > 1 for mine in places.values())
    return in_several_places >= 0.3 * len(items) and all(len(item.split()) <= _MAX_WORDS for item in items)


def _list_reader(separator: str, rows: Sequence[tuple[list[Any], int]]) -> ListCells:
    lengths = {len(items) for items, _ in rows}
    if rows and all(not np.isnan(_number(item)) for items, _ in rows for item in items):
        if len(lengths) == 1 and max(lengths) <= MAX_POSITIONS:
            return ListCells(separator, n_positions=max(lengths), numeric=True)
        return ListCells(separator, numeric=True)
    counts: Counter[str] = Counter()
    for items, count in rows:
        for key in {category_key(item) for item in items}:
            counts[key] += count
    kept = sorted(
        (key for key in counts if counts[key] >= MIN_ITEM_ROWS), key=lambda key: (-counts[key], key)
    )
    return ListCells(separator, tuple(kept[:MAX_ITEMS]))


def _number(item: Any) -> float:
    try:
        return float(item) if isinstance(item, str) else plain_number(item)
    except ValueError:
        return np.nan
