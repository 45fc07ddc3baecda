"""Activations in NumPy against torch's modules in double precision."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from parallelmlp_search.inference.activations import ACTIVATION_FUNCTIONS, erf
from parallelmlp_search.packing.modules import ACTIVATION_MODULES
from parallelmlp_search.space import ACTIVATIONS

VALUES = np.concatenate(
    [np.linspace(-12, 12, 4001), np.linspace(-1e-3, 1e-3, 201), [-1e3, -90, 20.5, 90, 1e3, 0.5, -0.5, 0.0]]
).astype(np.float32)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_equal_those_of_torch(name: str) -> None:
    with np.errstate(all="ignore"):
        found = ACTIVATION_FUNCTIONS[name](VALUES.copy())
    expected = ACTIVATION_MODULES[name]()(torch.from_numpy(VALUES).double()).numpy()
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=3e-7, atol=1e-6)
    other = ACTIVATION_FUNCTIONS["tanh" if name != "tanh" else "relu"](VALUES.copy())
    assert not np.allclose(other, expected, atol=1e-2)


def test_error_function() -> None:
    expected = np.array([math.erf(value) for value in VALUES])
    np.testing.assert_allclose(erf(VALUES), expected, rtol=4e-7, atol=1e-9)
