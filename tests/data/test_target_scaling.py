"""Scaling of extreme regression targets: exact, finite, and nothing for ordinary ones."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from parallelmlp_search.data import TargetScaling
from parallelmlp_search.exceptions import DataError

NORMAL = np.random.default_rng(0).normal(size=201)


def restored(scaling: TargetScaling, scaled: Any) -> Any:
    """Targets (n,) or (n, C) of predictions in single precision; the scaling went through JSON."""
    state = json.loads(json.dumps(scaling.to_dict()))
    again = scaling if state is None else TargetScaling.from_dict(state)
    assert again == scaling
    predicted = np.float64(np.float32(scaled))
    return again.restore(predicted.reshape(len(scaled), -1).T).T.reshape(np.shape(scaled))


@pytest.mark.parametrize("factor", [1e-29, 1e-3, 1.0, 1e29])
@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_ordinary_targets_stay_as_they_are(factor: float, offset: float) -> None:
    y = factor * (NORMAL + offset)
    scaling = TargetScaling.fit(y)
    assert not scaling.is_needed
    assert scaling.to_dict() is None
    assert scaling.apply(y) is y
    assert scaling.restore(y) is y


@pytest.mark.parametrize("factor", [1e-310, 1e-200, 1e-40, 1e38, 1e39, 1e200, 1e299])
def test_extreme_targets_are_restored_to_single_precision(factor: float) -> None:
    y = factor * NORMAL
    scaling = TargetScaling.fit(y)
    scaled = scaling.apply(y)
    assert 0.5 < scaled.std() < 2.0
    np.testing.assert_allclose(restored(scaling, scaled), y, rtol=0.0, atol=3e-7 * np.abs(y).max())


@pytest.mark.parametrize("offset", [1e5, 1e10, -1e12])
def test_small_differences_of_large_numbers_are_kept(offset: float) -> None:
    """Dates in seconds, for example: single precision would round 1e10 to a multiple of 1024."""
    y = offset + NORMAL
    scaling = TargetScaling.fit(y)
    np.testing.assert_allclose(restored(scaling, scaling.apply(y)), y, rtol=0.0, atol=1e-3)
    assert np.abs(np.float32(y) - y).max() > 1e-3 or abs(offset) < 1e10


def test_outputs_are_scaled_one_by_one() -> None:
    y = np.stack([NORMAL, 1e200 * NORMAL, np.full(201, 1e300), 7.0 + 0.0 * NORMAL, 1e-250 * NORMAL], axis=1)
    scaling = TargetScaling.fit(y)
    assert scaling.unit[0] == scaling.unit[3] == 1.0
    assert scaling.center[0] == scaling.center[3] == 0.0
    again = restored(scaling, scaling.apply(y))
    np.testing.assert_allclose(again / np.abs(y).max(axis=0), y / np.abs(y).max(axis=0), rtol=0.0, atol=3e-7)
    assert again[:, 2].tolist() == [1e300] * 201


def test_an_outlier_of_the_largest_size_is_kept() -> None:
    y = np.array([*NORMAL, 1e300])
    scaling = TargetScaling.fit(y)
    assert restored(scaling, scaling.apply(y))[-1] == pytest.approx(1e300, rel=1e-6)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([1.0, 2e300], r"must hold numbers from -1e\+300 to 1e\+300, but row 1 has 2e\+300"),
        ([[1.0, 1.0], [1.0, -np.inf]], r"must hold finite numbers, but row 1 has \[1.0, -inf\]"),
        ([1.0, np.nan], "must hold finite numbers, but row 1 has nan"),
    ],
)
def test_unusable_targets_are_refused_with_the_reason(y: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        TargetScaling.fit(y)
