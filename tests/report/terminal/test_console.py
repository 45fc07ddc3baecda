from __future__ import annotations

import threading
from io import StringIO

import pytest
from rich.console import Console
from rich.text import Text

from parallelmlp_search.report import ConsoleReport
from parallelmlp_search.search.run.progress import Progress, Standing

STANDINGS = tuple(Standing(10 + i, 0.9 - i / 100, 9.0, 2, f"128-128 silu lr 0.00{i}") for i in range(7))


def screening(**changes: object) -> Progress:
    values = {
        "stage": "screening",
        "metric": "roc_auc",
        "round": 1,
        "rung": 1,
        "n_rungs": 4,
        "alive": 312,
        "n_trials": 1024,
        "done": 3,
        "total": 12,
        "best_score": 0.91234,
        "member_steps_per_second": 184_000.0,
        "elapsed_seconds": 23.0,
        "seconds_left": 37.0,
        "standings": STANDINGS,
    }
    return Progress(**(values | changes))  # type: ignore[arg-type]


def block(progress: Progress | None, width: int = 80, height: int = 30, **console: object) -> list[str]:
    """Lines of the live block."""
    out = Console(file=StringIO(), width=width, height=height, force_terminal=True, no_color=True, **console)
    report = ConsoleReport(out, title="adult.csv.gz · income", now=lambda: 0.0)
    if progress is not None:
        report(progress)
    with out.capture() as captured:
        out.print(report.render())
    return [Text.from_ansi(line).plain.rstrip() for line in captured.get().splitlines()]


def test_the_block_shows_the_state_of_the_search() -> None:
    lines = block(screening())
    text = "\n".join(lines)
    assert "adult.csv.gz · income" in text
    assert "✓ preparing   ● screening   ○ cross-fitting" in text
    assert "round 2, rung 2/4" in text
    assert "0:23 elapsed, 0:37 left" in text
    assert "best roc_auc 0.9123 · 1,024 trials · 312 in training · 184k member-steps/s" in text
    assert "128-128 silu lr 0.000" in text
    assert [line.split()[1] for line in lines if "silu" in line] == ["10", "11", "12", "13", "14"]


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_the_block_fits_any_width_and_never_changes_its_height(width: int) -> None:
    stages = [
        None,
        screening(standings=(), best_score=None),
        screening(),
        screening(seconds_left=None, round=0),
        screening(stage="cross-fitting", total=0),
        screening(stage="finished"),
    ]
    blocks = [block(progress, width) for progress in stages]
    assert {len(lines) for lines in blocks} == {len(blocks[0])}
    assert max(len(line) for lines in blocks for line in lines) <= min(width, 100)


def test_the_block_names_the_path_and_how_to_get_a_faster_one() -> None:
    text = "\n".join(block(screening(path="compiled loops")))
    assert "compiled loops\n" in text
    text = "\n".join(block(screening(path="plain tensor operations", advice="pip install numba")))
    assert "plain tensor operations; pip install numba" in text


def test_without_a_terminal_the_path_is_the_first_line() -> None:
    out = Console(file=StringIO(), width=80)
    report = ConsoleReport(out)
    for progress in (Progress("preparing", "auc", path="compiled loops"), screening(path="compiled loops")):
        report(progress)
    assert out.file.getvalue() == "training with compiled loops\n"  # type: ignore[attr-defined]


def test_a_narrow_terminal_shows_the_current_stage_only() -> None:
    text = "\n".join(block(screening(), 60))
    assert "● screening (2/5)" in text
    assert "cross-fitting" not in text
    assert "epochs" not in text
    assert "epochs" in "\n".join(block(screening(), 80))


def test_a_low_terminal_shows_fewer_standings() -> None:
    assert sum("silu" in line for line in block(screening(), height=30)) == 5
    assert sum("silu" in line for line in block(screening(), height=12)) == 2
    assert len(block(screening(), height=12)) <= 12
    assert not any("silu" in line for line in block(screening(), height=6))


