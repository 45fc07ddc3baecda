"""Terminal pages of promotions: predicted steps, and the comparison of promoted networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from parallelmlp_search.report.wording import format_count, format_duration, format_score

Record = Mapping[str, Any]

FORECAST_COLUMNS = (
    "slices", "step", "measured", "fine", "sweep", "messages", "update", "speed-up", "efficiency", "weights",
)  # fmt: skip


def forecast_page(forecasts: Sequence[Record], link: str) -> RenderableType:
    """Return predicted steps by number of slices, one table per candidate."""
    parts: list[RenderableType] = []
    for forecast in forecasts:
        table = Table(title=f"trial {forecast['trial']}, {forecast['depth']} hidden layers, {link}")
        for name in FORECAST_COLUMNS:
            table.add_column(name, justify="right")
        serial = _milliseconds(forecast["predictions"][0]["serial"])
        measured = _milliseconds(forecast.get("measured_serial"))
        table.add_row("1", serial, measured, *["-"] * 4, "1.0", "100 %", "-")
        count = forecast["recommended"]
        for row in forecast["predictions"]:
            table.add_row(
                str(row["slices"]),
                _milliseconds(row["step"]),
                _milliseconds(row.get("measured")),
                *(_milliseconds(row[name]) for name in ("fine", "sweep", "communication", "update")),
                f"{row['speedup']:.1f}",
                f"{100 * row['efficiency']:.0f} %",
                format_count(row["parameters"]),
                style="bold" if row["slices"] == count else None,
            )
        parts.append(table)
        if count > 1:
            parts.append(Text(f"recommended: {count} slices"))
        else:
            parts.append(Text("recommended: none; no number of devices gains enough", style="yellow"))
    return Group("", *parts, "")


def promotion_page(promotion: Record) -> RenderableType:
    """Return a table of the contenders, the scores of the ensemble, and remarks."""
    table = Table()
    table.add_column("network")
    for name in ("slices", "ranks", promotion["metric"], "weights", "trained", "step", "predicted", "share"):
        table.add_column(name, justify="right")
    for row in promotion["contenders"]:
        form = "serial" if row["slices"] == 1 else "parareal"
        table.add_row(
            f"trial {row['trial']}, {row['depth']} layers, {form}",
            str(row["slices"]),
            str(row["ranks"]),
            format_score(row["score"]),
            format_count(row["parameters"]),
            format_duration(row["seconds"]),
            _milliseconds(row["step_seconds"]),
            _milliseconds(row["predicted_step_seconds"]),
            f"{100 * row['weight']:.0f} %",
        )
    page = Table.grid(padding=(0, 2))
    before, after = format_score(promotion["score_before"]), format_score(promotion["score_after"])
    page.add_row("ensemble", f"{before} before, {after} now, on out-of-fold rows")
    honest = promotion["honest_before"], promotion["honest_after"]
    if all(value is not None for value in honest):
        page.add_row("honest score", f"{format_score(honest[0])} before, {format_score(honest[1])} now")
    for number, sentence in enumerate(promotion["remarks"]):
        page.add_row("" if number else "remarks", Text(str(sentence)))
    page.add_row("took", format_duration(float(promotion["seconds"])))
    return Group("", table, page, "")


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1000 * seconds:.2f} ms"
