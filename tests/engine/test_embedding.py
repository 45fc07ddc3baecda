"""Periodic embeddings of a bucket against the plain module."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from parallelmlp_search.engine import BatchStream, Population, TrainingRows, TrainingSettings, predict, train
from parallelmlp_search.engine import embedding as embedding_module
from parallelmlp_search.engine.network import PackedNetwork
from parallelmlp_search.kernels.losses import get_loss
from parallelmlp_search.packing import DataShape
from parallelmlp_search.packing.pack import build_module, extract, read_member
from parallelmlp_search.space import ColumnGroups, MLPConfig

D, C, N = 5, 3, 11

CONFIGS = st.builds(
    MLPConfig,
    # 5 + 3 n is as wide as the inputs of an embedding of n numbers: the first layer is residual too
    widths=st.lists(st.sampled_from([1, 5, 8, 11, 20]), max_size=3).map(tuple),
    activation=st.sampled_from(["relu", "tanh", "sigmoid", "silu"]),
    bias=st.booleans(),
    residual=st.booleans(),
    clip_norm=st.sampled_from([None, 0.5]),
    numeric_embedding=st.sampled_from(["none", "piecewise", "periodic", "periodic"]),
    seed=st.integers(0, 5),
)


def _rows(n_rows: int = N, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    rows = torch.randn(n_rows, D, dtype=torch.float64, generator=generator)
    return rows.to(dtype), torch.randint(0, C, (n_rows,), generator=generator)


def _population(
    configs: list[MLPConfig], n_numbers: int, dtype: torch.dtype = torch.float64, **options: object
) -> Population:
    data = DataShape(D, C, ColumnGroups(n_numbers=n_numbers))
    return Population.create(configs, data, rows=_rows(1, dtype)[0], **options)  # type: ignore[arg-type]


def _train(population: Population, *, epochs: float = 3.0, compiled: bool | None = None) -> None:
    rows, target = _rows(40, population.parameters.dtype)
    train(
        population,
        TrainingRows(rows, target),
        TrainingSettings(
            stream=BatchStream(40, 8, 1),
            loss="cross_entropy",
            until_epoch=epochs,
            total_epochs=6,
            compiled=compiled,
        ),
    )


@given(st.lists(CONFIGS, min_size=1, max_size=7), st.integers(0, D), st.booleans())
def test_outputs_and_gradients_are_those_of_autograd(
    configs: list[MLPConfig], n_numbers: int, merge: bool
) -> None:
    population = _population(configs, n_numbers, merge=merge)
    layout = population.layout
    rows, target = _rows()
    network = PackedNetwork(layout, N, dtype=torch.float64, training=True)
    gradients = torch.zeros_like(population.parameters)
    for number, bucket in enumerate(network.buckets):
        views = network.bind(population.parameters)[number]
        outputs = bucket.forward(views, rows).clone()
        get_loss("cross_entropy")(outputs, target, bucket.output_gradient)
        bucket.backward(network.bind(gradients)[number])
        for row, member in enumerate(layout.buckets[number].members):
            plain = extract(population.parameters, layout, member)
            own = plain(rows)
            torch.testing.assert_close(outputs[row], own.detach().T, rtol=1e-10, atol=1e-10)
            torch.nn.functional.cross_entropy(own, target).backward()  # type: ignore[no-untyped-call]
            expected = torch.cat([p.grad.reshape(-1) for p in plain.parameters() if p.grad is not None])
            got = read_member(gradients, layout, member)
            torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-11)
            counted = configs[member].n_parameters(D, C, n_numbers=n_numbers)
            assert len(got) == layout.architecture(member).n_parameters == counted


@given(st.integers(1, 40), st.integers(1, D), st.integers(1, 2000))
def test_prediction_in_parts_changes_nothing(n_rows: int, n_numbers: int, chunk: int) -> None:
    """Parts are some numbers of one member, some members, or all of them."""
    configs = [MLPConfig(widths=(4,), numeric_embedding="periodic", seed=seed) for seed in range(4)]
    population = _population(configs, n_numbers)
    rows, _ = _rows(n_rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedding_module, "CHUNK_ELEMENTS", chunk)
        outputs = predict(population, rows)
    for row, member in enumerate(population.layout.members):
        plain = extract(population.parameters, population.layout, member)
        torch.testing.assert_close(outputs[row], plain(rows).detach().T, rtol=1e-10, atol=1e-10)


def test_without_numbers_there_is_no_embedding() -> None:
    none = MLPConfig(widths=(6,), numeric_embedding="none")
    ends = []
    for config, n_numbers in [(none, 2), (none.replace(numeric_embedding="periodic"), 0)]:
        population = _population([config], n_numbers)
        _train(population)
        ends.append(population.parameters)
    assert torch.equal(*ends)
    # with a number, it is another network
    assert len(_population([none.replace(numeric_embedding="periodic")], 1).parameters) > len(ends[0])


def test_a_member_starts_with_waves_of_about_ten_units() -> None:
    config = MLPConfig(widths=(3,), numeric_embedding="periodic")
    vectors = [_population([config.replace(seed=seed)], 5).parameters for seed in range(40)]
    frequency = torch.stack([vector[:80] for vector in vectors])
    phase = torch.stack([vector[80:160] for vector in vectors])
    others = torch.stack([vector[160:415] for vector in vectors])  # both of the mixtures
    assert frequency.std() == pytest.approx(0.1, rel=0.03)
    assert frequency.mean() == pytest.approx(0.0, abs=0.01)
    assert math.pi * 0.99 < phase.abs().max() <= math.pi
    assert 0.249 < others.abs().max() <= 0.25


def test_training_goes_on_from_states() -> None:
    configs = [
        MLPConfig(widths=widths, numeric_embedding=embedding, batch_size=8, learning_rate=0.01, seed=seed)
        for seed, (widths, embedding) in enumerate(
            [((6,), "periodic"), ((4, 3), "periodic"), ((6,), "none"), ((), "periodic")]
        )
    ]
    whole = _population(configs, 3)
    _train(whole)
    half = _population(configs, 3)
    _train(half, epochs=1.6)
    chosen = [3, 0, 2]
    resumed = _population([configs[m] for m in chosen], 3, states=[half.state(m) for m in chosen])
    _train(resumed)
    for place, member in enumerate(chosen):
        for name in ("parameters", "first_moment", "second_moment", "average"):
            got, expected = (
                resumed.vector(place, resumed.flats[name]),
                whole.vector(member, whole.flats[name]),
            )
            torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)
            assert not torch.equal(got, half.vector(member, half.flats[name]))


def test_compiled_loops_take_the_same_steps() -> None:
    pytest.importorskip("numba")
    configs = [
        MLPConfig(
            widths=(6,), numeric_embedding="periodic", optimizer=name, learning_rate=0.01, weight_decay=0.1
        )
        for name in ("adamw", "sgd")
    ]
    ends = []
    for use in (True, False):
        population = _population(configs, 3, dtype=torch.float32)
        start = population.parameters.clone()
        _train(population, compiled=use)
        ends.append(population.parameters)
    # float32 over 15 steps; frequencies move a thousand times as far
    torch.testing.assert_close(*ends, rtol=1e-5, atol=1e-6)
    block = population.layout.buckets[0].blocks[0]
    place = slice(block.offset, block.offset + block.row_size)
    assert block.kind == "frequency"
    assert (ends[0] - start)[place].abs().max() > 1e-3


def test_the_plain_module_shows_its_sizes() -> None:
    config = MLPConfig(widths=(6,), numeric_embedding="periodic")
    architecture = _population([config], 2).layout.architecture(0)
    module = build_module(architecture)
    assert "n_inputs=5, n_numbers=2" in repr(module)
    assert module(torch.randn(4, D)).shape == (4, C)
