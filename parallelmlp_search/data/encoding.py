"""Encoding of tables by fitted encoders: the part of the preprocessing that a trained model needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from parallelmlp_search._checks import check_choice, check_integer
from parallelmlp_search.data.categorical import CategoryEncoder
from parallelmlp_search.data.coercion import as_keys
from parallelmlp_search.data.columns import CATEGORY_KINDS, ColumnKind, TableSchema, numeric_matrix
from parallelmlp_search.data.dates import DateEncoder
from parallelmlp_search.data.frames import as_frame, has_names
from parallelmlp_search.data.means import CategoryMeans
from parallelmlp_search.data.numeric import NumericEncoder, Scaling
from parallelmlp_search.data.piecewise import PiecewiseEncoder
from parallelmlp_search.exceptions import DataError, near_miss
from parallelmlp_search.space import ColumnGroups

USED_KINDS: tuple[ColumnKind, ...] = ("numeric", *CATEGORY_KINDS, "datetime")
"""Kinds of the columns that are encoded; others are left out."""

_CHUNK_VALUES = 1 << 21
_FORMAT = 4
_READ_FORMATS = (3, 4)
_NUMERIC: dict[str, type[NumericEncoder] | type[PiecewiseEncoder]] = {
    "scores": NumericEncoder,
    "pieces": PiecewiseEncoder,
    "numbers": NumericEncoder,
}
"""Encoders of all numeric columns together, in the order of the result."""
_COLUMNS: dict[str, type[DateEncoder] | type[CategoryEncoder]] = {
    "dates": DateEncoder,
    "categories": CategoryEncoder,
}
"""Encoders of single columns, in the order of the result."""


@dataclass(frozen=True, eq=False)
class TableEncoder:
    """Fitted encoders of a table, made by :class:`~parallelmlp_search.data.TablePreprocessor`.

    It needs neither scikit-learn nor torch.

    Attributes
    ----------
    schema
        Columns of the training table and their kinds.
    named
        True if the training table had column names. New tables are then read by name.
    numeric
        Encoders of all numeric columns together: ``scores``, ``pieces`` and ``numbers``, as far as used.
    columns
        Encoders of date and categorical columns, by name.
    parameters
        Parameters of the preprocessing that fitted the encoders; they are only stored.
    means
        Mean targets of categorical columns, by name; they are the last columns of the result.
    """

    schema: TableSchema
    named: bool
    numeric: Mapping[str, NumericEncoder | PiecewiseEncoder]
    columns: Mapping[str, DateEncoder | CategoryEncoder]
    parameters: Mapping[str, Any]
    means: Mapping[str, CategoryMeans] = field(default_factory=dict)

    @cached_property
    def n_outputs(self) -> int:
        """Number of columns of the result, D."""
        encoders = (*self.numeric.values(), *self.columns.values())
        return sum(encoder.width for encoder in encoders) + self.n_means

    @cached_property
    def n_means(self) -> int:
        """Number of columns of mean targets."""
        return sum(one.width for one in self.means.values())

    @cached_property
    def groups(self) -> ColumnGroups:
        """Groups of the columns of the result."""
        start = sum(encoder.width for encoder in self.numeric.values())
        one_hot = []
        for column in self.columns.values():
            if isinstance(column, CategoryEncoder) and not column.binary:
                one_hot.append((start, column.n_hot))
            start += column.width
        numbers = self.numeric.get("numbers")
        return ColumnGroups(
            n_quantiles=self.numeric["scores"].width if "scores" in self.numeric else 0,
            n_pieces=self.numeric["pieces"].width if "pieces" in self.numeric else 0,
            n_numbers=numbers.n_columns if isinstance(numbers, NumericEncoder) else 0,
            categories=tuple(one_hot),
            n_means=self.n_means,
            signs=self._signs(),
        )

    def _signs(self) -> tuple[tuple[int, int, int], ...]:
        """Columns ``(first, end, sign)`` of the result that encode a monotone column, see `ColumnGroups`."""
        monotonic = self.parameters.get("monotonic") or {}
        own = np.array([monotonic.get(name, 0) for name in self.numeric_names], dtype=np.int64)
        signs = np.zeros(self.n_outputs + 1, dtype=np.int64)  # the end of the last run
        start = 0
        for encoder in self.numeric.values():
            # indicators of missing values, which follow scaled numbers, have no sign
            values = own[encoder.bins[0]] if isinstance(encoder, PiecewiseEncoder) else own
            signs[start : start + len(values)] = values
            start += encoder.width
        edges = np.flatnonzero(np.diff(signs, prepend=0)).tolist()
        return tuple((a, b, int(signs[a])) for a, b in pairwise(edges) if signs[a])

    @cached_property
    def numeric_names(self) -> list[str]:
        """Names of the numeric columns of the table."""
        return list(self.schema.of_kind("numeric"))

    def output_names(self) -> list[str]:
        """Names of the columns of the result."""
        numeric = self.numeric_names
        names = []
        for key, encoder in self.numeric.items():
            names += encoder.names([f"{name}__score" for name in numeric] if key == "scores" else numeric)
        for name, column_encoder in self.columns.items():
            names += column_encoder.names(name)
        for name, means in self.means.items():
            names += means.names(name)
        return names

    def encode(self, X: Any) -> npt.NDArray[np.float32]:
        """Encode a table as a float32 matrix of shape (rows, D), C-contiguous and finite.

        Raises
        ------
        DataError
            If a column that is used is missing, or an array has another number of columns.
        """
        frame = self.aligned(X)
        out = np.zeros((len(frame), self.n_outputs), dtype=np.float32)
        rows = max(256, _CHUNK_VALUES // max(1, frame.shape[1]))
        for start in range(0, len(frame), rows):
            self._encode(frame.iloc[start : start + rows], out[start : start + rows])
        return out

    def aligned(self, X: Any) -> pd.DataFrame:
        """Return a frame that has the used columns under their training names.

        Raises
        ------
        DataError
            If a column that is used is missing, or an array has another number of columns.
        """
        frame = as_frame(X)
        if not (self.named and has_names(X)):
            self.check_width(frame.shape[1])
            return frame.set_axis(pd.Index(self.schema.names), axis=1)
        used = self.schema.of_kind(*USED_KINDS)
        present = set(frame.columns)
        missing = [name for name in used if name not in present]
        if missing:
            others = sorted(present - set(self.schema.names))
            rest = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            raise DataError(f"no column {missing[0]!r}{rest} in the table{near_miss(missing[0], others)}")
        return frame

    def check_width(self, n_columns: int) -> None:
        """Check the number of columns of a table without names.

        Raises
        ------
        DataError
            If it is not that of the training table.
        """
        if n_columns != len(self.schema):
            raise DataError(
                f"a table without column names must have the {len(self.schema)} columns of training, "
                f"but has {n_columns}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return a form that JSON can hold and that restores the same encoding to the bit."""
        return {
            "format": _FORMAT,
            "parameters": dict(self.parameters),
            "schema": self.schema.to_dict(),
            "named": self.named,
            **{key: self.numeric[key].to_dict() if key in self.numeric else None for key in _NUMERIC},
            **{
                key: {name: part.to_dict() for name, part in self.columns.items() if isinstance(part, kind)}
                for key, kind in _COLUMNS.items()
            },
            "means": {name: one.to_dict() for name, one in self.means.items()},
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> TableEncoder:
        """Inverse of `to_dict`.

        Raises
        ------
        DataError
            If the format is that of another version.
        """
        if state.get("format") not in _READ_FORMATS:
            raise DataError(
                f"preprocessing must be saved in format {_FORMAT}, but got {state.get('format')!r}"
            )
        check_parameters(state["parameters"])
        schema = TableSchema.from_dict(state["schema"])
        numeric = {key: kind.from_dict(state[key]) for key, kind in _NUMERIC.items() if state[key]}
        columns = {
            name: kind.from_dict(part) for key, kind in _COLUMNS.items() for name, part in state[key].items()
        }
        n_numeric = len(schema.of_kind("numeric"))
        if any(encoder.n_columns != n_numeric for encoder in numeric.values()) or (
            n_numeric > 0 and "numbers" not in numeric
        ):
            raise DataError(f"the encoders of numbers must be those of {n_numeric} columns")
        categories = schema.of_kind(*CATEGORY_KINDS)
        if set(columns) != {*schema.of_kind("datetime"), *categories}:
            raise DataError("the encoders of dates and categories must be those of such columns")
        means = {name: CategoryMeans.from_dict(part) for name, part in state.get("means", {}).items()}
        if not set(means) <= set(categories):
            raise DataError("mean targets must be those of categories")
        return cls(schema, bool(state["named"]), numeric, columns, state["parameters"], means)

    def _encode(self, frame: pd.DataFrame, out: npt.NDArray[np.float32]) -> None:
        start = 0
        if self.numeric:
            values = numeric_matrix(frame, self.numeric_names)
            for encoder in self.numeric.values():
                encoder.encode(values, out[:, start : start + encoder.width])
                start += encoder.width
        ends = np.cumsum(
            [self.n_outputs - self.n_means, *(one.width for one in self.means.values())]
        ).tolist()
        places = {name: slice(*edges) for name, edges in zip(self.means, pairwise(ends), strict=True)}
        for name, column_encoder in self.columns.items():
            own = out[:, start : start + column_encoder.width]
            start += column_encoder.width
            if isinstance(column_encoder, DateEncoder):
                column_encoder.encode(frame[name], own)
                continue
            codes, keys = as_keys(frame[name])
            column_encoder.encode_keys(codes, keys, own)
            if name in self.means:
                self.means[name].encode_keys(codes, keys, out[:, places[name]])


def check_parameters(parameters: Mapping[str, Any]) -> None:
    """Check the parameters of :class:`~parallelmlp_search.data.TablePreprocessor`.

    Raises
    ------
    InvalidParameterError
        If one is out of its range.
    """
    check_choice("scaling", parameters["scaling"], get_args(Scaling))
    for name, minimum in (("max_one_hot", 2), ("max_categories", 1), ("numeric_bins", 0)):
        check_integer(name, parameters[name], minimum)
