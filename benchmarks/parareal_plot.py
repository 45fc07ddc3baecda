"""Scaling plot of :mod:`benchmarks.parareal` as plain SVG, which needs no library."""

from __future__ import annotations

import math
from typing import Any

__all__ = ["scaling_plot"]

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 720, 440, 60, 50, 200, 60
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")


def scaling_plot(rows: list[dict[str, Any]]) -> str:
    """Draw speed-up over slices: predictions as lines, ranks timed alone as rings, two ranks as dots."""
    largest = max(p["slices"] for row in rows for p in row["predictions"]["quiet"])
    top = max(4.0, math.ceil(max(p["speedup"] for row in rows for p in row["predictions"]["quiet"])))

    def x(slices: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * math.log2(slices) / math.log2(largest)

    def y(speedup: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * speedup / top

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="24" font-size="16">Step of a parareal network against its serial twin</text>',
        f'<text x="{LEFT}" y="42" fill="#555">lines: cost model; rings: ranks timed one by one; '
        "dots: two ranks on two cores</text>",
    ]
    for tick in range(0, int(top) + 1, 1 if top <= 8 else 2):
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick)}" y2="{y(tick)}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y(tick) + 4}" text-anchor="end">{tick}</text>')
    parts.extend(
        f'<text x="{x(2**power)}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{2**power}</text>'
        for power in range(int(math.log2(largest)) + 1)
    )
    middle = LEFT + (WIDTH - LEFT - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 14}" text-anchor="middle">slices, one device each</text>')
    parts.append(f'<text x="16" y="{TOP + 150}" transform="rotate(-90 16 {TOP + 150})">times as fast</text>')
    for number, row in enumerate(rows):
        colour, spec = COLOURS[number % len(COLOURS)], row["spec"]
        points = [(1, 1.0), *((p["slices"], p["speedup"]) for p in row["predictions"]["quiet"])]
        path = " ".join(f"{x(slices):.1f},{y(speedup):.1f}" for slices, speedup in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        serial = row["summary"]["serial_ms"] / 1e3
        for slices, found in row["rank_by_rank"].items():
            parts.append(
                f'<circle cx="{x(int(slices))}" cy="{y(serial / found["step"])}" r="6" fill="none" '
                f'stroke="{colour}" stroke-width="2"/>'
            )
        parts.append(f'<circle cx="{x(2)}" cy="{y(row["summary"]["speedup_2"])}" r="4" fill="{colour}"/>')
        height = TOP + 20 + 22 * number
        parts.append(
            f'<rect x="{WIDTH - RIGHT + 16}" y="{height - 9}" width="18" height="4" fill="{colour}"/>'
        )
        parts.append(
            f'<text x="{WIDTH - RIGHT + 42}" y="{height}">depth {spec["depth"]}, width {spec["width"]}</text>'
        )
    return "\n".join([*parts, "</svg>", ""])
