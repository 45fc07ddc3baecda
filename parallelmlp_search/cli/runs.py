"""Runs on the command line: start one, follow it, tell its outcome, look into it."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import platform
import shlex
import shutil
import sys
from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from parallelmlp_search import __version__
from parallelmlp_search.cli.session import terminal
from parallelmlp_search.cli.tables import STORED_TABLE, Source, plain, records
from parallelmlp_search.data import read_table
from parallelmlp_search.estimators.initial_configs import initial_configs
from parallelmlp_search.exceptions import InvalidParameterError, PMLPError, SearchFailedError
from parallelmlp_search.report import ConsoleReport, search_summary
from parallelmlp_search.search import Problem, RunDirectory, SearchSettings, TrainedModel, run
from parallelmlp_search.search import screen as take_part
from parallelmlp_search.selection import get_metric
from parallelmlp_search.space import MLPConfig, SearchSpace

if TYPE_CHECKING:
    from parallelmlp_search.integrations.optuna import SharedStudy

__all__ = [
    "contribute",
    "environment",
    "initial",
    "new_run",
    "perform",
    "sharing",
    "show_outcome",
    "target_of",
    "trial_of",
]

EXTRAS = {
    "benchmark": "lightgbm",
    "cmaes": "cmaes",
    "compiled": "numba",
    "dashboard": "optuna_dashboard",
    "gpu": "triton",
    "plots": "plotly",
    "polars": "polars",
    "yaml": "yaml",
}
"""Optional extras of the distribution, and a module that each of them brings."""


def new_run(source: Source, settings: SearchSettings, output: Path | None) -> tuple[RunDirectory, Problem]:
    """Read the table and make the folder of a new run, in this order: a mistake leaves no folder behind."""
    folder = _default_folder(source.stem) if output is None else output
    if _is_taken(folder):
        RunDirectory.create(folder)  # refuses, before a long table is read
    frame = read_table(source.data)
    problem = source.problem(frame)
    settings.check_task(problem.task)
    if settings.metric is not None:
        get_metric(settings.metric, problem.task)
    directory = RunDirectory.create(folder)
    if source.is_stdin:
        # what came through a pipe cannot be read again; from here on the copy is the table
        directory.write_table(STORED_TABLE, frame)
        problem = source.problem(read_table(directory.path / f"{STORED_TABLE}.parquet"))
    directory.set_source(source.to_dict())
    return directory, problem


def initial(source: str | None, study: str | None, space: SearchSpace) -> tuple[MLPConfig, ...]:
    """Configurations to begin with, out of a run's folder or the storage of studies."""
    if source is not None and ("://" in source or source.startswith("journal:")):
        from parallelmlp_search.integrations.optuna import open_study

        return initial_configs(open_study(source, study), space)
    if study is not None:
        raise InvalidParameterError(
            f"--start-study needs the URL of a storage as --start-from, but got {source!r}"
        )
    return initial_configs(source, space)


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
    callbacks = _progress(source, problem, settings, quiet=quiet)
    screener = _screener(directory.info().get("shared"), jobs, must_exist="settings" in directory.info())
    try:
        with callbacks[0] if callbacks else contextlib.nullcontext():
            run(
                problem,
                settings,
                directory=directory,
                callbacks=callbacks,
                n_jobs=jobs,
                started=started,
                screener=screener,
            )
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_interrupted(directory)) from None
    except SearchFailedError:
        raise
    except PMLPError:
        _discard_if_untouched(directory)
        raise
    show_outcome(directory, as_json=as_json, quiet=quiet)


def _progress(
    source: Source, problem: Problem, settings: SearchSettings, *, quiet: bool
) -> list[ConsoleReport]:
    screen = terminal()
    metric = settings.metric or ""
    title = " · ".join(word for word in (source.name, source.target, problem.task, metric) if word)
    # an environment variable that forces colours does not make a log file a terminal
    live = sys.stderr.isatty() and screen.err.is_terminal and not screen.err.is_dumb_terminal
    return [] if quiet else [ConsoleReport(screen.err, title=title, live=live)]


def sharing(
    storage: str | None, study: str | None, settings: SearchSettings, *, screen_only: bool
) -> dict[str, str]:
    """Storage and name of a study that is shared, as ``run.json`` keeps them; empty for a search alone.

    Raises
    ------
    InvalidParameterError
        If only one of the two is given, or neither where a study is needed; or if the sampler cannot be
        shared.
    """
    if storage is None and study is None:
        if screen_only:
            raise InvalidParameterError(
                "--screen-only needs a study to train for: give --storage and --study"
            )
        return {}
    if storage is None or study is None:
        given, missing = ("--study", "--storage") if storage is None else ("--storage", "--study")
        raise InvalidParameterError(f"{given} needs {missing} beside it")
    from parallelmlp_search.integrations.optuna.study.distributed_study import check_shareable

    check_shareable(settings)
    return {"storage": storage, "study": study}


def _screener(
    shared: Mapping[str, str] | None, jobs: int | None, *, must_exist: bool = False
) -> SharedStudy | None:
    if not shared:
        return None
    from parallelmlp_search.integrations.optuna import SharedStudy

    return SharedStudy(shared["storage"], shared["study"], n_jobs=jobs, must_exist=must_exist)


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
    """Train trials for a study, in front of the user, and make no model."""
    problem = source.problem(read_table(source.data))
    screener = _screener(shared, jobs)
    assert screener is not None
    callbacks = _progress(source, problem, settings, quiet=quiet)
    with callbacks[0] if callbacks else contextlib.nullcontext():
        n_trials = take_part(problem, settings, screener, callbacks=callbacks, n_jobs=jobs, started=started)
    outcome = {"study": shared["study"], "storage": shared["storage"], "trials": n_trials}
    if as_json:
        terminal().json(outcome)
    elif not quiet:
        terminal().note(
            f"the study {shared['study']!r} holds {n_trials:,} trials; "
            "the same command without --screen-only makes a model of them"
        )


def _interrupted(directory: RunDirectory) -> str:
    if "settings" not in directory.info():
        shutil.rmtree(directory.path, ignore_errors=True)
        return "interrupted before the search began"
    command = f"pmlp resume {shlex.quote(str(directory.path))}"
    return f"interrupted; what was trained is kept, and this goes on: {command}"


def _discard_if_untouched(directory: RunDirectory) -> None:
    """Drop the folder of a run that a mistake ended before anything was decided, so that its name is free."""
    if not directory.entries() and directory.info().get("status") == "failed":
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
