"""Compiled loops against their plain twins, and the rules for their use."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from parallelmlp_search.engine import BatchStream, Population, TrainingRows, TrainingSettings, train
from parallelmlp_search.engine.network import PackedNetwork
from parallelmlp_search.engine.optimizer import PackedOptimizer
from parallelmlp_search.exceptions import InvalidParameterError, MissingDependencyError
from parallelmlp_search.kernels.activations import ACTIVATION_KERNELS
from parallelmlp_search.kernels.losses import get_loss
from parallelmlp_search.kernels.numba import dispatch, library
from parallelmlp_search.kernels.numba.dispatch import CompiledActivations, compiled_loss
from parallelmlp_search.packing import DataShape
from parallelmlp_search.packing.pack import read_member
from parallelmlp_search.space import MLPConfig
from parallelmlp_search.space.config import ACTIVATIONS

COVERED = sorted(CompiledActivations.names())
covered = pytest.mark.parametrize("name", COVERED)

Z = torch.cat(
    [
        torch.linspace(-9.0, 9.0, 1201) + 1e-3,
        torch.tensor([-87.0, -50.0, -20.5, -0.5, 0.0, 0.5, 20.0, 50.0, 87.0, 1e-9, -1e-9, 1e-38]),
    ]
)


def _compiled_and_plain(name: str, z: Tensor, *, in_place: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Output and gradient of the compiled loop, then of the plain kernel, for one member among three."""
    kernel = ACTIVATION_KERNELS[name]
    grad = torch.cos(3.0 * torch.arange(len(z))) + 2.0
    stacked = z.expand(3, 1, -1).contiguous()
    output = stacked if in_place else torch.full_like(stacked, float("nan"))
    others = ACTIVATION_KERNELS["identity"]
    loops = CompiledActivations(stacked, output, [others, kernel, others], [in_place] * 3)
    loops.forward()
    slope = grad.expand(3, 1, -1).contiguous()
    loops.backward(slope)
    assert torch.equal(slope[0, 0], grad)
    assert torch.equal(output[0, 0].nan_to_num(), z.nan_to_num())
    expected = torch.empty_like(z)
    kernel.forward(z, expected)
    gradient = torch.empty_like(z)
    kernel.backward(grad, expected if kernel.saves_output else z, gradient)
    return output[1, 0], slope[1, 0], expected, gradient


