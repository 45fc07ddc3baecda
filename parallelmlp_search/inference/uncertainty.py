"""Errors on out-of-fold rows, which a trained model keeps for its intervals and sets of classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from parallelmlp_search._files import save_arrays
from parallelmlp_search._reading import load_arrays, load_metadata, newer_format, reading
from parallelmlp_search._schema import Positive
from parallelmlp_search.data.encoding import TableEncoder
from parallelmlp_search.exceptions import RunDirectoryError
from parallelmlp_search.inference.conformal import ConformalScores, Floats
from parallelmlp_search.inference.scale_trees import ScaleTrees

FILE = "uncertainty.safetensors"
FORMAT = 1

Table = pd.DataFrame | NDArray[Any]


class StoredUncertainty(TypedDict):
    """Metadata of the file."""

    format: Positive
    groups: Positive


@dataclass(frozen=True, eq=False)
class Uncertainty:
    """Scores of out-of-fold rows, and trees that scale those of a regression.

    The score of a row is its absolute error divided by the size that the trees predict, or one minus the
    probability of its class. Errors are in the units that the networks predict.

    Attributes
    ----------
    scores
        Scores of each output ``(C, n)``; of one for classes.
    groups
        Group of each row ``(n,)``: the fold whose networks have not seen it, or 0 for all rows if the
        model has other networks than those of all folds.
    n_groups
        Number of groups ``G``.
    weight
        Weight of each row ``(n,)``, or None.
    bounds
        Least and largest value of each output in training ``(2, C)``, which limit intervals; None for
        classes.
    trees
        Trees that predict the size of errors, or None if it is the same in all rows.
    """

    scores: NDArray[np.float32]
    groups: NDArray[np.int16]
    n_groups: int
    weight: NDArray[np.float32] | None = None
    bounds: Floats | None = None
    trees: ScaleTrees | None = None

    @cached_property
    def conformal(self) -> list[ConformalScores]:
        """Sorted scores of each output."""
        return [ConformalScores(one, self.groups, self.n_groups, self.weight) for one in self.scores]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "conformal"}

    def ends(self, centres: Floats, scales: Floats, mean: Floats, coverages: Sequence[float]) -> Floats:
        """Return the ends of intervals, which contain the prediction and grow with the coverage.

        Parameters
        ----------
        centres, scales
            Predictions and sizes of errors by the networks of each group ``(G, C, n)``.
        mean
            Predictions of the model ``(C, n)``.
        coverages
            Shares of new rows.

        Returns
        -------
        array of shape (coverages, 2, C, n)
        """
        assert self.bounds is not None
        result = np.empty((len(coverages), 2, *mean.shape))
        for output, scores in enumerate(self.conformal):
            own, scale = centres[:, output], scales[:, output]
            low, high = self.bounds[:, output]
            for place, coverage in enumerate(coverages):
                lower = -scores.upper_ends(-own, scale, coverage)
                upper = scores.upper_ends(own, scale, coverage)
                result[place, 0, output] = np.minimum(np.maximum(lower, low), mean[output])
                result[place, 1, output] = np.maximum(np.minimum(upper, high), mean[output])
        return result

    def save(self, folder: Path) -> None:
        """Write the file into the folder of a model."""
        arrays: dict[str, NDArray[Any]] = {"scores": self.scores, "row_groups": self.groups}
        arrays |= {} if self.weight is None else {"weight": self.weight}
        arrays |= {} if self.bounds is None else {"bounds": self.bounds}
        arrays |= {} if self.trees is None else self.trees.to_arrays()
        save_arrays(folder / FILE, arrays, {"format": FORMAT, "groups": self.n_groups})

    @classmethod
    def load(
        cls, folder: Path, encoder: TableEncoder, n_folds: int, n_outputs: int | None
    ) -> Uncertainty | None:
        """Read the file of a model; None if it has none, as models of older versions.

        Parameters
        ----------
        folder
            Folder of the model.
        encoder
            Encoder of its first fold.
        n_folds
            Folds of the model.
        n_outputs
            Outputs of a regression; None for classes.

        Returns
        -------
        Uncertainty or None

        Raises
        ------
        RunDirectoryError
            If the file is damaged, of a newer version, or belongs to another model.
        """
        path = folder / FILE
        if not path.is_file():
            return None
        arrays, stored = load_arrays(path), load_metadata(path, StoredUncertainty)
        if stored["format"] > FORMAT:
            raise RunDirectoryError(newer_format(path, stored["format"], FORMAT))
        width = n_outputs or 1
        with reading(path):
            if stored["groups"] not in (1, n_folds):
                raise ValueError(f"it has {stored['groups']} groups, but the model has {n_folds} folds")
            n_groups = stored["groups"]
            scores, groups = arrays["scores"], arrays["row_groups"]
            n_rows = len(groups)
            weight, bounds = arrays.get("weight"), arrays.get("bounds")
            shapes: list[tuple[Any, tuple[int, ...], type]] = [
                (scores, (width, n_rows), np.float32),
                (groups, (n_rows,), np.int16),
            ]
            shapes += [] if weight is None else [(weight, (n_rows,), np.float32)]
            shapes += [] if n_outputs is None else [(bounds, (2, width), np.float64)]
            for array, shape, dtype in shapes:
                if array is None or array.shape != shape or array.dtype != dtype:
                    raise ValueError("its tensors have other shapes or types than those of a model")
                if not np.isfinite(array).all():
                    raise ValueError("its tensors must hold finite numbers")
            if not n_rows or groups.min() < 0 or groups.max() >= n_groups or scores.min() < 0:
                raise ValueError("its scores must be >= 0 and belong to a group")
            if weight is not None and not (weight.min() >= 0 and weight.sum() > 0):
                raise ValueError("its weights must be >= 0 and not all 0")
            trees = None
            if "roots" in arrays:
                first, end = _used(encoder)
                n_columns = end - first + width
                trees = ScaleTrees.from_arrays(arrays, n_groups, width, n_columns)
        return cls(scores, groups, n_groups, weight, None if n_outputs is None else bounds, trees)


def _used(encoder: TableEncoder) -> tuple[int, int]:
    """First and end of the columns that trees compare.

    Columns before are other forms of the numbers. Those at the end are mean targets, which know the rows.
    """
    return encoder.groups.n_quantiles + encoder.groups.n_pieces, encoder.n_outputs - encoder.n_means


def tree_features(encoder: TableEncoder, table: Table) -> NDArray[np.float32]:
    """Return the columns ``(n, D)`` of a read table that trees compare, to which predictions are added."""
    first, end = _used(encoder)
    return encoder.encode(table)[:, first:end]


def with_predictions(features: NDArray[np.float32], predictions: Floats) -> NDArray[np.float32]:
    """Return features ``(n, D)`` with predictions ``(C, n)`` as further columns."""
    return np.column_stack([features, predictions.T.astype(np.float32)])
