"""Table whose rows can take single columns from other rows, with the model that predicts them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from parallelmlp_search.data import as_frame
from parallelmlp_search.exceptions import DataWarning, InvalidParameterError, near_miss
from parallelmlp_search.explain.columns import ColumnValues, column_values
from parallelmlp_search.explain.rows import ExplainedRows
from parallelmlp_search.inference import TrainedModel
from parallelmlp_search.packing import member_seconds

Numbers = NDArray[np.intp]
Doubles = NDArray[np.float64]

MAX_CELLS = 1 << 22
"""Most cells of a table that is predicted at once."""

FORWARD_SHARE = 1 / 3
"""Share of a training step that the forward pass takes."""

ROW_SECONDS = 2e-6
"""Seconds to encode a row for one fold."""


@dataclass(frozen=True, eq=False)
class ExplainedTable:
    """Rows to explain, followed by background rows, as the plain columns that networks take.

    Attributes
    ----------
    model
        Model that is explained.
    rows
        Rows to explain.
    raw, plain
        All rows as they were given, and as plain columns.
    """

    model: TrainedModel
    rows: ExplainedRows
    raw: pd.DataFrame
    plain: pd.DataFrame

    @classmethod
    def of(cls, model: TrainedModel, rows: ExplainedRows) -> ExplainedTable:
        """Read the rows and the background; a `DataWarning` names columns with unreadable cells.

        Raises
        ------
        DataError
            If a column that the model needs is missing.
        """
        frames = [rows.frame] if rows.background is None else [rows.frame, rows.background]
        aligned = [model.folds[0].encoder.aligned(model.read(as_frame(frame))) for frame in frames]
        model.ensemble.groups[0].encoder.read(aligned[0])  # warns
        names = list(dict.fromkeys(name for part in cls._kept(model, aligned[0]) for name in part))
        plain = pd.concat([frame[names] for frame in aligned], ignore_index=True)
        raw = pd.concat([as_frame(frame) for frame in frames], ignore_index=True)
        return cls(model, rows, raw, plain)

    @staticmethod
    def _kept(model: TrainedModel, plain: pd.DataFrame) -> list[tuple[str, ...]]:
        """Plain columns that the model takes: all where they have no names in training."""
        if not model.folds[0].encoder.named:
            return [tuple(plain.columns)]
        return list(model.column_parts.values())

    @property
    def n_rows(self) -> int:
        """Number of rows to explain."""
        return len(self.rows)

    @cached_property
    def parts(self) -> dict[str, tuple[str, ...]]:
        """Used columns, each with its plain columns."""
        return self.model.column_parts

    @property
    def names(self) -> list[str]:
        """Names of the used columns."""
        return list(self.parts)

    @property
    def background(self) -> Numbers:
        """Numbers of the rows that stand for unknown values."""
        first = 0 if self.rows.background is None else self.n_rows
        return np.arange(first, len(self.plain))

    @cached_property
    def values(self) -> dict[str, ColumnValues]:
        """Values of each used column in all rows."""
        kinds = self.model.folds[0].encoder.schema.kinds
        found = {}
        for name, parts in self.parts.items():
            single = parts[0] if len(parts) == 1 else None
            plain = None if single is None else self.plain[single]
            kind = None if single is None else kinds.get(single)
            found[name] = column_values(name, self.raw[name], plain, kind)
        return found

    def check_names(self, names: tuple[str, ...]) -> None:
        """Check that columns are used by the model.

        Raises
        ------
        InvalidParameterError
            If one is not.
        """
        for name in names:
            if name not in self.parts:
                raise InvalidParameterError(
                    f"columns must be columns that the model uses, but got {name!r}"
                    f"{near_miss(str(name), self.names)}"
                )

    def compose(self, rows: Numbers, replaced: Mapping[str, Numbers]) -> pd.DataFrame:
        """Return rows of which some columns are taken from other rows.

        Parameters
        ----------
        rows
            Numbers ``(m,)`` of the rows.
        replaced
            For some used columns, the numbers ``(m,)`` of the rows that they are taken from.

        Returns
        -------
        DataFrame
            Plain columns of ``m`` rows.
        """
        source = {part: taken for name, taken in replaced.items() for part in self.parts[name]}
        return pd.DataFrame(
            {name: self.plain[name].array.take(source.get(name, rows)) for name in self.plain.columns},
            copy=False,
        )

    def predict(self, table: pd.DataFrame) -> Doubles:
        """Return predictions ``(C, m)`` of composed rows by the whole model."""
        return _in_pieces(self.model, table)

    def predict_unseen(self, table: pd.DataFrame, rows: Numbers) -> Doubles:
        """Return predictions ``(C, m)`` of composed rows by networks that have not seen the original rows.

        Parameters
        ----------
        table
            Composed rows.
        rows
            Numbers ``(m,)`` of the rows to explain that they were composed from.

        Returns
        -------
        array of shape (C, m)
        """
        if self.rows.folds is None:
            return self.predict(table)
        folds = self.rows.folds[rows]
        result = np.empty((self.model.folds[0].head.n_predictions, len(table)))
        for fold in np.unique(folds).tolist():
            mine = np.flatnonzero(folds == fold)
            result[:, mine] = _in_pieces(self._fold_models[fold], table.take(mine))
        return result

    @cached_property
    def _fold_models(self) -> list[TrainedModel]:
        return [self.model.of_fold(fold) for fold in range(len(self.model.folds))]

    @cached_property
    def fold_seconds(self) -> float:
        """Predicted seconds on one core to predict a row with the networks of one fold.

        It does not depend on the machine, so neither do the sizes of samples that follow from it.
        """
        fold, n_rows = self.model.folds[0], 256
        networks = [
            member_seconds(fold.layout.architecture(number), n_rows) / n_rows
            for number, weight in enumerate(self.model.weights.tolist())
            if weight > 0
        ]
        return ROW_SECONDS + FORWARD_SHARE * sum(networks)

    @property
    def model_seconds(self) -> float:
        """The same with the networks of all folds."""
        return self.fold_seconds * len(self.model.folds)

    @property
    def unseen_seconds(self) -> float:
        """Predicted seconds of :meth:`predict_unseen` for one row."""
        return self.model_seconds if self.rows.folds is None else self.fold_seconds


def _in_pieces(model: TrainedModel, table: pd.DataFrame) -> Doubles:
    """Predictions ``(C, m)``, computed in pieces that limit the memory."""
    step = max(1, MAX_CELLS // max(1, table.shape[1]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # of unreadable cells, which `of` has reported
        pieces = [
            model.predictions_of_read(table.iloc[start : start + step])
            for start in range(0, len(table), step)
        ]
    return np.concatenate(pieces, axis=1)
