"""Sections of the page: figures and tables in their order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from html import unescape
from typing import TYPE_CHECKING, Any

from parallelmlp_search.report.page.content import ReportContent
from parallelmlp_search.report.page.tables import (
    Table,
    columns_table,
    coverage_table,
    leaderboard_table,
    slices_table,
    worst_rows_table,
)
from parallelmlp_search.report.plots import evaluation, explanation, hyperparameters, search
from parallelmlp_search.report.plots.theme import caption_of
from parallelmlp_search.report.results.curves import shown_classes
from parallelmlp_search.report.results.finished import FinishedSearch
from parallelmlp_search.report.results.hyperparameters import importance_in_search

if TYPE_CHECKING:
    import plotly.graph_objects as go

MAX_OUTPUTS = 3
"""Outputs of a regression whose predictions are drawn."""

MAX_HALF_CLASSES = 8
"""Classes up to which a confusion matrix has half of the width."""

MIN_EXPLAINED = 0.05
"""Explained share of the variance of ranks below which importance of hyperparameters says nothing."""


@dataclass(frozen=True)
class Panel:
    """Figure or table of the page.

    Attributes
    ----------
    name
        Identifier in the page.
    title, caption
        Title, and sentences on what is shown.
    figure, table
        One of them; a panel with neither has only its caption.
    size
        ``small`` (a third of the width), ``half`` or ``wide``.
    """

    name: str
    title: str
    caption: str
    figure: go.Figure | None = None
    table: Table | None = None
    size: str = "half"

    @property
    def height(self) -> int:
        """Height of the figure in pixels."""
        return 0 if self.figure is None else int(self.figure.layout.height or 420)


@dataclass(frozen=True)
class Section:
    """Part of the page with a heading.

    Attributes
    ----------
    name, title
        Identifier and heading.
    panels
        Figures and tables.
    note
        Sentence below the heading, or an empty text.
    """

    name: str
    title: str
    panels: tuple[Panel, ...]
    note: str = ""


def sections_of(content: ReportContent) -> list[Section]:
    """Return the sections of the page that have something to show."""
    found = [
        Section("errors", "Predictions and targets", tuple(_evaluation(content)), _rows_note(content)),
        Section("columns", "What the model uses", tuple(_explanation(content)), _explanation_note(content)),
        Section("table", "Table", tuple(_table(content))),
        _search(content),
        Section("leaderboard", "Leaderboard", (_leaderboard(content),)),
    ]
    return [section for section in found if section.panels]


def panel_of(name: str, figure: go.Figure, size: str = "half") -> Panel:
    """Return the panel of a figure.

    Parameters
    ----------
    name, figure, size
        Identifier, figure with title and caption, and ``small``, ``half`` or ``wide``.

    Returns
    -------
    Panel
    """
    title = unescape(str(figure.layout.title.text))  # plotly reads HTML, the template escapes it
    return Panel(name, title, caption_of(figure), figure, size=size)


def _rows_note(content: ReportContent) -> str:
    rows = content.rows
    if rows is None:
        return ""
    if rows.origin == "new":
        return f"{len(rows):,} rows that the search has not seen, predicted by the whole model."
    return f"{len(rows):,} rows of the search, each predicted by networks that were not trained on it."


def _explanation_note(content: ReportContent) -> str:
    found = content.explanation
    if found is None or found.dependence.empty:
        return ""
    return (
        "Dependence is the mean prediction when a column has one value in all rows; bands and bars hold 80 % "
        "of the rows. It describes this model, not causes."
    )


def _evaluation(content: ReportContent) -> Iterator[Panel]:
    yield from _figures(content)
    if (table := coverage_table(content.search.result.get("uncertainty"))) is not None:
        caption = "Share of out-of-fold rows in intervals or sets that were made of the errors on other rows."
        yield Panel("coverage", "Measured coverage", caption, table=table, size="wide")


def _figures(content: ReportContent) -> Iterator[Panel]:
    rows = content.rows
    if rows is None:
        return
    if not rows.classifies:
        for output in range(min(MAX_OUTPUTS, len(rows.labels))):
            yield panel_of(f"predicted-{output}", evaluation.predicted_and_actual(rows, output))
            yield panel_of(f"residuals-{output}", evaluation.residuals(rows, output))
        return
    drawn: list[tuple[str, Callable[..., Any]]] = [("calibration", evaluation.calibration)]
    if shown_classes(rows, 1):
        drawn += [("roc", evaluation.roc), ("precision-recall", evaluation.precision_recall)]
    is_large = len(rows.labels) > MAX_HALF_CLASSES
    for name, draw in drawn:
        yield panel_of(name, draw(rows), "small" if is_large else "half")
    yield panel_of("confusion", evaluation.confusion_matrix(rows), "wide" if is_large else "half")


def _explanation(content: ReportContent) -> Iterator[Panel]:
    found = content.explanation
    if found is None:
        return
    if len(found.importance):
        yield panel_of("importance", explanation.importance(found), "wide")
    columns = explanation.dependence_columns(found)
    for number, column in enumerate(columns):
        left = len(columns) - number
        size = (
            "small"
            if len(columns) % 3 == 0 or left > len(columns) % 3
            else "half"
            if len(columns) % 3 == 2
            else "wide"
        )
        panel = panel_of(f"dependence-{number}", explanation.dependence(found, column), size)
        yield replace(panel, caption="")  # the note of the section has it
    slices, worst = slices_table(found), worst_rows_table(found)
    loss = found.summary.get("loss", "loss")
    if slices is not None:
        caption = (
            f"Parts of the table with the largest mean {loss}, measured on rows that did not select them."
        )
        yield Panel("slices", "Where the model is worst", caption, table=slices, size="wide")
    if worst is not None:
        caption = f"Rows with the largest {loss}, and the cells that moved their predictions most."
        yield Panel("worst-rows", "Rows with the largest losses", caption, table=worst, size="wide")


def _table(content: ReportContent) -> Iterator[Panel]:
    if content.columns is not None:
        caption = "How each column was read, and how the networks see it."
        n_rows = int((content.info.get("splits") or {}).get("rows", 0))
        table = columns_table(content.columns, n_rows)
        yield Panel("column-report", "Columns", caption, table=table, size="wide")


def _search(content: ReportContent) -> Section:
    """Ensemble, costs, learning curves and hyperparameters."""
    done = content.search
    importance = importance_in_search(done)
    note = ""
    if importance is None:
        note = "The trials are too few to tell which hyperparameters matter."
    elif importance.explained < MIN_EXPLAINED:
        note = "Hyperparameters do not predict the ranks of unseen trials, so none of them stands out."
    found = [panel_of("ensemble", search.ensemble_weights(done), "half" if has_phases(done) else "wide")]
    if has_phases(done):
        found.append(panel_of("phases", search.phases(done)))
    found.append(panel_of("size", search.score_by_size(done)))
    found.append(panel_of("latency", search.score_by_latency(done, content.model)))
    found.append(panel_of("learning-curves", search.learning_curves(done), "wide" if note else "half"))
    if importance is not None and not note:
        figure = hyperparameters.importance_of_hyperparameters(done, importance)
        found.append(panel_of("hyperparameters", figure))
    if done.hyperparameters.shape[1]:
        figure = hyperparameters.parallel_coordinates(done, None if note else importance)
        found.append(panel_of("coordinates", figure, "wide"))
    return Section("search", "Search", tuple(found), note)


def has_phases(done: FinishedSearch) -> bool:
    """Return True for searches of versions that measured their phases."""
    return bool(done.result.get("phases"))


def _leaderboard(content: ReportContent) -> Panel:
    caption = (
        "Finalists are scored on their out-of-fold rows and rank first; the others on the validation rows of "
        "the last rung that they reached. A filter such as dropout<0.2 compares a column."
    )
    return Panel("trials", "All trials", caption, table=leaderboard_table(content.search), size="wide")
