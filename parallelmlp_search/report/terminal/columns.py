"""Terminal pages of a table before a search: its columns, its target, and findings."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from parallelmlp_search.data.profile.columns import LEFT_OUT, ColumnProfile
from parallelmlp_search.data.profile.findings import Finding
from parallelmlp_search.data.profile.table import TableProfile
from parallelmlp_search.report.wording import describe_metric, describe_task, describe_transforms

MAX_COLUMNS = 40
"""Columns of the table that are shown unless all are asked for."""

WIDE_COLUMNS = 100
"""Terminal width from which the reasons are shown."""

_GAP = 2
_MIN_VALUES = 10
_USUAL_KINDS = ("numeric", "boolean", "categorical", "ordinal")


def profile_page(
    profile: TableProfile, title: str, metric: str | None, *, width: int, show_all: bool = False
) -> RenderableType:
    """Return the page of a table.

    Parameters
    ----------
    profile
        Profile with the facts about each column.
    title
        Name of the table.
    metric
        Metric that ranks networks, or None without a target.
    width
        Width of the terminal. Below 100 columns, names are shorter and reasons are left out.
    show_all
        True to show all columns of a wide table.

    Returns
    -------
    RenderableType
    """
    head = Table.grid(padding=(0, 3, 0, 0))
    head.add_column(style="dim", no_wrap=True)
    head.add_column(overflow="fold")
    head.add_row("table", Text.assemble((title, "bold"), f", {_size(profile)}"))
    if profile.target is not None and metric is not None:
        target = profile.target
        read = f"; {target.reason}, read as numbers" if target.reason else ""
        head.add_row("target", Text.assemble((target.name or "target", "bold"), f", {target.values}{read}"))
        head.add_row("task", Text(_task_line(target.task, metric)))
        if target.transforms:
            head.add_row("", Text(describe_transforms(target.transforms)))
    head.add_row("columns", describe_kinds(profile))
    shown = _shown(profile, show_all=show_all)
    parts: list[RenderableType] = ["", head, "", _columns(shown, profile.n_rows, width)]
    if len(shown) < len(profile.columns):
        parts.append(Text(f"{len(profile.columns) - len(shown):,} more columns: --all", style="dim"))
    for name, findings, style in (("warnings", profile.warnings, "yellow"), ("notes", profile.notes, "")):
        if findings:
            parts += ["", _findings(name, findings, style)]
    return Group(*parts, "")


def profile_lines(profile: TableProfile, title: str, metric: str) -> list[str]:
    """Return what a search says of its table before it begins: size and kinds, target and task.

    Parameters
    ----------
    profile
        Profile of the table.
    title
        Name of the table.
    metric
        Metric that ranks networks.

    Returns
    -------
    list of str
    """
    lines = [f"{title}: {_size(profile)}: {describe_kinds(profile)}"]
    if profile.target is not None:
        target = profile.target
        read = f"; {target.reason}, read as numbers" if target.reason else ""
        lines.append(f"target {target.name or 'y'}: {target.values}{read}")
        lines.append(f"task: {_task_line(target.task, metric)}")
    return lines


def _task_line(task: str, metric: str) -> str:
    return f"{describe_task(task)}; networks are ranked by {describe_metric(metric)}"


def describe_kinds(profile: TableProfile) -> str:
    """Return the number of columns of each kind, such as ``8 categorical, 6 numeric, 1 identifier``."""
    ordered = sorted(profile.kinds.items(), key=lambda item: (item[0] in LEFT_OUT, -item[1]))
    return ", ".join(f"{count:,} {kind}" for kind, count in ordered)


def _size(profile: TableProfile) -> str:
    n_columns = sum(profile.kinds.values())
    return f"{profile.n_rows:,} rows, {n_columns:,} column{'s' * (n_columns != 1)}"


def _shown(profile: TableProfile, *, show_all: bool) -> Sequence[ColumnProfile]:
    """All columns; of a wide table those in warnings, those that are no plain numbers, and the first."""
    if show_all or len(profile.columns) <= MAX_COLUMNS:
        return profile.columns
    named = {name for finding in profile.warnings for name in finding.columns}
    special = [c for c in profile.columns if c.name in named or c.kind not in ("numeric", "constant")]
    plain = [column for column in profile.columns if column not in special]
    chosen = {column.name for column in [*special, *plain][:MAX_COLUMNS]}
    return [column for column in profile.columns if column.name in chosen]


def _columns(columns: Sequence[ColumnProfile], n_rows: int, width: int) -> RenderableType:
    """Table of columns; the values get the width that the other columns leave."""
    is_wide = width >= WIDE_COLUMNS
    name_width, used_width = (28, 44) if is_wide else (18, 18)
    rows = [
        (
            _cut(column.name, name_width),
            column.kind,
            f"{column.distinct:,}",
            _share(column.missing, n_rows),
            _cut(_use(column, with_reason=is_wide), used_width),
        )
        for column in columns
    ]
    heads = ("column", "kind", "distinct", "missing", "used as")
    taken = _GAP + sum(
        max(cell_len(text) for text in texts) + _GAP for texts in zip(heads, *rows, strict=True)
    )
    table = Table(box=None, padding=(0, _GAP, 0, 0), header_style="dim", show_edge=False)
    for head in (*heads[:4], "values", heads[4]):
        is_count = head in ("distinct", "missing")
        table.add_column(head, justify="right" if is_count else "left", no_wrap=True)
    for column, (name, kind, distinct, missing, used) in zip(columns, rows, strict=True):
        style = "dim" if not column.is_used else "cyan" if kind not in _USUAL_KINDS else ""
        values = _cut(column.values, max(_MIN_VALUES, width - taken))
        cells = (Text(name), Text(kind, style=style), distinct, missing, Text(values), Text(used))
        table.add_row(*cells, style="" if column.is_used else "dim")
    return table


def _use(column: ColumnProfile, *, with_reason: bool) -> str:
    """Use of a column; the reason too if it is left out."""
    return f"{column.treatment}: {column.reason}" if with_reason and not column.is_used else column.treatment


def _cut(text: str, width: int) -> str:
    """Text of at most some width."""
    return text if cell_len(text) <= width else f"{set_cell_size(text, width - 1).rstrip()}…"


def _share(missing: int, n_rows: int) -> str:
    if not missing:
        return ""
    share = 100 * missing / n_rows
    return "<0.1 %" if share < 0.1 else f"{share:.1f} %" if share < 99.95 else "all"


def _findings(name: str, findings: Sequence[Finding], style: str) -> RenderableType:
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(no_wrap=True, style=style or "dim")
    grid.add_column(overflow="fold")
    for finding in findings:
        grid.add_row("-", Text(finding.text))
    return Group(Text(name, style=f"bold {style}".strip()), grid)