@covered
@pytest.mark.parametrize("in_place", [False, True])
def test_activations_agree_with_the_plain_kernels(name: str, in_place: bool) -> None:
    if in_place and not ACTIVATION_KERNELS[name].saves_output:
        pytest.skip("its derivative needs the input")
    output, gradient, expected, expected_gradient = _compiled_and_plain(name, Z, in_place=in_place)
    torch.testing.assert_close(output, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(gradient, expected_gradient, rtol=3e-6, atol=3e-6)


def test_all_activations_differ() -> None:
    z = torch.tensor([-1.3, -0.4, 0.3, 1.7])
    outputs = [_compiled_and_plain(name, z, in_place=False)[0] for name in COVERED]
    for first in range(len(outputs)):
        for second in range(first):
            assert not torch.allclose(outputs[first], outputs[second], rtol=1e-3, atol=1e-3)


@covered
def test_nan_is_kept_and_does_not_spread(name: str) -> None:
    z = torch.tensor([1.0, float("nan"), 2.0])
    output = _compiled_and_plain(name, z, in_place=False)[0]
    clean = _compiled_and_plain(name, torch.tensor([1.0, 1.5, 2.0]), in_place=False)[0]
    assert bool(output[1].isnan())
    assert torch.equal(output[[0, 2]], clean[[0, 2]])


def _logits(n_outputs: int) -> Tensor:
    logits = 4.0 * torch.randn(5, n_outputs, 33, generator=torch.Generator().manual_seed(0))
    logits[0, 0, :4] = torch.tensor([80.0, -80.0, 30.0, -30.0])
    return logits


@pytest.mark.parametrize(
    ("loss", "n_outputs"), [("binary_logits", 1), ("binary_logits", 3), ("cross_entropy", 4)]
)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("smooth", [False, True])
def test_losses_agree_with_the_plain_losses(loss: str, n_outputs: int, weighted: bool, smooth: bool) -> None:
    logits = _logits(n_outputs)
    target = torch.arange(33) % max(2, n_outputs)
    if loss == "binary_logits" and n_outputs > 1:
        target = torch.arange(33 * n_outputs).view(n_outputs, 33) // 3 % 2
    weight = torch.rand(33, generator=torch.Generator().manual_seed(1)) if weighted else None
    smoothing = torch.tensor([0.0, 0.1, 0.2, 0.5, 0.9]) if smooth else None
    gradient, expected_gradient = torch.empty_like(logits), torch.empty_like(logits)
    function = compiled_loss(loss)
    losses = function(logits, target, gradient, weight, smoothing)
    expected = get_loss(loss)(logits, target, expected_gradient, weight, smoothing)
    torch.testing.assert_close(losses, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-5, atol=1e-7)
    # the same buffers with other values
    logits.mul_(0.5)
    again = function(logits, target, gradient, weight, smoothing)
    expected = get_loss(loss)(logits, target, expected_gradient, weight, smoothing)
    torch.testing.assert_close(again, expected, rtol=1e-6, atol=1e-6)
    assert not torch.allclose(again, losses, rtol=1e-3)
    other = function(
        logits, (target + 1) % (2 if loss == "binary_logits" else n_outputs), gradient, weight, smoothing
    )
    assert not torch.allclose(other, again, rtol=1e-3)


def test_nan_in_a_row_gives_nan_for_its_member_only() -> None:
    for loss, n_outputs in (("binary_logits", 1), ("cross_entropy", 4)):
        logits = _logits(n_outputs)
        logits[2, 0, 5] = float("nan")
        target = torch.zeros(33, dtype=torch.int64)
        losses = compiled_loss(loss)(logits, target, torch.empty_like(logits))
        assert losses.isnan().tolist() == [False, False, True, False, False]


def test_losses_without_a_loop_are_the_plain_ones() -> None:
    assert compiled_loss("squared_error") is get_loss("squared_error")


CONFIGS = [
    MLPConfig(
        widths=((7, 5), (5, 5), (6,), ())[seed % 4],
        activation=ACTIVATIONS[seed % len(ACTIVATIONS)],  # includes the two without a compiled loop
        optimizer=("sgd", "sgd", "adamw")[seed % 3],
        learning_rate=0.02,
        weight_decay=0.1 * (seed % 2),
        dropout=0.2 * (seed % 5 == 0),
        residual=seed % 2 == 1,
        normalization="layer" if seed % 7 == 0 else "none",
        clip_norm=0.5 if seed % 11 == 0 else None,
        label_smoothing=0.1 * (seed % 3 == 0),
        batch_size=16,
        seed=seed,
    )
    for seed in range(52)
]


def _trained(configs: list[MLPConfig], *, use: bool, n_steps: int = 12, blow: bool = False) -> Population:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(100, 7, generator=generator)
    target = torch.randint(0, 3, (100,), generator=generator)
    population = Population.create(configs, DataShape(7, 3))
    if blow:
        row = int(population.member_rows()[4])
        number, place = population.layout.positions[4]
        block = population.layout.buckets[number].blocks[0]
        population.parameters[block.offset + place * block.row_size] = float("nan")
        assert row >= 0
    train(
        population,
        TrainingRows(inputs, target),
        TrainingSettings(
            stream=BatchStream(100, 16, 3),
            loss="cross_entropy",
            until_epoch=n_steps * 16 / 100,
            total_epochs=20,
            compiled=use,
        ),
    )
    return population


def test_training_agrees_with_the_plain_path() -> None:
    loops, plain = _trained(CONFIGS, use=True), _trained(CONFIGS, use=False)
    unequal = 0
    for member, config in enumerate(CONFIGS):
        for name in ("parameters", "average"):
            got = read_member(loops.flats[name], loops.layout, member)
            expected = read_member(plain.flats[name], plain.layout, member)
            # Adam's first steps have the size of the rate whatever the gradient, its rounding included
            tolerance = 1e-5 if config.optimizer == "sgd" else 2e-3
            torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)
            unequal += not torch.equal(got, expected)
    assert unequal  # otherwise the same path ran twice
    changed = _trained([c.replace(learning_rate=0.0201) for c in CONFIGS], use=True)
    for member in range(len(CONFIGS)):
        got = read_member(changed.parameters, changed.layout, member)
        expected = read_member(plain.parameters, plain.layout, member)
        assert not torch.allclose(got, expected, rtol=1e-6, atol=1e-6)


