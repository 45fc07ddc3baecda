"""Terminal page of an explanation: importance, dependence, slices, worst rows."""

from __future__ import annotations

from typing import Any

import pandas as pd
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from parallelmlp_search.explain import Explanation
from parallelmlp_search.report.wording import format_score, format_with_error

BARS = "▁▂▃▄▅▆▇█"
MAX_CURVE = 20
N_REASONS = 3
WIDE = 100
"""Terminal width from which values are shown at length."""


def explanation_page(found: Explanation, *, top: int, folder: str, width: int) -> RenderableType:
    """Return the page of an explanation.

    Parameters
    ----------
    found
        The explanation.
    top
        Most rows of each table.
    folder
        Folder of its files.
    width
        Columns of the terminal.

    Returns
    -------
    RenderableType
    """
    summary = found.summary
    parts: list[RenderableType] = []
    line = Text(f"{summary['n_rows']:,} {summary['rows']} rows", style="bold")
    if "score" in summary:
        line.append(f", {summary['metric']} {format_score(summary['score'])}")
    parts.append(line)
    if len(found.importance):
        title = (
            f"importance: how much worse {summary['metric']} becomes when a column is shuffled "
            f"({summary['n_permuted']:,} rows, {_times(summary['n_repeats'])})"
        )
        parts += [_title(title), _importance(found.importance, top, width)]
    if len(found.dependence):
        parts += [
            _title("dependence: mean prediction by the value of a column"),
            _dependence(found, top, width),
        ]
    if len(found.slices):
        title = f"slices with the largest {summary['loss']}, measured on rows that did not select them"
        parts += [_title(title), _slices(found.slices, top)]
    if len(found.worst_rows):
        title = f"rows with the largest {summary['loss']}, and what moved their predictions most"
        parts += [_title(title), _worst(found, top)]
    parts += [Text(""), *(Text(note, style="yellow") for note in found.notes)]
    parts.append(Text.assemble(("tables  ", "dim"), folder))
    return Group("", *parts, "")


def _title(text: str) -> RenderableType:
    return Group("", Text(text, style="bold"))


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _grid(*columns: tuple[str, str]) -> Table:
    """Table without lines, given names and alignments; the first column wraps."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", show_edge=False)
    for number, (name, side) in enumerate(columns):
        table.add_column(name, justify=side, no_wrap=number > 0, overflow="fold")  # type: ignore[arg-type]
    return table


def _importance(frame: pd.DataFrame, top: int, width: int) -> RenderableType:
    table = _grid(("column", "left"), ("importance", "right"), ("p", "right"), ("", "left"))
    most = max(float(frame["importance"].max()), 1e-300)
    room = max(8, min(30, width - 60))
    records = frame.to_dict("records")
    shown = 0
    for row in records:
        is_member = isinstance(row["group"], str)
        shown += not is_member
        if shown > top:
            break
        bar = "█" * max(0, round(room * row["importance"] / most))
        table.add_row(
            Text(f"  {row['name']}" if is_member else str(row["name"]), style="dim" if is_member else ""),
            format_with_error(row["importance"], row["standard_error"]),
            _p_text(row["p_value"]),
            Text(bar, style="dim" if row["p_value"] > 0.05 else "cyan"),
        )
    return table


def _p_text(value: float) -> str:
    return "-" if pd.isna(value) else "<0.001" if value < 0.001 else f"{value:.3f}"


def _dependence(found: Explanation, top: int, width: int) -> RenderableType:
    """One line per column and output: its curve from the lowest to the highest value."""
    table = _grid(
        ("column", "left"),
        ("prediction", "left"),
        ("lowest, at", "left"),
        ("highest, at", "left"),
        ("", "left"),
    )
    table.columns[0].min_width = 14
    limit = 18 if width >= WIDE else 10
    several = len(found.summary["outputs"]) > 1
    groups = list(found.dependence.groupby(["column", "output"], sort=False))
    for (column, output), curve in groups[:top]:
        points = curve.to_dict("records")
        ordered = sorted(points, key=lambda point: float(point["prediction"]))
        table.add_row(
            Text(str(column), no_wrap=True, overflow="ellipsis"),
            str(output) if several else _sparkline(curve["prediction"].tolist()),
            _point(ordered[0], limit),
            _point(ordered[-1], limit),
            _sparkline(curve["prediction"].tolist()) if several else "",
        )
    return table


def _point(row: Any, limit: int) -> Text:
    value = str(row["value"])
    value = value if len(value) <= limit else f"{value[: limit - 1]}…"
    return Text(f"{format_score(float(row['prediction']))} {value}")


def _sparkline(values: list[float]) -> str:
    low, high = min(values), max(values)
    span = high - low or 1.0
    return "".join(BARS[round((len(BARS) - 1) * (value - low) / span)] for value in values[:MAX_CURVE])


def _slices(frame: pd.DataFrame, top: int) -> RenderableType:
    table = _grid(
        ("slice", "left"), ("rows", "right"), ("loss", "right"), ("other rows", "right"), ("p", "right")
    )
    for row in frame.head(top).to_dict("records"):
        table.add_row(
            str(row["slice"]),
            f"{row['n_rows']:,}",
            format_score(row["loss"]),
            format_score(row["other_loss"]),
            _p_text(row["p_value"]),
        )
    return table


def _worst(found: Explanation, top: int) -> RenderableType:
    table = _grid(
        ("because of", "left"),
        ("row", "right"),
        ("target", "left"),
        ("prediction", "left"),
        ("loss", "right"),
    )
    reasons = _reasons(found.attributions)
    for row in found.worst_rows.head(top).to_dict("records"):
        table.add_row(
            reasons.get(row["row"], ""),
            str(row["row"]),
            _value(row["target"]),
            _value(row["prediction"]),
            format_score(row["loss"]),
        )
    return table


def _value(value: Any) -> str:
    return format_score(value) if isinstance(value, float) else str(value)


def _reasons(attributions: pd.DataFrame) -> dict[int, str]:
    """Cells with the largest contributions to the prediction of each row."""
    found: dict[int, str] = {}
    for number in attributions["row"].unique().tolist():
        mine = attributions[attributions["row"] == number]
        ordered = mine.loc[mine["attribution"].abs().sort_values(ascending=False).index]
        cells = ordered.drop_duplicates("column").head(N_REASONS)
        found[int(number)] = ", ".join(
            f"{c} {v}" for c, v in zip(cells["column"], cells["value"], strict=True)
        )
    return found
