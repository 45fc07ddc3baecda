"""Which values have been had already: a tree of all trials, branching parameter by parameter."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

from parallelmlp_search.integrations.optuna.sampler.axes import Axis

__all__ = ["Node", "Visited", "open_place"]

TRIES = 8
"""Draws before the open values of a parameter are looked through one by one."""


class Node:
    """What is known to follow some values: the parameter that was asked for next, and the values it had.

    Attributes
    ----------
    above
        The node that this one follows; None for the root.
    name, axis
        The parameter; None where no trial has gone on from here.
    below
        Node by place of the parameter's value.
    is_mixed
        Whether trials went on with different parameters, so that the values cannot be counted.
    """

    __slots__ = ("above", "axis", "below", "is_mixed", "name", "was_closed")

    def __init__(self, above: Node | None) -> None:
        self.above = above
        self.name: str | None = None
        self.axis: Axis | None = None
        self.below: dict[Any, Node] = {}
        self.is_mixed = False
        self.was_closed = False

    def is_closed(self) -> bool:
        """Whether all that can follow has been had; nothing is known to follow a leaf, so it is closed."""
        if self.was_closed or self.axis is None:
            return True
        if self.is_mixed or len(self.below) < self.axis.domain.n_values:
            return False
        self.was_closed = all(node.is_closed() for node in self.below.values())
        return self.was_closed

    def leads_nowhere(self, place: Any) -> bool:
        """Whether a value of the parameter only leads to trials that have been."""
        node = self.below.get(place)
        return node is not None and node.is_closed()

    def enter(self, name: str, axis: Axis, place: Any) -> Node:
        """The node after a value, made where it is new."""
        if self.name is None:
            self.name, self.axis = name, axis
        elif self.name != name or (
            self.axis is not axis and self.axis is not None and self.axis.distribution != axis.distribution
        ):
            self.is_mixed = True
        node = self.below.get(place)
        if node is None:
            node = self.below[place] = Node(self)
            one: Node | None = self
            while one is not None:  # a leaf that somebody goes on from is none
                one.was_closed = False
                one = one.above
        return node


class Visited:
    """Tree of the trials of a study, in the order in which each asked for its parameters."""

    def __init__(self) -> None:
        self.root = Node(None)
        self._axes: dict[str, Axis] = {}

    def axis(self, name: str, distribution: BaseDistribution) -> Axis:
        """Axis of a parameter; made anew only where its distribution changes."""
        axis = self._axes.get(name)
        if axis is None or (axis.distribution is not distribution and axis.distribution != distribution):
            axis = self._axes[name] = Axis.of(distribution)
        return axis

    def add(self, trial: FrozenTrial) -> Node:
        """The node that a trial has come to."""
        node = self.root
        distributions = trial.distributions
        for name, value in trial.params.items():
            axis = self.axis(name, distributions[name])
            node = node.enter(name, axis, axis.place(value))
        return node


def open_place(node: Node, axis: Axis, place: Any, rng: np.random.Generator, reach: float) -> Any:
    """A place as near ``place`` as luck has it, that leads to a trial which has not been, if there is one."""
    if not node.leads_nowhere(place) or node.is_closed():
        return place
    for _ in range(TRIES):
        other = axis.domain.neighbour(place, rng, reach)
        if not node.leads_nowhere(other):
            return other
    if math.isinf(axis.domain.n_values):
        return axis.domain.sample(rng)
    # at most all values that have been had come before one that is open
    count = int(axis.domain.n_values)
    start = int(rng.integers(count))
    for step in range(min(count, len(node.below) + 1)):
        other = axis.domain.value_at((start + step) % count)
        if not node.leads_nowhere(other):
            return other
    return place
