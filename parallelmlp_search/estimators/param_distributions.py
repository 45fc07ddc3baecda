"""Search spaces from the parameter distributions of scikit-learn, scipy and Optuna.

A mapping may hold lists as for ``GridSearchCV``, scipy's distributions as for ``RandomizedSearchCV``,
Optuna's distributions as for ``OptunaSearchCV``, and the domains of this package.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from optuna.distributions import BaseDistribution

from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.search.proposals.distributions import space_from_distributions
from parallelmlp_search.space import Domain, Float, Int, SearchSpace
from parallelmlp_search.space.conditions import plain_value
from parallelmlp_search.space.domain_base import check_resolution, check_unit
from parallelmlp_search.space.domains import domain_from_dict

MIN_PROBABILITY = 1e-9
"""Quantiles this close to 0 and 1 are not used, because those of unbounded distributions are infinite."""


@dataclass(frozen=True, slots=True, repr=False)
class Distribution(Domain):
    """A distribution with a method ``rvs``, of scipy or of the user.

    Parameters
    ----------
    distribution
        Frozen distribution. Without a method ``ppf``, the number in the unit interval seeds ``rvs``.
    """

    distribution: Any

    @property
    def n_values(self) -> float:
        """Infinity, also for discrete distributions."""
        return math.inf

    def contains(self, value: object) -> bool:
        """Return True: the support of a distribution is not known in general."""
        return True

    def quantile(self, u: float) -> Any:
        """Return the value at ``u`` in [0, 1)."""
        u = min(max(check_unit(u), MIN_PROBABILITY), 1.0 - MIN_PROBABILITY)
        if hasattr(self.distribution, "ppf"):
            return self._plain(self.distribution.ppf(u))
        return self._plain(self.distribution.rvs(random_state=np.random.RandomState(int(u * 2**32))))

    def unit(self, value: object) -> float:
        """Return the cumulative probability of the value, or 0.5 if the distribution has no ``cdf``."""
        if not hasattr(self.distribution, "cdf"):
            return 0.5
        return min(max(float(self.distribution.cdf(value)), 0.0), 1.0 - MIN_PROBABILITY)

    def grid(self, n: int | None = None) -> list[Any]:
        """Return ``n`` values at even quantiles."""
        if n is None:
            self._refuse("be listed as a grid: use sampler 'random'")
        return [self.quantile((index + 0.5) / n) for index in range(check_resolution(n))]

    def to_dict(self) -> dict[str, Any]:
        """Not available for a distribution."""
        self._refuse("be written as plain values")

    def value_at(self, index: int) -> Any:
        """Not available for a distribution."""
        self._refuse("be counted")

    def index_of(self, value: Any) -> int:
        """Not available for a distribution."""
        self._refuse("be counted")

    def _refuse(self, action: str) -> NoReturn:
        raise InvalidParameterError(f"the values of {self!r} cannot {action}")

    def _plain(self, value: Any) -> Any:
        plain = plain_value("a distribution", np.asarray(value).item() if np.ndim(value) == 0 else value)
        discrete = any(
            hasattr(one, "pmf") for one in (self.distribution, getattr(self.distribution, "dist", None))
        )
        # quantiles of scipy's discrete distributions are floats
        return int(plain) if discrete and isinstance(plain, float) and plain.is_integer() else plain

    def __repr__(self) -> str:
        kind = getattr(getattr(self.distribution, "dist", None), "name", None)
        return f"the distribution {kind or repr(self.distribution)}"


def search_spaces(
    given: Any, *, prefix: str = "", parameter: str = "param_distributions"
) -> list[SearchSpace]:
    """Return the search spaces of ``param_distributions``.

    Parameters
    ----------
    given
        Value of the parameter.
    prefix
        Start of each name of a mapping: the name of the last step of a pipeline and two underscores.
    parameter
        Name of the parameter in messages.

    Returns
    -------
    list of SearchSpace

    Raises
    ------
    InvalidParameterError
        If a name is not a field of a configuration, or a value is not valid for it.
    """
    if isinstance(given, SearchSpace | str | os.PathLike):
        return [SearchSpace.resolve(given)]
    parts = [given] if isinstance(given, Mapping) else given
    if not isinstance(parts, Sequence) or not parts or not all(isinstance(part, Mapping) for part in parts):
        raise InvalidParameterError(
            "param_distributions must be a mapping, a list of mappings, a SearchSpace, a preset's name or a "
            f"path, but got {given!r}"
        )
    return [_space(part, prefix, parameter) for part in parts]


def _space(part: Mapping[str, Any], prefix: str, parameter: str) -> SearchSpace:
    domains: dict[str, Domain] = {}
    # sorted like scikit-learn's ParameterGrid, so that grids have its order
    for full, values in sorted(part.items()):
        name = str(full)
        if not name.startswith(prefix):
            hint = f"; did you mean {prefix + name!r}?" if "__" not in name else ""
            raise InvalidParameterError(
                f"{parameter} must name parameters of the network, {prefix + 'learning_rate'!r} for "
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
        return _equivalent_domain(values) or Distribution(values)
    if isinstance(values, np.ndarray | range):
        values = list(values)
    if isinstance(values, list | tuple) and not values:
        raise InvalidParameterError("it must hold at least one value, but got none")
    domain: Domain = domain_from_dict(values)
    return domain


def _equivalent_domain(frozen: Any) -> Domain | None:
    """Return the domain that equals a distribution of scipy, which Optuna's samplers can suggest from."""
    kind = getattr(getattr(frozen, "dist", None), "name", None)
    if kind not in ("uniform", "loguniform", "reciprocal", "randint"):
        return None
    low, high = frozen.support()
    if kind == "randint":
        return Int(int(low), int(high))
    return Float(float(low), float(high), log=kind != "uniform")
