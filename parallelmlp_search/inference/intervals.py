"""Prediction intervals and sets of classes of a trained model, from the errors on its out-of-fold rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parallelmlp_search.exceptions import DataError
from parallelmlp_search.inference.conformal import Floats
from parallelmlp_search.inference.model import TrainedModel
from parallelmlp_search.inference.uncertainty import Table, Uncertainty, tree_features, with_predictions


def predicted_intervals(model: TrainedModel, X: Table, coverages: Sequence[float]) -> Floats:
    """Return the ends of intervals for the rows of a table.

    Parameters
    ----------
    model
        Model of a regression.
    X
        Table of shape (n, columns of training).
    coverages
        Shares of new rows, of :func:`~parallelmlp_search.inference.conformal.check_coverages`.

    Returns
    -------
    array of shape (coverages, 2, outputs, n)

    Raises
    ------
    DataError
        If the model holds no errors of out-of-fold rows, or the table lacks a column.
    InvalidParameterError
        If a coverage is too high for the number of out-of-fold rows.
    """
    uncertainty = uncertainty_of(model)
    table = model.read(X)
    mean, centres = _group_predictions(model, uncertainty, table)
    scales = np.ones_like(centres)
    if uncertainty.trees is not None:
        features = tree_features(model.folds[0].encoder, table)
        for group, own in enumerate(centres):
            scales[group] = np.exp(uncertainty.trees.log_scales(group, with_predictions(features, own)))
    ends = uncertainty.ends(centres, scales, mean, coverages)
    if (scaling := model.target_scaling) is not None:
        ends = np.array([[scaling.restore(end) for end in pair] for pair in ends])
    return ends


def predicted_sets(model: TrainedModel, X: Table, coverages: Sequence[float]) -> NDArray[np.bool_]:
    """Return the sets of classes for the rows of a table, each with the predicted class.

    Parameters
    ----------
    model
        Model of a classification.
    X, coverages
        As of :func:`predicted_intervals`.

    Returns
    -------
    bool array of shape (coverages, classes, n)

    Raises
    ------
    DataError, InvalidParameterError
        As of :func:`predicted_intervals`.
    """
    uncertainty = uncertainty_of(model)
    mean, probabilities = _group_predictions(model, uncertainty, model.read(X))
    scores = uncertainty.conformal[0]
    sets = np.array(
        [
            [scores.are_within(1.0 - probabilities[:, number], coverage) for number in range(len(mean))]
            for coverage in coverages
        ]
    )
    sets[:, model.class_numbers(mean), np.arange(mean.shape[1])] = True
    return sets


def uncertainty_of(model: Any) -> Uncertainty:
    """Return the scores of a model.

    Raises
    ------
    DataError
        If it has none.
    """
    if getattr(model, "task", None) == "multilabel":
        raise DataError(
            "sets of classes need a target of classes, but this model predicts several labels: use their "
            "probabilities"
        )
    found: Uncertainty | None = getattr(model, "uncertainty", None)
    if found is None:
        raise DataError(
            "intervals and sets are made of errors on out-of-fold rows, but the model holds none: it was "
            "distilled or saved by an older version, has promoted networks, or its table had too few rows or "
            "no informative column; search again"
        )
    return found


def _group_predictions(model: TrainedModel, uncertainty: Uncertainty, table: Table) -> tuple[Floats, Floats]:
    """Predictions of the model ``(C, n)``, and of the networks of each group ``(G, C, n)``."""
    mean = model.scaled_predictions(table)
    if uncertainty.n_groups == 1:
        return mean, mean[None]
    return mean, np.stack([fold.scaled_predictions(table) for fold in model.single_folds])


def by_row(values: NDArray[Any], coverage: Any) -> NDArray[Any]:
    """Return values ``(coverages, ..., C, n)`` with rows first and coverages last.

    The axis of coverages is left out if one coverage was given as a number; ends of intervals come after the
    outputs.
    """
    found = np.moveaxis(values, (-1, -2), (0, 1))
    found = np.moveaxis(found, 2, -1)
    return np.ascontiguousarray(found[..., 0] if np.ndim(coverage) == 0 else found)
