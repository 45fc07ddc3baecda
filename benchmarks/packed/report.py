"""Tables for the documents, and a page of plots."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = [
    "RIVALS",
    "peak_line",
    "plot",
    "published",
    "ragged_share",
    "scaling_table",
    "short_table",
    "table",
]

RIVALS = {
    "sequential": "one at a time",
    "m3": "M3",
    "parts": "M3 in parts",
    "vmap": "vmap",
    "sklearn": "scikit-learn",
    "jax": "JAX",
}
"""Name of each rival in tables, by the kind of its ratios."""


def _ratio(row: dict[str, Any], kind: str) -> str:
    value = row["ratios"].get(kind)
    if value is None:
        return ""
    digits = 0 if value["median"] >= 20 else 1
    return f"{value['median']:.{digits}f} ({value['q10']:.{digits}f} to {value['q90']:.{digits}f})"


def _cores(rows: list[dict[str, Any]]) -> int:
    return max((int(core) for row in rows for core in row["gemm_fraction"]), default=1)


def _percent(parts: dict[str, Any]) -> str:
    """Return medians, or plain numbers, of one core and of all cores."""
    values = [part["median"] if isinstance(part, dict) else part for part in parts.values()]
    return " and ".join(f"{value:.0%}" for value in values)


def table(rows: list[dict[str, Any]]) -> str:
    """Return the cases as a Markdown table."""
    kinds = [kind for kind in RIVALS if any(kind in row["ratios"] for row in rows)]
    cores = _cores(rows)
    head = ["population", "us per member-step, 1 core", f"{cores} cores"]
    head.append("1 core, without numba")
    head += [f"x {RIVALS[kind]}" for kind in kinds]
    head += [f"{cores} workers", f"product peak, 1 and {cores} cores", f"copy bandwidth, 1 and {cores} cores"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in rows:
        times = row["microseconds"]
        cells = [row["case"], f"{times['packed_1']['median']:.2f}"]
        cells.append(f"{times[f'packed_{cores}']['median']:.2f}")
        cells.append(f"{times['plain_1']['median']:.2f}" if "plain_1" in times else "")
        cells += [_ratio(row, kind) for kind in kinds]
        cells.append(f"{row['ratios']['workers']['median']:.2f}" if "workers" in row["ratios"] else "")
        cells += [_percent(row["gemm_fraction"]), _percent(row["bandwidth_fraction"])]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def short_table(rows: list[dict[str, Any]]) -> str:
    """Return the short table of the README."""
    kinds = [kind for kind in RIVALS if any(kind in row["ratios"] for row in rows)]
    cores = _cores(rows)
    head = ["population", f"us per member-step, {cores} cores", *(f"x {RIVALS[kind]}" for kind in kinds)]
    head.append("product peak")
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in rows:
        cells = [row["case"], f"{row['microseconds'][f'packed_{cores}']['median']:.2f}"]
        cells += [_ratio(row, kind) for kind in kinds]
        cells.append(f"{row['gemm_fraction'][str(cores)]['median']:.0%}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def peak_line(rows: list[dict[str, Any]]) -> str:
    """Return a sentence with the highest rates in the runs of all cases, by which fractions divide."""
    if not rows:
        return ""
    phrases = []
    for cores in rows[0]["product_gflops"]:
        rates = [row["product_gflops"][cores] for row in rows]
        peak, library = (max(rate[name] for rate in rates) for name in ("peak", "library"))
        copies = max(row["copy_gigabytes"][cores] for row in rows)
        phrases.append(
            f"{cores} core{'s' if cores != '1' else ''}: {peak:.0f} GFLOP/s at best, {library:.0f} in the "
            f"library's products, and copies of {copies:.0f} GB/s"
        )
    return "This machine reaches on " + "; on ".join(phrases) + "."


def published(rows: list[dict[str, Any]]) -> str:
    """Return all that the document shows of the cases."""
    return "\n\n".join(part for part in (table(rows), peak_line(rows), ragged_share(rows)) if part)


def ragged_share(rows: list[dict[str, Any]]) -> str:
    """Return a sentence that compares a ragged population with a uniform one of equal FLOP."""
    by_name = {row["case"]: row for row in rows}
    ragged, equal = by_name.get("ragged"), by_name.get("uniform, FLOP of ragged")
    if ragged is None or equal is None:
        return ""
    rates = [
        row["product_flops"] / row["microseconds"]["packed_1"]["median"] / 1e3 for row in (ragged, equal)
    ]
    return (
        f"The ragged population computes {rates[0]:.1f} GFLOP/s in its products on one core, the uniform one "
        f"{rates[1]:.1f}: {rates[0] / rates[1]:.0%}."
    )


def scaling_table(rows: list[dict[str, Any]]) -> str:
    """Return time and memory by the number of members as a Markdown table."""
    lines = [
        "| members | seconds, 20 steps | us per member-step | seconds to create | memory | weights |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['members']:,} | {row['training_seconds']:.2f} | {row['microseconds_a_member_step']:.2f} "
        f"| {row['creating_seconds']:.2f} | {row['peak_megabytes']:.0f} MB "
        f"| {row['weights_megabytes']:.0f} MB |"
        for row in rows
    ]
    return "\n".join(lines)


def plot(rows: list[dict[str, Any]], scaling: list[dict[str, Any]], path: Path) -> None:
    """Write a web page with speed-ups as bars and time by the number of members.

    Parameters
    ----------
    rows, scaling
        Rows of both results files.
    path
        HTML file to write.

    Raises
    ------
    SystemExit
        If plotly is not installed.
    """
    try:
        from plotly import graph_objects
        from plotly.subplots import make_subplots
    except ImportError:
        raise SystemExit("--plot needs plotly: pip install 'parallelmlp-search[plots]'") from None
    figure = make_subplots(
        rows=2,
        cols=1,
        subplot_titles=("times faster than each rival, all cores", "seconds for twenty steps, one core"),
    )
    for kind, name in RIVALS.items():
        shown = [row for row in rows if kind in row["ratios"]]
        if not shown:
            continue
        ratios = [row["ratios"][kind] for row in shown]
        figure.add_trace(
            graph_objects.Bar(
                name=name,
                x=[row["case"] for row in shown],
                y=[ratio["median"] for ratio in ratios],
                error_y={
                    "array": [ratio["q90"] - ratio["median"] for ratio in ratios],
                    "arrayminus": [ratio["median"] - ratio["q10"] for ratio in ratios],
                },
            ),
            row=1,
            col=1,
        )
    for key in ("training_seconds", "creating_seconds", "peak_megabytes"):
        if scaling:
            figure.add_trace(
                graph_objects.Scatter(
                    name=key.replace("_", " "),
                    x=[row["members"] for row in scaling],
                    y=[row[key] for row in scaling],
                ),
                row=2,
                col=1,
            )
    figure.update_yaxes(type="log")
    figure.update_xaxes(type="log", row=2, col=1)
    figure.update_layout(height=1000, title="Packed training on a CPU")
    figure.write_html(path, include_plotlyjs="cdn")
