"""Compiled steps of networks of any shape against the general way of a bucket."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("numba")

from parallelmlp_search.engine import BatchStream, Population, TrainingRows, TrainingSettings, train
from parallelmlp_search.engine.member_bucket import is_supported
from parallelmlp_search.kernels.numba.dispatch import CompiledActivations
from parallelmlp_search.packing import DataShape
from parallelmlp_search.packing.pack import read_member
from parallelmlp_search.space import ColumnGroups, MLPConfig

EDGES = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33)
"""Sizes around multiples of the blocks of products: 4 and 8 neurons, 8 and 16 lanes."""

sizes = st.sampled_from(EDGES)
configs = st.builds(
    MLPConfig,
    widths=st.lists(sizes, max_size=3).map(tuple),
    activation=st.sampled_from(sorted(CompiledActivations.names())),
    # Adam turns rounding errors into steps of the rate
    optimizer=st.just("sgd"),
    learning_rate=st.sampled_from([0.001, 0.03]),
    momentum=st.sampled_from([0.0, 0.9]),
    weight_decay=st.sampled_from([0.0, 0.1]),
    bias=st.booleans(),
    label_smoothing=st.sampled_from([0.0, 0.2]),
    clip_norm=st.sampled_from([None, 0.01, 100.0]),
    dropout=st.sampled_from([0.0, 0.0, 0.3]),
    # over one or two neurons the derivative of normalization is not bounded
    normalization=st.just("none"),
    residual=st.booleans(),
    input_scale_rate=st.sampled_from([0.0, 2.0]),
    numeric_embedding=st.sampled_from(["none", "none", "periodic"]),
    seed=st.integers(0, 3),
)


@settings(max_examples=60)
@given(
    st.lists(configs, min_size=1, max_size=13),
    st.sampled_from([1, 1, 2, 3, 15, 16, 17, 33]),
    st.booleans(),
    sizes,
    st.sampled_from([1, 2, 7, 13, 16, 31, 33]),
    st.sampled_from(["even", "weighted", "half of them nothing"]),
)
def test_any_shape(
    members: list[MLPConfig], n_outputs: int, regression: bool, n_inputs: int, batch: int, kind: str
) -> None:
    generator = torch.Generator().manual_seed(n_inputs * batch)
    n_rows, loss = 70, "binary_logits" if n_outputs == 1 else "cross_entropy"
    inputs = torch.randn(n_rows, n_inputs, generator=generator)
    target = torch.randint(0, max(2, n_outputs), (n_rows,), generator=generator)
    if regression:
        loss, target = "squared_error", torch.randn(n_outputs, n_rows, generator=generator)
    weight = None if kind == "even" else torch.rand(n_rows, generator=generator)
    if weight is not None and kind != "weighted":
        weight[::2] = 0.0
    found = []
    for compiled in (True, False):
        population = Population.create(
            members, DataShape(n_inputs, n_outputs, columns=ColumnGroups(n_numbers=n_inputs))
        )
        assert all(is_supported(bucket, loss) for bucket in population.layout.buckets)
        history = train(
            population,
            TrainingRows(inputs, target, weight),
            TrainingSettings(
                stream=BatchStream(n_rows, batch, 1),
                loss=loss,
                until_epoch=6 * batch / n_rows,
                total_epochs=20 * batch / n_rows,
                compiled=compiled,
            ),
        )
        assert population.step == 6
        found.append((population, history.train_losses[-1]))
    (got, losses), (expected, plain_losses) = found
    torch.testing.assert_close(losses, plain_losses, rtol=1e-5, atol=1e-5)
    for name in ("parameters", "first_moment", "average"):
        for member in range(len(members)):
            one, other = (read_member(p.flats[name], p.layout, member) for p in (got, expected))
            # a few rounding errors of the largest weight: the terms of a gradient may cancel
            torch.testing.assert_close(one, other, rtol=1e-4, atol=3e-5 * float(other.abs().max()))
