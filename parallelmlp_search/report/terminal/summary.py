"""Terminal pages of a run: summary of a search, leaderboard, trial, evaluation; and of the environment."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from parallelmlp_search._checks import duration_text
from parallelmlp_search.data.profile.findings import percent
from parallelmlp_search.report.wording import (
    MAX_LISTED,
    Record,
    describe_baselines,
    describe_config,
    describe_distillation,
    describe_interval,
    describe_latency,
    describe_postprocessing,
    describe_search,
    format_duration,
    format_epochs,
    format_score,
    format_with_error,
    is_finite,
)

MAX_DRIFT = 10
"""Columns with drift that are shown."""

WIDE_COLUMNS = 90
"""Terminal width from which the leaderboard shows all columns."""


def search_summary(result: Record, leaderboard: Sequence[Record], run: str) -> RenderableType:
    """Page with the outcome of a search and the next commands.

    Parameters
    ----------
    result
        Content of ``result.json``.
    leaderboard
        Rows of the leaderboard, best first.
    run
        Path of the run directory.

    Returns
    -------
    RenderableType
        Two columns of names and values.
    """
    page = _page()
    metric, honest = str(result["metric"]), result.get("honest") or {}
    if is_finite(honest.get("score")):
        score = format_with_error(float(honest["score"]), honest.get("standard_error"))
        page.add_row("honest score", Text(f"{metric} ").append(score, style="bold green"))
        page.add_row("", Text(describe_interval(honest), style="dim"))
    elif is_finite(honest.get("naive")):
        page.add_row("score", f"{metric} {format_score(honest['naive'])} without bias correction")
    if result.get("beats_prior") is False:
        page.add_row("", Text("no better than the prior, which ignores all columns", style="bold red"))
    if baselines := result.get("baselines"):
        page.add_row("baselines", describe_baselines(baselines))
    best = next((row for row in leaderboard if row["trial"] == result["best_trial"]), None)
    if best is not None:
        score = format_score(best.get("score"))
        page.add_row("best network", f"trial {best['trial']}, {metric} {score}, {describe_config(best)}")
    members = [row for row in leaderboard if (row.get("ensemble_weight") or 0) > 0]
    if members:
        page.add_row("ensemble", _ensemble(members))
    if latency := result.get("latency"):
        page.add_row("latency", describe_latency(latency))
    if distilled := result.get("distilled"):
        page.add_row("distilled from", describe_distillation(distilled))
    for name, text in describe_postprocessing(result):
        page.add_row(name, text)
    page.add_row("search", describe_search(result))
    page.add_row("time", format_duration(float(result["elapsed_seconds"])))
    for number, sentence in enumerate(result.get("left_out") or ()):
        page.add_row("" if number else "left out", Text(str(sentence), style="yellow"))
    page.add_row("run", Text(run, style="bold"))
    quoted = shlex.quote(run)
    commands = [f"pmlp leaderboard {quoted}", f"pmlp report {quoted}"]
    commands.append(f"pmlp predict {quoted} NEW.csv --output predictions.csv")
    page.add_row("next", Text("\n".join(commands), style="cyan"))
    return Group("", page, "")


def _ensemble(members: Sequence[Record]) -> RenderableType:
    members = sorted(members, key=lambda row: (-row["ensemble_weight"], row["trial"]))
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(style="dim")
    for row in members[:MAX_LISTED]:
        grid.add_row(
            f"{row['ensemble_weight']:.2f}", f"trial {row['trial']}", _one_line(describe_config(row))
        )
    lines: list[RenderableType] = [Text(f"{len(members)} network{'s' * (len(members) > 1)}"), grid]
    if rest := members[MAX_LISTED:]:
        weight = sum(float(row["ensemble_weight"]) for row in rest)
        lines.append(Text(f"{weight:.2f}  {len(rest)} more", style="dim"))
    return Group(*lines)


def leaderboard_table(leaderboard: Sequence[Record], *, width: int) -> RenderableType:
    """Table of a leaderboard, best first. A terminal narrower than 90 columns shows fewer columns.

    A star marks the latency of a network if no better one is as fast.
    """
    if not leaderboard:
        return Text("no trial has a score", style="dim")
    wide = width >= WIDE_COLUMNS
    timed = any(is_finite(row.get("latency")) for row in leaderboard)
    table = _table("#", "trial", str(leaderboard[0].get("metric") or "score"))
    table.add_column("weight", justify="right", no_wrap=True)
    if timed:
        table.add_column("latency", justify="right", no_wrap=True)
    if wide:
        for name in ("epochs", "parameters"):
            table.add_column(name, justify="right", no_wrap=True, style="dim")
    table.add_column("state", no_wrap=True)
    table.add_column("configuration")  # the only column that shrinks
    for row in leaderboard:
        rank, weight = row.get("rank"), row.get("ensemble_weight") or 0.0
        score = format_with_error(row.get("score"), row.get("standard_error"))
        cells = ["-" if rank is None else str(rank), str(row["trial"]), score]
        cells.append(f"{weight:.2f}" if weight > 0 else "")
        if timed:
            latency = row.get("latency")
            text = duration_text(float(latency)) if latency is not None and is_finite(latency) else ""
            cells.append(f"* {text}" if row.get("pareto") else text)
        if wide:
            cells += [format_epochs(row.get("epochs")), f"{row.get('n_parameters') or 0:,}"]
        cells.append(str(row.get("state") or ""))
        style = "bold" if rank == 1 else "" if weight > 0 else "dim"
        table.add_row(*cells, _one_line(row.get("failure") or describe_config(row)), style=style)
    return table


def trial_page(trial: Record) -> RenderableType:
    """Page of one trial: its state, its configuration, and its scores by rung.

    Parameters
    ----------
    trial
        Mapping with the keys ``trial``, ``state``, ``metric``, ``rank``, ``score``, ``ensemble_weight``,
        ``n_parameters``, ``origin``, ``failure``, ``configuration`` (a mapping) and ``rungs`` (mappings with
        ``round``, ``rung``, ``epochs``, ``score``, ``train_loss``, ``train_seconds``). The last rung of a
        complete trial is its cross-fitting.
    """
    page = _page()
    state = str(trial["state"])
    if trial.get("failure"):
        state += f": {trial['failure']}"
    page.add_row("trial", Text(f"{trial['trial']}, {state}", style="bold"))
    if trial.get("rank") is not None:
        page.add_row("rank", f"{trial['rank']}, {trial['metric']} {format_score(trial.get('score'))}")
    weight = trial.get("ensemble_weight") or 0.0
    page.add_row("ensemble weight", f"{weight:.2f}" if weight > 0 else "none")
    page.add_row("origin", str(trial.get("origin") or "-"))
    page.add_row("parameters", f"{trial.get('n_parameters') or 0:,}")

    configuration = _page()
    for name, value in trial["configuration"].items():
        configuration.add_row(name.replace("_", " "), _format_value(name, value))

    rungs = _table("round", "rung", "epochs", str(trial["metric"]), "training loss", "seconds")
    for number, row in enumerate(trial["rungs"], start=1):
        is_cross_fitting = number == len(trial["rungs"]) and trial["state"] == "complete"
        rungs.add_row(
            str(row["round"] + 1),
            "cross-fitting" if is_cross_fitting else str(row["rung"] + 1),
            format_epochs(row["epochs"]),
            format_score(row.get("score")),
            format_score(row.get("train_loss")),
            f"{row.get('train_seconds') or 0:.3f}",
        )
    return Group("", page, "", Text("configuration", style="bold"), configuration, "", rungs, "")


def evaluation_table(evaluation: Record) -> RenderableType:
    """Table of the scores of a run on a table with the target.

    Parameters
    ----------
    evaluation
        Mapping with the keys ``n_rows``, ``scores`` (by metric), ``metric`` (of the search) and ``honest``,
        and optionally ``temperature``, ``decision_weights`` and ``refitted`` of the result, and ``drift``.
    """
    table = _table(f"{evaluation['n_rows']:,} rows", first="metric")
    honest = evaluation.get("honest") or {}
    known = is_finite(honest.get("score"))
    if known:
        table.add_column("honest score", justify="right", no_wrap=True)
    for name, score in evaluation["scores"].items():
        cells = [name, format_score(score)]
        if known and name == evaluation["metric"]:
            cells.append(format_with_error(honest["score"], honest.get("standard_error")))
        table.add_row(*cells, style="bold" if name == evaluation["metric"] else "")
    page = _page()
    for name, text in describe_postprocessing(evaluation):
        page.add_row(name, text)
    parts: list[RenderableType] = [table]
    if page.row_count:
        parts += ["", page]
    if drift := evaluation.get("drift"):
        parts += ["", _drift_table(drift)]
    return Group(*parts)


def _drift_table(drift: Sequence[Record]) -> Table:
    """Table of the columns that differ from training, the worst first."""
    table = _table("distance", "unseen", "missing before", "here", first="differs from training")
    for one in drift[:MAX_DRIFT]:
        missing = [_share(one[name]) for name in ("missing_before", "missing")]
        table.add_row(
            _one_line(one["name"]),
            f"{one['distance']:.2f}",
            _share(one["unseen"]) if one["unseen"] else "",
            *(missing if missing[0] != missing[1] else ("", "")),
        )
    if len(drift) > MAX_DRIFT:
        table.add_row(Text(f"{len(drift) - MAX_DRIFT} more: --json", style="dim"))
    return table


def _share(share: float) -> str:
    return percent(share) if share else "0 %"


def environment_page(environment: Record) -> RenderableType:
    """Page of versions, machine and extras."""
    page = _page()
    for name, version in environment["versions"].items():
        page.add_row(name, str(version or "not installed"))
    page.add_row("platform", environment["platform"])
    page.add_row("cores", str(environment["cores"]))
    memory = environment["memory_bytes"]
    page.add_row("memory", "unknown" if memory is None else f"{memory / 1e9:.1f} GB")
    gpus = ", ".join(environment["gpus"]) or "no GPU that torch can use"
    page.add_row("device", f"{environment['device']} ({gpus})")
    path = environment["path"]
    page.add_row("training", path["name"])
    if path["advice"]:
        page.add_row("", Text(path["advice"], style="yellow"))
    for extra, installed in environment["extras"].items():
        page.add_row(f"extra {extra}", "installed" if installed else "not installed")
    return Group("", page, "")


def _page() -> Table:
    """Two columns of names and values; long values wrap within their column."""
    grid = Table.grid(padding=(0, 3, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    return grid


def _table(*numbers: str, first: str | None = None) -> Table:
    """Table without lines, with columns of numbers, after a first column of texts if it has a name."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", show_edge=False)
    if first is not None:
        table.add_column(first, no_wrap=True)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _one_line(text: str) -> Text:
    return Text(text, no_wrap=True, overflow="ellipsis")


def _format_value(name: str, value: Any) -> str:
    """Value of a configuration field."""
    if name == "widths":
        return "-".join(str(int(width)) for width in value) or "none (linear model)"
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
