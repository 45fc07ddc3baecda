"""Encoding of a table for all folds at once.

The encoders of the folds were fitted on other rows, so their columns differ a little. Here they become common
columns: a section of each kind is as wide as that of the widest fold. Weights of columns that a fold does not
have are zero, see :func:`parallelmlp_search.inference.networks.plain_networks`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from parallelmlp_search.data.categorical import NUMBERS, CategoryEncoder, find_key
from parallelmlp_search.data.dates import DateEncoder
from parallelmlp_search.data.encoding import TableEncoder
from parallelmlp_search.data.means import CategoryMeans
from parallelmlp_search.data.numeric import NumericEncoder
from parallelmlp_search.data.piecewise import PiecewiseEncoder
from parallelmlp_search.exceptions import DataWarning
from parallelmlp_search.inference.raw_columns import ColumnReader, RawColumns

_CACHED_PIECES = 1 << 14
"""Pieces computed at once: 128 KiB in float64. With 2 MiB they take three times as long."""

MIN_JUDGED_ROWS = 20
"""Rows from which a column without a known category is reported."""

MAX_UNSEEN_SHARE = 0.95
"""Maximum share of unseen categories that is not reported."""

Doubles = NDArray[np.float64]
Singles = NDArray[np.float32]
Indices = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class UsedColumns:
    """Values of the used columns of some rows, ready to be encoded.

    Attributes
    ----------
    numbers, missing
        Numeric columns ``(n, d)``, and where they are missing.
    categories
        For each categorical column, rows ``(n,)`` of the table of its section.
    times
        For each date column, the times ``(n,)``.
    """

    numbers: Doubles
    missing: NDArray[np.bool_]
    categories: Sequence[Indices]
    times: Sequence[NDArray[np.datetime64]]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, rows: slice) -> UsedColumns:
        return UsedColumns(
            self.numbers[rows],
            self.missing[rows],
            [column[rows] for column in self.categories],
            [times[rows] for times in self.times],
        )


class Section(Protocol):
    """Common columns of one kind.

    Attributes
    ----------
    width
        Number of common columns.
    columns
        For each fold, the common columns, counted from the start of the section, of its own columns.
    """

    width: int
    columns: list[Indices]

    def write(self, used: UsedColumns, out: Singles) -> None:
        """Write the common columns ``(n, E, width)`` of rows; those that a fold lacks may hold any number."""


class FoldEncoder:
    """Encodes tables with the encoders of ``E`` folds at once.

    Parameters
    ----------
    encoders
        Encoders of the folds, which use the same columns of the table.

    Attributes
    ----------
    width
        Number of common columns ``D``.
    places
        For each fold, the common column of each of its own columns.
    sections
        Sections that are encoded, with their places.
    reader, n_folds
        Reader of the used columns, and number of folds ``E``.
    """

    def __init__(self, encoders: Sequence[TableEncoder]) -> None:
        self.reader = ColumnReader(encoders[0])
        self.n_folds = len(encoders)
        sections = _numeric_sections(encoders)
        for number, name in enumerate(self.reader.dates):
            sections.append(DateSection(number, [one.columns[name] for one in encoders]))
        means = {name: [one.means[name] for one in encoders] for name in encoders[0].means}
        self._categories = [
            CategorySection(number, [one.columns[name] for one in encoders], means.get(name, ()))
            for number, name in enumerate(self.reader.categories)
        ]
        of_name = dict(zip(self.reader.categories, self._categories, strict=True))
        sections += self._categories
        sections += [MeanSection(of_name[name], parts) for name, parts in means.items()]
        starts = np.cumsum([0, *(section.width for section in sections)]).tolist()
        self.width: int = starts[-1]
        self.places: list[Indices] = [
            np.concatenate([s.columns[fold] + start for s, start in zip(sections, starts, strict=False)])
            for fold in range(self.n_folds)
        ]
        self.sections: list[tuple[Section, slice]] = [
            (s, slice(*edges)) for s, edges in zip(sections, pairwise(starts), strict=True)
        ]

    def keep(self, columns: Iterable[tuple[int, int]]) -> None:
        """Encode only the sections that ranges ``(first, end)`` of common columns touch."""
        used = np.zeros(self.width, dtype=bool)
        for first, end in columns:
            used[first:end] = True
        self.sections = [(section, place) for section, place in self.sections if used[place].any()]

    def read(self, X: Any) -> UsedColumns:
        """Return the used columns of a table, or of a float array of shape (n, columns of training).

        Raises
        ------
        DataError
            If a column that is used is missing, or an array has another number of columns.
        """
        raw = self.reader.read(X)
        used = self.used(raw)
        if raw.n_rows >= MIN_JUDGED_ROWS:
            for name, rows, (codes, _) in zip(self.reader.categories, used.categories, raw.keys, strict=True):
                _warn_of_unseen(name, rows, codes)
        return used

    def used(self, raw: RawColumns) -> UsedColumns:
        """Return the used columns of rows that the reader has read."""
        categories = [one.rows(*pair) for one, pair in zip(self._categories, raw.keys, strict=True)]
        return UsedColumns(raw.numbers, np.isnan(raw.numbers), categories, raw.times)

    def encode(self, used: UsedColumns) -> Singles:
        """Encode rows as common columns ``(E, n, D)``; those that :meth:`keep` left out are not set."""
        encoded = np.empty((len(used), self.n_folds, self.width), dtype=np.float32)
        for section, columns in self.sections:
            section.write(used, encoded[:, :, columns])
        return encoded.swapaxes(0, 1)


def _numeric_sections(encoders: Sequence[TableEncoder]) -> list[Section]:
    sections: list[Section] = []
    for key, first in encoders[0].numeric.items():
        mine: list[Any] = [encoder.numeric[key] for encoder in encoders]
        sections.append(PieceSection(mine) if isinstance(first, PiecewiseEncoder) else NumberSection(mine))
    return sections


class NumberSection:
    """Scaled numbers, and indicators of missing ones.

    Attributes
    ----------
    parts
        Encoder of the columns of consecutive folds side by side, with the range of the folds.
    indicated
        Numbers that have an indicator in any fold.
    """

    def __init__(self, encoders: Sequence[NumericEncoder]) -> None:
        n_numbers = encoders[0].n_columns
        has_missing = np.any([encoder.has_missing for encoder in encoders], axis=0)
        indicator = n_numbers + np.cumsum(has_missing) - 1  # of each column
        self.width = n_numbers + int(has_missing.sum())
        self.columns = [
            np.concatenate([np.arange(n_numbers), indicator[encoder.has_missing]]) for encoder in encoders
        ]
        self._n_numbers = n_numbers
        self.indicated = np.flatnonzero(has_missing)
        self.parts: list[tuple[slice, NumericEncoder]] = []
        start = 0
        # folds of other sizes may have other numbers of quantiles
        for _, run in groupby(encoders, lambda encoder: len(encoder.grid)):
            part = list(run)
            self.parts.append((slice(start, start + len(part)), NumericEncoder.joined(part)))
            start += len(part)

    def write(self, used: UsedColumns, out: Singles) -> None:
        for folds, encoder in self.parts:
            n_folds = folds.stop - folds.start
            scaled = encoder.scaled(np.tile(used.numbers, n_folds), np.tile(used.missing, n_folds))
            out[:, folds, : self._n_numbers] = scaled.reshape(len(used), n_folds, self._n_numbers)
        out[:, :, self._n_numbers :] = used.missing[:, None, self.indicated]


def _warn_of_unseen(name: str, rows: Indices, codes: Indices) -> None:
    """Warn of a column whose categories are nearly all unseen, given rows of its section and codes."""
    n_present = int((codes >= 0).sum())
    n_unseen = int(((rows == 0) & (codes >= 0)).sum())
    if n_present and n_unseen > MAX_UNSEEN_SHARE * n_present:
        warnings.warn(
            f"column {name!r} was categorical in training, but {100 * n_unseen / n_present:.0f} % of its "
            "cells here are categories that training did not have; they count as missing",
            DataWarning,
            stacklevel=2,
        )


class PieceSection:
    """Piecewise linear encodings of numbers.

    Attributes
    ----------
    repeats
        Bins ``(E, d)`` of each number.
    left, size
        Left edge and size ``(E, width)`` of each bin; 0 and 1 for bins that a fold lacks.
    """

    def __init__(self, encoders: Sequence[PiecewiseEncoder]) -> None:
        self.width = max(encoder.width for encoder in encoders)
        self.columns = [np.arange(encoder.width) for encoder in encoders]
        shape = len(encoders), self.width
        n_numbers = len(encoders[0].edges)
        self.repeats = np.zeros((len(encoders), n_numbers), dtype=np.intp)  # bins of each column
        self.left, self.size = np.zeros(shape), np.ones(shape)
        for fold, encoder in enumerate(encoders):
            number, left, size = encoder.bins
            self.repeats[fold] = np.bincount(number, minlength=n_numbers)
            self.left[fold, : len(left)], self.size[fold, : len(left)] = left, size
        self.repeats[:, -1] += self.width - self.repeats.sum(axis=1)

    def write(self, used: UsedColumns, out: Singles) -> None:
        numbers = np.where(used.missing, -np.inf, used.numbers)
        n_folds, n_pieces = self.left.shape
        step = max(1, _CACHED_PIECES // self.left.size)
        for start in range(0, len(numbers), step):
            rows = slice(start, start + step)
            # a repetition takes 0.1 ns per piece, an index 0.3 to 2
            pieces = np.tile(numbers[rows], n_folds).repeat(self.repeats.ravel(), axis=1)
            pieces = pieces.reshape(-1, n_folds, n_pieces)
            pieces -= self.left
            pieces /= self.size
            np.clip(pieces, 0.0, 1.0, out=out[rows], casting="same_kind")


class DateSection:
    """Parts of the dates of one column.

    Attributes
    ----------
    number
        Place of the column among those of dates.
    encoders
        Encoder of each fold.
    """

    def __init__(self, number: int, encoders: Sequence[Any]) -> None:
        self.number = number
        self.encoders: Sequence[DateEncoder] = encoders
        self.width = max(encoder.width for encoder in encoders)
        self.columns = [np.arange(encoder.width) for encoder in encoders]

    def write(self, used: UsedColumns, out: Singles) -> None:
        out[:] = 0.0
        for fold, encoder in enumerate(self.encoders):
            encoder.encode_times(used.times[self.number], out[:, fold, : encoder.width])


class CategorySection:
    """Indicators and numbers of the categories of one column.

    A row of the table stands for a category of any fold, and row 0 for missing values and unseen categories.
    Categories that no fold shows apart have common indicators, so there are few patterns of indicators.

    Parameters
    ----------
    number
        Place of the column among the categorical ones.
    encoders, means
        Encoders of the column, and its mean targets or none, by fold.

    Attributes
    ----------
    number
        Place of the column among the categorical ones.
    row
        Row of the table of each category.
    pattern
        Pattern of indicators ``(rows,)`` of each row.
    indicators
        Indicators ``(patterns, E, n)``.
    numbers
        Numbers ``(rows, E, m)``: scaled log-frequencies and ranks, as far as a fold has them.
    """

    def __init__(self, number: int, encoders: Sequence[Any], means: Sequence[CategoryMeans]) -> None:
        self.number = number
        known: Sequence[CategoryEncoder] = encoders
        keys = dict.fromkeys(
            key for keys in [one.keys for one in known] + [one.keys for one in means] for key in keys
        )
        self.row = {key: row for row, key in enumerate(keys, 1)}
        places = [np.array([-1, *encoder.places(keys)], dtype=np.intp) for encoder in known]
        rows = np.stack([e.indicator_rows(mine) for e, mine in zip(known, places, strict=True)], axis=1)
        patterns, inverse = np.unique(rows, axis=0, return_inverse=True)
        self.pattern = inverse.reshape(-1)  # NumPy 2.0 keeps an axis
        n_indicators = max(encoder.indicators.shape[1] for encoder in known)
        names = [name for name in NUMBERS if any(name in encoder.number_names for encoder in known)]
        self.width = n_indicators + len(names)
        self.columns = []
        self.indicators = np.zeros((len(patterns), len(known), n_indicators), dtype=np.float32)
        self.numbers = np.zeros((len(rows), len(known), len(names)), dtype=np.float32)
        for fold, encoder in enumerate(known):
            mine = encoder.indicators[patterns[:, fold]]
            self.indicators[:, fold, : mine.shape[1]] = mine
            own = np.array([names.index(name) for name in encoder.number_names], dtype=np.intp)
            self.numbers[:, fold, own] = encoder.numbers[places[fold]]
            self.columns.append(np.concatenate([np.arange(mine.shape[1]), n_indicators + own]))

    def rows(self, codes: Indices, keys: Sequence[str]) -> Indices:
        """Return the row of the table for each code of a column."""
        known = self.row
        found = (find_key(key, known) for key in keys)
        rows = [0 if key is None else known[key] for key in found]
        return np.array([*rows, 0], dtype=np.intp)[codes]

    def write(self, used: UsedColumns, out: Singles) -> None:
        rows = used.categories[self.number]
        n_indicators = self.indicators.shape[2]
        out[:, :, :n_indicators] = self.indicators[self.pattern[rows]]
        if self.numbers.shape[2]:
            out[:, :, n_indicators:] = self.numbers[rows]


class MeanSection:
    """Mean targets of the categories of one column.

    Attributes
    ----------
    categories
        Section of the same column, by whose rows the numbers are found.
    numbers
        Numbers ``(rows, E, outputs)``.
    """

    def __init__(self, categories: CategorySection, means: Sequence[CategoryMeans]) -> None:
        self.categories = categories
        self.width = means[0].width
        self.columns = [np.arange(self.width)] * len(means)
        tables = [one.table[[-1, *one.places(categories.row)]] for one in means]
        self.numbers = np.stack(tables, axis=1)

    def write(self, used: UsedColumns, out: Singles) -> None:
        out[:] = self.numbers[used.categories[self.categories.number]]
