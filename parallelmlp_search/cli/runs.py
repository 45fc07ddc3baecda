"""Runs of ``pmlp search`` and ``pmlp resume``: start, progress, result, and details of trials."""

from __future__ import annotations

import contextlib
import itertools
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parallelmlp_search._files import remove_folder
from parallelmlp_search.cli.plain_values import plain, records
from parallelmlp_search.cli.source import STORED_FILE, STORED_TABLE, Source
from parallelmlp_search.cli.terminal import terminal
from parallelmlp_search.data import read_table
from parallelmlp_search.estimators.initial_configs import initial_configs
from parallelmlp_search.exceptions import (
    InvalidParameterError,
    PMLPError,
    RunDirectoryError,
    SearchFailedError,
)
from parallelmlp_search.report import ConsoleReport, profile_lines, search_summary
from parallelmlp_search.report.wording import describe_transforms
from parallelmlp_search.search import Problem, Progress, RunDirectory, SearchSettings, run
from parallelmlp_search.search import screen as screen_trials
from parallelmlp_search.search.problem.memory_room import check_room
from parallelmlp_search.search.problem.monotone import monotone_columns
from parallelmlp_search.search.problem.target_transforms import transforms_of
from parallelmlp_search.search.run.trial import CONFIG_PREFIX, widths_of_cell
from parallelmlp_search.selection import get_metric
from parallelmlp_search.space import MLPConfig, SearchSpace

if TYPE_CHECKING:
    from parallelmlp_search.integrations.optuna import SharedStudy


MAX_WARNINGS = 5
"""Warnings about a table that a search prints."""


def new_run(
    source: Source, settings: SearchSettings, output: Path | None, shared: Mapping[str, str]
) -> tuple[RunDirectory, Problem]:
    """Read the table, check the settings, and create the folder of a new run.

    Invalid data or settings leave no folder behind. ``output`` is None for ``runs/TABLE-TIME``; ``shared`` is
    the result of :func:`sharing`.
    """
    if output is not None:
        RunDirectory(output).check_free()  # before a large table is read
    check_room(settings.memory_bytes)
    frame = source.read(settings.memory_bytes)
    problem = source.problem(frame)
    settings.check_task(problem.task, problem.target)
    monotone_columns(problem, settings)  # checks them
    if settings.metric is not None:
        get_metric(settings.metric, problem.task)
    folder = _new_folder(source.stem) if output is None else output
    directory = RunDirectory.create(folder, source=source.to_dict(), **({"shared": shared} if shared else {}))
    if source.is_copied:
        with removed_unless_begun(directory):
            # standard input and queries may give other rows next time, so the run uses a copy from here on
            directory.write_table(STORED_TABLE, frame)
            problem = source.problem(read_table(directory.path / STORED_FILE))
    return directory, problem


def initial(source: str | None, study: str | None, space: SearchSpace) -> tuple[MLPConfig, ...]:
    """Return the configurations to try first, from a run or from a study in an Optuna storage.

    Raises
    ------
    InvalidParameterError
        If a study is named without a storage.
    """
    if source is not None and ("://" in source or source.startswith("journal:")):
        from parallelmlp_search.integrations.optuna import open_study

        return initial_configs(open_study(source, study), space)
    if study is not None:
        raise InvalidParameterError(
            f"--start-study needs the URL of a storage as --start-from, but got {source!r}"
        )
    return initial_configs(source, space)


def _new_folder(stem: str) -> Path:
    """Create and return ``runs/TABLE-TIME``, with a number if another program has just created it."""
    name = f"{stem}-{datetime.now():%Y%m%d-%H%M%S}"
    for number in itertools.count(1):
        folder = Path("runs") / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError:
            pass  # explained by RunDirectory.create
        break
    return folder


def perform(
    directory: RunDirectory,
    problem: Problem,
    settings: SearchSettings,
    source: Source,
    *,
    jobs: int | None,
    started: float,
    as_json: bool,
    quiet: bool,
) -> None:
    """Run or resume a search with progress on the terminal, and show its result.

    Raises
    ------
    KeyboardInterrupt
        If the search is interrupted; the message says how to continue it.
    """
    callbacks = _progress(source, problem, settings, started=started, quiet=quiet)
    screener = _screener(directory.info().get("shared"), must_exist="settings" in directory.info())
    try:
        with callbacks[0] if callbacks else contextlib.nullcontext():
            run(
                problem,
                settings,
                directory=directory,
                callbacks=_with_description(callbacks, source, problem, settings),
                n_jobs=jobs,
                started=started,
                screener=screener,
            )
    except KeyboardInterrupt:
        command = f"pmlp resume {shlex.quote(str(directory.path))}"
        raise KeyboardInterrupt(f"interrupted; trained networks are kept, continue with: {command}") from None
    show_result(directory, as_json=as_json, quiet=quiet)


@contextlib.contextmanager
def removed_unless_begun(directory: RunDirectory) -> Iterator[None]:
    """Remove a new run if a mistake or Ctrl-C ends it before it is planned, so that its name is free.

    Raises
    ------
    KeyboardInterrupt
        If the search is interrupted before it began.
    """
    try:
        yield
    except (PMLPError, KeyboardInterrupt) as error:
        with contextlib.suppress(RunDirectoryError):
            is_interrupt = isinstance(error, KeyboardInterrupt)
            begun = "settings" in directory.info() if is_interrupt else bool(directory.entries())
            if not begun and not isinstance(error, SearchFailedError):
                with directory.locked():
                    remove_folder(directory.path)
                if is_interrupt:
                    raise KeyboardInterrupt("interrupted before the search began") from None
        raise


