"""Rows that are explained, with the networks that predict them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from parallelmlp_search.data import ClassTarget
from parallelmlp_search.data.labels import as_labels
from parallelmlp_search.data.targets import numeric_target
from parallelmlp_search.inference import TrainedModel

Numbers = NDArray[np.intp]


@dataclass(frozen=True)
class ExplainedRows:
    """Rows of a table, and what is known of them.

    Attributes
    ----------
    frame
        Features ``(n, columns)``.
    target
        Class numbers ``(n,)``, values or 0 and 1 of labels ``(n,)`` or ``(n, outputs)``, or None if it is not
        known.
    folds
        Fold whose networks predict each row ``(n,)``, because they were not trained on it; -1 for rows that
        all networks were trained on. None for rows that no network was trained on.
    weight, groups
        Weight and group of each row ``(n,)``, or None.
    numbers
        Number of each row ``(n,)`` in the table that the user gave; None for all rows in order.
    background
        Table of rows that stand for unknown values; None for the rows themselves.
    """

    frame: pd.DataFrame
    target: NDArray[Any] | None = None
    folds: NDArray[np.integer[Any]] | None = None
    weight: NDArray[np.floating[Any]] | None = None
    groups: NDArray[Any] | None = None
    numbers: Numbers | None = None
    background: pd.DataFrame | None = None

    def __len__(self) -> int:
        return len(self.frame)

    def take(self, chosen: Numbers) -> ExplainedRows:
        """Return some of the rows, given by their numbers ``(m,)``."""

        def part(values: Any) -> Any:
            return None if values is None else values[chosen]

        return replace(
            self,
            frame=self.frame.iloc[chosen],
            target=part(self.target),
            folds=part(self.folds),
            weight=part(self.weight),
            groups=part(self.groups),
            numbers=self.row_numbers[chosen],
        )

    @property
    def row_numbers(self) -> Numbers:
        """Number of each row ``(n,)`` in the table of the user."""
        return np.arange(len(self)) if self.numbers is None else self.numbers


def encoded_target(model: TrainedModel, target: Any) -> NDArray[Any]:
    """Return a target as class numbers ``(n,)`` of a model, as values, or as labels ``(n, labels)``.

    Raises
    ------
    DataError
        If it has a class that the model does not know, or a value that is no number.
    """
    if model.task == "multilabel":
        columns = pd.DataFrame(target)
        labels = [as_labels(columns[name], str(name)) for name in columns]
        return np.stack(labels, axis=1).astype(np.float64)
    if model.classes is not None:
        return np.asarray(ClassTarget(model.classes).encode(target))
    return numeric_target(target)
