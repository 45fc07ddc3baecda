"""Configurations and search spaces of networks that are monotone in some columns."""

from __future__ import annotations

from collections.abc import Mapping

from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.space.config import MLPConfig
from parallelmlp_search.space.domains import Categorical
from parallelmlp_search.space.search_space import SearchSpace

MONOTONE_CHOICES: Mapping[str, tuple[str, ...]] = {
    "activation": (
        "identity", "sigmoid", "tanh", "relu", "leaky_relu", "elu", "selu", "hardshrink", "softplus",
    ),
    # layer normalization divides by a deviation that depends on all neurons
    "normalization": ("none",),
    # the waves of a number rise and fall
    "numeric_embedding": ("none", "piecewise"),
}  # fmt: skip
"""Values that networks with monotone columns can have."""


def check_monotone(config: MLPConfig) -> None:
    """Check that networks of a configuration can be monotone in some columns.

    Raises
    ------
    InvalidParameterError
        If they cannot.
    """
    for name, allowed in MONOTONE_CHOICES.items():
        if (value := getattr(config, name)) not in allowed:
            raise InvalidParameterError(
                f"{name} must be one of {', '.join(allowed)} in networks with monotone columns, "
                f"but got {value!r}"
            )


def monotone_space(space: SearchSpace) -> SearchSpace:
    """Return the part of a space whose networks can be monotone in some columns.

    Raises
    ------
    InvalidParameterError
        If a domain of the space has no suitable value.
    """
    domains = dict(space.domains)
    for name in MONOTONE_CHOICES.keys() & domains.keys():
        domain, allowed = domains[name], MONOTONE_CHOICES[name]
        values = domain.grid()
        kept = tuple(value for value in values if value in allowed)
        if not kept:
            raise InvalidParameterError(
                f"search_space must offer one of {', '.join(allowed)} as {name} for networks with monotone "
                f"columns, but got {domain!r}"
            )
        if len(kept) < len(values):
            domains[name] = Categorical(kept, when=domain.when)
    return SearchSpace(domains)
