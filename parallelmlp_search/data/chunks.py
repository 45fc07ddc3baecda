"""Columns of a text table that is parsed chunk by chunk.

Parsing a million rows of 31 numbers at once takes 740 MB, chunk by chunk 370, of which the table is 248.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

CHUNK_FIELDS = 1 << 21
"""Fields of a chunk, of which the parser needs some 50 bytes each."""

MIN_UNCOPIED_ROWS = 100_000
"""Rows from which columns stay apart. Below, joining them is cheap and makes the table faster to use."""


class ColumnChunks:
    """Chunks of all columns, which are joined column by column.

    Attributes
    ----------
    n_bytes
        Memory of the chunks.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._chunks: dict[str, list[Any]] = {name: [] for name in names}
        self._n_rows = 0
        self.n_bytes = 0

    def add(self, frame: pd.DataFrame) -> None:
        """Add a chunk of all columns."""
        self._n_rows += len(frame)
        for name, chunks in self._chunks.items():
            # a copy, since a view would keep the whole chunk in memory
            chunks.append(frame[name].values.copy())
            self.n_bytes += chunks[-1].nbytes

    def mixed(self) -> list[str]:
        """Names of the columns that have to be parsed at once, since their chunks are of several dtypes."""
        return [name for name, chunks in self._chunks.items() if len(chunks) > 1 and not _are_alike(chunks)]

    def joined(self, others: pd.DataFrame | None = None) -> pd.DataFrame:
        """Return the table and drop the chunks; columns of ``others`` replace those of the same name."""
        columns: dict[str, Any] = {}
        for name, chunks in self._chunks.items():
            if others is not None and name in others:
                columns[name] = others[name].values
            else:
                columns[name] = pd.concat([pd.Series(chunk) for chunk in chunks], ignore_index=True).values
            chunks.clear()
        return pd.DataFrame(columns, copy=self._n_rows < MIN_UNCOPIED_ROWS)


def _are_alike(chunks: Sequence[Any]) -> bool:
    """Return True if the chunks have the values that the column has when it is parsed at once."""
    dtypes = {chunk.dtype for chunk in chunks}
    if dtypes == {np.dtype(object)}:  # texts before pandas 3, or booleans with missing values
        return all(pd.api.types.infer_dtype(chunk, skipna=True) == "string" for chunk in chunks)
    return len(dtypes) == 1 or dtypes == {np.dtype("int64"), np.dtype("float64")}
