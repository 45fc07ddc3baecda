"""Versions, machine, devices and optional extras, for ``pmlp info``."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from parallelmlp_search import __version__
from parallelmlp_search._optional import is_installed
from parallelmlp_search.engine import execution_path

EXTRAS = {
    "benchmark": "lightgbm",
    "cmaes": "cmaes",
    "dask": "distributed",
    "dashboard": "optuna_dashboard",
    "duckdb": "duckdb",
    "excel": "python_calamine",
    "export": "onnxruntime",
    "gpu": "triton",
    "plots": "plotly",
    "polars": "polars",
    "ray": "ray",
    "serve": "fastapi",
    "yaml": "yaml",
}
"""Optional extras of the distribution, each with a module that it installs."""


def environment() -> dict[str, Any]:
    """Return versions, machine, devices and optional extras."""
    packages = ("torch", "numpy", "pandas", "scikit-learn")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    devices = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "versions": {"parallelmlp-search": __version__, "python": platform.python_version()}
        | {name: _version(name) for name in packages},
        "platform": platform.platform(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": _memory_bytes(),
        "device": device,
        "path": asdict(execution_path(device)),
        "gpus": devices,
        "extras": {extra: is_installed(module) for extra, module in EXTRAS.items()},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _memory_bytes() -> int | None:
    """Return the physical memory, or None if the system does not tell it."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
