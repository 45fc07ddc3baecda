"""Live progress of a search: one calm block in a terminal, one line a rung anywhere else."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from parallelmlp_search.report.terminal.wording import clock, compact, epochs_words, worded_score
from parallelmlp_search.search.run.progress import Progress, Standing

__all__ = ["ConsoleReport"]

STAGES = ("preparing", "screening", "cross-fitting", "selecting", "saving")
REFRESHES_PER_SECOND = 4
LEADERS = 5
WIDEST = 100
"""Columns beyond which a line is harder to follow than a second one."""
OTHER_LINES = 9
"""Lines of the block that are not leaders; in a low terminal the leaders give way."""


class ConsoleReport:
    """Callback that shows a search while it runs.

    In a terminal it redraws one block four times a second and takes it away at the end; elsewhere it writes
    one line per completed rung. Reports may come from any thread.

    Parameters
    ----------
    console
        Where to write; usually standard error, so that standard output stays clean.
    title
        What is being searched, such as ``adult.csv.gz · income``.
    live
        Whether to redraw in place; None finds out from the console.

    Examples
    --------
    >>> from io import StringIO
    >>> out = StringIO()
    >>> with ConsoleReport(Console(file=out, width=100)) as report:
    ...     report(Progress("screening", "roc_auc", rung_completed=True, n_rungs=3, alive=9, n_trials=27))
    >>> print(out.getvalue().strip())
    0:00 screening rung 1/3: 9 alive, 27 trials
    """

    def __init__(
        self,
        console: Console,
        *,
        title: str = "",
        live: bool | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.console = console
        self.title = title
        self.is_live = console.is_terminal and not console.is_dumb_terminal if live is None else live
        self._now = now
        self._lock = threading.Lock()
        self._progress: Progress | None = None
        self._received = now()
        self._live: Live | None = None

    def __call__(self, progress: Progress) -> None:
        """Take note of a report."""
        with self._lock:
            self._progress = progress
            self._received = self._now()
        if not self.is_live and progress.rung_completed:
            self.console.print(Text(plain_line(progress)), soft_wrap=True)

    def __enter__(self) -> ConsoleReport:
        if self.is_live:
            self._live = Live(
                get_renderable=self.render,
                console=self.console,
                refresh_per_second=REFRESHES_PER_SECOND,
                transient=True,
                redirect_stdout=False,
                vertical_overflow="crop",
            )
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def render(self) -> RenderableType:
        """The block as it stands now; clocks go on between two reports."""
        with self._lock:
            progress, received = self._progress, self._received
        since = self._now() - received
        if progress is None:
            progress = Progress("preparing", "")
        return _Block(progress, self.title, since)


def plain_line(progress: Progress) -> str:
    """One completed rung in one line."""
    facts = []
    if progress.stage == "screening":
        facts += [f"{progress.alive:,} alive"] if progress.alive else []
        facts.append(f"{progress.n_trials:,} trials")
    elif progress.total:
        facts.append(f"{progress.done}/{progress.total} shards")
    if progress.best_score is not None:
        facts.append(f"best {progress.metric} {worded_score(progress.best_score)}")
    if progress.member_steps_per_second > 0:
        facts.append(f"{compact(progress.member_steps_per_second)} member-steps/s")
    if progress.seconds_left is not None:
        facts.append(f"{clock(progress.seconds_left)} left")
    where = " ".join(word for word in (progress.stage, _place(progress)) if word)
    return f"{clock(progress.elapsed_seconds)} {where}" + (f": {', '.join(facts)}" if facts else "")


def _place(progress: Progress) -> str:
    """Round and rung, counted from one."""
    if progress.stage != "screening" or not progress.n_rungs:
        return ""
    rung = f"rung {min(progress.rung + 1, progress.n_rungs)}/{progress.n_rungs}"
    return f"round {progress.round + 1}, {rung}" if progress.round else rung


class _Block:
    """The live block; drawn for the width that the terminal has at that moment."""

    def __init__(self, progress: Progress, title: str, since: float) -> None:
        self.progress = progress
        self.title = title
        self.since = since

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = min(options.max_width, WIDEST)
        unicode = not options.ascii_only
        progress = self.progress
        lines: list[RenderableType] = [Text("")]
        if self.title:
            title = self.title if unicode else self.title.replace(" · ", " | ")
            lines.append(_clipped(Text(title, style="bold"), width, unicode))
        lines += [self._stages(width, unicode), Text(""), self._clocks(width), self._bar(width)]
        lines.append(_clipped(self._facts(unicode), width, unicode))
        leaders = max(0, min(LEADERS, console.height - OTHER_LINES))
        if leaders:
            lines += [Text(""), _leaders(progress.standings[:leaders], leaders, progress.metric, width)]
        yield from console.render(Group(*lines), options.update(width=width))

    def _stages(self, width: int, unicode: bool) -> RenderableType:
        """The way through the search; only where it is now if the terminal is narrow."""
        past, now, next_ = ("✓", "●", "○") if unicode else ("x", ">", ".")
        current = self.progress.stage
        # refitting is part of few searches and stands in the place of what goes before it
        stages = tuple(
            current if (current, stage) == ("refitting", "selecting") else stage for stage in STAGES
        )
        place = stages.index(current) if current in stages else len(stages)
        line = Text()
        for number, stage in enumerate(stages):
            if number < place:
                line.append(f"{past} {stage}   ", style="green")
            elif number == place:
                line.append(f"{now} {stage}   ", style="bold cyan")
            else:
                line.append(f"{next_} {stage}   ", style="dim")
        line.rstrip()
        if line.cell_len <= width:
            return line
        return Text(f"{now} {current} ({min(place + 1, len(STAGES))}/{len(STAGES)})", style="bold cyan")

    def _clocks(self, width: int) -> RenderableType:
        progress = self.progress
        elapsed = f"{clock(progress.elapsed_seconds + self.since)} elapsed"
        left = self._left()
        right = elapsed if left is None else f"{elapsed}, {clock(left)} left"
        here = _place(progress)
        grid = Table.grid(expand=True)
        grid.add_column(no_wrap=True, overflow="ellipsis")
        grid.add_column(justify="right", no_wrap=True, style="dim")
        grid.add_row(here or (f"{progress.done}/{progress.total} shards" if progress.total else ""), right)
        return grid

    def _left(self) -> float | None:
        left = self.progress.seconds_left
        return None if left is None else max(0.0, left - self.since)

    def _bar(self, width: int) -> RenderableType:
        """Share of the time limit where there is one, else of the shards of this round."""
        progress, left = self.progress, self._left()
        if left is not None:
            elapsed = progress.elapsed_seconds + self.since
            total, done = max(1e-9, elapsed + left), elapsed
        else:
            total, done = max(1, progress.total), min(progress.done, progress.total)
        line = Table.grid()  # a bar of its own does not end its line
        line.add_row(ProgressBar(total=total, completed=done, width=width))
        return line

    def _facts(self, unicode: bool) -> Text:
        progress = self.progress
        facts = Text()
        dot = " · " if unicode else " | "
        if progress.best_score is not None:
            facts.append(f"best {progress.metric} ")
            facts.append(worded_score(progress.best_score), style="bold green")
        parts = []
        if progress.alive:
            parts.append(f"{progress.alive:,} alive")
        if progress.n_trials:
            parts.append(f"{progress.n_trials:,} trials")
        if progress.member_steps_per_second > 0:
            parts.append(f"{compact(progress.member_steps_per_second)} member-steps/s")
        for part in parts:
            facts.append(dot if facts else "", style="dim")
            facts.append(part)
        return facts if facts else Text("reading and preparing the table", style="dim")


def _leaders(standings: tuple[Standing, ...], rows: int, metric: str, width: int) -> Table:
    """The live leaderboard; it has the same number of lines from the start, so that nothing jumps."""
    narrow = width < 70
    table = Table(box=None, padding=(0, 2, 0, 0), expand=True, header_style="dim", show_edge=False)
    table.add_column("#", justify="right", no_wrap=True, style="dim", min_width=1)
    table.add_column("trial", justify="right", no_wrap=True, min_width=5)
    table.add_column(metric or "score", justify="right", no_wrap=True, min_width=6)
    if not narrow:
        table.add_column("epochs", justify="right", no_wrap=True)
    table.add_column("configuration", no_wrap=True, overflow="ellipsis", ratio=1)
    for place in range(rows):
        if place < len(standings):
            entry = standings[place]
            score = Text(worded_score(entry.score), style="bold green" if place == 0 else "")
            cells: list[RenderableType] = [str(place + 1), str(entry.trial), score]
            cells += [] if narrow else [epochs_words(entry.epochs)]
            table.add_row(*cells, Text(entry.summary, style="" if place == 0 else "dim"))
        else:
            table.add_row(str(place + 1), *[""] * (3 if narrow else 4))
    return table


def _clipped(text: Text, width: int, unicode: bool) -> Text:
    text.no_wrap = True
    text.truncate(width, overflow="ellipsis" if unicode else "crop")
    return text
