"""The persistent kernel against plain networks and the ordinary loop: gradients and k-step weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from parallelmlp_search.engine.device.step_tables import step_tables
from parallelmlp_search.engine.step_coefficients import StepCoefficients, constant_table
from parallelmlp_search.kernels.reference import scatter_matmul
from parallelmlp_search.kernels.triton import launch
from parallelmlp_search.kernels.triton.launch import PersistentTraining, obstacle
from parallelmlp_search.packing import MatmulLayout
from parallelmlp_search.packing.pack import build_module, read_member
from parallelmlp_search.space import ACTIVATIONS, MLPConfig

FLATS = ("parameters", "first_moment", "second_moment", "average")


def assert_close(got: Tensor, expected: Tensor, name: str = "parameters") -> None:
    """Assert equality up to the order of sums: of all elements in float64, of most elements in float32.

    Adam amplifies rounding where a gradient is nearly zero: such a step has the length of the rate.
    """
    if expected.dtype == torch.float64:
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12, msg=lambda m: f"{name}: {m}")
        return
    difference = (got - expected).abs()
    assert float(difference.max()) < 0.15, name
    assert float((difference > 1e-3).float().mean()) < 0.03, name


def assert_same(got: Any, expected: Any) -> None:
    """Assert that all flat buffers of two populations are close."""
    for name in FLATS:
        assert_close(got.flats[name], expected.flats[name], name)


def members(flat: Tensor, population: Any) -> list[Tensor]:
    """Canonical vectors of all members."""
    return [read_member(flat, population.layout, member) for member in range(population.n_members)]


def config(widths: tuple[int, ...], **others: Any) -> MLPConfig:
    settings: dict[str, Any] = {"learning_rate": 0.02, "weight_decay": 0.1, "schedule": "cosine"}
    return MLPConfig(widths=widths, **{**settings, **others})


# Each row names the edge case that it covers.
CASES: dict[str, tuple[tuple[Any, ...], dict[str, Any], list[MLPConfig]]] = {
    "width 1, 16, 17 and 33, a prime number of members": (
        ("cross_entropy", 3),
        {"n_inputs": 1},
        [config((w,), activation="tanh", seed=w) for w in (1, 16, 17, 33, 5)],
    ),
    "one member": (("binary_logits", 1), {}, [config((4,), activation="silu")]),
    "two hidden layers of unequal width": (
        ("cross_entropy", 3),
        {},
        [
            config((3, 18), activation="mish"),
            config((18, 3), activation="mish"),
            config((5, 5), activation="elu"),
        ],
    ),
    "one output, many inputs": (("binary_logits", 1), {"n_inputs": 40}, [config((4,)), config((20,))]),
    "17 classes": (("cross_entropy", 17), {}, [config((4,))]),
    "several targets of a regression": (("squared_error", 3), {}, [config((4,)), config((6, 7))]),
    "weighted rows": (("cross_entropy", 3), {"weighted": True}, [config((4,)), config((6, 7))]),
    "batches longer than a tile, the last tile not full": (
        ("cross_entropy", 3),
        {"batch_size": 37},
        [config((18,)), config((6, 7))],
    ),
    "a batch of one row": (("squared_error", 1), {"batch_size": 1}, [config((4,))]),
    "no bias": (("cross_entropy", 3), {}, [config((4,), bias=False), config((6, 7), bias=False)]),
    "SGD with momentum": (
        ("cross_entropy", 3),
        {},
        [config((4,), optimizer="sgd"), config((6, 7), optimizer="sgd", momentum=0.5)],
    ),
    "clipped gradients, one of them": (
        ("cross_entropy", 3),
        {},
        [config((4,), clip_norm=0.05), config((6, 7), clip_norm=1e6)],
    ),
    "label smoothing of one member": (
        ("cross_entropy", 3),
        {},
        [config((4,), label_smoothing=0.3), config((4,))],
    ),
    "schedules and rates of their own": (
        ("cross_entropy", 3),
        {},
        [
            config((4,), schedule="one_cycle", learning_rate=0.01),
            config((4,), schedule="linear", beta1=0.5, beta2=0.9),
        ],
    ),
}


@pytest.mark.parametrize(("arguments", "options", "configs"), list(CASES.values()), ids=list(CASES))
def test_weights_moments_and_averages_after_several_steps(
    arguments: tuple[Any, ...], options: dict[str, Any], configs: list[MLPConfig], case: Callable[..., Any]
) -> None:
    here = case(*arguments, **options)
    expected = here.plainly(configs, 4)
    result = here.in_kernel(configs, [4])
    assert_same(result.population, expected)
    assert result.failed_at.tolist() == [-1] * len(configs)
    # training changed them
    start = here.population(configs)
    assert not torch.allclose(expected.parameters, start.parameters, atol=1e-3)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_with_padded_neurons(activation: str, case: Callable[..., Any]) -> None:
    here = case("cross_entropy", 3)
    configs = [config((5,), activation=activation), config((5, 3), activation=activation)]
    assert_same(here.in_kernel(configs, [3]).population, here.plainly(configs, 3))


@pytest.mark.parametrize("widths", [(5,), (5, 3)], ids=str)
def test_moments_in_scratch_instead_of_registers(
    widths: tuple[int, ...], case: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "ON_CHIP_WEIGHTS", 1)
    here = case("cross_entropy", 3)
    configs = [config(widths), config((17, *widths[1:]))]
    assert_same(here.in_kernel(configs, [2, 3]).population, here.plainly(configs, 5))


def test_a_mixture_of_activations_shares_a_launch(case: Callable[..., Any]) -> None:
    here = case("cross_entropy", 3)
    configs = [config((5,), activation=name, seed=3) for name in ACTIVATIONS]
    configs.append(config((5, 4), activation="tanh"))
    configs.append(config((5, 4), activation="mish"))
    result = here.in_kernel(configs, [2])
    assert result.training.n_launches == 2
    assert_same(result.population, here.plainly(configs, 2))


def test_results_do_not_depend_on_the_steps_per_launch(case: Callable[..., Any]) -> None:
    here = case("cross_entropy", 3)
    configs = [config((5,)), config((4, 3))]
    once, often = here.in_kernel(configs, [6]), here.in_kernel(configs, [1, 3, 0, 2])
    for name in FLATS:
        assert torch.equal(once.population.flats[name], often.population.flats[name])
    assert not torch.equal(once.population.parameters, here.in_kernel(configs, [5]).population.parameters)


def test_one_sgd_step_equals_the_gradient_of_the_reference(case: Callable[..., Any]) -> None:
    """The reference is the formulation of the paper: stacked neurons, scatter-add, sum over members."""
    here = case("cross_entropy", 3, n_rows=20, batch_size=20)
    widths = (2, 3, 5)
    configs = [
        config((w,), activation="tanh", optimizer="sgd", momentum=0.0, weight_decay=0.0, learning_rate=1.0,
               schedule="constant", seed=w) for w in widths
    ]  # fmt: skip
    start = here.population(configs)
    vectors = members(start.parameters, start)
    trained = here.in_kernel(configs, [1]).population
    moved = members(trained.parameters, trained)

    first, first_bias, head, head_bias = ([] for _ in range(4))
    for vector, width in zip(vectors, widths, strict=True):
        parts = vector.split([7 * width, width, 3 * width, 3])
        for stack, part in zip((first, first_bias, head, head_bias), parts, strict=True):
            stack.append(part)
    leaves = [torch.cat(parts).requires_grad_() for parts in (first, first_bias, head, head_bias)]
    hidden = torch.tanh(leaves[0].view(-1, 7) @ here.rows.inputs.t() + leaves[1].unsqueeze(1))
    outputs = scatter_matmul(hidden, leaves[2], MatmulLayout(widths, (3,) * 3)) + leaves[3].unsqueeze(1)
    outputs = outputs.view(3, 3, 20).transpose(0, 1).unsqueeze(0)
    # summed over members, averaged over rows
    target = here.rows.target.view(1, 1, 20).expand(1, 3, 20)
    loss = torch.nn.functional.cross_entropy(outputs, target, reduction="none").mean(dim=2).sum()
    gradients = torch.autograd.grad(loss, leaves)
    gradients = [
        g.split([n * w if n else 3 for w in widths]) for g, n in zip(gradients, (7, 1, 3, 0), strict=True)
    ]
    for member, (before, after) in enumerate(zip(vectors, moved, strict=True)):
        expected = torch.cat([part[member] for part in gradients])
        tolerance = 1e-5 if before.dtype == torch.float32 else 1e-13
        torch.testing.assert_close(before - after, expected, rtol=tolerance, atol=tolerance)


def test_a_member_equals_its_plain_network_trained_by_torch(case: Callable[..., Any]) -> None:
    here = case("binary_logits", 1, n_rows=20, batch_size=20)
    own = config((5, 4), activation="gelu", schedule="constant", weight_decay=0.0)
    start = here.population([own])
    architecture = start.layout.architecture(0)
    module = build_module(architecture, members(start.parameters, start)[0]).to(here.device)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.02)
    for step in range(4):
        rows = here.stream().rows(step)
        optimizer.zero_grad()
        logits = module(here.rows.inputs[rows]).squeeze(1)
        torch.nn.functional.binary_cross_entropy_with_logits(
            logits, here.rows.target[rows].to(logits.dtype)
        ).backward()
        optimizer.step()
    trained = here.in_kernel([own, config((5, 4), learning_rate=0.5)], [4]).population
    got = build_module(architecture, members(trained.parameters, trained)[0]).to(here.device)
    tolerance = 2e-4 if here.rows.inputs.dtype == torch.float32 else 1e-12
    for one, other in zip(got.parameters(), module.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def test_float32_agrees_with_the_loop(case: Callable[..., Any]) -> None:
    here = case("cross_entropy", 3, dtype=torch.float32)
    # SGD does not amplify rounding
    configs = [config((w,), optimizer="sgd", learning_rate=0.1) for w in (5, 17)]
    got, expected = here.in_kernel(configs, [4]).population, here.plainly(configs, 4)
    assert got.parameters.dtype == torch.float32
    torch.testing.assert_close(got.parameters, expected.parameters, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings(
    "ignore:overflow:RuntimeWarning", "ignore:invalid value:RuntimeWarning"
)  # NumPy's
def test_a_diverged_member_does_not_change_the_others(case: Callable[..., Any]) -> None:
    here = case("squared_error", 1)
    healthy = [
        config((5,), optimizer="sgd", learning_rate=0.01, seed=1),
        config((5,), optimizer="sgd", seed=2),
    ]
    diverging = config((5,), optimizer="sgd", learning_rate=1e30, seed=3)
    separate = here.in_kernel([*healthy, healthy[0]], [3, 3])
    result = here.in_kernel([*healthy, diverging], [3, 3])
    rows = result.population.member_rows()
    failed = result.failed_at[rows]
    assert failed[:2].tolist() == [-1, -1]
    assert 0 < int(failed[2]) < 6
    for name in FLATS:
        got, expected = (members(k.population.flats[name], k.population) for k in (result, separate))
        assert all(torch.equal(got[member], expected[member]) for member in (0, 1))
        assert torch.equal(got[2], torch.zeros_like(got[2]))
    assert not bool(torch.isfinite(result.losses[rows[2]]))


def test_losses_are_summed_over_steps(case: Callable[..., Any]) -> None:
    here = case("cross_entropy", 3, n_rows=20, batch_size=20)
    still = config((5,), optimizer="sgd", learning_rate=1e-30)
    result = here.in_kernel([still], [1, 2])
    torch.testing.assert_close(result.losses, 3 * here.in_kernel([still], [1]).losses)


def _run_with_own_batches(
    case: Any, configs: list[MLPConfig], batches: list[int], steps: list[int]
) -> Tensor:
    """Parameters of members trained in one launch, each with its own batch size."""
    population = case.population(configs)
    dtype, device = case.rows.inputs.dtype, case.device
    row_configs = population.row_configs()
    by_row = [batches[m] for m in population.layout.members]
    training = PersistentTraining(
        population.layout, range(len(population.layout.buckets)), loss=case.loss, batch_sizes=by_row,
        weighted=False, device=device, dtype=dtype,
    )  # fmt: skip
    # the stream is one sequence of rows, whatever the size of a batch
    tables = step_tables(
        StepCoefficients(row_configs, 12, device), case.stream(1),
        range(max(b * s for b, s in zip(batches, steps, strict=True))),
        frozen=torch.zeros(len(configs), dtype=torch.bool), dtype=dtype,
    )  # fmt: skip
    shares = torch.zeros_like(tables.shares)
    training.run(
        population.flats, (case.rows.inputs, case.rows.target, None), replace(tables, shares=shares),
        constant_table(row_configs, population.parameters),
        torch.zeros(len(configs), dtype=dtype, device=device),
        torch.full((len(configs),), -1, device=device),
        first_steps=0, n_steps=[steps[m] for m in population.layout.members],
    )  # fmt: skip
    return torch.stack(members(population.parameters, population))


def test_members_may_have_different_batch_sizes(case: Callable[..., Any]) -> None:
    here = case("cross_entropy", 3)
    configs = [config((5,), schedule="constant", seed=s) for s in (1, 2)]
    together = _run_with_own_batches(here, configs, [10, 18], [4, 2])
    for member, (batch, steps) in enumerate([(10, 4), (18, 2)]):
        here.batch_size = batch
        separate = here.plainly([configs[member]], steps)
        expected = members(separate.parameters, separate)[0]
        assert_close(together[member], expected)
    swapped = _run_with_own_batches(here, configs, [18, 10], [4, 2])
    assert not torch.allclose(swapped, together)


def _bucket(case: Any, **options: Any) -> Any:
    return case.population([config(**{"widths": (5,), **options})]).layout.buckets[0]


@pytest.mark.parametrize(
    ("options", "loss", "words"),
    [
        ({}, "cross_entropy", None),
        ({"widths": (128,), "bias": False}, "cross_entropy", None),
        ({"widths": (5, 5)}, "squared_error", None),
        ({"widths": (5, 5, 5)}, "cross_entropy", "3 hidden layers"),
        ({"widths": ()}, "cross_entropy", "0 hidden layers"),
        ({"widths": (2000,)}, "cross_entropy", "too large"),
        ({"dropout": 0.1}, "cross_entropy", "dropout"),
        ({"normalization": "layer"}, "cross_entropy", "normalization"),
        ({"widths": (5, 5), "residual": True}, "cross_entropy", "residual"),
        ({"submembers": 2}, "cross_entropy", "submembers"),
        ({}, "huber:0.5", "huber:0.5"),
    ],
)
def test_supported_configurations(
    options: dict[str, Any], loss: str, words: str | None, case: Callable[..., Any]
) -> None:
    reason = obstacle(_bucket(case("cross_entropy", 3), **options), loss=loss, dtype=torch.float32)
    assert reason is None if words is None else reason is not None and words in reason
    assert "float64" in (obstacle(_bucket(case("cross_entropy", 3)), loss=loss, dtype=torch.float64) or "")


def test_the_most_expensive_launch_and_member_come_first(case: Callable[..., Any]) -> None:
    configs = [config((w,), seed=w) for w in (3, 40, 33, 60)] + [config((w, 3), seed=w) for w in (17, 20)]
    training = case("cross_entropy", 3).in_kernel(configs, [0]).training
    (lane,) = training.lanes
    widths = [entry.plan[:, 4].tolist() for entry in lane.launches]
    # 40, 33 and 60 are padded to 64, so they keep the order of their rows
    rows = [entry.plan[:, 0].tolist() for entry in lane.launches]
    assert [sorted(group) for group in widths] == [[33, 40, 60], [17, 20], [3]]
    assert all(group == sorted(group) for group in rows)
    # a larger batch makes a member more expensive
    population = case("cross_entropy", 3).population(configs[:2])
    expensive = PersistentTraining(
        population.layout, range(len(population.layout.buckets)), loss="cross_entropy", batch_sizes=[200, 20],
        weighted=False, device=case("cross_entropy", 3).device,
    )  # fmt: skip
    assert [entry.plan[:, 4].tolist() for entry in expensive.lanes[0].launches] == [[3], [40]]


def test_concurrent_launches_have_separate_scratch_memory(
    case: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "ON_CHIP_WEIGHTS", 1)
    here = case("cross_entropy", 3)
    population = here.population(
        [config((w,), activation=a) for w in (5, 20, 40, 70, 130, 260) for a in ("relu", "tanh")]
    )
    training = PersistentTraining(
        population.layout, range(len(population.layout.buckets)), loss="cross_entropy", batch_sizes=[20] * 12,
        weighted=False, device=here.device, n_lanes=4,
    )  # fmt: skip
    assert [len(lane.launches) for lane in training.lanes] == [2, 2, 1, 1]
    assert len({lane.scratch.data_ptr() for lane in training.lanes}) == 4
    for lane in training.lanes:
        assert lane.scratch.numel() == max(entry.n_scratch for entry in lane.launches) > 0
