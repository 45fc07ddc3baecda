"""Costs of errors between classes, and the decision of least expected cost.

A class ``j`` costs ``sum_i p_i C_ij`` on average, given the probabilities ``p`` of the true classes and the
cost ``C_ij`` of predicting ``j`` for ``i`` (Elkan, "The foundations of cost-sensitive learning", IJCAI 2001).
The decision is a matrix of weights: the class of the largest weighted sum of probabilities is predicted. Of
ordered classes, an error costs the number of steps between both, so that the median class is predicted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from parallelmlp_search.data.coercion import category_key
from parallelmlp_search.data.order import find_order
from parallelmlp_search.exceptions import InvalidParameterError, near_miss
from parallelmlp_search.selection.cost_formulas import CostFormula, Decided, Matrix, QuadraticKappa
from parallelmlp_search.selection.metrics import Metric

MAX_NAMED = 5
"""Classes that a message names."""


@dataclass(frozen=True)
class Costs:
    """Costs as they are given, before the classes of the target are known.

    Attributes
    ----------
    matrix
        Cost of each true class (row) and predicted class (column), of the sorted classes; or empty.
    pairs
        Texts of a true and a predicted class, and their cost. Other errors cost 1.
    order
        Texts of the classes in their order, () for the order that they show; None if they have none.
    """

    matrix: Matrix = ()
    pairs: tuple[tuple[str, str, float], ...] = ()
    order: tuple[str, ...] | None = None

    @classmethod
    def of(cls, cost_matrix: Any = None, ordinal: bool | Sequence[Any] = False) -> Costs | None:
        """Return the costs of two parameters; None without any.

        Parameters
        ----------
        cost_matrix
            Array ``(classes, classes)``, data frame with the classes as index and columns, mapping from pairs
            of a true and a predicted class to costs, or None.
        ordinal
            True if the classes are ordered, or the classes in their order.

        Raises
        ------
        InvalidParameterError
            If both are given, or one breaks its rule.
        """
        if cost_matrix is None:
            return _ordered(ordinal)
        if _ordered(ordinal) is not None:
            raise InvalidParameterError("only one of cost_matrix and ordinal can decide, but got both")
        if isinstance(cost_matrix, pd.DataFrame):
            cells = cost_matrix.stack()
            cost_matrix = dict(zip(cells.index, cells, strict=True))
        if isinstance(cost_matrix, Mapping):
            return cls(pairs=tuple(_pair(key, cost) for key, cost in cost_matrix.items()))
        try:
            values = np.asarray(cost_matrix, dtype=np.float64)
        except (TypeError, ValueError):
            values = np.empty(0)
        if values.ndim != 2 or len(set(values.shape)) != 1 or not np.isfinite(values).all():
            raise InvalidParameterError(
                "cost_matrix must hold a finite cost for each true class (row) and predicted class (column), "
                f"or be a mapping from (true, predicted) to costs, but got {cost_matrix!r}"
            )
        return cls(matrix=tuple(map(tuple, values.tolist())))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Costs:
        """Inverse of :meth:`to_dict`."""
        order = values["order"]
        return cls(
            tuple(map(tuple, values["matrix"])),
            tuple((str(true), str(predicted), float(cost)) for true, predicted, cost in values["pairs"]),
            None if order is None else tuple(order),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, JSON-able."""
        return asdict(self)

    @property
    def metric(self) -> str:
        """Name of the default metric."""
        return "expected_cost" if self.order is None else "ordinal_mae"

    def resolve(self, classes: NDArray[Any]) -> Matrix:
        """Return the costs ``(C, C)`` for the sorted classes of a target.

        Raises
        ------
        InvalidParameterError
            If the classes are others, have no order, or no cost differs.
        """
        keys = [category_key(one) for one in classes]
        if self.order is not None:
            ranks = self._ranks(keys, is_numeric=classes.dtype.kind in "biuf")
            costs = np.abs(ranks[:, None] - ranks)
        elif self.pairs:
            costs = 1.0 - np.eye(len(keys))
            for *labels, cost in self.pairs:
                costs[_place(labels[0], keys), _place(labels[1], keys)] = cost
        else:
            costs = np.array(self.matrix)
            if len(costs) != len(keys):
                raise InvalidParameterError(
                    f"cost_matrix must have a row and a column for each of {_named(keys)}, "
                    f"but has the shape {costs.shape}"
                )
        if (costs == costs[:, :1]).all():
            raise InvalidParameterError("cost_matrix must have different costs in some row, but has none")
        return tuple(map(tuple, costs.tolist()))

    def _ranks(self, keys: list[str], *, is_numeric: bool) -> NDArray[np.float64]:
        """Places ``(C,)`` of classes in their order."""
        assert self.order is not None
        if not self.order and is_numeric:
            return np.arange(float(len(keys)))
        order = list(self.order)
        if not order and (found := find_order(keys)) is not None:
            order = found.levels
        if missing := [key for key in keys if key not in order]:
            raise InvalidParameterError(
                f"ordinal must name the order of {_named(keys)}, "
                + (f"but lacks {missing[0]!r}" if self.order else "which their names do not show")
            )
        places = [order.index(key) for key in keys]
        return np.argsort(np.argsort(places)).astype(np.float64)


