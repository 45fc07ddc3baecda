"""Settings that all tests share."""

from __future__ import annotations

import gc
import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

# Small tensors gain nothing from several threads, and threads of several processes stand in each other's way.
# Before the first import of torch, which reads it once.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# pytest-xdist sets the width of the terminal, which pages on a pipe would then take.
os.environ.pop("COLUMNS", None)

import pytest
import torch

from tests.browser import find_browser

# Kernels written in Triton run on the device where there is one, else in Triton's interpreter, which must be
# asked for before the first kernel is defined.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

try:
    from hypothesis import settings
except ModuleNotFoundError:
    # `make gpu` takes the environment that it finds; tests that need hypothesis are left out there
    settings = None
    here = Path(__file__).parent
    collect_ignore = [
        str(path.relative_to(here))
        for path in here.rglob("test_*.py")
        if "\nfrom hypothesis import" in path.read_text(encoding="utf-8")
    ]

if settings is not None:
    # The same examples in every run, so that a clone passes or fails once and for all; no deadline, since the
    # first call of a function may import torch and machines are shared.
    settings.register_profile("repeatable", deadline=None, derandomize=True)
    settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def device() -> str:
    """Where kernels are tested: on the GPU, or, interpreted, on the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def _version(name: str) -> tuple[int, int] | None:
    """Major and minor version of a package, or None."""
    try:
        major, minor = version(name).split(".")[:2]
    except PackageNotFoundError:
        return None
    return int(major), int(minor)


def _lack_of_interpreter(triton: tuple[int, int] | None, numpy: tuple[int, int] | None) -> str | None:
    """Reason why kernels cannot be interpreted with these versions, or None."""
    if triton is None or numpy is None or triton >= (3, 7):
        return None
    if triton < (3, 3):  # which torch 2.6 requires
        return "Triton < 3.3 has no float64 products in its interpreter"
    if numpy >= (2, 4):
        return "the interpreter of Triton < 3.7 fails with NumPy >= 2.4"
    return None


def _computes_in_triton(item: pytest.Item) -> bool:
    """True for tests of the persistent kernel, and for the row ``triton`` of a test over all backends."""
    file, _, name = item.nodeid.partition("::")
    return (
        file == "tests/kernels/triton/test_training.py"
        or (file, name) in KERNEL_TESTS
        or (
            file in BACKEND_TESTS
            and ("triton" in name or "[" not in name or name.startswith("test_backends_agree"))
        )
    )


KERNEL_TESTS = (
    ("tests/benchmarks/test_gpu.py", "test_a_small_case_trains_and_gets_its_ratios[persistent]"),
    (
        "tests/engine/device/test_device_training.py",
        "test_a_diverged_member_is_frozen_and_counted[persistent]",
    ),
    ("tests/engine/device/test_device_training.py", "test_the_kernel_and_the_graph_share_a_population"),
)
"""Tests elsewhere that run the persistent kernel."""

BACKEND_TESTS = tuple(
    f"tests/kernels/test_{name}.py" for name in ("modified_matmul", "operator", "raggedness")
)
"""Tests of the backends of the modified matrix multiplication."""


def pytest_collection_finish() -> None:
    """Leave tests and modules out of every later collection of garbage, which would look at all of them."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what the device, the version of Triton, or a machine without a browser cannot do."""
    browser = find_browser() is not None or bool(os.environ.get("PMLP_REQUIRE_BROWSER"))
    cuda = torch.cuda.is_available()
    lack = None if cuda else _lack_of_interpreter(_version("triton"), _version("numpy"))
    for item in items:
        if not browser and item.get_closest_marker("browser"):
            item.add_marker(pytest.mark.skip(reason="needs a browser: chromium or google-chrome"))
        if not cuda and item.get_closest_marker("cuda"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
        if lack is not None and _computes_in_triton(item):
            item.add_marker(pytest.mark.skip(reason=lack))
