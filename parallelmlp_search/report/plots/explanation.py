"""Figures of an explanation: importance of columns and partial dependence."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pandas as pd

from parallelmlp_search.exceptions import InvalidParameterError, near_miss
from parallelmlp_search.report.plots.theme import (
    CLASSES,
    MODEL,
    OTHERS,
    SECOND,
    bar_axis,
    bar_height,
    graph_objects,
    label,
    new_figure,
    unique_labels,
)

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from parallelmlp_search.explain import Explanation

MAX_COLUMNS = 20
"""Columns and groups whose importance is drawn."""

MAX_OUTPUTS = 5
"""Classes whose dependence is drawn, those that change most."""

CHANCE = 0.05
"""p-value above which an importance may be chance."""

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


def importance(explanation: Explanation) -> go.Figure:
    """Importance of columns and of groups of correlated columns, with standard errors."""
    table, summary = explanation.importance, explanation.summary
    single = table[~table["group"].map(lambda group: isinstance(group, str))]
    shown = single.head(MAX_COLUMNS)
    caption = "The importance of columns is not known, because the rows have no known target."
    if len(table):
        rest = f" The first {len(shown)} of {len(single)} are shown." if len(shown) < len(single) else ""
        caption = (
            f"How much worse {summary['metric']} becomes when the values of a column are shuffled between "
            f"{summary['n_permuted']:,} {summary['rows']} rows, with standard errors. Correlated columns are "
            f"shuffled together. Grey: may be chance (p > {CHANCE}).{rest}"
        )
    figure = new_figure(
        "Importance of columns",
        caption,
        height=bar_height(len(shown)),
        xaxis_title=f"increase of the error ({summary.get('metric', '')})",
    )
    colors = [
        OTHERS if not p <= CHANCE else SECOND if is_group else MODEL
        for p, is_group in zip(shown["p_value"], shown["is_group"], strict=True)
    ]
    figure.add_trace(
        graph_objects().Bar(
            x=shown["importance"].tolist(),
            y=unique_labels(shown["name"].tolist()),
            orientation="h",
            marker_color=colors,
            error_x={"type": "data", "array": shown["standard_error"].tolist(), "color": OTHERS, "width": 3},
            customdata=shown["p_value"].tolist(),
            hovertemplate="%{y}: %{x:.4g}<br>p = %{customdata:.3g}<extra></extra>",
        )
    )
    figure.update_yaxes(**bar_axis(len(shown)))
    return figure


def dependence_columns(explanation: Explanation) -> list[str]:
    """Return the columns whose partial dependence is known."""
    return [str(name) for name in explanation.dependence["column"].unique()]


def dependence(explanation: Explanation, column: str | None = None) -> go.Figure:
    """Mean prediction when a column is set to one value in all rows, with the range of 80 % of the rows.

    Parameters
    ----------
    explanation, column
        Explanation; column, or None for the most important one.

    Raises
    ------
    InvalidParameterError
        If the dependence on the column is not known.
    """
    known = dependence_columns(explanation)
    name = column if column is not None else known[0] if known else ""
    if name not in known:
        raise InvalidParameterError(
            f"column must be one whose dependence was computed, but got {name!r}"
            f"{near_miss(str(name), known)}: explain it with columns=[{name!r}]"
        )
    table = explanation.dependence
    curves = [
        (str(output), curve) for output, curve in table[table["column"] == name].groupby("output", sort=False)
    ]
    curves.sort(key=lambda item: -float(item[1]["prediction"].max() - item[1]["prediction"].min()))
    unit = "prediction" if explanation.summary["task"] == "regression" else "probability"
    outputs = list(explanation.summary["outputs"])
    of_class = f" of {label(outputs[0], 20)}" if len(outputs) == 1 else ""
    figure = new_figure(
        f"Dependence on {label(name)}",
        "Mean prediction when the column has one value in all rows; the band or bar holds 80 % of the rows.",
        height=320,
        showlegend=len(outputs) > 1,
    )
    alone, axis = len(outputs) == 1, f"{unit}{of_class}"
    for place, (output, curve) in enumerate(curves[:MAX_OUTPUTS]):
        # the same colour in all figures where the colours suffice
        color = CLASSES[outputs.index(output) if len(outputs) <= len(CLASSES) else place]
        if curve["position"].notna().sum() >= max(2, len(curve) - 1):
            figure.update_layout(xaxis_title=label(name), yaxis={"title": axis, **_range(explanation)})
            _add_curve(figure, curve[curve["position"].notna()], label(output), color, band=alone)
            _add_missing(figure, curve[curve["position"].isna()], label(output), color)
        else:
            figure.update_layout(xaxis={"title": axis, **_range(explanation)})
            _add_categories(figure, curve, label(output), color, bars=alone)
    return figure


def _range(explanation: Explanation) -> dict[str, list[float]]:
    """Range of predictions of all columns, so that their curves can be compared."""
    table = explanation.dependence
    bands = ("low", "high") if len(explanation.summary["outputs"]) == 1 else ("prediction", "prediction")
    low, high = float(table[bands[0]].min()), float(table[bands[1]].max())
    pad = 0.05 * (high - low) or 1.0
    bounds = [low - pad, high + pad]
    if explanation.summary["task"] != "regression":
        bounds = [max(-0.02, bounds[0]), min(1.02, bounds[1])]
    return {"range": bounds}


def _add_curve(figure: go.Figure, curve: pd.DataFrame, name: str, color: str, *, band: bool) -> None:
    """Add the curve of numbers or dates."""
    go = graph_objects()
    is_date = bool(_DAY.match(str(curve["value"].iloc[0])))
    x = curve["value"].tolist() if is_date else curve["position"].tolist()
    if band:
        quiet = {"mode": "lines", "line": {"width": 0}, "showlegend": False, "hoverinfo": "skip"}
        figure.add_trace(go.Scatter(x=x, y=curve["low"].tolist(), **quiet))
        figure.add_trace(
            go.Scatter(
                x=x, y=curve["high"].tolist(), fill="tonexty", fillcolor="rgba(76,110,245,0.16)", **quiet
            )
        )
    figure.add_trace(
        go.Scatter(
            x=x,
            y=curve["prediction"].tolist(),
            name=name,
            mode="lines+markers",
            line={"color": color, "width": 2},
            marker={"size": 4},
            customdata=curve["share"].tolist(),
            hovertemplate="%{x}: %{y:.4g}<br>%{customdata:.0%} of the rows up to here<extra></extra>",
        )
    )


def _add_missing(figure: go.Figure, curve: pd.DataFrame, name: str, color: str) -> None:
    """Add the prediction for missing values as a line."""
    for value in curve["prediction"].tolist():
        figure.add_hline(
            y=value,
            line={"color": color, "dash": "dash", "width": 1.2},
            annotation={"text": "missing", "font": {"size": 11}},
        )


def _add_categories(figure: go.Figure, curve: pd.DataFrame, name: str, color: str, *, bars: bool) -> None:
    """Add the points of categories."""
    shown = curve.reset_index(drop=True)
    error = None
    if bars:
        error = {
            "type": "data",
            "symmetric": False,
            "array": (shown["high"] - shown["prediction"]).clip(lower=0).tolist(),
            "arrayminus": (shown["prediction"] - shown["low"]).clip(lower=0).tolist(),
            "color": "rgba(76,110,245,0.3)",
            "thickness": 6,
            "width": 0,
        }
    figure.add_trace(
        graph_objects().Scatter(
            x=shown["prediction"].tolist(),
            y=unique_labels([str(value) for value in shown["value"]], 18),
            name=name,
            mode="markers",
            marker={"size": 9, "color": color},
            error_x=error,
            customdata=shown["share"].tolist(),
            hovertemplate="%{y}: %{x:.4g}<br>%{customdata:.1%} of the rows<extra></extra>",
        )
    )
    figure.update_yaxes(type="category", autorange="reversed", showgrid=False)
