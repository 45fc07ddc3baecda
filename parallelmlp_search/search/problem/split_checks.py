"""Checks that the rows of a problem can be divided, and that what is held back can be scored."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from parallelmlp_search.data import ClassTarget
from parallelmlp_search.data.coercion import shown
from parallelmlp_search.exceptions import DataError
from parallelmlp_search.search.problem.problem import Problem
from parallelmlp_search.selection import Metric


def check_units(problem: Problem) -> None:
    """Check that groups or times suffice for a holdout and two folds.

    Raises
    ------
    DataError
        If they do not.
    """
    for name, values, least in (("groups", problem.groups, 3), ("time", problem.time, 4)):
        count = 0 if values is None else len(pd.unique(np.asarray(values)))
        if values is not None and count < least:
            raise DataError(
                f"{name} must have at least {least} different values, so that some can be held "
                f"back and the others make two folds, but has {count}"
            )


def check_classes(
    problem: Problem, classes: ClassTarget, metric: Metric, train: Tensor, held: Tensor
) -> None:
    """Check that there are two classes to learn and to score; times and groups may keep them apart.

    Parameters
    ----------
    problem, classes
        Problem of a classification, and its classes or the names of its labels.
    metric
        Metric that scores the validation rows.
    train, held
        Target of the training rows and of the validation rows, as metrics take it.

    Raises
    ------
    DataError
        If all training rows are of one class, or the metric cannot be computed on the validation rows.
    """
    n_held = held.shape[-1]
    anything = torch.rand(1, len(classes), n_held, generator=torch.Generator().manual_seed(0))
    if problem.task == "multilabel":
        if not bool(metric(anything, held).isfinite()):
            raise DataError(
                f"metric {metric.name!r} needs rows with and without a label, but all {n_held} rows that "
                "validate have the same labels: choose another metric"
            )
        return
    if len(torch.unique(train)) < 2:
        only = shown(classes.classes_[int(train[0])])
        raise DataError(
            f"time must leave two classes to train on, but all {len(train)} earlier rows have {only}"
        )
    if len(torch.unique(held)) > 1 or bool(metric(anything, held).isfinite()):
        return
    latest = ", the latest," if problem.time is not None else ""
    raise DataError(
        f"metric {metric.name!r} needs rows of two classes, but all {n_held} rows that "
        f"validate{latest} have {shown(classes.classes_[int(held[0])])}: choose another metric"
    )
