"""Figures of a search: its score beside baselines, the ensemble, learning curves, costs, phases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from parallelmlp_search.report.plots.theme import (
    MODEL,
    OTHERS,
    SECOND,
    bar_axis,
    bar_height,
    graph_objects,
    label,
    new_figure,
    robust_range,
    ticks,
)
from parallelmlp_search.report.results.finished import FinishedSearch
from parallelmlp_search.report.wording import describe_config, format_duration, format_score, is_finite

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from parallelmlp_search.inference import TrainedModel

MAX_LINES = 120
"""Trials that did not reach the end whose learning curves are drawn one by one; more become a band."""

MAX_SCATTERED = 1500
"""Trials of a scatter plot: the best half of them, and a sample of the others."""

MAX_MEMBERS = 20

BASELINES = {
    "gradient_boosting": "gradient boosting",
    "linear": "linear model",
    "prior": "no columns (prior)",
}


def axis_of_score(search: FinishedSearch) -> str:
    """Return the title of an axis of scores."""
    return f"{search.metric} ({'higher' if search.greater_is_better else 'lower'} is better)"


def baselines(search: FinishedSearch) -> go.Figure:
    """Score of the ensemble with its 95 % interval, beside the best network and the baselines."""
    go, result = graph_objects(), search.result
    figure = new_figure(
        "Score beside simple models",
        "Honest score with its 95 % interval, and scores of simple models on the same rows."
        + _remarks(search),
        xaxis_title=axis_of_score(search),
        showlegend=False,
    )
    honest, rows = result.get("honest") or {}, []
    if is_finite(honest.get("score")):
        rows.append(("this model", float(honest["score"]), MODEL, honest))
    rows += [
        (BASELINES.get(one["name"], one["name"]), float(one["score"]), OTHERS, {})
        for one in reversed(result.get("baselines") or ())
        if is_finite(one["score"])
    ]
    for name, score, color, interval in rows:
        bar = None
        if is_finite(interval.get("low")) and is_finite(interval.get("high")):
            bar = {
                "type": "data",
                "symmetric": False,
                "array": [interval["high"] - score],
                "arrayminus": [score - interval["low"]],
                "color": color,
                "thickness": 2.5,
                "width": 7,
            }
        figure.add_trace(
            go.Scatter(
                x=[score],
                y=[label(name)],
                mode="markers+text",
                text=[format_score(score)],
                textposition="top center",
                marker={"size": 13, "color": color},
                error_x=bar,
                cliponaxis=False,
                hovertemplate="%{y}: %{text}<extra></extra>",
            )
        )
    figure.update_layout(height=bar_height(len(rows), row=46, rest=84))
    figure.update_yaxes(autorange="reversed", showgrid=False)
    return figure


def _remarks(search: FinishedSearch) -> str:
    """Sentences on baselines that have no score or learned from a part of the rows."""
    found = []
    for one in search.result.get("baselines") or ():
        name = str(one["name"]).replace("_", " ").capitalize()
        if one["left_out"]:
            found.append(f" {name} was left out ({one['left_out']}).")
        elif one["share"] < 0.995:
            found.append(f" {name} learned from {100 * one['share']:.0f} % of the rows.")
    return "".join(found)


def ensemble_weights(search: FinishedSearch) -> go.Figure:
    """Weight of each network of the ensemble."""
    members = search.ranked[search.ranked["member"]].sort_values("ensemble_weight", ascending=False)
    shown = members.head(MAX_MEMBERS)
    rest = f" The {len(shown)} largest of {len(members)} are shown." if len(members) > len(shown) else ""
    figure = new_figure(
        "Networks of the ensemble",
        "Weight of each network in the prediction. Every network is trained once per fold." + rest,
        height=bar_height(len(shown)),
        xaxis_title="weight",
    )
    records = shown.to_dict("records")
    names = [f"trial {row['trial']}" for row in records]
    figure.add_trace(
        graph_objects().Bar(
            x=shown["ensemble_weight"].tolist(),
            y=names,
            orientation="h",
            marker_color=MODEL,
            text=[label(describe_config(row), 60) for row in records],
            textposition="auto",
            insidetextfont={"color": "#fff"},
            constraintext="none",
            cliponaxis=False,
            customdata=[format_score(row["score"]) for row in records],
            hovertemplate="%{y}, %{text}<br>weight %{x:.3f}, score %{customdata}<extra></extra>",
        )
    )
    figure.update_yaxes(**bar_axis(len(shown)))
    return figure


def phases(search: FinishedSearch) -> go.Figure:
    """Elapsed time of each phase of the search."""
    found = {name: float(values["seconds"]) for name, values in (search.result.get("phases") or {}).items()}
    total = sum(found.values())
    figure = new_figure(
        "Time per phase",
        f"The search took {format_duration(float(search.result['elapsed_seconds']))}.",
        height=bar_height(len(found)),
        xaxis_title="seconds",
    )
    figure.add_trace(
        graph_objects().Bar(
            x=list(found.values()),
            y=[label(name) for name in found],
            orientation="h",
            marker_color=MODEL,
            text=[
                f"{format_duration(value)} · {100 * value / max(total, 1e-9):.0f} %"
                for value in found.values()
            ],
            textposition="outside",
            cliponaxis=False,
            hovertemplate="%{y}: %{text}<extra></extra>",
        )
    )
    figure.update_yaxes(**bar_axis(len(found)))
    figure.update_xaxes(range=[0, 1.35 * max(found.values(), default=1.0)])
    return figure


def learning_curves(search: FinishedSearch) -> go.Figure:
    """Score of trials on the validation rows after each rung."""
    trials = search.trials[np.isfinite(search.trials["score"].astype(float))]
    state = search.leaderboard.set_index("trial")["state"]
    finished = trials["trial"].map(state).eq("complete")
    # the last record of a finalist is its cross-fitting, which has other rows
    is_last = trials["rung"].eq(trials.groupby("trial")["rung"].transform("max"))
    screened = trials[~(finished & is_last)].sort_values(["trial", "rung"])
    members = set(search.ranked.loc[search.ranked["member"], "trial"])
    is_finalist, is_member = screened["trial"].map(state).eq("complete"), screened["trial"].isin(members)
    others = screened[~is_finalist]
    n_others = int(others["trial"].nunique())
    figure = new_figure(
        "Learning curves",
        "Score on the validation rows after each rung of screening. On each rung the best third advances."
        + (" The band holds 80 % of the trials that were stopped." if n_others > MAX_LINES else ""),
        height=420,
        xaxis={"title": "epochs", "type": "log", **_rung_ticks(screened)},
        yaxis_title=axis_of_score(search),
    )
    if n_others > MAX_LINES:
        _add_band(figure, others)
    elif n_others:
        _add_lines(figure, others, "stopped", OTHERS, 0.45)
    _add_lines(figure, screened[is_finalist & ~is_member], "other finalists", SECOND, 0.8)
    _add_lines(figure, screened[is_member], "in the ensemble", MODEL, 1.0)
    scores = screened["score"].to_numpy(float)
    if len(scores):
        best = float(scores.max() if search.greater_is_better else scores.min())
        figure.update_yaxes(range=robust_range(scores, best))
    return figure


def _rung_ticks(trials: pd.DataFrame) -> dict[str, list[Any]]:
    """Ticks at the epochs of the rungs."""
    epochs = sorted(trials.groupby("rung")["epochs"].max().unique().tolist())
    return {"tickvals": epochs, "ticktext": [f"{value:.3g}" for value in epochs]}


def _add_lines(figure: go.Figure, trials: pd.DataFrame, name: str, color: str, opacity: float) -> None:
    """Add the curves of some trials as one trace."""
    x: list[float | None] = []
    y: list[float | None] = []
    texts: list[str] = []
    for number, rows in trials.groupby("trial", sort=False):
        x += [*rows["epochs"].tolist(), None]
        y += [*rows["score"].tolist(), None]
        texts += [f"trial {number}"] * (len(rows) + 1)
    if not x:
        return
    figure.add_trace(
        graph_objects().Scatter(
            x=x,
            y=y,
            text=texts,
            name=name,
            mode="lines+markers",
            opacity=opacity,
            line={"color": color, "width": 1.5},
            marker={"size": 5, "color": color},
            hovertemplate="%{text}<br>%{x:.3g} epochs: %{y:.5g}<extra></extra>",
        )
    )


def _add_band(figure: go.Figure, trials: pd.DataFrame) -> None:
    """Add the median and the 10 and 90 % quantiles at each rung."""
    rungs = trials.groupby("rung").agg(
        epochs=("epochs", "median"),
        low=("score", lambda scores: scores.quantile(0.1)),
        middle=("score", "median"),
        high=("score", lambda scores: scores.quantile(0.9)),
        count=("score", "size"),
    )
    go, x = graph_objects(), rungs["epochs"].tolist()
    quiet = {"mode": "lines", "line": {"width": 0}, "showlegend": False, "hoverinfo": "skip"}
    figure.add_trace(go.Scatter(x=x, y=rungs["low"].tolist(), **quiet))
    figure.add_trace(
        go.Scatter(x=x, y=rungs["high"].tolist(), fill="tonexty", fillcolor="rgba(138,148,166,0.25)", **quiet)
    )
    figure.add_trace(
        go.Scatter(
            x=x,
            y=rungs["middle"].tolist(),
            name="stopped (median)",
            mode="lines+markers",
            line={"color": OTHERS, "width": 2},
            text=[f"{count:,} trials" for count in rungs["count"]],
            hovertemplate="median of %{text}<br>%{x:.3g} epochs: %{y:.5g}<extra></extra>",
        )
    )


def score_by_size(search: FinishedSearch) -> go.Figure:
    """Score of each trial against its number of parameters."""
    figure = new_figure("Score and size", "Score of each trial against the number of its parameters.")
    return _scattered(figure, search, search.ranked["n_parameters"].to_numpy(float), "parameters")


def score_by_latency(search: FinishedSearch, model: TrainedModel) -> go.Figure:
    """Score of each trial against the predicted time in which it predicts a row."""
    figure = new_figure(
        "Score and prediction time",
        "Score of each trial against the time in which one network predicts a row on one core, in batches of "
        "256, by the cost model of the search.",
    )
    return _scattered(figure, search, search.latencies(model), "microseconds per row")


def _scattered(figure: go.Figure, search: FinishedSearch, cost: Any, axis: str) -> go.Figure:
    board = search.ranked.assign(cost=cost)
    board = board[np.isfinite(board["score"].astype(float)) & (board["cost"] > 0)]
    caption = figure.layout.meta["caption"]
    caption += " The line joins trials that no smaller one of the same rung surpasses."
    if len(board) > MAX_SCATTERED:
        best, rest = board.head(MAX_SCATTERED // 2), board.iloc[MAX_SCATTERED // 2 :]
        sample = rest.sample(MAX_SCATTERED - len(best), random_state=0)
        caption += f" {MAX_SCATTERED:,} of {len(board):,} trials are shown, the best and a sample."
        board = pd.concat([best, sample])
    figure.update_layout(
        height=420,
        meta={"caption": caption},
        xaxis={"title": axis, **_cost_ticks(board["cost"])},
        yaxis_title=axis_of_score(search),
    )
    complete = board["state"] == "complete"
    parts = (
        ("stopped", board[~complete], OTHERS, 0.45, 6),
        ("other finalists", board[complete & ~board["member"]], SECOND, 0.85, 8),
        ("in the ensemble", board[board["member"]], MODEL, 1.0, 10),
    )
    for name, rows, color, opacity, size in parts:
        if len(rows):
            records = rows.to_dict("records")
            figure.add_trace(
                graph_objects().Scatter(
                    x=rows["cost"].tolist(),
                    y=rows["score"].tolist(),
                    name=name,
                    mode="markers",
                    marker={"color": color, "size": size, "opacity": opacity},
                    text=[f"trial {row['trial']}, {label(describe_config(row), 60)}" for row in records],
                    hovertemplate=f"%{{text}}<br>%{{x:,.4g}} {axis}, score %{{y:.5g}}<extra></extra>",
                )
            )
    _add_front(figure, search, board[complete] if complete.any() else board)
    scores = board["score"].to_numpy(float)
    if len(scores):
        best_score = float(scores.max() if search.greater_is_better else scores.min())
        figure.update_yaxes(range=robust_range(scores, best_score))
    return figure


def _cost_ticks(cost: pd.Series) -> dict[str, Any]:
    return ticks(float(cost.min()), float(cost.max())) if len(cost) else {}


def _add_front(figure: go.Figure, search: FinishedSearch, board: pd.DataFrame) -> None:
    """Add the line of trials such that each cheaper one is worse."""
    ordered = board.sort_values(["cost", "error"])
    front = ordered[ordered["error"] < ordered["error"].cummin().shift(fill_value=np.inf)]
    if len(front) > 1:
        figure.add_trace(
            graph_objects().Scatter(
                x=front["cost"].tolist(),
                y=front["score"].tolist(),
                mode="lines",
                line={"color": OTHERS, "width": 1.2, "dash": "dot", "shape": "hv"},
                showlegend=False,
                hoverinfo="skip",
            )
        )
