"""Nothing is compiled after the warm-up: all training calls the compiled loops with the same types."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numba")

PROGRAM = """
import warnings

import numpy as np
import torch
from sklearn.datasets import load_diabetes, load_wine

from parallelmlp_search import ParallelMLPClassifier, ParallelMLPRegressor
from parallelmlp_search.kernels.numba import compilation, loops, training

warnings.simplefilter("ignore")
compilation.compile_all()
compiled = {
    name: value
    for module in (loops, training)
    for name, value in vars(module).items()
    if hasattr(value, "signatures") and value.stats.cache_path
}
known = {name: set(loop.signatures) for name, loop in compiled.items()}
assert known["member_steps"]


def added():
    return [name for name, loop in compiled.items() if set(loop.signatures) != known[name]]


X, y = load_wine(return_X_y=True)
settings = {"n_trials": 6, "max_epochs": 3, "random_state": 0, "n_jobs": 1}
model = ParallelMLPClassifier(**settings)
predicted = model.fit(X, y).predict_proba(X)  # few rows: windows of one step
print("few rows", added())
ParallelMLPClassifier(**settings).fit(X, y > 0)
print("two classes", added())
features, target = load_diabetes(return_X_y=True)
weights = np.linspace(0.5, 1.5, len(target))
ParallelMLPRegressor(**settings).fit(features, target, sample_weight=weights)
print("regression with weights", added())
torch.set_default_dtype(torch.float64)
assert np.array_equal(model.fit(X, y).predict_proba(X), predicted)
print("float64 as default dtype", added())
loops.forward_activations(np.zeros((1, 4)), np.zeros((1, 4)), np.zeros(1, np.int64))
print("arrays of float64", added())
"""


def test_fits_compile_nothing_after_the_warm_up() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "few rows []",
        "two classes []",
        "regression with weights []",
        "float64 as default dtype []",
        "arrays of float64 ['forward_activations']",  # the check notices a new signature
    ]
