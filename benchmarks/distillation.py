"""Distilled networks compared with their ensembles: error on held-out rows, and time per row.

``python -m benchmarks.distillation`` searches each bundled table for 30 seconds, distills the ensemble within
20 us per row in batches of 1,000, and scores both on the same held-out rows. It writes
``benchmarks/results/distillation.json`` and the table of ``docs/guides/deploy.md``. Results on file are kept;
``--repeat`` measures all of them again.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.averaging import held_back
from benchmarks.publishing import ROOT, describe_machine, fill, marks
from benchmarks.quality.errors import METRICS, error_of_score
from benchmarks.quality.sets import BUNDLED, load, split
from parallelmlp_search._files import write_json
from parallelmlp_search.distill import DistillSettings, distill
from parallelmlp_search.inference.latency import seconds_of
from parallelmlp_search.search import Problem, RunDirectory, SearchSettings
from parallelmlp_search.search import run as search

RESULTS = ROOT / "benchmarks" / "results" / "distillation.json"
PAGE = ROOT / "docs" / "guides" / "deploy.md"
SECONDS, LIMIT, BATCH = 30.0, 20e-6, 1000


def run(name: str, seed: int) -> dict[str, Any]:
    """Search a table, distill the ensemble, and score both.

    Parameters
    ----------
    name
        Table.
    seed
        Seed of the split and of the search.

    Returns
    -------
    dict
        Row of the results file.
    """
    table = load(name)
    train, test = split(table, seed)
    problem = Problem.from_table(table.rows(train), table.target[train], task=table.task)
    settings = SearchSettings(
        time_limit=SECONDS, metric=METRICS[table.task], seed=seed, device="cpu", baselines=False
    )
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        teacher_run, student_run = (
            RunDirectory.create(Path(folder) / kind) for kind in ("teacher", "student")
        )
        teacher = search(problem, settings, directory=teacher_run)
        began = time.monotonic()
        options = DistillSettings(infer_limit=LIMIT, infer_batch_size=BATCH, seed=seed)
        student = distill(teacher_run, problem, student_run, options)
        took = time.monotonic() - began
    rows = table.rows(test).iloc[:BATCH]
    seconds = [
        seconds_of(lambda one=one: one.model.predictions(rows)) / len(rows) for one in (teacher, student)
    ]
    return {
        "set": name, "seed": seed,
        "ensemble": held_back(teacher.model, table, test), "student": held_back(student.model, table, test),
        "honest": None if student.honest is None else error_of_score(table.task, student.honest.score),
        "ensemble_seconds": seconds[0], "student_seconds": seconds[1], "distill_seconds": round(took, 1),
        "network": "-".join(map(str, student.best_config.widths)), "machine": describe_machine(),
    }  # fmt: skip


def table_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows as a Markdown table, with the geometric means of the ratios."""
    lines = [
        "| set | error of the ensemble | of the student | honest score | ratio "
        "| us per row, ensemble | student | times as fast | seconds to distill | network |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        honest = "" if row["honest"] is None else f"{row['honest']:.4g}"
        lines.append(
            f"| {row['set']} | {row['ensemble']:.4g} | {row['student']:.4g} | {honest} "
            f"| {row['student'] / row['ensemble']:.3f} | {1e6 * row['ensemble_seconds']:.1f} "
            f"| {1e6 * row['student_seconds']:.1f} | {row['ensemble_seconds'] / row['student_seconds']:.1f} "
            f"| {row['distill_seconds']:.0f} | {row['network']} |"
        )
    errors = _mean([row["student"] / row["ensemble"] for row in rows])
    faster = _mean([row["ensemble_seconds"] / row["student_seconds"] for row in rows])
    return "\n".join([*lines, f"| mean | | | | {errors:.3f} | | | {faster:.1f} | | |"])


def _mean(ratios: Sequence[float]) -> float:
    return math.exp(sum(map(math.log, ratios)) / len(ratios))


def publish(names: Sequence[str], *, repeats: bool = False) -> None:
    """Measure the tables that are not on file, print all, and write them into the page once it is complete.

    Parameters
    ----------
    names
        Tables.
    repeats
        True to measure what is on file again.
    """
    rows: list[dict[str, Any]] = (
        json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() and not repeats else []
    )
    for name in names:
        if all(row["set"] != name for row in rows):
            rows.append(run(name, 0))
            print(table_of(rows[-1:]).splitlines()[2], flush=True)
            write_json(RESULTS, {"rows": rows})
    if {row["set"] for row in rows} == set(BUNDLED):
        fill(PAGE, marks("distillation"), table_of(rows))
    print(table_of(rows))


def main() -> None:
    """Measure the missing tables and print all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", action="store_true", help="measure again what is on file")
    parser.add_argument("--only", nargs="+", choices=BUNDLED, default=BUNDLED, metavar="TABLE")
    options = parser.parse_args()
    publish(options.only, repeats=options.repeat)


if __name__ == "__main__":
    main()
