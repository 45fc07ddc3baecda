"""All combinations of a space: how many there are, and what they are."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from parallelmlp_search.space.domain_base import Domain
from parallelmlp_search.space.structure import Structure

__all__ = ["any_combination", "combinations", "count"]


def combinations(structure: Structure, resolution: int | None) -> Iterator[dict[str, Any]]:
    """Values of the active names, over the grids of all domains, first name slowest."""

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


def any_combination(structure: Structure, resolution: int, rng: np.random.Generator) -> dict[str, Any]:
    """One of the `combinations`, name by name, all values of a domain alike."""
    values: dict[str, Any] = {}
    for name in structure.names:
        if structure.is_active(name, values):
            grid = structure.domains[name].grid(resolution)
            values[name] = grid[rng.integers(len(grid))]
    return values


def count(
    structure: Structure,
    number: Callable[[Domain], int | float],
    listing: Callable[[Domain], list[Any]],
) -> int | float:
    """Number of combinations, found without listing them.

    Parameters
    ----------
    structure
        Names, domains and conditions.
    number
        How many values of a domain are counted, ``math.inf`` included.
    listing
        Those values; called only for names that conditions ask for and whose number is finite.

    Notes
    -----
    A name that no condition asks for only multiplies. Of one that is asked for, values that give all
    conditions the same answers lead to the same count, so that one of each kind is followed up.
    """
    asked = {condition.name for conditions in structure.conditions.values() for condition in conditions}
    if "depth" in asked:
        asked.add("widths")

    def follow(position: int, values: dict[str, Any]) -> int | float:
        if position == len(structure.names):
            return 1
        name = structure.names[position]
        if not structure.is_active(name, values):
            return follow(position + 1, values)
        n = number(structure.domains[name])
        if name not in asked:
            return n * follow(position + 1, values)
        if math.isinf(n):
            return n
        kinds: dict[tuple[bool, ...], tuple[Any, int]] = {}
        for value in listing(structure.domains[name]):
            kind = _answers(structure, name, value)
            first, times = kinds.get(kind, (value, 0))
            kinds[kind] = (first, times + 1)
        return sum(times * follow(position + 1, {**values, name: value}) for value, times in kinds.values())

    return follow(0, {})


def _answers(structure: Structure, name: str, value: Any) -> tuple[bool, ...]:
    """What each condition on this name says to a value; ``widths`` also answers for the depth."""
    answers = []
    for conditions in structure.conditions.values():
        for condition in conditions:
            if condition.name == name:
                answers.append(condition.holds(value))
            elif name == "widths" and condition.name == "depth":
                answers.append(condition.holds(len(value)))
    return tuple(answers)
