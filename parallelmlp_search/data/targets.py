"""Encoding of targets: classes as indices, standardized numbers; and weights of rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from parallelmlp_search._checks import refuse
from parallelmlp_search.data.coercion import as_numbers, plain_value, shown
from parallelmlp_search.data.row_values import row_weights
from parallelmlp_search.exceptions import DataError, InvalidParameterError, near_miss

Floats = npt.NDArray[np.float64]

_MAX_WEIGHT = float(np.finfo(np.float32).max)
_MAX_CLASS_BYTES = 1 << 20  # of the name of a class, at four bytes per character
_MAX_TARGET = 1e300  # differences of two such values are still finite


@dataclass(frozen=True, eq=False)
class ClassTarget:
    """Encoder of the classes of a target as indices.

    Attributes
    ----------
    classes_
        Distinct classes of shape (C,), sorted, in their own dtype.
    """

    classes_: npt.NDArray[Any]

    @classmethod
    def fit(cls, y: Any) -> ClassTarget:
        """Fit to a target of shape (rows,).

        Raises
        ------
        DataError
            If the target has missing values or fewer than two classes, mixes numbers and texts, or has other
            values than texts, numbers and booleans.
        """
        values = _class_values(y)
        try:
            classes = np.unique(values)
        except TypeError:
            kinds = sorted({type(value).__name__ for value in values})
            raise DataError(
                f"the classes must be of one type, but the target mixes {' and '.join(kinds)}"
            ) from None
        other = [
            value for value in map(plain_value, classes) if not isinstance(value, (str, bool, int, float))
        ]
        if other or classes.dtype.kind not in "biufUO":
            found = repr(other[0]) if other else str(classes[0])
            raise DataError(f"classes must be texts, numbers or booleans, but the target has {found}")
        if len(classes) < 2:
            only = f"only one class, {shown(classes[0])}" if len(classes) else "no rows"
            raise DataError(f"the target must have at least two classes, but has {only}")
        return cls(classes)

    def __len__(self) -> int:
        return len(self.classes_)

    def encode(self, y: Any) -> npt.NDArray[np.int64]:
        """Encode classes as indices of shape (rows,).

        Raises
        ------
        DataError
            If a class is missing, or was not in the training target.
        """
        values = _class_values(y)
        index = {plain_value(value): position for position, value in enumerate(self.classes_)}
        codes, distinct = pd.factorize(values)
        places = np.array([index.get(plain_value(value), -1) for value in distinct], dtype=np.int64)
        if (places < 0).any():
            unseen = distinct[int(np.argmax(places < 0))]
            known = [str(value) for value in self.classes_]
            raise DataError(
                f"class {shown(unseen)} was not in the training target{near_miss(str(unseen), known)}"
            )
        return places[codes]

    def to_dict(self) -> dict[str, Any]:
        """Return a form that JSON can hold; classes keep their values and dtype."""
        dtype = "object" if self.classes_.dtype.kind == "O" else self.classes_.dtype.str
        return {"dtype": dtype, "classes": [plain_value(value) for value in self.classes_]}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> ClassTarget:
        """Inverse of `to_dict`."""
        dtype = np.dtype(state["dtype"])
        # a hostile file could ask for texts of gigabytes
        if dtype.kind not in "biufUO" or dtype.itemsize > _MAX_CLASS_BYTES:
            refuse("dtype", "that of texts, numbers or booleans", state["dtype"])
        classes = np.array(state["classes"], dtype=dtype)
        if classes.ndim != 1 or len(set(classes.tolist())) < max(2, len(classes)):
            refuse("classes", "at least two distinct values", state["classes"])
        return cls(classes)


def _class_values(y: Any) -> npt.NDArray[Any]:
    """Classes of rows as an array of shape (rows,) without missing values, in the narrowest dtype."""
    if hasattr(y, "to_pandas"):
        y = y.to_pandas()
    if isinstance(y, (pd.Index, pd.api.extensions.ExtensionArray)):
        y = pd.Series(y)
    if isinstance(y, pd.DataFrame):
        y = y.iloc[:, 0] if y.shape[1] == 1 else y.to_numpy()
    missing = np.asarray(pd.isna(y if isinstance(y, (pd.Series, np.ndarray)) else np.asarray(y)))
    if missing.any():
        raise DataError(f"the target must have no missing values, but has {int(missing.sum())}")
    if isinstance(y, pd.Series) and isinstance(y.dtype, pd.CategoricalDtype):
        y = y.astype(y.cat.categories.dtype)
    if isinstance(y, pd.Series) and not isinstance(y.dtype, np.dtype):
        is_boolean = y.dtype.name in ("boolean", "bool[pyarrow]")
        y = y.to_numpy(dtype=bool) if is_boolean else y.infer_objects().to_numpy()
    values = np.asarray(y)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise DataError(f"a target of classes must have one column, but has the shape {values.shape}")
    if values.dtype == object:
        narrow = pd.Series(values).infer_objects().to_numpy()
        return narrow if narrow.dtype.kind in "biuf" else values
    return values.astype(object) if values.dtype.kind == "T" else values  # variable-length strings


@dataclass(frozen=True, eq=False)
class RegressionTarget:
    """Standardization of a numeric target, output by output.

    Attributes
    ----------
    mean_, scale_
        Weighted mean and standard deviation of shape (C,); a constant output has scale 1.
    low_, high_
        Range of the training target, of shape (C,), over the rows of positive weight.
    """

    mean_: Floats
    scale_: Floats
    low_: Floats
    high_: Floats

    @classmethod
    def fit(cls, y: Any, sample_weight: npt.ArrayLike | None = None) -> RegressionTarget:
        """Fit to a target of shape (rows,) or (rows, C).

        Raises
        ------
        DataError
            If the target has no rows, or values that are missing, infinite or no numbers; or if a weight is
            missing, negative or not finite.
        """
        values = numeric_target(y)
        if not values.size:
            raise DataError("the target has no rows")
        values = values.reshape(len(values), -1)
        weights = np.ones(len(values))
        if sample_weight is not None:
            weights = row_weights(sample_weight, len(values), "sample_weight")
        values, weights = values[weights > 0], weights[weights > 0]
        weights /= weights.sum()
        low, high = values.min(axis=0), values.max(axis=0)
        size = np.maximum(np.abs(values).max(axis=0), np.finfo(np.float64).tiny)
        scaled = values / size  # so that no square overflows
        mean = weights @ scaled
        deviation = np.sqrt(weights @ np.square(scaled - mean)) * size
        # minimum and maximum detect a constant exactly; the deviation has rounding errors
        constant = (low == high) | (deviation <= 0) | ~np.isfinite(deviation)
        return cls(np.where(low == high, low, mean * size), np.where(constant, 1.0, deviation), low, high)

    def of_ratios(self) -> RegressionTarget:
        """Return the scaling of a target >= 0 by its mean, without a shift; a mean of 0 counts as 1."""
        return replace(
            self, mean_=np.zeros_like(self.mean_), scale_=np.where(self.mean_ > 0, self.mean_, 1.0)
        )

    @property
    def n_outputs(self) -> int:
        """Number of outputs, C."""
        return len(self.mean_)

    def encode(self, y: Any, dtype: npt.DTypeLike = np.float32) -> npt.NDArray[Any]:
        """Standardize a target. The result has the shape of `y`, (rows,) or (rows, C).

        Raises
        ------
        DataError
            If the number of outputs differs from training, or a value is not a finite number.
        """
        values = numeric_target(y)
        outputs = 1 if values.ndim == 1 else values.shape[1]
        if outputs != self.n_outputs:
            raise DataError(
                f"the target must have {self.n_outputs} outputs as in training, but has {outputs}"
            )
        return ((values - self.mean_) / self.scale_).astype(dtype)


def numeric_target(y: Any) -> Floats:
    """Convert a target to finite float64 of shape (rows,) or (rows, C).

    Raises
    ------
    DataError
        If it has another shape, or a value that is missing, no real number, infinite or beyond 1e300.
    """
    if hasattr(y, "to_pandas"):
        y = y.to_pandas()
    if isinstance(y, pd.DataFrame):
        values = np.stack([as_numbers(y.iloc[:, column]) for column in range(y.shape[1])], axis=1)
    elif isinstance(y, pd.Series):
        values = as_numbers(y)
    else:
        array = np.asarray(y)
        if array.dtype.kind == "c":
            raise DataError("a regression target must hold real numbers, but holds complex ones")
        if array.dtype.kind in "biuf":
            values = array.astype(np.float64)
        else:
            values = as_numbers(pd.Series(array.ravel(), dtype=object)).reshape(array.shape)
    if values.ndim not in (1, 2):
        raise DataError(f"a regression target must have one or two axes, but has the shape {values.shape}")
    wrong = ~(np.abs(values) <= _MAX_TARGET)
    if wrong.any():
        row = int(np.argwhere(wrong)[0][0])
        first = y.iloc[row] if isinstance(y, (pd.Series, pd.DataFrame)) else np.asarray(y)[row]
        found = shown(first.tolist() if isinstance(first, (pd.Series, np.ndarray)) else first)
        worst = float(values[row].flat[int(np.argmax(wrong[row]))] if values.ndim > 1 else values[row])
        rule = (
            f"numbers from -{_MAX_TARGET:g} to {_MAX_TARGET:g}" if math.isfinite(worst) else "finite numbers"
        )
        raise DataError(f"a regression target must hold {rule}, but row {row} has {found}")
    return values


def class_weights(
    y_encoded: npt.ArrayLike,
    class_weight: str | Mapping[Any, float] | None,
    classes: npt.ArrayLike,
) -> Floats | None:
    """Return the weight of each row's class.

    Parameters
    ----------
    y_encoded
        Indices into `classes`, of shape (rows,).
    class_weight
        ``"balanced"`` for rows / (present classes x rows of the class), or the weight of each class; classes
        that are left out have weight 1.
    classes
        Classes of shape (C,).

    Returns
    -------
    numpy.ndarray of shape (rows,) or None
        None without `class_weight`.

    Raises
    ------
    InvalidParameterError
        If `class_weight` is another text, names a class that does not exist, or has a weight that is negative
        or not finite.
    """
    if class_weight is None:
        return None
    encoded = np.asarray(y_encoded, dtype=np.int64)
    names = [plain_value(value) for value in np.asarray(classes)]
    if isinstance(class_weight, str):
        if class_weight != "balanced":
            raise InvalidParameterError(
                f"class_weight must be None, 'balanced' or a mapping, but got {class_weight!r}"
                f"{near_miss(class_weight, ['balanced'])}"
            )
        from sklearn.utils.class_weight import compute_sample_weight

        return np.asarray(compute_sample_weight("balanced", encoded), dtype=np.float64)
    if not isinstance(class_weight, Mapping):
        raise InvalidParameterError(
            f"class_weight must be None, 'balanced' or a mapping, but got {class_weight!r}"
        )
    by_class = np.ones(len(names))
    for name, weight in class_weight.items():
        if plain_value(name) not in names:
            raise InvalidParameterError(
                f"class_weight names the class {plain_value(name)!r}, which the target does not have"
                f"{near_miss(str(name), map(str, names))}"
            )
        if not isinstance(weight, (int, float, np.number)) or not 0 <= weight < np.inf:
            raise InvalidParameterError(
                f"class_weight of {plain_value(name)!r} must be >= 0 and finite, but got {weight!r}"
            )
        by_class[names.index(plain_value(name))] = weight
    return by_class[encoded]


def combine_weights(
    sample_weight: npt.ArrayLike | None, class_row_weights: npt.ArrayLike | None, n: int
) -> npt.NDArray[np.float32] | None:
    """Multiply the weights of rows and those of their classes.

    Parameters
    ----------
    sample_weight
        Weights of shape (n,), or None.
    class_row_weights
        Weights of the rows' classes, of shape (n,), or None.
    n
        Number of rows.

    Returns
    -------
    numpy.ndarray of shape (n,) or None
        None without either.

    Raises
    ------
    DataError
        If a weight is missing, negative or not finite.
    InvalidParameterError
        If there are not `n` weights, or all products are zero.
    """
    if sample_weight is None and class_row_weights is None:
        return None
    product = np.ones(n) if sample_weight is None else row_weights(sample_weight, n, "sample_weight")
    if class_row_weights is not None:
        product = product * np.asarray(class_row_weights, dtype=np.float64)
    total: npt.NDArray[np.float32] = np.minimum(product, _MAX_WEIGHT).astype(np.float32)
    if not total.any():
        raise InvalidParameterError("sample_weight times class_weight is 0 in every row")
    return total
