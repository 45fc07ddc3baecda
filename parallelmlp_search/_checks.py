"""Checks of parameter values.

Each check returns the value as a plain Python object. It raises `InvalidParameterError` with the name of the
parameter, the rule and the value if the rule is broken.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Sequence
from numbers import Integral, Real
from typing import NoReturn, TypeGuard

import numpy as np
from numpy.typing import NDArray

from parallelmlp_search.exceptions import InvalidParameterError, near_miss

_SHOWN_CHARACTERS = 200
"""Most characters of a wrong value in a message."""

_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6}
"""Seconds of each unit of a duration."""

_DURATION = re.compile(
    r"\s*(?:(?P<d>[\d.]+)\s*d)?\s*(?:(?P<h>[\d.]+)\s*h)?\s*(?:(?P<m>[\d.]+)\s*m(?:in)?)?"
    r"\s*(?:(?P<s>[\d.]+)\s*s)?\s*(?:(?P<ms>[\d.]+)\s*ms)?\s*(?:(?P<us>[\d.]+)\s*us)?\s*"
)

_SIZE = re.compile(r"\s*([0-9]*\.?[0-9]+(?:e[0-9]+)?)\s*([kmgt]?)(i?)b?\s*", re.IGNORECASE)

_MAX_BYTES = 1e18
"""Bytes above which a number is no size of memory."""


def is_number(value: object) -> TypeGuard[float]:
    """Return True for a real number, numpy's included, that is not a boolean."""
    # checks against abstract classes are slow
    return type(value) in (int, float) or (isinstance(value, Real) and not isinstance(value, bool))


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
    refuse(parameter, f"one of {', '.join(allowed)}", value, hint)


def check_finite(parameter: str, value: object) -> float:
    """Check that a value is a finite number."""
    return _number(parameter, "a finite number", value)


def check_positive(parameter: str, value: object) -> float:
    """Check that a value is a finite number > 0."""
    rule = "a finite number > 0"
    number = _number(parameter, rule, value)
    return number if number > 0.0 else refuse(parameter, rule, value)


def check_non_negative(parameter: str, value: object) -> float:
    """Check that a value is a finite number >= 0."""
    rule = "a finite number >= 0"
    number = _number(parameter, rule, value)
    return number if number >= 0.0 else refuse(parameter, rule, value)


def check_seconds(parameter: str, value: object) -> float:
    """Check that a value is a duration > 0: a number of seconds, or a text such as ``90s`` or ``1h30m``.

    >>> [check_seconds("time_limit", value) for value in (90, "90", "1m", "1h30m", "1.5 h", "20us")]
    [90.0, 90.0, 60.0, 5400.0, 5400.0, 2e-05]
    """
    rule = "> 0 seconds or a duration such as '90s', '10m' or '1h30m'"
    seconds = math.nan
    with contextlib.suppress(ValueError, OverflowError):  # two points in a number, an integer too large
        if isinstance(value, str) and (match := _DURATION.fullmatch(value.lower())):
            seconds = sum(float(number) * _UNITS[unit] for unit, number in match.groupdict("0").items())
        elif isinstance(value, str) or is_number(value):
            seconds = float(value)
    return seconds if 0.0 < seconds < math.inf else refuse(parameter, rule, value)


def check_size(parameter: str, value: object) -> int:
    """Check that a value is a number of bytes, or a text such as ``2GB``, ``512 MiB`` or ``3e9``.

    >>> [check_size("memory_limit", value) for value in ("2GB", "1.5 GiB", 3e9)]
    [2000000000, 1610612736, 3000000000]

    Raises
    ------
    InvalidParameterError
        If it is neither, below 1, or above an exabyte.
    """
    size = math.nan
    if isinstance(value, str):
        if match := _SIZE.fullmatch(value):
            power = " kmgt".index(match[2].lower() or " ")
            size = float(match[1]) * (1024 if match[3] else 1000) ** power
    elif is_number(value):
        size = float(value)
    if not 1 <= size < _MAX_BYTES:
        refuse(parameter, "bytes > 0 or a size such as '2GB' or '512MiB'", value)
    return int(size)


def duration_text(seconds: float) -> str:
    """Return a short duration in the unit that suits it.

    >>> duration_text(2.34e-5), duration_text(0.0012)
    ('23.4us', '1.2ms')
    """
    for unit, size in (("us", 1e-6), ("ms", 1e-3)):
        if seconds < 1000 * size:
            return f"{seconds / size:.3g}{unit}"
    return f"{seconds:.3g}s"


def check_fraction(parameter: str, value: object) -> float:
    """Check that a value is a number in [0, 1)."""
    rule = "a number in [0, 1)"
    number = _number(parameter, rule, value)
    return number if 0.0 <= number < 1.0 else refuse(parameter, rule, value)


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
        refuse(parameter, rule, value)
    number: int = int(value)  # type: ignore[call-overload]
    return number if minimum is None or number >= minimum else refuse(parameter, rule, value)


def check_boolean(parameter: str, value: object) -> bool:
    """Check that a value is True or False."""
    return bool(value) if isinstance(value, bool | np.bool_) else refuse(parameter, "True or False", value)


def check_array(parameter: str, value: object, shape: tuple[int | None, ...]) -> NDArray[np.float64]:
    """Check that a value is an array of finite numbers.

    Parameters
    ----------
    parameter
        Name of the parameter, for the message.
    value
        Array or nested lists. An empty list has any shape of no elements.
    shape
        Size of each axis, None for any size.

    Returns
    -------
    numpy.ndarray
        The value in float64.
    """
    sizes = ", ".join("any" if size is None else str(size) for size in shape)
    rule = f"finite numbers of shape ({sizes})"
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError):
        refuse(parameter, rule, value)
    if not array.size:
        array = array.reshape([size or 0 for size in shape])
    fits = array.ndim == len(shape) and all(
        size in (None, found) for size, found in zip(shape, array.shape, strict=True)
    )
    return array if fits and np.isfinite(array).all() else refuse(parameter, rule, value)


def _number(parameter: str, rule: str, value: object) -> float:
    try:
        # bool is a subclass of int: `dropout=True` is a mistake, not a rate of 1
        number = float(value) if is_number(value) else math.nan
    except OverflowError:  # an integer beyond the largest float
        number = math.inf
    return number if math.isfinite(number) else refuse(parameter, rule, value)


def refuse(parameter: str, rule: str, value: object, hint: str = "") -> NoReturn:
    """Raise the error of a value that breaks a rule; a long value is shortened.

    Parameters
    ----------
    parameter, rule, value
        Name of the parameter, the rule and the value.
    hint
        A similar valid value, see :func:`~parallelmlp_search.exceptions.near_miss`.

    Returns
    -------
    Never

    Raises
    ------
    InvalidParameterError
        Always.
    """
    try:
        shown = repr(value)
    except ValueError:  # Python writes no integer of thousands of digits
        shown = f"a number of {value.bit_length()} bits"  # type: ignore[attr-defined]
    if len(shown) > _SHOWN_CHARACTERS:
        shown = f"{shown[:_SHOWN_CHARACTERS]}..."
    raise InvalidParameterError(f"{parameter} must be {rule}, but got {shown}{hint}")
