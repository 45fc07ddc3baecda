"""Process of one fit: reads ``job.json`` in a folder, writes ``outcome.json`` and ``predictions.npy``.

It runs in the interpreter of the tool, which needs NumPy, pandas and scikit-learn besides the tool.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import math
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality.sets import load
from benchmarks.quality.tools import Task

__all__ = ["end_with_parent", "keep_to", "main", "processor_seconds", "version_of"]


def version_of(package: str) -> str:
    """Return the version of an importable package."""
    known = importlib.metadata.packages_distributions().get(package.partition(".")[0], [package])
    names = [package.replace(".", "-"), *known]
    for name in names:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return str(getattr(importlib.import_module(package), "__version__", "unknown"))


def keep_to(threads: int) -> None:
    """Restrict this process and its children to as many cores as threads (Linux)."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def processor_seconds(pid: int) -> float:
    """Return the CPU seconds of a process and its descendants; NaN on systems other than Linux.

    On a machine with other work, they mean more than wall time.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks = sum(
            int(field) for field in fields[11:15]
        )  # user and system time of the process and of its ended children
        total = ticks / os.sysconf("SC_CLK_TCK")
        for thread in Path(f"/proc/{pid}/task").iterdir():
            children = (thread / "children").read_text().split()
            total += sum(processor_seconds(int(child)) for child in children)
    except (FileNotFoundError, ProcessLookupError):
        return math.nan if pid == os.getpid() else 0.0
    return total


def end_with_parent() -> None:
    """End this process and its children within a second after the parent has ended for any reason."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os.killpg(os.getpgid(0), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def main(folder: Path) -> None:
    """Fit, predict the held-out rows, and write both files."""
    job: dict[str, Any] = json.loads((folder / "job.json").read_text())
    keep_to(job["threads"])
    table = load(job["set"])
    train, test = np.load(folder / "train.npy"), np.load(folder / "test.npy")
    module, _, function = job["fit"].partition(":")
    importlib.import_module(job["package"])  # imports are not timed
    fit = getattr(importlib.import_module(module), function)
    task = Task(
        task=table.task,
        features=table.rows(train),
        target=table.target[train],
        categorical=table.categorical,
        n_classes=0 if table.task == "regression" else int(table.target.max()) + 1,
        seed=job["seed"],
        threads=job["threads"],
        seconds=job["seconds"],
        settings=job["settings"],
    )
    held_back = table.rows(test)
    used_before, started = processor_seconds(os.getpid()), time.monotonic()
    found = fit(task)
    fitted, used = time.monotonic(), processor_seconds(os.getpid()) - used_before
    predictions = found.predict(held_back)
    predicted = time.monotonic()
    np.save(folder / "predictions.npy", np.asarray(predictions, dtype=np.float64))
    outcome = {
        "seconds": fitted - started,
        "processor_seconds": used if math.isfinite(used) else None,
        "predict_seconds": predicted - fitted,
        "version": version_of(job["package"]),
        "notes": dict(found.notes),
    }
    (folder / "outcome.json").write_text(json.dumps(outcome))


if __name__ == "__main__":
    end_with_parent()
    main(Path(sys.argv[1]))
