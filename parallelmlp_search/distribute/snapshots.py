"""Snapshots of training: weights and predictions of members at each evaluation.

They hold predictions only of the rows that select a snapshot. The other rows are predicted once, with the
selected weights: on adult, ten snapshots of all rows took a sixth of the time of their training.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parallelmlp_search.distribute.shard_data import ShardData
from parallelmlp_search.engine import MemberState, Population, predict
from parallelmlp_search.engine.rows import Rows, select_rows
from parallelmlp_search.kernels.numba.dispatch import following
from parallelmlp_search.space import MLPConfig

Floats = NDArray[np.float64]

MAX_RESIDUAL_ROWS = 4096
"""Training rows whose residuals stand for those of all, where there are no validation rows."""


@dataclass(frozen=True)
class Snapshots:
    """``T`` snapshots of one member.

    Attributes
    ----------
    epochs
        Epochs completed, ``(T,)`` float64.
    weights
        Canonical vectors of averaged weights, ``(T, n_parameters)``.
    predictions
        Predictions of the rows that select a snapshot, ``(T, C, n)``; outputs if the target is transformed.
    """

    epochs: Tensor
    weights: Tensor
    predictions: Tensor


class SnapshotKeeper:
    """Copies averaged weights and predictions of all members at each evaluation."""

    def __init__(self, population: Population, data: ShardData) -> None:
        self._population = population
        self._data = data
        self._flats: list[Tensor] = []
        self._predictions: list[Tensor] = []

    def __call__(self, outputs: Tensor) -> Tensor:
        """Take outputs ``(P, C, n)`` and return errors ``(P,)``, which are NaN: nothing is scored yet."""
        self._flats.append(self._population.flats["average"].to("cpu", copy=True))
        is_plain = self._data.curve is None
        kept = self._data.predictions(outputs).cpu() if is_plain else outputs.to("cpu", copy=True)
        self._predictions.append(kept)
        return torch.full((outputs.shape[0],), torch.nan, dtype=torch.float64)

    def stacked(self, member: int, row: int) -> tuple[Tensor, Tensor]:
        """Weights and predictions of a member, given its stacked row, as in :class:`Snapshots`."""
        weights = torch.stack([self._population.vector(member, flat) for flat in self._flats])
        return weights, torch.stack([predictions[row] for predictions in self._predictions])


def predict_network(
    data: ShardData, config: MLPConfig, vector: Tensor, residuals: Floats | None = None
) -> Tensor:
    """Predict the rows to predict with a trained network.

    Parameters
    ----------
    data, config
        Data of its training, and its configuration.
    vector
        Canonical vector ``(n_parameters,)``.
    residuals
        Residuals ``(C, Q)`` over which the curve of a transformed target is smeared, or None.

    Returns
    -------
    Tensor
        Predictions ``(C, n)`` on the CPU.
    """
    seen = data.seen_by(config)
    assert seen.prediction_inputs is not None
    outputs = _outputs(seen, config, vector, seen.prediction_inputs)
    return seen.predictions(outputs, residuals)[0].cpu()


def network_residuals(data: ShardData, config: MLPConfig, vector: Tensor) -> Floats | None:
    """Return the residuals over which the curve of a trained network is smeared.

    Parameters
    ----------
    data, config, vector
        As for :func:`predict_network`.

    Returns
    -------
    array of shape (C, Q) or None
        Residuals of the validation rows, or of training rows where there are none; None without a transformed
        target, and for a metric that does not ask for means.
    """
    seen = data.seen_by(config)
    if seen.curve is None or not seen.smears:
        return None
    inputs, target, weight = seen.validation_inputs, seen.validation_target, seen.validation_weight
    if inputs is None or target is None:
        count = min(seen.n_rows, MAX_RESIDUAL_ROWS)
        rows = torch.linspace(0, seen.n_rows - 1, count, dtype=torch.float64).long()
        inputs = select_rows(seen.rows.inputs, rows.to(data.device))
        encoded = seen.rows.target.cpu()[:, rows]
        target = torch.from_numpy(seen.curve.decode(encoded.numpy()))
        weight = None if seen.rows.weight is None else seen.rows.weight.cpu()[rows]
    return seen.residuals(_outputs(seen, config, vector, inputs), target, weight)[0]


def _outputs(seen: ShardData, config: MLPConfig, vector: Tensor, inputs: Rows) -> Tensor:
    """Outputs ``(1, C, n)`` of a trained network."""
    state = MemberState({"parameters": vector})
    population = Population.create([config], seen.shape, states=[state], rows=seen.rows.inputs)
    with following(seen.path):
        return predict(population, inputs)
