"""Batches and noise of windows: the same values as those made step by step, whatever the buffers held."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from parallelmlp_search.engine import BatchStream, TrainingRows
from parallelmlp_search.engine.batches import dropout_fields
from parallelmlp_search.engine.windows import WindowBatches, WindowNoise
from parallelmlp_search.kernels.numba.compiled_members import StepBatches

N_ROWS = 50


def rows(n_inputs: int, *, regression: bool, weighted: bool) -> TrainingRows:
    generator = torch.Generator().manual_seed(n_inputs)
    inputs = torch.randn(N_ROWS, n_inputs, generator=generator)
    target = torch.randint(0, 3, (N_ROWS,), generator=generator)
    return TrainingRows(
        inputs,
        torch.randn(2, N_ROWS, generator=generator) if regression else target,
        torch.rand(N_ROWS, generator=generator) if weighted else None,
    )


# columns and rows that fill whole vectors, and that do not
@pytest.mark.parametrize(("n_inputs", "batch_size"), [(3, 7), (16, 32), (17, 16), (1, 1), (20, N_ROWS)])
@pytest.mark.parametrize(("regression", "weighted"), [(False, False), (True, True)])
def test_windows_hold_the_batches_of_their_steps(
    n_inputs: int, batch_size: int, regression: bool, weighted: bool
) -> None:
    given = rows(n_inputs, regression=regression, weighted=weighted)
    stream = BatchStream(N_ROWS, batch_size, 3)
    batches = WindowBatches(given, stream, n_steps=5)
    # the last window is shorter and reads buffers that are full; epochs end inside of windows
    for steps in (range(5), range(5, 10), range(61, 63)):
        window = batches.of(steps)
        expected = StepBatches.of([given.batch(stream.rows(step)) for step in steps])
        for name, found, wanted in zip(window._fields, window, expected, strict=True):
            np.testing.assert_array_equal(found, wanted, err_msg=name)
            if isinstance(found, np.ndarray):
                assert found.flags.c_contiguous, name
                assert found.dtype == np.asarray(wanted).dtype, name


def test_columns_of_a_wider_table_are_read_in_place() -> None:
    wide = rows(9, regression=False, weighted=False)
    part = TrainingRows(wide.inputs[:, 2:6], wide.target)
    window = WindowBatches(part, BatchStream(N_ROWS, 8, 0), n_steps=2).of(range(2))
    chosen = BatchStream(N_ROWS, 8, 0).consecutive_rows(range(2))
    np.testing.assert_array_equal(
        window.columns[:, :, :4].reshape(16, 4), wide.inputs[chosen][:, 2:6].numpy()
    )


@pytest.mark.parametrize("n_rows", [16, 13])
def test_noise_is_that_of_each_step_and_layer(n_rows: int) -> None:
    noise = WindowNoise(seed=5, widths=(4, 9), n_rows=n_rows, n_steps=3)
    for steps in (range(3), range(7, 9)):
        found = noise.of(steps)
        assert found.shape == (len(steps), 2, 9, 16)
        for place, step in enumerate(steps):
            narrow, wide = dropout_fields(5, step, 2, 9, n_rows)
            np.testing.assert_array_equal(found[place, 0, :4, :n_rows], narrow[:4].numpy())
            np.testing.assert_array_equal(found[place, 1, :, :n_rows], wide.numpy())
        fields = noise.fields(found, torch.device("cpu"))
        assert torch.equal(fields[-1][1], wide)
