"""One column of categories as numbers for a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from parallelmlp_search.data.coercion import as_keys
from parallelmlp_search.data.numeric import NumericEncoder

__all__ = ["CategoryEncoder"]

_BOOLEAN_KEYS = ("False", "True")
_ALIASES = {"0": "False", "1": "True", "false": "False", "true": "True", "FALSE": "False", "TRUE": "True"}
_REVERSED = {"False": "0", "True": "1"}


@dataclass(frozen=True, eq=False)
class CategoryEncoder:
    """Categories of one column; gaps and categories that were not there in training are all zeros.

    - Two categories: one column, -1 for the first and +1 for the second.
    - Up to `max_one_hot` categories: one 0/1 column each.
    - More: one 0/1 column for each of the `max_categories` most frequent, one for all the others, and the
      frequency of the category on a logarithmic scale.
    """

    keys: tuple[str, ...]  # in the order of the columns: sorted, or by falling frequency where there are many
    shown: int  # how many of them have a column of their own
    frequency: tuple[float, ...]  # scaled, one a key; empty where it is not used

    @classmethod
    def fit(
        cls, column: pd.Series, *, max_one_hot: int, max_categories: int, boolean: bool = False
    ) -> CategoryEncoder:
        """Learn the categories of a column."""
        codes, found = as_keys(column)
        counts = np.bincount(codes[codes >= 0], minlength=len(found))
        present = {key: int(count) for key, count in zip(found, counts, strict=True) if count}
        if boolean and set(present) <= set(_BOOLEAN_KEYS):
            return cls(_BOOLEAN_KEYS, 2, ())
        if len(present) <= max(2, max_one_hot):
            return cls(tuple(sorted(present, key=_order)), len(present), ())
        keys = sorted(present, key=lambda key: (-present[key], _order(key)))
        # scaled over rows, not over categories: the middle of the rows is 0, where gaps and new ones are too
        sizes = np.log1p(np.array([present[key] for key in keys], dtype=np.float64))[:, None]
        scaler = NumericEncoder.fit([np.repeat(sizes, [present[key] for key in keys], axis=0)])
        scaled = np.zeros((len(keys), 1), dtype=np.float32)
        scaler.encode(sizes, scaled)
        frequency = tuple(float(value) for value in scaled[:, 0]) if scaled.any() else ()
        return cls(tuple(keys), min(max_categories, len(keys)), frequency)

    @property
    def binary(self) -> bool:
        """Whether the column is written as -1 and +1."""
        return len(self.keys) == 2

    @property
    def width(self) -> int:
        """Columns that `encode` fills."""
        if self.binary:
            return 1
        return self.n_hot + bool(self.frequency)

    @property
    def n_hot(self) -> int:
        """How many of them, the first ones, stand for one category each, or for all that are not shown."""
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
        """Write a column of shape (rows,) into `out` of shape (rows, width)."""
        codes, found = as_keys(column)
        index = {key: position for position, key in enumerate(self.keys)}
        # the last place, -1, is for gaps and for categories that are new
        places = np.array([*(_find(key, index) for key in found), -1], dtype=np.intp)[codes]
        if self.binary:
            out[:, 0] = np.array([-1.0, 1.0, 0.0], dtype=np.float32)[places]
            return
        others = self.shown < len(self.keys)
        hot = self.n_hot
        table = np.zeros((hot + 1, hot), dtype=np.float32)
        np.fill_diagonal(table, 1.0)
        out[:, :hot] = table[np.minimum(places, hot - 1) if others else places]
        if self.frequency:
            out[:, hot] = np.array([*self.frequency, 0.0], dtype=np.float32)[places]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {"keys": list(self.keys), "shown": self.shown, "frequency": list(self.frequency)}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> CategoryEncoder:
        """Inverse of `to_dict`."""
        return cls(tuple(state["keys"]), state["shown"], tuple(state["frequency"]))


def _order(key: str) -> tuple[int, float, str]:
    """Numbers before texts, and by size."""
    try:
        number = float(key)
    except ValueError:
        return 1, 0.0, key
    return (0, number, key) if number == number else (1, 0.0, key)


def _find(key: str, index: Mapping[str, int]) -> int:
    """Place of a category; written in another way (``7.0``, ``true``, 1 for True) it is still found."""
    place = index.get(key)
    if place is not None:
        return place
    for table in (_ALIASES, _REVERSED):
        if table.get(key) in index:
            return index[table[key]]
    try:
        number = float(key)
    except ValueError:
        return -1
    return index.get(str(int(number)), -1) if number.is_integer() else index.get(repr(number), -1)
