"""Choice of a finalist's best snapshot by out-of-fold predictions of the validation rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parallelmlp_search.data.target_curve import residual_points
from parallelmlp_search.distribute import Snapshots
from parallelmlp_search.engine.heads import curve_predictions
from parallelmlp_search.search.problem.preparation import Part, Preparation

Floats = NDArray[np.float64]


class FoldNetwork(NamedTuple):
    """Network of a finalist from one fold."""

    vector: Tensor
    """Canonical vector ``(n_parameters,)``."""
    prediction: Tensor
    """Predictions ``(C, n)`` of the rows that the fold has not seen."""
    epoch: float
    """Epochs of the chosen snapshot."""
    residuals: Floats | None = None
    """Residuals ``(C, Q)`` over which the curve of a transformed target is smeared, or None."""


class Snapshot(NamedTuple):
    """Chosen snapshot of a finalist in one fold: canonical vector ``(n_parameters,)``, epochs, residuals."""

    vector: Tensor
    epoch: float
    residuals: Floats | None


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
        self._data = [part.data for part in parts]
        self._waiting: dict[int, dict[int, Snapshots]] = {}

    def add(
        self, trial: int, fold: int, snapshots: Snapshots, transform: str = "none"
    ) -> dict[int, Snapshot]:
        """Add the snapshots of a finalist in one fold.

        Parameters
        ----------
        trial, fold, snapshots
            Number of the finalist, number of the fold, snapshots.
        transform
            Transformation of the target that the finalist learns.

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
        best, residuals = self._best([folds[number] for number in range(len(self._masks))], transform)
        chosen = {number: min(best, len(kept.epochs) - 1) for number, kept in folds.items()}
        # clones, so that the other snapshots can be freed
        return {
            number: Snapshot(
                kept.weights[chosen[number]].clone(), float(kept.epochs[chosen[number]]), residuals
            )
            for number, kept in folds.items()
        }

    def _best(self, folds: Sequence[Snapshots], transform: str) -> tuple[int, Floats | None]:
        """Number of the snapshot with the lowest error, the last of ties, and its residuals.

        A fold that a deadline ended early keeps its last snapshot.
        """
        count = max(len(kept.epochs) for kept in folds)
        of_folds = [
            _of_rows(kept, mask)[[min(number, len(kept.epochs) - 1) for number in range(count)]]
            for kept, mask in zip(folds, self._masks, strict=True)
        ]
        of_folds, residuals = self._restored(of_folds, transform)
        errors = self._preparation.comparison_metric.error(
            torch.cat(of_folds, dim=2), self._target, self._weight
        )
        if not bool(torch.isfinite(errors).any()):
            return count - 1, residuals[-1]
        errors = torch.where(torch.isfinite(errors), errors, torch.inf)
        best = count - 1 - int(errors.flip(0).argmin())
        return best, residuals[best]

    def _restored(
        self, of_folds: Sequence[Tensor], transform: str
    ) -> tuple[list[Tensor], list[Floats | None]]:
        """Predictions ``(T, C, n)`` of each fold, and residuals ``(C, Q)`` of all folds for each snapshot.

        Without a transformed target, ``of_folds`` are predictions; otherwise they are outputs.
        """
        count, data = len(of_folds[0]), self._data
        curves = [curve for one in data if (curve := one.curves.get(transform)) is not None]
        if not curves:
            return list(of_folds), [None] * count
        residuals: list[Floats | None] = [None] * count
        if data[0].smears:
            sizes = [outputs.shape[2] for outputs in of_folds]
            targets = zip(curves, torch.split(self._target, sizes, dim=1), strict=True)
            encoded = np.concatenate([curve.encode(own.numpy()) for curve, own in targets], axis=1)
            weight = None if self._weight is None else self._weight.numpy()
            outputs = torch.cat(list(of_folds), dim=2).double().numpy()
            residuals = [residual_points(encoded - one, weight) for one in outputs]
        found = [
            torch.cat(
                [
                    curve_predictions(curve.smeared(points), one[None])
                    for one, points in zip(outputs, residuals, strict=True)
                ]
            )
            for curve, outputs in zip(curves, of_folds, strict=True)
        ]
        return found, residuals


def _of_rows(kept: Snapshots, mask: Tensor) -> Tensor:
    """Predictions of the validation rows among those of a fold, which ``mask`` marks."""
    # checkpoints before version 0.2 hold the predictions of all rows of a fold
    return kept.predictions[:, :, mask] if kept.predictions.shape[2] == len(mask) else kept.predictions
