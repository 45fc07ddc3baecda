"""Encoder of a whole table as the float32 input matrix of the networks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from parallelmlp_search.data.categorical import CategoryEncoder
from parallelmlp_search.data.columns import CATEGORY_KINDS, numeric_matrix, recognise_columns
from parallelmlp_search.data.dates import DateEncoder
from parallelmlp_search.data.encoding import TableEncoder, check_parameters
from parallelmlp_search.data.frames import as_frame, has_names
from parallelmlp_search.data.means import CategoryMeans
from parallelmlp_search.data.numeric import NumericEncoder, Scaling
from parallelmlp_search.data.piecewise import PiecewiseEncoder
from parallelmlp_search.exceptions import DataError

_CHUNK_VALUES = 1 << 21


class TablePreprocessor(TransformerMixin, BaseEstimator, auto_wrap_output_keys=None):  # type: ignore[call-arg, misc]
    """Encode a table as a finite float32 matrix, and new tables in the same columns.

    The columns of the result are, in this order: normal scores of numbers, piecewise linear encoding, scaled
    numbers, indicators of missing numbers, parts of dates, categories, and mean targets of categories if
    `with_means` has added them. Identifiers and constant columns are left out. See `recognise_columns`,
    `NumericEncoder`, `PiecewiseEncoder`, `DateEncoder`, `CategoryEncoder` and `CategoryMeans`.

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
    monotonic
        Sign by column name, for numeric columns in which predictions may only grow (1) or fall (-1). Their
        infinities are encoded like very large numbers, and `columns_` has their signs.

    Attributes
    ----------
    encoder_
        The fitted encoders, which encode tables without scikit-learn.
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
        monotonic: Mapping[str, int] | None = None,
    ) -> None:
        self.scaling = scaling
        self.max_one_hot = max_one_hot
        self.max_categories = max_categories
        self.quantiles = quantiles
        self.numeric_bins = numeric_bins
        self.column_kinds = column_kinds
        self.monotonic = monotonic

    def fit(self, X: Any, y: Any = None) -> TablePreprocessor:
        """Fit to a table of shape (rows, columns), anything that `as_frame` accepts; `y` is not used.

        Raises
        ------
        DataError
            If the table has no rows or no usable column.
        InvalidParameterError
            If a parameter of the constructor is out of its range.
        """
        check_parameters(self.get_params(deep=False))
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
            is_monotone = np.array([name in (self.monotonic or {}) for name in numeric])
            for key, encoder in encoders.items():
                if isinstance(encoder, NumericEncoder):
                    encoders[key] = encoder.open_ended(is_monotone)
        columns: dict[str, DateEncoder | CategoryEncoder] = {
            name: DateEncoder.fit(frame[name]) for name in schema.of_kind("datetime")
        }
        for name in schema.of_kind(*CATEGORY_KINDS):
            columns[name] = CategoryEncoder.fit(
                frame[name],
                max_one_hot=self.max_one_hot,
                max_categories=self.max_categories,
                kind=schema.kinds[name],
            )
        parameters = self.get_params(deep=False)
        if self.column_kinds is not None:
            parameters["column_kinds"] = dict(self.column_kinds)
        if self.monotonic is None:
            del parameters["monotonic"]  # which older versions do not know
        else:
            parameters["monotonic"] = dict(self.monotonic)
        self._set_encoder(TableEncoder(schema, has_names(X), encoders, columns, parameters))
        if self.n_features_out_ == 0:
            found = ", ".join(f"{column.name!r} ({column.kind})" for column in list(schema)[:5])
            raise DataError(
                "the table has no usable column: "
                + (f"it has {found}" if found else "it has no columns at all")
            )
        return self

    def with_means(self, means: Mapping[str, CategoryMeans]) -> TablePreprocessor:
        """Return the same preprocessing with mean targets of categories, by column, as further columns."""
        preprocessor = TablePreprocessor(**self.encoder_.parameters)
        preprocessor._set_encoder(replace(self.encoder_, means=means))
        return preprocessor

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
        check_is_fitted(self, "encoder_")
        return self.encoder_.encode(X)

    def get_feature_names_out(self, input_features: Any = None) -> npt.NDArray[np.object_]:
        """Names of the columns of the result, of shape (D,)."""
        check_is_fitted(self, "encoder_")
        return np.array(self.encoder_.output_names(), dtype=object)

    def to_dict(self) -> dict[str, Any]:
        """Return a form that JSON can hold and that restores the same transform to the bit."""
        check_is_fitted(self, "encoder_")
        return self.encoder_.to_dict()

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> TablePreprocessor:
        """Inverse of `to_dict`.

        Raises
        ------
        DataError
            If the format is that of another version.
        """
        encoder = TableEncoder.from_dict(state)
        preprocessor = cls(**encoder.parameters)
        preprocessor._set_encoder(encoder)
        return preprocessor

    def _set_encoder(self, encoder: TableEncoder) -> None:
        self.encoder_ = encoder
        self.schema_ = encoder.schema
        self.n_features_in_ = len(encoder.schema)
        if encoder.named:
            self.feature_names_in_ = np.array(encoder.schema.names, dtype=object)
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_  # of an earlier fit
        self.n_features_out_ = encoder.n_outputs
        self.columns_ = encoder.groups
