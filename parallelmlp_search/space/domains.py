"""Domains of numbers and choices."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any

from parallelmlp_search._checks import check_boolean, check_finite, check_integer, check_positive, is_number
from parallelmlp_search.exceptions import InvalidParameterError, near_miss
from parallelmlp_search.space.conditions import When, is_same, plain_value
from parallelmlp_search.space.domain_base import BELOW_ONE, Domain, check_resolution, check_unit

_MAX_STEPS = 2**53  # a float counts exactly up to here


@dataclass(frozen=True, slots=True, repr=False)
class Float(Domain):
    """Real numbers of [low, high], both ends included.

    Parameters
    ----------
    low, high
        Ends; ``low <= high``.
    log
        Spread values evenly over the logarithm; needs ``low > 0`` and no step.
    step
        Restrict the values to ``low``, ``low + step``, ... up to ``high``.
    when
        Condition for the name to be active.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "low", check_finite("low", self.low))
        object.__setattr__(self, "high", check_finite("high", self.high))
        if self.step is not None:
            object.__setattr__(self, "step", check_positive("step", self.step))
        _check_range(self, has_step=self.step is not None)
        if self.step is not None and (self.high - self.low) / self.step > _MAX_STEPS:
            raise InvalidParameterError(f"step must give at most {_MAX_STEPS} values, but got {self.step!r}")

    @property
    def n_values(self) -> int | float:
        """Number of values: infinite unless there is a step or ``low == high``."""
        if self.step is not None:
            # 0.3 / 0.1 is 2.9999999999999996: the tolerance keeps the last value
            return math.floor((self.high - self.low) / self.step * (1.0 + 1e-12) + 1e-9) + 1
        return 1 if self.low == self.high else math.inf

    def contains(self, value: object) -> bool:
        """Return True for a number of the interval that lies on the step, if there is one."""
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
        u = check_unit(u)
        if self.step is not None:
            return self.value_at(int(u * self.n_values))
        if self.log:
            value = math.exp(math.log(self.low) + u * (math.log(self.high) - math.log(self.low)))
        else:
            value = self.low + u * (self.high - self.low)
        return min(max(value, self.low), self.high)

    def unit(self, value: object) -> float:
        """Return a number in [0, 1) that `quantile` maps to the value, up to rounding."""
        number = float(self.check(value))
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
        """Return at most ``n`` evenly spread values, both ends included; None means all values.

        Raises
        ------
        InvalidParameterError
            If ``n`` is below 1, or None for a continuous domain.
        """
        if math.isfinite(self.n_values):
            return Domain.grid(self, n)
        if n is None:
            raise InvalidParameterError(
                f"resolution must be given for a continuous domain, but got None for {self!r}"
            )
        if check_resolution(n) == 1:
            return [self.quantile(0.5)]
        inner = [self.quantile(i / (n - 1)) for i in range(1, n - 1)]
        return list(dict.fromkeys([self.low, *inner, self.high]))

    def value_at(self, index: int) -> float:
        if self.step is None or index == 0:
            return self.low
        # rounded, so that 0.1 + 2 * 0.1 is 0.3 and equal values give one configuration
        digits = 11 - math.floor(math.log10(self.step))
        value = round(self.low + index * self.step, digits)
        return min(max(value, self.low), self.high)

    def index_of(self, value: Any) -> int:
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
        Restrict the values to ``low``, ``low + step``, ... up to ``high``.
    when
        Condition for the name to be active.
    """

    low: int
    high: int
    log: bool = False
    step: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "low", check_integer("low", self.low))
        object.__setattr__(self, "high", check_integer("high", self.high))
        object.__setattr__(self, "step", check_integer("step", self.step, 1))
        _check_range(self, has_step=self.step != 1)

    @property
    def n_values(self) -> int:
        return (self.high - self.low) // self.step + 1

    def contains(self, value: object) -> bool:
        """Return True for a whole number of the range that lies on the step."""
        if not is_number(value) or not float(value).is_integer():
            return False
        number = int(value)
        return bool(self.low <= number <= self.high) and (number - self.low) % self.step == 0

    def quantile(self, u: float) -> int:
        u = check_unit(u)
        if not self.log:
            return self.value_at(int(u * self.n_values))
        bottom, top = math.log(self.low - 0.5), math.log(self.high + 0.5)
        return min(max(math.floor(math.exp(bottom + u * (top - bottom)) + 0.5), self.low), self.high)

    def unit(self, value: object) -> float:
        """Return the middle of the value's cell."""
        number = int(self.check(value))
        if not self.log:
            return (self.index_of(number) + 0.5) / self.n_values
        bottom, top = math.log(self.low - 0.5), math.log(self.high + 0.5)
        return ((math.log(number - 0.5) + math.log(number + 0.5)) / 2 - bottom) / (top - bottom)

    def value_at(self, index: int) -> int:
        return self.low + self.step * index

    def index_of(self, value: Any) -> int:
        return (int(value) - self.low) // self.step


