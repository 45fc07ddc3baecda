"""What a run has come to: the summary of a search, its leaderboard, one trial, an evaluation."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from parallelmlp_search.report.terminal.wording import (
    compact,
    config_words,
    epochs_words,
    seconds_words,
    widths_words,
    with_error,
    worded_score,
)

__all__ = ["environment_page", "evaluation_table", "leaderboard_table", "search_summary", "trial_page"]

Record = Mapping[str, Any]

SHOWN_MEMBERS = 8


def search_summary(result: Record, leaderboard: Sequence[Record], run: str) -> RenderableType:
    """Outcome of a search and what to type next.

    Parameters
    ----------
    result
        Summary of the search, as ``result.json`` holds it.
    leaderboard
        Rows of the leaderboard, best first.
    run
        Path of the run directory.
    """
    page = _page()
    honest = result.get("honest")
    metric = str(result["metric"])
    if honest and _finite(honest.get("score")):
        page.add_row("honest score", _honest_line(metric, honest))
        page.add_row("", Text(_interval_words(honest), style="dim"))
    elif honest and _finite(honest.get("naive")):
        page.add_row(
            "score", f"{metric} {worded_score(honest['naive'])} (on the rows that chose the ensemble)"
        )
    by_trial = {int(record["trial"]): record for record in leaderboard}
    best = by_trial.get(int(result["best_trial"]))
    if best is not None:
        words = f"trial {best['trial']}, {metric} {worded_score(best.get('score'))}, {config_words(best)}"
        page.add_row("best network", words)
    members = ensemble_members(leaderboard)
    if members:
        page.add_row("ensemble", _ensemble(members))
    for name, words in treatment_words(result):
        page.add_row(name, words)
    page.add_row("searched", _effort(result))
    page.add_row("took", seconds_words(float(result["elapsed_seconds"])))
    for number, sentence in enumerate(result.get("cut") or ()):
        page.add_row("" if number else "left out", Text(str(sentence), style="yellow"))
    page.add_row("run", Text(run, style="bold"))
    quoted = shlex.quote(run)
    commands = [f"pmlp leaderboard {quoted}", f"pmlp predict {quoted} NEW.csv --output predictions.csv"]
    page.add_row("next", Text("\n".join(commands), style="cyan"))
    return Group("", page, "")


def treatment_words(result: Record) -> list[tuple[str, str]]:
    """What predictions of a run go through, as pairs of what and how; none where they stay as they are."""
    found = []
    temperature = result.get("temperature") or 1.0
    if temperature != 1.0:
        found.append(("probabilities", f"at temperature {temperature:.3g}"))
    decision = result.get("decision")
    if decision and len(decision) == 2:
        (first, low), (second, high) = decision.items()
        share = low / (low + high)
        found.append(("decision", f"{second} where its probability is above {share:.3g}, else {first}"))
    elif decision:
        named = sorted(decision.items(), key=lambda item: -item[1])
        shown = ", ".join(f"{label} {weight:.2f}" for label, weight in named[:SHOWN_MEMBERS])
        rest = f", and {len(named) - SHOWN_MEMBERS} more" if len(named) > SHOWN_MEMBERS else ""
        found.append(("decision", f"the largest probability times the class's weight: {shown}{rest}"))
    if result.get("refitted"):
        count = int(result["refitted"])
        found.append(("refitted", f"on all rows, {count} network{'s' * (count > 1)} a configuration"))
    return found


def ensemble_members(leaderboard: Sequence[Record]) -> list[Record]:
    """Rows of the leaderboard with a share in the ensemble, largest first."""
    members = [record for record in leaderboard if (record.get("ensemble_weight") or 0) > 0]
    return sorted(members, key=lambda record: (-record["ensemble_weight"], record["trial"]))


def leaderboard_table(leaderboard: Sequence[Record], *, width: int) -> RenderableType:
    """Rows of a leaderboard, best first; a narrow terminal sees fewer columns."""
    if not leaderboard:
        return Text("no trial has a score yet", style="dim")
    wide = width >= 90
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", show_edge=False)
    for name in ("#", "trial", str(leaderboard[0].get("metric") or "score")):
        table.add_column(name, justify="right", no_wrap=True)
    has_error = wide and any(_finite(record.get("standard_error")) for record in leaderboard)
    if has_error:
        table.add_column("±", justify="right", no_wrap=True, style="dim")
    table.add_column("weight", justify="right", no_wrap=True)
    if wide:
        for name in ("epochs", "parameters"):
            table.add_column(name, justify="right", no_wrap=True, style="dim")
    table.add_column("state", no_wrap=True)
    table.add_column("configuration")  # the only column that gives way
    for record in leaderboard:
        rank, weight = record.get("rank"), record.get("ensemble_weight") or 0.0
        cells = ["-" if rank is None else str(rank), str(record["trial"]), worded_score(record.get("score"))]
        if has_error:
            error = record.get("standard_error")
            cells.append(worded_score(error) if _finite(error) else "")
        cells.append(f"{weight:.2f}" if weight > 0 else "")
        if wide:
            cells += [epochs_words(record.get("epochs")), f"{record.get('n_parameters') or 0:,}"]
        cells.append(str(record.get("state") or ""))
        style = "bold" if rank == 1 else "" if weight > 0 else "dim"
        table.add_row(*cells, _one_line(record.get("failure") or config_words(record)), style=style)
    return table


def trial_page(trial: Mapping[str, Any]) -> RenderableType:
    """One trial: its state, its configuration, and what each rung found.

    Parameters
    ----------
    trial
        Mapping with the keys ``trial``, ``state``, ``metric``, ``rank``, ``score``, ``ensemble_weight``,
        ``n_parameters``, ``origin``, ``failure``, ``configuration`` (a mapping) and ``rungs`` (mappings with
        ``round``, ``rung``, ``epochs``, ``score``, ``train_loss``, ``train_seconds``).
    """
    page = _page()
    state = str(trial["state"])
    if trial.get("failure"):
        state += f": {trial['failure']}"
    page.add_row("trial", Text(f"{trial['trial']}, {state}", style="bold"))
    if trial.get("rank") is not None:
        page.add_row("rank", f"{trial['rank']}, {trial['metric']} {worded_score(trial.get('score'))}")
    weight = trial.get("ensemble_weight") or 0.0
    page.add_row("in the ensemble", f"with weight {weight:.2f}" if weight > 0 else "no")
    page.add_row("drawn", str(trial.get("origin") or "-"))
    page.add_row("parameters", f"{trial.get('n_parameters') or 0:,}")

    configuration = _page()
    for name, value in trial["configuration"].items():
        shown = widths_words(value) or "none (a linear model)" if name == "widths" else _plain_value(value)
        configuration.add_row(name.replace("_", " "), shown)

    rungs = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", show_edge=False)
    for name in ("round", "rung", "epochs", str(trial["metric"]), "training loss", "seconds"):
        rungs.add_column(name, justify="right", no_wrap=True)
    for rung in trial["rungs"]:
        rungs.add_row(
            str(rung["round"] + 1),
            str(rung["rung"] + 1),
            epochs_words(rung["epochs"]),
            worded_score(rung.get("score")),
            worded_score(rung.get("train_loss")),
            f"{rung.get('train_seconds') or 0:.3f}",
        )
    return Group("", page, "", Text("configuration", style="bold"), configuration, "", rungs, "")


def evaluation_table(evaluation: Mapping[str, Any]) -> RenderableType:
    """Scores of a run on a table with the target.

    Parameters
    ----------
    evaluation
        Mapping with the keys ``n_rows``, ``scores`` (by metric), ``metric`` (of the search) and ``honest``;
        and, where the run has them, ``temperature``, ``decision`` and ``refitted`` of its result.
    """
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", show_edge=False)
    table.add_column("metric", no_wrap=True)
    table.add_column(f"{evaluation['n_rows']:,} rows", justify="right", no_wrap=True)
    honest = evaluation.get("honest")
    known = bool(honest) and _finite(honest["score"]) if honest else False
    if known:
        table.add_column("honest score of the run", justify="right", no_wrap=True)
    for name, score in evaluation["scores"].items():
        searched = name == evaluation["metric"]
        cells = [name, worded_score(score)]
        if known and honest:
            cells.append(with_error(honest["score"], honest.get("standard_error")) if searched else "")
        table.add_row(*cells, style="bold" if searched else "")
    words = treatment_words(evaluation)
    if not words:
        return table
    page = _page()
    for name, text in words:
        page.add_row(name, text)
    return Group(table, "", page)


def environment_page(environment: Mapping[str, Any]) -> RenderableType:
    """Versions, machine and extras, as ``pmlp info`` found them."""
    page = _page()
    for name, version in environment["versions"].items():
        page.add_row(name, str(version or "not installed"))
    page.add_row("platform", environment["platform"])
    page.add_row("cores", str(environment["cores"]))
    memory = environment["memory_bytes"]
    page.add_row("memory", "unknown" if memory is None else f"{memory / 1e9:.1f} GB")
    gpus = ", ".join(environment["gpus"]) or "no GPU that torch can use"
    page.add_row("device", f"{environment['device']} ({gpus})")
    for extra, present in environment["extras"].items():
        page.add_row(f"extra {extra}", "present" if present else "not installed")
    return Group("", page, "")


def _page() -> Table:
    """Two columns: what, and how it is; long values wrap inside theirs."""
    grid = Table.grid(padding=(0, 3, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    return grid


def _honest_line(metric: str, honest: Record) -> Text:
    line = Text(f"{metric} ")
    line.append(with_error(float(honest["score"]), honest.get("standard_error")), style="bold green")
    return line


def _interval_words(honest: Record) -> str:
    error = honest.get("standard_error") or 0.0
    decimals = max(0, min(8, 1 - math.floor(math.log10(error)))) if _finite(error) and error > 0 else 4
    words = []
    if _finite(honest.get("low")) and _finite(honest.get("high")):
        words.append(f"95 % interval {honest['low']:,.{decimals}f} to {honest['high']:,.{decimals}f}")
    if _finite(honest.get("naive")):
        words.append(f"{honest['naive']:,.{decimals}f} before the correction")
    if _finite(honest.get("averaging")) and honest["averaging"]:
        words.append(f"{honest['averaging']:+,.{decimals}f} of it for averaging folds")
    return ", ".join(words)


def _ensemble(members: Sequence[Record]) -> RenderableType:
    noun = "network" if len(members) == 1 else "networks"
    lines: list[RenderableType] = [Text(f"{len(members)} {noun}")]
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(style="dim")
    for member in members[:SHOWN_MEMBERS]:
        words = _one_line(config_words(member))
        grid.add_row(f"{member['ensemble_weight']:.2f}", f"trial {member['trial']}", words)
    lines.append(grid)
    if len(members) > SHOWN_MEMBERS:
        rest = members[SHOWN_MEMBERS:]
        share = sum(float(member["ensemble_weight"]) for member in rest)
        lines.append(Text(f"{share:.2f}  {len(rest)} more", style="dim"))
    return Group(*lines)


def _effort(result: Record) -> str:
    epochs = epochs_words(result["max_epochs"])
    facts = [f"{int(result['n_trials']):,} trials", f"up to {epochs} epoch{'' if epochs == '1' else 's'}"]
    if result.get("n_folds"):
        facts.append(f"{result['n_folds']} folds")
    if result.get("member_steps"):
        facts.append(f"{compact(float(result['member_steps']))} member-steps")
    return ", ".join(facts)


def _one_line(text: str) -> Text:
    """A text that is cut rather than wrapped."""
    return Text(text, no_wrap=True, overflow="ellipsis")


def _plain_value(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _finite(value: Any) -> bool:
    return value is not None and math.isfinite(value)
