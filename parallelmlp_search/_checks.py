"""Checks of parameter values.

Each check returns the value as a plain Python object. It raises `InvalidParameterError` with the name of the
parameter, the rule and the value if the rule is broken.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, NoReturn, TypeGuard

import numpy as np

from parallelmlp_search.exceptions import InvalidParameterError, near_miss


def is_number(value: object) -> TypeGuard[float]:
    """Return True for a real number, numpy's included, that is not a boolean."""
    return isinstance(value, Real) and not isinstance(value, bool)


def check_choice(parameter: str, value: object, allowed: Sequence[str]) -> str:
    """Check that a value is one of some names.

    Parameters
    ----------
    parameter
        Name of the parameter, for the message.
    value
        Value to check.
    allowed
        Names to choose from.

    Returns
    -------
    str
        The value.
    """
    if isinstance(value, str) and value in allowed:
        return str(value)
    hint = near_miss(value, allowed) if isinstance(value, str) else ""
    _refuse(parameter, f"one of {', '.join(allowed)}", value, hint)


def check_finite(parameter: str, value: object) -> float:
    """Check that a value is a finite number."""
    return _number(parameter, "a finite number", value)


def check_positive(parameter: str, value: object) -> float:
    """Check that a value is a finite number > 0."""
    rule = "a finite number > 0"
    number = _number(parameter, rule, value)
    return number if number > 0.0 else _refuse(parameter, rule, value)


def check_non_negative(parameter: str, value: object) -> float:
    """Check that a value is a finite number >= 0."""
    rule = "a finite number >= 0"
    number = _number(parameter, rule, value)
    return number if number >= 0.0 else _refuse(parameter, rule, value)


def check_fraction(parameter: str, value: object) -> float:
    """Check that a value is a number in [0, 1)."""
    rule = "a number in [0, 1)"
    number = _number(parameter, rule, value)
    return number if 0.0 <= number < 1.0 else _refuse(parameter, rule, value)


def check_integer(parameter: str, value: object, minimum: int | None = None) -> int:
    """Check that a value is an integer and, where ``minimum`` is given, not below it.

    Parameters
    ----------
    parameter
        Name of the parameter, for the message.
    value
        Value to check. Whole floats pass: pandas and JSON turn integers into floats.
    minimum
        Smallest allowed value, or None for no limit.

    Returns
    -------
    int
        The value.
    """
    rule = "an integer" if minimum is None else f"an integer >= {minimum}"
    is_whole = isinstance(value, Integral) or (isinstance(value, Real) and float(value).is_integer())
    if not is_whole or isinstance(value, bool):
        _refuse(parameter, rule, value)
    number: int = int(value)  # type: ignore[call-overload]
    return number if minimum is None or number >= minimum else _refuse(parameter, rule, value)


def check_boolean(parameter: str, value: object) -> bool:
    """Check that a value is True or False."""
    return bool(value) if isinstance(value, bool | np.bool_) else _refuse(parameter, "True or False", value)


def _number(parameter: str, rule: str, value: object) -> float:
    try:
        # bool is a subclass of int: `dropout=True` is a mistake, not a rate of 1
        number = float(value) if is_number(value) else math.nan
    except OverflowError:  # an integer beyond the largest float
        number = math.inf
    return number if math.isfinite(number) else _refuse(parameter, rule, value)


def _refuse(parameter: str, rule: str, value: Any, hint: str = "") -> NoReturn:
    try:
        shown = repr(value)
    except ValueError:  # Python writes no integer of thousands of digits
        shown = f"a number of {value.bit_length()} bits"
    raise InvalidParameterError(f"{parameter} must be {rule}, but got {shown}{hint}")
