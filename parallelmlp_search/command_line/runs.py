"""Runs on the command line: start one, follow it, tell its outcome, look into it."""

from __future__ import annotations

import importlib.util
import os
import platform
import shlex
import shutil
import sys
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from parallelmlp_search import __version__
from parallelmlp_search.command_line.session import terminal
from parallelmlp_search.command_line.tables import STORED_TABLE, Source, plain, records
from parallelmlp_search.data import read_table
from parallelmlp_search.exceptions import InvalidParameterError, PMLPError, SearchFailedError
from parallelmlp_search.report import ConsoleReport, search_summary
from parallelmlp_search.search import Problem, RunDirectory, SearchSettings, TrainedModel, run
from parallelmlp_search.selection import get_metric

__all__ = ["environment", "new_run", "perform", "show_outcome", "target_of", "trial_of"]

EXTRAS = {"gpu": "triton", "polars": "polars", "yaml": "yaml"}
"""Optional extras of the distribution, and a module that each of them brings."""


def new_run(source: Source, settings: SearchSettings, output: Path | None) -> tuple[RunDirectory, Problem]:
    """Read the table and make the folder of a new run, in this order: a mistake leaves no folder behind."""
    folder = _default_folder(source.stem) if output is None else output
    if _is_taken(folder):
        RunDirectory.create(folder)  # refuses, before a long table is read
    frame = read_table(source.data)
    problem = source.problem(frame)
    if settings.metric is not None:
        get_metric(settings.metric, problem.task)
    directory = RunDirectory.create(folder)
    if source.is_stdin:
        # what came through a pipe cannot be read again; from here on the copy is the table
        directory.write_table(STORED_TABLE, frame)
        problem = source.problem(read_table(directory.path / f"{STORED_TABLE}.parquet"))
    directory.set_source(source.to_dict())
    return directory, problem


def _is_taken(folder: Path) -> bool:
    return folder.exists() and (not folder.is_dir() or any(folder.iterdir()))


def _default_folder(stem: str) -> Path:
    name = f"{stem}-{datetime.now():%Y%m%d-%H%M%S}"
    folder, number = Path("runs") / name, 1
    while _is_taken(folder):
        number += 1
        folder = Path("runs") / f"{name}-{number}"
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
    """Search, or go on searching, in front of the user, and tell the outcome.

    Raises
    ------
    KeyboardInterrupt
        If the search is interrupted; its message says whether and how the run can go on.
    """
    screen = terminal()
    metric = settings.metric or ""
    title = " · ".join(word for word in (source.name, source.target, problem.task, metric) if word)
    # an environment variable that forces colours does not make a log file a terminal
    live = sys.stderr.isatty() and screen.err.is_terminal and not screen.err.is_dumb_terminal
    callbacks = [] if quiet else [ConsoleReport(screen.err, title=title, live=live)]
    try:
        if callbacks:
            with callbacks[0]:
                run(problem, settings, directory=directory, callbacks=callbacks, n_jobs=jobs, started=started)
        else:
            run(problem, settings, directory=directory, n_jobs=jobs, started=started)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_interrupted(directory)) from None
    except SearchFailedError:
        raise
    except PMLPError:
        _discard_if_untouched(directory)
        raise
    show_outcome(directory, as_json=as_json, quiet=quiet)


def _interrupted(directory: RunDirectory) -> str:
    if "settings" not in directory.info():
        shutil.rmtree(directory.path, ignore_errors=True)
        return "interrupted before the search began"
    command = f"pmlp resume {shlex.quote(str(directory.path))}"
    return f"interrupted; what was trained is kept, and this goes on: {command}"


def _discard_if_untouched(directory: RunDirectory) -> None:
    """Drop the folder of a run that a mistake ended before anything was decided, so that its name is free."""
    if not directory.decisions() and directory.info().get("status") == "failed":
        shutil.rmtree(directory.path, ignore_errors=True)


def show_outcome(directory: RunDirectory, *, as_json: bool, quiet: bool) -> None:
    """Tell what a finished run has found, as JSON, as a page, or by its folder alone."""
    screen = terminal()
    result = plain(directory.result())
    if as_json:
        screen.json({"run": str(directory.path)} | result)
    elif quiet:
        screen.line(str(directory.path))
    else:
        screen.show(search_summary(result, records(directory.leaderboard()), str(directory.path)))


def target_of(directory: RunDirectory, model: TrainedModel) -> str | None:
    """Name of the target column, where the run knows it."""
    source = directory.info().get("source") or {}
    name = source.get("target") or model.target_name
    return None if name is None else str(name)


def trial_of(directory: RunDirectory, number: int) -> dict[str, Any]:
    """All that a run knows of one trial.

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
            f"trial must be one of {low} to {high} in {str(directory.path)!r}, but got {number}"
        )
    board = directory.leaderboard()
    entry = next(iter(records(board[board["trial"] == number])), {})
    last = rows[-1]
    prefix = "config_"
    configuration = {name.removeprefix(prefix): last[name] for name in last if name.startswith(prefix)}
    widths = configuration.get("widths")
    if isinstance(widths, str):
        configuration["widths"] = [int(width) for width in widths.split("-") if width]
    return {
        "trial": number,
        "state": entry.get("state") or last["state"],
        "failure": last.get("failure"),
        "metric": directory.result()["metric"],
        "rank": entry.get("rank"),
        "score": entry.get("score"),
        "standard_error": entry.get("standard_error"),
        "ensemble_weight": entry.get("ensemble_weight") or 0.0,
        "origin": last.get("origin"),
        "n_parameters": last.get("n_parameters"),
        "configuration": configuration,
        "rungs": [
            {
                name: row.get(name)
                for name in ("round", "rung", "epochs", "score", "error", "train_loss", "train_seconds")
            }
            for row in rows
        ],
    }


def environment() -> dict[str, Any]:
    """Versions, machine, devices and optional extras."""
    packages = ("torch", "numpy", "pandas", "scikit-learn")
    devices = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "versions": {"parallelmlp-search": __version__, "python": platform.python_version()}
        | {name: _version(name) for name in packages},
        "platform": platform.platform(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": _memory_bytes(),
        "device": "cuda" if torch.cuda.is_available() else "cpu",
        "gpus": devices,
        "extras": {extra: importlib.util.find_spec(module) is not None for extra, module in EXTRAS.items()},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _memory_bytes() -> int | None:
    """Physical memory, where the system tells it."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
