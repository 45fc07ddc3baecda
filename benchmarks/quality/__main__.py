"""Quality of the search against other tools.

``python -m benchmarks.quality`` compares all installed tools on the bundled tables and on those of
scikit-learn, at 30 and 120 seconds, over three seeds, with two threads each. It takes hours. Each fit is kept
in ``runs/quality`` when it ends, so the benchmark can be interrupted and called again. Results go to
``benchmarks/results/quality.json``.

``--quick`` compares four tables and three peers at 30 seconds within ten minutes and keeps nothing.
``--ablation`` compares variants of our own search with one thread each, so each core can run one; results go
to ``benchmarks/results/ablation.json``. ``--peers-python PATH`` names an environment for the other tools.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.publishing import describe_machine
from benchmarks.quality.fitting import ROOT, FitRunner, Job, jobs_of
from benchmarks.quality.publishing import report, report_variants
from benchmarks.quality.sets import BUNDLED, SETS
from benchmarks.quality.tools import OURS, QUICK_PEERS, TOOLS, Tool, find_tool, variant_tools

QUICK_SETS = ("credit_g", "concrete", "satimage", "wine_quality")
QUICK_SECONDS = 30.0
N_QUICK_PEERS = 3


def chosen_tools(arguments: argparse.Namespace, runner: FitRunner) -> list[Tool]:
    """Return the tools to compare; print a message for each tool that is not installed."""
    if arguments.tools:
        wanted = [find_tool(name) for name in arguments.tools]
    elif arguments.ablation:
        wanted = [OURS, *variant_tools().values()]
    elif arguments.quick:
        wanted = [OURS, *(TOOLS[name] for name in QUICK_PEERS)]
    else:
        wanted = list(TOOLS.values())
    found = []
    for tool in wanted:
        message = runner.missing(tool)
        if message is None:
            found.append(tool)
        else:
            print(message, flush=True)
    return found[: 1 + N_QUICK_PEERS] if arguments.quick and not arguments.tools else found


def progress_line(row: dict[str, Any]) -> str:
    """Return one line about a fit."""
    budget = "" if row["budget"] is None else f" {row['budget']:g} s"
    name = f"{row['set']}, seed {row['seed']}, {row['tool']}{budget}"
    if "failure" in row:
        return f"{name}: failed, {row['failure']}"
    return f"{name}: {row['error']:.5g} in {row['seconds']:.1f} s"


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quality",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="four tables, three peers, ten minutes")
    parser.add_argument("--ablation", action="store_true", help="variants of our own search")
    parser.add_argument("--sets", nargs="+", choices=SETS, metavar="SET", help=f"of {', '.join(SETS)}")
    parser.add_argument("--tools", nargs="+", metavar="TOOL", help=f"of {', '.join(TOOLS)}, or variants")
    parser.add_argument("--seeds", nargs="+", type=int, help="default: 0 1 2")
    parser.add_argument("--seconds", nargs="+", type=float, help="time limits; default: 30 120")
    parser.add_argument(
        "--threads", type=int, help="threads and cores of every fit; default: 2, with --ablation 1"
    )
    parser.add_argument("--peers-python", metavar="PATH", help="interpreter of the other tools")
    parser.add_argument("--exclusive", type=Path, metavar="FILE", help="lock this file during each fit")
    parser.add_argument(
        "--folder",
        type=Path,
        help="folder of finished fits; default: runs/quality, with --ablation runs/ablation",
    )
    parser.add_argument(
        "--most", type=int, metavar="N", help="run at most N fits and leave the others for later"
    )
    parser.add_argument("--keep", action="store_true", help="write results in spite of --quick")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    """Run the selected fits that are not on file, then compare all of them."""
    arguments = parse(words)
    quick = arguments.quick
    sets = arguments.sets or (QUICK_SETS if quick else BUNDLED if arguments.ablation else SETS)
    seeds = arguments.seeds or ([0] if quick or arguments.ablation else [0, 1, 2])
    budgets = arguments.seconds or ([QUICK_SECONDS] if quick or arguments.ablation else [30.0, 120.0])
    with tempfile.TemporaryDirectory(prefix="quality-") as temporary:
        kept = ROOT / "runs" / ("ablation" if arguments.ablation else "quality")
        runner = FitRunner(
            arguments.folder or (Path(temporary) if quick and not arguments.keep else kept),
            threads=arguments.threads or (1 if arguments.ablation else 2),
            peers_python=arguments.peers_python,
            exclusive=arguments.exclusive,
        )
        jobs = jobs_of(sets, seeds, chosen_tools(arguments, runner), budgets)
        rows = _rows(runner, jobs, arguments.most)
    if rows:
        publish = report_variants if arguments.ablation else report
        print(publish(rows, describe_machine(), keep=arguments.keep or not quick))


def _rows(runner: FitRunner, jobs: Sequence[Job], most: int | None) -> list[dict[str, Any]]:
    """Return the rows of all jobs that are on file or can run now."""
    rows, n_run = [], 0
    for job in jobs:
        before = runner.known(job)
        if before is not None:
            rows.append(before)
        elif most is None or n_run < most:
            n_run += 1
            rows.append(runner.row(job))
            print(progress_line(rows[-1]), flush=True)
    return rows


if __name__ == "__main__":
    # SIGTERM ends the program normally, so that temporary folders are removed
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    main()
