"""Encoding of the rows of a problem as inputs of networks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parallelmlp_search.data import TablePreprocessor
from parallelmlp_search.engine.rows import Rows, RowView
from parallelmlp_search.search.problem.memory_room import check_room
from parallelmlp_search.search.problem.monotone import monotone_columns
from parallelmlp_search.search.problem.problem import Problem
from parallelmlp_search.search.problem.settings import SearchSettings
from parallelmlp_search.search.problem.target_encoding import PartMeans, TargetEncoding

MAX_BINS, MIN_BINS, MAX_BIN_COLUMNS = 48, 4, 256
"""Limits of the bins of a numeric column, and of the columns that all bins add."""

MAX_QUANTILE_COLUMNS = 256
"""Numeric columns above which none is also encoded by quantiles."""

ROWS_PER_BIN = 20
"""Least rows of the table per bin."""

MAX_TABLE_BYTES = 1 << 27
"""Encoded table above which all parts share one, unless a memory limit is low.

A table of a million rows and 30 numbers takes 1.2 GB. With a matrix for screening and for each of four folds,
a search took 5.75 GB."""

TABLE_SHARE = 1 / 128
"""Share of a memory limit above which all parts share one encoded table."""

FIT_ROWS = 1 << 18
"""Most rows to which the preprocessing of a shared table is fitted. Its quantiles are exact to 0.1 %."""

MOST_INPUTS = 66
"""Most inputs that a column without bins becomes: 64 categories, all others, and their frequency."""


@dataclass(frozen=True, eq=False)
class PartEncoding:
    """Encoding of a part.

    Attributes
    ----------
    encoder
        Encoder of all parts.
    preprocessor
        Preprocessing of new rows.
    means
        Mean targets of categories, cross-fitted for the rows they were fitted to; or None.
    """

    encoder: Encoder
    preprocessor: TablePreprocessor
    means: PartMeans | None

    def inputs(self, rows: NDArray[np.intp]) -> Rows:
        """Return the inputs of some rows: a matrix ``(n, D)``, or a view of the shared table."""
        return self.encoder.inputs(self, rows)


class Encoder:
    """Preprocessing of parts of a table, and their inputs.

    Each part has preprocessing of its own, fitted to its training rows. Where the inputs of all rows take
    more than :data:`MAX_TABLE_BYTES`, the table is encoded once, with preprocessing that is fitted to a
    sample of the out-of-fold rows, and the parts are views of it. This preprocessing does not depend on
    targets. Mean targets of categories are fitted for each part, to its training rows alone.

    Parameters
    ----------
    problem, settings, device
        Table, settings, and device of the inputs.
    oof_rows
        Out-of-fold rows of the table.
    means
        Target encoding of categories, or None.
    """

    def __init__(
        self,
        problem: Problem,
        settings: SearchSettings,
        oof_rows: NDArray[np.intp],
        device: str,
        means: TargetEncoding | None = None,
    ) -> None:
        self._problem, self._settings, self._device = problem, settings, device
        self._oof_rows = oof_rows
        self._means = means
        self._signs = monotone_columns(problem, settings)
        self._is_checked = False
        # kinds of the whole table: a column that is constant within a fold keeps its kind
        self._kinds = problem.columns.kinds
        self._n_numeric = sum(kind == "numeric" for kind in self._kinds.values())

    def fit(self, rows: NDArray[np.intp]) -> PartEncoding:
        """Return the encoding of a part, given the rows to fit it to."""
        preprocessor = self._fitted(rows) if self.shared is None else self.shared[0]
        means = None if self._means is None else self._means.fit(rows)
        if means is not None:
            preprocessor = preprocessor.with_means(means.columns)
        return PartEncoding(self, preprocessor, means)

    def inputs(self, part: PartEncoding, rows: NDArray[np.intp]) -> Rows:
        """Return the inputs of some rows: a matrix ``(n, D)``, or a view of the shared table."""
        own = None if part.means is None else torch.from_numpy(part.means.numbers(rows))
        if self.shared is not None:
            own = None if own is None else own.to(self._device)
            return RowView(self.shared[1], torch.from_numpy(rows).to(self._device), own=own)
        self._check_room(part.preprocessor, len(rows))
        matrix = torch.from_numpy(part.preprocessor.transform(self._problem.inputs.iloc[rows]))
        if own is not None:
            matrix[:, -own.shape[1] :] = own
        return matrix.to(self._device)

    @cached_property
    def shared(self) -> tuple[TablePreprocessor, Tensor] | None:
        """Preprocessing and encoded table of all parts, or None if each part has its own."""
        limit, n_rows = self._settings.memory_bytes, self._problem.n_rows
        most = MAX_TABLE_BYTES if limit is None else min(MAX_TABLE_BYTES, int(TABLE_SHARE * limit))
        most_inputs = MOST_INPUTS * len(self._kinds) + MAX_BIN_COLUMNS
        if 4 * n_rows * most_inputs <= most:
            return None
        rows = self._oof_rows
        if len(rows) > FIT_ROWS:
            rng = np.random.default_rng([self._settings.seed, 8])
            rows = np.sort(rng.choice(rows, FIT_ROWS, replace=False))
        preprocessor = self._fitted(rows)
        if 4 * n_rows * preprocessor.n_features_out_ <= most:
            return None
        self._check_room(preprocessor, n_rows)
        table = torch.from_numpy(preprocessor.transform(self._problem.inputs))
        return preprocessor, table.to(self._device)

    def _check_room(self, preprocessor: TablePreprocessor, n_rows: int) -> None:
        """Check that the first encoded rows fit into the memory; later ones are part of the plan of it."""
        if not self._is_checked:
            check_room(self._settings.memory_bytes, 4 * n_rows * preprocessor.n_features_out_)
        self._is_checked = True

    def _fitted(self, rows: NDArray[np.intp]) -> TablePreprocessor:
        preprocessor = TablePreprocessor(
            scaling=self._settings.scaling,
            quantiles=self._has_quantiles(),
            numeric_bins=self._numeric_bins(),
            column_kinds=self._kinds,
            monotonic=self._signs or None,
        )
        return preprocessor.fit(self._problem.inputs.iloc[rows])

    def _has_quantiles(self) -> bool:
        """True if numbers are also encoded as normal scores: if the space has networks that use them."""
        asked = "numeric_scaling" in self._settings.space.domains and self._settings.scaling != "quantile"
        return asked and self._n_numeric <= MAX_QUANTILE_COLUMNS

    def _numeric_bins(self) -> int:
        """Bins of the piecewise linear encoding: 48, or fewer so that they add at most about 256 inputs."""
        if self._settings.numeric_bins is not None:
            return self._settings.numeric_bins
        n_rows = self._problem.n_rows
        bins = min(MAX_BINS, MAX_BIN_COLUMNS // max(1, self._n_numeric), n_rows // ROWS_PER_BIN)
        return bins if bins >= MIN_BINS else 0
