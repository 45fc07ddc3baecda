"""Compiled outputs of networks of any kind against those of tensor operations."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parallelmlp_search.engine import Population
from parallelmlp_search.engine.member_bucket import MemberOutputs
from parallelmlp_search.engine.network import PackedNetwork
from parallelmlp_search.kernels.numba.compiled_members import TILE_ROWS
from parallelmlp_search.packing import DataShape
from parallelmlp_search.space import ColumnGroups, MLPConfig
from parallelmlp_search.space.config import ACTIVATIONS

N_INPUTS = 12
COLUMNS = ColumnGroups(n_numbers=4, categories=((4, 5), (9, 3)))

configs = st.builds(
    MLPConfig,
    widths=st.lists(st.sampled_from([1, 2, 7, 8, 17]), max_size=2).map(tuple),
    activation=st.sampled_from(sorted(ACTIVATIONS)),  # two have no compiled loop
    bias=st.booleans(),
    normalization=st.sampled_from(["none", "layer"]),
    residual=st.booleans(),
    input_scale_rate=st.sampled_from([0.0, 2.0]),
    numeric_embedding=st.sampled_from(["none", "periodic"]),
    category_embedding=st.sampled_from(["none", "learned"]),
    submembers=st.sampled_from([1, 1, 3]),
    sharing=st.sampled_from(["mini", "full"]),
    dropout=st.sampled_from([0.0, 0.3]),  # has no effect
    seed=st.integers(0, 3),
)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(configs, min_size=1, max_size=6),
    st.sampled_from([1, 2, 5, 17]),
    st.booleans(),
    st.sampled_from([1, 15, TILE_ROWS - 1, TILE_ROWS, 2 * TILE_ROWS + 3]),
)
def test_outputs_agree_with_the_plain_path(
    members: list[MLPConfig], n_outputs: int, classifies: bool, n_rows: int
) -> None:
    data = DataShape(N_INPUTS, n_outputs, columns=COLUMNS, classifies=classifies)
    population = Population.create(members, data)
    generator = torch.Generator().manual_seed(n_rows)
    rows = torch.randn(n_rows, N_INPUTS, generator=generator)
    flat = population.parameters + 0.1 * torch.randn(population.parameters.shape, generator=generator)
    compiled, plain = (
        PackedNetwork(population.layout, 32, compiled=use).predict(flat, rows) for use in (True, False)
    )
    torch.testing.assert_close(compiled, plain, rtol=2e-5, atol=2e-5)


def test_outputs_follow_rows_and_parameters() -> None:
    """Tiles are kept for the next call, but only for the same rows."""
    population = Population.create([MLPConfig(widths=(4,))], DataShape(3, 2))
    outputs = MemberOutputs(population.layout.buckets[0])
    first, second = torch.zeros(5, 3), torch.ones(5, 3)
    flat = population.parameters
    found = outputs(flat, first)
    assert not torch.equal(found, outputs(flat, second))
    assert torch.equal(found, outputs(flat, first))
    assert not torch.equal(found, outputs(flat + 1.0, first))
