"""Cases of the benchmark, and correctness of the implementations that it compares with."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.packed.cases import (
    CASES,
    HEADLINE,
    PAPER_ACTIVATIONS,
    QUICK,
    TWO_LAYERS,
    find,
    like_ragged,
    ragged,
)
from benchmarks.packed.extra_rivals import make
from benchmarks.packed.ours import cut, steps_a_call
from benchmarks.packed.rivals import M3, OneAtATime, Vmap, spread
from parallelmlp_search.engine.host_training import MAX_STEPS
from parallelmlp_search.packing.pack import build_module
from parallelmlp_search.space import MLPConfig

SMALL = replace(
    HEADLINE,
    name="small",
    build=lambda: [
        MLPConfig(widths=(1 + seed % 4,), activation=PAPER_ACTIVATIONS[seed % 10], seed=seed)
        for seed in range(20)
    ],
    inputs=3,
    batch=8,
    rows=40,
    optimizer="sgd",
)


def test_cases_of_the_paper_and_their_targets() -> None:
    configs = HEADLINE.configs()
    assert len(configs) == 10_000
    assert {config.widths[0] for config in configs} == set(range(1, 101))
    assert {config.activation for config in configs} == set(PAPER_ACTIVATIONS)
    for name in QUICK:
        classes = find(name).data()[1].bincount()
        assert len(classes) == max(2, find(name).outputs)
        assert classes.max() < 0.9 * classes.sum()
    assert len({case.name for case in CASES}) == len(CASES)


def test_work_equals_a_count_by_hand() -> None:
    case = replace(HEADLINE, inputs=5, outputs=3, batch=7)
    # forward and gradients of the weights of both layers, gradient of the hidden layer's output
    by_hand = 2 * 7 * (2 * 5 * 4 + 2 * 4 * 3 + 4 * 3)
    assert case.product_flops([MLPConfig(widths=(4,))]) == by_hand
    rates = [find("ragged").product_flops(population) for population in (ragged(), like_ragged())]
    assert rates[1] == pytest.approx(rates[0], rel=0.03)


def test_shards_hold_every_member_once() -> None:
    members = [member for shard in cut(SMALL, SMALL.configs()) for member in shard]
    assert sorted(members) == list(range(20))
    chosen = spread(SMALL, SMALL.configs(), 5)
    assert len(chosen) == 5
    assert len({config.widths for config in chosen}) >= 3


@pytest.mark.parametrize("outputs", [1, 3])
def test_steps_of_m3_equal_those_of_separate_networks(outputs: int) -> None:
    case = replace(SMALL, outputs=outputs)
    rival = M3.__new__(M3)
    rival.seconds = 0.0
    torch.manual_seed(0)
    M3.__init__(rival, case, torch.get_num_threads())
    before = [parameter.detach().clone() for parameter in rival._parameters]
    momentum = [rival._optimizer.state[p]["momentum_buffer"].clone() for p in rival._parameters]
    rows, target = next(rival._batches)
    rival._batches._batches = iter([(rows, target)])
    rival._round()
    gradients = [
        (rival._optimizer.state[p]["momentum_buffer"] - 0.9 * old)
        for p, old in zip(rival._parameters, momentum, strict=True)
    ]
    configs = sorted(case.configs(), key=lambda config: (config.activation, config.widths))
    start = 0
    for member, config in enumerate(configs):
        part = slice(start, start + config.widths[0])
        start = part.stop
        network = build_module(case.architecture(config))
        first, last = network[0], network[2]
        with torch.no_grad():
            first.weight.copy_(before[0][part])
            first.bias.copy_(before[1][part, 0])
            last.weight.copy_(before[2][part].T)
            last.bias.copy_(before[3][member, :, 0])
        out = network(rows)
        if outputs == 1:
            F.binary_cross_entropy_with_logits(out[:, 0], target).backward()
        else:
            F.cross_entropy(out, target).backward()
        for got, expected in (
            (gradients[0][part], first.weight.grad),
            (gradients[1][part, 0], first.bias.grad),
            (gradients[2][part], last.weight.grad.T),
            (gradients[3][member, :, 0], last.bias.grad),
        ):
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6)
        assert first.weight.grad.any() or config.activation == "hardshrink"


def _loss(outputs: Tensor, target: Tensor) -> float:
    """Binary log-loss of outputs ``(n, 1)``."""
    return float(F.binary_cross_entropy_with_logits(outputs[:, 0], target.float()))


def test_vmap_learns() -> None:
    torch.manual_seed(0)
    case = replace(SMALL, build=lambda: [MLPConfig(widths=(4,), seed=s) for s in range(3)], optimizer="adamw")
    rival = Vmap.__new__(Vmap)
    rival.seconds = 0.0
    Vmap.__init__(rival, case, torch.get_num_threads(), chunk=2)
    inputs, target = case.data()
    network = build_module(case.architecture(case.configs()[0]))

    def losses() -> list[float]:
        members = [
            {name: weight[member] for name, weight in stack._weights.items()}
            for stack in rival._stacks
            for member in range(stack._size)
        ]
        with torch.no_grad():
            return [_loss(torch.func.functional_call(network, own, (inputs,)), target) for own in members]

    before = losses()
    assert [rival._round() for _ in range(100)] == [3] * 100
    assert len(before) == 3
    assert all(new < old - 0.02 for new, old in zip(losses(), before, strict=True))


def test_one_network_at_a_time_learns() -> None:
    torch.manual_seed(0)
    rival = OneAtATime.__new__(OneAtATime)
    rival.seconds = 0.0
    case = replace(SMALL, optimizer="adamw")
    OneAtATime.__init__(rival, case, torch.get_num_threads())
    inputs, target = case.data()

    def losses() -> list[float]:
        with torch.no_grad():
            return [_loss(network(inputs), target) for network in rival._networks]

    before = losses()
    assert [rival._round() for _ in range(20)] == [10 * len(before)] * 20
    assert all(new < old - 0.005 for new, old in zip(losses(), before, strict=True))


def test_networks_of_scikit_learn_are_optional() -> None:
    case = replace(SMALL, build=lambda: [MLPConfig(widths=(3,), activation="tanh", seed=s) for s in range(9)])
    rival = make("sklearn", case)
    assert rival.sample() > 0.0
    networks = rival._networks  # type: ignore[union-attr]
    assert len(networks) == 8
    # two epochs of five batches of eight rows
    assert {network.t_ for network in networks} == {2 * 40}
    assert {network.hidden_layer_sizes for network in networks} == {(3,)}


def test_a_step_of_jax_changes_all_weights() -> None:
    pytest.importorskip("jax")
    case = replace(SMALL, build=lambda: [MLPConfig(widths=(3,), activation="tanh", seed=s) for s in range(2)])
    rival = make("jax", case)
    weights = [layer for state, _, _ in rival._stacks for layer in state[0]]  # type: ignore[union-attr]
    assert rival.sample() > 0.0
    after = [layer for state, _, _ in rival._stacks for layer in state[0]]  # type: ignore[union-attr]
    assert [w.shape for w, _ in after] == [(2, 3, 3), (2, 3, 1)]
    assert all(bool((new != old).all()) for (new, _), (old, _) in zip(after, weights, strict=True))


def test_cases_vary_all_dimensions() -> None:
    papers = [case for case in CASES if case.group == "paper"]
    assert {case.rows for case in papers} == {100, 1000, 10_000}
    assert {(case.inputs, case.batch) for case in papers} == {
        (inputs, batch) for inputs in (5, 10, 50, 100) for batch in (32, 128, 256)
    }
    for group in ("paper", "uniform"):
        assert {case.optimizer for case in CASES if case.group == group} == {"adamw", "sgd"}
    assert {case.outputs for case in papers} == {1, 10}
    shapes = {case.configs()[0].widths for case in CASES if case.group == "uniform"}
    assert {len(widths) for widths in shapes} == {1, 2, 3, 4}
    assert {widths[0] for widths in shapes} == {8, 16, 32, 64, 128, 256, 512}
    assert {len(config.widths) for config in ragged()} == {1, 2, 3}
    assert {width for config in ragged() for width in config.widths} == set(range(1, 129))


def test_bytes_of_the_training_state() -> None:
    configs = [MLPConfig(widths=(4,))]
    case = replace(HEADLINE, inputs=5, outputs=3, batch=7)
    parameters = 5 * 4 + 4 + 4 * 3 + 3
    assert case.state_bytes(configs) == 7 * 4 * parameters
    # weights, two moments and the average, each read and written
    assert case.kept_bytes(configs, 16.0) == 8 * 4 * parameters / 16
    assert steps_a_call(SMALL, SMALL.configs()) == MAX_STEPS
    wide = replace(TWO_LAYERS, build=lambda: [MLPConfig(widths=(512, 512))] * 40)
    assert 1.0 <= steps_a_call(wide, wide.configs()) < MAX_STEPS
