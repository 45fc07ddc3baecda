"""Critical-difference diagram: joins tools that the Nemenyi test cannot distinguish.

Demsar, "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 7, 2006.
"""

from __future__ import annotations

import math
from html import escape

import numpy as np
from scipy.stats import studentized_range

from benchmarks.quality.summary import Comparison

__all__ = ["cliques", "critical_difference", "diagram"]

WIDTH, MARGIN, TOP, STEP = 760.0, 210.0, 70.0, 20.0


def critical_difference(n_tools: int, n_sets: int, level: float = 0.05) -> float:
    """Return the difference of mean ranks below which Nemenyi's test cannot distinguish two tools.

    ``q sqrt(k (k + 1) / (6 n))``, where ``q`` is the quantile of the studentized range divided by
    ``sqrt(2)``.

    Parameters
    ----------
    n_tools, n_sets
        ``k`` and ``n``.
    level
        Significance level.

    Returns
    -------
    float
    """
    quantile = float(studentized_range.ppf(1.0 - level, n_tools, np.inf)) / math.sqrt(2.0)
    return quantile * math.sqrt(n_tools * (n_tools + 1) / (6.0 * n_sets))


def cliques(ranks: list[float], difference: float) -> list[tuple[int, int]]:
    """Return the longest runs ``(first, last)`` of ascending mean ranks within a difference."""
    runs: list[tuple[int, int]] = []
    for first in range(len(ranks)):
        last = max(place for place in range(first, len(ranks)) if ranks[place] - ranks[first] <= difference)
        if last > first and (not runs or last > runs[-1][1]):
            runs.append((first, last))
    return runs


def diagram(comparison: Comparison) -> str:
    """Draw the diagram as SVG: better tools on the left, a bar over those that are not distinguishable."""
    ranks = comparison.mean_ranks.tolist()
    n_tools = len(ranks)
    difference = critical_difference(n_tools, len(comparison.sets))
    groups = cliques(ranks, difference)
    axis = TOP + 10.0 * len(groups)
    n_left = (n_tools + 1) // 2
    height = axis + STEP * (n_left + 2)

    def x(rank: float) -> float:
        return MARGIN + (rank - 1.0) / max(n_tools - 1, 1) * (WIDTH - 2 * MARGIN)

    def line(x1: float, y1: float, x2: float, y2: float, width: float = 1.0) -> str:
        return (
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
            f'stroke="#222" stroke-width="{width}"/>'
        )

    def text(at: float, y: float, words: str, anchor: str = "middle") -> str:
        return f'<text x="{at:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:.0f} {height:.0f}" '
        'font-family="sans-serif" font-size="12" fill="#222">',
        f'<rect width="{WIDTH:.0f}" height="{height:.0f}" fill="white"/>',
        line(x(1), axis, x(n_tools), axis),
    ]
    for rank in range(1, n_tools + 1):
        parts += [line(x(rank), axis - 5, x(rank), axis), text(x(rank), axis - 9, str(rank))]
    # the length of the critical difference, above the axis
    end = min(x(1 + difference), WIDTH - 5)
    parts += [
        line(x(1), 30, end, 30, 1.5),
        line(x(1), 26, x(1), 34),
        line(end, 26, end, 34),
        text(x(1), 20, f"critical difference {difference:.2f}, {len(comparison.sets)} sets", "start"),
    ]
    for number, (first, last) in enumerate(groups):
        y = axis - 28.0 - 10.0 * number
        parts.append(line(x(ranks[first]) - 3, y, x(ranks[last]) + 3, y, 4.0))
    for place, (tool, rank) in enumerate(zip(comparison.tools, ranks, strict=True)):
        is_left = place < n_left
        y = axis + STEP * (1 + (place if is_left else n_tools - 1 - place))
        edge = MARGIN - 12 if is_left else WIDTH - MARGIN + 12
        parts += [line(x(rank), axis, x(rank), y), line(x(rank), y, edge, y)]
        words = f"{tool} ({rank:.2f})"
        parts.append(text(edge - 4 if is_left else edge + 4, y + 4, words, "end" if is_left else "start"))
    return "\n".join([*parts, "</svg>"]) + "\n"
