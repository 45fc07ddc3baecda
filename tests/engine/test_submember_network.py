"""Buckets of expanded members against their plain modules."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from parallelmlp_search.engine import (
    BatchStream,
    Head,
    Population,
    TrainingRows,
    TrainingSettings,
    predict,
    train,
)
from parallelmlp_search.engine.bucket_network import Targets
from parallelmlp_search.engine.heads import head_predictions
from parallelmlp_search.engine.network import PackedNetwork
from parallelmlp_search.engine.submember_network import SubmemberNetwork
from parallelmlp_search.kernels.losses import get_loss
from parallelmlp_search.packing import DataShape
from parallelmlp_search.packing.pack import extract, read_member, write_member
from parallelmlp_search.space import ColumnGroups, MLPConfig
from parallelmlp_search.space.config import CATEGORY_EMBEDDINGS, SHARINGS

D, N = 26, 11
CATEGORIES = ((3, 9), (12, 3), (15, 10))
"""Columns: two numbers, another one, categories of nine, three and ten columns, another one."""
GROUPS = ColumnGroups(n_numbers=2, categories=CATEGORIES)

CONFIGS = st.builds(
    MLPConfig,
    # 26 + 3 n is as wide as the inputs of an embedding of n numbers: the first layer is residual too
    widths=st.lists(st.sampled_from([1, 5, 8, 26, 32]), max_size=3).map(tuple),
    activation=st.sampled_from(["relu", "tanh", "sigmoid", "silu"]),
    bias=st.booleans(),
    residual=st.booleans(),
    clip_norm=st.sampled_from([None, 0.5]),
    numeric_embedding=st.sampled_from(["none", "periodic"]),
    input_scale_rate=st.sampled_from([0.0, 2.0]),
    submembers=st.sampled_from([1, 2, 2, 3, 7]),
    category_embedding=st.sampled_from(CATEGORY_EMBEDDINGS),
    sharing=st.sampled_from(SHARINGS),
    seed=st.integers(0, 5),
)


def _rows(n_rows: int, n_classes: int = 3, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    rows = torch.randn(n_rows, D, dtype=torch.float64, generator=generator)
    return rows.to(dtype), torch.randint(0, n_classes, (n_rows,), generator=generator)


def _population(
    configs: list[MLPConfig],
    *,
    n_outputs: int = 3,
    classifies: bool = True,
    dtype: torch.dtype = torch.float64,
    merge: bool = True,
) -> Population:
    data = DataShape(D, n_outputs, GROUPS, classifies)
    population = Population.create(configs, data, rows=_rows(1, dtype=dtype)[0], merge=merge)
    for member in range(population.n_members):  # adapters, scales and gains that are not all one
        vector = population.vector(member, population.parameters)
        noise = torch.randn(len(vector), generator=torch.Generator().manual_seed(7), dtype=torch.float64)
        changed = torch.where(vector.abs() == 1.0, vector * (1.0 + 0.3 * noise), vector)
        write_member(population.parameters, population.layout, member, changed.to(vector.dtype))
    return population


@given(st.lists(CONFIGS, min_size=1, max_size=7), st.booleans(), st.sampled_from([1, 3]))
def test_outputs_and_gradients_are_those_of_autograd(
    configs: list[MLPConfig], merge: bool, n_outputs: int
) -> None:
    population = _population(configs, merge=merge, n_outputs=n_outputs)
    layout = population.layout
    rows, target = _rows(N, max(2, n_outputs))
    name = "cross_entropy" if n_outputs > 1 else "binary_logits"
    network = PackedNetwork(layout, N, dtype=torch.float64, training=True)
    gradients = torch.zeros_like(population.parameters)
    for number, bucket in enumerate(network.buckets):
        views, into = network.bind(population.parameters)[number], network.bind(gradients)[number]
        bucket.forward(views, rows)
        smoothing = torch.full((layout.buckets[number].n_members,), 0.1, dtype=torch.float64)
        losses = bucket.losses(get_loss(name), Targets(target, smoothing=smoothing))
        bucket.backward(into)
        for row, member in enumerate(layout.buckets[number].members):
            plain = extract(population.parameters, layout, member)
            whole = plain[:-1] if configs[member].submembers > 1 else plain
            assert isinstance(bucket, SubmemberNetwork) == layout.architecture(member).is_expanded
            each = whole(rows).view(N, -1, n_outputs).unbind(1)
            assert len(each) == configs[member].submembers
            wanted = 0.9 * target.double() + 0.05
            own = [
                torch.nn.functional.cross_entropy(out, target, label_smoothing=0.1)
                if n_outputs > 1
                else torch.nn.functional.binary_cross_entropy_with_logits(out[:, 0], wanted)
                for out in each
            ]
            loss = torch.stack(own).mean()
            torch.testing.assert_close(losses[row], loss.detach(), rtol=1e-10, atol=1e-10)
            loss.backward()  # type: ignore[no-untyped-call]
            expected = torch.cat([p.grad.reshape(-1) for p in plain.parameters() if p.grad is not None])
            got = read_member(gradients, layout, member)
            torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-11)
            counted = configs[member].n_parameters(D, n_outputs, n_numbers=2, categories=CATEGORIES)
            assert len(got) == layout.architecture(member).n_parameters == counted


@given(
    st.lists(CONFIGS, min_size=1, max_size=5), st.integers(1, 40), st.sampled_from([1, 2, 3]), st.booleans()
)
def test_predictions_are_those_of_the_plain_module(
    configs: list[MLPConfig], n_rows: int, n_outputs: int, classifies: bool
) -> None:
    population = _population(configs, n_outputs=n_outputs, classifies=classifies)
    rows, _ = _rows(n_rows)
    outputs = predict(population, rows)
    assert outputs.shape == (len(configs), n_outputs, n_rows)
    for row, member in enumerate(population.layout.members):
        plain = extract(population.parameters, population.layout, member)
        torch.testing.assert_close(outputs[row], plain(rows).detach().T, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("task", "n_classes"), [("binary", 2), ("multiclass", 2), ("multiclass", 4)])
def test_probabilities_are_the_means_of_submembers(task: str, n_classes: int) -> None:
    head = Head(task, n_classes)  # type: ignore[arg-type]
    config = MLPConfig(widths=(6,), submembers=5, sharing="full")
    population = _population([config], n_outputs=head.n_outputs, classifies=True)
    population.parameters.mul_(4.0)  # far from the middle, where the logarithm is not linear
    rows, _ = _rows(20)
    outputs = predict(population, rows)
    each = extract(population.parameters, population.layout, 0)[:-1](rows).detach().permute(1, 2, 0)
    means = head_predictions(head, each).mean(0)
    torch.testing.assert_close(head_predictions(head, outputs)[0], means, rtol=1e-10, atol=1e-12)
    of_logits = head_predictions(head, each.mean(0, keepdim=True))[0]
    assert (means - of_logits).abs().max() > 0.01
    plain = _population([config], n_outputs=head.n_outputs, classifies=False)
    plain.parameters.copy_(population.parameters)
    torch.testing.assert_close(predict(plain, rows)[0], each.mean(0), rtol=1e-10, atol=1e-12)


def test_extreme_outputs_give_finite_logits() -> None:
    config = MLPConfig(widths=(), submembers=3)
    for n_outputs in (1, 3):
        population = _population([config], n_outputs=n_outputs, dtype=torch.float32)
        population.parameters.mul_(1e4)
        outputs = predict(population, 100 * _rows(20, dtype=torch.float32)[0])
        assert bool(outputs.isfinite().all())
        assert outputs.abs().max() > 1e3


def test_submembers_use_the_noise_of_other_rows() -> None:
    # the submembers of this network differ in their noise only
    config = MLPConfig(widths=(8,), submembers=4, dropout=0.5, activation="identity", bias=False)
    population = Population.create([config], DataShape(D, 3), rows=torch.zeros(1, D, dtype=torch.float64))
    for block in population.layout.buckets[0].blocks:
        part = population.parameters[block.offset : block.offset + block.row_size]
        if block.kind == "input_adapter":
            part.fill_(1.0)
        elif block.layer == 1:
            part.copy_(part.view(4, 3, 8)[:1].expand(4, -1, -1).reshape(-1))
    dropout = torch.full((1,), 0.5, dtype=torch.float64)
    network = PackedNetwork(population.layout, 16, dtype=torch.float64, training=True, dropout=dropout)
    bucket, views = network.buckets[0], network.bind(population.parameters)[0]
    field = torch.rand(8, 16, generator=torch.Generator().manual_seed(1))
    rows = torch.ones(16, D, dtype=torch.float64)  # equal rows, so that outputs show the noise
    bucket.draw_dropout([field])
    outputs = bucket.forward(views, rows).clone()
    for submember in range(4):
        torch.testing.assert_close(outputs[submember], outputs[0].roll(-4 * submember, 1))
    assert not torch.allclose(outputs[1], outputs[0])


def _train(population: Population, *, epochs: float = 3.0, compiled: bool | None = None) -> None:
    rows, target = _rows(40, dtype=population.parameters.dtype)
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


MIXED = [
    MLPConfig(widths=(6,), submembers=3, dropout=0.3, learning_rate=0.01, batch_size=8, seed=0),
    MLPConfig(widths=(4, 3), submembers=3, sharing="full", learning_rate=0.01, batch_size=8, seed=1),
    MLPConfig(widths=(5, 3), category_embedding="learned", learning_rate=0.01, batch_size=8, seed=5),
    MLPConfig(widths=(6,), learning_rate=0.01, batch_size=8, dropout=0.3, seed=2),
    MLPConfig(widths=(7,), submembers=3, learning_rate=0.01, batch_size=8, input_scale_rate=2.0, seed=3),
    MLPConfig(
        widths=(), submembers=2, numeric_embedding="periodic", learning_rate=0.01, batch_size=8, seed=4
    ),
]


def test_training_goes_on_from_states() -> None:
    whole = _population(MIXED)
    _train(whole)
    half = _population(MIXED)
    _train(half, epochs=1.6)
    chosen = [3, 0, 4, 1]
    resumed = Population.create(
        [MIXED[m] for m in chosen],
        DataShape(D, 3, GROUPS, classifies=True),
        rows=_rows(1)[0],
        states=[half.state(m) for m in chosen],
    )
    _train(resumed)
    for place, member in enumerate(chosen):
        for name in ("parameters", "first_moment", "second_moment", "average"):
            got, expected = (
                resumed.vector(place, resumed.flats[name]),
                whole.vector(member, whole.flats[name]),
            )
            torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)
            assert not torch.equal(got, half.vector(member, half.flats[name]))


def test_a_diverged_member_fails_alone() -> None:
    wild = MIXED[0].replace(optimizer="sgd", learning_rate=1e30)
    configs = [MIXED[0], wild, wild.replace(learning_rate=0.01), *MIXED[1:]]
    population = _population(configs)
    _train(population)
    failed = population.failed_at[population.member_rows()] >= 0
    assert failed.tolist() == [member == 1 for member in range(len(configs))]
    others = _population([configs[0], *configs[2:]])
    _train(others)
    for place, member in enumerate([0, *range(2, len(configs))]):
        got = population.vector(member, population.parameters)
        torch.testing.assert_close(got, others.vector(place, others.parameters), rtol=1e-10, atol=1e-12)


def test_submembers_start_with_different_signs_and_adapters_do_not_decay() -> None:
    config = MLPConfig(widths=(6, 4), submembers=4, sharing="full", weight_decay=1.0, learning_rate=0.1)
    n_inputs = 12
    population = Population.create([config], DataShape(n_inputs, 3))
    adapters = {
        (block.layer, block.kind): population.parameters[block.offset : block.offset + block.row_size]
        for block in population.layout.buckets[0].blocks
        if block.kind.endswith("adapter")
    }
    assert len(adapters) == 4
    signs = adapters.pop((0, "input_adapter"))
    assert set(signs.tolist()) == {-1.0, 1.0}
    assert len({tuple(row) for row in signs.view(4, n_inputs).tolist()}) == 4
    assert all(bool((adapter == 1.0).all()) for adapter in adapters.values())
    decaying = {block.kind for block in population.layout.buckets[0].blocks if block.decays}
    assert decaying == {"weight"}
    first = extract(population.parameters, population.layout, 0)[1]
    bound = 1.0 / math.sqrt(n_inputs)
    assert 0.7 * bound < first.weight.abs().max() <= bound
