"""Predictions from the outputs of networks, and their postprocessing, in NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parallelmlp_search.data.target_curve import TargetCurve
from parallelmlp_search.packing import MAX_LOG, Head

Floats = NDArray[Any]
Doubles = NDArray[np.float64]

MIN_PROBABILITY = 1e-12
"""Least probability of which a logarithm is taken."""


def mean_predictions(
    heads: Sequence[Head], outputs: Floats, curves: Sequence[TargetCurve] | None = None
) -> Doubles:
    """Return the mean predictions ``(n, n_predictions)`` over all folds and submembers.

    Computed in double precision from outputs in single precision. The twin for tensors is
    :func:`parallelmlp_search.engine.heads.head_predictions`.

    Parameters
    ----------
    heads
        Heads of the ``F`` folds; those of a regression differ.
    outputs
        Outputs ``(F, K, n, C)``.
    curves
        Map from outputs to the target of each fold, or None where the target is not transformed.

    Returns
    -------
    array of shape (n, n_predictions)
    """
    outputs = outputs.astype(np.float64)
    task = heads[0].task
    if curves is not None:
        of_folds = [curve.decode(own.T) for curve, own in zip(curves, outputs.mean(axis=1), strict=True)]
        decoded: Doubles = np.mean(of_folds, axis=0).T
        return decoded
    if task == "regression":
        location, scale, lower, upper = (
            np.array([getattr(head, name) for head in heads])[:, None]
            for name in ("location", "scale", "lower", "upper")
        )
        # the range limits the mean of submembers, which is the output of the network
        values = outputs.mean(axis=1)
        if heads[0].link == "log":
            values = np.exp(np.clip(values, -MAX_LOG, MAX_LOG))
        values = values * scale + location
        limited: Doubles = np.minimum(np.maximum(values, lower), upper).mean(axis=0)
        return limited
    if task == "multilabel":
        means = outputs.mean(axis=1)
        small = np.exp(-np.abs(means))
        present: Doubles = (np.where(means > 0, 1.0, small) / (1.0 + small)).mean(axis=0)
        return present
    if task == "binary":
        # both from the logit, so that neither probability is lost to rounding
        logits = outputs[..., 0]
        small = np.exp(-np.abs(logits))
        large = 1.0 / (1.0 + small)
        small *= large
        is_positive = logits > 0
        first = np.where(is_positive, small, large).mean(axis=(0, 1))
        second = np.where(is_positive, large, small).mean(axis=(0, 1))
        return np.stack([first, second], axis=1)
    outputs -= outputs.max(axis=3, keepdims=True)
    np.exp(outputs, out=outputs)
    outputs /= outputs.sum(axis=3, keepdims=True)
    mean: Doubles = outputs.mean(axis=(0, 1))
    return mean


def calibrated(task: str, means: Doubles, temperature: float) -> Doubles:
    """Return means of predictions as probabilities at a temperature; values of a regression stay.

    Parameters
    ----------
    task
        Task of the model.
    means
        Means over networks ``(C, n)``. Probabilities of classes are divided by their sum.
    temperature
        Temperature of the probabilities.

    Returns
    -------
    array of shape (C, n)
    """
    if task == "regression":
        return means
    if task == "multilabel":
        return tempered_labels(means, temperature)
    return tempered(means / means.sum(axis=0), temperature)


def tempered_labels(probabilities: Doubles, temperature: float) -> Doubles:
    """Return probabilities of labels ``(C, n)`` at a temperature, which divides their log-odds.

    The twin for tensors is :func:`parallelmlp_search.selection.apply_temperature`.
    """
    if temperature == 1.0:
        return probabilities
    present, absent = (np.log(np.maximum(p, MIN_PROBABILITY)) for p in (probabilities, 1.0 - probabilities))
    found: Doubles = 1.0 / (1.0 + np.exp((absent - present) / temperature))
    return found


def tempered(probabilities: Doubles, temperature: float) -> Doubles:
    """Return probabilities ``(C, n)`` at a temperature.

    The twin for tensors is :func:`parallelmlp_search.selection.apply_temperature`.
    """
    if temperature == 1.0:
        return probabilities
    logits = np.log(np.maximum(probabilities, MIN_PROBABILITY)) / temperature
    logits -= logits.max(axis=0)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=0)
    return logits


def decided(probabilities: Doubles, weights: Sequence[Any] | None) -> NDArray[np.intp]:
    """Return the numbers ``(n,)`` of the predicted classes.

    The twin for tensors is :func:`parallelmlp_search.selection.weight_classes`.

    Parameters
    ----------
    probabilities
        Probabilities ``(C, n)``.
    weights
        Weights ``(C,)`` of the classes; or ``(C, C)`` of true classes for predicted ones; or None.

    Returns
    -------
    array of shape (n,)
    """
    if weights is not None:
        factors = np.array(weights)
        probabilities = factors.T @ probabilities if factors.ndim == 2 else probabilities * factors[:, None]
    numbers: NDArray[np.intp] = probabilities.argmax(axis=0)
    return numbers
