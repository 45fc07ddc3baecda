"""Completion of arguments in the shell."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from parallelmlp_search.cli.app import app
from parallelmlp_search.cli.completion import CHOICES, runs
from parallelmlp_search.data.task import TASKS
from parallelmlp_search.distribute.backends import BACKENDS
from parallelmlp_search.kernels.precision import PRECISIONS
from parallelmlp_search.search.problem.settings import CALIBRATIONS, LOSSES, SAMPLERS
from parallelmlp_search.selection import LABEL_METRICS, METRICS
from parallelmlp_search.space import PRESETS

ROOT = Path(__file__).parents[2]


def test_choices_are_those_of_the_packages() -> None:
    wanted = {
        "task": {*TASKS, "classification"},
        "metric": {*METRICS, *LABEL_METRICS},
        "loss": {loss for losses in LOSSES.values() for loss in losses},
        "space": set(PRESETS),
        "sampler": set(SAMPLERS),
        "calibration": set(CALIBRATIONS),
        "precision": set(PRECISIONS),
        "backend": set(BACKENDS),
    }
    assert {name: set(CHOICES[name]) for name in wanted} == wanted


def completed(line: str, shell: str = "bash") -> list[str]:
    """Candidates for the end of a line, as the script of a shell asks for them."""
    words = line.split(" ")
    asked = {"_PMLP_COMPLETE": f"complete_{shell}"}
    if shell == "bash":
        asked |= {"COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1)}
    else:
        asked |= {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    return [one for one in CliRunner().invoke(app, prog_name="pmlp", env=asked).stdout.split("\n") if one]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    frame = pd.DataFrame({"age": [1, 2], "a b": [3, 4], "income": [5, 6]})
    frame.to_csv(tmp_path / "adult.csv.gz", index=False, sep=";")
    frame.to_parquet(tmp_path / "adult.parquet")
    frame.to_json(tmp_path / "adult.json", orient="records")
    frame.to_excel(tmp_path / "adult.xlsx", index=False)
    for name in ("first", "second"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "run.json").write_text("{}")
    (tmp_path / "runs" / "other").mkdir()
    return tmp_path


def test_values_columns_and_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert completed("pmlp sea") == ["search"]
    assert completed("pmlp search t.csv --metric r") == ["roc_auc", "rmse", "r2"]
    assert completed("pmlp search t.csv --tim") == ["--time-column", "--time-limit"]
    assert completed("pmlp search adult.csv.gz --target ") == ["age", "'a b'", "income"]
    assert completed("pmlp inspect adult.parquet --target i") == ["income"]
    assert completed("pmlp inspect adult.parquet --target a", "fish") == ["age", "a b"]
    assert completed("pmlp predict ") == ["runs/first", "runs/second"]
    assert completed("pmlp predict runs/s") == ["runs/second"]
    # the shell completes files where there is no candidate
    for unread in ("missing.csv", "adult.json", "adult.xlsx"):
        assert completed(f"pmlp search {unread} --target ") == []
    assert completed("pmlp search ad") == []


def test_runs_in_a_folder_that_is_typed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder / "runs")
    assert runs("") == ["first", "second"]
    assert runs(f"{folder}/runs/f") == [f"{folder}/runs/first"]
    assert runs("nowhere/") == []


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_installed_script_works_in_bash(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = folder / "home"
    home.mkdir()
    program = folder / "bin" / "pmlp"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m parallelmlp_search "$@"\n')
    program.chmod(0o755)
    environment = os.environ | {"HOME": str(home), "PATH": f"{program.parent}:{os.environ['PATH']}"}
    # otherwise the shell is that of the parent process, which differs between machines
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    script = CliRunner().invoke(app, ["--show-completion", "bash"], prog_name="pmlp")
    assert script.exit_code == 0, script.output
    (home / "script").write_text(script.stdout)
    asking = 'source "$HOME/script"; COMP_WORDS=(pmlp search --space d); COMP_CWORD=3'
    asking += '; _pmlp_completion pmlp; printf "%s\\n" "${COMPREPLY[@]}"; complete -p pmlp'
    done = subprocess.run(
        ["bash", "--norc", "-c", asking], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.splitlines() == [
        "default", "deep", "complete -o default -F _pmlp_completion pmlp",
    ]  # fmt: skip
