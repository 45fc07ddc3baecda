"""Run of everything that needs a GPU: independent stages, each with its own limit.

``make gpu`` runs ``python -m benchmarks.gpu_stages``. A stage is a process of its own: one that fails or
exceeds its limit does not stop the others. Results are written as they come into a folder (``--out``, by
default ``benchmarks/results``): ``gpu_stages.json`` with status, seconds and the end of the output of each
stage, and the files of the stages. Without a GPU it prints one sentence.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from benchmarks.publishing import ROOT

NO_GPU = "make gpu needs a CUDA device that torch can use, but found none; run `make test` instead"

OUTPUT_LINES = 12
"""Last lines of the output of a stage that are kept."""

NO_FALLBACK = ("-W", "error::parallelmlp_search.exceptions.DeviceWarning")
"""Options of pytest with which a kernel that fails is an error."""


@dataclass(frozen=True)
class Stage:
    """Process of a run.

    Attributes
    ----------
    name
        Name of the stage.
    seconds
        Limit of its duration.
    words
        Arguments of the interpreter, or a whole command if `alone`.
    alone
        True if `words` begin with a program.
    """

    name: str
    seconds: float
    words: tuple[str, ...]
    alone: bool = False


@dataclass(frozen=True)
class Outcome:
    """End of a stage: status ``passed``, ``failed`` or ``exceeded its limit``, and the end of its output."""

    name: str
    status: str
    seconds: float
    output: list[str]


def stages(out: Path) -> list[Stage]:
    """Return the stages in their order, about ten minutes together."""
    pytest = ("-m", "pytest", "-q", "-W", "default", *NO_FALLBACK, "-p", "no:cacheprovider")
    parallel = ("-n", "4") if importlib.util.find_spec("xdist") else ()
    folder = ("--out", str(out))
    found = [
        Stage("card", 30, ("-m", "benchmarks.gpu", "--card", *folder)),
        Stage("compilation", 90, ("-m", "benchmarks.gpu_warmup")),
        Stage("smoke test", 60, (*pytest, "tests/engine/test_on_cuda.py")),
        Stage("paper's population", 150, ("-m", "benchmarks.gpu", *folder)),
        Stage("searches", 110, ("-m", "benchmarks.gpu_search", *folder)),
    ]
    if (sanitizer := shutil.which("compute-sanitizer")) is not None:
        small = (sys.executable, "-m", "benchmarks.gpu_warmup", "--smoke")
        found += [
            Stage(
                f"sanitizer, {tool}", 60, (sanitizer, "--tool", tool, "--error-exitcode", "9", *small), True
            )
            for tool in ("memcheck", "racecheck")
        ]
    return [*found, Stage("tests", 100, (*pytest, *parallel, "tests/kernels", "tests/engine"))]


def run_stage(stage: Stage) -> Outcome:
    """Run a stage to its end or to its limit, and end everything that it has started."""
    words = stage.words if stage.alone else (sys.executable, *stage.words)
    started = time.monotonic()
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        process = subprocess.Popen(
            words, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            status = "passed" if process.wait(stage.seconds) == 0 else "failed"
        except subprocess.TimeoutExpired:
            status = "exceeded its limit"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        output.seek(0)
        lines = output.read().splitlines()[-OUTPUT_LINES:]
    return Outcome(stage.name, status, time.monotonic() - started, lines)


def run_all(
    chosen: Sequence[Stage], out: Path, show: Callable[[str], None] = lambda line: print(line, flush=True)
) -> list[Outcome]:
    """Run stages one after the other, and write their outcomes after each.

    Parameters
    ----------
    chosen
        Stages.
    out
        Folder of the results.
    show
        Prints a line.

    Returns
    -------
    list of Outcome
    """
    out.mkdir(parents=True, exist_ok=True)
    outcomes: list[Outcome] = []
    for stage in chosen:
        outcome = run_stage(stage)
        outcomes.append(outcome)
        show(f"{outcome.name}: {outcome.status} after {outcome.seconds:.0f} s")
        if outcome.status != "passed":
            show("\n".join(f"    {line}" for line in outcome.output))
        text = json.dumps([asdict(one) for one in outcomes], indent=1)
        (out / "gpu_stages.json").write_text(text + "\n", encoding="utf-8")
    return outcomes


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all stages; return 1 without a GPU or if a stage did not pass."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    given = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print(NO_GPU, file=sys.stderr)
        return 1
    outcomes = run_all(stages(given.out.resolve()), given.out)
    return int(any(outcome.status != "passed" for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
