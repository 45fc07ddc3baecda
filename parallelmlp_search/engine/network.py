"""Packed network: all buckets of a layout, which share one storage."""

from __future__ import annotations

import torch
from torch import Tensor

from parallelmlp_search.engine.bucket_network import BucketNetwork, bucket_shapes
from parallelmlp_search.engine.member_bucket import MemberOutputs, is_supported
from parallelmlp_search.engine.parameter_views import LayerTensors, bind
from parallelmlp_search.engine.rows import Rows, RowView
from parallelmlp_search.engine.storage import PassOptions, n_elements
from parallelmlp_search.engine.submember_network import SubmemberNetwork, submember_shapes
from parallelmlp_search.kernels.numba.dispatch import uses_compiled
from parallelmlp_search.packing.layout import Bucket, Layout
from parallelmlp_search.packing.pack import select_columns

GATHERED_WINDOWS, MAX_GATHERED_INPUTS = 16, 1 << 20
"""Windows of rows of a table that are gathered at once to be predicted, and most of their inputs (4 MiB)."""

LANES = 16
"""With a multiple of this number of rows, each row of a product has the same bits in any place. Otherwise a
library computes the last rows with another kernel, which may add in another order."""


def window_rows(n_rows: int, most: int) -> int:
    """Return the rows to predict at once, ``most`` or fewer: a multiple of :data:`LANES`."""
    return max(LANES, min(most, n_rows) // LANES * LANES)


def _size(bucket: Bucket, options: PassOptions) -> int:
    """Elements of storage that a bucket needs."""
    shapes = submember_shapes if bucket.shape.is_expanded else bucket_shapes
    return n_elements(shapes(bucket, options))


class PackedNetwork:
    """All buckets of a layout, for batches of exactly ``n_rows`` rows.

    Buckets share their buffers: run one bucket forward and backward before the next one.

    Parameters
    ----------
    layout, n_rows
        Layout of the population and rows ``N`` of every batch.
    dtype, device
        Of parameters and rows.
    training
        True to keep what the backward pass needs.
    dropout
        Rates ``(P,)`` in stacked-row order; needed for training with dropout.
    compiled
        True to use the compiled loops; None uses them where they are installed.
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
        self._bound: tuple[Tensor, list[list[LayerTensors]]] | None = None
        self.buckets: list[BucketNetwork | SubmemberNetwork] = []
        is_compiled = uses_compiled(dtype, device, wanted=compiled)
        self._compiled = {
            number: MemberOutputs(bucket)
            for number, bucket in enumerate(layout.buckets)
            if is_compiled and not training and is_supported(bucket)
        }
        options = PassOptions(n_rows, training, is_compiled)
        size = max((_size(bucket, options) for bucket in layout.buckets), default=0)
        storage = torch.empty(size, dtype=dtype, device=device)
        for number, bucket in enumerate(layout.buckets):
            rates = None if dropout is None else dropout[layout.stacked_rows(number)].view(-1, 1, 1)
            network = SubmemberNetwork if bucket.shape.is_expanded else BucketNetwork
            self.buckets.append(network(bucket, options, storage, rates))

    def bind(self, flat: Tensor) -> list[list[LayerTensors]]:
        """Return views of a flat buffer for every bucket."""
        return [bind(flat, bucket) for bucket in self.layout.buckets]

    def predict(self, flat: Tensor, rows: Rows) -> Tensor:
        """Return the outputs ``(P, C, n)`` in stacked-row order for any number of rows ``(n, *)``.

        The network selects the columns of each bucket. Rows are predicted ``n_rows`` at a time; the last
        window overlaps the one before, so that all windows are full.
        """
        n_total, n_outputs = rows.shape[0], self.layout.buckets[0].shape.n_outputs
        result = torch.empty(self.layout.n_members, n_outputs, n_total, dtype=rows.dtype, device=rows.device)
        if isinstance(rows, RowView):
            fitting = MAX_GATHERED_INPUTS // max(1, self.n_rows * rows.shape[1])
            step = max(1, min(GATHERED_WINDOWS, fitting)) * self.n_rows
            for start in range(0, n_total, step):
                gathered = rows[start : start + step]
                result[:, :, start : start + step] = self.predict(flat, gathered)
            return result
        for number, compiled in self._compiled.items():
            result[self.layout.stacked_rows(number)] = compiled(flat, rows)
        if len(self._compiled) < len(self.buckets):
            self._predict_plainly(flat, rows, result)
        return result

    def _predict_plainly(self, flat: Tensor, rows: Tensor, result: Tensor) -> None:
        """Write the outputs of the buckets that no compiled loop supports."""
        n_total = len(rows)
        if n_total == 0:
            return
        if n_total < self.n_rows:
            filled = torch.cat([rows, rows[-1:].expand(self.n_rows - n_total, -1)])
            longer = torch.empty(*result.shape[:2], self.n_rows, dtype=result.dtype, device=result.device)
            self._predict_plainly(flat, filled, longer)
            for number in range(len(self.buckets)):
                if number not in self._compiled:
                    span = self.layout.stacked_rows(number)
                    result[span] = longer[span, :, :n_total]
            return
        if self._bound is None or self._bound[0] is not flat:
            self._bound = flat, self.bind(flat)
        views = self._bound[1]
        starts = [min(start, n_total - self.n_rows) for start in range(0, n_total, self.n_rows)]
        for number, bucket in enumerate(self.buckets):
            if number in self._compiled:
                continue
            shape, own = self.layout.buckets[number].shape, result[self.layout.stacked_rows(number)]
            seen = select_columns(rows, shape.columns or ((0, shape.n_inputs),))
            windows = [seen[start : start + self.n_rows] for start in starts]
            for start, outputs in zip(starts, bucket.predict(views[number], windows), strict=True):
                own[:, :, start : start + self.n_rows] = outputs
