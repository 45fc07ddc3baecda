"""Benchmark on a GPU: counts and table of a small case, and the message without a GPU."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import gpu, gpu_stages
from benchmarks.gpu import Case, account, count_work, packed_epochs, paper_population, table
from benchmarks.gpu_stages import Stage, run_all, stages

ROOT = Path(gpu.__file__).parent.parent


def test_the_population_equals_that_of_the_paper() -> None:
    configs = paper_population(Case())
    assert len(configs) == 10_000
    assert sum(config.widths[0] for config in configs) == 505_000
    assert {(config.widths, config.activation) for config in configs[:1000]} == {
        (config.widths, config.activation) for config in configs
    }
    assert len({(c.widths, c.activation, c.seed) for c in configs}) == 10_000


def test_work_equals_a_count_by_hand() -> None:
    case = Case(n_members=20, n_rows=64, n_inputs=3, n_outputs=2, batch_size=32)
    work = count_work(paper_population(case), case)
    # ten members of width 1 and ten of width 2: 30 neurons
    assert work.n_parameters == 30 * 3 + 30 + 30 * 2 + 20 * 2
    assert work.steps == 2
    # first layer forward and weight gradient, head forward and both gradients
    by_hand = 2 * 32 * 30 * (2 * 3 + 2 * 3 + 3 * 2 * 2)
    assert work.flops == by_hand + 2 * 20 * work.n_parameters
    assert work.weight_bytes == 2 * 9 * 4 * work.n_parameters
    full = count_work(paper_population(Case()), Case())
    assert full.flops == pytest.approx(2.4e12, rel=0.05)


@pytest.mark.parametrize("acceleration", ["graph", "persistent"])
def test_a_small_case_trains_and_gets_its_ratios(acceleration: str) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    case = Case(n_members=2, n_rows=40, n_inputs=3, batch_size=20)
    capture = None if device == "cuda" else lambda work: work
    row = packed_epochs(case, acceleration, device, 1, capture)
    assert row["failed_members"] == 0
    assert row["loss_of_timed_epochs"] < row["loss_of_first_epoch"]
    card = dict.fromkeys(("copy_bytes_per_second", "ieee_flops_per_second", "tf32_flops_per_second"), 1e9)
    account(row, count_work(paper_population(case), case), card, 1e-3, case.n_members)
    assert row["times_one_at_a_time"] == pytest.approx(1e-3 * 2 * 2 / row["epoch_seconds"]["median"])
    assert acceleration in table([row])


def test_sequential_training_is_timed() -> None:
    result = gpu.sequential_step(Case(n_members=10, n_rows=64, n_inputs=3), "cpu", n_networks=2, n_steps=3)
    assert 0 < result["step_seconds"]["least"] <= result["step_seconds"]["greatest"]


def test_vmap_is_timed() -> None:
    result = gpu.vmap_step(Case(n_members=10, n_rows=64, n_inputs=3), "cpu", n_networks=2, n_steps=3)
    assert 0 < result["step_seconds"]["least"] <= result["step_seconds"]["greatest"]


def test_stages_are_independent_and_end_at_their_limits(tmp_path: Path) -> None:
    begins = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])"
    chosen = [
        Stage("good", 60, ("-c", "print(1)")),
        Stage("bad", 60, ("-c", "print(2); raise SystemExit(3)")),
        Stage("slow", 1, ("-c", f"{begins}; import time; print(3, flush=True); time.sleep(60)")),
        Stage("a program", 60, (sys.executable, "-c", "print(4)"), alone=True),
    ]
    shown: list[str] = []
    outcomes = run_all(chosen, tmp_path / "out", shown.append)
    assert [one.status for one in outcomes] == ["passed", "failed", "exceeded its limit", "passed"]
    assert [one.output for one in outcomes] == [["1"], ["2"], ["3"], ["4"]]
    assert outcomes[2].seconds < 20
    assert any(line.startswith("bad: failed after") for line in shown)
    written = json.loads((tmp_path / "out" / "gpu_stages.json").read_text())
    assert [one["status"] for one in written] == [one.status for one in outcomes]


def test_all_stages_take_about_ten_minutes_and_can_be_started(tmp_path: Path) -> None:
    found = stages(tmp_path)
    assert sum(stage.seconds for stage in found) <= 600
    for stage in found:
        if stage.words[1] != "pytest" and not stage.alone:
            assert importlib.util.find_spec(stage.words[1]) is not None


def test_tests_on_a_device_do_not_need_hypothesis() -> None:
    # tests/conftest.py skips files that import hypothesis if it is not installed
    left_out, on_device = [], []
    for folder in ("kernels", "engine"):
        for path in sorted((ROOT / "tests" / folder).rglob("test_*.py")):
            text = path.read_text(encoding="utf-8")
            if "\nfrom hypothesis import" in text:
                left_out.append(path)
            if "cuda" in text or "device: str" in text or "device)" in text:
                on_device.append(path)
    assert left_out
    assert len(on_device) >= 8
    # random layouts are tested beside examples, which need no hypothesis
    assert [path.name for path in left_out if path in on_device] == ["test_raggedness.py"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_ends_with_one_sentence() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu_stages"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == gpu_stages.NO_GPU + "\n"
    assert "Traceback" not in done.stderr
