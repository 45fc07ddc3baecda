"""Domains: the values that one name may take, and the condition under which the name counts at all."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from parallelmlp_search.exceptions import InvalidParameterError, near_miss
from parallelmlp_search.space.conditions import When, is_same, plain_value
from parallelmlp_search.space.domain_base import (
    BELOW_ONE,
    Domain,
    check_count,
    check_log,
    check_order,
    check_scale,
    check_unit,
    counted_grid,
    counted_neighbour,
    integer,
    is_number,
    member,
    moved,
    real,
    without_defaults,
)

__all__ = ["Categorical", "Float", "Int", "domain_from_dict"]


@dataclass(frozen=True, slots=True, repr=False)
class Float(Domain):
    """Real numbers of [low, high], both ends included.

    Parameters
    ----------
    low, high
        Ends; ``low <= high``.
    log
        Spread evenly over the logarithm; needs ``low > 0`` and no step.
    step
        Only ``low``, ``low + step``, ... up to ``high``.
    when
        Condition without which the name does not count.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "low", real("low", self.low))
        object.__setattr__(self, "high", real("high", self.high))
        check_order(self.low, self.high)
        check_log(self.log, self.low, self.step is not None)
        if self.step is not None:
            object.__setattr__(self, "step", real("step", self.step))
            if self.step <= 0.0:
                raise InvalidParameterError(f"step must be > 0, but got {self.step!r}")

    @property
    def n_values(self) -> int | float:
        """How many values there are: infinitely many unless there is a step or ``low == high``."""
        if self.step is not None:
            # 0.3 / 0.1 is 2.9999999999999996: a hair of tolerance keeps the last value in.
            return math.floor((self.high - self.low) / self.step * (1.0 + 1e-12) + 1e-9) + 1
        return 1 if self.low == self.high else math.inf

    def contains(self, value: object) -> bool:
        """Whether the value is a number of the interval and, where there is a step, lies on it."""
        if not is_number(value):
            return False
        number = float(value)
        if self.step is None:
            return self.low <= number <= self.high
        if not math.isfinite(number):
            return False
        index = self.index_of(number)
        return 0 <= index < self.n_values and math.isclose(
            number, self.value_at(index), rel_tol=1e-9, abs_tol=1e-12
        )

    def quantile(self, u: float) -> float:
        """Value at ``u`` in [0, 1)."""
        u = check_unit(u)
        if self.step is not None:
            return self.value_at(int(u * self.n_values))
        if self.log:
            value = math.exp(math.log(self.low) + u * (math.log(self.high) - math.log(self.low)))
        else:
            value = self.low + u * (self.high - self.low)
        return min(max(value, self.low), self.high)

    def unit(self, value: object) -> float:
        """Number in [0, 1) that `quantile` maps to the value, up to rounding."""
        number = float(member(self, value))
        if self.step is not None:
            return (self.index_of(number) + 0.5) / self.n_values
        if self.low == self.high:
            return 0.5
        if self.log:
            u = (math.log(number) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        else:
            u = (number - self.low) / (self.high - self.low)
        return min(max(u, 0.0), BELOW_ONE)

    def grid(self, n: int | None = None) -> list[float]:
        """At most ``n`` values, evenly spaced (in the logarithm where `log`), both ends included."""
        if math.isfinite(self.n_values):
            return counted_grid(self, n)
        if n is None:
            raise InvalidParameterError(
                f"resolution must be given for a continuous domain, but got None for {self!r}"
            )
        if check_count(n) == 1:
            return [self.quantile(0.5)]
        inner = [self.quantile(i / (n - 1)) for i in range(1, n - 1)]
        return list(dict.fromkeys([self.low, *inner, self.high]))

    def neighbour(self, value: object, rng: np.random.Generator, scale: float) -> float:
        """A value near ``value``; see `Domain.neighbour`."""
        if math.isfinite(self.n_values):
            return float(counted_neighbour(self, value, rng, scale))
        return self.quantile(moved(self.unit(value), rng, scale))

    def to_dict(self) -> dict[str, Any]:
        """The domain as plain values."""
        return without_defaults(
            {"type": "float", "low": self.low, "high": self.high},
            {"log": self.log, "step": self.step, "when": self.when},
        )

    def value_at(self, index: int) -> float:
        """Value number ``index`` of a domain with a step."""
        if self.step is None or index == 0:
            return self.low
        # 0.1 + 2 * 0.1 is to be 0.3: two ways to reach a value must give one configuration.
        digits = 11 - math.floor(math.log10(self.step))
        value = round(self.low + index * self.step, digits)
        return min(max(value, self.low), self.high)

    def index_of(self, value: Any) -> int:
        """Inverse of `value_at`."""
        return round((float(value) - self.low) / self.step) if self.step is not None else 0


@dataclass(frozen=True, slots=True, repr=False)
class Int(Domain):
    """Integers of [low, high], both ends included.

    Parameters
    ----------
    low, high
        Ends; ``low <= high``.
    log
        Weigh each integer by its share of the logarithm; needs ``low >= 1`` and a step of 1.
    step
        Only ``low``, ``low + step``, ... up to ``high``.
    when
        Condition without which the name does not count.
    """

    low: int
    high: int
    log: bool = False
    step: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "low", integer("low", self.low))
        object.__setattr__(self, "high", integer("high", self.high))
        object.__setattr__(self, "step", integer("step", self.step))
        check_order(self.low, self.high)
        check_log(self.log, self.low, self.step != 1)
        if self.step < 1:
            raise InvalidParameterError(f"step must be >= 1, but got {self.step!r}")

    @property
    def n_values(self) -> int:
        """How many values there are."""
        return (self.high - self.low) // self.step + 1

    def contains(self, value: object) -> bool:
        """Whether the value is a whole number of the range that lies on the step."""
        if not is_number(value) or not float(value).is_integer():
            return False
        number = int(value)
        return bool(self.low <= number <= self.high) and (number - self.low) % self.step == 0

    def quantile(self, u: float) -> int:
        """Value at ``u`` in [0, 1)."""
        u = check_unit(u)
        if not self.log:
            return self.value_at(int(u * self.n_values))
        bottom, top = math.log(self.low - 0.5), math.log(self.high + 0.5)
        return min(max(math.floor(math.exp(bottom + u * (top - bottom)) + 0.5), self.low), self.high)

    def unit(self, value: object) -> float:
        """Middle of the value's cell."""
        number = int(member(self, value))
        if not self.log:
            return (self.index_of(number) + 0.5) / self.n_values
        bottom, top = math.log(self.low - 0.5), math.log(self.high + 0.5)
        return ((math.log(number - 0.5) + math.log(number + 0.5)) / 2 - bottom) / (top - bottom)

    def grid(self, n: int | None = None) -> list[int]:
        """At most ``n`` values spread over the range, both ends included; None means all."""
        return counted_grid(self, n)

    def neighbour(self, value: object, rng: np.random.Generator, scale: float) -> int:
        """Another value near ``value``; see `Domain.neighbour`."""
        return int(counted_neighbour(self, value, rng, scale))

    def to_dict(self) -> dict[str, Any]:
        """The domain as plain values."""
        return without_defaults(
            {"type": "int", "low": self.low, "high": self.high},
            {"log": self.log, "step": self.step if self.step != 1 else None, "when": self.when},
        )

    def value_at(self, index: int) -> int:
        """Integer number ``index`` of the range."""
        return self.low + self.step * index

    def index_of(self, value: Any) -> int:
        """Inverse of `value_at`."""
        return (int(value) - self.low) // self.step


