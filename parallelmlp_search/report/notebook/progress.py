"""Live progress of a search in a notebook: one block that is redrawn, without ipywidgets."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from importlib import import_module
from types import TracebackType
from typing import Protocol

from parallelmlp_search._html import card, table, text
from parallelmlp_search.report.progress import (
    MAX_STANDINGS,
    describe_alive,
    describe_path,
    describe_rung,
    describe_speed,
    describe_time_left,
    describe_trials,
    share_done,
    stages_of,
)
from parallelmlp_search.report.wording import format_clock, format_epochs, format_score
from parallelmlp_search.search.run.progress import Progress

SECONDS_BETWEEN = 0.25
"""Least time between two updates, which the browser has to draw."""


class Handle(Protocol):
    """Place in the output of a cell."""

    def update(self, content: str) -> object:
        """Replace the content."""


def in_notebook() -> bool:
    """Return True in a cell of a notebook, which displays HTML."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None


def _display(html: str) -> Handle:
    """Show HTML in the output of the cell; return its handle."""
    shown = import_module("IPython.display")  # a notebook has it

    class Shown:
        def __init__(self) -> None:
            self.handle = shown.display(shown.HTML(html), display_id=True)

        def update(self, content: str) -> object:
            return self.handle.update(shown.HTML(content))

    return Shown()


class NotebookReport:
    """Callback that shows the progress of a search in the output of a cell.

    At the end, one line remains.

    Parameters
    ----------
    title
        First line, such as the name of the estimator.
    display
        Shows HTML and returns its handle; that of IPython by default.
    now
        Clock in seconds.
    """

    def __init__(
        self,
        title: str,
        *,
        display: Callable[[str], Handle] = _display,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.title = title
        self._display, self._now = display, now
        self._handle: Handle | None = None
        self._progress = Progress("preparing", "")
        self._shown = -1e9

    def __call__(self, progress: Progress) -> None:
        """Receive a report."""
        changed = progress.stage != self._progress.stage or progress.rung_completed
        self._progress = progress
        if changed or self._now() - self._shown >= SECONDS_BETWEEN:
            self._show(running_html(progress, self.title))

    def _show(self, html: str) -> None:
        self._shown = self._now()
        if self._handle is None:
            self._handle = self._display(html)
        else:
            self._handle.update(html)

    def __enter__(self) -> NotebookReport:
        self._show(running_html(self._progress, self.title))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._show(ended_html(self._progress, self.title, failed=kind is not None))


def running_html(progress: Progress, title: str) -> str:
    """Return the block of a running search."""
    clock = ", ".join([f"{format_clock(progress.elapsed_seconds)} elapsed", *describe_time_left(progress)])
    facts = [
        *_best(progress),
        *map(text, describe_trials(progress)),
        *map(text, describe_rung(progress)),
        *map(text, describe_alive(progress)),
        *map(text, describe_speed(progress)),
    ]
    return card(
        f"<div>{text(title, 't')} {text(describe_path(progress), 'warn' if progress.advice else 's')}</div>",
        f'<div class="st" style="margin-top:6px">{_stages(progress.stage)}{text(clock, "s")}</div>',
        f'<div class="bar"><div style="width:{100 * share_done(progress):.0f}%"></div></div>',
        f"<div>{' · '.join(facts) or text(progress.detail or 'preparing the table', 's')}</div>",
        _standings(progress),
    )


def ended_html(progress: Progress, title: str, *, failed: bool) -> str:
    """Return the line that remains.

    Parameters
    ----------
    progress, title
        Last report, and name of the estimator.
    failed
        True after an error or interrupt.

    Returns
    -------
    str
    """
    state = text(f"stopped while {progress.stage}", "warn") if failed else text("✓ finished", "done")
    facts = [
        f"{text('in', 's')} {text(format_clock(progress.elapsed_seconds))}",
        *_best(progress),
        *map(text, describe_trials(progress)),
    ]
    return card(f"<div>{text(title, 't')} {state} {' · '.join(facts)}</div>")


def _best(progress: Progress) -> list[str]:
    if progress.best_score is None:
        return []
    return [f"best {text(progress.metric)} <b>{text(format_score(progress.best_score))}</b>"]


def _stages(current: str) -> str:
    stages, place = stages_of(current)
    marked = [text(f"✓ {stage}", "done") for stage in stages[:place]]
    marked += [text(f"● {stage}", "now") for stage in stages[place : place + 1]]
    marked += [text(f"○ {stage}", "s") for stage in stages[place + 1 :]]
    return "".join(marked)


def _standings(progress: Progress) -> str:
    if not progress.standings:
        return ""
    rows = [
        [place, one.trial, format_score(one.score), format_epochs(one.epochs), one.summary]
        for place, one in enumerate(progress.standings[:MAX_STANDINGS], start=1)
    ]
    kinds = ["first", *["rest"] * (len(rows) - 1)]
    return table(["#", "trial", progress.metric or "score", "epochs", "configuration"], rows, kinds)
