"""Compiled steps, one member after the other, against the general way of a bucket."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("numba")

from parallelmlp_search.engine import (
    BatchStream,
    Evaluation,
    History,
    Population,
    TrainingRows,
    TrainingSettings,
    host_training,
    train,
)
from parallelmlp_search.engine.host_training import MAX_STEPS
from parallelmlp_search.engine.member_bucket import is_supported
from parallelmlp_search.kernels.losses import log_link_power
from parallelmlp_search.kernels.numba.dispatch import CompiledActivations
from parallelmlp_search.packing import DataShape
from parallelmlp_search.packing.pack import read_member
from parallelmlp_search.space import ColumnGroups, MLPConfig
from parallelmlp_search.space.config import SHARINGS

COMPILED = sorted(CompiledActivations.names())
NAMES = ("parameters", "first_moment", "second_moment", "average")


def members(optimizer: str, **changes: object) -> list[MLPConfig]:
    """Members with every activation and widths 1 to 9: remainders of four and of eight, some padded."""
    return [
        MLPConfig(
            widths=(1 + seed % 9,),
            activation=COMPILED[seed % len(COMPILED)],
            optimizer=optimizer,
            learning_rate=0.1 if optimizer == "sgd" else 0.01,
            weight_decay=0.02 * (seed % 3),
            momentum=0.3 * (seed % 4),
            beta1=0.8 + 0.05 * (seed % 3),
            schedule=("constant", "cosine")[seed % 2],
            label_smoothing=0.1 * (seed % 4),
            clip_norm=(None, 0.05, 50.0)[seed % 3],
            batch_size=16,
            seed=seed,
        ).replace(**changes)
        for seed in range(45)
    ]


def trained(
    configs: list[MLPConfig],
    *,
    use: bool,
    n_inputs: int = 5,
    batch: int = 16,
    n_steps: int = 12,
    weighted: bool = False,
    factor: float = 1.0,
    pauses: tuple[int, ...] = (),
    broken: dict[int, float] | None = None,
    **options: object,
) -> tuple[Population, History]:
    """Population after some steps, with pauses and spoilt weights if wanted."""
    generator = torch.Generator().manual_seed(0)
    inputs = factor * torch.randn(100, n_inputs, generator=generator)
    target = torch.randint(0, 2, (100,), generator=generator)
    weight = torch.rand(100, generator=generator) if weighted else None
    population = Population.create(configs, DataShape(n_inputs, 1))
    assert all(is_supported(bucket, "binary_logits") for bucket in population.layout.buckets)
    for member, value in (broken or {}).items():
        number, place = population.layout.positions[member]
        block = population.layout.buckets[number].blocks[0]
        population.parameters[block.offset + place * block.row_size] = value
    for end in (*pauses, n_steps):
        history = train(
            population,
            TrainingRows(inputs, target, weight),
            TrainingSettings(
                stream=BatchStream(100, batch, 3),
                loss="binary_logits",
                until_epoch=end * batch / 100,
                total_epochs=20,
                compiled=use,
                **options,
            ),
        )
        assert population.step == end
    return population, history


def close(got: Population, expected: Population, names: tuple[str, ...], tolerance: float) -> bool:
    return all(
        torch.allclose(
            read_member(got.flats[name], got.layout, member),
            read_member(expected.flats[name], expected.layout, member),
            rtol=tolerance,
            atol=0.2 * tolerance,
        )
        for name in names
        for member in range(got.n_members)
    )


@pytest.mark.parametrize(
    ("n_inputs", "batch", "weighted"),
    [
        (1, 16, False),
        (5, 16, True),
        (8, 7, False),  # fewer rows than a vector
        (15, 33, True),  # 15 inputs and the column of ones fill a vector; rows fill two and one lane
        (16, 16, False),  # two vectors of columns
        (31, 32, True),
    ],
)
def test_sgd_is_that_of_the_plain_path(n_inputs: int, batch: int, weighted: bool) -> None:
    options = {"n_inputs": n_inputs, "batch": batch, "weighted": weighted}
    configs = members("sgd")
    got, history = trained(configs, use=True, **options)  # type: ignore[arg-type]
    expected, plain = trained(configs, use=False, **options)  # type: ignore[arg-type]
    assert any(bucket.is_padded for bucket in got.layout.buckets)
    assert close(got, expected, ("parameters", "first_moment", "average"), 2e-5)
    torch.testing.assert_close(history.train_losses[-1], plain.train_losses[-1], rtol=1e-5, atol=1e-6)
    assert history.member_steps == plain.member_steps == 12 * len(configs)
    assert not torch.equal(got.parameters, expected.parameters)  # otherwise the same path has run twice
    other, _ = trained(configs, use=True, factor=1.001, **options)  # type: ignore[arg-type]
    assert not close(other, expected, ("parameters",), 2e-5)


def test_adamw_is_that_of_the_plain_path() -> None:
    configs = members("adamw")
    got, _ = trained(configs, use=True, n_steps=40)
    expected, _ = trained(configs, use=False, n_steps=40)
    # the first steps of Adam have the length of the rate, even for gradients that are rounding errors
    assert close(got, expected, NAMES, 5e-3)
    for changes in ({"weight_decay": 0.3}, {"beta1": 0.7}, {"beta2": 0.9}, {"clip_norm": 0.01}):
        changed, _ = trained(members("adamw", **changes), use=True, n_steps=40)
        assert not close(changed, expected, NAMES, 5e-3), changes


def test_adamw_without_noise_is_exact_to_rounding() -> None:
    # with smooth activations on many rows, no gradient is close to its rounding error
    configs = members("adamw", activation="tanh", learning_rate=1e-3)
    got, _ = trained(configs, use=True, batch=100, n_steps=20)
    expected, _ = trained(configs, use=False, batch=100, n_steps=20)
    assert close(got, expected, ("parameters",), 1e-4)


def test_pauses_and_evaluations_change_no_bit() -> None:
    configs = members("adamw")
    whole, _ = trained(configs, use=True, n_steps=40)
    assert whole.step > MAX_STEPS
    halves, _ = trained(configs, use=True, n_steps=40, pauses=(3, 21))
    evaluation = Evaluation(torch.randn(9, 5), lambda outputs: outputs.square().mean((1, 2)))
    evaluated, history = trained(configs, use=True, n_steps=40, evaluation=evaluation, evaluate_every=0.5)
    assert len(history.errors) > 5
    for name in NAMES:
        assert torch.equal(whole.flats[name], halves.flats[name])
        assert torch.equal(whole.flats[name], evaluated.flats[name])
    fewer, _ = trained(configs, use=True, n_steps=39)
    assert not torch.equal(whole.parameters, fewer.parameters)


@pytest.mark.parametrize("most", [1, 5])
def test_the_end_of_a_window_changes_no_bit(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    configs = members("adamw")
    configs[7] = configs[7].replace(optimizer="sgd", learning_rate=1e30, activation="identity")
    broken = {4: float("nan")}
    whole, history = trained(configs, use=True, n_steps=40, broken=broken)
    monkeypatch.setattr(host_training, "MAX_STEPS", most)
    cut, other = trained(configs, use=True, n_steps=40, broken=broken)
    for name in NAMES:
        assert torch.equal(whole.flats[name], cut.flats[name])
    assert torch.equal(whole.failed_at, cut.failed_at)
    assert int((whole.failed_at >= 0).sum()) == 2
    assert history.member_steps == other.member_steps
    assert torch.equal(history.train_losses[-1].nan_to_num(), other.train_losses[-1].nan_to_num())


def test_threads_do_not_disturb_each_other() -> None:
    options = [{"n_inputs": 5, "weighted": True}, {"n_inputs": 16}, {"n_inputs": 31}, {"n_inputs": 5}]

    def train_one(place: int) -> Population:
        return trained(members("adamw"), use=True, n_steps=40, **options[place])[0]  # type: ignore[arg-type]

    one_by_one = [train_one(place) for place in range(4)]
    with ThreadPoolExecutor(4) as threads:
        at_once = list(threads.map(train_one, range(4)))
    for one, other in zip(one_by_one, at_once, strict=True):
        assert all(torch.equal(one.flats[name], other.flats[name]) for name in NAMES)
    assert not torch.equal(one_by_one[0].parameters, one_by_one[3].parameters)


def test_a_diverged_member_fails_alone_at_its_step() -> None:
    configs = members("sgd")
    configs[7] = configs[7].replace(learning_rate=1e30, activation="identity", clip_norm=None)
    clean, _ = trained(members("sgd"), use=True, n_steps=20)
    broken = {4: float("nan"), 11: float("inf")}
    got, history = trained(configs, use=True, n_steps=20, broken=broken)
    plain, expected = trained(configs, use=False, n_steps=20, broken=broken)
    assert torch.equal(got.failed_at, plain.failed_at)
    assert history.member_steps == expected.member_steps < 20 * len(configs)
    failed = got.failed_at[got.member_rows()].tolist()
    assert failed[4] == 0
    assert 0 < failed[7] < MAX_STEPS
    for member in range(len(configs)):
        vectors = [read_member(got.flats[name], got.layout, member) for name in NAMES]
        if failed[member] >= 0:
            assert not any(bool(vector.any()) for vector in vectors)
        else:
            same = [read_member(clean.flats[name], clean.layout, member) for name in NAMES]
            assert all(torch.equal(*pair) for pair in zip(vectors, same, strict=True))


WIDE = [  # products with transposed gradients (up to a vector of outputs) and transposed activations
    MLPConfig(
        widths=((20, 37), (33,), (), (17, 3, 40), (1, 50))[seed % 5],
        activation=("tanh", "gelu", "selu")[seed % 3],
        optimizer="sgd",
        learning_rate=0.05,
        bias=seed % 4 != 3,
        clip_norm=0.3 if seed % 6 == 5 else None,
        label_smoothing=0.1 * (seed % 2),
        batch_size=24,
        seed=seed,
    )
    for seed in range(40)
]


def _three_ways(
    configs: list[MLPConfig],
    rows: TrainingRows,
    loss: str,
    *,
    until_epoch: float,
    total_epochs: float,
    **sizes: Any,
) -> list[Population]:
    """Populations trained by the compiled loop, without it, and by the loop on slightly larger inputs."""
    populations = []
    for use, factor in ((True, 1.0), (False, 1.0), (True, 1.001)):
        population = Population.create(configs, DataShape(rows.inputs.shape[1], **sizes))
        assert all(is_supported(bucket, loss) for bucket in population.layout.buckets)
        train(
            population,
            replace(rows, inputs=factor * rows.inputs),
            TrainingSettings(
                stream=BatchStream(100, 24, 3),
                loss=loss,
                until_epoch=until_epoch,
                total_epochs=total_epochs,
                compiled=use,
            ),
        )
        populations.append(population)
    return populations


@pytest.mark.parametrize(("n_outputs", "n_inputs"), [(1, 20), (3, 16), (16, 5), (21, 40)])
def test_depth_width_and_outputs(n_outputs: int, n_inputs: int) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(100, n_inputs, generator=generator)
    target = torch.randint(0, max(2, n_outputs), (100,), generator=generator)
    loss = "binary_logits" if n_outputs == 1 else "cross_entropy"
    rows = TrainingRows(inputs, target)
    got, expected, other = _three_ways(WIDE, rows, loss, until_epoch=3, total_epochs=20, n_outputs=n_outputs)
    assert close(got, expected, ("parameters", "average"), 3e-5)
    assert not torch.equal(got.parameters, expected.parameters)
    assert not close(other, expected, ("parameters",), 3e-5)


ACTIVE = ["relu", "tanh", "selu", "mish", "silu", "hardshrink", "identity", "sigmoid"]

NUMBERS = ColumnGroups(n_numbers=7)
KINDS = [  # every part of a network besides plain layers, alone and together, padded and not
    MLPConfig(
        widths=((8, 8, 8), (11, 8), (5,), (), (29, 29))[seed % 5],
        activation=ACTIVE[seed % len(ACTIVE)],
        optimizer="sgd",
        learning_rate=0.03,
        weight_decay=0.1,
        weight_decay_schedule="cosine",
        bias=seed % 7 != 3,
        bias_rate=0.5,
        dropout=(0.0, 0.25, 0.5)[seed % 3],
        dropout_schedule=("constant", "flat_cosine")[seed % 2],
        normalization=("none", "layer")[seed // 2 % 2] if seed % 5 != 2 else "none",
        residual=seed // 4 % 2 == 0,
        input_scale_rate=(0.0, 2.0)[seed // 3 % 2],
        parametrization=("standard", "neural_tangent")[seed // 6 % 2],
        numeric_embedding=("none", "periodic")[seed // 7 % 2],
        frequency_scale=(0.1, 3.0)[seed % 2],
        clip_norm=(None, 0.5)[seed // 11 % 2],
        label_smoothing=0.1 * (seed % 2),
        submembers=(1, 1, 3, 5)[seed // 8 % 4],
        sharing=SHARINGS[seed // 3 % 2],
        batch_size=24,
        seed=seed,
    )
    for seed in range(200)
]
# narrower members, which are padded in the buckets of submembers
KINDS += [c.replace(widths=tuple(width - 1 for width in c.widths)) for c in KINDS if c.submembers > 1][::3]


@pytest.mark.parametrize(
    ("loss", "n_outputs", "weighted"),
    [
        ("binary_logits", 1, False),
        ("cross_entropy", 3, True),
        ("cross_entropy", 19, False),
        ("squared_error", 1, True),
        ("squared_error", 2, False),
        ("poisson", 1, False),
        ("gamma", 1, True),
        ("tweedie:1.3", 2, False),
        ("binary_logits", 3, True),
        ("binary_logits", 2, False),
    ],
)
def test_every_part_of_a_network(loss: str, n_outputs: int, weighted: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(100, 8, generator=generator)
    target = torch.randint(0, max(2, n_outputs), (100,), generator=generator)
    kinds = KINDS
    if loss not in ("binary_logits", "cross_entropy"):
        target = torch.randn(n_outputs, 100, generator=generator)
    elif loss == "binary_logits" and n_outputs > 1:
        target = torch.randint(0, 2, (n_outputs, 100), generator=generator).float()
    if log_link_power(loss) is not None:  # exponentials amplify differences by rounding
        kinds = [c.replace(learning_rate=0.05 * c.learning_rate) for c in KINDS]
        target = target.exp()
    weight = torch.rand(100, generator=generator) if weighted else None
    rows = TrainingRows(inputs, target, weight)
    got, expected, other = _three_ways(
        kinds, rows, loss, until_epoch=3, total_epochs=10, n_outputs=n_outputs, columns=NUMBERS
    )
    assert not bool((got.failed_at >= 0).any())
    for member, config in enumerate(kinds):
        pair = [read_member(p.parameters, p.layout, member) for p in (got, expected)]
        torch.testing.assert_close(*pair, rtol=2e-4, atol=2e-5, msg=lambda text, c=config: f"{c}: {text}")
    assert not close(other, expected, ("parameters",), 2e-4)
    shapes = [bucket.shape for bucket in got.layout.buckets]
    for switch in ("scaled", "n_periodic", "dropout", "bias", "clip"):
        assert {bool(getattr(shape, switch)) for shape in shapes} == {True, False}, switch
    assert any(shape.residual and shape.residual[0] and shape.n_periodic for shape in shapes)
    assert {shape.normalization for shape in shapes} == {"none", "layer"}
    assert any(bucket.is_padded and bucket.shape.scaled for bucket in got.layout.buckets)
    expanded = [bucket.shape for bucket in got.layout.buckets if bucket.shape.is_expanded]
    assert {shape.sharing for shape in expanded} == set(SHARINGS)
    for switch in ("scaled", "n_periodic", "dropout", "bias", "clip"):
        assert {bool(getattr(shape, switch)) for shape in expanded} == {True, False}, switch
    assert any(bucket.is_padded and bucket.shape.is_expanded for bucket in got.layout.buckets)


@pytest.mark.parametrize(("loss", "n_outputs"), [("binary_logits", 1), ("cross_entropy", 3)])
def test_embedded_categories(loss: str, n_outputs: int) -> None:
    categories = ((8, 11), (20, 17))  # 8 columns before them, one between them and one after them
    configs = [config.replace(category_embedding="learned") for config in KINDS[1::2]]
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(100, 38, generator=generator)
    for first, size in categories:
        places = torch.randint(0, size + 1, (100,), generator=generator)
        inputs[:, first : first + size] = torch.nn.functional.one_hot(places, size + 1)[:, :size].float()
    target = torch.randint(0, max(2, n_outputs), (100,), generator=generator)
    rows = TrainingRows(inputs, target)
    got, expected, other = _three_ways(
        configs,
        rows,
        loss,
        until_epoch=2,
        total_epochs=10,
        n_outputs=n_outputs,
        columns=ColumnGroups(n_numbers=7, categories=categories),
    )
    for member, config in enumerate(configs):
        pair = [read_member(p.parameters, p.layout, member) for p in (got, expected)]
        torch.testing.assert_close(*pair, rtol=2e-4, atol=2e-5, msg=lambda text, c=config: f"{c}: {text}")
    assert not close(other, expected, ("parameters",), 2e-4)
    shapes = [bucket.shape for bucket in got.layout.buckets]
    assert all(shape.categories == categories for shape in shapes)
    assert {1} < {shape.submembers for shape in shapes}
    for switch in ("scaled", "n_periodic", "depth", "bias"):
        assert {bool(getattr(shape, switch)) for shape in shapes} == {True, False}, switch
    assert any(bucket.is_padded for bucket in got.layout.buckets)


def test_two_steps_of_adamw_with_every_part() -> None:
    """The second step divides by the moments of the first."""
    configs = [config.replace(optimizer="adamw", learning_rate=1e-3) for config in KINDS]
    populations = []
    for use in (True, False):
        population = Population.create(configs, DataShape(8, 3, columns=NUMBERS))
        rows = TrainingRows(torch.ones(48, 8).cumsum(0).sin() * torch.arange(8), torch.arange(48) % 3)
        train(
            population,
            rows,
            TrainingSettings(
                stream=BatchStream(48, 24, 0),
                loss="cross_entropy",
                until_epoch=1,
                total_epochs=5,
                compiled=use,
            ),
        )
        populations.append(population)
    got, expected = populations
    for name in NAMES[:3]:
        torch.testing.assert_close(got.flats[name], expected.flats[name], rtol=2e-3, atol=2e-5)


def test_windows_with_dropout_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    configs = [config.replace(optimizer="adamw", learning_rate=1e-3) for config in KINDS[:30]]
    ends = []
    for most in (1 << 21, 8 * 29 * 24 * 3, 1):
        monkeypatch.setattr(host_training, "MAX_WINDOW_FIELDS", most)
        population = Population.create(configs, DataShape(8, 1, columns=NUMBERS))
        rows = TrainingRows(torch.ones(64, 8).cumsum(0).sin(), torch.arange(64) % 2)
        train(
            population,
            rows,
            TrainingSettings(
                stream=BatchStream(64, 24, 0),
                loss="binary_logits",
                until_epoch=9,
                total_epochs=9,
                compiled=True,
            ),
        )
        ends.append(population.parameters)
    assert torch.equal(ends[0], ends[1])
    assert torch.equal(ends[0], ends[2])


def test_beside_buckets_that_are_not_supported() -> None:
    others = MLPConfig(widths=(5, 5), batch_size=16, dropout=0.3)
    configs = [*members("adamw")[:6], others, others.replace(activation="sine")]
    populations: list[Tensor] = []
    for use in (True, False):
        population = Population.create(configs, DataShape(5, 1), merge=False)
        supported = [is_supported(bucket, "binary_logits") for bucket in population.layout.buckets]
        assert {True, False} == set(supported)
        rows = TrainingRows(torch.ones(64, 5).cumsum(0) % 7, torch.arange(64) % 2)
        train(
            population,
            rows,
            TrainingSettings(
                stream=BatchStream(64, 16, 0),
                loss="binary_logits",
                until_epoch=3,
                total_epochs=5,
                compiled=use,
            ),
        )
        populations.append(population.parameters)
    torch.testing.assert_close(*populations, rtol=5e-3, atol=1e-3)
    assert not torch.equal(*populations)


def test_supported_buckets() -> None:
    def supported(
        n_outputs: int = 1, loss: str = "binary_logits", n_inputs: int = 4, **changes: object
    ) -> bool:
        config = MLPConfig(widths=(3,)).replace(**changes)
        population = Population.create([config], DataShape(n_inputs, n_outputs))
        return is_supported(population.layout.buckets[0], loss)

    assert supported()
    assert supported(clip_norm=1.0)
    assert supported(widths=(3, 3))
    assert supported(widths=())
    assert supported(bias=False)
    assert supported(n_outputs=2, loss="cross_entropy")
    assert supported(n_inputs=2048)
    assert not supported(n_inputs=2049)
    assert supported(n_outputs=2)  # two labels
    assert not supported(loss="cross_entropy")
    assert supported(loss="squared_error")
    assert supported(loss="poisson")
    assert supported(loss="tweedie:1.3", n_outputs=2)
    assert supported(normalization="layer", dropout=0.5, input_scale_rate=1.0)
    assert not supported(loss="huber:1.0")
    assert not supported(activation="sine")
    assert not supported(widths=(2049,))