@dataclass(frozen=True, slots=True, repr=False)
class Categorical(Domain):
    """Any values of a list, each as likely as the next; one value makes a constant.

    Parameters
    ----------
    choices
        Strings, numbers, booleans, None or tuples of these, all different. Lists become tuples.
    when
        Condition without which the name does not count.

    Notes
    -----
    Numbers in rising order are taken as ordered: `neighbour` then prefers the ones close by. Otherwise any
    other choice is equally near.
    """

    choices: tuple[Any, ...]

    def __post_init__(self) -> None:
        if isinstance(self.choices, str | bytes | Mapping) or not isinstance(self.choices, Iterable):
            raise InvalidParameterError(f"choices must be a list of values, but got {self.choices!r}")
        choices = tuple(plain_value("choices", choice) for choice in self.choices)
        if not choices:
            raise InvalidParameterError("choices must hold at least one value, but got none")
        for i, choice in enumerate(choices):
            if any(is_same(choice, earlier) for earlier in choices[:i]):
                raise InvalidParameterError(f"choices must all differ, but got {choice!r} twice")
        object.__setattr__(self, "choices", choices)

    @property
    def n_values(self) -> int:
        """How many choices there are."""
        return len(self.choices)

    @property
    def is_ordered(self) -> bool:
        """Whether all choices are numbers in rising order."""
        return all(is_number(choice) for choice in self.choices) and list(self.choices) == sorted(
            self.choices
        )

    def contains(self, value: object) -> bool:
        """Whether the value is one of the choices."""
        return self._find(value) is not None

    def quantile(self, u: float) -> Any:
        """Value at ``u`` in [0, 1)."""
        return self.choices[int(check_unit(u) * len(self.choices))]

    def unit(self, value: object) -> float:
        """Middle of the value's cell."""
        return (self.index_of(value) + 0.5) / len(self.choices)

    def grid(self, n: int | None = None) -> list[Any]:
        """All choices, whatever ``n`` is: to leave some out would be arbitrary."""
        if n is not None:
            check_count(n)
        return list(self.choices)

    def neighbour(self, value: object, rng: np.random.Generator, scale: float) -> Any:
        """Another choice; see `Domain.neighbour`."""
        if self.is_ordered:
            return counted_neighbour(self, value, rng, scale)
        check_scale(scale)
        index = self.index_of(value)
        if len(self.choices) == 1:
            return self.choices[0]
        return self.choices[(index + int(rng.integers(1, len(self.choices)))) % len(self.choices)]

    def to_dict(self) -> dict[str, Any]:
        """The domain as plain values; tuples become lists."""
        choices = [_listed(choice) for choice in self.choices]
        return without_defaults({"type": "categorical", "choices": choices}, {"when": self.when})

    def value_at(self, index: int) -> Any:
        """Choice number ``index``."""
        return self.choices[index]

    def index_of(self, value: Any) -> int:
        """Inverse of `value_at`."""
        index = self._find(value)
        if index is None:
            raise InvalidParameterError(f"value must be one of {list(self.choices)}, but got {value!r}")
        return index

    def _find(self, value: object) -> int | None:
        if isinstance(value, list):
            value = plain_value("value", value)
        return next((i for i, choice in enumerate(self.choices) if is_same(choice, value)), None)


