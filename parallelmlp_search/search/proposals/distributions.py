"""Search spaces as Optuna distributions, and back.

Optuna stores numbers, texts, booleans and None. A tuple of widths is stored as a text: ``(128, 64)`` as
``"128-64"``, no hidden layer as ``"linear"``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import BaseTrial

from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.space import Categorical, Domain, Float, Int, MLPConfig, SearchSpace

NO_LAYER = "linear"


def encode_value(value: Any) -> Any:
    """Value of a domain as Optuna stores it."""
    if isinstance(value, tuple):
        return "-".join(str(item) for item in value) or NO_LAYER
    return value


def decode_value(domain: Domain, stored: Any) -> Any:
    """Value of a domain that Optuna stores, or suggests, as ``stored``.

    Raises
    ------
    InvalidParameterError
        If the domain has no such value.
    """
    if isinstance(domain, Categorical):
        for choice in domain.choices:
            same_kind = isinstance(stored, bool) == isinstance(choice, bool)
            if same_kind and (encode_value(choice) == stored or choice == stored):
                return choice
    elif isinstance(domain, Float) and domain.step is not None:
        # Optuna adds up steps, which can change the last digit
        index = domain.index_of(stored)
        if 0 <= index < domain.n_values and abs(domain.value_at(index) - stored) <= 1e-6 * domain.step:
            return domain.value_at(index)
    elif domain.contains(stored):
        return int(stored) if isinstance(domain, Int) else float(stored)
    raise InvalidParameterError(f"value must belong to {domain!r}, but got {stored!r}")


def _distribution_of(domain: Domain) -> BaseDistribution:
    """Distribution of a domain, without its condition, which Optuna cannot express."""
    if isinstance(domain, Float):
        return FloatDistribution(domain.low, domain.high, log=domain.log, step=domain.step)
    if isinstance(domain, Int):
        return IntDistribution(domain.low, domain.high, log=domain.log, step=domain.step)
    assert isinstance(domain, Categorical)
    choices = [encode_value(choice) for choice in domain.choices]
    if len({(type(choice), choice) for choice in choices}) < len(choices):
        raise InvalidParameterError(f"choices must differ when written as text, but got {domain.choices!r}")
    return CategoricalDistribution(choices)


def asked_of(space: SearchSpace, config: MLPConfig) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
    """Parameters and distributions of an Optuna trial for a configuration of a space."""
    values = space.to_values(config)
    params = {name: encode_value(value) for name, value in values.items()}
    return params, {name: _distribution_of(space.domains[name]) for name in values}


def suggest_values(trial: BaseTrial, space: SearchSpace) -> dict[str, Any]:
    """Let a trial suggest values of the names that are active under the values before them."""
    values: dict[str, Any] = {}
    for name in space.names:
        if not space.is_active(name, values):
            continue
        domain = space.domains[name]
        stored: Any
        if isinstance(domain, Float):
            stored = trial.suggest_float(name, domain.low, domain.high, log=domain.log, step=domain.step)
        elif isinstance(domain, Int):
            stored = trial.suggest_int(name, domain.low, domain.high, log=domain.log, step=domain.step)
        else:
            assert isinstance(domain, Categorical)
            stored = trial.suggest_categorical(name, [encode_value(choice) for choice in domain.choices])
        values[name] = decode_value(domain, stored)
    return values


def space_to_distributions(space: SearchSpace) -> dict[str, BaseDistribution]:
    """Distributions of all names of a space, as ``study.ask`` takes them.

    Conditions are left out, so a trial has values of inactive names too.
    """
    return {name: _distribution_of(space.domains[name]) for name in space.names}


def space_from_distributions(distributions: Mapping[str, BaseDistribution]) -> SearchSpace:
    """Search space of distributions that are named like the fields of a configuration.

    Raises
    ------
    InvalidParameterError
        If a name is unknown, or a distribution cannot be a domain.
    """
    return SearchSpace({name: _domain_of(name, one) for name, one in distributions.items()})


def number_domain(distribution: FloatDistribution | IntDistribution) -> Float | Int:
    """Domain of the numbers of a distribution."""
    if isinstance(distribution, FloatDistribution):
        return Float(distribution.low, distribution.high, log=distribution.log, step=distribution.step)
    return Int(distribution.low, distribution.high, log=distribution.log, step=distribution.step)


def _domain_of(name: str, distribution: BaseDistribution) -> Domain:
    if isinstance(distribution, FloatDistribution | IntDistribution):
        return number_domain(distribution)
    if isinstance(distribution, CategoricalDistribution):
        choices = [_widths(choice) if name == "widths" else choice for choice in distribution.choices]
        return Categorical(tuple(choices))
    raise InvalidParameterError(
        f"the distribution of {name!r} must be a float, int or categorical one, but got {distribution!r}"
    )


def _widths(choice: Any) -> Any:
    if choice == NO_LAYER:
        return ()
    if isinstance(choice, str):
        parts = choice.split("-")
        if all(part.isdigit() for part in parts):
            return tuple(int(part) for part in parts)
    return choice
