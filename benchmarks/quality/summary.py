"""Summary of all fits: ranks, wins, errors relative to the best, seconds, bias of scores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

__all__ = [
    "Bias",
    "Change",
    "Comparison",
    "bias_of",
    "change_table",
    "changes_of",
    "compare",
    "comparison_table",
    "error_table",
    "label",
]

SHIFT = 0.01
"""Added to relative excess errors before their geometric mean, so that ties with the best do not dominate."""

TIE = 1e-9
"""Difference of errors up to which two tools are equal."""


@dataclass(frozen=True)
class Comparison:
    """Comparison of tools on the tables that all of them have finished.

    Attributes
    ----------
    tools
        Labels, best mean rank first.
    sets
        Tables of the comparison.
    errors
        (tools, sets) mean error over the seeds that all tools have in common.
    ranks
        (tools, sets) ranks, 1 is best; ties share their mean rank.
    wins
        (tools, tools) tables on which the tool of the row has the lower error; a tie counts half.
    seconds
        (tools,) median seconds of a fit per 1,000 training rows, over fits with the largest number of
        threads; NaN without such a fit.
    """

    tools: tuple[str, ...]
    sets: tuple[str, ...]
    errors: NDArray[np.float64]
    ranks: NDArray[np.float64]
    wins: NDArray[np.float64]
    seconds: NDArray[np.float64]

    @property
    def mean_ranks(self) -> NDArray[np.float64]:
        """(tools,) mean rank over the sets."""
        means: NDArray[np.float64] = self.ranks.mean(axis=1)
        return means

    @property
    def excess(self) -> NDArray[np.float64]:
        """(tools,) shifted geometric mean of ``error / best - 1``."""
        best = self.errors.min(axis=0)
        relative = self.errors / np.maximum(best, 1e-12) - 1.0
        return np.asarray(np.exp(np.log(relative + SHIFT).mean(axis=1)) - SHIFT)


def label(row: Mapping[str, Any]) -> str:
    """Return tool and time limit as one name: ``ours 30 s``, ``lightgbm``."""
    return row["tool"] if row["budget"] is None else f"{row['tool']} {row['budget']:g} s"


def compare(rows: Sequence[Mapping[str, Any]], tools: Sequence[str] | None = None) -> Comparison:
    """Compare tools.

    A failed fit ranks last on its table, with twice the worst error of the others. Tables and seeds that one
    of the tools has not run are ignored.

    Parameters
    ----------
    rows
        Results of fits.
    tools
        Labels to compare; all by default.

    Returns
    -------
    Comparison

    Raises
    ------
    ValueError
        If no table is left.
    """
    labels = tuple(dict.fromkeys(label(row) for row in rows)) if tools is None else tuple(tools)
    errors: dict[tuple[str, str, int], float] = {}
    seconds: dict[str, list[float]] = {name: [] for name in labels}
    threads = max((row.get("threads", 0) for row in rows), default=0)
    for row in rows:
        name = label(row)
        if name not in labels:
            continue
        errors[name, row["set"], row["seed"]] = row.get("error", math.nan)
        if row.get("seconds") is not None and row.get("threads", 0) == threads:
            seconds[name].append(row["seconds"] / row["train_rows"] * 1000.0)
    places: dict[str, list[int]] = {}
    for _, name, seed in errors:
        if all((tool, name, seed) in errors for tool in labels) and seed not in places.get(name, []):
            places.setdefault(name, []).append(seed)
    sets = tuple(sorted(places))
    if not sets:
        raise ValueError(f"no table was finished by all of {', '.join(labels)}")
    table = np.empty((len(labels), len(sets)))
    for column, name in enumerate(sets):
        cells = np.array([[errors[tool, name, seed] for seed in places[name]] for tool in labels])
        worst = np.nanmax(cells) if np.isfinite(cells).any() else 1.0
        table[:, column] = np.where(np.isnan(cells), 2.0 * worst, cells).mean(axis=1)
    ranks = rankdata(table, axis=0)
    order = np.argsort(ranks.mean(axis=1), kind="stable")
    table, ranks = table[order], ranks[order]
    difference = table[None, :, :] - table[:, None, :]
    wins = (difference > TIE).sum(axis=2) + 0.5 * (np.abs(difference) <= TIE).sum(axis=2)
    ordered = tuple(labels[index] for index in order)
    medians = np.array([np.median(seconds[name]) if seconds[name] else math.nan for name in ordered])
    return Comparison(ordered, sets, table, ranks, wins, medians)


@dataclass(frozen=True)
class Bias:
    """Bias of a reported score against the score on held-out rows.

    The relative difference of errors, ``(reported - held out) / held out``; below zero, the report is
    optimistic. ``mean`` is over tables, of means over their seeds, and ``standard_error`` is that of this
    mean.
    """

    mean: float
    standard_error: float
    n_sets: int
    n_fits: int

    @property
    def is_unbiased(self) -> bool:
        """True if zero is within two standard errors."""
        return abs(self.mean) <= 2.0 * self.standard_error


def bias_of(rows: Sequence[Mapping[str, Any]], kind: str) -> Bias | None:
    """Return the bias of the ``honest`` or the ``naive`` score over all fits; None below two tables."""
    by_set: dict[str, list[float]] = {}
    for row in rows:
        reported = row.get("notes", {}).get(kind)
        if reported is not None and math.isfinite(reported) and "error" in row and row["error"] > 0:
            by_set.setdefault(row["set"], []).append((reported - row["error"]) / row["error"])
    if len(by_set) < 2:
        return None
    means = np.array([np.mean(differences) for differences in by_set.values()])
    error = float(means.std(ddof=1) / math.sqrt(len(means)))
    return Bias(float(means.mean()), error, len(by_set), sum(map(len, by_set.values())))


@dataclass(frozen=True)
class Change:
    """Change of the error from one tool to another, over tables.

    Attributes
    ----------
    mean
        Geometric mean of the ratios of errors, minus one; below zero the first tool is better.
    standard_error
        Standard error of the mean, from the spread over tables; NaN for one table.
    low, high
        Smallest and largest ratio, minus one.
    n_worse, n_sets
        Tables on which the first tool has the larger error, and tables that both have run.
    """

    mean: float
    standard_error: float
    low: float
    high: float
    n_worse: int
    n_sets: int


def changes_of(rows: Sequence[Mapping[str, Any]], tool: str, than: str) -> Change | None:
    """Compare the errors of two tools, seed by seed.

    A failed fit counts as twice the error of the other tool.

    Parameters
    ----------
    rows
        Rows of fits.
    tool, than
        Labels of both tools.

    Returns
    -------
    Change or None
        None if they have no table in common.
    """
    errors = {(label(row), row["set"], row["seed"]): row.get("error", math.inf) for row in rows}
    by_set: dict[str, list[float]] = {}
    for (name, place, seed), error in errors.items():
        other = errors.get((than, place, seed), math.inf)
        if name == tool and math.isfinite(other):
            by_set.setdefault(place, []).append(math.log(2.0 if math.isinf(error) else error / other))
    if not by_set:
        return None
    logs = np.array([np.mean(values) for values in by_set.values()])
    spread = float(logs.std(ddof=1) / math.sqrt(len(logs))) if len(logs) > 1 else math.nan
    mean, low, high = np.expm1([logs.mean(), logs.min(), logs.max()]).tolist()
    return Change(mean, spread, low, high, int((logs > TIE).sum()), len(logs))


def change_table(rows: Sequence[Mapping[str, Any]], names: Mapping[str, str], than: str) -> str:
    """Return the changes of variants as a Markdown table, best first, without those that share no table.

    Parameters
    ----------
    rows
        Results of fits.
    names
        Labels of the variants, and their names in the table.
    than
        Label of the default.

    Returns
    -------
    str
    """
    found = [(changes_of(rows, variant, than), name) for variant, name in names.items()]
    known = sorted(((change, name) for change, name in found if change), key=lambda one: one[0].mean)
    lines = ["| changed | error | standard error | worse on | range |", "|---|---|---|---|---|"]
    lines.extend(
        f"| {name} | {change.mean:+.1%} | {change.standard_error:.1%} "
        f"| {change.n_worse} of {change.n_sets} | {change.low:+.0%} to {change.high:+.0%} |"
        for change, name in known
    )
    return "\n".join(lines)


def comparison_table(
    rows: Sequence[Mapping[str, Any]], tools: Sequence[str], others: Sequence[str] = ()
) -> str:
    """Return mean ranks, errors, wins and seconds as a Markdown table.

    Parameters
    ----------
    rows
        Results of fits.
    tools
        Labels that are ranked, on the tables that all of them have run.
    others
        Labels with too few tables for that; they are compared with ours only.

    Returns
    -------
    str
    """
    comparison = compare(rows, tools)
    own = next((tool for tool in comparison.tools if tool.startswith("ours")), comparison.tools[0])
    lines = [
        f"| {len(comparison.sets)} sets | mean rank | error above the best | {own} is better on "
        "| s per 1,000 rows |",
        "|---|---|---|---|---|",
    ]
    for index, tool in enumerate(comparison.tools):
        seconds = _two_digits(comparison.seconds[index])
        lines.append(
            f"| {tool} | {comparison.mean_ranks[index]:.2f} | {100 * comparison.excess[index]:.1f} % "
            f"| {_wins(rows, own, tool)} | {seconds} |"
        )
    lines.extend(f"| {tool} | - | - | {_wins(rows, own, tool)} | - |" for tool in others)
    return "\n".join(lines)


def _wins(rows: Sequence[Mapping[str, Any]], own: str, other: str) -> str:
    """Return on how many of their common tables the first tool has the lower error."""
    try:
        pair = compare(rows, [own, other])
    except ValueError:
        return "-"
    wins = pair.wins[pair.tools.index(own), pair.tools.index(other)]
    return "-" if own == other else f"{wins:g} of {len(pair.sets)}"


def _two_digits(number: float) -> str:
    return "-" if math.isnan(number) else f"{number:.2f}"


def error_table(rows: Sequence[Mapping[str, Any]], tools: Sequence[str]) -> str:
    """Return the errors by table as Markdown; the lowest in bold, ``-`` if a tool has not run.

    Errors are means over the seeds that all tools of a table have run.
    """
    frame = pd.DataFrame(
        [
            {"set": row["set"], "seed": row["seed"], "tool": label(row), "error": row.get("error", math.inf)}
            for row in rows
            if label(row) in tools
        ]
    )
    by_seed = frame.pivot_table(index=["set", "seed"], columns="tool", values="error")
    ran = by_seed.notna().groupby("set").any()
    common = (by_seed.notna() | ~ran.reindex(by_seed.index, level="set")).all(axis=1)
    means = by_seed[common].groupby("set").mean().reindex(index=ran.index, columns=list(tools))
    lines = [f"| | {' | '.join(tools)} |", "|---" * (len(tools) + 1) + "|"]
    for name, errors in means.iterrows():
        cells = []
        for error in errors:
            if math.isnan(error):
                cells.append("-")
            elif math.isinf(error):
                cells.append("failed")
            else:
                text = f"{error:.4g}"
                cells.append(f"**{text}**" if error <= errors.min() + TIE else text)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)
