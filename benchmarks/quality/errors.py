"""Errors as in TabArena: 1 - ROC-AUC for two classes, log-loss for more, RMSE for regression."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import log_loss, roc_auc_score

__all__ = ["METRICS", "error_of", "error_of_score"]

METRICS = {"binary": "roc_auc", "multiclass": "log_loss", "regression": "rmse"}
"""Name of the metric of each task."""

MIN_PROBABILITY = 1e-15
"""Lower bound of probabilities, so that the log-loss stays finite, as in scikit-learn."""


def error_of(task: str, target: NDArray[Any], predictions: NDArray[np.float64]) -> float:
    """Return the error of predictions on held-out rows.

    Parameters
    ----------
    task
        ``binary``, ``multiclass`` or ``regression``.
    target
        (n,) class numbers or values.
    predictions
        (n, classes) probabilities, or (n,) values.

    Returns
    -------
    float
        Lower is better.

    Raises
    ------
    ValueError
        If a prediction is not finite.
    """
    if not np.isfinite(predictions).all():
        raise ValueError("predictions must be finite, but some are not")
    if task == "regression":
        return float(np.sqrt(np.mean((np.asarray(target, dtype=np.float64) - predictions) ** 2)))
    if task == "binary":
        return 1.0 - float(roc_auc_score(target, predictions[:, 1]))
    probabilities = np.clip(predictions, MIN_PROBABILITY, None)
    probabilities = probabilities / probabilities.sum(axis=1, keepdims=True)
    return float(log_loss(target, probabilities, labels=np.arange(predictions.shape[1])))


def error_of_score(task: str, score: float) -> float:
    """Return the error that corresponds to a score."""
    return 1.0 - score if task == "binary" else score
