"""Format of a stored model: schema of ``model.json``, and checks that its parts belong together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from parallelmlp_search._checks import check_finite, check_non_negative, check_positive, refuse
from parallelmlp_search._schema import Count, Positive
from parallelmlp_search.packing import Head, Task

FORMAT, CURVE_FORMAT, READER_FORMAT, SCALED_FORMAT, PLAIN_FORMAT = 6, 5, 4, 3, 2
"""Newest format of ``model.json``, with a log link, costs or several target columns; and, for older versions,
those of models with curves of transformed targets at most, with ``reader``, with ``target_scaling``, and with
none of them."""

Numbers = list[Annotated[float, check_finite]]
_Weights = list[Annotated[float, check_non_negative]]
Weights = list[_Weights] | _Weights | None


class StoredHead(TypedDict):
    """Output side of the networks."""

    task: Task
    n_predictions: Positive
    location: Numbers
    scale: Numbers
    lower: Numbers
    upper: Numbers
    link: NotRequired[Literal["identity", "log"]]  # since format 6


class StoredFold(TypedDict):
    """Preprocessing and output side of the networks of a fold."""

    preprocessor: dict[str, Any]
    head: StoredHead


class StoredScaling(TypedDict):
    """Scaling of an extreme target."""

    center: Numbers
    unit: list[Annotated[float, check_positive]]


class StoredClasses(TypedDict):
    """Classes of a target."""

    dtype: str
    classes: list[str | float | bool]


class StoredModel(TypedDict):
    """Content of ``model.json``."""

    format: Positive
    task: Task
    trials: list[Count]
    feature_names: list[str]
    target_name: str | None
    flat_target: bool
    temperature: Annotated[float, check_positive]
    decision_weights: NotRequired[Weights]
    decision: NotRequired[Weights]  # name of `decision_weights` in version 0.1.0
    refitted: bool
    costs: NotRequired[list[Numbers] | None]  # since format 6
    classes: StoredClasses | None
    output_names: NotRequired[list[str]]  # since format 6
    target_scaling: NotRequired[StoredScaling]  # since format 3
    reader: NotRequired[dict[str, Any]]  # since format 4
    configs: list[dict[str, Any]]
    folds: list[StoredFold]


def check_head(head: Head, task: str, n_classes: int | None) -> None:
    """Check that the output side of a fold belongs to its model.

    Parameters
    ----------
    head
        Output side.
    task, n_classes
        Task of the model, and number of its classes or None.

    Raises
    ------
    InvalidParameterError
        If it does not.
    """
    if head.task != task:
        refuse("the task of a fold", repr(task), head.task)
    if (n_classes is None) is not (task == "regression"):
        refuse("classes", "null for a regression and only there", n_classes)
    if n_classes not in (None, head.n_predictions) or (task == "binary" and n_classes != 2):
        refuse("the number of classes", f"{head.n_predictions}, as in the folds", n_classes)
    for name in ("location", "scale", "lower", "upper"):
        check_length(
            f"the {name} of a fold", getattr(head, name), head.n_predictions if n_classes is None else 0
        )


def check_length(name: str, values: Sequence[Any], expected: int) -> None:
    """Check the number of values of a field.

    Parameters
    ----------
    name, values
        The field.
    expected
        Number of values that it must have.

    Raises
    ------
    InvalidParameterError
        If it has more or fewer.
    """
    if len(values) != expected:
        refuse(name, f"of length {expected}", values)


def checked_tuple(name: str, values: Any, expected: int) -> Any:
    """Return a stored list, or a list of lists, as tuples of a checked length.

    Parameters
    ----------
    name, values
        The field; values other than lists stay.
    expected
        Number of values that each list must have.

    Returns
    -------
    tuple or another value

    Raises
    ------
    InvalidParameterError
        If a list has another length.
    """
    if not isinstance(values, list):
        return values
    check_length(name, values, expected)
    return tuple(checked_tuple(name, one, expected) for one in values)


def stored_numbers(
    arrays: Mapping[str, NDArray[Any]], name: str, shape: tuple[int, ...], dtype: type = np.float32
) -> NDArray[Any]:
    """Return a copy of a stored array.

    The memory of a file is not aligned, and products of unaligned weights differ in the last bit.

    Parameters
    ----------
    arrays
        Arrays of a file.
    name, shape, dtype
        Name of the array, its shape and dtype.

    Returns
    -------
    array of the shape and dtype

    Raises
    ------
    ValueError
        If the array is missing, of another shape or dtype, or holds a number that is not finite.
    """
    if name not in arrays:
        raise ValueError(f"it has no tensor {name!r}")
    array = arrays[name]
    if array.shape != shape or array.dtype != dtype:
        raise ValueError(
            f"the tensor {name!r} must be of {np.dtype(dtype)} and shape {shape}, but is of {array.dtype} "
            f"and shape {array.shape}"
        )
    if not np.isfinite(array).all():
        raise ValueError(f"the tensor {name!r} must hold finite numbers, but does not")
    return array.copy()
