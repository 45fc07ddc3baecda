"""From the names of a space to the fields of a configuration, and back: order, conditions, widths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from parallelmlp_search.exceptions import InvalidParameterError, near_miss
from parallelmlp_search.space.conditions import When
from parallelmlp_search.space.config import MLPConfig
from parallelmlp_search.space.domain_base import Domain
from parallelmlp_search.space.names import check_domains, width_index

__all__ = ["Structure"]

_DEFAULT = MLPConfig()


class Structure:
    """Checked domains in the order in which they are decided.

    Attributes
    ----------
    domains : dict of Domain
        As given.
    names : tuple of str
        Names so ordered that each comes after those its conditions ask for.
    depth : int or None
        Number of hidden layers where no name decides it; None where ``depth`` or ``widths`` does.
    conditions : dict of tuple of When
        All conditions of a name, those that the structure implies included.
    """

    __slots__ = ("_layers", "conditions", "depth", "domains", "names")

    def __init__(self, domains: Mapping[str, Domain]) -> None:
        check_domains(domains)
        self.domains = dict(domains)
        self.names = _evaluation_order(domains)
        self.depth = _constant_depth(domains)
        self.conditions = {name: _conditions_of(name, domain) for name, domain in domains.items()}
        self._layers = {name: index for name in domains if (index := width_index(name)) is not None}

    def is_active(self, name: str, values: Mapping[str, Any]) -> bool:
        """Whether a name counts, given the values of the active names before it."""
        return all(self._holds(condition, values) for condition in self.conditions[name])

    def build(self, values: Mapping[str, Any], seed: int) -> MLPConfig:
        """Configuration of the active values; ``seed`` is used unless they name one."""
        plain: dict[str, Any] = {}
        layers: dict[int, int] = {}
        for name, value in values.items():
            if name in self._layers:
                layers[self._layers[name]] = value
            elif name not in ("depth", "width"):
                plain[name] = value
        if "widths" not in plain:
            n_layers = int(values["depth"]) if self.depth is None else self.depth
            common = values.get("width", _DEFAULT.widths[0])
            plain["widths"] = tuple(layers.get(index, common) for index in range(1, n_layers + 1))
        plain.setdefault("seed", seed)
        return MLPConfig(**plain)

    def read(self, config: MLPConfig, name: str) -> Any:
        """Value that a configuration has under a name that is active for it."""
        if name in self._layers:
            return config.widths[self._layers[name] - 1]
        return config.widths[0] if name == "width" else getattr(config, name)

    def _holds(self, condition: When, values: Mapping[str, Any]) -> bool:
        other = condition.name
        if other == "depth" and "depth" not in self.domains:
            return condition.holds(len(values["widths"]) if self.depth is None else self.depth)
        return other in values and condition.holds(values[other])


def _constant_depth(domains: Mapping[str, Domain]) -> int | None:
    """Number of hidden layers where no name decides it; None where ``depth`` or ``widths`` does."""
    if "depth" in domains or "widths" in domains:
        return None
    return sum(width_index(name) is not None for name in domains) or _DEFAULT.depth


def _conditions_of(name: str, domain: Domain) -> tuple[When, ...]:
    """Conditions of a name: its own, and that a layer must exist for its width to count."""
    index = 1 if name == "width" else width_index(name)
    implied = () if index is None else (When("depth", at_least=index),)
    return implied if domain.when is None else (*implied, domain.when)


def _evaluation_order(domains: Mapping[str, Domain]) -> tuple[str, ...]:
    """Names so ordered that each comes after those its conditions ask for, otherwise as given."""
    parents: dict[str, list[str]] = {}
    for name, domain in domains.items():
        parents[name] = []
        for condition in _conditions_of(name, domain):
            if condition.name in domains:
                parents[name].append(condition.name)
            elif condition.name != "depth":
                hint = near_miss(condition.name, (*domains, "depth"))
                raise InvalidParameterError(
                    f"the condition of {name!r} asks for {condition.name!r}, which is not there{hint}"
                )
            elif "widths" in domains:
                parents[name].append("widths")
    order: list[str] = []
    while len(order) < len(domains):
        free = [name for name in domains if name not in order and all(p in order for p in parents[name])]
        if not free:
            circle = ", ".join(repr(name) for name in domains if name not in order)
            raise InvalidParameterError(f"conditions must not go round in a circle, but those of {circle} do")
        order.append(free[0])
    return tuple(order)
