"""Self-contained HTML for notebooks: no script, no network, readable on light and dark backgrounds."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from html import escape
from numbers import Integral, Real
from typing import Any

STYLE = """<style>
.pmlp{font-family:system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;font-size:13px;line-height:1.45;
max-width:960px;border:1px solid rgba(128,128,128,.35);border-radius:8px;padding:12px 16px;margin:4px 0;
overflow-x:auto}
.pmlp .t{font-weight:600;font-size:14px}
.pmlp .s{opacity:.68}
.pmlp .big{font-size:21px;font-weight:600;font-variant-numeric:tabular-nums;margin-right:10px}
.pmlp .bad{color:#e03131;font-weight:600}
.pmlp .warn{color:#d9822b}
.pmlp details{margin-top:6px;border-top:1px solid rgba(128,128,128,.25);padding-top:6px}
.pmlp summary{cursor:pointer;font-weight:500}
.pmlp table.g{border-collapse:collapse;margin:8px 0 2px;font-variant-numeric:tabular-nums;width:auto;
background:transparent;color:inherit;font-size:12.5px}
.pmlp table.g tr,.pmlp table.g th,.pmlp table.g td{background:transparent;color:inherit;border:0;
padding:2px 14px 2px 0;text-align:left;vertical-align:baseline;white-space:nowrap;max-width:340px;
overflow:hidden;text-overflow:ellipsis}
.pmlp table.g td.w{white-space:normal;max-width:none;overflow-wrap:anywhere}
.pmlp table.g td.s{opacity:.68}
.pmlp table.g th{font-weight:500;opacity:.68;border-bottom:1px solid rgba(128,128,128,.35)}
.pmlp table.g .n{text-align:right}
.pmlp table.g tr.first td{font-weight:600}
.pmlp table.g tr.rest td{opacity:.68}
.pmlp .bar{height:6px;border-radius:3px;background:rgba(128,128,128,.25);margin:8px 0;overflow:hidden}
.pmlp .bar div{height:100%;background:#3b82f6}
.pmlp .st span{margin-right:14px}
.pmlp .done{color:#2f9e44}
.pmlp .now{color:#3b82f6;font-weight:600}
</style>"""
"""Rules for all inside an element of the class ``pmlp``. Colours are those of the notebook, or suit both."""


_NUMBER = re.compile(r"[-+]?[\d,.]+(e[-+]?\d+)?")


def text(value: Any, kind: str = "") -> str:
    """Return a value as an escaped text, in a span of a class of :data:`STYLE` if one is given."""
    escaped = escape(str(value))
    return f'<span class="{kind}">{escaped}</span>' if kind else escaped


def card(*parts: str) -> str:
    """Return parts of HTML in a frame, with the style."""
    return f'{STYLE}<div class="pmlp">{"".join(parts)}</div>'


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Return a list of names, which are escaped, and values, which are HTML."""
    rows = (f'<tr><td class="s">{text(name)}</td><td class="w">{value}</td></tr>' for name, value in pairs)
    return f'<table class="g"><tbody>{"".join(rows)}</tbody></table>'


def folded(title: str, content: str, *, is_open: bool = False) -> str:
    """Return HTML that a click on its title shows.

    Parameters
    ----------
    title, content
        Text, and HTML.
    is_open
        True to show it from the start.

    Returns
    -------
    str
    """
    return f"<details{' open' if is_open else ''}><summary>{text(title)}</summary>{content}</details>"


def table(columns: Sequence[str], rows: Iterable[Iterable[Any]], kinds: Iterable[str] = ()) -> str:
    """Return a table.

    Parameters
    ----------
    columns, rows
        Names of the columns, and their values; columns of numbers are aligned to the right.
    kinds
        Class of :data:`STYLE` of each row, or an empty text; for the first rows at least.

    Returns
    -------
    str
    """
    cells = [[cell(value) for value in row] for row in rows]
    marks = [
        ' class="n"' if _are_numbers(row[place] for row in cells) else "" for place in range(len(columns))
    ]
    head = "".join(f"<th{mark}>{text(name)}</th>" for name, mark in zip(columns, marks, strict=True))
    classes = [*kinds][: len(cells)]
    classes += [""] * (len(cells) - len(classes))
    body = "".join(
        f'<tr class="{kind}">'
        + "".join(f"<td{mark}>{text(value)}</td>" for value, mark in zip(row, marks, strict=True))
        + "</tr>"
        for row, kind in zip(cells, classes, strict=True)
    )
    return f'<table class="g"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _are_numbers(cells: Iterable[str]) -> bool:
    known = [one for one in cells if one]
    return bool(known) and all(_NUMBER.fullmatch(one) for one in known)


def cell(value: Any) -> str:
    """Return a value as a short text.

    >>> cell(0.123456), cell(12345), cell(3.0), cell(None), cell(float("nan")), cell("relu")
    ('0.1235', '12,345', '3', '', '', 'relu')
    """
    if value is None or value is getattr(value, "NA", None) or type(value).__name__ == "NAType":
        return ""
    if isinstance(value, bool) or not isinstance(value, Real):
        return str(value)
    if isinstance(value, Integral):
        return f"{int(value):,}"
    number = float(value)
    if math.isnan(number):
        return ""
    if number.is_integer() and abs(number) < 1e15:
        return f"{number:,.0f}"
    return f"{number:#.4g}" if abs(number) < 1000 else f"{number:,.1f}"
