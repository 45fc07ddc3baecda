"""Count on a machine without a GPU what a search would do on one.

``python -m benchmarks.gpu_compiled`` compiles the persistent kernel for an A100, an H100 and a B200 through
the real launch code, reads registers, spills, shared memory and instructions from the machine code, and
bounds the time of the paper's case. For each preset it counts the shards of a first rung of 2,000 trials, the
launches of a step, and the members that each path trains. Nothing is timed. It takes minutes, prints tables,
and writes ``benchmarks/results/gpu_compiled.json``; ``tests/benchmarks/test_gpu_compiled.py`` holds its
numbers.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

import triton

from benchmarks.gpu_compiled.kernels import epoch_bound, kernel_rows, recompilation_runs, variants
from benchmarks.gpu_compiled.launches import describe_preset, screening_data
from benchmarks.gpu_compiled.stand_in import stand_in
from benchmarks.publishing import ROOT, describe_machine, fill, marks
from parallelmlp_search.kernels.precision import PRECISIONS
from parallelmlp_search.space import PRESETS

RESULTS = ROOT / "benchmarks" / "results" / "gpu_compiled.json"
DOCUMENT, MARKS = ROOT / "docs" / "kernels.md", marks("counted without a GPU")


def kernel_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return a Markdown table of the kernels."""
    lines = [
        "| width | activation | precision | sm | warps | registers | spilled bytes | shared bytes "
        "| instructions per step |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['width']} | {row['activation']} | {row['precision']} | {row['capability']} | {row['warps']} "
        f"| {row['registers']} | {row['spill_bytes']:,} | {row['shared_bytes']:,} "
        f"| {row.get('instructions_per_step', '')} |"
        for row in rows
    ]
    return "\n".join(lines)


def preset_table(presets: dict[str, dict[str, Any]]) -> str:
    """Return a Markdown table of the presets."""
    lines = [
        "| preset | shards, 140 GB | shards, 16 GB | in the persistent kernel | largest shard "
        "| buckets | launches per step |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in presets.items():
        largest = row["largest_shard"]
        lines.append(
            f"| {name} | {row['shards']['140 GB']} | {row['shards']['16 GB']} "
            f"| {100 * row['share_of_members']['persistent']:.0f} % | {largest['members']} "
            f"| {largest['buckets']} | {largest['launches_per_step']:,} |"
        )
    return "\n".join(lines)


def summary(report: dict[str, Any]) -> str:
    """Return the part of the documentation that states the counts."""
    bounds = " and ".join(
        f"{1e3 * seconds:.0f} ms in {precision}" for precision, seconds in report["bound_seconds"].items()
    )
    return (
        f"{preset_table(report['presets'])}\n\n"
        "An epoch of the paper's case (10,000 members, 10,000 rows, 100 inputs, batches of 32) on an H200\n"
        f"(132 multiprocessors at 1.98 GHz) takes at least {bounds},\n"
        "by the instructions of the persistent kernel.\n"
    )


def count_presets() -> dict[str, dict[str, Any]]:
    """Return the counts of every preset."""
    data = screening_data()
    with stand_in() as driver:
        return {preset: describe_preset(preset, data, driver) for preset in PRESETS}


def main() -> int:
    """Compile, count, print and write."""
    if os.environ.get("TRITON_INTERPRET") == "1":
        print("benchmarks.gpu_compiled must run without TRITON_INTERPRET=1", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TRITON_CACHE_DIR"] = cache
        presets = count_presets()
        print(preset_table(presets), flush=True)
        compiled = {name: variants(runs) for name, runs in recompilation_runs().items()}
        print("\nkernels compiled for", ", ".join(f"{name}: {n}" for name, n in compiled.items()), flush=True)
        rows = kernel_rows()
    print(f"\n{kernel_table(rows)}\n")
    report = {
        "machine": describe_machine() | {"triton": triton.__version__},
        "presets": presets,
        "variants": compiled,
        "kernels": rows,
        "bound_seconds": {precision: epoch_bound(rows, precision) for precision in PRECISIONS},
    }
    print(summary(report))
    RESULTS.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    fill(DOCUMENT, MARKS, summary(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
