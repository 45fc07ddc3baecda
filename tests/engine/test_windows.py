"""Batches and noise of windows: the same values as those made step by step, whatever the buffers held."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from parallelmlp_search.engine import BatchStream, TrainingRows
from parallelmlp_search.engine.batches import dropout_fields
from parallelmlp_search.engine.rows import RowView, as_tensor
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


@pytest.mark.parametrize("case", ["columns", "view", "rows that are not contiguous"])
def test_parts_of_a_table_are_read_in_place(case: str) -> None:
    table = torch.randn(N_ROWS + 5, 40, generator=torch.Generator().manual_seed(0))
    if case == "columns":
        inputs: torch.Tensor | RowView = table[:N_ROWS, 2:21]
    elif case == "view":
        order = torch.randperm(N_ROWS, generator=torch.Generator().manual_seed(1))
        inputs = RowView(table, order, ((1, 4), (20, 38)))
    else:
        inputs = torch.randn(20, N_ROWS, generator=torch.Generator().manual_seed(2)).t()
    stream = BatchStream(N_ROWS, 16, 0)
    window = WindowBatches(TrainingRows(inputs, torch.zeros(N_ROWS).long()), stream, n_steps=2).of(range(2))
    expected = as_tensor(inputs)[stream.consecutive_rows(range(2))].view(2, 16, -1).numpy()
    np.testing.assert_array_equal(window.columns[:, :, : inputs.shape[1]], expected)
    np.testing.assert_array_equal(window.rows, expected.transpose(0, 2, 1))


# full vectors, an odd number of rows, seeds of one word at its end and of two words
@pytest.mark.parametrize(("n_rows", "seed"), [(16, 5), (13, 2**32 - 1), (1, 0), (16, 2**32)])
@pytest.mark.parametrize("compiled", [False, True])
def test_noise_is_that_of_each_step_and_layer(n_rows: int, seed: int, compiled: bool) -> None:
    noise = WindowNoise(seed, (4, 9), n_rows, n_steps=3, compiled=compiled)
    for steps in (range(3), range(2**31, 2**31 + 2)):
        found = noise.of(steps)
        assert found.shape == (len(steps), 2, 9, 16)
        assert not found[..., n_rows:].any()
        for place, step in enumerate(steps):
            narrow, wide = dropout_fields(seed, step, 2, 9, n_rows)
            np.testing.assert_array_equal(found[place, 0, :4, :n_rows], narrow[:4].numpy())
            np.testing.assert_array_equal(found[place, 1, :, :n_rows], wide.numpy())
        fields = noise.fields(found, torch.device("cpu"))
        assert torch.equal(fields[-1][1], wide)
