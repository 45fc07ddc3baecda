"""Weighted mean of the predictions of many networks, from a table to probabilities or values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parallelmlp_search.data.encoding import TableEncoder
from parallelmlp_search.data.target_curve import TargetCurve
from parallelmlp_search.inference.encoding import FoldEncoder, UsedColumns
from parallelmlp_search.inference.forward import network_outputs
from parallelmlp_search.inference.networks import Blocks, PlainNetworks, TrainedNetwork, plain_networks
from parallelmlp_search.inference.outputs import mean_predictions
from parallelmlp_search.inference.threads import for_each
from parallelmlp_search.packing import Architecture, Head

WINDOW_FLOATS = 1 << 19
"""Numbers of the largest layer in a window of rows: 2 MiB, about the cache of a core."""

MIN_WINDOW_ROWS, MAX_WINDOW_ROWS = 16, 256
"""Limits of a window: products of fewer rows are slow, and more rows gain nothing."""


@dataclass(frozen=True, eq=False)
class EnsembleFold:
    """Networks of one fold.

    Attributes
    ----------
    encoder, head
        Preprocessing and outputs of the fold.
    networks
        Architecture and parameters of the network of each configuration.
    curves
        Map from outputs to a transformed target of each configuration, or None; empty for none.
    """

    encoder: TableEncoder
    head: Head
    networks: Sequence[tuple[Architecture, Blocks]]
    curves: Sequence[TargetCurve | None] = ()


class Ensemble:
    """Weighted mean over configurations of the mean over folds.

    Parameters
    ----------
    folds
        Networks of each fold, which have the same configurations in the same order.
    weights
        Weights of the configurations ``(P,)``. Those of weight 0 are not computed.

    Attributes
    ----------
    groups
        Folds that use the same columns of the table; all of them, unless columns were recognised anew.
    shares
        Share of the folds that each group has.
    """

    def __init__(self, folds: Sequence[EnsembleFold], weights: NDArray[Any]) -> None:
        by_columns: dict[Any, list[EnsembleFold]] = {}
        for fold in folds:
            by_columns.setdefault(_used_columns(fold.encoder), []).append(fold)
        self.groups = [FoldGroup(group, weights) for group in by_columns.values()]
        self.shares = [len(group) / len(folds) for group in by_columns.values()]

    def predictions(self, X: Any) -> NDArray[np.float64]:
        """Return predictions ``(n_predictions, n)`` of the rows of a table.

        Parameters
        ----------
        X
            Table with the columns of training by name, or an array of shape (n, columns of training).

        Returns
        -------
        array of shape (n_predictions, n)

        Raises
        ------
        DataError
            If a column that is used is missing, or an array has another number of columns.
        """
        return self.predictions_of([group.encoder.read(X) for group in self.groups])

    def predictions_of(self, used: Sequence[UsedColumns]) -> NDArray[np.float64]:
        """Return predictions ``(n_predictions, n)`` of rows whose columns each of the groups has read."""
        first, *others = (
            share * group.predictions(mine)
            for share, group, mine in zip(self.shares, self.groups, used, strict=True)
        )
        return sum(others, first)


class FoldGroup:
    """Folds that use the same columns of the table and are computed side by side.

    Parameters
    ----------
    folds, weights
        As for :class:`Ensemble`.

    Attributes
    ----------
    encoder
        Encoder of all folds at once, or of one if they share it.
    networks, weights
        Networks of each configuration with a weight, and the weights.
    heads
        Heads of the folds.
    window
        Rows that are computed at once.
    curves
        For each of ``networks``, the curves of the folds, or None.
    """

    def __init__(self, folds: Sequence[EnsembleFold], weights: NDArray[Any]) -> None:
        self.heads = [fold.head for fold in folds]
        encoders = list(dict.fromkeys(fold.encoder for fold in folds))
        if len(encoders) > 1:
            encoders = [fold.encoder for fold in folds]
        self.encoder = FoldEncoder(encoders)
        used = np.flatnonzero(weights)
        self.weights: list[float] = weights[used].tolist()
        self.networks: list[PlainNetworks] = [
            plain_networks(
                [
                    TrainedNetwork(*fold.networks[number], self.encoder.places[place % len(encoders)])
                    for place, fold in enumerate(folds)
                ]
            )
            for number in used.tolist()
        ]
        self.curves = [
            curves_of_folds([one.curves[number] for one in folds if one.curves]) for number in used.tolist()
        ]
        self.encoder.keep(pair for networks in self.networks for pair in networks.columns)
        per_row = max([self.encoder.width * len(encoders), *(one.floats_per_row for one in self.networks)])
        self.window = max(MIN_WINDOW_ROWS, min(MAX_WINDOW_ROWS, WINDOW_FLOATS // per_row))

    def predictions(self, used: UsedColumns) -> NDArray[np.float64]:
        """Return predictions ``(n_predictions, n)`` of rows that the encoder has read."""
        n_rows = len(used)
        result = np.empty((n_rows, self.heads[0].n_predictions))
        n_windows = -(-n_rows // self.window)
        edges = [number * n_rows // max(1, n_windows) for number in range(n_windows + 1)]

        def predict(window: slice) -> None:
            result[window] = self._predict(used[window])

        for_each(predict, [slice(*pair) for pair in pairwise(edges)])
        return result.T

    def _predict(self, used: UsedColumns) -> NDArray[np.float64]:
        """Predictions ``(n, n_predictions)`` of the rows of a window."""
        total = np.zeros((len(used), self.heads[0].n_predictions))
        # exponentials overflow to infinity, whose reciprocal is right; a thread has its own error state
        with np.errstate(all="ignore"):
            rows = self.encoder.encode(used)
            for weight, networks, curves in zip(self.weights, self.networks, self.curves, strict=True):
                total += weight * mean_predictions(self.heads, network_outputs(networks, rows), curves)
        return total


def curves_of_folds(curves: Sequence[TargetCurve | None]) -> list[TargetCurve] | None:
    """Return the curves of a configuration in all folds, or None if its target is not transformed."""
    return [curve for curve in curves if curve is not None] or None


def _used_columns(encoder: TableEncoder) -> tuple[Any, ...]:
    """Columns of the table that an encoder uses, and how."""
    kinds = [type(column) for column in encoder.columns.values()]
    return (
        encoder.named, encoder.schema.names, *encoder.numeric, None, *encoder.numeric_names,
        None, *encoder.columns, *kinds, None, *encoder.means,
    )  # fmt: skip
