"""Whole searches on a GPU and on the CPU of the same machine, with the same seed and epochs.

``python -m benchmarks.gpu_search`` searches two bundled tables with two presets on both devices, and writes
the seconds of each phase, member-steps, the share of each path and the honest score into ``gpu_search.json``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.publishing import ROOT, describe_machine
from parallelmlp_search.data import read_table
from parallelmlp_search.exceptions import DeviceWarning
from parallelmlp_search.search import Problem, SearchSettings, run

TABLES = {"adult": "income", "letter": "lettr"}
N_TRIALS = {"small": 400, "default": 60}
MAX_EPOCHS = 3


def search(
    table: str, preset: str, device: str, n_trials: int | None = None, max_epochs: int = MAX_EPOCHS
) -> dict[str, Any]:
    """Run a search and describe it.

    Parameters
    ----------
    table, preset, device
        Name of a bundled table, search space, and device.
    n_trials, max_epochs
        Trials, by default those of the preset, and epochs.

    Returns
    -------
    dict
    """
    problem = Problem.from_table(read_table(ROOT / "datasets" / f"{table}.csv.gz"), TABLES[table])
    settings = SearchSettings(
        preset,
        n_trials=n_trials or N_TRIALS[preset],
        max_epochs=max_epochs,
        baselines=False,
        seed=0,
        device=device,
    )
    started = time.perf_counter()
    with warnings.catch_warnings():
        # a kernel that cannot run is an error here, not a slower search
        warnings.simplefilter("error", DeviceWarning)
        result = run(problem, settings)
    return {
        "table": table,
        "space": preset,
        "device": device,
        "seconds": time.perf_counter() - started,
        "phases": result.phases,
        "trials": result.n_trials,
        "member_steps": result.member_steps,
        "path_shares": result.path_shares,
        "metric": result.metric,
        "honest_score": None if result.honest is None else result.honest.score,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Search on all devices, print, and write after each search."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--devices", nargs="+", default=["cuda", "cpu"])
    given = parser.parse_args(arguments)
    rows: list[dict[str, Any]] = []
    for device in given.devices:
        for preset in N_TRIALS:
            for table in TABLES:
                row = search(table, preset, device)
                rows.append(row)
                shares = ", ".join(
                    f"{100 * share:.0f} % {path}" for path, share in row["path_shares"].items()
                )
                print(
                    f"{table}, {preset}, {device}: {row['seconds']:.1f} s, {row['trials']} trials, "
                    f"{row['metric']} {row['honest_score']:.4f}, {shares}",
                    flush=True,
                )
                report = {"machine": describe_machine(), "searches": rows}
                (given.out / "gpu_search.json").write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
