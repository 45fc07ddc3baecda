"""A whole table as the float32 matrix that the networks see."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from parallelmlp_search.data.categorical import CategoryEncoder
from parallelmlp_search.data.columns import TableSchema, numeric_matrix, recognise_columns
from parallelmlp_search.data.dates import DateEncoder
from parallelmlp_search.data.frames import as_frame, has_names
from parallelmlp_search.data.numeric import NumericEncoder, Scaling
from parallelmlp_search.data.piecewise import PiecewiseEncoder
from parallelmlp_search.exceptions import DataError, InvalidParameterError, near_miss
from parallelmlp_search.space import ColumnGroups

__all__ = ["TablePreprocessor"]

_CHUNK_VALUES = 1 << 21
_FORMAT = 3


class TablePreprocessor(TransformerMixin, BaseEstimator, auto_wrap_output_keys=None):  # type: ignore[call-arg, misc]
    """Turn any table into a finite float32 matrix, and new tables into the same columns.

    The columns of the result are, in this order: normal scores of numbers; the pieces of numbers; scaled
    numbers; an indicator for each number that had gaps; the parts of dates; categories. Identifiers and
    constant columns are left out. See `recognise_columns`, `NumericEncoder`, `PiecewiseEncoder`,
    `DateEncoder` and `CategoryEncoder` for what happens to each kind.

    Parameters
    ----------
    scaling
        ``"robust"`` (RealMLP's robust scale and smooth clip), ``"quantile"`` (normal scores) or
        ``"standard"``.
    max_one_hot
        Categories up to which a column becomes one 0/1 column a category; two categories always become a
        single column of -1 and +1.
    max_categories
        In columns with more than `max_one_hot` categories, how many of the most frequent ones get a column of
        their own; the rest share one, and the frequency is added as a number.
    quantiles
        Whether numbers are also encoded as the normal scores of their quantiles.
    numeric_bins
        Bins into which each number is also cut for a piecewise linear encoding; 0 for none. See
        `PiecewiseEncoder`.
    column_kinds
        Kind by column name where it should not be found out, for example ``{"zip": "categorical"}`` or, to
        read a part of a table like the whole, ``recognise_columns(whole).kinds``.

    Attributes
    ----------
    schema_
        Kind of each column.
    n_features_in_
        Columns of the training table.
    feature_names_in_
        Their names, of shape (n_features_in_,); only if the training table had names.
    n_features_out_
        Columns of the result, D.
    columns_
        What they are.
    """

    def __init__(
        self,
        *,
        scaling: Scaling = "robust",
        max_one_hot: int = 10,
        max_categories: int = 64,
        quantiles: bool = False,
        numeric_bins: int = 0,
        column_kinds: Mapping[str, str] | None = None,
    ) -> None:
        self.scaling = scaling
        self.max_one_hot = max_one_hot
        self.max_categories = max_categories
        self.quantiles = quantiles
        self.numeric_bins = numeric_bins
        self.column_kinds = column_kinds

    def fit(self, X: Any, y: Any = None) -> TablePreprocessor:
        """Learn from a table of shape (rows, columns), anything that `as_frame` takes; `y` is not used.

        Raises
        ------
        DataError
            If the table has no rows or no usable column.
        InvalidParameterError
            If a parameter of the constructor is out of its range.
        """
        self._check_parameters()
        frame = as_frame(X)
        if not len(frame):
            raise DataError("the table to learn from has no rows")
        schema = recognise_columns(frame, overrides=self.column_kinds)
        numeric = list(schema.of_kind("numeric"))
        width = max(1, _CHUNK_VALUES // len(frame))
        chunks = [numeric[start : start + width] for start in range(0, len(numeric), width)]
        numbers = (
            NumericEncoder.fit((numeric_matrix(frame, chunk) for chunk in chunks), self.scaling)
            if chunks
            else None
        )
        scores = (
            NumericEncoder.fit((numeric_matrix(frame, chunk) for chunk in chunks), "quantile").without_gaps()
            if chunks and self.quantiles
            else None
        )
        pieces = (
            PiecewiseEncoder.fit((numeric_matrix(frame, chunk) for chunk in chunks), self.numeric_bins)
            if chunks and self.numeric_bins
            else None
        )
        dates = {name: DateEncoder.fit(frame[name]) for name in schema.of_kind("datetime")}
        categories = {
            name: CategoryEncoder.fit(
                frame[name],
                max_one_hot=self.max_one_hot,
                max_categories=self.max_categories,
                boolean=kind == "boolean",
            )
            for name, kind in schema.kinds.items()
            if kind in ("categorical", "boolean")
        }
        self._set_state(schema, has_names(X), scores, numbers, pieces, dates, categories)
        if self.n_features_out_ == 0:
            found = ", ".join(f"{column.name!r} ({column.kind})" for column in list(schema)[:5])
            raise DataError(
                "the table has no usable column: "
                + (f"it has {found}" if found else "it has no columns at all")
            )
        return self

    def transform(self, X: Any) -> npt.NDArray[np.float32]:
        """Matrix of a table, of shape (rows, D): float32, C-contiguous, finite.

        Columns are found by name, whatever their order, and others are ignored; arrays without names go by
        position. A column may come in another dtype than in training. Categories that are new, and text where
        there was a number, count as gaps.

        Raises
        ------
        DataError
            If a column that is used is missing, or an array has another number of columns.
        """
        check_is_fitted(self, "schema_")
        frame = self._aligned(X)
        out = np.zeros((len(frame), self.n_features_out_), dtype=np.float32)
        rows = max(256, _CHUNK_VALUES // max(1, frame.shape[1]))
        for start in range(0, len(frame), rows):
            self._encode(frame.iloc[start : start + rows], out[start : start + rows])
        return out

    def fit_transform(self, X: Any, y: Any = None) -> npt.NDArray[np.float32]:
        """Learn from a table and return its matrix."""
        return self.fit(X, y).transform(X)

    def get_feature_names_out(self, input_features: Any = None) -> npt.NDArray[np.object_]:
        """Names of the columns of the result, of shape (D,)."""
        check_is_fitted(self, "schema_")
        return np.array([name for names, _ in self._blocks() for name in names], dtype=object)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form that restores the same transform to the bit."""
        check_is_fitted(self, "schema_")
        parameters = self.get_params(deep=False)
        if self.column_kinds is not None:
            parameters["column_kinds"] = dict(self.column_kinds)
        return {
            "format": _FORMAT,
            "parameters": parameters,
            "schema": self.schema_.to_dict(),
            "named": hasattr(self, "feature_names_in_"),
            "scores": self._scores.to_dict() if self._scores is not None else None,
            "numbers": self._numbers.to_dict() if self._numbers is not None else None,
            "pieces": self._pieces.to_dict() if self._pieces is not None else None,
            "dates": {name: encoder.to_dict() for name, encoder in self._dates.items()},
            "categories": {name: encoder.to_dict() for name, encoder in self._categories.items()},
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> TablePreprocessor:
        """Inverse of `to_dict`.

        Raises
        ------
        DataError
            If the form is that of another version.
        """
        if state.get("format") != _FORMAT:
            raise DataError(
                f"preprocessing must be saved in format {_FORMAT}, but got {state.get('format')!r}"
            )
        preprocessor = cls(**state["parameters"])
        preprocessor._set_state(
            TableSchema.from_dict(state["schema"]),
            bool(state["named"]),
            NumericEncoder.from_dict(state["scores"]) if state["scores"] is not None else None,
            NumericEncoder.from_dict(state["numbers"]) if state["numbers"] is not None else None,
            PiecewiseEncoder.from_dict(state["pieces"]) if state["pieces"] is not None else None,
            {name: DateEncoder.from_dict(part) for name, part in state["dates"].items()},
            {name: CategoryEncoder.from_dict(part) for name, part in state["categories"].items()},
        )
        return preprocessor

    def _check_parameters(self) -> None:
        known = get_args(Scaling)
        if self.scaling not in known:
            raise InvalidParameterError(
                f"scaling must be one of {', '.join(known)}, but got {self.scaling!r}"
                f"{near_miss(str(self.scaling), known)}"
            )
        for name, least in (("max_one_hot", 2), ("max_categories", 1), ("numeric_bins", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
                raise InvalidParameterError(f"{name} must be an integer >= {least}, but got {value!r}")

    def _set_state(
        self,
        schema: TableSchema,
        named: bool,
        scores: NumericEncoder | None,
        numbers: NumericEncoder | None,
        pieces: PiecewiseEncoder | None,
        dates: dict[str, DateEncoder],
        categories: dict[str, CategoryEncoder],
    ) -> None:
        self.schema_ = schema
        self.n_features_in_ = len(schema)
        if named:
            self.feature_names_in_ = np.array(schema.names, dtype=object)
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_  # of an earlier fit
        self._scores = scores
        self._numbers = numbers
        self._pieces = pieces
        self._dates = dates
        self._categories = categories
        self.n_features_out_ = sum(width for _, width in self._blocks())
        first = self.n_features_out_ - sum(category.width for category in categories.values())
        found = []
        for category in categories.values():
            if not category.binary:
                found.append((first, category.n_hot))
            first += category.width
        self.columns_ = ColumnGroups(
            n_quantiles=0 if scores is None else scores.n_columns,
            n_pieces=0 if pieces is None else pieces.width,
            n_numbers=0 if numbers is None else numbers.n_columns,
            categories=tuple(found),
        )

    def _blocks(self) -> Iterator[tuple[list[str], int]]:
        """Names and number of the columns that each encoder fills, in the order of the result."""
        if self._scores is not None:
            names = self.schema_.of_kind("numeric")
            yield [f"{name}__score" for name in names], self._scores.n_columns
        if self._pieces is not None:
            yield self._pieces.names(self.schema_.of_kind("numeric")), self._pieces.width
        if self._numbers is not None:
            yield self._numbers.names(self.schema_.of_kind("numeric")), self._numbers.width
        for name, date in self._dates.items():
            yield date.names(name), date.width
        for name, category in self._categories.items():
            yield category.names(name), category.width

    def _aligned(self, X: Any) -> pd.DataFrame:
        """Table with at least the used columns under their training names."""
        frame = as_frame(X)
        if not (hasattr(self, "feature_names_in_") and has_names(X)):
            if frame.shape[1] != self.n_features_in_:
                raise DataError(
                    f"a table without column names must have the {self.n_features_in_} columns of training, "
                    f"but has {frame.shape[1]}"
                )
            return frame.set_axis(pd.Index(self.schema_.names), axis=1)
        used = self.schema_.of_kind("numeric", "boolean", "categorical", "datetime")
        present = set(frame.columns)
        missing = [name for name in used if name not in present]
        if missing:
            others = sorted(present - set(self.schema_.names))
            rest = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            raise DataError(f"no column {missing[0]!r}{rest} in the table{near_miss(missing[0], others)}")
        return frame

    def _encode(self, frame: pd.DataFrame, out: npt.NDArray[np.float32]) -> None:
        start = 0
        if self._numbers is not None:
            values = numeric_matrix(frame, list(self.schema_.of_kind("numeric")))
            if self._scores is not None:
                start = self._scores.n_columns
                self._scores.encode(values, out[:, :start])
            if self._pieces is not None:
                self._pieces.encode(values, out[:, start : start + self._pieces.width])
                start += self._pieces.width
            self._numbers.encode(values, out[:, start : start + self._numbers.width])
            start += self._numbers.width
        for encoders in (self._dates, self._categories):
            for name, encoder in encoders.items():
                encoder.encode(frame[name], out[:, start : start + encoder.width])
                start += encoder.width
