"""The question that a search answers: a table, a target, and what belongs to its rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from parallelmlp_search.data import fingerprint
from parallelmlp_search.engine import Head, Task

__all__ = ["Problem"]


@dataclass(frozen=True)
class Problem:
    """A table and its target.

    Attributes
    ----------
    frame
        Features, one row a sample.
    target
        Raw target, ``(n,)`` of labels or numbers, or ``(n, outputs)`` numbers.
    task
        ``binary``, ``multiclass`` or ``regression``.
    weight, groups, time
        For each row, or None: its weight, the group that no split may tear apart, the moment that orders
        rows in time.
    class_weight
        None, ``balanced`` or a mapping from class to weight.
    target_name
        Name of the target column, if it has one.
    """

    frame: pd.DataFrame
    target: NDArray[Any]
    task: Task
    weight: NDArray[np.floating[Any]] | None = None
    groups: NDArray[Any] | None = None
    time: NDArray[Any] | None = None
    class_weight: str | Mapping[Any, float] | None = None
    target_name: str | None = None

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return len(self.frame)

    def fingerprint(self) -> str:
        """A text that changes with anything that the search sees of the data."""
        class_weight = self.class_weight
        if isinstance(class_weight, Mapping):
            class_weight = str(sorted((str(label), float(weight)) for label, weight in class_weight.items()))
        how = np.array([self.task, str(class_weight)])
        return fingerprint(self.frame, self.target, self.weight, self.groups, self.time, how)

    @property
    def head(self) -> Head:
        """What the network's output side looks like, without the scaling of a regression."""
        if self.task == "regression":
            n_outputs = 1 if self.target.ndim == 1 else self.target.shape[1]
            return Head("regression", n_outputs, (0.0,) * n_outputs, (1.0,) * n_outputs)
        return Head(self.task, len(np.unique(self.target)))
