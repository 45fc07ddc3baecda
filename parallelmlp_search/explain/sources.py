"""Rows to explain from the problem of a search or from a table of new rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from parallelmlp_search._reading import load_arrays, reading
from parallelmlp_search.explain.rows import ExplainedRows, encoded_target
from parallelmlp_search.inference import TrainedModel
from parallelmlp_search.search import Problem, RunDirectory


def training_rows(model: TrainedModel, problem: Problem, oof_folds: NDArray[Any]) -> ExplainedRows:
    """Return the rows of a search, each with the fold whose networks have not seen it.

    Parameters
    ----------
    model, problem
        Model and problem of the search.
    oof_folds
        Fold of each row ``(n,)``, or -1. A refitted model has no networks of the folds.

    Returns
    -------
    ExplainedRows
    """
    folds = np.full(problem.n_rows, -1) if model.refitted or not len(oof_folds) else oof_folds
    folds = np.where(folds < len(model.folds), folds, -1)  # a limit of the latency leaves folds out
    return ExplainedRows(
        frame=problem.frame,
        target=encoded_target(model, problem.target),
        folds=folds,
        weight=problem.weight,
        groups=problem.groups,
        numbers=problem.row_numbers,
    )


def new_rows(
    model: TrainedModel,
    frame: pd.DataFrame,
    target: Any = None,
    weight: Any = None,
    *,
    groups: Any = None,
    numbers: Any = None,
    background: pd.DataFrame | None = None,
) -> ExplainedRows:
    """Return rows that the search has not seen.

    Parameters
    ----------
    model, frame
        Model and features.
    target, weight, groups
        Target, weights and groups of the rows, or None.
    numbers
        Number of each row in the table of the user; None for all rows in order.
    background
        Rows that stand for unknown values; None for the rows themselves.

    Returns
    -------
    ExplainedRows
    """
    return ExplainedRows(
        frame=frame,
        target=None if target is None else encoded_target(model, target),
        weight=weight,
        groups=groups,
        numbers=numbers,
        background=background,
    )


def oof_folds_of(directory: RunDirectory, problem: Problem, model: TrainedModel) -> NDArray[Any]:
    """Return for each row of the problem of a run the fold that predicts it, or -1; empty for older runs.

    Parameters
    ----------
    directory, problem, model
        A finished run, its problem and its model.

    Returns
    -------
    array of shape (n,)

    Raises
    ------
    RunDirectoryError
        If the file is missing or damaged.
    """
    path = directory.path / "oof.safetensors"
    found = load_arrays(path, names=("rows", "folds"))
    with reading(path):
        if "folds" not in found:
            return np.empty(0, dtype=np.int16)
        rows, mine = found["rows"], found["folds"]
        if rows.shape != mine.shape or rows.min() < 0 or rows.max() >= problem.n_rows:
            raise ValueError("its folds do not belong to the table")
        if not model.refitted and (mine.min() < 0 or mine.max() >= directory.result()["n_folds"]):
            raise ValueError("its folds do not belong to the model")
        folds = np.full(problem.n_rows, -1, dtype=np.int16)
        folds[rows] = mine
        return folds
