"""Whatever a search over parameters is told to try, as search spaces.

Lists and scipy's distributions as of ``RandomizedSearchCV``, lists alone as of ``GridSearchCV``, Optuna's
distributions as of ``OptunaSearchCV``, our own domains and spaces, and mixtures of these.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution

from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.search.proposals.distributions import space_from_distributions
from parallelmlp_search.space import Domain, Float, Int, SearchSpace
from parallelmlp_search.space.conditions import plain_value
from parallelmlp_search.space.domain_base import check_resolution, check_unit
from parallelmlp_search.space.domains import domain_from_dict

__all__ = ["Distribution", "spaces_of"]

MIN_PROBABILITY = 1e-9
"""Quantiles of distributions without ends are taken this far from 0 and 1."""


@dataclass(frozen=True, slots=True, repr=False)
class Distribution(Domain):
    """A distribution with a method ``rvs``, scipy's or one of the user's own.

    Parameters
    ----------
    distribution
        Frozen distribution. Without a method ``ppf``, the point of the unit interval seeds ``rvs``.
    """

    distribution: Any

    @property
    def n_values(self) -> float:
        """Taken as infinitely many."""
        return math.inf

    def contains(self, value: object) -> bool:
        """Any value: what a distribution can give is its own affair."""
        return True

    def quantile(self, u: float) -> Any:
        """Value at ``u`` in [0, 1)."""
        u = min(max(check_unit(u), MIN_PROBABILITY), 1.0 - MIN_PROBABILITY)
        if hasattr(self.distribution, "ppf"):
            return self._plain(self.distribution.ppf(u))
        return self._plain(self.distribution.rvs(random_state=np.random.RandomState(int(u * 2**32))))

    def unit(self, value: object) -> float:
        """Share of the distribution up to the value; 0.5 where it cannot tell."""
        if not hasattr(self.distribution, "cdf"):
            return 0.5
        return min(max(float(self.distribution.cdf(value)), 0.0), 1.0 - MIN_PROBABILITY)

    def grid(self, n: int | None = None) -> list[Any]:
        """``n`` values at even quantiles."""
        if n is None:
            raise InvalidParameterError(
                f"a grid needs lists of values, but got {_name_of(self.distribution)}: draw at random instead"
            )
        return [self.quantile((index + 0.5) / n) for index in range(check_resolution(n))]

    def to_dict(self) -> dict[str, Any]:
        """Refused: there is no telling what a distribution is made of."""
        raise InvalidParameterError(f"{_name_of(self.distribution)} cannot be written as plain values")

    def value_at(self, index: int) -> Any:
        """Refused: the values cannot be counted."""
        raise InvalidParameterError(f"the values of {_name_of(self.distribution)} cannot be counted")

    def index_of(self, value: Any) -> int:
        """Refused: the values cannot be counted."""
        raise InvalidParameterError(f"the values of {_name_of(self.distribution)} cannot be counted")

    def _plain(self, value: Any) -> Any:
        plain = plain_value("a distribution", np.asarray(value).item() if np.ndim(value) == 0 else value)
        # the quantiles of scipy's discrete distributions are floats
        whole = isinstance(plain, float) and plain.is_integer() and _is_discrete(self.distribution)
        return int(plain) if whole else plain

    def __repr__(self) -> str:
        return _name_of(self.distribution)


def spaces_of(given: Any, *, prefix: str = "") -> list[SearchSpace]:
    """Search spaces of whatever a user may give.

    Parameters
    ----------
    given
        A search space, a preset's name, a file; a mapping from names to lists, distributions, domains or
        single values; or a list of such mappings.
    prefix
        What comes before each name of a mapping: the last step of a pipeline and two underscores.

    Raises
    ------
    InvalidParameterError
        If a name is no field of a configuration, or a value is none that it may have.
    """
    if isinstance(given, SearchSpace | str | os.PathLike):
        return [SearchSpace.resolve(given)]
    parts = [given] if isinstance(given, Mapping) else given
    if not isinstance(parts, Sequence) or not parts or not all(isinstance(part, Mapping) for part in parts):
        raise InvalidParameterError(
            "param_distributions must be a mapping, a list of mappings, a SearchSpace, a preset's name or a "
            f"path, but got {given!r}"
        )
    return [_space(part, prefix) for part in parts]


def _space(part: Mapping[str, Any], prefix: str) -> SearchSpace:
    domains: dict[str, Domain] = {}
    # sorted, as scikit-learn sorts them, so that grids come in its order
    for full, values in sorted(part.items()):
        name = str(full)
        if not name.startswith(prefix):
            hint = f"; did you mean {prefix + name!r}?" if "__" not in name else ""
            raise InvalidParameterError(
                f"param_distributions must name parameters of the network, {prefix + 'learning_rate'!r} for "
                f"example, but got {name!r}{hint}"
            )
        name = name.removeprefix(prefix)
        try:
            domains[name] = _domain(name, values)
        except InvalidParameterError as error:
            raise InvalidParameterError(f"the distribution of {full!r} is not valid: {error}") from None
    return SearchSpace(domains)


def _domain(name: str, values: Any) -> Domain:
    if isinstance(values, Domain):
        return values
    if isinstance(values, BaseDistribution):
        return space_from_distributions({name: values}).domains[name]
    if hasattr(values, "rvs"):
        return _known(values) or Distribution(values)
    if isinstance(values, np.ndarray | range):
        values = list(values)
    if isinstance(values, list | tuple) and not values:
        raise InvalidParameterError("it must hold at least one value, but got none")
    domain: Domain = domain_from_dict(values)
    return domain


def _known(frozen: Any) -> Domain | None:
    """The domain that is the same as a distribution of scipy's, which Optuna can then suggest too."""
    kind = getattr(getattr(frozen, "dist", None), "name", None)
    if kind not in ("uniform", "loguniform", "reciprocal", "randint"):
        return None
    low, high = frozen.support()
    if kind == "randint":
        return Int(int(low), int(high))
    return Float(float(low), float(high), log=kind != "uniform")


def _is_discrete(distribution: Any) -> bool:
    return hasattr(distribution, "pmf") or hasattr(getattr(distribution, "dist", None), "pmf")


def _name_of(distribution: Any) -> str:
    kind = getattr(getattr(distribution, "dist", None), "name", None)
    return f"the distribution {kind}" if kind else f"the distribution {distribution!r}"
