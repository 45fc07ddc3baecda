"""Enumeration of the configurations of a search space."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from parallelmlp_search.space.structure import Structure


def combinations(structure: Structure, resolution: int | None) -> Iterator[dict[str, Any]]:
    """Yield the values of the active names for every point of the grid, the first name slowest.

    ``resolution`` limits the values per domain as in `Domain.grid`.
    """

    def extend(position: int, values: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if position == len(structure.names):
            yield dict(values)
            return
        name = structure.names[position]
        if not structure.is_active(name, values):
            yield from extend(position + 1, values)
            return
        for value in structure.domains[name].grid(resolution):
            values[name] = value
            yield from extend(position + 1, values)
        del values[name]

    return extend(0, {})


def count_combinations(structure: Structure, resolution: int | None) -> int | float:
    """Return the number of `combinations` without enumerating them; ``math.inf`` for continuous domains.

    A name that no condition refers to multiplies the count. Values of the other names are grouped by the
    conditions that they fulfil, and one value of each group is followed.
    """
    referred = {condition.name for conditions in structure.conditions.values() for condition in conditions}
    if "depth" in referred:
        referred.add("widths")

    def count(position: int, values: dict[str, Any]) -> int | float:
        if position == len(structure.names):
            return 1
        name = structure.names[position]
        if not structure.is_active(name, values):
            return count(position + 1, values)
        domain = structure.domains[name]
        n_values = domain.n_values if resolution is None else len(domain.grid(resolution))
        if name not in referred:
            return n_values * count(position + 1, values)
        if math.isinf(n_values):
            return n_values
        groups: dict[tuple[bool, ...], list[Any]] = {}
        for value in domain.grid(resolution):
            groups.setdefault(_fulfilled(structure, name, value), []).append(value)
        return sum(len(group) * count(position + 1, {**values, name: group[0]}) for group in groups.values())

    return count(0, {})


def _fulfilled(structure: Structure, name: str, value: Any) -> tuple[bool, ...]:
    """True for each condition on a name that a value fulfils; ``widths`` determines the depth."""
    fulfilled = []
    for conditions in structure.conditions.values():
        for condition in conditions:
            if condition.name == name:
                fulfilled.append(condition.holds(value))
            elif name == "widths" and condition.name == "depth":
                fulfilled.append(condition.holds(len(value)))
    return tuple(fulfilled)
