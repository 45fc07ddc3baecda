"""Tables of a window of steps on the device: order of the rows, coefficients, shares of the average.

The training loop of the host computes these step by step. A device that takes many steps in a captured graph
or in the persistent kernel needs them beforehand. The numbers are the same.
"""

from __future__ import annotations

import torch
from torch import Tensor

from parallelmlp_search.engine.batches import BatchStream
from parallelmlp_search.engine.step_coefficients import MemberVectors, average_share
from parallelmlp_search.kernels.triton.launch import StepTables

__all__ = ["order_of_rows", "step_tables"]


def order_of_rows(stream: BatchStream, steps: range) -> Tensor:
    """Return the row numbers of consecutive batches, int64 ``(steps * N,)``, on the CPU."""
    begin, end = steps.start * stream.batch_size, steps.stop * stream.batch_size
    pieces = [torch.empty(0, dtype=torch.int64)]
    while begin < end:
        epoch, start = divmod(begin, stream.n_rows)
        stop = min(stream.n_rows, start + end - begin)
        pieces.append(stream.permutation(epoch)[start:stop])
        begin += stop - start
    return torch.cat(pieces)


def step_tables(
    vectors: MemberVectors,
    stream: BatchStream,
    steps: range,
    total_steps: int,
    *,
    frozen: Tensor,
    dtype: torch.dtype,
) -> StepTables:
    """Compute all tables of a window of steps, in float64, on the device of ``vectors``.

    Parameters
    ----------
    vectors
        Hyperparameters of the members.
    stream
        Stream of the batches.
    steps
        Numbers of the steps.
    total_steps
        Steps of the full training, the horizon of the schedules.
    frozen
        Members ``(P,)`` bool whose learning rate is 0.
    dtype
        Of the tables.

    Returns
    -------
    StepTables
    """
    device = vectors.rates.device
    shares = torch.tensor([average_share(step) for step in steps], dtype=torch.float64)
    return StepTables(
        order=order_of_rows(stream, steps).to(device, torch.int32),
        first_position=steps.start * stream.batch_size,
        coefficients=vectors.coefficients(steps, total_steps, frozen).to(dtype),
        shares=shares.to(device, dtype),
    )
