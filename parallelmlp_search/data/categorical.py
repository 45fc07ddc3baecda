"""Encoder of a categorical column."""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from parallelmlp_search._checks import check_array, check_integer, refuse
from parallelmlp_search.data.coercion import as_keys
from parallelmlp_search.data.numeric import NumericEncoder

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
    """

    keys: tuple[str, ...]  # sorted, or by decreasing frequency if there are more than `max_one_hot`
    shown: int  # number of keys, the first ones, with a one-hot column of their own
    frequency: tuple[float, ...]  # scaled log-frequency of each key; empty if not used

    @classmethod
    def fit(
        cls, column: pd.Series, *, max_one_hot: int, max_categories: int, boolean: bool = False
    ) -> CategoryEncoder:
        """Learn the categories of a column.

        Parameters
        ----------
        column
            Training column of shape (rows,).
        max_one_hot, max_categories
            Limits as described above.
        boolean
            True for a boolean column, whose categories are ``False`` and ``True`` even if one is absent.

        Returns
        -------
        CategoryEncoder
            Fitted encoder.
        """
        codes, found = as_keys(column)
        counts = np.bincount(codes[codes >= 0], minlength=len(found))
        present = {key: int(count) for key, count in zip(found, counts, strict=True) if count}
        if boolean and set(present) <= set(_BOOLEAN_KEYS):
            return cls(_BOOLEAN_KEYS, 2, ())
        if len(present) <= max(2, max_one_hot):
            return cls(tuple(sorted(present, key=_order)), len(present), ())
        keys = sorted(present, key=lambda key: (-present[key], _order(key)))
        # Scaled over rows, not over categories: the median row is 0, like missing values.
        sizes = np.log1p(np.array([present[key] for key in keys], dtype=np.float64))[:, None]
        scaler = NumericEncoder.fit([np.repeat(sizes, [present[key] for key in keys], axis=0)])
        scaled = np.zeros((len(keys), 1), dtype=np.float32)
        scaler.encode(sizes, scaled)
        frequency = tuple(float(value) for value in scaled[:, 0]) if scaled.any() else ()
        return cls(tuple(keys), min(max_categories, len(keys)), frequency)

    @property
    def binary(self) -> bool:
        """True if the column is encoded as -1 and +1."""
        return len(self.keys) == 2

    @property
    def width(self) -> int:
        """Number of columns that `encode` fills."""
        if self.binary:
            return 1
        return self.n_hot + bool(self.frequency)

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
        return [*names, f"{name}__frequency"] if self.frequency else names

    def encode(self, column: pd.Series, out: npt.NDArray[np.float32]) -> None:
        """Encode a column of shape (rows,) into `out` of shape (rows, width)."""
        codes, found = as_keys(column)
        # place -1, the last one, is that of missing values and unseen categories
        places = np.array([*self.places(found), -1], dtype=np.intp)[codes]
        n_indicators = self.indicators.shape[1]
        out[:, :n_indicators] = self.indicators[self.indicator_rows(places)]
        if self.frequency:
            out[:, n_indicators] = self.frequencies[places]

    def places(self, keys: Iterable[str]) -> list[int]:
        """Return the place of each category in `keys`; -1 for an unseen one."""
        index = self._index
        found = (find_key(key, index) for key in keys)
        return [-1 if key is None else index[key] for key in found]

    def indicator_rows(self, places: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        """Return the row of `indicators` for each place."""
        has_other = self.shown < len(self.keys)
        return np.minimum(places, self.shown) if has_other else places

    @cached_property
    def indicators(self) -> npt.NDArray[np.float32]:
        """Rows of all columns but the frequency, of shape (categories shown apart + 1, columns).

        The last row is that of missing values and unseen categories.
        """
        if self.binary:
            return np.array([[-1.0], [1.0], [0.0]], dtype=np.float32)
        return np.eye(self.n_hot + 1, self.n_hot, dtype=np.float32)

    @cached_property
    def frequencies(self) -> npt.NDArray[np.float32]:
        """Scaled log-frequency by place, and 0 for missing values and unseen categories."""
        return np.array([*self.frequency, 0.0], dtype=np.float32)

    @cached_property
    def _index(self) -> dict[str, int]:
        return {key: place for place, key in enumerate(self.keys)}

    def to_dict(self) -> dict[str, Any]:
        """Return a form that JSON can hold."""
        return {"keys": list(self.keys), "shown": self.shown, "frequency": list(self.frequency)}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> CategoryEncoder:
        """Inverse of `to_dict`."""
        keys, frequency = tuple(state["keys"]), state["frequency"]
        if len(set(keys)) < len(keys) or not all(isinstance(key, str) for key in keys):
            refuse("keys", "distinct texts", keys)
        shown = check_integer("shown", state["shown"], 0)
        if shown > len(keys):
            refuse("shown", f"at most {len(keys)}", shown)
        scaled = check_array("frequency", frequency, (len(keys) if len(frequency) else 0,))
        return cls(keys, shown, tuple(scaled.tolist()))


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
