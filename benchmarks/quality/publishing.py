"""Results files and the tables of the documents made from them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.publishing import ROOT, fill, marks
from benchmarks.quality.diagram import diagram
from benchmarks.quality.summary import bias_of, change_table, compare, comparison_table, error_table, label
from benchmarks.quality.tools import TOOLS

__all__ = [
    "ABLATION",
    "DIAGRAM",
    "DOCS",
    "MARKS",
    "README",
    "RESULTS",
    "VARIANT_MARKS",
    "merge",
    "ranking",
    "report",
    "report_variants",
    "sections",
    "shown_tools",
    "variant_sections",
    "write",
]

RESULTS = ROOT / "benchmarks" / "results" / "quality.json"
ABLATION = ROOT / "benchmarks" / "results" / "ablation.json"
DIAGRAM = ROOT / "benchmarks" / "results" / "quality.svg"
DOCS = ROOT / "docs" / "quality.md"
README = ROOT / "README.md"
MARKS = marks("quality")
VARIANT_MARKS = marks("ablation")

MIN_SHARE = 0.75
"""Share of our tables that a tool must have run on to be ranked."""

Row = Mapping[str, Any]


def merge(known: Iterable[Row], new: Iterable[Row]) -> list[Row]:
    """Return the rows of both in a fixed order; a newer fit replaces an older one."""
    rows = {(row["set"], row["seed"], row["tool"], row["budget"]): row for row in [*known, *new]}
    return [rows[key] for key in sorted(rows, key=lambda key: (*key[:3], key[3] or 0.0))]


def write(rows: Sequence[Row], machine: Mapping[str, Any], path: Path) -> None:
    """Write one line per fit, so that differences are readable.

    Parameters
    ----------
    rows
        Rows of fits.
    machine
        Description of the machine.
    path
        Results file.
    """
    lines = ",\n".join(f"  {json.dumps(row)}" for row in rows)
    path.write_text(f'{{\n "machine": {json.dumps(machine)},\n "rows": [\n{lines}\n ]\n}}\n')


def shown_tools(rows: Sequence[Row], budget: float) -> list[str]:
    """Return the labels at a budget, and those of tools without a time limit; no variants."""
    found = dict.fromkeys(
        label(row) for row in rows if row["tool"] in TOOLS and row["budget"] in (budget, None)
    )
    order = list(TOOLS)
    return sorted(found, key=lambda name: order.index(name.split(" ")[0]))


def comparable(rows: Sequence[Row], budget: float) -> list[str]:
    """Return the labels of ours and of tools that ran on most of its tables."""
    places = {tool: {row["set"] for row in rows if label(row) == tool} for tool in shown_tools(rows, budget)}
    own = places.get(f"ours {budget:g} s") or max(places.values(), key=len, default=set())
    return [tool for tool, sets in places.items() if own and len(sets & own) >= MIN_SHARE * len(own)]


def ranking(rows: Sequence[Row], budget: float) -> str:
    """Return the ranking at a budget as a Markdown table; empty if no tool has run."""
    ranked = comparable(rows, budget)
    others = [tool for tool in shown_tools(rows, budget) if tool not in ranked]
    return comparison_table(rows, ranked, others) if ranked else ""


def sections(rows: Sequence[Row]) -> str:
    """Return all tables of the comparison as Markdown."""
    parts = []
    for budget in sorted({row["budget"] for row in rows if row["budget"] is not None}):
        shown = shown_tools(rows, budget)
        if ranked := ranking(rows, budget):
            parts.append(f"At {budget:g} seconds:\n\n{ranked}\n")
            parts.append(f"{error_table(rows, shown)}\n")
    ours = [row for row in rows if row["tool"] == "ours"]
    for kind in ("honest", "naive"):
        bias = bias_of(ours, kind)
        if bias is not None:
            parts.append(
                f"The error that the {kind} score reports differs by {100 * bias.mean:+.1f} % "
                f"± {100 * bias.standard_error:.1f} % from that on held-out rows "
                f"({bias.n_fits} fits on {bias.n_sets} tables): "
                f"{'not distinguishable from zero' if bias.is_unbiased else 'biased'}.\n"
            )
    return "\n".join(parts)


def variant_sections(rows: Sequence[Row]) -> str:
    """Return the changes of all variants of our search as Markdown, by time limit."""
    parts = []
    for budget in sorted({row["budget"] for row in rows}):
        here = [row for row in rows if row["budget"] == budget]
        names = {label(row): row["tool"].removeprefix("ours, ") for row in here if row["tool"] != "ours"}
        parts.append(f"At {budget:g} seconds:\n\n{change_table(here, names, f'ours {budget:g} s')}\n")
    return "\n".join(parts)


def report_variants(rows: Sequence[Row], machine: Mapping[str, Any], *, keep: bool) -> str:
    """Return the tables of variants.

    Parameters
    ----------
    rows
        Rows of fits.
    machine
        Description of the machine.
    keep
        Also merge the rows into the results file and update the document.

    Returns
    -------
    str
        Markdown.
    """
    if not keep:
        return variant_sections(rows)
    words = variant_sections(_kept(rows, machine, ABLATION))
    if DOCS.is_file():
        fill(DOCS, VARIANT_MARKS, words)
    return words


def _kept(rows: Sequence[Row], machine: Mapping[str, Any], path: Path) -> list[Row]:
    """Merge rows into a results file and return all of them."""
    known = json.loads(path.read_text())["rows"] if path.is_file() else []
    merged = merge(known, rows)
    write(merged, machine, path)
    return merged


def report(rows: Sequence[Row], machine: Mapping[str, Any], *, keep: bool) -> str:
    """Return the tables of the comparison.

    Parameters
    ----------
    rows
        Rows of fits.
    machine
        Description of the machine.
    keep
        Also merge the rows into the results file, and update diagram, document and README.

    Returns
    -------
    str
        Markdown.
    """
    if not keep:
        return sections(rows)
    rows = _kept(rows, machine, RESULTS)
    longest = max((row["budget"] for row in rows if row["budget"] is not None), default=None)
    if longest is not None and len(tools := comparable(rows, longest)) > 1:
        DIAGRAM.write_text(diagram(compare(rows, tools)))
        if README.is_file():
            fill(README, MARKS, ranking(rows, longest))
    words = sections(rows)
    if DOCS.is_file():
        fill(DOCS, MARKS, words)
    return words