@dataclass(frozen=True, slots=True, repr=False)
class Categorical(Domain):
    """Values of a list, all equally likely; one value makes a constant.

    Numbers in rising order are ordered: `neighbour` then prefers close values. Otherwise all other choices
    are equally near.

    Parameters
    ----------
    choices
        Strings, numbers, booleans, None or tuples of these, all different. Lists become tuples.
    when
        Condition for the name to be active.
    """

    choices: tuple[Any, ...]

    def __post_init__(self) -> None:
        if isinstance(self.choices, str | bytes | Mapping) or not isinstance(self.choices, Iterable):
            raise InvalidParameterError(f"choices must be a list of values, but got {self.choices!r}")
        choices = tuple(plain_value("choices", choice) for choice in self.choices)
        if not choices:
            raise InvalidParameterError("choices must hold at least one value, but got none")
        seen = set()
        for choice in choices:
            key = (isinstance(choice, bool), choice)  # as in `is_same`
            if key in seen:
                raise InvalidParameterError(f"choices must all differ, but got {choice!r} twice")
            seen.add(key)
        object.__setattr__(self, "choices", choices)

    @property
    def n_values(self) -> int:
        return len(self.choices)

    @property
    def is_ordered(self) -> bool:
        """True if all choices are numbers in rising order."""
        return all(is_number(choice) for choice in self.choices) and list(self.choices) == sorted(
            self.choices
        )

    def contains(self, value: object) -> bool:
        """Return True if the value is one of the choices."""
        return self._find(value) is not None

    def quantile(self, u: float) -> Any:
        return self.choices[int(check_unit(u) * len(self.choices))]

    def unit(self, value: object) -> float:
        """Return the middle of the value's cell."""
        return (self.index_of(value) + 0.5) / len(self.choices)

    def grid(self, n: int | None = None) -> list[Any]:
        """Return all choices for any ``n``, since leaving some out would be arbitrary."""
        if n is not None:
            check_resolution(n)
        return list(self.choices)

    def value_at(self, index: int) -> Any:
        return self.choices[index]

    def index_of(self, value: Any) -> int:
        """Return the index of a value; the inverse of `value_at`.

        Raises
        ------
        InvalidParameterError
            If the value is not one of the choices.
        """
        index = self._find(value)
        if index is None:
            raise InvalidParameterError(f"value must be one of {list(self.choices)}, but got {value!r}")
        return index

    def _find(self, value: object) -> int | None:
        if isinstance(value, list):
            value = plain_value("value", value)
        return next((i for i, choice in enumerate(self.choices) if is_same(choice, value)), None)


_TYPES: dict[str, type[Float | Int | Categorical]] = {"float": Float, "int": Int, "categorical": Categorical}


def domain_from_dict(spec: object) -> Float | Int | Categorical:
    """Return the domain that an entry of a file describes.

    Parameters
    ----------
    spec
        A mapping as written by `Domain.to_dict`, with ``type`` one of float, int and categorical; or a list
        of choices; or any other value, as a constant.

    Returns
    -------
    Domain
        The domain.

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
    if not isinstance(kind, str) or kind not in _TYPES:
        hint = near_miss(kind, _TYPES) if isinstance(kind, str) else ""
        raise InvalidParameterError(f"type must be one of {', '.join(_TYPES)}, but got {kind!r}{hint}")
    defaults = {one.name: one.default for one in fields(_TYPES[kind])}
    for key in spec:
        if key not in ("type", *defaults):
            hint = near_miss(str(key), defaults)
            raise InvalidParameterError(f"a domain of type {kind} has no key {key!r}{hint}")
    for key, default in defaults.items():
        if default is MISSING and key not in spec:
            raise InvalidParameterError(f"a domain of type {kind} must have the key {key!r}")
    arguments = {key: value for key, value in spec.items() if key not in ("type", "when")}
    when = When.from_dict(spec["when"]) if spec.get("when") is not None else None
    return _TYPES[kind](**arguments, when=when)


def _check_range(domain: Float | Int, *, has_step: bool) -> None:
    low, high, log = domain.low, domain.high, check_boolean("log", domain.log)
    if low > high:
        raise InvalidParameterError(f"low must be <= high, but got low={low!r} and high={high!r}")
    if log and low <= 0:
        raise InvalidParameterError(f"low must be > 0 where log is True, but got {low!r}")
    if log and has_step:
        raise InvalidParameterError("step must be left out where log is True")
