"""Figures of the configurations: importance of hyperparameters and parallel coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from parallelmlp_search.report.plots.theme import (
    MODEL,
    OTHERS,
    bar_axis,
    bar_height,
    graph_objects,
    label,
    new_figure,
)
from parallelmlp_search.report.results.finished import FinishedSearch
from parallelmlp_search.report.results.hyperparameters import (
    MIN_TRIALS,
    HyperparameterImportance,
    importance_in_search,
)

if TYPE_CHECKING:
    import plotly.graph_objects as go

MAX_ROWS = 9
"""Hyperparameters of the parallel coordinates."""

MAX_LINES = 240
"""Trials that are drawn as lines, besides the best."""

BEST_SHARE, MIN_BEST, MAX_BEST = 0.1, 3, 40
"""Share and limits of the trials that are drawn as the best."""

MAX_CATEGORIES = 8
"""Distinct values from which an axis shows only the range of numbers."""

Doubles = NDArray[np.float64]


def importance_of_hyperparameters(
    search: FinishedSearch, importance: HyperparameterImportance | None = None
) -> go.Figure:
    """Importance of hyperparameters for the rank of a trial."""
    found = importance_in_search(search) if importance is None else importance
    if found is None:
        return new_figure("Importance of hyperparameters", f"It needs at least {MIN_TRIALS} ranked trials.")
    figure = new_figure(
        "Importance of hyperparameters",
        "How much worse a forest predicts the ranks of unseen trials without each hyperparameter. With all "
        f"of them, it explains {100 * max(0.0, found.explained):.0f} % of the variance of the ranks of "
        f"{found.n_trials:,} trials{' that were drawn at random' if found.at_random else ''}.",
        height=bar_height(len(found.names), row=24),
        xaxis_title="share of the variance of ranks",
    )
    figure.add_trace(
        graph_objects().Bar(
            x=list(found.values),
            y=[label(name.replace("_", " ")) for name in found.names],
            orientation="h",
            marker_color=MODEL,
            hovertemplate="%{y}: %{x:.3f}<extra></extra>",
        )
    )
    figure.update_yaxes(**bar_axis(len(found.names)))
    figure.update_xaxes(tickformat=".0%", rangemode="tozero")
    return figure


def parallel_coordinates(
    search: FinishedSearch, importance: HyperparameterImportance | None = None
) -> go.Figure:
    """Configurations as lines over the hyperparameters, the best ones in colour.

    Axes are below each other, which leaves room for names and fits narrow screens. Lines are drawn as SVG:
    plotly's own parallel coordinates need WebGL, which not every browser has.
    """
    table = search.hyperparameters
    names = list(table.columns)
    if importance is not None:
        names = [name for name in importance.names if name in names]
    names = names[:MAX_ROWS]
    n_best = int(np.clip(round(BEST_SHARE * len(table)), MIN_BEST, MAX_BEST))
    figure = new_figure(
        "Configurations of the best trials",
        "Each line is a trial and crosses every hyperparameter at its value. The best "
        f"{min(n_best, len(table))} are coloured, the others grey.",
        height=110 + 58 * len(names),
        xaxis={"visible": False, "range": [-0.06, 1.06], "fixedrange": True},
    )
    places = {name: _positions(table[name]) for name in names}
    generator = np.random.default_rng(0)
    rest = np.arange(n_best, len(table))
    if len(rest) > MAX_LINES:
        rest = np.sort(generator.choice(rest, MAX_LINES, replace=False))
    levels = [float(len(names) - 1 - place) for place in range(len(names))]
    jitter = generator.uniform(-1, 1, (len(table), len(names)))
    x = np.column_stack([places[name][0] + places[name][1] * jitter[:, k] for k, name in enumerate(names)])
    for rows, title, color, opacity, width in (
        (rest, "other trials", OTHERS, 0.22, 1.0),
        (np.arange(min(n_best, len(table))), "best trials", MODEL, 0.75, 1.6),
    ):
        if len(rows):
            _add_lines(figure, search, (x, levels), rows, (title, color, opacity, width))
    for level, name in zip(levels, names, strict=True):
        _add_ticks(figure, table[name], level)
    figure.update_yaxes(
        tickvals=levels,
        ticktext=[label(name.replace("_", " ")) for name in names],
        range=[-0.65, len(names) - 0.7],
        zeroline=False,
        fixedrange=True,
    )
    return figure


def _add_lines(
    figure: go.Figure,
    search: FinishedSearch,
    points: tuple[Doubles, Sequence[float]],
    rows: NDArray[np.intp],
    style: tuple[str, str, float, float],
) -> None:
    """Add some trials as one trace of broken lines."""
    (x, levels), (name, color, opacity, width) = points, style
    xs: list[float | None] = []
    ys: list[float | None] = []
    texts: list[str] = []
    board = search.ranked
    for row in rows.tolist():
        xs += [None if np.isnan(value) else round(value, 4) for value in x[row].tolist()] + [None]
        ys += [*levels, None]
        text = f"rank {board['rank'].iloc[row]}, trial {board['trial'].iloc[row]}"
        texts += [text] * (len(levels) + 1)
    figure.add_trace(
        graph_objects().Scatter(
            x=xs,
            y=ys,
            name=name,
            mode="lines",
            opacity=opacity,
            line={"color": color, "width": width, "shape": "linear"},
            text=texts,
            hovertemplate="%{text}<extra></extra>",
            connectgaps=False,
        )
    )


def is_logarithmic(values: pd.Series) -> bool:
    """Return True for positive numbers that span more than a factor of 20."""
    numbers = values.dropna().to_numpy(dtype=np.float64)
    return bool(len(numbers) and numbers.min() > 0 and numbers.max() / numbers.min() > 20)


def _is_number(values: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(values.dtype) and not pd.api.types.is_bool_dtype(values.dtype)


def _categories(values: pd.Series) -> list[object] | None:
    """Distinct values of an axis of categories, in their order; None for an axis of numbers."""
    distinct = values.dropna().unique().tolist()
    if _is_number(values):
        are_round = all(float(f"{value:.2g}") == value or value == int(value) for value in distinct)
        return sorted(distinct) if len(distinct) <= MAX_CATEGORIES and are_round else None
    return sorted(distinct, key=lambda value: (str(value) != "none", str(value)))


def _positions(values: pd.Series) -> tuple[Doubles, float]:
    """Positions from 0 to 1 of the values of one axis, NaN for missing ones, and the room for jitter."""
    categories = _categories(values)
    if categories is not None:
        place = {value: number for number, value in enumerate(categories)}
        codes: Doubles = np.asarray(values.map(place), dtype=np.float64)
        spread = max(1, len(categories) - 1)
        found: Doubles = codes / spread if len(categories) > 1 else codes + 0.5
        return found, min(0.05, 0.16 / spread)
    numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
    if is_logarithmic(values):
        numbers = np.asarray(np.log(numbers), dtype=np.float64)
    low, high = float(np.nanmin(numbers)), float(np.nanmax(numbers))
    return (numbers - low) / max(high - low, 1e-300), 0.0


def _add_ticks(figure: go.Figure, values: pd.Series, level: float) -> None:
    """Add the values of one axis as texts below it."""
    categories = _categories(values)
    if categories is None:
        numbers = values.dropna().to_numpy(dtype=np.float64)
        low, high = float(numbers.min()), float(numbers.max())
        middle = float(np.sqrt(low * high)) if is_logarithmic(values) else (low + high) / 2
        texts, places = [f"{value:.2g}" for value in (low, middle, high)], [0.0, 0.5, 1.0]
    else:
        texts = [_category_text(value) for value in categories]
        places = [n / max(1, len(texts) - 1) if len(texts) > 1 else 0.5 for n in range(len(texts))]
    for text, place in zip(texts, places, strict=True):
        figure.add_annotation(
            x=place,
            y=level,
            text=label(text, 14),
            showarrow=False,
            yshift=-13,
            xanchor="left" if place == 0.0 else "right" if place == 1.0 else "center",
            font={"size": 11},
        )


def _category_text(value: object) -> str:
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) else str(value).replace("_", " ")
