"""Figures of predictions against known targets: calibration, ROC, precision, confusion, residuals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.report.plots.theme import (
    CLASSES,
    MODEL,
    OTHERS,
    WRONG,
    graph_objects,
    label,
    new_figure,
    unique_labels,
)
from parallelmlp_search.report.results.curves import (
    Curve,
    calibration_of,
    confusion_counts,
    precision_recall_curves,
    roc_curves,
    shown_classes,
)
from parallelmlp_search.report.results.evaluated import EvaluatedRows
from parallelmlp_search.report.wording import format_score

if TYPE_CHECKING:
    import plotly.graph_objects as go

MAX_CURVES = 6
"""Classes whose curves are drawn."""

MAX_WRITTEN, MAX_CLASSES = 12, 40
"""Classes of a confusion matrix up to which counts are written into the cells, and that are shown."""

MAX_POINTS = 1200
"""Rows up to which predictions are drawn as points; more are counted in bins."""

N_BINS = 56

CELLS = [[0.0, "rgba(76,110,245,0)"], [1.0, "rgba(76,110,245,0.75)"]]
ERROR_CELLS = [[0.0, "rgba(232,89,12,0)"], [1.0, "rgba(232,89,12,0.6)"]]
"""Colours of right and wrong predictions: transparent for none, so that they suit light and dark pages."""

Doubles = NDArray[np.float64]


def _rows_text(rows: EvaluatedRows) -> str:
    return f"{len(rows):,} {rows.origin} rows"


def _check_classes(rows: EvaluatedRows, name: str, *, wanted: bool) -> None:
    if rows.classifies is not wanted:
        kind = "classes" if wanted else "a regression"
        raise InvalidParameterError(f"{name} needs {kind}, but the model is of another task")


def calibration(rows: EvaluatedRows) -> go.Figure:
    """Frequency of an event against its predicted probability.

    Raises
    ------
    InvalidParameterError
        If the model is a regression.
    """
    _check_classes(rows, "calibration", wanted=True)
    go, found = graph_objects(), calibration_of(rows)
    event = f"class {label(rows.labels[1])}" if len(rows.labels) == 2 else "the most probable class is right"
    figure = new_figure(
        "Calibration",
        f"Predicted probability and observed frequency in {len(found.count)} bins of equal size, with 95 % "
        f"intervals ({_rows_text(rows)}). The mean distance from the diagonal is {found.error:.3f}.",
        height=420,
        xaxis={"title": f"predicted probability: {event}", "range": [-0.02, 1.02]},
        yaxis={"title": "observed frequency", "range": [-0.02, 1.02]},
        showlegend=False,
    )
    _add_line(figure, [0, 1], [0, 1])
    figure.add_trace(
        go.Scatter(
            x=found.probability,
            y=found.frequency,
            mode="lines+markers",
            line={"color": MODEL, "width": 2},
            marker={"size": 8, "color": MODEL},
            error_y={
                "type": "data",
                "symmetric": False,
                "array": np.maximum(0.0, found.high - found.frequency),
                "arrayminus": np.maximum(0.0, found.frequency - found.low),
                "color": MODEL,
                "thickness": 1.2,
                "width": 4,
            },
            hovertemplate="probability %{x:.3f}, frequency %{y:.3f}<extra></extra>",
        )
    )
    return figure


def _add_line(figure: go.Figure, x: list[float], y: list[float], name: str | None = None) -> None:
    """Add a reference line."""
    figure.add_trace(
        graph_objects().Scatter(
            x=x,
            y=y,
            mode="lines",
            name=name,
            showlegend=name is not None,
            line={"color": OTHERS, "width": 1.2, "dash": "dot"},
            hoverinfo="skip",
        )
    )


def roc(rows: EvaluatedRows) -> go.Figure:
    """ROC curve, of several classes each against all others.

    Raises
    ------
    InvalidParameterError
        If the model is a regression.
    """
    _check_classes(rows, "roc", wanted=True)
    classes = shown_classes(rows, MAX_CURVES)
    figure = new_figure(
        "ROC curve",
        _curves_caption(
            "Share of the rows of a class that are found, against the share of false alarms", rows
        ),
        height=420,
        xaxis={"title": "false positive rate", "range": [-0.01, 1.01]},
        yaxis={"title": "true positive rate", "range": [-0.01, 1.01]},
    )
    _add_line(figure, [0, 1], [0, 1])
    curves = roc_curves(rows, classes)
    _add_curves(figure, curves, "area")
    if len(rows.labels) == 2 and curves and rows.predicted is not None:
        _add_operating_point(figure, rows, "roc")
    return figure


def precision_recall(rows: EvaluatedRows) -> go.Figure:
    """Precision against recall, of several classes each against all others.

    Raises
    ------
    InvalidParameterError
        If the model is a regression.
    """
    _check_classes(rows, "precision_recall", wanted=True)
    curves = precision_recall_curves(rows, shown_classes(rows, MAX_CURVES))
    figure = new_figure(
        "Precision and recall",
        _curves_caption("Share of the predicted rows that are right, against the share that is found", rows),
        height=420,
        xaxis={"title": "recall", "range": [-0.01, 1.01]},
        yaxis={"title": "precision", "range": [-0.01, 1.02]},
    )
    if len(curves) == 1:
        _add_line(figure, [0, 1], [curves[0].share] * 2)
    _add_curves(figure, curves, "average")
    if len(rows.labels) == 2 and curves and rows.predicted is not None:
        _add_operating_point(figure, rows, "precision_recall")
    return figure


def _curves_caption(meaning: str, rows: EvaluatedRows) -> str:
    if len(rows.labels) == 2:
        return f"{meaning}: class {rows.labels[1]} ({_rows_text(rows)})."
    shown = min(MAX_CURVES, len(rows.labels))
    return f"{meaning}: {shown} of {len(rows.labels)} classes, each against all others ({_rows_text(rows)})."


def _add_curves(figure: go.Figure, curves: list[Curve], area: str) -> None:
    names = unique_labels([curve.label for curve in curves], 18)
    for curve, name, color in zip(curves, names, CLASSES, strict=False):
        figure.add_trace(
            graph_objects().Scatter(
                x=curve.x.round(5),
                y=curve.y.round(5),
                mode="lines",
                name=f"{name}: {area} {format_score(curve.area)}",
                showlegend=True,
                line={"color": color, "width": 2, "simplify": False},
                hovertemplate="%{x:.3f}, %{y:.3f}",
            )
        )


def _add_operating_point(figure: go.Figure, rows: EvaluatedRows, curve: str) -> None:
    """Add the point of the predicted classes."""
    counts = confusion_counts(rows)
    (true_negative, false_positive), (false_negative, true_positive) = counts
    found = true_positive / max(1e-12, true_positive + false_negative)
    if curve == "roc":
        x, y = false_positive / max(1e-12, false_positive + true_negative), found
    else:
        x, y = found, true_positive / max(1e-12, true_positive + false_positive)
    figure.add_trace(
        graph_objects().Scatter(
            x=[x],
            y=[y],
            mode="markers",
            name="predicted class",
            marker={"size": 11, "color": WRONG, "line": {"color": "#fff", "width": 1.5}},
            hovertemplate="decision threshold of the model<br>%{x:.3f}, %{y:.3f}<extra></extra>",
        )
    )


def confusion_matrix(rows: EvaluatedRows) -> go.Figure:
    """Predicted classes of the rows of each class.

    Raises
    ------
    InvalidParameterError
        If the model is a regression.
    """
    _check_classes(rows, "confusion_matrix", wanted=True)
    counts = confusion_counts(rows)
    order = np.argsort(-counts.sum(axis=1), kind="stable")[:MAX_CLASSES]
    order = np.sort(order)
    shown = counts[np.ix_(order, order)]
    share = shown / np.maximum(counts.sum(axis=1)[order, None], 1e-12)
    names = unique_labels([rows.labels[number] for number in order.tolist()], 18)
    accuracy = float(np.trace(counts) / counts.sum())
    only = f" The {len(order)} most frequent classes are shown." if len(order) < len(counts) else ""
    figure = new_figure(
        "Confusion matrix",
        f"Predicted classes of the rows of each class ({_rows_text(rows)}); {100 * accuracy:.1f} % are "
        "right. Colours are shares of the true class; errors are orange, the darkest for the most frequent."
        + only,
        height=int(np.clip(150 + 44 * len(order), 320, 760)),
        xaxis={"title": "predicted class", "type": "category", "showgrid": False},
        yaxis={"title": "true class", "type": "category", "autorange": "reversed", "showgrid": False},
    )
    texts = None
    if len(order) <= MAX_WRITTEN:
        texts = [
            [f"{count:,.0f}<br>{100 * part:.0f} %" for count, part in zip(*line, strict=True)]
            for line in zip(shown, share, strict=True)
        ]
    is_right = np.eye(len(order), dtype=bool)
    for mask, colors in ((is_right, CELLS), (~is_right, ERROR_CELLS)):
        figure.add_trace(
            graph_objects().Heatmap(
                x=names,
                y=names,
                z=np.where(mask, share, np.nan),
                zmin=0.0,
                zmax=1.0 if colors is CELLS else max(1e-12, float(share[mask].max(initial=0.0))),
                customdata=shown,
                text=texts,
                texttemplate=None if texts is None else "%{text}",
                colorscale=colors,
                showscale=False,
                hoverongaps=False,
                xgap=2,
                ygap=2,
                hovertemplate="true %{y}, predicted %{x}<br>%{customdata:,.0f} rows, %{z:.2%}<extra></extra>",
            )
        )
    return figure


def predicted_and_actual(rows: EvaluatedRows, output: int = 0) -> go.Figure:
    """Target of each row against its prediction.

    Parameters
    ----------
    rows, output
        Rows; number of the output of a regression.

    Raises
    ------
    InvalidParameterError
        If the model has classes.
    """
    _check_classes(rows, "predicted_and_actual", wanted=False)
    predicted, actual = rows.predictions[output], rows.target[output].astype(np.float64)
    name = label(rows.labels[output])
    figure = new_figure(
        f"Predicted and actual {name}",
        f"Each row at its prediction and its target ({_rows_text(rows)}); on the line they agree.",
        height=420,
        xaxis_title=f"predicted {name}",
        yaxis_title=f"actual {name}",
        showlegend=False,
    )
    low = float(min(np.quantile(predicted, 0.001), np.quantile(actual, 0.001)))
    high = float(max(np.quantile(predicted, 0.999), np.quantile(actual, 0.999)))
    _add_cloud(figure, predicted, actual, ((low, high), (low, high)))
    _add_line(figure, [low, high], [low, high])
    return figure


def residuals(rows: EvaluatedRows, output: int = 0) -> go.Figure:
    """Residual, target minus prediction, against the prediction.

    Parameters
    ----------
    rows, output
        Rows; number of the output of a regression.

    Raises
    ------
    InvalidParameterError
        If the model has classes.
    """
    _check_classes(rows, "residuals", wanted=False)
    predicted = rows.predictions[output]
    difference = rows.target[output].astype(np.float64) - predicted
    name = label(rows.labels[output])
    half = np.quantile(np.abs(difference), 0.5)
    most = np.quantile(np.abs(difference), 0.9)
    figure = new_figure(
        f"Residuals of {name}",
        f"Target minus prediction ({_rows_text(rows)}). Half of the rows are off by at most "
        f"{format_score(half)}, 90 % by at most {format_score(most)}.",
        height=420,
        xaxis_title=f"predicted {name}",
        yaxis_title="actual minus predicted",
        showlegend=False,
    )
    x_range = (float(np.quantile(predicted, 0.001)), float(np.quantile(predicted, 0.999)))
    limit = float(np.quantile(np.abs(difference), 0.995))
    _add_cloud(figure, predicted, difference, (x_range, (-limit, limit)))
    _add_line(figure, list(x_range), [0.0, 0.0])
    return figure


def _add_cloud(figure: go.Figure, x: Doubles, y: Doubles, ranges: Any) -> None:
    """Add rows as points, or counted in bins if they are many."""
    go = graph_objects()
    if len(x) <= MAX_POINTS:
        figure.add_trace(
            go.Scatter(
                x=x,
                y=y,
                mode="markers",
                marker={"color": MODEL, "size": 6, "opacity": 0.5},
                hovertemplate="predicted %{x:.5g}<br>%{y:.5g}<extra></extra>",
            )
        )
        return
    (low_x, high_x), (low_y, high_y) = [(low, high if high > low else low + 1.0) for low, high in ranges]
    counts, edges_x, edges_y = np.histogram2d(x, y, N_BINS, [[low_x, high_x], [low_y, high_y]])
    shown = np.where(counts.T > 0, counts.T, np.nan)
    figure.add_trace(
        go.Heatmap(
            x=(edges_x[:-1] + edges_x[1:]) / 2,
            y=(edges_y[:-1] + edges_y[1:]) / 2,
            z=np.log1p(shown),
            customdata=shown,
            colorscale=[[0.0, "rgba(76,110,245,0.12)"], [1.0, "rgba(76,110,245,1)"]],
            showscale=False,
            hovertemplate="predicted %{x:.4g}<br>%{y:.4g}<br>%{customdata:,.0f} rows<extra></extra>",
        )
    )
