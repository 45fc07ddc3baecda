"""Summary of a search for notebooks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from parallelmlp_search._html import card, facts, folded, table, text
from parallelmlp_search.report.wording import (
    Record,
    describe_baselines,
    describe_config,
    describe_interval,
    describe_postprocessing,
    describe_search,
    describe_task,
    format_duration,
    format_score,
    format_with_error,
    is_finite,
)

if TYPE_CHECKING:
    import pandas as pd

MAX_ROWS = 10
"""Rows of the leaderboard that are shown."""

MAX_COLUMNS = 100
"""Columns of the table of the user that are shown."""


def search_card(
    title: str,
    result: Record,
    board: pd.DataFrame,
    *,
    columns: pd.DataFrame | None = None,
    more: str = "",
) -> str:
    """Return the summary of a search as HTML.

    Parameters
    ----------
    title
        First line, such as the name of the estimator.
    result
        Content of ``result.json``.
    board
        Leaderboard with all columns.
    columns
        Facts about the columns of the table, or None.
    more
        HTML at the end.

    Returns
    -------
    str
    """
    parts = [
        f"<div>{text(title, 't')} {text(describe_task(result['task']), 's')}</div>",
        _score(result),
        facts(_facts(result, board)),
        folded(_title(board), leaderboard_html(board), is_open=True),
    ]
    if columns is not None:
        shown = columns.head(MAX_COLUMNS)
        names = [str(name) for name in shown if name != "reason"]
        rows = ([name, *row] for name, row in zip(shown.index, shown[names].to_numpy().tolist(), strict=True))
        parts.append(folded(f"Columns ({len(columns):,})", table(["column", *names], rows)))
    return card(*parts, more)


def leaderboard_html(board: pd.DataFrame) -> str:
    """Return the best rows of a leaderboard with all columns as a table."""
    names = ["rank", "trial", "score", "weight", "parameters", "seconds", "epochs", "configuration"]
    rows, kinds = [], []
    for row in board.head(MAX_ROWS).to_dict("records"):
        weight = row["ensemble_weight"]
        rank = row["rank"]
        score = row["score"]
        shown = format_with_error(score, row.get("standard_error")) if is_finite(score) else "failed"
        rows.append(
            [
                rank,
                row["trial"],
                shown,
                f"{weight:.2f}" if weight > 0 else "",
                row["n_parameters"],
                f"{row['train_seconds']:.2f}",
                row["epochs"],
                describe_config({str(name): value for name, value in row.items()}),
            ]
        )
        kinds.append("first" if weight > 0 else "rest")
    return table(names, rows, kinds)


def _title(board: pd.DataFrame) -> str:
    n, shown = len(board), min(len(board), MAX_ROWS)
    return (
        f"Leaderboard ({n} trial{'s' * (n != 1)})" if shown == n else f"Leaderboard ({shown} of {n:,} trials)"
    )


def _score(result: Record) -> str:
    """Line with the honest score, its interval, and a warning if it is no better than the prior."""
    metric, honest = str(result["metric"]), result.get("honest") or {}
    lines = []
    if is_finite(honest.get("score")):
        score = format_with_error(float(honest["score"]), honest.get("standard_error"))
        about = f"honest score, {describe_interval(honest)}"
        lines.append(f"{text(f'{metric} {score}', 'big')}{text(about, 's')}")
    elif is_finite(honest.get("naive")):
        lines.append(text(f"{metric} {format_score(honest['naive'])} without bias correction", "big"))
    if result.get("beats_prior") is False:
        lines.append(text("no better than the prior, which ignores all columns", "bad"))
    return "".join(f'<div style="margin-top:6px">{line}</div>' for line in lines)


def _facts(result: Record, board: pd.DataFrame) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    if baselines := result.get("baselines"):
        found.append(("baselines", text(describe_baselines(baselines))))
    best: list[dict[Any, Any]] = board[board["trial"] == result["best_trial"]].to_dict("records")
    if best:
        described = f"trial {best[0]['trial']}, {result['metric']} {format_score(best[0]['score'])}, "
        described += describe_config({str(name): value for name, value in best[0].items()})
        found.append(("best network", text(described)))
    n_members = int((board["ensemble_weight"] > 0).sum())
    found.append(("ensemble", text(f"{n_members} network{'s' * (n_members != 1)}")))
    found += [(name, text(value)) for name, value in describe_postprocessing(result)]
    seconds = format_duration(float(result["elapsed_seconds"]))
    found.append(("search", text(f"{describe_search(result)}, {seconds}")))
    for number, sentence in enumerate(result.get("left_out") or ()):
        found.append(("" if number else "left out", text(sentence, "warn")))
    return found
