"""What lies under ``benchmarks/results``, and what of it stands in the docs."""

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

MAX_SHARE = 0.75

Row = Mapping[str, Any]


def merge(known: Iterable[Row], new: Iterable[Row]) -> list[Row]:
    """Rows of both, a newer fit in the place of an older one, in a fixed order."""
    rows = {(row["set"], row["seed"], row["tool"], row["budget"]): row for row in [*known, *new]}
    return [rows[key] for key in sorted(rows, key=lambda key: (*key[:3], key[3] or 0.0))]


def write(rows: Sequence[Row], machine: Mapping[str, Any], path: Path) -> None:
    """One line a fit, so that a change shows as what it is."""
    lines = ",\n".join(f"  {json.dumps(row)}" for row in rows)
    path.write_text(f'{{\n "machine": {json.dumps(machine)},\n "rows": [\n{lines}\n ]\n}}\n')


def shown_tools(rows: Sequence[Row], budget: float) -> list[str]:
    """Labels to compare at a budget: ours and others at it, and those that know none; no variants."""
    found = dict.fromkeys(
        label(row) for row in rows if row["tool"] in TOOLS and row["budget"] in (budget, None)
    )
    order = list(TOOLS)
    return sorted(found, key=lambda name: order.index(name.split(" ")[0]))


def comparable(rows: Sequence[Row], budget: float) -> list[str]:
    """Ours, and those that have run on most of its sets; others would leave few to compare."""
    places = {tool: {row["set"] for row in rows if label(row) == tool} for tool in shown_tools(rows, budget)}
    own = places.get(f"ours {budget:g} s") or max(places.values(), key=len, default=set())
    return [tool for tool, sets in places.items() if own and len(sets & own) >= MAX_SHARE * len(own)]


def ranking(rows: Sequence[Row], budget: float) -> str:
    """Who is better at a budget, as Markdown; empty where nobody has run."""
    ranked = comparable(rows, budget)
    others = [tool for tool in shown_tools(rows, budget) if tool not in ranked]
    return comparison_table(rows, ranked, others) if ranked else ""


def sections(rows: Sequence[Row]) -> str:
    """All tables of the comparison as Markdown."""
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
                f"The error that the {kind} score reports lies {100 * bias.mean:+.1f} % "
                f"± {100 * bias.standard_error:.1f} % from that on held-back rows "
                f"({bias.n_fits} fits on {bias.n_sets} sets): "
                f"{'not told apart from zero' if bias.is_unbiased else 'biased'}.\n"
            )
    return "\n".join(parts)


def variant_sections(rows: Sequence[Row]) -> str:
    """What each variant of our own search changes, as Markdown, by seconds."""
    parts = []
    for budget in sorted({row["budget"] for row in rows}):
        here = [row for row in rows if row["budget"] == budget]
        names = {label(row): row["tool"].removeprefix("ours, ") for row in here if row["tool"] != "ours"}
        parts.append(f"At {budget:g} seconds:\n\n{change_table(here, names, f'ours {budget:g} s')}\n")
    return "\n".join(parts)


def report_variants(rows: Sequence[Row], machine: Mapping[str, Any], *, keep: bool) -> str:
    """The table of variants; with ``keep`` it is also merged into the results and the page."""
    if not keep:
        return variant_sections(rows)
    words = variant_sections(_kept(rows, machine, ABLATION))
    if DOCS.is_file():
        fill(DOCS, VARIANT_MARKS, words)
    return words


def _kept(rows: Sequence[Row], machine: Mapping[str, Any], path: Path) -> list[Row]:
    """The rows together with those of a file, which then holds both."""
    known = json.loads(path.read_text())["rows"] if path.is_file() else []
    merged = merge(known, rows)
    write(merged, machine, path)
    return merged


def report(rows: Sequence[Row], machine: Mapping[str, Any], *, keep: bool) -> str:
    """The tables; with ``keep`` they are also merged into the results, the diagram and the page."""
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
