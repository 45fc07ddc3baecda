"""Checks of the values of a configuration, each of which turns a value into a plain Python one."""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Integral, Real

import numpy as np

from parallelmlp_search.exceptions import InvalidParameterError, near_miss

__all__ = ["name", "non_negative", "positive", "share", "switch", "whole", "widths"]


def name(parameter: str, value: object, allowed: tuple[str, ...]) -> str:
    """One of the allowed texts."""
    if isinstance(value, str) and value in allowed:
        return str(value)
    hint = near_miss(value, allowed) if isinstance(value, str) else ""
    raise InvalidParameterError(f"{parameter} must be one of {', '.join(allowed)}, but got {value!r}{hint}")


def _number(parameter: str, value: object, rule: str) -> float:
    # bool is a subclass of int: `dropout=True` is a slip, not a rate of 1.
    if isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    raise InvalidParameterError(f"{parameter} must be {rule}, but got {value!r}")


def positive(parameter: str, value: object, most: float = math.inf) -> float:
    """A finite number > 0, and not above ``most``."""
    rule = "> 0" if most == math.inf else f"in (0, {most:g}]"
    number = _number(parameter, value, f"a finite number {rule}")
    if not 0.0 < number <= most:
        raise InvalidParameterError(f"{parameter} must be {rule}, but got {value!r}")
    return number


def non_negative(parameter: str, value: object) -> float:
    """A finite number >= 0."""
    number = _number(parameter, value, "a finite number >= 0")
    if number < 0.0:
        raise InvalidParameterError(f"{parameter} must be >= 0, but got {value!r}")
    return number


def share(parameter: str, value: object) -> float:
    """A number in [0, 1)."""
    number = _number(parameter, value, "a number in [0, 1)")
    if not 0.0 <= number < 1.0:
        raise InvalidParameterError(f"{parameter} must be in [0, 1), but got {value!r}")
    return number


def whole(parameter: str, value: object, least: int) -> int:
    """An integer that is not below ``least``."""
    # A whole float is let through, since tables and JSON turn a column of integers with gaps into floats.
    is_whole = isinstance(value, Integral) or (isinstance(value, Real) and float(value).is_integer())
    if not is_whole or isinstance(value, bool | np.bool_):
        raise InvalidParameterError(f"{parameter} must be an integer >= {least}, but got {value!r}")
    number = int(value)  # type: ignore[call-overload]
    if number < least:
        raise InvalidParameterError(f"{parameter} must be >= {least}, but got {value!r}")
    return int(number)


def switch(parameter: str, value: object) -> bool:
    """True or False."""
    if isinstance(value, bool | np.bool_):
        return bool(value)
    raise InvalidParameterError(f"{parameter} must be True or False, but got {value!r}")


def widths(value: object) -> tuple[int, ...]:
    """Integers >= 1, perhaps none."""
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise InvalidParameterError(f"widths must be a sequence of integers >= 1, but got {value!r}")
    return tuple(whole("widths", width, least=1) for width in value)
