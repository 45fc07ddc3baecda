"""Share of worker time that a search spends inside the training loop, phase by phase.

``python -m benchmarks.search_efficiency`` searches five bundled tables with a time limit of 60 seconds, each
in a new process. It prints the elapsed time of each phase and the part of the workers' time in the training
loop: the compiled loops, or the loop of tensor operations without numba. Everything else is overhead:
starting, reading, batches, dropout noise, evaluation, selection, idle workers.

The last columns compare the member-steps per second of the whole search with the rate of the training loop
alone: right after the search, in the same process, the loops of the same shards run again on all workers,
with batches that are ready. ``--seconds`` sets another time limit, ``--only NAME`` selects tables. All five
tables with the default limit write ``benchmarks/results/search_efficiency.json`` and a table of
``docs/speed.md``.

Time inside the loop is CPU time, so other programs on the machine do not add to it. They still lengthen the
phases: the shares hold only if the machine is otherwise idle. The share of the CPU time of all processes is
given too; it does not count idle workers.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import joblib
import torch

from benchmarks.publishing import ROOT, describe_machine, fill, marks
from parallelmlp_search.distribute import ShardOutcome, ShardTask, one_thread, worker_count
from parallelmlp_search.engine import BatchStream, Population, TrainingSettings, execution_path
from parallelmlp_search.engine.host_training import HostTraining
from parallelmlp_search.kernels.numba.dispatch import uses_compiled
from parallelmlp_search.kernels.numba.library import ensure_compiled
from parallelmlp_search.search.run import journal

__all__ = ["TABLES", "Recorder", "cpu_seconds", "loop_rate", "main", "missed", "summarise", "table"]

RESULTS = ROOT / "benchmarks" / "results" / "search_efficiency.json"
TABLES = {"adult": "income", "letter": "lettr", "spambase": "type", "diamonds": "price", "credit_g": "class"}
"""Bundled tables with their targets."""

SECONDS = 60.0
REPLAYED_SECONDS = 0.05
"""Least time that the loops of a shard run in the replay."""

MIN_SHARE, MIN_RATIO = 0.8, 0.7
"""Targets: share of worker time in the loop, and throughput of the search relative to that of the loop."""


class Recorder:
    """Keeps the tasks and outcomes of all shards of a search.

    Attributes
    ----------
    shards
        Task and member-steps of each shard.
    """

    def __init__(self) -> None:
        self.shards: list[tuple[ShardTask, int]] = []
        self._run = journal.run_shards

    def run_shards(self, tasks: Iterable[ShardTask], *, n_workers: int) -> Iterator[ShardOutcome]:
        """Run shards as :func:`parallelmlp_search.distribute.run_shards`."""
        known: dict[str, ShardTask] = {}

        def seen() -> Iterator[ShardTask]:
            for task in tasks:
                # without states, which are large; the loop takes as long from fresh weights
                known[task.key] = replace(task, states=(None,) * len(task.states))
                yield task

        for outcome in self._run(seen(), n_workers=n_workers):
            self.shards.append((known.pop(outcome.key), outcome.member_steps))
            yield outcome


def cpu_seconds(pid: int | str = "self") -> float:
    """Return the CPU time of a process and its living descendants (Linux; elsewhere 0)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            total += sum(cpu_seconds(int(child)) for child in children.read_text().split())
    except OSError:  # no such file system, or the process has just ended
        return 0.0
    return total


def loop_seconds(task: ShardTask) -> float:
    """Return the seconds of one member-step of a shard inside the training loop alone, on one core."""
    data = task.data.seen_by(task.configs[0])
    population = Population.create(task.configs, data.shape, repeat=task.repeat, rows=data.rows.inputs)
    settings = TrainingSettings(
        stream=BatchStream(data.n_rows, task.configs[0].batch_size, data.seed),
        loss=data.loss,
        until_epoch=task.until_epoch,
        total_epochs=task.total_epochs,
    )
    with one_thread():
        training = HostTraining(population, data.rows, settings)
        n_steps = training.window(settings.last_step, None)
        loops = training.loops(range(n_steps))
        for loop in loops:  # loads code and rows
            loop()
        spent = repeats = 0.0
        while spent < REPLAYED_SECONDS:
            began = time.thread_time()
            for loop in loops:
                loop()
            spent += time.thread_time() - began
            repeats += 1
    return spent / (repeats * n_steps * len(task.configs))


def loop_rate(shards: list[tuple[ShardTask, int]], n_workers: int) -> float:
    """Return the member-steps per second of the loops of some shards alone, on all workers at once.

    Parameters
    ----------
    shards
        Tasks with their member-steps in the search.
    n_workers
        Threads; the loops do not hold the interpreter lock.

    Returns
    -------
    float
    """
    shards = [(task, steps) for task, steps in shards if steps]
    parallel = joblib.Parallel(n_jobs=n_workers, backend="threading", batch_size=1)
    each = parallel(joblib.delayed(loop_seconds)(task) for task, _ in shards)
    total = sum(steps * seconds for (_, steps), seconds in zip(shards, each, strict=True))
    return n_workers * sum(steps for _, steps in shards) / total


