"""Conditions on the value of another name of a search space."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np

from parallelmlp_search._checks import is_number
from parallelmlp_search.exceptions import InvalidParameterError, near_miss

_KEYS = ("name", "equals", "among", "at_least", "at_most")
_UNSET: Any = object()


@dataclass(frozen=True, slots=True, init=False, repr=False)
class When:
    """Condition on the value of another name.

    A name is inactive if its condition fails or refers to an inactive name. Inactive names are not sampled,
    and the configuration keeps their default.

    Parameters
    ----------
    name
        The other name. ``"depth"`` is valid in every space.
    equals
        Only value for which the condition holds.
    among
        Values for which it holds.
    at_least, at_most
        Bounds, included. Both together make an interval.

    Raises
    ------
    InvalidParameterError
        If not exactly one of `equals`, `among` and the bounds is given, or a value is of the wrong type.

    Examples
    --------
    >>> When("depth", at_least=2).holds(3)
    True
    >>> When("optimizer", equals="sgd").holds("adamw")
    False
    """

    name: str
    among: tuple[Any, ...] | None
    at_least: float | None
    at_most: float | None

    def __init__(
        self,
        name: str,
        *,
        equals: Any = _UNSET,
        among: Iterable[Any] | None = None,
        at_least: float | None = None,
        at_most: float | None = None,
    ) -> None:
        bounds = {"at_least": at_least, "at_most": at_most}
        is_bounded = at_least is not None or at_most is not None
        if [equals is not _UNSET, among is not None, is_bounded].count(True) != 1:
            raise InvalidParameterError(
                f"a condition on {name!r} must have exactly one of equals, among and bounds "
                "(at_least, at_most)"
            )
        if isinstance(among, str | bytes):
            raise InvalidParameterError(f"among must be a list of values, but got {among!r}")
        values: tuple[Any, ...] | None = None
        if equals is not _UNSET:
            values = (plain_value("equals", equals),)
        elif among is not None:
            values = tuple(plain_value("among", value) for value in among)
        object.__setattr__(self, "name", str(name))
        object.__setattr__(self, "among", values)
        for parameter, bound in bounds.items():
            if bound is not None and (not is_number(bound) or bound != bound):
                raise InvalidParameterError(f"{parameter} must be a number, but got {bound!r}")
            object.__setattr__(self, parameter, None if bound is None else plain_value(parameter, bound))

    def __repr__(self) -> str:
        spec = self.to_dict()
        del spec["name"]
        return f"When({', '.join([repr(self.name), *(f'{key}={value!r}' for key, value in spec.items())])})"

    def holds(self, value: object) -> bool:
        """Return True if the value of the other name fulfils the condition."""
        if self.among is not None:
            return any(is_same(value, allowed) for allowed in self.among)
        if not is_number(value):
            return False
        return (self.at_least is None or float(value) >= self.at_least) and (
            self.at_most is None or float(value) <= self.at_most
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON, YAML and TOML can hold; `from_dict` is the inverse."""
        spec: dict[str, Any] = {"name": self.name}
        if self.among is not None:
            listed = [list(value) if isinstance(value, tuple) else value for value in self.among]
            spec |= {"equals": listed[0]} if len(listed) == 1 else {"among": listed}
        if self.at_least is not None:
            spec["at_least"] = self.at_least
        if self.at_most is not None:
            spec["at_most"] = self.at_most
        return spec

    @classmethod
    def from_dict(cls, spec: object) -> When:
        """Return the condition that a mapping describes; its keys are the constructor's parameters.

        Raises
        ------
        InvalidParameterError
            If a key is unknown or missing, or a value breaks its rule.
        """
        if not isinstance(spec, Mapping) or "name" not in spec:
            raise InvalidParameterError(f"when must be a mapping with the key 'name', but got {spec!r}")
        for key in spec:
            if key not in _KEYS:
                raise InvalidParameterError(f"a condition has no key {key!r}{near_miss(str(key), _KEYS)}")
        return cls(**spec)


def plain_value(parameter: str, value: object) -> Any:
    """Return a value as plain Python: numpy scalars are unwrapped, lists and arrays become tuples.

    Raises
    ------
    InvalidParameterError
        If the value is of another type, or holds one.
    """
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if value is None:
        return None
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real) and value == value:  # not NaN; an integer may be too large for math.isnan
        return float(value)
    if isinstance(value, list | tuple | np.ndarray):
        return tuple(plain_value(parameter, item) for item in value)
    raise InvalidParameterError(
        f"{parameter} must hold strings, numbers, booleans, None or lists of these, but got {value!r}"
    )


def is_same(a: object, b: object) -> bool:
    """Return True for equal values; unlike ``==``, True and 1 differ."""
    return isinstance(a, bool) == isinstance(b, bool) and a == b
