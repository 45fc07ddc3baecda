"""Live progress of a search: one block in a terminal, one line per rung elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from parallelmlp_search.report.progress import (
    MAX_STANDINGS,
    about_clock,
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
from parallelmlp_search.search.run.progress import Progress, Standing

REFRESHES_PER_SECOND = 4
MAX_WIDTH = 100
"""Maximum width of the block; longer lines are hard to read."""
MIN_FORECAST_SECONDS = 20
"""Forecast from which a log has a line about it."""
N_OTHER_LINES = 10
"""Lines of the block without the leaderboard, which is shortened in a low terminal."""


class ConsoleReport:
    """Callback that shows the progress of a search.

    In a terminal it redraws one block four times per second and removes it at the end. Elsewhere it writes
    one line per completed rung. It may be called from any thread.

    Parameters
    ----------
    console
        Console to write to. On standard error it leaves standard output clean.
    title
        First line of the block, such as ``adult.csv.gz · income``.
    live
        True to redraw in place; None: if the console is a terminal.
    started
        Reading of the clock at the start of the command; None: now.
    now
        Clock in seconds.

    Examples
    --------
    >>> from io import StringIO
    >>> out = StringIO()
    >>> with ConsoleReport(Console(file=out, width=100)) as report:
    ...     report(Progress("screening", "roc_auc", rung_completed=True, n_rungs=3, alive=9, n_trials=27))
    >>> print(out.getvalue().strip())
    0:00 screening rung 1/3: 27 trials, 9 in training
    """

    def __init__(
        self,
        console: Console,
        *,
        title: str = "",
        live: bool | None = None,
        started: float | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.console = console
        self.title = title
        self.is_live = console.is_terminal and not console.is_dumb_terminal if live is None else live
        self._now = now
        self._lock = threading.Lock()
        self._received = now()
        elapsed = 0.0 if started is None else self._received - started
        self._progress = Progress("preparing", "", elapsed_seconds=elapsed)
        self._live: Live | None = None
        self._has_header = self._has_forecast = False

    def __call__(self, progress: Progress) -> None:
        """Receive a report."""
        with self._lock:
            self._progress, self._received = progress, self._now()
        if self.is_live:
            return
        if progress.detail:
            self._line(progress.detail)
        if progress.path and not self._has_header:
            self._has_header = True
            self._line(f"training with {describe_path(progress)}")
        forecast = progress.forecast_seconds or 0.0
        if forecast >= MIN_FORECAST_SECONDS and not self._has_forecast:
            self._has_forecast = True
            self._line(
                f"forecast: {about_clock(forecast)} left for {progress.n_planned:,} trials; "
                "a time limit or fewer trials make it shorter"
            )
        if progress.rung_completed:
            self._line(_plain_line(progress))

    def _line(self, text: str) -> None:
        self.console.print(Text(text), soft_wrap=True)

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
        """Return the current block. Its clocks run on between two reports."""
        with self._lock:
            return _Block(self._progress, self.title, self._now() - self._received)


def _plain_line(progress: Progress) -> str:
    """Line for a completed rung."""
    facts = []
    if progress.stage == "screening":
        facts += [*describe_trials(progress), *describe_alive(progress)]
    elif progress.total:
        facts.append(f"{progress.done}/{progress.total} shards")
    if progress.best_score is not None:
        facts.append(f"best {progress.metric} {format_score(progress.best_score)}")
    facts += [*describe_speed(progress), *describe_time_left(progress)]
    stage = " ".join([progress.stage, *describe_rung(progress)])
    return f"{format_clock(progress.elapsed_seconds)} {stage}" + (f": {', '.join(facts)}" if facts else "")


class _Block:
    """Live block, laid out for the current width of the terminal."""

    def __init__(self, progress: Progress, title: str, since: float) -> None:
        left, forecast = (
            None if seconds is None else max(0.0, seconds - since)
            for seconds in (progress.seconds_left, progress.forecast_seconds)
        )
        elapsed = progress.elapsed_seconds + since
        self.progress = replace(
            progress, elapsed_seconds=elapsed, seconds_left=left, forecast_seconds=forecast
        )
        self.title = title

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = min(options.max_width, MAX_WIDTH)
        unicode = not options.ascii_only
        lines: list[RenderableType] = [Text("")]
        if self.title:
            title = self.title if unicode else self.title.replace(" · ", " | ")
            lines.append(_clipped(Text(title, style="bold"), width, unicode))
        style = "yellow" if self.progress.advice else "dim"
        lines.append(_clipped(Text(describe_path(self.progress), style=style), width, unicode))
        lines += [self._stages(width, unicode), Text(""), self._clocks(), self._bar(width)]
        lines.append(_clipped(self._facts(unicode), width, unicode))
        rows = max(0, min(MAX_STANDINGS, console.height - N_OTHER_LINES))
        if rows:
            lines += [Text(""), _standings(self.progress.standings[:rows], rows, self.progress.metric, width)]
        yield from console.render(Group(*lines), options.update(width=width))

    def _stages(self, width: int, unicode: bool) -> RenderableType:
        """All stages, or only the current one in a narrow terminal."""
        done, active, open_ = ("✓", "●", "○") if unicode else ("x", ">", ".")
        current = self.progress.stage
        stages, place = stages_of(current)
        line = Text()
        for number, stage in enumerate(stages):
            if number < place:
                line.append(f"{done} {stage}   ", style="green")
            elif number == place:
                line.append(f"{active} {stage}   ", style="bold cyan")
            else:
                line.append(f"{open_} {stage}   ", style="dim")
        line.rstrip()
        if line.cell_len <= width:
            return line
        return Text(f"{active} {current} ({min(place + 1, len(stages))}/{len(stages)})", style="bold cyan")

    def _clocks(self) -> RenderableType:
        progress = self.progress
        times = ", ".join(
            [f"{format_clock(progress.elapsed_seconds)} elapsed", *describe_time_left(progress)]
        )
        shards = [f"{progress.done}/{progress.total} shards"] if progress.total else []
        grid = Table.grid(expand=True)
        grid.add_column(no_wrap=True, overflow="ellipsis")
        grid.add_column(justify="right", no_wrap=True, style="dim")
        grid.add_row("".join(describe_rung(progress) or shards), times)
        return grid

    def _bar(self, width: int) -> RenderableType:
        line = Table.grid()  # a bar alone does not end its line
        line.add_row(ProgressBar(total=1.0, completed=share_done(self.progress), width=width))
        return line

    def _facts(self, unicode: bool) -> Text:
        progress = self.progress
        facts = []
        if progress.best_score is not None:
            score = format_score(progress.best_score)
            facts.append(Text(f"best {progress.metric} ").append(score, style="bold green"))
        known = [*describe_trials(progress), *describe_alive(progress), *describe_speed(progress)]
        facts += [Text(fact) for fact in known]
        if not facts:
            return Text(progress.detail or "preparing the table", style="dim")
        return Text(" · " if unicode else " | ", style="dim").join(facts)


def _standings(standings: tuple[Standing, ...], rows: int, metric: str, width: int) -> Table:
    """Live leaderboard. It has all its lines from the start, so that the height of the block is constant."""
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
            score = Text(format_score(entry.score), style="bold green" if place == 0 else "")
            cells: list[RenderableType] = [str(place + 1), str(entry.trial), score]
            cells += [] if narrow else [format_epochs(entry.epochs)]
            table.add_row(*cells, Text(entry.summary, style="" if place == 0 else "dim"))
        else:
            table.add_row(str(place + 1), *[""] * (3 if narrow else 4))
    return table


def _clipped(text: Text, width: int, unicode: bool) -> Text:
    text.no_wrap = True
    text.truncate(width, overflow="ellipsis" if unicode else "crop")
    return text
