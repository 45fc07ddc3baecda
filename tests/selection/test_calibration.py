"""Temperature scaling: accurate with many rows, close to 1 with few."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.selection import METRICS, apply_temperature, fit_temperature


def confident(
    n_rows: int, temperature: float, seed: int = 0, n_classes: int = 3
) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities (C, N) at temperature 1 whose classes are drawn at this temperature."""
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(size=(n_classes, n_rows)) * 2)
    right = (logits / temperature).softmax(0)
    target = (right.cumsum(0) < torch.from_numpy(rng.random(n_rows))).sum(0).clamp_max(n_classes - 1)
    return logits.softmax(0), target


@pytest.mark.parametrize("truth", [0.6, 1.0, 1.8])
def test_many_rows_recover_the_temperature(truth: float) -> None:
    predictions, target = confident(20_000, truth)
    found = fit_temperature(predictions, target)
    assert found == pytest.approx(truth, rel=0.05)
    fresh, new = confident(20_000, truth, seed=1)
    loss = METRICS["log_loss"]
    before, after = loss(torch.stack([fresh, apply_temperature(fresh, found)]), new).tolist()
    assert after < before - (0.01 if truth != 1.0 else -1e-3)


def test_few_rows_change_the_temperature_little() -> None:
    few = [abs(math.log(fit_temperature(*confident(20, 1.0, seed)))) for seed in range(10)]
    free = [abs(math.log(fit_temperature(*confident(20, 1.0, seed), prior_std=100.0))) for seed in range(10)]
    assert np.mean(few) < 0.1 < np.mean(free)


def test_only_ratios_of_row_weights_matter() -> None:
    predictions, target = confident(2000, 1.6)
    weight = torch.cat([torch.ones(1000), torch.zeros(1000)])
    half = fit_temperature(predictions[:, :1000], target[:1000])
    assert fit_temperature(predictions, target, weight=weight) == pytest.approx(half, rel=1e-3)
    assert fit_temperature(predictions, target, weight=7 * weight) == pytest.approx(half, rel=1e-3)
    assert fit_temperature(predictions, target) != pytest.approx(half, rel=1e-3)


def test_sharper_below_one_and_flatter_above() -> None:
    probabilities = torch.tensor([[0.7, 0.0], [0.2, 0.4], [0.1, 0.6]], dtype=torch.float64)
    assert apply_temperature(probabilities, 1.0) is probabilities
    sharp, flat = apply_temperature(probabilities, 0.5), apply_temperature(probabilities, 2.0)
    for changed in (sharp, flat):
        assert torch.allclose(changed.sum(0), torch.ones(2, dtype=torch.float64))
        assert torch.equal(changed.argsort(0), probabilities.argsort(0))
    assert sharp[0, 0] > 0.7 > flat[0, 0]
    assert torch.allclose(apply_temperature(sharp, 2.0), probabilities, atol=1e-5)


def test_missing_predictions_give_temperature_one() -> None:
    predictions, target = confident(50, 1.0)
    predictions[0, 0] = math.nan
    assert fit_temperature(predictions, target) == 1.0
    with pytest.raises(InvalidParameterError, match="target must be class numbers"):
        fit_temperature(predictions, target.double())
