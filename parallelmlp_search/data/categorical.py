"""Encoder of a categorical column."""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from parallelmlp_search._checks import check_array, check_integer, refuse
from parallelmlp_search.data.coercion import as_keys
from parallelmlp_search.data.numeric import NumericEncoder
from parallelmlp_search.data.order import order_of_column

NUMBERS = ("frequency", "rank")
"""Numbers that a category can have, in the order of the result."""

_BOOLEAN_KEYS = ("False", "True")
# other spellings of a category, tried in this order
_ALIASES = {"0": "False", "1": "True", "false": "False", "true": "True", "FALSE": "False", "TRUE": "True"}
_REVERSED = {"False": "0", "True": "1"}


@dataclass(frozen=True, eq=False)
class CategoryEncoder:
    """Encoder of the categories of one column. Missing values and unseen categories become zeros.

    - Two categories: one column, -1 for the first and +1 for the second.
    - Up to `max_one_hot` categories: one-hot columns.
    - More: one-hot columns for the `max_categories` most frequent categories, one column for all others, and
      the scaled logarithm of the category's frequency.
    - Ordered categories: in addition the scaled rank.
    """

    keys: tuple[str, ...]  # sorted, or by decreasing frequency if there are more than `max_one_hot`
    shown: int  # number of keys, the first ones, with a one-hot column of their own
    frequency: tuple[float, ...]  # scaled log-frequency of each key; empty if not used
    rank: tuple[float, ...] = ()  # scaled rank of each key, 0 for one without a rank; empty if not used

    @classmethod
    def fit(
        cls, column: pd.Series, *, max_one_hot: int, max_categories: int, kind: str = "categorical"
    ) -> CategoryEncoder:
        """Learn the categories of a column.

        Parameters
        ----------
        column
            Training column of shape (rows,).
        max_one_hot, max_categories
            Limits as described above.
        kind
            ``"categorical"``; ``"boolean"`` for a column whose categories are ``False`` and ``True`` even if
            one is absent; or ``"ordinal"`` for ordered categories.

        Returns
        -------
        CategoryEncoder
            Fitted encoder.
        """
        codes, found = as_keys(column)
        counts = np.bincount(codes[codes >= 0], minlength=len(found))
        present = {key: int(count) for key, count in zip(found, counts, strict=True) if count}
        if kind == "boolean" and set(present) <= set(_BOOLEAN_KEYS):
            return cls(_BOOLEAN_KEYS, 2, ())
        rank: tuple[float, ...] = ()
        if len(present) <= max(2, max_one_hot):
            keys = sorted(present, key=_order)
            if kind == "ordinal" and len(keys) > 2:
                rank = _scaled_ranks(column, keys, present)
            return cls(tuple(keys), len(keys), (), rank)
        keys = sorted(present, key=lambda key: (-present[key], _order(key)))
        sizes = np.log1p([present[key] for key in keys])
        if kind == "ordinal":
            rank = _scaled_ranks(column, keys, present)
        frequency = _scaled(sizes, [present[key] for key in keys])
        return cls(tuple(keys), min(max_categories, len(keys)), frequency, rank)

    @property
    def binary(self) -> bool:
        """True if the column is encoded as -1 and +1."""
        return len(self.keys) == 2

    @property
    def width(self) -> int:
        """Number of columns that `encode` fills."""
        return int(self.indicators.shape[1] + self.numbers.shape[1])

    @property
    def n_hot(self) -> int:
        """Number of one-hot columns, which come first, including that of all other categories."""
        return 0 if self.binary else self.shown + (self.shown < len(self.keys))

    def names(self, name: str) -> list[str]:
        """Names of the filled columns."""
        if self.binary:
            return [f"{name}={self.keys[1]}"]
        names = [f"{name}={key}" for key in self.keys[: self.shown]]
        if self.shown < len(self.keys):
            names.append(f"{name}__other")
        return [*names, *(f"{name}__{number}" for number in self.number_names)]

    def encode(self, column: pd.Series, out: npt.NDArray[np.float32]) -> None:
        """Encode a column of shape (rows,) into `out` of shape (rows, width)."""
        self.encode_keys(*as_keys(column), out)

    def encode_keys(
        self, codes: npt.NDArray[np.intp], keys: Iterable[str], out: npt.NDArray[np.float32]
    ) -> None:
        """Encode a column that is given by codes.

        Parameters
        ----------
        codes
            Code of each row, of shape (rows,), -1 for missing values.
        keys
            Category of each code.
        out
            Filled with the result, of shape (rows, width).
        """
        # place -1, the last one, is that of missing values and unseen categories
        places = np.array([*self.places(keys), -1], dtype=np.intp)[codes]
        n_indicators = self.indicators.shape[1]
        out[:, :n_indicators] = self.indicators[self.indicator_rows(places)]
        out[:, n_indicators:] = self.numbers[places]

    def places(self, keys: Iterable[str]) -> list[int]:
        """Return the place of each category in `keys`; -1 for an unseen one."""
        return known_places(keys, self._index)

    def indicator_rows(self, places: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        """Return the row of `indicators` for each place."""
        has_other = self.shown < len(self.keys)
        return np.minimum(places, self.shown) if has_other else places

    @cached_property
    def indicators(self) -> npt.NDArray[np.float32]:
        """Rows of the columns without numbers, of shape (categories shown apart + 1, columns).

        The last row is that of missing values and unseen categories.
        """
        if self.binary:
            return np.array([[-1.0], [1.0], [0.0]], dtype=np.float32)
        return np.eye(self.n_hot + 1, self.n_hot, dtype=np.float32)

    @cached_property
    def number_names(self) -> tuple[str, ...]:
        """Names of the numbers of each category, which come last."""
        return tuple(name for name in NUMBERS if getattr(self, name))

    @cached_property
    def numbers(self) -> npt.NDArray[np.float32]:
        """Numbers by place, of shape (categories + 1, numbers); the last row is that of missing values."""
        table = np.zeros((len(self.keys) + 1, len(self.number_names)), dtype=np.float32)
        for column, name in enumerate(self.number_names):
            table[:-1, column] = getattr(self, name)
        return table

    @cached_property
    def _index(self) -> dict[str, int]:
        return {key: place for place, key in enumerate(self.keys)}

    def to_dict(self) -> dict[str, Any]:
        """Return a form that JSON can hold."""
        lists = {name: list(getattr(self, name)) for name in NUMBERS}
        return {"keys": list(self.keys), "shown": self.shown, **lists}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> CategoryEncoder:
        """Inverse of `to_dict`."""
        keys = checked_keys(state["keys"])
        shown = check_integer("shown", state["shown"], 0)
        if shown > len(keys):
            refuse("shown", f"at most {len(keys)}", shown)
        numbers = []
        for name in NUMBERS:
            values = state.get(name, ())  # before format 4, there were no ranks
            scaled = check_array(name, values, (len(keys) if len(values) else 0,))
            numbers.append(tuple(scaled.tolist()))
        return cls(keys, shown, *numbers)


def _scaled(values: npt.NDArray[np.float64], counts: Sequence[int]) -> tuple[float, ...]:
    """Scaled numbers of categories, given their rows; empty if they do not differ.

    They are scaled over rows, not over categories: the median row is 0, like missing values.
    """
    column = values[:, None]
    scaler = NumericEncoder.fit([np.repeat(column, counts, axis=0)])
    scaled = np.zeros(column.shape, dtype=np.float32)
    scaler.encode(column, scaled)
    return tuple(float(value) for value in scaled[:, 0]) if scaled.any() else ()


def _scaled_ranks(column: pd.Series, keys: list[str], present: Mapping[str, int]) -> tuple[float, ...]:
    """Scaled ranks of ordered categories; empty if fewer than two have a rank."""
    order = order_of_column(column, keys)
    if order is None:
        return ()
    known = [key for key in keys if key in order.ranks]
    ranks = np.array([order.ranks[key] for key in known], dtype=np.float64)
    scaled = dict(zip(known, _scaled(ranks, [present[key] for key in known]), strict=False))
    return tuple(scaled.get(key, 0.0) for key in keys) if scaled else ()


def known_places(keys: Iterable[str], index: Mapping[str, int]) -> list[int]:
    """Return the place of each category in `index`; -1 for an unseen one."""
    found = (find_key(key, index) for key in keys)
    return [-1 if key is None else index[key] for key in found]


def checked_keys(keys: Any) -> tuple[str, ...]:
    """Return the keys of a file.

    Raises
    ------
    InvalidParameterError
        If they are no distinct texts.
    """
    found = tuple(keys)
    if len(set(found)) < len(found) or not all(isinstance(key, str) for key in found):
        refuse("keys", "distinct texts", found)
    return found


def _order(key: str) -> tuple[int, float, str]:
    """Sort key: numbers by value, then texts."""
    try:
        number = float(key)
    except ValueError:
        return 1, 0.0, key
    return (0, number, key) if number == number else (1, 0.0, key)


def find_key(key: str, known: Container[str]) -> str | None:
    """Return a known category, also if it is spelled differently (``7.0``, ``true``, 1 for True), or None."""
    if key in known:
        return key
    for table in (_ALIASES, _REVERSED):
        other = table.get(key)
        if other is not None and other in known:
            return other
    try:
        number = float(key)
    except ValueError:
        return None
    text = str(int(number)) if number.is_integer() else repr(number)
    return text if text in known else None


def other_spellings(known: Collection[str]) -> dict[str, str]:
    """Return the usual other spellings of known categories, as `find_key` reads them, with their category."""
    whole = (f"{key}.0" for key in known if key.removeprefix("-").isdecimal())
    found = {spelling: find_key(spelling, known) for spelling in (*_ALIASES, *_REVERSED, *whole)}
    return {spelling: key for spelling, key in found.items() if key is not None and spelling not in known}