def _ordered(ordinal: Any) -> Costs | None:
    if ordinal is None or ordinal is False:
        return None
    if ordinal is True:
        return Costs(order=())
    order = [category_key(one) for one in ordinal] if not isinstance(ordinal, str | bytes | int) else []
    if len(order) < 2 or len(set(order)) < len(order):
        raise InvalidParameterError(
            f"ordinal must be True or different classes in their order, but got {ordinal!r}"
        )
    return Costs(order=tuple(order))


def _pair(key: Any, cost: Any) -> tuple[str, str, float]:
    """True class, predicted class and cost of an entry of a mapping."""
    try:
        true, predicted = key
        value = float(cost)
    except (TypeError, ValueError):
        true, predicted, value = key, None, float("nan")
    if not np.isfinite(value):
        raise InvalidParameterError(
            f"cost_matrix must map pairs (true, predicted) to finite costs, but maps {key!r} to {cost!r}"
        )
    return category_key(true), category_key(predicted), value


def _place(label: str, keys: list[str]) -> int:
    if label not in keys:
        raise InvalidParameterError(
            f"cost_matrix names the class {label!r}, which the target does not have{near_miss(label, keys)}"
        )
    return keys.index(label)


def _named(keys: Sequence[str]) -> str:
    more = ", ..." if len(keys) > MAX_NAMED else ""
    return f"the {len(keys)} classes {', '.join(keys[:MAX_NAMED])}{more}"


def is_ordinal(costs: Matrix) -> bool:
    """Return True if costs are the numbers of steps between ordered classes."""
    table = np.array(costs)
    ranks = table[np.unravel_index(table.argmax(), table.shape)[0]]
    steps = bool((np.sort(ranks) == np.arange(len(ranks))).all())
    return steps and bool((np.abs(ranks[:, None] - ranks) == table).all())


def decision_matrix(costs: Matrix, metric: Metric | None = None) -> Matrix:
    """Return weights ``(C, C)`` in [0, 1]: the class of the largest weighted sum has the least expected cost.

    Parameters
    ----------
    costs
        Costs of true classes (rows) and predicted classes (columns).
    metric
        Metric of the search. Quadratic kappa punishes squared numbers of steps.

    Returns
    -------
    tuple of tuples
    """
    table = np.array(costs)
    if metric is not None and isinstance(metric.formula, QuadraticKappa):
        table = np.square(table)
    gains = table.max(axis=1, keepdims=True) - table
    return tuple(map(tuple, (gains / gains.max()).tolist()))


def fits_costs(metric: Metric, costs: Matrix | None) -> bool:
    """Return False for a metric of costs that needs others: any at all, or those of ordered classes."""
    if not isinstance(metric.formula, CostFormula):
        return True
    return costs is not None and (metric.name == "expected_cost" or is_ordinal(costs))


def with_costs(metric: Metric, costs: Matrix | None) -> Metric:
    """Return a metric of costs with these costs, and any other metric as it is.

    Raises
    ------
    InvalidParameterError
        If it needs costs and there are none, or an order.
    """
    if not isinstance(metric.formula, CostFormula):
        return metric
    if costs is None or not fits_costs(metric, costs):
        needed = "a cost_matrix" if metric.name == "expected_cost" else "ordered classes: set ordinal"
        raise InvalidParameterError(f"metric {metric.name!r} needs {needed}")
    return replace(metric, formula=replace(metric.formula, costs=costs))


def resolved(
    costs: Costs | None, classes: NDArray[Any] | None, metric: Metric
) -> tuple[Metric, Matrix | None, Matrix | None]:
    """Return the metric with costs, the costs and the decision matrix for the classes of a target.

    Parameters
    ----------
    costs
        Costs as they are given, or None.
    classes
        Sorted classes; None in a regression.
    metric
        Metric of the search.

    Returns
    -------
    (Metric, tuple or None, tuple or None)

    Raises
    ------
    InvalidParameterError
        As of :meth:`Costs.resolve` and :func:`with_costs`.
    """
    if costs is None or classes is None:
        return with_costs(metric, None), None, None
    matrix = costs.resolve(classes)
    return with_costs(metric, matrix), matrix, decision_matrix(matrix, metric)


def decided_by(metric: Metric, decision: Matrix | None) -> Metric:
    """Return a metric of labels for probabilities, of which a decision matrix makes labels; others stay."""
    if decision is None or metric.needs != "label":
        return metric
    return replace(metric, formula=Decided(metric.formula, decision))
