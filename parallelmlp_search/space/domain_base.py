"""What every domain is: a map from the unit interval to values, and the moves and checks they share."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields
from numbers import Integral, Real
from typing import Any, TypeGuard

import numpy as np

from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.space.conditions import When

__all__ = [
    "BELOW_ONE",
    "Domain",
    "check_count",
    "check_log",
    "check_order",
    "check_scale",
    "check_unit",
    "counted_grid",
    "counted_neighbour",
    "integer",
    "is_number",
    "member",
    "moved",
    "real",
    "without_defaults",
]

BELOW_ONE = math.nextafter(1.0, 0.0)


@dataclass(frozen=True, slots=True)
class Domain(ABC):
    """What `Float`, `Int` and `Categorical` share. Frozen and hashable.

    Every domain is a map from the unit interval to its values, so that random, quasi-random and evolutionary
    samplers need to know nothing else: `quantile` goes from [0, 1) to a value and `unit` comes back (to the
    middle of the value's cell, where several numbers lead to one value).
    """

    when: When | None = field(default=None, kw_only=True)

    @property
    @abstractmethod
    def n_values(self) -> int | float:
        """How many values there are: an int, or ``math.inf``."""

    @abstractmethod
    def contains(self, value: object) -> bool:
        """Whether the value belongs to the domain."""

    @abstractmethod
    def quantile(self, u: float) -> Any:
        """Value at ``u`` in [0, 1)."""

    @abstractmethod
    def unit(self, value: object) -> float:
        """Number in [0, 1) that `quantile` maps to the value."""

    @abstractmethod
    def grid(self, n: int | None = None) -> list[Any]:
        """At most ``n`` values spread over the domain, ends included; None means all of a finite domain."""

    @abstractmethod
    def neighbour(self, value: object, rng: np.random.Generator, scale: float) -> Any:
        """A value near ``value``.

        ``scale`` is the standard deviation of the move in units of the whole domain. Where the values can be
        counted the result differs from ``value`` whenever there is another one.
        """

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """The domain as values that JSON, YAML and TOML can hold; `domain_from_dict` is the inverse."""

    def __repr__(self) -> str:
        # Only what differs from the default: the text ends up in error messages.
        given = [(f.name, getattr(self, f.name)) for f in fields(self) if getattr(self, f.name) != f.default]
        given.sort(key=lambda pair: pair[0] == "when")
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in given)})"

    def sample(self, rng: np.random.Generator) -> Any:
        """A random value."""
        return self.quantile(float(rng.random()))

    @abstractmethod
    def value_at(self, index: int) -> Any:
        """Value number ``index`` of a domain whose values can be counted."""

    @abstractmethod
    def index_of(self, value: Any) -> int:
        """Inverse of `value_at`."""


def counted_grid(domain: Domain, n: int | None) -> list[Any]:
    """At most ``n`` of a counted domain's values, ends included."""
    count = int(domain.n_values)
    if n is None or check_count(n) >= count:
        return [domain.value_at(index) for index in range(count)]
    if n == 1:
        return [domain.quantile(0.5)]
    return list(dict.fromkeys(domain.quantile(min(i / (n - 1), BELOW_ONE)) for i in range(n)))


def counted_neighbour(domain: Domain, value: object, rng: np.random.Generator, scale: float) -> Any:
    """A move along the unit interval, or one step where the move would not leave the value's cell."""
    index = domain.index_of(member(domain, value))
    other = domain.quantile(moved(domain.unit(value), rng, scale))
    last = int(domain.n_values) - 1
    if last == 0 or domain.index_of(other) != index:
        return other
    step = 1 if index == 0 or (index < last and bool(rng.integers(2))) else -1
    return domain.value_at(index + step)


def moved(u: float, rng: np.random.Generator, scale: float) -> float:
    """Normal step from ``u``, reflected at both ends, so that the ends do not collect mass."""
    folded = (u + check_scale(scale) * float(rng.standard_normal())) % 2.0
    return min(folded if folded < 1.0 else 2.0 - folded, BELOW_ONE)


def without_defaults(required: dict[str, Any], optional: dict[str, Any]) -> dict[str, Any]:
    """Mapping for a file: optional keys only where they say something."""
    kept = {key: value for key, value in optional.items() if value is not None and value is not False}
    if "when" in kept:
        kept["when"] = kept["when"].to_dict()
    return required | kept


def member(domain: Domain, value: object) -> Any:
    """The value, if it belongs to the domain."""
    if not domain.contains(value):
        raise InvalidParameterError(f"value must belong to {domain!r}, but got {value!r}")
    return value


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a real number, numpy's included, and not a boolean."""
    return isinstance(value, Real) and not isinstance(value, bool)


def real(parameter: str, value: object) -> float:
    """A finite number as a plain float."""
    if is_number(value) and math.isfinite(value):
        return float(value)
    raise InvalidParameterError(f"{parameter} must be a finite number, but got {value!r}")


def integer(parameter: str, value: object) -> int:
    """An integer as a plain int."""
    if isinstance(value, Integral) and not isinstance(value, bool):
        return int(value)
    raise InvalidParameterError(f"{parameter} must be an integer, but got {value!r}")


def check_order(low: float, high: float) -> None:
    """Refuse an empty interval."""
    if low > high:
        raise InvalidParameterError(f"low must be <= high, but got low={low!r} and high={high!r}")


def check_log(log: object, low: float, has_step: bool) -> None:
    """Refuse a logarithm of what has none, or of a stepped domain."""
    if not isinstance(log, bool):
        raise InvalidParameterError(f"log must be True or False, but got {log!r}")
    if log and low <= 0:
        raise InvalidParameterError(f"low must be > 0 where log is True, but got {low!r}")
    if log and has_step:
        raise InvalidParameterError("step must be left out where log is True")


def check_unit(u: float) -> float:
    """The number, if it is in [0, 1)."""
    if not 0.0 <= u < 1.0:
        raise InvalidParameterError(f"u must be in [0, 1), but got {u!r}")
    return u


def check_count(n: int) -> int:
    """The number, if it can count grid points."""
    if n < 1:
        raise InvalidParameterError(f"resolution must be >= 1, but got {n!r}")
    return n


def check_scale(scale: float) -> float:
    """The number, if it can be the size of a move."""
    if not scale > 0.0:
        raise InvalidParameterError(f"scale must be > 0, but got {scale!r}")
    return scale
