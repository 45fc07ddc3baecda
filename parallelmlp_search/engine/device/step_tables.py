"""Tables of a window of steps on the device: order of the rows, coefficients, shares of the average.

The host computes these step by step. A device that takes many steps in a captured graph or in the persistent
kernel needs them beforehand. The numbers are the same.
"""

from __future__ import annotations

import torch
from torch import Tensor

from parallelmlp_search.engine.batches import BatchStream
from parallelmlp_search.engine.step_coefficients import StepCoefficients, average_share
from parallelmlp_search.kernels.triton.launch import StepTables


def step_tables(
    coefficients: StepCoefficients, stream: BatchStream, steps: range, *, frozen: Tensor, dtype: torch.dtype
) -> StepTables:
    """Compute the tables of a window of steps in float64, on the device of the coefficients.

    Parameters
    ----------
    coefficients, stream
        Coefficients of all steps and stream of the batches.
    steps
        Numbers of the steps.
    frozen
        Members ``(P,)`` bool whose learning rate is 0.
    dtype
        Dtype of the tables.

    Returns
    -------
    StepTables
    """
    shares = torch.tensor([average_share(step) for step in steps], dtype=torch.float64)
    return StepTables(
        order=stream.consecutive_rows(steps).to(coefficients.device, torch.int32),
        first_position=steps.start * stream.batch_size,
        coefficients=coefficients.table(steps, frozen).to(dtype),
        shares=shares.to(coefficients.device, dtype),
    )
