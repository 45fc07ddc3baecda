"""Depth over devices in the terminal: what is predicted, and what a promotion has come to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from parallelmlp_search.report.terminal.wording import compact, seconds_words, worded_score

__all__ = ["forecast_page", "promotion_page"]

Record = Mapping[str, Any]


def forecast_page(forecasts: Sequence[Record], link: str) -> RenderableType:
    """Predicted steps for growing numbers of slices, one table a candidate."""
    parts: list[RenderableType] = []
    for forecast in forecasts:
        table = Table(title=f"trial {forecast['trial']}, {forecast['depth']} hidden layers, {link}")
        for name in (
            "slices",
            "step",
            "measured",
            "fine",
            "sweep",
            "messages",
            "update",
            "speed-up",
            "efficiency",
            "weights",
        ):
            table.add_column(name, justify="right")
        serial = forecast["predictions"][0]["serial"]
        known = _milliseconds(forecast.get("measured_serial"))
        table.add_row("1", _milliseconds(serial), known, *["-"] * 4, "1.0", "100 %", "-")
        for row in forecast["predictions"]:
            best = row["slices"] == forecast["recommended"]
            table.add_row(
                str(row["slices"]),
                _milliseconds(row["step"]),
                _milliseconds(row.get("measured")),
                *(_milliseconds(row[name]) for name in ("fine", "sweep", "communication", "update")),
                f"{row['speedup']:.1f}",
                f"{100 * row['efficiency']:.0f} %",
                compact(row["parameters"]),
                style="bold" if best else None,
            )
        parts.append(table)
        count = forecast["recommended"]
        parts.append(
            Text(f"recommended: {count} slices")
            if count > 1
            else Text("recommended: none; on no number of devices does it pay", style="yellow")
        )
    return Group("", *parts, "")


def promotion_page(promotion: Record) -> RenderableType:
    """Contenders side by side, and whether it pays."""
    table = Table()
    for name in (
        "network",
        "slices",
        "ranks",
        promotion["metric"],
        "weights",
        "trained",
        "step",
        "predicted",
    ):
        table.add_column(name, justify="left" if name == "network" else "right")
    table.add_column("share", justify="right")
    for row in promotion["contenders"]:
        form = "serial" if row["slices"] == 1 else "parareal"
        told = row["predicted_step_seconds"]
        table.add_row(
            f"trial {row['trial']}, {row['depth']} layers, {form}",
            str(row["slices"]),
            str(row["ranks"]),
            worded_score(row["score"]),
            compact(row["parameters"]),
            seconds_words(row["seconds"]),
            _milliseconds(row["step_seconds"]),
            "-" if told is None else _milliseconds(told),
            f"{100 * row['weight']:.0f} %",
        )
    page = Table.grid(padding=(0, 2))
    before, after = promotion["score_before"], promotion["score_after"]
    page.add_row(
        "ensemble", f"{worded_score(before)} before, {worded_score(after)} now, on the rows that chose it"
    )
    honest = promotion["honest_before"], promotion["honest_after"]
    if all(value is not None for value in honest):
        page.add_row("honest score", f"{worded_score(honest[0])} before, {worded_score(honest[1])} now")
    for number, sentence in enumerate(promotion["remarks"]):
        page.add_row("" if number else "in words", Text(str(sentence)))
    page.add_row("took", seconds_words(float(promotion["seconds"])))
    return Group("", table, page, "")


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1000 * seconds:.2f} ms"
