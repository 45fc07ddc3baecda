"""Encoder of a whole table as the float32 input matrix of the networks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from parallelmlp_search._checks import check_choice, check_integer
from parallelmlp_search.data.categorical import CategoryEncoder
from parallelmlp_search.data.columns import TableSchema, numeric_matrix, recognise_columns
from parallelmlp_search.data.dates import DateEncoder
from parallelmlp_search.data.frames import as_frame, has_names
from parallelmlp_search.data.numeric import NumericEncoder, Scaling
from parallelmlp_search.data.piecewise import PiecewiseEncoder
from parallelmlp_search.exceptions import DataError, near_miss
from parallelmlp_search.space import ColumnGroups

_CHUNK_VALUES = 1 << 21
_FORMAT = 3
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


class TablePreprocessor(TransformerMixin, BaseEstimator, auto_wrap_output_keys=None):  # type: ignore[call-arg, misc]
    """Encode a table as a finite float32 matrix, and new tables in the same columns.

    The columns of the result are, in this order: normal scores of numbers, piecewise linear encoding, scaled
    numbers, indicators of missing numbers, parts of dates, categories. Identifiers and constant columns are
    left out. See `recognise_columns`, `NumericEncoder`, `PiecewiseEncoder`, `DateEncoder` and
    `CategoryEncoder`.

    Parameters
    ----------
    scaling
        ``"robust"`` (RealMLP's robust scale and smooth clip), ``"quantile"`` (normal scores) or
        ``"standard"``.
    max_one_hot
        Maximum number of categories of a column that is one-hot encoded in full. Two categories always become
        a single column of -1 and +1.
    max_categories
        Number of one-hot columns if there are more than `max_one_hot` categories. The most frequent ones get
        one each, all others share one, and the frequency is added as a number.
    quantiles
        If True, numbers are also encoded as normal scores of their quantiles.
    numeric_bins
        Number of bins of an additional piecewise linear encoding of numbers; 0 for none.
    column_kinds
        Kind by column name, for columns that are not to be recognised: ``{"zip": "categorical"}``. With
        ``recognise_columns(whole).kinds`` a part of a table is encoded like the whole.

    Attributes
    ----------
    schema_
        Kind of each column.
    n_features_in_
        Number of columns of the training table.
    feature_names_in_
        Their names, of shape (n_features_in_,), if the training table had names.
    n_features_out_
        Number of columns of the result, D.
    columns_
        Groups of these columns.
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
        """Fit to a table of shape (rows, columns), anything that `as_frame` accepts; `y` is not used.

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
            raise DataError("the training table has no rows")
        schema = recognise_columns(frame, overrides=self.column_kinds)
        encoders: dict[str, NumericEncoder | PiecewiseEncoder] = {}
        if numeric := list(schema.of_kind("numeric")):
            width = max(1, _CHUNK_VALUES // len(frame))
            chunks = [numeric[start : start + width] for start in range(0, len(numeric), width)]

            def matrices() -> Iterator[npt.NDArray[np.float64]]:
                return (numeric_matrix(frame, chunk) for chunk in chunks)

            if self.quantiles:
                encoders["scores"] = NumericEncoder.fit(matrices(), "quantile").without_indicators()
            if self.numeric_bins:
                encoders["pieces"] = PiecewiseEncoder.fit(matrices(), self.numeric_bins)
            encoders["numbers"] = NumericEncoder.fit(matrices(), self.scaling)
        columns: dict[str, DateEncoder | CategoryEncoder] = {
            name: DateEncoder.fit(frame[name]) for name in schema.of_kind("datetime")
        }
        for name in schema.of_kind("categorical", "boolean"):
            columns[name] = CategoryEncoder.fit(
                frame[name],
                max_one_hot=self.max_one_hot,
                max_categories=self.max_categories,
                boolean=schema.kinds[name] == "boolean",
            )
        self._set_state(schema, has_names(X), encoders, columns)
        if self.n_features_out_ == 0:
            found = ", ".join(f"{column.name!r} ({column.kind})" for column in list(schema)[:5])
            raise DataError(
                "the table has no usable column: "
                + (f"it has {found}" if found else "it has no columns at all")
            )
        return self

    def transform(self, X: Any) -> npt.NDArray[np.float32]:
        """Encode a table as a float32 matrix of shape (rows, D), C-contiguous and finite.

        Columns are found by name, in any order, and others are ignored; arrays without names go by position.
        A column may have another dtype than in training. Unseen categories, and texts in a numeric column,
        count as missing.

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

    def get_feature_names_out(self, input_features: Any = None) -> npt.NDArray[np.object_]:
        """Names of the columns of the result, of shape (D,)."""
        check_is_fitted(self, "schema_")
        numeric = self.schema_.of_kind("numeric")
        names = []
        for key, encoder in self._numeric.items():
            names += encoder.names([f"{name}__score" for name in numeric] if key == "scores" else numeric)
        for name, column_encoder in self._columns.items():
            names += column_encoder.names(name)
        return np.array(names, dtype=object)

    def to_dict(self) -> dict[str, Any]:
        """Return a form that JSON can hold and that restores the same transform to the bit."""
        check_is_fitted(self, "schema_")
        parameters = self.get_params(deep=False)
        if self.column_kinds is not None:
            parameters["column_kinds"] = dict(self.column_kinds)
        return {
            "format": _FORMAT,
            "parameters": parameters,
            "schema": self.schema_.to_dict(),
            "named": hasattr(self, "feature_names_in_"),
            **{key: self._numeric[key].to_dict() if key in self._numeric else None for key in _NUMERIC},
            **{
                key: {name: part.to_dict() for name, part in self._columns.items() if isinstance(part, kind)}
                for key, kind in _COLUMNS.items()
            },
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> TablePreprocessor:
        """Inverse of `to_dict`.

        Raises
        ------
        DataError
            If the format is that of another version.
        """
        if state.get("format") != _FORMAT:
            raise DataError(
                f"preprocessing must be saved in format {_FORMAT}, but got {state.get('format')!r}"
            )
        preprocessor = cls(**state["parameters"])
        preprocessor._check_parameters()
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
        if set(columns) != set(schema.of_kind("datetime", "categorical", "boolean")):
            raise DataError("the encoders of dates and categories must be those of such columns")
        preprocessor._set_state(schema, bool(state["named"]), numeric, columns)
        return preprocessor

    def _check_parameters(self) -> None:
        check_choice("scaling", self.scaling, get_args(Scaling))
        for name, minimum in (("max_one_hot", 2), ("max_categories", 1), ("numeric_bins", 0)):
            check_integer(name, getattr(self, name), minimum)

    def _set_state(
        self,
        schema: TableSchema,
        named: bool,
        numeric: dict[str, NumericEncoder | PiecewiseEncoder],
        columns: dict[str, DateEncoder | CategoryEncoder],
    ) -> None:
        self.schema_ = schema
        self.n_features_in_ = len(schema)
        if named:
            self.feature_names_in_ = np.array(schema.names, dtype=object)
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_  # of an earlier fit
        self._numeric = numeric
        self._columns = columns
        start = sum(encoder.width for encoder in numeric.values())
        one_hot = []
        for column in columns.values():
            if isinstance(column, CategoryEncoder) and not column.binary:
                one_hot.append((start, column.n_hot))
            start += column.width
        self.n_features_out_ = start
        numbers = numeric.get("numbers")
        self.columns_ = ColumnGroups(
            n_quantiles=numeric["scores"].width if "scores" in numeric else 0,
            n_pieces=numeric["pieces"].width if "pieces" in numeric else 0,
            n_numbers=numbers.n_columns if isinstance(numbers, NumericEncoder) else 0,
            categories=tuple(one_hot),
        )

    def _aligned(self, X: Any) -> pd.DataFrame:
        """Return a frame that has the used columns under their training names."""
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
        if self._numeric:
            values = numeric_matrix(frame, list(self.schema_.of_kind("numeric")))
            for encoder in self._numeric.values():
                encoder.encode(values, out[:, start : start + encoder.width])
                start += encoder.width
        for name, column_encoder in self._columns.items():
            column_encoder.encode(frame[name], out[:, start : start + column_encoder.width])
            start += column_encoder.width
