"""Tables of the page as plain values, which its script sorts, filters and divides into pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from parallelmlp_search.report.results.finished import FinishedSearch
from parallelmlp_search.search.run.trial import CONFIG_PREFIX, describe_widths, widths_of_cell

if TYPE_CHECKING:
    from parallelmlp_search.explain import Explanation

Table = dict[str, Any]
"""``columns`` (``key``, ``label``, ``kind``), ``values`` (one list per column), and options of the script."""

PLAIN_COLUMNS = (
    ("rank", "#", "count"),
    ("trial", "trial", "count"),
    ("score", "score", "score"),
    ("standard_error", "±", "error"),
    ("ensemble_weight", "weight", "weight"),
    ("state", "state", "text"),
    ("epochs", "epochs", "number"),
    ("n_parameters", "parameters", "count"),
    ("train_seconds", "seconds", "seconds"),
)

SHOWN_CELLS = 60
"""Characters of a cell of the table of the user."""

N_REASONS = 3


def make_table(
    columns: Sequence[tuple[str, str, str]], values: Sequence[Sequence[Any]], **options: Any
) -> Table:
    """Return a table of the page.

    Parameters
    ----------
    columns
        Key, label and kind of each column.
    values
        Values of each column.
    **options
        ``page`` (rows of a page), ``filter`` (True for a text field that filters), ``choices`` (key of a
        column whose values can be chosen), ``name`` of a row.

    Returns
    -------
    dict
    """
    named = [{"key": key, "label": label, "kind": kind} for key, label, kind in columns]
    return {"columns": named, "values": [[plain(value) for value in column] for column in values], **options}


def plain(value: Any) -> Any:
    """Return a value that JSON can hold, numbers with at most six digits; None for missing values."""
    if value is None or value is pd.NA or (isinstance(value, float) and value != value):
        return None
    if isinstance(value, bool | str):
        return value
    if hasattr(value, "item"):
        return plain(value.item())
    if isinstance(value, float):
        return float(f"{value:.6g}") if abs(value) != float("inf") else None
    return value if isinstance(value, int) else str(value)


def leaderboard_table(search: FinishedSearch) -> Table:
    """Return the leaderboard with all fields of the configurations that differ between trials."""
    board = search.leaderboard
    shown = [column for column in PLAIN_COLUMNS if column[0] in board and board[column[0]].notna().any()]
    columns = [(key, search.metric if key == "score" else label, kind) for key, label, kind in shown]
    values = [board[key].tolist() for key, _, _ in shown]
    columns.append(("layers", "layers", "text"))
    values.append([describe_widths(widths_of_cell(one)) for one in board["config_widths"]])
    for name in board.columns:
        short = name.removeprefix(CONFIG_PREFIX)
        if short == name or short in ("widths", "seed") or board[name].nunique(dropna=False) < 2:
            continue
        is_text = not pd.api.types.is_numeric_dtype(board[name].dtype) or board[name].dtype == bool
        cells = board[name].tolist()
        if board[name].dtype == bool:
            cells = ["yes" if value else "no" for value in cells]
        columns.append((short, short.replace("_", " "), "text" if is_text else "number"))
        values.append(cells)
    if board["failure"].notna().any():
        columns.append(("failure", "failure", "text"))
        values.append(board["failure"].tolist())
    return make_table(columns, values, page=25, filter=True, choices="state", name="trial")


def columns_table(facts: pd.DataFrame, n_rows: int) -> Table:
    """Return the facts about each column of the table of the user, by name, given its number of rows."""
    columns = (
        ("name", "column", "cell"),
        ("kind", "kind", "text"),
        ("distinct", "distinct", "count"),
        ("missing", "missing", "share"),
        ("values", "values", "long"),
        ("treatment", "used as", "text"),
        ("reason", "because", "text"),
    )
    values = [facts.index.tolist(), *(facts[key].tolist() for key, _, _ in columns[1:])]
    values[3] = [missing / max(1, n_rows) for missing in values[3]]
    return make_table(columns, values, page=25, filter=len(facts) > 25, name="column")


def coverage_table(uncertainty: Mapping[str, Any] | None) -> Table | None:
    """Return the measured coverages of intervals or sets; None for a result without them."""
    levels = (uncertainty or {}).get("levels")
    if not levels:
        return None
    columns = [("coverage", "coverage", "share"), ("measured", "measured", "share")]
    values = [[level[key] for level in levels] for key, _, _ in columns]
    if "size" in levels[0]:
        columns.append(("size", "classes in a set", "score"))
        values.append([level["size"] for level in levels])
    else:
        widths = zip(*(level["width"] for level in levels), strict=True)
        for number, own in enumerate(widths):
            output = f" of output {number}" if len(levels[0]["width"]) > 1 else ""
            columns.append((f"width_{number}", f"mean width{output}", "score"))
            values.append(list(own))
    return make_table(columns, values, name="coverage")


def slices_table(explanation: Explanation) -> Table | None:
    """Return the parts of the table with larger losses; None without any."""
    table = explanation.slices
    if table.empty:
        return None
    columns = (
        ("slice", "rows with", "long"),
        ("n_rows", "rows", "count"),
        ("share", "share", "share"),
        ("loss", str(explanation.summary["loss"]), "score"),
        ("other_loss", "other rows", "score"),
        ("difference", "difference", "score"),
        ("p_value", "p", "p"),
    )
    return make_table(columns, [table[key].tolist() for key, _, _ in columns], page=10, name="slice")


def worst_rows_table(explanation: Explanation) -> Table | None:
    """Return the rows with the largest losses and what moved their predictions most; None without any."""
    table = explanation.worst_rows
    if table.empty:
        return None
    is_number = pd.api.types.is_numeric_dtype(table["target"].dtype)
    kind = "score" if is_number else "cell"
    columns = [("row", "row", "count"), ("target", "target", kind), ("prediction", "prediction", kind)]
    if "probability" in table:
        columns.append(("probability", "probability of the target", "score"))
    columns.append(("loss", str(explanation.summary["loss"]), "score"))
    values = [table[key].tolist() for key, _, _ in columns]
    reasons = _reasons(explanation.attributions)
    columns.append(("reasons", "moved most by", "long"))
    values.append([reasons.get(row, "") for row in table["row"].tolist()])
    return make_table(columns, values, page=10, name="row")


def _reasons(attributions: pd.DataFrame) -> Mapping[int, str]:
    """Cells with the largest contributions to the prediction of each row."""
    found = {}
    for number, mine in attributions.groupby("row", sort=False):
        ordered = mine.loc[mine["attribution"].abs().sort_values(ascending=False, kind="stable").index]
        cells = ordered.drop_duplicates("column").head(N_REASONS)
        texts = [f"{name} = {value}" for name, value in zip(cells["column"], cells["value"], strict=True)]
        found[int(str(number))] = ", ".join(text[:SHOWN_CELLS] for text in texts)
    return found
