"""Optuna distributions as domains, so that the moves of this package's search fit any study."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from parallelmlp_search._checks import is_number
from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.search.proposals.distributions import number_domain
from parallelmlp_search.space import Categorical, Float, Int


@dataclass(frozen=True, slots=True)
class Axis:
    """Parameter with its distribution and a domain, whose values encode those of the distribution.

    A number is encoded as itself, a choice by its index, because choices may be anything. The index is an
    integer if the choices are increasing numbers, which have neighbours, else a string.
    """

    name: str
    distribution: BaseDistribution
    domain: Float | Int | Categorical

    @classmethod
    def of(cls, name: str, distribution: BaseDistribution) -> Axis:
        """Return the axis of a parameter.

        Raises
        ------
        InvalidParameterError
            If the distribution is not a float, int or categorical one.
        """
        if isinstance(distribution, FloatDistribution | IntDistribution):
            return cls(name, distribution, number_domain(distribution))
        if isinstance(distribution, CategoricalDistribution):
            n_choices = len(distribution.choices)
            if _is_increasing(distribution.choices):
                return cls(name, distribution, Int(0, n_choices - 1))
            return cls(name, distribution, Categorical(tuple(str(index) for index in range(n_choices))))
        raise InvalidParameterError(
            f"a distribution must be a float, int or categorical one, but got {distribution!r}"
        )

    def encode(self, value: Any) -> Any:
        """Return the code of a value; stepped floats are rounded, so that equal values have equal codes."""
        if isinstance(self.distribution, CategoricalDistribution):
            index = int(self.distribution.to_internal_repr(value))
            return index if isinstance(self.domain, Int) else str(index)
        if isinstance(self.domain, Float) and self.domain.step is not None:
            return self.domain.value_at(self.domain.index_of(value))
        return value

    def decode(self, code: Any) -> Any:
        """Return the value of a code."""
        if isinstance(self.distribution, CategoricalDistribution):
            return self.distribution.choices[int(code)]
        return code

    def accepts(self, other: BaseDistribution, value: Any) -> bool:
        """Return True if a value from another trial's distribution fits this one."""
        if type(other) is not type(self.distribution):
            return False
        if isinstance(self.distribution, CategoricalDistribution):
            return other == self.distribution
        return self.domain.contains(value)


def _is_increasing(choices: tuple[Any, ...]) -> bool:
    return all(is_number(choice) for choice in choices) and all(
        low < high for low, high in itertools.pairwise(choices)
    )
