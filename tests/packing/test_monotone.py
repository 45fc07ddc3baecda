"""Bounds of the weights of monotone networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from parallelmlp_search.engine.initialization import initial_vector
from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.packing import Architecture, DataShape, plan
from parallelmlp_search.packing.monotone import (
    LARGEST,
    bounds,
    constrain,
    input_signs,
    neuron_signs,
    packed_bounds,
    violations,
)
from parallelmlp_search.packing.pack import build_module
from parallelmlp_search.space import ColumnGroups, MLPConfig
from parallelmlp_search.space.monotone import MONOTONE_CHOICES

# two numbers, the second one free: scores, three pieces of the first and two of the second, scaled numbers,
# and two indicators of missing values; then a category of nine values
COLUMNS = ColumnGroups(
    n_quantiles=2, n_pieces=5, n_numbers=2, categories=((10, 9),), signs=((0, 1, -1), (2, 5, -1), (7, 8, -1))
)
DATA = DataShape(19, 2, COLUMNS)


def test_signs_follow_the_columns_that_a_network_uses() -> None:
    expected = {
        ("piecewise", "common"): [-1, -1, -1, 0, 0, -1, 0, 0, *[0] * 9],
        ("none", "common"): [-1, 0, 0, *[0] * 9],
        ("none", "quantile"): [-1, 0, 0, *[0] * 9],
        ("piecewise", "quantile"): [-1, 0, -1, -1, -1, 0, 0, 0, *[0] * 9],
    }
    for (embedding, scaling), signs in expected.items():
        config = MLPConfig(numeric_embedding=embedding, numeric_scaling=scaling)
        architecture = Architecture.of(config, DATA)
        assert input_signs(architecture).tolist() == signs
        # the columns that are left, of which training knows
        kept = DataShape(architecture.n_inputs, 2, COLUMNS.kept_by(config, 19))
        assert Architecture.of(config, kept).signs == architecture.signs
    embedded = Architecture.of(MLPConfig(numeric_embedding="none", category_embedding="learned"), DATA)
    assert input_signs(embedded).tolist() == [-1, 0, 0, *[0] * 5]
    assert ColumnGroups.from_dict(COLUMNS.to_dict()) == COLUMNS


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"activation": "silu"}, "activation"),
        ({"normalization": "layer"}, "normalization"),
        ({"numeric_embedding": "periodic"}, "numeric_embedding"),
    ],
)
def test_networks_that_cannot_be_monotone_are_refused(changes: dict[str, str], named: str) -> None:
    config = MLPConfig(**changes)
    with pytest.raises(
        InvalidParameterError, match=f"^{named} must be one of .*, but got '{changes[named]}'"
    ):
        Architecture.of(config, DATA)
    assert Architecture.of(config, DataShape(19, 2)).signs == ()


def test_bounds_of_each_kind_of_weight() -> None:
    data = DataShape(3, 1, ColumnGroups(n_numbers=3, signs=((0, 1, 1), (1, 2, -1))))
    of_blocks = bounds(Architecture.of(MLPConfig(widths=(3, 2), input_scale_rate=1.0), data))
    assert set(of_blocks) == {(-1, "scale"), (0, "weight"), (1, "weight"), (2, "weight")}
    texts = {(-LARGEST, LARGEST): "*", (0, LARGEST): "+", (-LARGEST, 0): "-", (0, 0): "0"}

    def shown(key: tuple[int, str]) -> list[str]:
        low, high = of_blocks[key]
        return [
            "".join(texts[pair] for pair in zip(*rows, strict=True)) for rows in zip(low, high, strict=True)
        ]

    assert shown((-1, "scale")) == ["+", "+", "*"]
    assert shown((0, "weight")) == ["+-*", "-+*", "00*"]  # a growing, a falling and a free neuron
    assert shown((1, "weight")) == ["+-*", "-+*"]
    assert shown((2, "weight")) == ["+-"]
    assert neuron_signs(5, has_free_inputs=False).tolist() == [1, -1, 1, -1, 1]
    # one column that only grows, and nothing else
    data = DataShape(1, 1, ColumnGroups(n_numbers=1, signs=((0, 1, 1),)))
    single = Architecture.of(MLPConfig(widths=(1,)), data)
    assert [low.tolist() for low, _ in bounds(single).values()] == [[[0.0]], [[0.0]]]


def test_a_padded_bucket_has_the_bounds_of_its_members() -> None:
    widths = ((5, 7), (8, 8), (6, 8))
    configs = [MLPConfig(widths=pair, input_scale_rate=2.0, numeric_embedding="none") for pair in widths]
    architectures = [Architecture.of(config, DATA) for config in configs]
    (bucket,) = plan(architectures).buckets
    packed = packed_bounds(bucket)
    assert packed is not None
    assert bucket.is_padded
    start = 0
    for block in bucket.blocks:
        whole = packed[:, start : start + block.row_size].reshape(2, block.rows, block.columns)
        start += block.row_size
        for architecture in architectures:
            own = bounds(architecture).get((block.layer, block.kind))
            if own is None:
                assert (np.abs(whole) == LARGEST).all()
            else:
                rows, columns = own[0].shape
                assert np.array_equal(whole[:, :rows, :columns], np.stack(own))
    assert start == packed.shape[1]
    free = DataShape(19, 2)
    assert packed_bounds(plan([Architecture.of(MLPConfig(), free)]).buckets[0]) is None


configs = st.builds(
    MLPConfig,
    widths=st.sampled_from([(), (1,), (4,), (7, 7), (3, 5, 5)]),
    activation=st.sampled_from(MONOTONE_CHOICES["activation"]),
    residual=st.booleans(),
    bias=st.booleans(),
    input_scale_rate=st.sampled_from([0.0, 1.0]),
    numeric_embedding=st.sampled_from(MONOTONE_CHOICES["numeric_embedding"]),
    numeric_scaling=st.sampled_from(["common", "quantile"]),
    category_embedding=st.sampled_from(["none", "learned"]),
    submembers=st.sampled_from([1, 3]),
    sharing=st.sampled_from(["mini", "full"]),
    initialization=st.sampled_from(["kaiming_uniform", "lecun_normal", "data_driven"]),
    seed=st.integers(0, 99),
)


@torch.no_grad()
def largest_fall(architecture: Architecture, vector: torch.Tensor, seed: int) -> float:
    """Largest step of an output against the sign, relative to the outputs, if monotone columns are raised."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(60, 19, generator=generator, dtype=torch.float64) * 3.0
    raised = rows.clone()
    for first, end, sign in COLUMNS.signs:
        raised[:, first:end] += sign * torch.rand(60, end - first, generator=generator).double()
    network = build_module(architecture, vector)
    ranges = architecture.columns
    low, high = (network(torch.cat([x[:, a:b] for a, b in ranges], dim=1)) for x in (rows, raised))
    return float(((low - high) / (1.0 + low.abs() + high.abs())).max())


@given(configs, st.integers(0, 99))
def test_networks_within_the_bounds_are_monotone(config: MLPConfig, seed: int) -> None:
    architecture = Architecture.of(config, DATA)
    rows = torch.randn(50, architecture.n_inputs, generator=torch.Generator().manual_seed(seed))
    start = initial_vector(architecture, config, rows=rows)
    assert violations(start.numpy(), architecture) == 0
    noise = torch.randn(len(start), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    vector = noise.clone()
    constrain(vector.numpy(), architecture)
    assert violations(vector.numpy(), architecture) == 0
    for own in (start, vector):
        assert largest_fall(architecture, own, seed) <= 1e-12


def test_networks_beyond_the_bounds_are_not_monotone() -> None:
    architecture = Architecture.of(MLPConfig(widths=(8, 8)), DATA)
    vector = torch.randn(architecture.n_parameters, dtype=torch.float64)
    assert violations(vector.numpy(), architecture) > 10
    assert largest_fall(architecture, vector, 0) > 0.01
