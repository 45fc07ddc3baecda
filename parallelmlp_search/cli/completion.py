"""Completion of arguments in the shell; light to import, because each press of the Tab key runs it.

Names of other packages are repeated here, so that no heavy package is imported; a test compares them.
"""

from __future__ import annotations

import csv
import gzip
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

CHOICES: dict[str, tuple[str, ...]] = {
    "task": ("binary", "multiclass", "multilabel", "classification", "regression"),
    "metric": (
        "accuracy", "balanced_accuracy", "log_loss", "roc_auc", "f1", "f1_macro", "mcc", "brier",
        "expected_cost", "ordinal_mae", "quadratic_kappa", "rmse",
        "mae", "r2", "pinball", "poisson_deviance", "gamma_deviance", "tweedie_deviance", "d2_poisson",
        "d2_gamma", "d2_tweedie", "f1_micro", "f1_samples", "hamming_loss", "subset_accuracy",
    ),
    "loss": (
        "binary_logits", "cross_entropy", "squared_error", "huber", "quantile", "poisson", "gamma", "tweedie",
    ),
    "space": ("paper", "small", "default", "deep"),
    "sampler": ("random", "qmc", "grid", "tpe", "cmaes", "gp"),
    "calibration": ("auto", "temperature", "none"),
    "backend": ("dask", "ray"),
    "device": ("auto", "cpu", "cuda"),
    "precision": ("ieee", "tf32"),
    "class_weight": ("balanced",),
    "format": ("onnx", "torch", "numpy", "safetensors"),
}  # fmt: skip
"""Values of options."""

_TEXT = (".csv", ".tsv", ".tab", ".txt", ".dat", ".data")
_SAMPLE_BYTES = 1 << 16


def choices(name: str) -> Callable[[str], list[str]]:
    """Return a function that completes the values of an option."""

    def complete(incomplete: str) -> list[str]:
        return [choice for choice in CHOICES[name] if choice.startswith(incomplete)]

    return complete


def runs(incomplete: str) -> list[str]:
    """Return folders of runs in the folder that is typed, and in ``runs``."""
    typed = Path(incomplete).expanduser()
    folder = typed if incomplete.endswith(os.sep) else typed.parent
    start = incomplete[: incomplete.rfind(os.sep) + 1]
    found = [f"{start}{name}" for name in _run_names(folder)]
    if not start and "runs".startswith(incomplete):
        found += [f"runs{os.sep}{name}" for name in _run_names(Path("runs"))]
    return [run for run in found if run.startswith(incomplete)]


def columns(context: typer.Context, incomplete: str) -> list[str]:
    """Return columns of the table whose path was typed before."""
    # an option whose value is still to come leaves arguments unassigned
    data = context.params.get("data") or next(iter(context.args), None)
    found = [name for name in _header(data) if name.startswith(incomplete)]
    # zsh and fish quote names with spaces and the like
    is_bash = os.environ.get("_PMLP_COMPLETE") == "complete_bash"
    return [shlex.quote(name) for name in found] if is_bash else found


def _run_names(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir() if (path / "run.json").is_file())
    except OSError:
        return []


def _header(data: Any) -> list[str]:
    """Names of the columns of a text or Parquet table; none if it cannot be read at once."""
    try:
        path = Path(str(data))
        if path.suffix in (".parquet", ".pq"):
            from pyarrow.parquet import read_schema

            return [str(name) for name in read_schema(path).names]
        if not path.name.lower().removesuffix(".gz").endswith(_TEXT):
            return []
        opener: Any = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rb") as stream:
            text = stream.read(_SAMPLE_BYTES).decode("utf-8-sig", errors="replace")
        lines = text.splitlines()[:1]
        delimiter = max(",;\t|", key=lines[0].count)
        return [name.strip() for name in next(csv.reader(lines, delimiter=delimiter))]
    except Exception:
        # a traceback in the middle of a command line helps nobody
        return []
