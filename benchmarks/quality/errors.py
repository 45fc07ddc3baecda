"""The errors of TabArena: 1 - ROC-AUC for two classes, log-loss for more, RMSE for numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import log_loss, roc_auc_score

__all__ = ["METRICS", "error_of", "error_of_score"]

METRICS = {"binary": "roc_auc", "multiclass": "log_loss", "regression": "rmse"}
"""The metric of each task by our own name for it."""

MIN_PROBABILITY = 1e-15
"""A tool that gives the true class no chance at all is not infinitely bad, as in scikit-learn."""


def error_of(task: str, target: NDArray[Any], predictions: NDArray[np.float64]) -> float:
    """Error of predictions on held-back rows.

    Parameters
    ----------
    task
        ``binary``, ``multiclass`` or ``regression``.
    target
        (n,) class numbers or values.
    predictions
        (n, classes) probabilities, or (n,) values.
    """
    if not np.isfinite(predictions).all():
        raise ValueError("predictions must be finite, but some are not")
    if task == "regression":
        return float(np.sqrt(np.mean((np.asarray(target, dtype=np.float64) - predictions) ** 2)))
    if task == "binary":
        return 1.0 - float(roc_auc_score(target, predictions[:, 1]))
    likely = np.clip(predictions, MIN_PROBABILITY, None)
    likely = likely / likely.sum(axis=1, keepdims=True)
    return float(log_loss(target, likely, labels=np.arange(predictions.shape[1])))


def error_of_score(task: str, score: float) -> float:
    """Error that stands for a score in the metric's own orientation."""
    return 1.0 - score if task == "binary" else score