_KINDS: dict[str, type[Float | Int | Categorical]] = {"float": Float, "int": Int, "categorical": Categorical}
_KEYS = {
    "float": ("type", "low", "high", "log", "step", "when"),
    "int": ("type", "low", "high", "log", "step", "when"),
    "categorical": ("type", "choices", "when"),
}
_REQUIRED = {"float": ("low", "high"), "int": ("low", "high"), "categorical": ("choices",)}


def domain_from_dict(spec: object) -> Float | Int | Categorical:
    """Domain from what a file holds.

    A mapping is `Domain.to_dict` read backwards, with ``type`` one of float, int and categorical; a list
    stands for its choices; any other value stands for itself, as a constant.

    Raises
    ------
    InvalidParameterError
        If a key is unknown or missing, or a value breaks its rule.
    """
    if isinstance(spec, list | tuple):
        return Categorical(tuple(spec))
    if not isinstance(spec, Mapping):
        return Categorical((spec,))
    kind = spec.get("type", "categorical" if "choices" in spec else None)
    if kind not in _KINDS:
        hint = near_miss(kind, _KINDS) if isinstance(kind, str) else ""
        raise InvalidParameterError(f"type must be one of {', '.join(_KINDS)}, but got {kind!r}{hint}")
    for key in spec:
        if key not in _KEYS[kind]:
            hint = near_miss(str(key), _KEYS[kind])
            raise InvalidParameterError(f"a domain of type {kind} has no key {key!r}{hint}")
    for key in _REQUIRED[kind]:
        if key not in spec:
            raise InvalidParameterError(f"a domain of type {kind} must have the key {key!r}")
    arguments = {key: value for key, value in spec.items() if key not in ("type", "when")}
    when = When.from_dict(spec["when"]) if spec.get("when") is not None else None
    return _KINDS[kind](**arguments, when=when)


def _listed(value: Any) -> Any:
    return [_listed(item) for item in value] if isinstance(value, tuple) else value
