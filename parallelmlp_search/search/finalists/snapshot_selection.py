"""Choice of a finalist's best snapshot by out-of-fold predictions of the validation rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from parallelmlp_search.distribute import Snapshots
from parallelmlp_search.search.problem.preparation import Part, Preparation


class FoldNetwork(NamedTuple):
    """Network of a finalist from one fold."""

    vector: Tensor
    """Canonical vector ``(n_parameters,)``."""
    prediction: Tensor
    """Predictions ``(C, n)`` of the rows that the fold has not seen."""
    epoch: float
    """Epochs of the chosen snapshot."""


class Snapshot(NamedTuple):
    """Chosen snapshot of a finalist in one fold: canonical vector ``(n_parameters,)`` and epochs."""

    vector: Tensor
    epoch: float


class SnapshotSelection:
    """Collects snapshots of finalists fold by fold, and chooses one once all folds are there."""

    def __init__(self, preparation: Preparation, parts: Sequence[Part]) -> None:
        self._preparation = preparation
        # validation rows that no fold predicts, for example those of the first times, do not count
        masks = [np.isin(part.predicted_rows, preparation.validation_rows) for part in parts]
        order = [part.predicted_rows[mask] for part, mask in zip(parts, masks, strict=True)]
        self._masks = [torch.from_numpy(mask) for mask in masks]
        rows = np.concatenate(order) if order else np.empty(0, dtype=np.intp)
        self._target = preparation.metric_target(rows)
        self._weight = preparation.weights(rows)
        self._waiting: dict[int, dict[int, Snapshots]] = {}

    def add(self, trial: int, fold: int, snapshots: Snapshots) -> dict[int, Snapshot]:
        """Add the snapshots of a finalist in one fold.

        Parameters
        ----------
        trial, fold, snapshots
            Number of the finalist, number of the fold, snapshots.

        Returns
        -------
        dict of Snapshot
            Chosen snapshot of every fold; empty while folds are missing.
        """
        folds = self._waiting.setdefault(trial, {})
        folds[fold] = snapshots
        if len(folds) < len(self._masks):
            return {}
        del self._waiting[trial]
        best = self._best([folds[number] for number in range(len(self._masks))])
        chosen = {number: min(best, len(kept.epochs) - 1) for number, kept in folds.items()}
        # clones, so that the other snapshots can be freed
        return {
            number: Snapshot(kept.weights[chosen[number]].clone(), float(kept.epochs[chosen[number]]))
            for number, kept in folds.items()
        }

    def _best(self, folds: Sequence[Snapshots]) -> int:
        """Number of the snapshot with the lowest error, the last of ties.

        A fold that a deadline ended early keeps its last snapshot.
        """
        count = max(len(kept.epochs) for kept in folds)
        predictions = torch.cat(
            [
                _of_rows(kept, mask)[[min(number, len(kept.epochs) - 1) for number in range(count)]]
                for kept, mask in zip(folds, self._masks, strict=True)
            ],
            dim=2,
        )
        errors = self._preparation.comparison_metric.error(predictions, self._target, self._weight)
        if not bool(torch.isfinite(errors).any()):
            return count - 1
        errors = torch.where(torch.isfinite(errors), errors, torch.inf)
        return count - 1 - int(errors.flip(0).argmin())


def _of_rows(kept: Snapshots, mask: Tensor) -> Tensor:
    """Predictions of the validation rows among those of a fold, which ``mask`` marks."""
    # checkpoints before version 0.2 hold the predictions of all rows of a fold
    return kept.predictions[:, :, mask] if kept.predictions.shape[2] == len(mask) else kept.predictions
