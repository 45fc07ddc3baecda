"""Tree of the tried values of a study, branching parameter by parameter."""

from __future__ import annotations

from typing import Any

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

from parallelmlp_search.integrations.optuna.sampler.axes import Axis


class Node:
    """Node of a trial tree: the next parameter and the values that it was given."""

    __slots__ = ("_was_exhausted", "axis", "children", "is_mixed", "parent")

    def __init__(self, parent: Node | None) -> None:
        self.parent = parent
        self.axis: Axis | None = None  # next parameter, if any trial has continued from here
        self.children: dict[Any, Node] = {}  # by code of the parameter's value
        self.is_mixed = False  # trials continued with different parameters, so that values cannot be counted
        self._was_exhausted = False

    def is_exhausted(self) -> bool:
        """Return True if all that can follow has been tried; a leaf is exhausted, as nothing follows it."""
        if self._was_exhausted or self.axis is None:
            return True
        if self.is_mixed or len(self.children) < self.axis.domain.n_values:
            return False
        self._was_exhausted = all(node.is_exhausted() for node in self.children.values())
        return self._was_exhausted

    def is_tried(self, code: Any) -> bool:
        """Return True if a value of the parameter leads to tried trials only."""
        node = self.children.get(code)
        return node is not None and node.is_exhausted()

    def child(self, axis: Axis, code: Any) -> Node:
        """Return the node that follows a value of a parameter, created if needed."""
        if self.axis is None:
            self.axis = axis
        elif self.axis is not axis and self.axis != axis:
            self.is_mixed = True
        node = self.children.get(code)
        if node is None:
            node = self.children[code] = Node(self)
            ancestor: Node | None = self
            while ancestor is not None:  # a leaf that a trial continues from may not be exhausted
                ancestor._was_exhausted = False
                ancestor = ancestor.parent
        return node


class TrialTree:
    """Tree of the trials of a study, in the order in which each asked for its parameters."""

    def __init__(self) -> None:
        self.root = Node(None)
        self._axes: dict[str, Axis] = {}

    def axis(self, name: str, distribution: BaseDistribution) -> Axis:
        """Return the axis of a parameter, created anew if its distribution has changed."""
        axis = self._axes.get(name)
        if axis is None or (axis.distribution is not distribution and axis.distribution != distribution):
            axis = self._axes[name] = Axis.of(name, distribution)
        return axis

    def add(self, trial: FrozenTrial) -> Node:
        """Add the parameters of a trial and return its last node."""
        node = self.root
        distributions = trial.distributions
        for name, value in trial.params.items():
            axis = self.axis(name, distributions[name])
            node = node.child(axis, axis.encode(value))
        return node
