"""Base class of the domains."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.space.conditions import When

BELOW_ONE = math.nextafter(1.0, 0.0)
"""Largest float below 1."""


@dataclass(frozen=True, slots=True)
class Domain(ABC):
    """Values that a name may take. Frozen and hashable.

    A domain maps the unit interval to its values, so that random, quasi-random and evolutionary samplers need
    nothing else. `quantile` maps a number in [0, 1) to a value. `unit` maps the value back, to the middle of
    its cell where several numbers map to one value.

    A domain is countable if `n_values` is finite. `value_at` and `index_of` exist for countable domains only.

    Parameters
    ----------
    when
        Condition for the name to be active, or None for a name that always is.
    """

    when: When | None = field(default=None, kw_only=True)

    @property
    @abstractmethod
    def n_values(self) -> int | float:
        """Number of values: an int, or ``math.inf``."""

    @property
    def is_ordered(self) -> bool:
        """True if values of neighbouring indices are close to each other."""
        return True

    @abstractmethod
    def contains(self, value: object) -> bool:
        """Return True if the value belongs to the domain."""

    @abstractmethod
    def quantile(self, u: float) -> Any:
        """Return the value at ``u`` in [0, 1)."""

    @abstractmethod
    def unit(self, value: object) -> float:
        """Return a number in [0, 1) that `quantile` maps to the value, up to rounding."""

    @abstractmethod
    def value_at(self, index: int) -> Any:
        """Return value number ``index`` of a countable domain."""

    @abstractmethod
    def index_of(self, value: Any) -> int:
        """Return the index of a value; the inverse of `value_at`."""

    def check(self, value: object) -> Any:
        """Return the value if it belongs to the domain.

        Raises
        ------
        InvalidParameterError
            If it does not.
        """
        if not self.contains(value):
            raise InvalidParameterError(f"value must belong to {self!r}, but got {value!r}")
        return value

    def sample(self, rng: np.random.Generator) -> Any:
        """Return a random value."""
        return self.quantile(float(rng.random()))

    def grid(self, n: int | None = None) -> list[Any]:
        """Return at most ``n`` evenly spread values, both ends included; None means all values.

        Raises
        ------
        InvalidParameterError
            If ``n`` is below 1, or None for a continuous domain.
        """
        count = int(self.n_values)
        if n is None or check_resolution(n) >= count:
            return [self.value_at(index) for index in range(count)]
        if n == 1:
            return [self.quantile(0.5)]
        return list(dict.fromkeys(self.quantile(min(i / (n - 1), BELOW_ONE)) for i in range(n)))

    def neighbour(self, value: object, rng: np.random.Generator, scale: float) -> Any:
        """Return a random value near ``value``.

        Parameters
        ----------
        value
            Value of the domain.
        rng
            Source of random numbers.
        scale
            Standard deviation of the move in units of the whole domain, > 0.

        Returns
        -------
        value
            Value of the domain. In a countable domain of several values it differs from ``value``.

        Raises
        ------
        InvalidParameterError
            If the value does not belong to the domain or ``scale`` is not positive.
        """
        if not scale > 0.0:
            raise InvalidParameterError(f"scale must be > 0, but got {scale!r}")
        if math.isinf(self.n_values):
            return self.quantile(reflected_step(self.unit(value), rng, scale))
        index = self.index_of(self.check(value))
        last = int(self.n_values) - 1
        if not self.is_ordered:
            # all other values are equally near
            offset = int(rng.integers(1, last + 1)) if last else 0
            return self.value_at((index + offset) % (last + 1))
        other = self.quantile(reflected_step(self.unit(value), rng, scale))
        if last == 0 or self.index_of(other) != index:
            return other
        # the move stayed in the cell of the value: go one step instead
        step = 1 if index == 0 or (index < last and bool(rng.integers(2))) else -1
        return self.value_at(index + step)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON, YAML and TOML can hold; `domain_from_dict` is the inverse."""
        values: dict[str, Any] = {"type": type(self).__name__.lower()}
        for name, value in self._given():
            values[name] = value.to_dict() if isinstance(value, When) else _listed(value)
        return values

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self._given())})"

    def _given(self) -> Iterator[tuple[str, Any]]:
        """Fields that differ from their default, ``when`` last."""
        for one in sorted(fields(self), key=lambda one: one.name == "when"):
            value = getattr(self, one.name)
            if value != one.default:
                yield one.name, value


def reflected_step(u: float, rng: np.random.Generator, scale: float) -> float:
    """Return ``u`` moved by a normal step and reflected at 0 and 1, so that the ends do not collect mass.

    Parameters
    ----------
    u
        Number in [0, 1).
    rng
        Source of random numbers.
    scale
        Standard deviation of the step.

    Returns
    -------
    float
        Number in [0, 1).
    """
    position = (u + scale * float(rng.standard_normal())) % 2.0
    return min(position if position < 1.0 else 2.0 - position, BELOW_ONE)


def check_unit(u: float) -> float:
    """Return the number if it is in [0, 1).

    Raises
    ------
    InvalidParameterError
        If it is not.
    """
    if not 0.0 <= u < 1.0:
        raise InvalidParameterError(f"u must be in [0, 1), but got {u!r}")
    return u


def check_resolution(n: int) -> int:
    """Return the number of grid points if it is at least 1.

    Raises
    ------
    InvalidParameterError
        If it is not.
    """
    if n < 1:
        raise InvalidParameterError(f"resolution must be >= 1, but got {n!r}")
    return n


def _listed(value: Any) -> Any:
    return [_listed(item) for item in value] if isinstance(value, tuple) else value
