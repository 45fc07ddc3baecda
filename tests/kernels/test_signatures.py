"""Nothing is compiled after the warm-up: all training calls the compiled loops with the same types."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numba")

PREAMBLE = """
import numpy as np
import torch
import warnings
from sklearn.datasets import load_diabetes, load_wine

from parallelmlp_search import ParallelMLPClassifier, ParallelMLPRegressor
from parallelmlp_search.kernels.numba import compilation, loops, training

warnings.simplefilter("ignore")
compilation.compile_all()
compiled = [
    value
    for module in (loops, training)
    for value in vars(module).values()
    if hasattr(value, "signatures") and value.stats.cache_path
]
before = {loop.py_func.__name__: set(loop.signatures) for loop in compiled}
assert before["member_steps"]
X, y = load_wine(return_X_y=True)
"""

REPORT = """
added = [
    f"{loop.py_func.__name__}{signature}"
    for loop in compiled
    for signature in set(loop.signatures) - before[loop.py_func.__name__]
]
print(added)
"""

FITS = {
    "few rows, so windows of one step": """
ParallelMLPClassifier(n_trials=6, max_epochs=3, random_state=0, n_jobs=1).fit(X, y)
""",
    "a regression with weights": """
X, y = load_diabetes(return_X_y=True)
model = ParallelMLPRegressor(n_trials=6, max_epochs=3, random_state=0, n_jobs=1)
model.fit(X, y, sample_weight=np.linspace(0.5, 1.5, len(y)))
""",
    "two classes": """
ParallelMLPClassifier(n_trials=6, max_epochs=3, random_state=0, n_jobs=1).fit(X, y > 0)
""",
    "float64 as the default dtype of torch changes nothing": """
model = ParallelMLPClassifier(n_trials=6, max_epochs=3, random_state=0, n_jobs=1)
expected = model.fit(X, y).predict_proba(X)
torch.set_default_dtype(torch.float64)
assert np.array_equal(model.fit(X, y).predict_proba(X), expected)
""",
}  # fmt: skip


def added_signatures(fit: str) -> str:
    """Signatures that a fit adds to the compiled loops, as printed by a new process."""
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", PREAMBLE + fit + REPORT],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": root},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize("fit", FITS.values(), ids=FITS.keys())
def test_a_fit_compiles_nothing(fit: str) -> None:
    assert added_signatures(fit) == "[]"


def test_a_new_signature_is_noticed() -> None:
    fit = "loops.forward_activations(np.zeros((1, 4)), np.zeros((1, 4)), np.zeros(1, np.int64))"
    assert added_signatures(fit).startswith('["forward_activations(')
