"""Minibatches from one stream that does not know who reads it.

The stream is the endless concatenation of one permutation of the rows per epoch; batch ``s`` takes the
positions ``s N`` to ``s N + N - 1``. So every batch has exactly ``N`` rows, no row is ever dropped, and any
batch can be found from its number alone, which is what resuming and packing anew need.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from parallelmlp_search.exceptions import InvalidParameterError

__all__ = ["BatchStream", "dropout_fields"]


class BatchStream:
    """Row numbers of every batch of a shard's training rows.

    Parameters
    ----------
    n_rows
        Training rows.
    batch_size
        Rows of a batch; capped at ``n_rows``.
    seed
        Seed of the permutations. Folds have seeds of their own, members never do.
    """

    def __init__(self, n_rows: int, batch_size: int, seed: int) -> None:
        if n_rows < 1:
            raise InvalidParameterError(f"n_rows must be >= 1, but got {n_rows}")
        if batch_size < 1:
            raise InvalidParameterError(f"batch_size must be >= 1, but got {batch_size}")
        self.n_rows = n_rows
        self.batch_size = min(batch_size, n_rows)
        self.seed = seed
        self._permutations: dict[int, Tensor] = {}

    def steps(self, epochs: float) -> int:
        """Number of batches until ``epochs`` passes over the rows are complete."""
        return math.ceil(round(epochs * self.n_rows, 6) / self.batch_size)

    def permutation(self, epoch: int) -> Tensor:
        """Order of the rows in an epoch, int64 ``(n_rows,)``."""
        if epoch not in self._permutations:
            for old in [known for known in self._permutations if known < epoch - 1]:
                del self._permutations[old]
            rng = np.random.default_rng([self.seed, epoch])
            self._permutations[epoch] = torch.from_numpy(rng.permutation(self.n_rows))
        return self._permutations[epoch]

    def rows(self, step: int) -> Tensor:
        """Row numbers of batch ``step``, int64 ``(N,)``."""
        start = step * self.batch_size
        epoch, first = divmod(start, self.n_rows)
        head = self.permutation(epoch)[first : first + self.batch_size]
        if len(head) == self.batch_size:
            return head
        return torch.cat([head, self.permutation(epoch + 1)[: self.batch_size - len(head)]])


def dropout_fields(seed: int, step: int, n_layers: int, width: int, n_rows: int) -> list[Tensor]:
    """Uniform fields ``(width, N)`` of one step, one per hidden layer.

    Each layer has a generator of its own and fills row after row, so that the first rows of a field do
    not depend on how wide the widest member is, and no member's noise depends on who it is packed with.
    """
    fields = []
    for layer in range(n_layers):
        # a generator per layer: 3 us to make, and prefix-stable by construction
        rng = np.random.Generator(np.random.SFC64([seed, step, layer]))
        fields.append(torch.from_numpy(rng.random((width, n_rows), dtype=np.float32)))
    return fields
