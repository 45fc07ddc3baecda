"""Snapshots of training: weights and predictions of members at each evaluation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from parallelmlp_search.engine import Head, Population
from parallelmlp_search.engine.heads import stable_head_predictions


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
        Predictions of the rows to predict, ``(T, C, n)``.
    """

    epochs: Tensor
    weights: Tensor
    predictions: Tensor


class SnapshotKeeper:
    """Copies averaged weights and predictions of all members at each evaluation."""

    def __init__(self, population: Population, head: Head) -> None:
        self._population = population
        self._head = head
        self._flats: list[Tensor] = []
        self._predictions: list[Tensor] = []

    def __call__(self, outputs: Tensor) -> Tensor:
        """Take outputs ``(P, C, n)`` and return errors ``(P,)``, which are NaN: nothing is scored yet."""
        self._flats.append(self._population.flats["average"].to("cpu", copy=True))
        self._predictions.append(stable_head_predictions(self._head, outputs).cpu())
        return torch.full((outputs.shape[0],), torch.nan, dtype=torch.float64)

    def stacked(self, member: int, row: int) -> tuple[Tensor, Tensor]:
        """Weights and predictions of a member, given its stacked row, as in :class:`Snapshots`."""
        weights = torch.stack([self._population.vector(member, flat) for flat in self._flats])
        return weights, torch.stack([predictions[row] for predictions in self._predictions])
