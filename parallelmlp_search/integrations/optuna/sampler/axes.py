"""An Optuna distribution of any kind as a domain, so that the moves of our own search fit any study."""

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

__all__ = ["Axis"]


@dataclass(frozen=True, slots=True)
class Axis:
    """A parameter: its distribution, and the domain that its *places* belong to.

    The place of a number is the number itself. Choices may be anything at all, also what a domain would not
    hold, so the place of a choice is its index: a number where the choices are numbers in rising order, and
    have neighbours; else a text, and any other choice is equally near.
    """

    distribution: BaseDistribution
    domain: Float | Int | Categorical

    @classmethod
    def of(cls, distribution: BaseDistribution) -> Axis:
        """Axis of a distribution.

        Raises
        ------
        InvalidParameterError
            If the distribution is none of the three kinds that Optuna has.
        """
        if isinstance(distribution, FloatDistribution | IntDistribution):
            return cls(distribution, number_domain(distribution))
        if isinstance(distribution, CategoricalDistribution):
            choices = distribution.choices
            if _is_rising(choices):
                return cls(distribution, Int(0, len(choices) - 1))
            return cls(distribution, Categorical(tuple(str(index) for index in range(len(choices)))))
        raise InvalidParameterError(
            f"a distribution must be a float, int or categorical one, but got {distribution!r}"
        )

    def place(self, value: Any) -> Any:
        """Place of a value; what lies on a step is rounded to it, so that equal values have equal places."""
        if isinstance(self.distribution, CategoricalDistribution):
            index = int(self.distribution.to_internal_repr(value))
            return index if isinstance(self.domain, Int) else str(index)
        if isinstance(self.domain, Float) and self.domain.step is not None:
            return self.domain.value_at(self.domain.index_of(value))
        return value

    def value(self, place: Any) -> Any:
        """Value at a place."""
        if isinstance(self.distribution, CategoricalDistribution):
            return self.distribution.choices[int(place)]
        return place

    def accepts(self, other: BaseDistribution, value: Any) -> bool:
        """Whether a value that was drawn from another distribution, of another trial, fits this one."""
        if type(other) is not type(self.distribution):
            return False
        if isinstance(self.distribution, CategoricalDistribution):
            return other == self.distribution
        return self.domain.contains(value)


def _is_rising(choices: tuple[Any, ...]) -> bool:
    return all(is_number(choice) for choice in choices) and all(
        low < high for low, high in itertools.pairwise(choices)
    )
