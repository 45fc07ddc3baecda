"""Views of a table: the values of a copy, without the copy."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from parallelmlp_search.engine import BatchStream, Population, TrainingRows, TrainingSettings, predict, train
from parallelmlp_search.engine.rows import (
    RowView,
    as_tensor,
    select,
    select_rows,
    take_rows,
    whole_rows,
    with_contiguous_rows,
)
from parallelmlp_search.packing import DataShape
from parallelmlp_search.space import MLPConfig

TABLE = torch.arange(60.0).view(10, 6)
INDEX = torch.tensor([7, 1, 1, 4])


@pytest.mark.parametrize("index", [None, INDEX])
@pytest.mark.parametrize("columns", [None, ((2, 5),), ((0, 1), (3, 6))])
def test_a_view_has_the_values_of_a_copy(index: torch.Tensor | None, columns: Any) -> None:
    view = RowView(TABLE, index, columns)
    copy = TABLE if index is None else TABLE[index]
    if columns is not None:
        copy = torch.cat([copy[:, first:end] for first, end in columns], dim=1)
    assert view.shape == copy.shape
    assert torch.equal(as_tensor(view), copy)
    assert torch.equal(view[1:3], copy[1:3])
    chosen = torch.tensor([3, 0])
    assert torch.equal(take_rows(view, chosen), copy[chosen])
    table, numbers, ranges = whole_rows(view, chosen)
    assert table is TABLE
    parts = [table[numbers, first:end] for first, end in ranges]
    assert torch.equal(torch.cat(parts, dim=1), copy[chosen])


def test_only_rows_that_are_not_contiguous_are_copied() -> None:
    assert with_contiguous_rows(TABLE[:, 1:3]).data_ptr() == TABLE[:, 1:].data_ptr()
    turned = torch.arange(60.0).view(6, 10).t()
    assert with_contiguous_rows(turned).stride() == (6, 1)
    view = with_contiguous_rows(RowView(turned, INDEX))
    assert isinstance(view, RowView)
    assert view.table.stride() == (6, 1)
    assert torch.equal(as_tensor(view), turned[INDEX])


def test_columns_of_columns_are_counted_in_the_view() -> None:
    view = RowView(TABLE, INDEX, ((0, 1), (3, 6)))
    narrower = select(view, ((0, 2), (3, 4)))
    assert isinstance(narrower, RowView)
    assert narrower.columns == ((0, 1), (3, 4), (5, 6))
    assert torch.equal(as_tensor(narrower), as_tensor(view)[:, [0, 1, 3]])
    one = select(TABLE, ((2, 5),))
    assert isinstance(one, torch.Tensor)
    assert one.data_ptr() == TABLE[:, 2:].data_ptr()  # a range of a tensor is not copied


OWN = 100.0 + torch.arange(8.0).view(4, 2)


@pytest.mark.parametrize("columns", [None, ((2, 6), (6, 8)), ((1, 3), (7, 8)), ((6, 7),), ((0, 4),)])
def test_a_view_with_columns_of_its_own_has_the_values_of_a_copy(columns: Any) -> None:
    view, copy = RowView(TABLE, INDEX, own=OWN), torch.cat([TABLE[INDEX], OWN], dim=1)
    if columns is not None:
        view = view.select(columns)
        copy = torch.cat([copy[:, first:end] for first, end in columns], dim=1)
        assert (view.own is None) is (columns == ((0, 4),))
    assert view.shape == copy.shape
    assert torch.equal(as_tensor(view), copy)
    assert torch.equal(view[1:3], copy[1:3])
    chosen = torch.tensor([3, 0, 3])
    assert torch.equal(take_rows(view, chosen), copy[chosen])
    table, numbers, ranges = whole_rows(view, chosen)
    assert torch.equal(torch.cat([table[numbers, first:end] for first, end in ranges], dim=1), copy[chosen])
    assert torch.equal(as_tensor(select_rows(view, chosen)), copy[chosen])
    once_more = view.select(((0, 1),))
    assert torch.equal(as_tensor(once_more), copy[:, :1])
    turned = with_contiguous_rows(RowView(TABLE.t().contiguous().t(), INDEX, view.columns, view.own))
    assert torch.equal(as_tensor(turned), copy)


@pytest.mark.parametrize("has_own", [False, True])
@pytest.mark.parametrize("loss", ["cross_entropy", "squared_error"])
def test_training_and_predictions_have_the_same_bits(loss: str, has_own: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(900, 9, generator=generator)
    index = torch.randperm(900, generator=generator)[:700]
    own = torch.randn(700, 2, generator=generator) if has_own else None
    view = select(RowView(table, index, own=own), ((0, 3), (5, 7), (9, 11) if has_own else (7, 9)))
    classes = torch.randint(0, 3, (700,), generator=generator)
    target = classes if loss == "cross_entropy" else torch.randn(3, 700, generator=generator)
    configs = [MLPConfig(widths=(width,), batch_size=64, initialization="data_driven") for width in (5, 8)]

    def trained(inputs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        population = Population.create(configs, DataShape(7, 3), rows=inputs)
        stream = BatchStream(700, 64, seed=1)
        rows = TrainingRows(inputs, target)
        train(population, rows, TrainingSettings(stream=stream, loss=loss, until_epoch=2, total_epochs=2))
        return population.parameters, predict(population, inputs)

    assert isinstance(view, RowView)
    for of_view, of_copy in zip(trained(view), trained(view[:]), strict=True):
        assert torch.equal(of_view, of_copy)
