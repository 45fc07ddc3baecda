"""Diagram of speed-ups as plain SVG, which needs no library."""

from __future__ import annotations

import math
from typing import Any

from benchmarks.packed.report import RIVALS

__all__ = ["diagram"]

WIDTH, LEFT, RIGHT, TOP, BAR, GAP = 860, 270, 60, 70, 12, 10
COLOURS = dict(zip(RIVALS, ("#0072b2", "#d55e00", "#f0a070", "#009e73", "#cc79a7", "#e69f00"), strict=True))


def diagram(rows: list[dict[str, Any]]) -> str:
    """Draw a bar for each case and rival on a logarithmic scale, with a line from q10 to q90."""
    shown = [row for row in rows if any(kind in row["ratios"] for kind in RIVALS)]
    highest = [row["ratios"][kind]["q90"] for row in shown for kind in RIVALS if kind in row["ratios"]]
    largest = max(highest, default=1.0)
    decades = max(1, math.ceil(math.log10(largest)))

    def x(ratio: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * math.log10(max(1.0, ratio)) / decades

    parts, y = [], float(TOP)
    for row in shown:
        kinds = [kind for kind in RIVALS if kind in row["ratios"]]
        middle = y + BAR * len(kinds) / 2 + 4
        parts.append(f'<text x="{LEFT - 8}" y="{middle}" text-anchor="end">{row["case"]}</text>')
        for kind in kinds:
            ratio = row["ratios"][kind]
            parts.append(
                f'<rect x="{LEFT}" y="{y + 1}" width="{x(ratio["median"]) - LEFT:.1f}" height="{BAR - 2}" '
                f'fill="{COLOURS[kind]}"/>'
            )
            parts.append(
                f'<line x1="{x(ratio["q10"]):.1f}" x2="{x(ratio["q90"]):.1f}" y1="{y + BAR / 2}" '
                f'y2="{y + BAR / 2}" stroke="black"/>'
            )
            parts.append(
                f'<text x="{x(ratio["q90"]) + 4:.1f}" y="{y + BAR - 2}" font-size="11">'
                f"{ratio['median']:.{0 if ratio['median'] >= 20 else 1}f}</text>"
            )
            y += BAR
        y += GAP
    height = y + 30
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height:.0f}" fill="white"/>',
        f'<text x="{LEFT}" y="22" font-size="16">Times faster than each rival, all cores on both sides'
        "</text>",
    ]
    spot = float(LEFT)
    for kind in RIVALS:
        if any(kind in row["ratios"] for row in shown):
            head.append(f'<rect x="{spot}" y="36" width="12" height="12" fill="{COLOURS[kind]}"/>')
            head.append(f'<text x="{spot + 17}" y="46">{RIVALS[kind]}</text>')
            spot += 130
    for decade in range(decades + 1):
        spot = x(10.0**decade)
        head.append(f'<line x1="{spot}" x2="{spot}" y1="{TOP - 6}" y2="{y}" stroke="#ddd"/>')
        head.append(f'<text x="{spot}" y="{y + 16}" text-anchor="middle">{10**decade}</text>')
    return "\n".join([*head, *parts, "</svg>", ""])
