"""Snapshots of training: what members weighed and predicted then, for those who choose among them later."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from parallelmlp_search.engine import Head, Population

__all__ = ["SnapshotKeeper", "Snapshots"]


@dataclass(frozen=True)
class Snapshots:
    """One member at each of ``T`` moments.

    Attributes
    ----------
    epochs
        Epochs completed, ``(T,)`` float64.
    weights
        Canonical vectors of its averaged weights, ``(T, n_parameters)``.
    predictions
        Of the rows that were to be predicted, ``(T, C, n)``.
    """

    epochs: Tensor
    weights: Tensor
    predictions: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """The same as a mapping."""
        return {"epochs": self.epochs, "weights": self.weights, "predictions": self.predictions}


class SnapshotKeeper:
    """Keeps what all members of a population predict whenever it is asked to judge them.

    Parameters
    ----------
    population
        Its averaged weights are copied at each moment.
    head
        Turns outputs into predictions.
    """

    def __init__(self, population: Population, head: Head) -> None:
        self._population = population
        self._head = head
        self._flats: list[Tensor] = []
        self._predictions: list[Tensor] = []

    def __call__(self, outputs: Tensor) -> Tensor:
        """Take in outputs ``(P, C, n)``; nobody is judged yet, so that all errors ``(P,)`` are NaN."""
        self._flats.append(self._population.flats["average"].to("cpu", copy=True))
        self._predictions.append(self._head.stable_predictions(outputs).cpu())
        return torch.full((outputs.shape[0],), torch.nan, dtype=torch.float64)

    def moments(self, member: int, row: int, epochs: list[float]) -> Snapshots:
        """The moments of a member, given its stacked row."""
        return Snapshots(
            torch.tensor(epochs, dtype=torch.float64),
            torch.stack([self._population.vector(member, flat) for flat in self._flats]),
            torch.stack([predictions[row] for predictions in self._predictions]),
        )
