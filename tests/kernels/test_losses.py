"""Losses of members against torch.nn.functional, and their gradients against autograd."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.kernels.losses import LOSSES, get_loss
from parallelmlp_search.packing import MAX_LOG

P, N = 5, 11
RowLosses = Callable[[Tensor, Tensor, float], Tensor]
"""Plain twin: outputs of one member (C, N), target, smoothing -> losses of the rows (N,)."""


def _pinball(level: float) -> RowLosses:
    def loss(outputs: Tensor, target: Tensor, smoothing: float) -> Tensor:
        short = target - outputs
        return torch.where(short >= 0, level * short, (level - 1.0) * short).mean(dim=0)

    return loss


def _huber(delta: float) -> RowLosses:
    return lambda outputs, target, smoothing: F.huber_loss(
        outputs, target, reduction="none", delta=delta
    ).mean(dim=0)


def _binary(outputs: Tensor, target: Tensor, smoothing: float) -> Tensor:
    wanted = ((1.0 - smoothing) * target.double() + smoothing / 2.0).view_as(outputs)
    return F.binary_cross_entropy_with_logits(outputs, wanted, reduction="none").mean(dim=0)


def _tweedie(power: float) -> RowLosses:
    def loss(outputs: Tensor, target: Tensor, smoothing: float) -> Tensor:
        mean = outputs.exp()
        return (mean ** (2 - power) / (2 - power) - target * mean ** (1 - power) / (1 - power)).mean(dim=0)

    return loss


TWINS: dict[str, RowLosses] = {
    "cross_entropy": lambda outputs, target, smoothing: F.cross_entropy(
        outputs.T, target, label_smoothing=smoothing, reduction="none"
    ),
    "binary_logits": _binary,
    "squared_error": lambda outputs, target, smoothing: F.mse_loss(outputs, target, reduction="none").mean(
        dim=0
    ),
    "huber": _huber(1.0),
    "huber:0.3": _huber(0.3),
    "quantile": _pinball(0.5),
    "quantile:0.9": _pinball(0.9),
    "quantile:0.05": _pinball(0.05),
    "poisson": lambda outputs, target, smoothing: F.poisson_nll_loss(outputs, target, reduction="none").mean(
        dim=0
    ),
    "gamma": lambda outputs, target, smoothing: (outputs + target * (-outputs).exp()).mean(dim=0),
    "tweedie": _tweedie(1.5),
    "tweedie:1.2": _tweedie(1.2),
}
LOG_LINK = ("poisson", "gamma", "tweedie", "tweedie:1.2")
SMOOTHED = ("cross_entropy", "binary_logits")
CASES = [
    pytest.param(name, n_outputs, weighted, smoothed, id=f"{name}, C={n_outputs}{w}{s}")
    for name in TWINS
    for n_outputs in ((1, 4) if name == "binary_logits" else (2, 10) if name == "cross_entropy" else (1, 3))
    for weighted, w in ((False, ""), (True, ", weights"))
    for smoothed, s in ((False, ""), (True, ", smoothing"))
    if not smoothed or name in SMOOTHED
]


def _problem(name: str, n_outputs: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    outputs = 2.0 * torch.randn(P, n_outputs, N, dtype=torch.float64, generator=generator)
    if name == "cross_entropy":
        target = torch.randint(0, n_outputs, (N,), generator=generator)
    elif name == "binary_logits":
        target = torch.randint(0, 2, (N,) if n_outputs == 1 else (n_outputs, N), generator=generator)
    else:
        target = torch.randn(n_outputs, N, dtype=torch.float64, generator=generator)
        if name in LOG_LINK:
            target = target.exp() if name == "gamma" else target.clamp_min(0.0)
    weight = torch.rand(N, dtype=torch.float64, generator=generator)
    weight[3] = 0.0  # a row of weight zero
    smoothing = torch.tensor(
        [0.0, 0.1, 0.5, 0.9, 0.0], dtype=torch.float64
    )  # members with and without smoothing
    return outputs, target, weight, smoothing


@pytest.mark.parametrize(("name", "n_outputs", "weighted", "smoothed"), CASES)
def test_values_and_gradients_equal_those_of_torch(
    name: str, n_outputs: int, weighted: bool, smoothed: bool
) -> None:
    outputs, target, weight, smoothing = _problem(name, n_outputs)
    gradient = torch.full_like(outputs, float("nan"))
    kept = outputs.clone()
    losses = get_loss(name)(
        outputs, target, gradient, weight if weighted else None, smoothing if smoothed else None
    )
    assert losses.shape == (P,)
    assert torch.equal(outputs, kept)
    for member in range(P):
        own = outputs[member].clone().requires_grad_(True)
        rows = TWINS[name](own, target, float(smoothing[member]) if smoothed else 0.0)
        expected = (rows * weight).sum() / weight.sum() if weighted else rows.mean()
        (by_hand,) = torch.autograd.grad(expected, own)
        torch.testing.assert_close(losses[member], expected.detach(), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(gradient[member], by_hand, rtol=1e-12, atol=1e-12)
        if weighted:
            assert (gradient[member, :, 3] == 0).all()


@pytest.mark.parametrize("name", SMOOTHED)
def test_smoothing_and_weights_are_not_ignored(name: str) -> None:
    outputs, target, weight, smoothing = _problem(name, 1 if name == "binary_logits" else 3)
    gradient = torch.empty_like(outputs)
    plain = get_loss(name)(outputs, target, gradient)
    smooth = get_loss(name)(outputs, target, gradient, None, smoothing)
    weighted = get_loss(name)(outputs, target, gradient, weight)
    assert torch.equal(smoothing > 0, ~torch.isclose(plain, smooth, rtol=1e-9))
    assert not torch.isclose(plain, weighted, rtol=1e-9).any()


@pytest.mark.parametrize("name", [name for name in TWINS if name not in SMOOTHED])
def test_a_regression_ignores_smoothing(name: str) -> None:
    outputs, target, _, smoothing = _problem(name, 2)
    gradient = torch.empty_like(outputs)
    plain = get_loss(name)(outputs, target, gradient)
    assert torch.equal(get_loss(name)(outputs, target, gradient, None, smoothing), plain)


@pytest.mark.parametrize("name", list(TWINS))
@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
@pytest.mark.parametrize("smoothed", [False, True])
def test_a_diverged_member_does_not_change_the_others(name: str, broken: float, smoothed: bool) -> None:
    outputs, target, weight, smoothing = _problem(name, 1 if name == "binary_logits" else 3)
    others = [member for member in range(P) if member != 2]

    def run(values: Tensor) -> tuple[Tensor, Tensor]:
        gradient = torch.full_like(values, float("nan"))
        return get_loss(name)(values, target, gradient, weight, smoothing if smoothed else None), gradient

    clean_losses, clean_gradient = run(outputs)
    outputs[2] = broken
    losses, gradient = run(outputs)
    assert torch.equal(losses[others], clean_losses[others])
    assert torch.equal(gradient[others], clean_gradient[others])
    assert not bool(losses[2].isfinite())


@pytest.mark.parametrize("name", SMOOTHED)
@pytest.mark.parametrize("size", [50.0, 800.0, 1e4])
def test_extreme_logits_stay_finite(name: str, size: float) -> None:
    n_outputs = 1 if name == "binary_logits" else 2
    outputs = torch.full((1, n_outputs, 2), size, dtype=torch.float64)
    outputs[:, -1] *= -1.0
    target = torch.tensor([0, 1])
    gradient = torch.empty_like(outputs)
    loss = get_loss(name)(outputs, target, gradient)
    assert gradient.isfinite().all()
    # the first row has no loss, that of the second is the distance of the logits
    wrong = size if name == "binary_logits" else 2.0 * size
    assert float(loss) == pytest.approx(wrong / 2, rel=1e-12)


@given(st.floats(0.01, 0.99), st.integers(0, 100))
def test_the_minimizer_of_a_quantile_loss_is_the_quantile(level: float, seed: int) -> None:
    target = torch.randn(1, 201, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    candidates = target.sort().values.view(-1, 1, 1)
    outputs = candidates.expand(-1, 1, 201).contiguous()
    losses = get_loss(f"quantile:{level!r}")(outputs, target, torch.empty_like(outputs))
    best = float(candidates[losses.argmin()])
    assert float((target <= best).double().mean()) >= level - 1e-9
    assert float((target < best).double().mean()) <= level + 1e-9


def test_the_slope_of_a_quantile_loss_is_zero_at_the_target() -> None:
    outputs = torch.tensor([[[1.0, 2.0, 3.0]]])
    gradient = torch.empty_like(outputs)
    get_loss("quantile:0.75")(outputs, torch.full((1, 3), 2.0), gradient)
    torch.testing.assert_close(gradient, torch.tensor([[[-0.75, 0.0, 0.25]]]) / 3)


@pytest.mark.parametrize("name", LOG_LINK)
@pytest.mark.parametrize("end", [-MAX_LOG, MAX_LOG])
def test_a_log_link_goes_on_as_a_line(name: str, end: float) -> None:
    outputs = torch.tensor([[[end, 1.5 * end, 1e3 * end]]])
    gradient = torch.empty_like(outputs)
    target = torch.full((1, 3), 0.5)
    assert bool(torch.isfinite(get_loss(name)(outputs, target, gradient)).all())
    assert bool((gradient == gradient[0, 0, 0]).all())
    assert float(gradient[0, 0, 0]) * end > 0  # it points back to the mean
    losses = [get_loss(name)(outputs[..., [k]], target[:, [k]], gradient[..., [k]].clone()) for k in range(2)]
    rise = 3.0 * float(gradient[0, 0, 0]) * 0.5 * end
    assert float(losses[1] - losses[0]) == pytest.approx(rise, rel=1e-4)


def test_the_best_output_of_a_log_link_is_the_mean() -> None:
    target = torch.tensor([[0.0, 1.0, 2.0, 7.0]], dtype=torch.float64)
    for name in ("poisson", "tweedie:1.4"):
        outputs = target.mean().log().expand(1, 1, 4).clone()
        gradient = torch.empty_like(outputs)
        get_loss(name)(outputs, target, gradient)
        assert float(gradient.sum()) == pytest.approx(0.0, abs=1e-12)


def test_zero_weights_give_zero_loss_and_gradient() -> None:
    for name in TWINS:
        outputs, target, _, _ = _problem(name, 1 if name == "binary_logits" else 3)
        gradient = torch.empty_like(outputs)
        losses = get_loss(name)(outputs, target, gradient, torch.zeros(N, dtype=torch.float64))
        assert not losses.any()
        assert not gradient.any()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cross_entropi", r"loss must be one of .*but got 'cross_entropi'; did you mean 'cross_entropy'"),
        ("squared_error:2", "loss must be one of .*but got 'squared_error:2'"),
        ("", "loss must be one of"),
        ("huber:0", "delta of the huber loss must be > 0, but got 0"),
        ("huber:nan", "delta of the huber loss must be > 0, but got nan"),
        ("huber:wide", "loss must have a number behind its colon, but got 'huber:wide'"),
        ("quantile:1", r"level of the quantile loss must lie in \(0, 1\), but got 1"),
        ("quantile:-0.5", r"level of the quantile loss must lie in \(0, 1\), but got -0.5"),
        ("quantile:high", "loss must have a number behind its colon, but got 'quantile:high'"),
        ("tweedie:2", r"power of the tweedie loss must lie in \(1, 2\), but got 2: use poisson for 1"),
        ("tweedie:x", "loss must have a number behind its colon, but got 'tweedie:x'"),
        ("poisson:2", "loss must be one of .*but got 'poisson:2'"),
    ],
)
def test_invalid_names_are_an_error(name: str, words: str) -> None:
    with pytest.raises(InvalidParameterError, match=words):
        get_loss(name)


def test_every_listed_loss_exists() -> None:
    assert {name.partition(":")[0] for name in TWINS} == set(LOSSES)
