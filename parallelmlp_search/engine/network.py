"""The packed network: all buckets of a layout, which take turns in the same memory."""

from __future__ import annotations

import torch
from torch import Tensor

from parallelmlp_search.engine.bucket_network import BucketNetwork
from parallelmlp_search.engine.buffers import Arena, LayerTensors, arena_size, bind
from parallelmlp_search.engine.submember_network import SubmemberNetwork, expanded_size
from parallelmlp_search.packing.layout import Bucket, Layout

__all__ = ["LayerTensors", "PackedNetwork", "bind", "window_rows"]

LANES = 16
"""Products of so many rows, or a multiple, give each row the same bits whatever the rows beside it: a library
takes the last few rows of others with another kernel, which may add in another order."""


def window_rows(n_rows: int, most: int) -> int:
    """Rows of a window in which so many rows are predicted: a multiple of :data:`LANES`."""
    return max(LANES, min(most, n_rows) // LANES * LANES)


def _size(bucket: Bucket, n_rows: int, training: bool) -> int:
    """Elements that a bucket takes from the arena."""
    size = expanded_size if bucket.shape.is_expanded else arena_size
    return size(bucket, n_rows, training)


class PackedNetwork:
    """All buckets of a layout, for batches of exactly ``n_rows`` rows.

    Buckets share their buffers: each must go forward and backward before the next one is touched.
    """

    def __init__(
        self,
        layout: Layout,
        n_rows: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        training: bool = False,
        dropout: Tensor | None = None,
        compiled: bool | None = None,
    ) -> None:
        self.layout = layout
        self.n_rows = n_rows
        self.buckets: list[BucketNetwork | SubmemberNetwork] = []
        size = max((_size(bucket, n_rows, training) for bucket in layout.buckets), default=0)
        arena = Arena(size, dtype, device)
        for number, bucket in enumerate(layout.buckets):
            rows = slice(layout.row_offsets[number], layout.row_offsets[number + 1])
            rates = None if dropout is None else dropout[rows].view(-1, 1, 1)
            network = SubmemberNetwork if bucket.shape.is_expanded else BucketNetwork
            self.buckets.append(
                network(
                    bucket,
                    n_rows,
                    arena,
                    dtype=dtype,
                    device=device,
                    training=training,
                    dropout=rates,
                    compiled=compiled,
                )
            )

    def bind(self, flat: Tensor) -> list[list[LayerTensors]]:
        """Views of a flat buffer for every bucket."""
        return [bind(flat, self.layout, number) for number in range(len(self.buckets))]

    def predict(self, flat: Tensor, rows: Tensor) -> Tensor:
        """Outputs ``(P, C, n)`` in stacked-row order for any number of rows ``(n, D)``.

        Members see their own columns of them. Rows are taken ``n_rows`` at a time; the last window is moved
        back to be full, so that the buffers are made once.
        """
        n_total = rows.shape[0]
        if n_total == 0:
            return rows.new_empty(self.layout.n_members, self.layout.buckets[0].shape.n_outputs, 0)
        if n_total < self.n_rows:
            short = torch.cat([rows, rows[-1:].expand(self.n_rows - n_total, -1)])
            return self.predict(flat, short)[:, :, :n_total]
        n_outputs = self.layout.buckets[0].shape.n_outputs
        result = torch.empty(self.layout.n_members, n_outputs, n_total, dtype=rows.dtype, device=rows.device)
        views = self.bind(flat)
        for start in range(0, n_total, self.n_rows):
            start = min(start, n_total - self.n_rows)
            window = slice(start, start + self.n_rows)
            for number, bucket in enumerate(self.buckets):
                first, last = self.layout.row_offsets[number : number + 2]
                own = bucket.seen(rows[window])
                result[first:last, :, window] = bucket.predict(views[number], own)
        return result