def test_training_twice_gives_the_same_bits() -> None:
    first, second = _trained(CONFIGS, use=True), _trained(CONFIGS, use=True)
    assert torch.equal(first.parameters, second.parameters)


def test_a_diverged_member_does_not_change_the_others() -> None:
    clean, broken = _trained(CONFIGS, use=True), _trained(CONFIGS, use=True, blow=True)
    for member in range(len(CONFIGS)):
        got = read_member(broken.parameters, broken.layout, member)
        expected = read_member(clean.parameters, clean.layout, member)
        assert torch.equal(got, expected) == (member != 4)
    failed = broken.failed_at[broken.member_rows()]
    assert failed.tolist() == [0 if member == 4 else -1 for member in range(len(CONFIGS))]
    assert not read_member(broken.parameters, broken.layout, 4).any()


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_eighty_steps_of_the_optimizer(optimizer: str) -> None:
    configs = [
        MLPConfig(
            widths=(9,),
            optimizer=optimizer,
            learning_rate=0.01 * (1 + seed),
            weight_decay=0.1 * seed,
            beta1=0.8 + 0.05 * seed,
            beta2=0.9 + 0.03 * seed,
            momentum=0.3 * seed,
            schedule="cosine",
            seed=seed,
        )
        for seed in range(3)
    ]
    results = []
    for use in (True, False):
        population = Population.create(configs, DataShape(4, 2))
        gradients = torch.zeros_like(population.parameters)
        packed = PackedOptimizer(population, gradients, 90, compiled=use)
        generator = torch.Generator().manual_seed(0)
        while population.step < 80:
            gradients.normal_(generator=generator)
            for number in range(len(population.layout.buckets)):
                packed.step_bucket(number, population.step)
            population.step += 1
        results.append(population)
    for name in ("parameters", "first_moment", "second_moment", "average"):
        torch.testing.assert_close(results[0].flats[name], results[1].flats[name], rtol=2e-5, atol=2e-6)
    assert not torch.equal(results[0].parameters, results[1].parameters)


def test_the_loops_are_used_for_float32_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PMLP_COMPILED", raising=False)
    assert dispatch.uses_compiled(torch.float32, "cpu")
    assert not dispatch.uses_compiled(torch.float64, "cpu")
    assert not dispatch.uses_compiled(torch.float32, "cuda")
    monkeypatch.setenv("PMLP_COMPILED", "0")
    assert not dispatch.uses_compiled(torch.float32, "cpu")
    monkeypatch.delenv("PMLP_COMPILED")
    assert not dispatch.uses_compiled(torch.float32, "cpu", wanted=False)
    assert dispatch.uses_compiled(torch.float32, "cpu", wanted=True)
    with pytest.raises(InvalidParameterError, match=r"compiled must be False or None .* float64 on cpu"):
        dispatch.uses_compiled(torch.float64, "cpu", wanted=True)
    with pytest.raises(InvalidParameterError, match="but got True for float32 on cuda"):
        dispatch.uses_compiled(torch.float32, "cuda", wanted=True)
    monkeypatch.setattr(library, "find", lambda: None)
    assert dispatch.uses_compiled(torch.float32, "cpu")  # they can be compiled
    monkeypatch.setenv("PMLP_COMPILED", "ready")
    assert not dispatch.uses_compiled(torch.float32, "cpu")
    monkeypatch.delenv("PMLP_COMPILED")
    monkeypatch.setattr(library, "can_compile", lambda: False)
    assert not dispatch.uses_compiled(torch.float32, "cpu")
    with pytest.raises(MissingDependencyError, match="pip install numba"):
        dispatch.uses_compiled(torch.float32, "cpu", wanted=True)


def test_predictions_agree_with_the_plain_path() -> None:
    population = Population.create(CONFIGS, DataShape(7, 3))
    rows = torch.randn(20, 7, generator=torch.Generator().manual_seed(0))
    outputs = [
        PackedNetwork(population.layout, 8, compiled=use).predict(population.parameters, rows)
        for use in (True, False)
    ]
    torch.testing.assert_close(*outputs, rtol=1e-5, atol=1e-5)
    assert not torch.equal(*outputs)