def _progress(
    source: Source, problem: Problem, settings: SearchSettings, *, started: float, quiet: bool
) -> list[ConsoleReport]:
    screen = terminal()
    title = " · ".join(
        word for word in (source.name, source.target, problem.task, settings.metric_text) if word is not None
    )
    screen.busy(None)
    return [] if quiet else [ConsoleReport(screen.err, title=title, live=screen.is_live, started=started)]


def _with_description(
    callbacks: Sequence[ConsoleReport], source: Source, problem: Problem, settings: SearchSettings
) -> list[Callable[[Progress], None]]:
    """Return callbacks of which the first describes the table at the first report: the search has begun."""
    described: list[bool] = []

    def describe(progress: Progress) -> None:
        if not described:
            described.append(True)
            _describe(source, problem, settings)

    return [describe, *callbacks] if callbacks else []


def _describe(source: Source, problem: Problem, settings: SearchSettings) -> None:
    """Print how the table is read: its columns, target and task, and warnings."""
    screen, profile = terminal(), problem.profile(short=True)
    metric = get_metric(settings.metric, problem.task).name
    lines = profile_lines(profile, source.name, metric)
    if transforms := transforms_of(settings.suited_to(problem.target, problem.task).space):
        lines.append(describe_transforms(transforms))
    for line in lines:
        screen.note(line)
    for finding in profile.warnings[:MAX_WARNINGS]:
        screen.warning(finding.text)
    if profile.warnings:
        left = len(profile.warnings) - MAX_WARNINGS
        more = "more" if left <= 0 else f"{left} more warning{'s' * (left > 1)}"
        screen.note(f"{more}: pmlp inspect {shlex.join([*source.arguments, '--target', source.target])}")


def sharing(
    storage: str | None, study: str | None, settings: SearchSettings, *, screen_only: bool
) -> dict[str, str]:
    """Return storage and name of the shared study as ``run.json`` keeps them; empty without one.

    Raises
    ------
    InvalidParameterError
        If one of the options is missing, or the sampler cannot be shared.
    """
    given = {"--storage": storage, "--study": study}
    missing = [option for option, value in given.items() if value is None]
    if len(missing) == 2 and screen_only:
        raise InvalidParameterError("--screen-only needs a study: give --storage and --study")
    if len(missing) == 1:
        (other,) = given.keys() - set(missing)
        raise InvalidParameterError(f"{other} needs {missing[0]}: give both or neither")
    if storage is None or study is None:
        return {}
    from parallelmlp_search.integrations.optuna.study.distributed_study import check_shareable

    check_shareable(settings)
    return {"storage": storage, "study": study}


def _screener(shared: Mapping[str, str] | None, *, must_exist: bool = False) -> SharedStudy | None:
    if not shared:
        return None
    from parallelmlp_search.integrations.optuna import SharedStudy

    return SharedStudy(shared["storage"], shared["study"], must_exist=must_exist)


def contribute(
    source: Source,
    settings: SearchSettings,
    shared: Mapping[str, str],
    *,
    jobs: int | None,
    started: float,
    as_json: bool,
    quiet: bool,
) -> None:
    """Train trials for a shared study, without building a model."""
    problem = source.problem(source.read(settings.memory_bytes))
    screener = _screener(shared)
    assert screener is not None
    callbacks = _progress(source, problem, settings, started=started, quiet=quiet)
    with callbacks[0] if callbacks else contextlib.nullcontext():
        n_trials = screen_trials(
            problem,
            settings,
            screener,
            callbacks=_with_description(callbacks, source, problem, settings),
            n_jobs=jobs,
            started=started,
        )
    if as_json:
        terminal().json({"study": shared["study"], "storage": shared["storage"], "trials": n_trials})
    elif not quiet:
        terminal().note(
            f"the study {shared['study']!r} has {n_trials:,} trials; "
            "run the same command without --screen-only to build a model from them"
        )


def show_result(directory: RunDirectory, *, as_json: bool, quiet: bool) -> None:
    """Print the result of a finished run: as JSON, as a page, or only its folder."""
    screen = terminal()
    result = plain(directory.result())
    if as_json:
        screen.json({"run": str(directory.path)} | result)
    elif quiet:
        screen.line(str(directory.path))
    else:
        screen.show(search_summary(result, records(directory.leaderboard()), str(directory.path)))


def trial_of(directory: RunDirectory, number: int) -> dict[str, Any]:
    """Return all details of one trial.

    Raises
    ------
    InvalidParameterError
        If the run has no such trial.
    """
    frame = directory.trials()
    rows = records(frame[frame["trial"] == number])
    if not rows:
        low, high = int(frame["trial"].min()), int(frame["trial"].max())
        raise InvalidParameterError(
            f"the run in {str(directory.path)!r} has no trial {number}: give one from {low} to {high}"
        )
    board = directory.leaderboard()
    entry = next(iter(records(board[board["trial"] == number])), {})
    last = rows[-1]
    configuration = {
        name.removeprefix(CONFIG_PREFIX): last[name] for name in last if name.startswith(CONFIG_PREFIX)
    }
    if "widths" in configuration:
        configuration["widths"] = list(widths_of_cell(configuration["widths"]))
    of_rung = ("round", "rung", "epochs", "score", "error", "train_loss", "train_seconds")
    return {
        "trial": number,
        "state": entry.get("state") or last["state"],
        "failure": last.get("failure"),
        "metric": directory.result()["metric"],
        "rank": entry.get("rank"),
        "score": entry.get("score"),
        "ensemble_weight": entry.get("ensemble_weight") or 0.0,
        "origin": last.get("origin"),
        "n_parameters": last.get("n_parameters"),
        "configuration": configuration,
        "rungs": [{name: row.get(name) for name in of_rung} for row in rows],
    }
