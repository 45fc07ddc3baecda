"""Colours, template and texts that all figures share.

Backgrounds are transparent and texts grey, so that figures are readable on light and dark pages.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from parallelmlp_search._optional import require

if TYPE_CHECKING:
    import plotly.graph_objects as go

MODEL = "#4c6ef5"
"""The ensemble and what belongs to it."""

SECOND = "#0ca678"
"""Something beside the ensemble: other finalists, medians, groups of columns."""

WRONG = "#e8590c"
"""Errors and losses."""

OTHERS = "#8a94a6"
"""Everything that is there to compare with: baselines, other trials, reference lines."""

CLASSES = (MODEL, WRONG, SECOND, "#be4bdb", "#f59f00", "#15aabf", "#e64980", "#74b816")
"""Classes or outputs, in the order of their frequency."""

TEXT, GRID = "#6b7486", "rgba(128,138,158,0.22)"

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

LOG_STEPS = ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7))
"""Numbers between powers of ten that have ticks, tried until there are three ticks."""

MIN_BARS = 5
"""Bars for which a figure has room at least."""

MAX_LABEL = 28
"""Characters of a label on an axis."""


def graph_objects() -> Any:
    """Return ``plotly.graph_objects``.

    Raises
    ------
    MissingDependencyError
        If plotly is not installed.
    """
    return require("plotly.graph_objects", extra="plots", purpose="to draw figures")


def template() -> dict[str, Any]:
    """Return the template of all figures."""
    axis = {
        "gridcolor": GRID,
        "zerolinecolor": GRID,
        "linecolor": GRID,
        "automargin": True,
        "ticks": "",
        "ticklabelstandoff": 4,
        "title": {"standoff": 8, "font": {"size": 13}},
    }
    return {
        "layout": {
            "font": {"family": FONT, "size": 13, "color": TEXT},
            "title": {"x": 0, "xref": "container", "xanchor": "left", "pad": {"l": 12}, "font": {"size": 16}},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "colorway": list(CLASSES),
            "xaxis": axis,
            "yaxis": axis,
            "margin": {"l": 12, "r": 16, "t": 48, "b": 12},
            "legend": {
                "orientation": "h",
                "yanchor": "bottom",
                "y": 1.0,
                "xanchor": "left",
                "x": 0,
                "bgcolor": "rgba(0,0,0,0)",
            },
            "hoverlabel": {"font": {"family": FONT, "size": 13}, "align": "left"},
            "hovermode": "closest",
            "bargap": 0.35,
        }
    }


def new_figure(title: str, caption: str, **layout: Any) -> go.Figure:
    """Return an empty figure.

    Parameters
    ----------
    title, caption
        Title, and one or two sentences on what the figure shows, which a page prints below the title.
    **layout
        Attributes of the layout.

    Returns
    -------
    Figure
    """
    go = graph_objects()
    # `update_layout` would merge the template with that of plotly, which takes 50 ms instead of 2
    meta = {"caption": caption}
    return go.Figure(layout=go.Layout(template=template(), title_text=title, meta=meta, **layout))


def caption_of(figure: go.Figure) -> str:
    """Return the sentences on what a figure shows."""
    meta: Mapping[str, Any] = figure.layout.meta or {}
    return str(meta.get("caption", ""))


def label(text: Any, length: int = MAX_LABEL) -> str:
    """Return a text from data as plotly shows it literally, shortened to some length.

    plotly reads a subset of HTML in labels.

    >>> label("<b>a & b</b>")
    '&lt;b&gt;a &amp; b&lt;/b&gt;'
    """
    shown = " ".join(str(text).split())
    shown = shown if len(shown) <= length else f"{shown[: length - 1].rstrip()}…"
    return escape(shown, quote=False)


def unique_labels(texts: list[str], length: int = MAX_LABEL) -> list[str]:
    """Return labels that differ: categories of an axis with the same label would be drawn on each other."""
    found: list[str] = []
    for text in texts:
        shown, number = label(text, length), 2
        while shown in found:
            shown, number = f"{label(text, length - 4)} ({number})", number + 1
        found.append(shown)
    return found


def bar_height(count: int, *, row: int = 26, rest: int = 96) -> int:
    """Return the height in pixels of a figure with some horizontal bars.

    Parameters
    ----------
    count
        Number of bars.
    row, rest
        Pixels of a bar, and of everything else.

    Returns
    -------
    int
    """
    return rest + row * max(1, count)


def ticks(low: float, high: float) -> dict[str, Any]:
    """Return the ticks of a logarithmic axis: powers of ten, with numbers between them if they are few.

    >>> ticks(900.0, 40000.0)["ticktext"]
    ['1k', '3k', '10k', '30k']
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    inside: list[float] = []
    for steps in LOG_STEPS:
        values = [step * 10.0**power for power in powers for step in steps]
        inside = [value for value in values if low <= value <= high]
        if len(inside) >= 3:
            break
    return {"type": "log", "tickvals": inside, "ticktext": [short_number(value) for value in inside]}


def short_number(value: float) -> str:
    """Format a number of an axis.

    >>> short_number(0.25), short_number(1500.0), short_number(2e7)
    ('0.25', '1.5k', '20M')
    """
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{suffix}"
    return f"{value:.3g}"


def bar_axis(count: int) -> dict[str, Any]:
    """Return the vertical axis of some horizontal bars, which are not thicker if they are few."""
    return {"range": [max(count, MIN_BARS) - 0.5, -0.5], "showgrid": False}


def robust_range(values: Any, best: float, *, share: float = 0.08) -> list[float] | None:
    """Return the range of an axis that leaves out the worst scores; None if all fit.

    Parameters
    ----------
    values
        Finite scores.
    best
        The best of them.
    share
        Share of the scores that may be left out.

    Returns
    -------
    list of float or None
    """
    finite = np.asarray(values, dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    if len(finite) < 8:
        return None
    distance = np.abs(finite - best)
    limit = float(np.quantile(distance, 1.0 - share))
    if limit == 0.0 or distance.max() < 2.0 * limit:
        return None
    worst = best - limit if finite.min() < best else best + limit
    low, high = min(best, worst), max(best, worst)
    pad = 0.06 * (high - low)
    return [low - pad, high + pad]