def test_clocks_run_between_reports() -> None:
    time = 100.0
    out = Console(file=StringIO(), width=80, height=30, force_terminal=True, no_color=True)
    report = ConsoleReport(out, now=lambda: time)
    report(screening())
    time = 110.5
    with out.capture() as captured:
        out.print(report.render())
    assert "0:33 elapsed, 0:26 left" in captured.get()
    time = 1000.0
    with out.capture() as captured:
        out.print(report.render())
    assert "0:00 left" in captured.get()


def test_a_terminal_without_unicode_gets_ascii() -> None:
    class Ascii(StringIO):
        encoding = "ascii"

    out = Console(file=Ascii(), width=80, height=30, force_terminal=True, no_color=True)
    report = ConsoleReport(out, title="adult · income")
    report(screening())
    with out.capture() as captured:
        out.print(report.render())
    captured.get().encode("ascii")


def test_no_colour_without_colour_support(monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn() -> str:
        out = Console(file=StringIO(), width=80, height=30, force_terminal=True, color_system="standard")
        report = ConsoleReport(out)
        report(screening())
        with out.capture() as captured:
            out.print(report.render())
        return captured.get()

    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[1;32m" in drawn()
    monkeypatch.setenv("NO_COLOR", "1")
    assert "32m" not in drawn()


def test_the_live_block_is_removed() -> None:
    file = StringIO()
    console = Console(file=file, width=80, height=30, force_terminal=True)
    with ConsoleReport(console) as report:
        threads = [threading.Thread(target=report, args=(screening(done=i),)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    written = file.getvalue()
    assert "screening" in written
    assert written.count("\x1b[2K") >= len(block(screening())) - 1  # every line is erased; there is no title
    assert "\x1b[?25h" in written  # the cursor is visible again


def test_the_live_block_is_removed_after_an_error() -> None:
    file = StringIO()
    with pytest.raises(KeyboardInterrupt), ConsoleReport(Console(file=file, force_terminal=True)):
        raise KeyboardInterrupt
    assert "\x1b[?25h" in file.getvalue()


def test_one_line_per_completed_rung_without_a_terminal() -> None:
    file = StringIO()
    with ConsoleReport(Console(file=file, width=40)) as report:
        report(screening())
        report(screening(rung_completed=True))
        report(screening(stage="cross-fitting", done=12, rung_completed=True, seconds_left=None))
        report(screening(stage="finished"))
    assert file.getvalue().splitlines() == [
        "0:23 screening round 2, rung 2/4: 1,024 trials, 312 in training, best roc_auc 0.9123, "
        "184k member-steps/s, 0:37 left",
        "0:23 cross-fitting: 12/12 shards, best roc_auc 0.9123, 184k member-steps/s",
    ]


def test_a_forecast_without_a_time_limit() -> None:
    file = StringIO()
    early, later = (
        screening(seconds_left=None),
        screening(seconds_left=None, forecast_seconds=131, n_planned=200),
    )
    with ConsoleReport(Console(file=file, width=100)) as report:
        report(early)
        report(screening(seconds_left=None, forecast_seconds=12, n_planned=200))  # too short for a line
        report(later)
        report(screening(seconds_left=None, forecast_seconds=31, n_planned=200, rung_completed=True))
    assert file.getvalue().splitlines() == [
        "forecast: about 2:15 left for 200 trials; a time limit or fewer trials make it shorter",
        "0:23 screening round 2, rung 2/4: 1,024 trials, 312 in training, best roc_auc 0.9123, "
        "184k member-steps/s, about 0:30 left",
    ]
    assert not any("left" in line for line in block(early))
    assert any(line.endswith("0:23 elapsed, about 2:15 left") for line in block(later))


def test_work_before_training_is_named() -> None:
    compiling = Progress("preparing", "rmse", detail="compiling the training loops, once on this machine")
    assert any("compiling the training loops" in line for line in block(compiling))
    file = StringIO()
    with ConsoleReport(Console(file=file)) as report:
        report(compiling)
    assert file.getvalue() == "compiling the training loops, once on this machine\n"


def test_before_the_first_report() -> None:
    assert any("preparing the table" in line for line in block(None))
    file = StringIO()
    with ConsoleReport(Console(file=file)) as report:
        report(Progress("preparing", "rmse", rung_completed=True))
    assert file.getvalue() == "0:00 preparing\n"
