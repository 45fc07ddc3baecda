"""Rows of a table that are gathered when they are needed, so that parts of a table are not copied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class RowView:
    """Matrix ``(n, D)`` that consists of some rows and columns of a table, and of columns of its own.

    Attributes
    ----------
    table
        All rows and columns.
    index
        Numbers of the rows, int64 ``(n,)``; None for all.
    columns
        Ranges ``(first, end)`` of the columns, of which those of its own come after those of the table; None
        for all.
    own
        Columns ``(n, T)`` of its own, or None.
    """

    table: Tensor
    index: Tensor | None = None
    columns: Ranges | None = None
    own: Tensor | None = None

    @property
    def shape(self) -> torch.Size:
        """Rows ``n`` and columns ``D``."""
        n_rows = len(self.table)
        n_columns = sum(end - first for first, end in self.ranges)
        return torch.Size((n_rows if self.index is None else len(self.index), n_columns))

    @property
    def ranges(self) -> Ranges:
        """Ranges of the columns; none of them has columns of the table and of its own."""
        n_shared = self.table.shape[1]
        own = () if self.own is None else ((n_shared, n_shared + self.own.shape[1]),)
        return ((0, n_shared), *own) if self.columns is None else self.columns

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the values."""
        return self.table.dtype

    @property
    def device(self) -> torch.device:
        """Device of the table."""
        return self.table.device

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | Tensor) -> Tensor:
        """Return a copy of some rows, given by a slice or by numbers ``(N,)``."""
        if isinstance(rows, slice):
            rows = torch.arange(*rows.indices(len(self)), device=self.device)
        return take_rows(self, rows)

    def select(self, columns: Ranges) -> RowView:
        """Return a view of some of the columns; the numbers in the ranges count the columns of this view."""
        numbers = [number for first, end in self.ranges for number in range(first, end)]
        n_shared = self.table.shape[1]
        chosen = _ranges([n for a, b in columns for n in numbers[a:b]], n_shared)
        own = self.own if any(end > n_shared for _, end in chosen) else None
        return RowView(self.table, self.index, chosen, own)


Rows = Tensor | RowView
"""Matrix ``(n, D)`` in memory of its own, or a part of a table."""


def take_rows(rows: Rows, numbers: Tensor) -> Tensor:
    """Return rows ``(N, D)`` of a matrix by their numbers, int64 ``(N,)``."""
    if isinstance(rows, Tensor):
        return rows.index_select(0, numbers)
    shared = numbers if rows.index is None else rows.index[numbers]
    n_shared = rows.table.shape[1]
    parts = []
    for first, end in rows.ranges:
        if rows.own is None or end <= n_shared:
            parts.append(rows.table[:, first:end].index_select(0, shared))
        else:
            parts.append(rows.own[:, first - n_shared : end - n_shared].index_select(0, numbers))
    return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]


def select_rows(rows: Rows, numbers: Tensor) -> Rows:
    """Return some rows ``(N, D)`` of a matrix, those of a view without a copy of their values."""
    if isinstance(rows, Tensor):
        return rows[numbers]
    own = None if rows.own is None else rows.own[numbers]
    return replace(rows, index=numbers if rows.index is None else rows.index[numbers], own=own)


def whole_rows(rows: Rows, numbers: Tensor) -> tuple[Tensor, Tensor, Ranges]:
    """Return the table that rows of a matrix lie in, for loops that read it by address.

    Parameters
    ----------
    rows
        Matrix ``(n, D)``; the numbers of each row are contiguous.
    numbers
        Numbers of the rows, int64 ``(N,)``.

    Returns
    -------
    (Tensor, Tensor, tuple)
        Table ``(n, *)``, numbers of the rows in it ``(N,)``, and ranges ``(first, end)`` of its columns.
    """
    if isinstance(rows, Tensor):
        return rows, numbers, ((0, rows.shape[1]),)
    if rows.own is not None:  # gathered, since the loops read one table
        return take_rows(rows, numbers), torch.arange(len(numbers)), ((0, rows.shape[1]),)
    if rows.index is not None:
        numbers = rows.index[numbers]
    return rows.table, numbers, rows.ranges


def with_contiguous_rows(rows: Rows) -> Rows:
    """Return a matrix whose rows are contiguous; others, such as a transposed table, are copied."""
    table = rows if isinstance(rows, Tensor) else rows.table
    if table.stride(1) == 1 or table.shape[1] == 1:
        return rows
    return table.contiguous() if isinstance(rows, Tensor) else replace(rows, table=table.contiguous())


def as_tensor(rows: Rows) -> Tensor:
    """Return a matrix as a tensor; a view of a table is copied."""
    return rows if isinstance(rows, Tensor) else rows[:]


def select(rows: Rows, columns: Ranges) -> Rows:
    """Return some columns of a matrix without a copy.

    On a GPU, whose kernels read rows by address, several ranges are copied.

    Parameters
    ----------
    rows
        Matrix ``(n, D)``.
    columns
        Ranges ``(first, end)``.

    Returns
    -------
    Tensor or RowView
    """
    if isinstance(rows, Tensor) and len(columns) == 1:
        return rows[:, slice(*columns[0])]
    view = rows.select(columns) if isinstance(rows, RowView) else RowView(rows, None, columns)
    return view if view.device.type == "cpu" else as_tensor(view)


def _ranges(numbers: Sequence[int], border: int) -> Ranges:
    """Ranges of consecutive numbers, none of which crosses a border."""
    ranges: list[tuple[int, int]] = []
    for number in numbers:
        if ranges and ranges[-1][1] == number != border:
            ranges[-1] = (ranges[-1][0], number + 1)
        else:
            ranges.append((number, number + 1))
    return tuple(ranges)
