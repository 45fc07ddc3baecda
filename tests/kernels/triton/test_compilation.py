"""Compilation of the kernels for GPUs that the machine does not need to have.

Triton includes its assembler, so machine code is generated without a device.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CODE = """
import json, sys
import torch
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from parallelmlp_search.kernels.triton import flat_step, ragged, training

POINTERS = {
    "order": "*i32", "plan": "*i64", "tiles": "*i64", "failed_at": "*i64", "n_columns": "i32",
    "stretches": "*i64", "local": "*i64", "n_rows": "i32", "n_members": "i32",
}
for name, constants, options in json.loads(sys.argv[1]):
    kernel = next(getattr(m, name) for m in (flat_step, ragged, training) if hasattr(m, name))
    if "ACCUMULATE" in constants:
        constants["ACCUMULATE"] = getattr(tl, constants["ACCUMULATE"])
    element = constants.pop("element", "fp32")
    integer = constants.get("LOSS") in ("cross_entropy", "binary_logits")
    signature = {}
    for argument in kernel.arg_names:
        if argument in constants:
            signature[argument] = "constexpr"
        elif argument == "target" and integer:
            signature[argument] = "*i64"
        else:
            signature[argument] = POINTERS.get(argument, "*" + element)
    try:
        source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    except TypeError:  # before Triton 3.3
        plain = {name: kind for name, kind in signature.items() if kind != "constexpr"}
        source = ASTSource(fn=kernel, signature=plain, constants=constants)
    options["enable_fp_fusion"] = True
    compiled = compile(source, target=GPUTarget("cuda", options.pop("capability", 90), 32), options=options)
    print(name, len(compiled.asm["cubin"]), compiled.metadata.shared)
"""


def compiled(jobs: list[tuple[str, dict[str, Any], dict[str, Any]]], cache: Path) -> list[list[str]]:
    """Name, bytes of machine code and bytes of shared memory of each kernel."""
    environment = {**os.environ, "TRITON_CACHE_DIR": str(cache)}
    environment.pop("TRITON_INTERPRET", None)
    done = subprocess.run(
        [sys.executable, "-c", CODE, json.dumps(jobs)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [line.split() for line in done.stdout.splitlines()]


def training_job(**changes: Any) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Persistent kernel for a member of 20 neurons, 10 inputs and 3 classes, with the given changes."""
    options = {"num_warps": changes.pop("num_warps", 4), "num_stages": 1}
    if "capability" in changes:
        options["capability"] = changes.pop("capability")
    constants = {
        "PLAN": 17, "DEPTH": 1, "ACTIVATION": "relu", "LOSS": "cross_entropy", "ADAMW": True, "BIAS": True,
        "CLIP": False, "WEIGHTED": False, "STREAM": False, "D": 10, "C": 3, "D_PAD": 16, "H1_PAD": 32,
        "H2_PAD": 16, "C_PAD": 16, "ROWS": 32, "SCRATCH": 1024, "PRECISION": "ieee", **changes,
    }  # fmt: skip
    return "train_members", constants, options


def ragged_jobs(element: str = "fp32", accumulate: str = "float32", precision: str = "ieee") -> list[Any]:
    """Kernels of the forward pass and of the gradients of activations and weights."""
    common = {
        "BLOCK": 32, "DEEP": 32, "ACCUMULATE": accumulate, "PRECISION": precision, "UPCAST": False,
        "element": element,
    }  # fmt: skip
    return [
        ("product_tiles", {"TRANSPOSED": False, "COLUMNS": 64, **common}, {"num_warps": 4}),
        ("product_tiles", {"TRANSPOSED": True, "COLUMNS": 16, **common}, {"num_warps": 4}),
        ("outer_tiles", common, {"num_warps": 4}),
    ]


def test_the_kernels_compile_for_a_gpu(tmp_path: Path) -> None:
    jobs = [
        training_job(DEPTH=2, STREAM=True, H1_PAD=16, ACTIVATION="any", CLIP=True, WEIGHTED=True),
        *ragged_jobs()[1:],
        ("flat_step", {"ADAMW": True, "AVERAGING": True, "FACTORED": True, "SIZE": 1024}, {"num_warps": 4}),
    ]
    sizes = compiled(jobs, tmp_path)
    assert [name for name, _, _ in sizes] == [name for name, _, _ in jobs]
    assert all(int(code) > 1000 and int(shared) <= 227 * 1024 for _, code, shared in sizes)


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
def test_every_specialisation_compiles(capability: int, tmp_path: Path) -> None:
    from parallelmlp_search.space import ACTIVATIONS

    jobs = [training_job(capability=capability, ACTIVATION=name) for name in ACTIVATIONS]
    jobs += [
        training_job(capability=capability, **changes)
        for changes in (
            {"LOSS": "binary_logits", "C": 1, "C_PAD": 1},
            {"LOSS": "binary_logits", "C": 1, "D": 40, "D_PAD": 64},
            {"LOSS": "squared_error"},
            {"ACTIVATION": "any", "H1_PAD": 128, "D": 100, "D_PAD": 128, "STREAM": True, "num_warps": 16},
            {"ADAMW": False, "BIAS": False},
            {"DEPTH": 2, "H1_PAD": 64, "H2_PAD": 64, "D": 50, "D_PAD": 64, "STREAM": True, "num_warps": 8},
            {"H1_PAD": 16, "D": 100, "D_PAD": 128, "ROWS": 16},
            {"H1_PAD": 64, "D": 100, "D_PAD": 128, "STREAM": True, "num_warps": 8},
            {"H1_PAD": 128, "D": 100, "D_PAD": 128, "STREAM": True, "num_warps": 16},
            {"H1_PAD": 128, "D": 100, "D_PAD": 128, "STREAM": True, "num_warps": 16, "PRECISION": "tf32"},
        )
    ]
    jobs += [*ragged_jobs("fp32", "float32", "tf32"), *ragged_jobs("bf16"), *ragged_jobs("fp16")]
    jobs += [*ragged_jobs("fp64", "float64"), *ragged_jobs()]
    jobs.append(
        ("flat_step", {"ADAMW": False, "AVERAGING": False, "FACTORED": False, "SIZE": 1024}, {"num_warps": 4})
    )
    for name, _, options in jobs:
        if name != "train_members":
            options["capability"] = capability
    sizes = compiled(jobs, tmp_path)
    # shared memory of one multiprocessor of an A100 and of an H100
    assert all(int(shared) <= {80: 163, 90: 227}[capability] * 1024 for _, _, shared in sizes)