def measure(name: str, seconds: float, started: float) -> dict[str, Any]:
    """Search a bundled table in this process.

    Parameters
    ----------
    name
        One of :data:`TABLES`.
    seconds, started
        Time limit, and the reading of the monotonic clock from which it counts.

    Returns
    -------
    dict
        Row of the results file.
    """
    from parallelmlp_search.data import read_table
    from parallelmlp_search.search import Problem, RunDirectory, SearchSettings, run

    recorder = Recorder()
    journal.run_shards = recorder.run_shards
    before, n_workers = os.getloadavg()[0], worker_count(None)
    problem = Problem.from_table(read_table(ROOT / "datasets" / f"{name}.csv.gz"), TABLES[name])
    with tempfile.TemporaryDirectory() as folder:
        directory = RunDirectory.create(Path(folder) / "run")
        result = run(problem, SearchSettings(time_limit=seconds), directory=directory, started=started)
        cpu = cpu_seconds()
    return {
        "table": name,
        "limit": seconds,
        "workers": n_workers,
        "path": execution_path("cpu").name,
        "trials": result.n_trials,
        "member_steps": result.member_steps,
        "seconds": result.elapsed_seconds,
        "cpu_seconds": cpu,
        "phases": result.phases,
        "loop_rate": loop_rate(recorder.shards, n_workers),
        "load_before": before,
    }


def summarise(row: dict[str, Any]) -> dict[str, float]:
    """Return the shares and rates of a row of :func:`measure`.

    Returns
    -------
    dict
        ``share`` of worker time in the loop, ``cpu_share`` of all CPU time, member-steps per second
        (``rate``) and relative to the loop alone (``ratio``), and ``slowdown`` of the loop inside the search.
    """
    loop = sum(phase["loop_seconds"] for phase in row["phases"].values())
    steps = sum(phase["member_steps"] for phase in row["phases"].values())
    rate = steps / row["seconds"]
    return {
        "share": loop / (row["workers"] * row["seconds"]),
        "cpu_share": loop / row["cpu_seconds"] if row["cpu_seconds"] else float("nan"),
        "rate": rate,
        "ratio": rate / row["loop_rate"],
        "slowdown": row["loop_rate"] / (row["workers"] * steps / loop),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Return rows as a Markdown table: seconds of each phase, with the share inside the loop, and rates."""
    phases = list(dict.fromkeys(name for row in rows for name in row["phases"]))
    columns = ["table", *phases, "in the loop", "of CPU time", "member-steps/s", "loop alone", "ratio"]
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in rows:
        found, cells = summarise(row), [row["table"]]
        for name in phases:
            phase = row["phases"].get(name, {"seconds": 0.0, "loop_seconds": 0.0})
            text = f"{phase['seconds']:.1f} s"
            if phase["loop_seconds"]:
                share = phase["loop_seconds"] / (row["workers"] * phase["seconds"])
                text += f" ({share:.0%})"
            cells.append(text)
        cells += [f"{found['share']:.0%}", f"{found['cpu_share']:.0%}"]
        cells += [f"{found['rate']:,.0f}", f"{row['loop_rate']:,.0f}", f"{found['ratio']:.0%}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def missed(row: dict[str, Any]) -> list[str]:
    """Return the targets that a row misses, one sentence each."""
    found = summarise(row)
    targets = {"share": ("time inside the loop", MIN_SHARE), "ratio": ("throughput", MIN_RATIO)}
    return [
        f"{row['table']}: {words} is {found[name]:.0%}, the target is {least:.0%}"
        for name, (words, least) in targets.items()
        if found[name] < least
    ]


def in_new_process(name: str, seconds: float) -> dict[str, Any]:
    """Return the row of a table, measured in a new process."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "row.json"
        command = [sys.executable, "-m", "benchmarks.search_efficiency", "--only", name, "--into", output]
        # the monotonic clock of Linux is the same in all processes
        command += ["--seconds", str(seconds), "--started", str(time.monotonic())]
        subprocess.run(command, check=True, cwd=ROOT)
        return dict(json.loads(output.read_text()))


def main() -> None:
    """Measure the selected tables and print them; write the results of all with the default limit."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=SECONDS, help="time limit of each search")
    parser.add_argument("--only", action="append", choices=TABLES, help="measure this table; can be repeated")
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--started", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    names = arguments.only or list(TABLES)
    if arguments.into:
        arguments.into.write_text(json.dumps(measure(names[0], arguments.seconds, arguments.started)))
        return
    if uses_compiled(torch.float32, "cpu"):
        ensure_compiled()  # the cold start is measured elsewhere
    rows = [in_new_process(name, arguments.seconds) for name in names]
    print(table(rows))
    for sentence in (sentence for row in rows for sentence in missed(row)):
        print(sentence)
    if arguments.only is None and arguments.seconds == SECONDS:
        machine = describe_machine() | {"day": time.strftime("%Y-%m-%d")}
        RESULTS.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")
        fill(ROOT / "docs" / "speed.md", marks("search_efficiency"), table(rows))


if __name__ == "__main__":
    main()
