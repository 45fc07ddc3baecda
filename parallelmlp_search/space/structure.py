"""Translation between the names of a search space and the fields of a configuration."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from parallelmlp_search.exceptions import InvalidParameterError, near_miss
from parallelmlp_search.space.conditions import When
from parallelmlp_search.space.config import FIELD_NAMES, MLPConfig
from parallelmlp_search.space.domain_base import Domain
from parallelmlp_search.space.validation import check_domains, layer_of

_DEFAULT = MLPConfig()
_MAX_REFERRED = 100_000


class Structure:
    """Validated domains with their conditions and the order in which names get their values.

    Attributes
    ----------
    domains : dict of Domain
        Domains in the order given.
    names : tuple of str
        Names in an order in which each comes after the names that its conditions refer to.
    depth : int or None
        Number of hidden layers if it is fixed; None if ``depth`` or ``widths`` is among the names.
    conditions : dict of tuple of When
        All conditions of each name. A width also depends on the depth of its layer.
    """

    __slots__ = ("_layers", "conditions", "depth", "domains", "names")

    def __init__(self, domains: Mapping[str, Domain]) -> None:
        check_domains(domains)
        self.domains = dict(domains)
        self.names = _evaluation_order(domains)
        self.depth = _fixed_depth(domains)
        self.conditions = {name: _conditions_of(name, domain) for name, domain in domains.items()}
        self._layers = {name: layer for name in domains if (layer := layer_of(name)) is not None}

    def is_active(self, name: str, values: Mapping[str, Any]) -> bool:
        """Return True if a name is active, given the values of the active names before it."""
        return all(self._holds(condition, values) for condition in self.conditions[name])

    def choose(self, choice: Callable[[str, Domain], Any]) -> dict[str, Any]:
        """Return values of the active names, each of which ``choice(name, domain)`` gives in turn."""
        values: dict[str, Any] = {}
        for name in self.names:
            if self.is_active(name, values):
                values[name] = choice(name, self.domains[name])
        return values

    def build(self, values: Mapping[str, Any], seed: int) -> MLPConfig:
        """Return the configuration of the active values; ``seed`` is used unless they hold one."""
        fields: dict[str, Any] = {}
        layers: dict[int, int] = {}
        for name, value in values.items():
            if name in self._layers:
                layers[self._layers[name]] = value
            elif name not in ("depth", "width"):
                fields[name] = value
        if "widths" not in fields:
            n_layers = int(values["depth"]) if self.depth is None else self.depth
            common = values.get("width", _DEFAULT.widths[0])
            fields["widths"] = tuple(layers.get(layer, common) for layer in range(1, n_layers + 1))
        fields.setdefault("seed", seed)
        return MLPConfig(**fields)

    def values_of(self, config: MLPConfig) -> dict[str, Any]:
        """Return the values of the active names in a configuration; the inverse of `build`.

        Raises
        ------
        InvalidParameterError
            If no values give this configuration.
        """
        if self.depth is not None and config.depth != self.depth:
            raise InvalidParameterError(f"depth must be {self.depth} in this space, but got {config.depth}")

        def read(name: str, domain: Domain) -> Any:
            if name in self._layers:
                value: Any = config.widths[self._layers[name] - 1]
            else:
                value = config.widths[0] if name == "width" else getattr(config, name)
            return _checked(name, domain, value)

        values = self.choose(read)
        built = self.build(values, config.seed)
        for field in FIELD_NAMES:
            expected, actual = getattr(built, field), getattr(config, field)
            if expected != actual:
                raise InvalidParameterError(f"{field} must be {expected!r} here, but got {actual!r}")
        return values

    def check(self, values: Mapping[str, Any]) -> None:
        """Check that there are values of exactly the active names, all in their domains.

        Raises
        ------
        InvalidParameterError
            If a name is missing, inactive or unknown, or a value is outside its domain.
        """
        for name in values:
            if name not in self.domains:
                raise InvalidParameterError(f"the space has no name {name!r}{near_miss(name, self.domains)}")

        def take(name: str, domain: Domain) -> Any:
            if name not in values:
                raise InvalidParameterError(f"{name} is missing, but active under the other values")
            return _checked(name, domain, values[name])

        inactive = values.keys() - self.choose(take).keys()
        if inactive:
            raise InvalidParameterError(f"{min(inactive)} is given, but inactive under the other values")

    def _holds(self, condition: When, values: Mapping[str, Any]) -> bool:
        other = condition.name
        if other == "depth" and "depth" not in self.domains:
            return condition.holds(len(values["widths"]) if self.depth is None else self.depth)
        return other in values and condition.holds(values[other])


def _checked(name: str, domain: Domain, value: Any) -> Any:
    if not domain.contains(value):
        raise InvalidParameterError(f"{name} must belong to {domain!r}, but got {value!r}")
    return value


def _fixed_depth(domains: Mapping[str, Domain]) -> int | None:
    if "depth" in domains or "widths" in domains:
        return None
    return sum(layer_of(name) is not None for name in domains) or _DEFAULT.depth


def _conditions_of(name: str, domain: Domain) -> tuple[When, ...]:
    """Conditions of a name: its own, and for a width that its layer exists."""
    layer = 1 if name == "width" else layer_of(name)
    implied = () if layer is None else (When("depth", at_least=layer),)
    return implied if domain.when is None else (*implied, domain.when)


def _check_countable(name: str, domain: Domain) -> None:
    """Check that the values can be listed to count the configurations for which a condition holds."""
    if _MAX_REFERRED < domain.n_values < math.inf:
        raise InvalidParameterError(
            f"conditions can refer to names of at most {_MAX_REFERRED} values, but {name!r} has "
            f"{int(domain.n_values)}"
        )


def _evaluation_order(domains: Mapping[str, Domain]) -> tuple[str, ...]:
    """Names as given, except that each comes after the names that its conditions refer to."""
    parents: dict[str, list[str]] = {}
    for name, domain in domains.items():
        parents[name] = []
        for condition in _conditions_of(name, domain):
            if condition.name in domains:
                _check_countable(condition.name, domains[condition.name])
                parents[name].append(condition.name)
            elif condition.name != "depth":
                hint = near_miss(condition.name, (*domains, "depth"))
                raise InvalidParameterError(
                    f"the condition of {name!r} refers to {condition.name!r}, which the space does not "
                    f"name{hint}"
                )
            elif "widths" in domains:
                parents[name].append("widths")
    order: list[str] = []
    while len(order) < len(domains):
        free = [name for name in domains if name not in order and all(p in order for p in parents[name])]
        if not free:
            circle = ", ".join(repr(name) for name in domains if name not in order)
            raise InvalidParameterError(f"conditions must not be circular, but those of {circle} are")
        order.append(free[0])
    return tuple(order)
