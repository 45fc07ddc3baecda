"""Stream of minibatches, the same for all members.

The stream concatenates one permutation of the rows per epoch without end; batch ``s`` takes the positions
``s N`` to ``s N + N - 1``. Every batch has exactly ``N`` rows, no row is dropped, and each batch follows from
its number alone, so training can resume at any step.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parallelmlp_search.exceptions import InvalidParameterError

MAX_SHARED_ROWS = 4096
"""Rows up to which shards share permutations: those of the last 512 epochs, at most 16 MiB. Otherwise each
shard draws its own, which takes 3 % of the time of a search on 800 rows."""


def _permutation(n_rows: int, seed: int, epoch: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng([seed, epoch]).permutation(n_rows))


_shared_permutation = lru_cache(maxsize=512)(_permutation)


class BatchStream:
    """Row numbers of the batches of a shard.

    Parameters
    ----------
    n_rows
        Number of training rows.
    batch_size
        Rows of a batch; at most ``n_rows`` are used.
    seed
        Seed of the permutations. Folds have their own seeds, members do not.

    Raises
    ------
    InvalidParameterError
        If ``n_rows`` or ``batch_size`` is below 1.
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
        """Return the number of batches that complete ``epochs`` passes over the rows."""
        return math.ceil(round(epochs * self.n_rows, 6) / self.batch_size)

    def permutation(self, epoch: int) -> Tensor:
        """Return the order of the rows in an epoch, int64 ``(n_rows,)``."""
        if self.n_rows <= MAX_SHARED_ROWS:
            return _shared_permutation(self.n_rows, self.seed, epoch)
        if epoch not in self._permutations:
            for old in [known for known in self._permutations if known < epoch - 1]:
                del self._permutations[old]
            self._permutations[epoch] = _permutation(self.n_rows, self.seed, epoch)
        return self._permutations[epoch]

    def rows(self, step: int) -> Tensor:
        """Return the row numbers of batch ``step``, int64 ``(N,)``."""
        return self.consecutive_rows(range(step, step + 1))

    def consecutive_rows(self, steps: range) -> Tensor:
        """Return the row numbers of consecutive batches, int64 ``(steps * N,)``."""
        begin, end = steps.start * self.batch_size, steps.stop * self.batch_size
        pieces = [torch.empty(0, dtype=torch.int64)]
        while begin < end:
            epoch, start = divmod(begin, self.n_rows)
            stop = min(self.n_rows, start + end - begin)
            pieces.append(self.permutation(epoch)[start:stop])
            begin += stop - start
        return torch.cat(pieces)


def dropout_fields(seed: int, step: int, n_layers: int, width: int, n_rows: int) -> list[Tensor]:
    """Return the uniform numbers with which a step decides on dropout.

    Each layer has its own generator, which fills row after row. The first rows of a field do not depend on
    the width of the widest member, so the noise of a member does not depend on the other members.

    Parameters
    ----------
    seed, step
        Seed of the batches and number of the step.
    n_layers, width, n_rows
        Hidden layers, neurons ``H`` and rows ``N``.

    Returns
    -------
    list of Tensor
        Float32 ``(H, N)`` for each hidden layer.
    """
    fields = []
    for layer in range(n_layers):
        field = np.empty((width, n_rows), dtype=np.float32)
        fill_dropout_field(field, seed, step, layer)
        fields.append(torch.from_numpy(field))
    return fields


def fill_dropout_field(field: NDArray[np.float32], seed: int, step: int, layer: int) -> None:
    """Write the uniform numbers of one layer, see :func:`dropout_fields`.

    Parameters
    ----------
    field
        Written: ``(H, N)``.
    seed, step, layer
        Seed of the batches, number of the step, and number of the hidden layer.
    """
    # a generator takes 7 us to make
    rng = np.random.Generator(np.random.SFC64([seed, step, layer]))
    if field.flags.c_contiguous:
        rng.random(dtype=np.float32, out=field)
    else:
        field[...] = rng.random(field.shape, dtype=np.float32)
