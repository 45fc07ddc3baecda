"""Live progress of a search in a notebook: one block that is redrawn, without ipywidgets."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from importlib import import_module
from types import TracebackType
from typing import Protocol

from parallelmlp_search._html import card, table, text
from parallelmlp_search.report.terminal.console import STAGES, about_clock
from parallelmlp_search.report.wording import format_clock, format_count, format_epochs, format_score
from parallelmlp_search.search.run.progress import Progress

SECONDS_BETWEEN = 0.25
"""Least time between two updates, which the browser has to draw."""

MAX_STANDINGS = 5


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
    left = "" if progress.seconds_left is None else f", {format_clock(progress.seconds_left)} left"
    if not left and progress.forecast_seconds is not None:
        left = f", {about_clock(progress.forecast_seconds)} left"
    clock = f"{format_clock(progress.elapsed_seconds)} elapsed{left}"
    path = f"{progress.path}; {progress.advice}" if progress.advice else progress.path
    return card(
        f"<div>{text(title, 't')} {text(path, 'warn' if progress.advice else 's')}</div>",
        f'<div class="st" style="margin-top:6px">{_stages(progress.stage)}{text(clock, "s")}</div>',
        f'<div class="bar"><div style="width:{100 * _share(progress):.0f}%"></div></div>',
        f"<div>{' · '.join(_facts(progress)) or text(progress.detail or 'preparing the table', 's')}</div>",
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
        *_facts(progress, brief=True),
    ]
    return card(f"<div>{text(title, 't')} {state} {' · '.join(facts)}</div>")


def _stages(current: str) -> str:
    # refitting is part of few searches; it is shown in place of selecting
    stages = [current if (current, stage) == ("refitting", "selecting") else stage for stage in STAGES]
    place = stages.index(current) if current in stages else len(stages)
    marks = [("✓", "done"), ("●", "now"), ("○", "s")]
    return "".join(
        text(f"{mark} {stage}", kind)
        for number, stage in enumerate(stages)
        for mark, kind in [marks[0 if number < place else 1 if number == place else 2]]
    )


def _share(progress: Progress) -> float:
    """Share of the time limit or of the forecast if there is one, else of the shards of this round."""
    left = progress.forecast_seconds if progress.seconds_left is None else progress.seconds_left
    if left is not None:
        return progress.elapsed_seconds / max(1e-9, progress.elapsed_seconds + left)
    return min(1.0, progress.done / progress.total) if progress.total else 0.0


def _facts(progress: Progress, *, brief: bool = False) -> list[str]:
    found = []
    if progress.best_score is not None:
        found.append(f"best {text(progress.metric)} <b>{text(format_score(progress.best_score))}</b>")
    if progress.n_trials:
        found.append(text(f"{progress.n_trials:,} trials"))
    if brief:
        return found
    if progress.stage == "screening" and progress.n_rungs:
        round_ = f"round {progress.round + 1}, " if progress.round else ""
        found.append(text(f"{round_}rung {min(progress.rung + 1, progress.n_rungs)}/{progress.n_rungs}"))
    if progress.alive:
        found.append(text(f"{progress.alive:,} in training"))
    if progress.member_steps_per_second > 0:
        found.append(text(f"{format_count(progress.member_steps_per_second)} member-steps/s"))
    return found


def _standings(progress: Progress) -> str:
    if not progress.standings:
        return ""
    rows = [
        [place, one.trial, format_score(one.score), format_epochs(one.epochs), one.summary]
        for place, one in enumerate(progress.standings[:MAX_STANDINGS], start=1)
    ]
    kinds = ["first", *["rest"] * (len(rows) - 1)]
    return table(["#", "trial", progress.metric or "score", "epochs", "configuration"], rows, kinds)
