"""What was counted for a GPU on a machine without one: the numbers hold, and the counting counts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pytest

from benchmarks.publishing import ROOT, between

try:
    TRITON = tuple(map(int, version("triton").split(".")[:2]))
except PackageNotFoundError:
    TRITON = (0, 0)
if TRITON < (3, 6):
    pytest.skip("the stand-in driver needs Triton 3.6 or newer", allow_module_level=True)

from benchmarks.gpu_compiled import __main__ as gpu_compiled
from benchmarks.gpu_compiled import launches, machine_code
from benchmarks.gpu_compiled.kernels import WIDTHS, epoch_bound
from benchmarks.gpu_compiled.stand_in import SHARED_BYTES
from parallelmlp_search.space import PRESETS

RESULTS: dict[str, Any] = json.loads((ROOT / "benchmarks/results/gpu_compiled.json").read_text())

LISTING = """
        /*0000*/                   MOV R1, c[0x0][0x28] ;   /* 0x00000a0000017a02 */
                                                            /* 0x000fc40000000f00 */
        /*0010*/                   STL [R1], R2 ;           /* 0x00000a0000017a02 */
        /*0020*/                   FFMA R3, R4, R5, R3 ;    /* 0x00000a0000017a02 */
        /*0030*/                   FFMA R3, R4, R5, R3 ;    /* 0x00000a0000017a02 */
        /*0040*/              @P1  BRA 0x70 ;               /* 0x00000a0000017a02 */
        /*0050*/                   MUFU.EX2 R3, R3 ;        /* 0x00000a0000017a02 */
        /*0060*/                   MUFU.RCP R3, R3 ;        /* 0x00000a0000017a02 */
        /*0070*/              @!P0 BRA 0x30 ;               /* 0x00000a0000017a02 */
        /*0080*/                   STL.128 [R1+0x10], R8 ;  /* 0x00000a0000017a02 */
        /*0090*/               @P2 BRA 0x20 ;               /* 0x00000a0000017a02 */
        /*00a0*/                   EXIT ;                   /* 0x00000a0000017a02 */
"""


def test_instructions_of_a_step_are_counted_by_hand() -> None:
    instructions = machine_code.parse(LISTING)
    assert [one.address for one in instructions] == list(range(0, 0xB0, 0x10))
    assert machine_code.spill_bytes(instructions) == 4 + 16
    # outside of the tiles: FFMA, STL.128, BRA; in a tile: FFMA, BRA, MUFU, MUFU, BRA
    assert machine_code.step_instructions(instructions, 1) == (3 + 5, 2)
    assert machine_code.step_instructions(instructions, 4) == (3 + 4 * 5, 1 + 4)


def test_nothing_is_compiled_again() -> None:
    assert set(RESULTS["variants"].values()) == {1}
    assert len(RESULTS["variants"]) == 4


@pytest.mark.parametrize("preset", PRESETS)
def test_shards_are_few(preset: str) -> None:
    shards = RESULTS["presets"][preset]["shards"]
    assert shards["140 GB"] <= 8
    assert shards["16 GB"] <= 40


def test_kernels_fit_a_multiprocessor() -> None:
    rows = RESULTS["kernels"]
    assert {(row["capability"], row["precision"], row["width"]) for row in rows} == {
        (capability, precision, width)
        for capability in SHARED_BYTES
        for precision in ("ieee", "tf32")
        for width in WIDTHS
    }
    for row in rows:
        assert row["registers"] <= 255
        assert row["shared_bytes"] <= SHARED_BYTES[row["capability"]]


def test_the_bound_follows_from_the_instructions() -> None:
    for precision, seconds in RESULTS["bound_seconds"].items():
        assert seconds == pytest.approx(epoch_bound(RESULTS["kernels"], precision))


def test_the_presets_are_counted_as_published() -> None:
    data = launches.screening_data()
    for preset in ("small", "paper"):
        tasks = launches.first_rung(launches.sample(preset), data, launches.MEMORIES["140 GB"])
        published = RESULTS["presets"][preset]
        assert len(tasks) == published["shards"]["140 GB"]
        in_kernel = sum(launches.paths(task)[0]["persistent"] for task in tasks)
        assert in_kernel / published["trials"] == published["share_of_members"]["persistent"]
    assert RESULTS["presets"]["paper"]["share_of_members"]["persistent"] > 0


def test_the_documentation_states_the_counts() -> None:
    text = gpu_compiled.DOCUMENT.read_text(encoding="utf-8")
    assert between(text, gpu_compiled.MARKS).strip() == gpu_compiled.summary(RESULTS).strip()
    for capability, width, spilled in ((90, 16, 32), (90, 32, 64), (90, 64, 472), (90, 128, 2908)):
        (row,) = (
            row
            for row in RESULTS["kernels"]
            if (row["capability"], row["width"], row["precision"], row["activation"])
            == (capability, width, "ieee", "any")
        )
        # the docstring of ON_CHIP_WEIGHTS
        assert row["spill_bytes"] == spilled


CODE = """
import json
from benchmarks.gpu_compiled.kernels import Run, compiled, describe, recompilation_runs, variants
from parallelmlp_search.space import MLPConfig

runs = [run for pair in recompilation_runs().values() for run in pair]
twice = variants([runs[0], Run(runs[0].configs, n_inputs=11)])
config = MLPConfig(widths=(16,), activation="tanh")
row = describe(*compiled([config], 90, "ieee"))
print(json.dumps([variants(runs), twice, row]))
"""


def test_the_launch_code_compiles_one_kernel_for_all_sizes() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", CODE], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    one, two, row = json.loads(done.stdout)
    assert one == 1
    assert two == 2  # another number of inputs is another kernel
    if version("triton") == RESULTS["machine"]["triton"]:
        assert row in RESULTS["kernels"]
