"""At which moment of its training a finalist was best, told by the choosing rows' out-of-fold predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from parallelmlp_search.distribute import Snapshots
from parallelmlp_search.search.problem.preparation import Part, Preparation

__all__ = ["FoldNetwork", "SnapshotSelection"]


class FoldNetwork(NamedTuple):
    """A finalist as one fold has trained it.

    Attributes
    ----------
    vector
        Canonical vector ``(n_parameters,)``.
    prediction
        ``(C, n)`` of the rows that the fold predicts.
    epoch
        Epochs at the moment that was chosen.
    """

    vector: Tensor
    prediction: Tensor
    epoch: float


class SnapshotSelection:
    """Collects the moments of finalists fold by fold, and chooses once the last fold is in.

    Parameters
    ----------
    preparation
        Knows the choosing rows and the metric.
    parts
        One per fold.
    """

    def __init__(self, preparation: Preparation, parts: Sequence[Part]) -> None:
        self._preparation = preparation
        # choosing rows that no fold predicts, such as those without a group to be held out with, say nothing
        self._choosing = [np.isin(part.predicted_rows, preparation.validation_rows) for part in parts]
        order = [part.predicted_rows[mask] for part, mask in zip(parts, self._choosing, strict=True)]
        rows = np.concatenate(order) if order else np.empty(0, dtype=np.intp)
        self._target = preparation.metric_target(rows)
        self._weight = preparation.weights(rows)
        self._waiting: dict[int, dict[int, Snapshots]] = {}

    def offer(self, trial: int, fold: int, moments: Snapshots) -> dict[int, FoldNetwork]:
        """Take in a fold of a finalist; all folds at the chosen moment if it was the last, else nothing."""
        folds = self._waiting.setdefault(trial, {})
        folds[fold] = moments
        if len(folds) < len(self._choosing):
            return {}
        del self._waiting[trial]
        best = self._best([folds[number] for number in range(len(self._choosing))])
        return {
            # copies, so that the other moments can go
            number: FoldNetwork(
                kept.weights[moment].clone(), kept.predictions[moment].clone(), float(kept.epochs[moment])
            )
            for number, kept in folds.items()
            for moment in (min(best, len(kept.epochs) - 1),)
        }

    def _best(self, folds: Sequence[Snapshots]) -> int:
        """Number of the moment with the least error, the last of equals.

        A fold that a deadline has cut stands still after its last moment.
        """
        count = max(len(kept.epochs) for kept in folds)
        predictions = torch.cat(
            [
                kept.predictions[[min(number, len(kept.epochs) - 1) for number in range(count)]][:, :, mask]
                for kept, mask in zip(folds, map(torch.from_numpy, self._choosing), strict=True)
            ],
            dim=2,
        )
        errors = self._preparation.comparing.error(predictions, self._target, self._weight)
        if not bool(torch.isfinite(errors).any()):
            return count - 1
        errors = torch.where(torch.isfinite(errors), errors, torch.inf)
        return count - 1 - int(errors.flip(0).argmin())
