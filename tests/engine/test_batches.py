"""Batches and dropout fields are functions of the step number alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from parallelmlp_search.engine import BatchStream
from parallelmlp_search.engine.batches import MAX_SHARED_ROWS, dropout_fields
from parallelmlp_search.exceptions import InvalidParameterError

SIZES = st.integers(1, 60)


@given(SIZES, SIZES, st.integers(0, 2**32))
def test_the_stream_has_each_row_once_per_epoch(n_rows: int, batch_size: int, seed: int) -> None:
    stream = BatchStream(n_rows, batch_size, seed)
    n_steps = stream.steps(3)
    batches = [stream.rows(step) for step in range(n_steps)]
    assert {len(batch) for batch in batches} == {min(batch_size, n_rows)}
    positions = torch.cat(batches)
    for epoch in range(3):
        one = positions[epoch * n_rows : (epoch + 1) * n_rows]
        assert sorted(one.tolist()) == list(range(n_rows))
        assert torch.equal(one, stream.permutation(epoch))


@given(SIZES, SIZES, st.integers(0, 100), st.lists(st.integers(0, 40), min_size=1, max_size=8))
def test_a_batch_depends_on_its_number_alone(
    n_rows: int, batch_size: int, seed: int, steps: list[int]
) -> None:
    stream = BatchStream(n_rows, batch_size, seed)
    for step in steps:  # in any order, backwards included
        assert torch.equal(stream.rows(step), BatchStream(n_rows, batch_size, seed).rows(step))


def test_seeds_and_epochs_differ() -> None:
    stream = BatchStream(50, 10, 3)
    assert not torch.equal(stream.permutation(0), stream.permutation(1))
    assert not torch.equal(stream.permutation(0), BatchStream(50, 10, 4).permutation(0))
    # the order of the rows does not depend on the batch size
    assert torch.equal(stream.permutation(0), BatchStream(50, 7, 3).permutation(0))


def test_old_permutations_are_dropped() -> None:
    stream = BatchStream(MAX_SHARED_ROWS + 1, MAX_SHARED_ROWS, 0)
    for step in range(10):
        stream.rows(step)
    assert len(stream._permutations) <= 2


def test_few_rows_are_permuted_as_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = BatchStream(30, 8, 5)
    assert shared.permutation(4) is BatchStream(30, 16, 5).permutation(4)
    before = shared.consecutive_rows(range(40))
    monkeypatch.setattr("parallelmlp_search.engine.batches.MAX_SHARED_ROWS", 29)
    assert torch.equal(BatchStream(30, 8, 5).consecutive_rows(range(40)), before)


@pytest.mark.parametrize(
    ("n_rows", "batch_size", "epochs", "expected"),
    [
        (100, 10, 1, 10),
        (101, 10, 1, 11),  # the last batch reaches into the next epoch
        (101, 10, 10, 101),  # and is not counted twice
        (100, 1000, 3, 3),  # a batch is never larger than the rows
        (1, 1, 5, 5),
        (100, 32, 0.5, 2),
        (10, 1, 0.1 + 0.2, 3),  # 0.30000000000000004 epochs are three rows, not four
        (100, 32, 0, 0),
    ],
)
def test_steps(n_rows: int, batch_size: int, epochs: float, expected: int) -> None:
    assert BatchStream(n_rows, batch_size, 0).steps(epochs) == expected


@given(SIZES, SIZES, st.integers(0, 9))
def test_steps_complete_the_epochs_and_no_more(n_rows: int, batch_size: int, epochs: int) -> None:
    stream = BatchStream(n_rows, batch_size, 0)
    steps = stream.steps(epochs)
    assert steps * stream.batch_size >= epochs * n_rows > (steps - 1) * stream.batch_size or epochs == 0
    assert steps == math.ceil(epochs * n_rows / stream.batch_size)


def test_a_batch_size_above_the_rows_is_capped() -> None:
    stream = BatchStream(7, 128, 0)
    assert stream.batch_size == 7
    assert torch.equal(stream.rows(2), stream.permutation(2))


@pytest.mark.parametrize(
    ("n_rows", "batch_size", "words"),
    [(0, 4, "n_rows must be >= 1, but got 0"), (4, 0, "batch_size must be >= 1, but got 0")],
)
def test_refused(n_rows: int, batch_size: int, words: str) -> None:
    with pytest.raises(InvalidParameterError, match=words):
        BatchStream(n_rows, batch_size, 0)


@given(st.integers(0, 1000), st.integers(0, 1000), st.integers(1, 40), st.integers(1, 40), st.integers(1, 9))
def test_the_first_rows_of_a_field_do_not_depend_on_its_width(
    seed: int, step: int, narrow: int, wide: int, n_rows: int
) -> None:
    narrow, wide = sorted((narrow, wide))
    for small, large in zip(
        dropout_fields(seed, step, 2, narrow, n_rows),
        dropout_fields(seed, step, 3, wide, n_rows),
        strict=False,
    ):
        assert small.shape == (narrow, n_rows)
        assert torch.equal(large[:narrow], small)
        assert small.dtype == torch.float32
        assert bool(((small >= 0) & (small < 1)).all())


def test_layers_steps_and_seeds_have_different_fields() -> None:
    fields = [
        *dropout_fields(0, 0, 3, 50, 40),
        *dropout_fields(0, 1, 1, 50, 40),
        *dropout_fields(1, 0, 1, 50, 40),
    ]
    flat = np.stack([field.numpy().ravel() for field in fields])
    correlation = np.corrcoef(flat) - np.eye(len(fields))
    assert np.abs(correlation).max() < 0.1
    assert abs(flat.mean() - 0.5) < 0.01
    assert abs(flat.var() - 1 / 12) < 0.002
    assert dropout_fields(0, 0, 0, 5, 5) == []
