"""Speed of packed training against other ways to train the same networks, in one run.

``python -m benchmarks.packed_training`` measures every case and writes
``benchmarks/results/packed_training.json``, the tables in ``docs/speed.md`` and the README, and a plot.
``--only NAME`` measures some cases and keeps the other figures. ``--quick`` takes a minute, writes nothing
and prints one line of JSON last. ``--profile`` shows where the time of a step goes. ``--scaling`` trains 100
to 100,000 members.

The protocol is that of the paper (10,000 networks of widths 1 to 100 and ten activations) with four
corrections: labels can be learned, the one-at-a-time rival slices tensors instead of waiting for a data
loader, all contenders take turns in one run, and clocks are read when the work is done. Everything runs on
the CPU, in float32.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

from benchmarks.packed.cases import CASES, QUICK, find
from benchmarks.packed.diagram import diagram
from benchmarks.packed.machine import describe
from benchmarks.packed.measure import measure
from benchmarks.packed.profile import profile, profile_table
from benchmarks.packed.report import plot, published, scaling_table, short_table
from benchmarks.packed.scaling import scale
from benchmarks.publishing import ROOT, fill, marks

FOLDER = ROOT / "benchmarks" / "results"
RESULTS = FOLDER / "packed_training.json"
SCALING = FOLDER / "packed_training_scaling.json"
PROFILE = FOLDER / "packed_training_profile.json"
DIAGRAM = FOLDER / "packed_training.svg"
DOCS = ROOT / "docs" / "speed.md"
README = ROOT / "README.md"

PROFILED = (*QUICK, "paper, D=10 N=128 C=10", "ragged")
SHORT = (*QUICK, "paper, D=10 N=128 C=10", "ragged")
"""Cases of the README."""


def line(row: dict[str, Any]) -> str:
    """Return a case as one line: times, speed-ups with quantiles, and fractions of the peaks."""
    times = ", ".join(f"{name} {value['median']:.2f}" for name, value in row["microseconds"].items())
    ratios = ", ".join(
        f"{name} {value['median']:.2f}x ({value['q10']:.2f} to {value['q90']:.2f})"
        for name, value in row["ratios"].items()
    )
    peak = ", ".join(f"{value['median']:.0%}" for value in row["gemm_fraction"].values())
    copies = ", ".join(f"{value:.0%}" for value in row["bandwidth_fraction"].values())
    return (
        f"{row['case']}: us a member-step: {times}; {ratios}; "
        f"product peak {peak}; copy bandwidth {copies}; {row['seconds']:.0f} s"
    )


def quick() -> None:
    """Measure two cases within a minute; the last printed line is JSON."""
    # only the rivals of the four figures
    rivals = dict(zip(QUICK, (("sequential", "m3"), ("vmap",)), strict=True))
    rows = {}
    for name in QUICK:
        rows[name] = measure(replace(find(name), rivals=rivals[name]), rounds=2, brief=True)
    for row in rows.values():
        print(line(row), flush=True)
    paper, layers = (rows[name] for name in QUICK)
    print(
        json.dumps(
            {
                "vs_sequential": round(paper["ratios"]["sequential"]["median"], 1),
                "vs_m3": round(paper["ratios"]["m3"]["median"], 2),
                "vs_vmap": round(layers["ratios"]["vmap"]["median"], 2),
                "gemm_fraction": round(layers["gemm_fraction"]["1"]["median"], 3),
            }
        )
    )


def ordered(rows: dict[str, dict[str, Any]], names: Iterable[str] = ()) -> list[dict[str, Any]]:
    """Return rows in the order of ``names``, or of the cases."""
    return [rows[name] for name in names or (case.name for case in CASES) if name in rows]


def publish(rows: dict[str, dict[str, Any]]) -> None:
    """Update the document, the README and the diagram."""
    fill(DOCS, marks("packed_training"), published(ordered(rows)))
    fill(README, marks("packed_training"), short_table(ordered(rows, SHORT)))
    DIAGRAM.write_text(diagram(ordered(rows)))


def main() -> None:
    """Measure the selected cases and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two cases within a minute")
    parser.add_argument("--only", action="append", choices=[case.name for case in CASES], metavar="NAME")
    parser.add_argument("--profile", action="store_true", help="where the time of a step goes")
    parser.add_argument("--scaling", action="store_true", help="100 to 100,000 members")
    parser.add_argument("--plot", action="store_true", help="redraw and publish the figures on file")
    parser.add_argument("--rounds", type=int, default=5, help="turns of every contender")
    parser.add_argument("--with", dest="extra", action="append", choices=["sklearn", "jax"], default=[])
    arguments = parser.parse_args()
    if arguments.profile:
        found = [profile(find(name)) for name in arguments.only or PROFILED]
        text = "\n\n".join(profile_table(row) for row in found)
        print(text)
        if not arguments.only:
            PROFILE.write_text(json.dumps({"machine": describe(), "rows": found}, indent=1) + "\n")
            fill(DOCS, marks("profile"), text)
        return
    if arguments.scaling:
        sizes = scale()
        SCALING.write_text(json.dumps({"machine": describe(), "rows": sizes}, indent=1) + "\n")
        fill(DOCS, marks("scaling"), scaling_table(sizes))
        return
    if arguments.quick:
        quick()
        return
    rows = {row["case"]: row for row in json.loads(RESULTS.read_text())["rows"]} if RESULTS.exists() else {}
    if arguments.plot:
        scaling = json.loads(SCALING.read_text())["rows"] if SCALING.exists() else []
        publish(rows)
        if find_spec("plotly") is not None:
            plot(ordered(rows), scaling, FOLDER / "packed_training.html")
        return
    machine = describe()
    for case in CASES:
        if arguments.only and case.name not in arguments.only:
            continue
        row = measure(case, rounds=arguments.rounds, extra=tuple(arguments.extra))
        rows[case.name] = row | {"machine": machine, "day": time.strftime("%Y-%m-%d")}
        print(line(row), flush=True)
        RESULTS.write_text(json.dumps({"rows": ordered(rows)}, indent=1) + "\n")
    print(published(ordered(rows)))
    publish(rows)


if __name__ == "__main__":
    main()
