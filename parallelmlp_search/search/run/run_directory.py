"""Run directory: files of a search, in JSON, Parquet and safetensors, which are safe to open.

Heavy packages are imported when a method needs them: opening a run and its model takes few.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from parallelmlp_search._checks import check_choice
from parallelmlp_search._files import (
    append_line,
    is_leftover,
    make_folder,
    remove,
    remove_folder,
    save_tensors,
    write_frame,
    write_json,
)
from parallelmlp_search._reading import RESTORE, read_frame, read_json, reading
from parallelmlp_search.exceptions import RunDirectoryError, near_miss
from parallelmlp_search.search.run.environment import machine, versions
from parallelmlp_search.search.run.formats import (
    COLUMN_COLUMNS,
    FORMAT,
    LEADERBOARD_COLUMNS,
    RENAMED,
    TRIAL_COLUMNS,
    Journal,
    Result,
    RunInfo,
)
from parallelmlp_search.space import MLPConfig

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from parallelmlp_search.search.problem.problem import Problem
    from parallelmlp_search.search.problem.settings import SearchSettings

LOCK = ".lock"
"""Name of the lock file, which stays in the folder."""


class RunDirectory:
    """Folder of one search, made by :meth:`create` or :meth:`open`.

    ``run.json`` holds the settings and the status; ``checkpoints/`` the outcomes that a resumed run needs;
    ``journal.json`` values that depend on the clock, so that a resumed run uses the same; ``trials.parquet``,
    ``leaderboard.parquet``, ``columns.parquet``, ``columns.json``, ``oof.safetensors``, ``result.json`` and
    ``model/`` the result; ``log.jsonl`` events.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # not thread-local: a run can be created in one thread and searched in another
        self._lock = FileLock(path / LOCK, timeout=0, thread_local=False)

    @classmethod
    def create(cls, path: str | os.PathLike[str], **entries: Any) -> RunDirectory:
        """Create a run in a folder that does not exist, is empty, or holds a run that never began.

        The run is locked until its search ends, so that of several programs that start on one folder only one
        writes to it.

        Parameters
        ----------
        path
            The folder.
        **entries
            First entries of ``run.json``.

        Raises
        ------
        RunDirectoryError
            If the folder holds anything else, is locked, or cannot be written.
        """
        directory = cls(Path(path))
        directory.check_free()
        try:
            directory.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunDirectoryError(
                f"could not create {str(path)!r} ({error}): choose another folder"
            ) from error
        directory._acquire()
        try:
            directory.check_free()  # another program can have begun a run since the first check
            info = {
                "format": FORMAT,
                "created": _now(),
                "status": "running",
                "versions": versions(),
                "machine": machine(),
            }
            write_json(directory.path / "run.json", info | entries)
        except BaseException:
            directory._lock.release(force=True)
            raise
        return directory

    def check_free(self) -> None:
        """Check that a run can be created in the folder.

        Raises
        ------
        RunDirectoryError
            If the folder holds files or a run that has begun.
        """
        if not self.path.exists():
            return
        if self.path.is_dir():
            names = {file.name for file in self.path.iterdir() if not is_leftover(file)} - {LOCK}
            if not names or ("run.json" in names and "settings" not in self.info()):
                return
        raise RunDirectoryError(
            f"{str(self.path)!r} already exists and is not empty: choose another folder, "
            "or resume the run in it"
        )

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> RunDirectory:
        """Open an existing run.

        Raises
        ------
        RunDirectoryError
            If the folder holds none, one of a newer version, or a link that leads out of it.
        """
        folder = Path(path)
        if not (folder / "run.json").is_file():
            parent = folder.parent
            neighbours = [p.name for p in parent.iterdir() if p.is_dir()] if parent.is_dir() else []
            raise RunDirectoryError(
                f"{str(folder)!r} is not a run: it holds no run.json{near_miss(folder.name, neighbours)}"
            )
        _check_kinds(folder)
        directory = cls(folder)
        directory.info()
        return directory

    # ------------------------------------------------------------------ run.json

    def info(self) -> dict[str, Any]:
        """Content of ``run.json``."""
        return dict(read_json(self.path / "run.json", RunInfo, newest=FORMAT))

    def update(self, **changes: Any) -> None:
        """Change entries of ``run.json``."""
        write_json(self.path / "run.json", self.info() | changes)

    def settings(self) -> SearchSettings:
        """Settings of the search.

        Raises
        ------
        RunDirectoryError
            If the search stopped before it had stored them.
        """
        info = self.info()
        if "settings" not in info:
            raise RunDirectoryError(f"the run in {str(self.path)!r} stopped before it began: start it anew")
        from parallelmlp_search.search.problem.settings import SearchSettings

        with reading(self.path / "run.json"):
            return SearchSettings.from_dict(info["settings"])

    def begin(self, problem: Problem, settings: SearchSettings) -> float:
        """Mark the run as running; return the seconds that it used before it was interrupted.

        Raises
        ------
        RunDirectoryError
            If the run is finished, or was started on other data or with other settings.
        """
        info = self.info()
        if info.get("status") == "finished":
            raise RunDirectoryError(f"the run in {str(self.path)!r} is finished: choose another folder")
        fingerprint = problem.fingerprint()
        if "settings" in info:
            if info.get("fingerprint") != fingerprint:
                raise RunDirectoryError(
                    f"the run in {str(self.path)!r} was started on other data: "
                    "resume it with the same table, or choose another folder"
                )
            # a setting that an older version does not have gets its default
            before = self.settings().to_dict()
            for name, value in settings.to_dict().items():
                if before[name] != value:
                    raise RunDirectoryError(
                        f"the run in {str(self.path)!r} was started with {name}={before[name]!r}, "
                        f"but got {value!r}: resume it with the same settings, or choose another folder"
                    )
        self._remove_leftovers()
        self.update(settings=settings.to_dict(), fingerprint=fingerprint, status="running")
        return float(info.get("spent_seconds", 0.0))

    @contextlib.contextmanager
    def recording_status(self, started: float, spent: float) -> Iterator[None]:
        """Record an interrupt or failure.

        ``started`` is the reading of :func:`time.monotonic` at the start, ``spent`` the seconds used before.
        """
        try:
            yield
        except BaseException as error:
            status = "interrupted" if isinstance(error, KeyboardInterrupt | SystemExit) else "failed"
            with contextlib.suppress(Exception):
                # errors after everything was saved do not matter
                if self.info().get("status") != "finished":
                    self.update(status=status, spent_seconds=spent + time.monotonic() - started)
                    self.log(status, reason=repr(error))
            raise

    # ------------------------------------------------------------------ lock, log, journal

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from writing.

        Raises
        ------
        RunDirectoryError
            If another process holds the lock.
        """
        self._acquire()
        try:
            yield
        finally:
            self._lock.release(force=True)  # also the hold of `create`

    def _acquire(self) -> None:
        try:
            self._lock.acquire()
        except Timeout:
            raise RunDirectoryError(
                f"another process is writing to {str(self.path)!r}: wait for it, or choose another folder"
            ) from None
        except OSError as error:
            raise RunDirectoryError(
                f"could not lock {str(self.path)!r} ({error}): make the folder writable and run again"
            ) from error

    def log(self, event: str, **details: Any) -> None:
        """Append a line to ``log.jsonl``.

        Raises
        ------
        RunDirectoryError
            If the file cannot be written.
        """
        append_line(
            self.path / "log.jsonl", json.dumps({"time": _now(), "event": event} | details, default=str)
        )

    @property
    def checkpoints(self) -> Path:
        """Folder of the outcomes that a resumed run needs."""
        return self.path / "checkpoints"

    def folder(self, name: str) -> Path:
        """Create a folder of the run, such as ``model``, and return its path."""
        return make_folder(self.path / name)

    def entries(self) -> dict[str, Any]:
        """Entries of the journal: values that depend on the clock, by key."""
        for name in ("journal.json", "decisions.json"):  # the second is that of older versions
            if (self.path / name).is_file():
                return dict(read_json(self.path / name, Journal))
        return {}

    def write_entries(self, entries: Mapping[str, Any]) -> None:
        """Write all entries of the journal."""
        write_json(self.path / "journal.json", dict(entries))

    # ------------------------------------------------------------------ result

    def write_table(self, name: str, frame: pd.DataFrame) -> None:
        """Write a table as Parquet."""
        write_frame(self.path / f"{name}.parquet", frame)

    def write_tensors(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Write tensors as safetensors."""
        save_tensors(self.path / f"{name}.safetensors", tensors)

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write the summary, mark the run as finished, and delete the checkpoints."""
        write_json(self.path / "result.json", dict(result))
        self.update(status="finished", finished=_now())
        remove_folder(self.checkpoints)

    def tidy(self) -> None:
        """Delete what a process that was killed has left in a finished run, if the folder can be written."""
        with contextlib.suppress(RunDirectoryError), self.locked():
            self._remove_leftovers()
            remove_folder(self.checkpoints)

    def _remove_leftovers(self) -> None:
        """Delete what was being written by processes that have ended: this one holds the lock."""
        for path in [path for path in self.path.rglob(".*") if is_leftover(path)]:
            if path.is_dir() and not path.is_symlink():
                remove_folder(path)
            else:
                remove(path)

    def result(self) -> dict[str, Any]:
        """Summary of a finished search, with the names of today if an older version has written it."""
        stored = dict(read_json(self._finished("result.json"), Result))
        renamed = {new: stored.pop(old) for old, new in RENAMED.items() if old in stored}
        return renamed | stored

    def metric(self) -> str:
        """Name of the metric; ``python:NAME`` for a scorer or function, which a run does not hold."""
        given = self.info().get("settings", {}).get("metric")
        is_object = isinstance(given, str) and given.startswith("python:")
        return str(given if is_object else self.result()["metric"])

    def columns(self) -> pd.DataFrame | None:
        """Facts about the columns of the table, one row each; None for a run of an older version."""
        path = self.path / "columns.parquet"
        return read_frame(path, COLUMN_COLUMNS).set_index("column") if path.is_file() else None

    def leaderboard(self) -> pd.DataFrame:
        """Leaderboard, best trial first."""
        return self._table("leaderboard", LEADERBOARD_COLUMNS)

    def trials(self) -> pd.DataFrame:
        """One row per trial and rung."""
        return self._table("trials", TRIAL_COLUMNS)

    def _table(self, name: str, columns: Mapping[str, str]) -> pd.DataFrame:
        from parallelmlp_search.search.run.trial import TrialState, config_of_row

        path = self._finished(f"{name}.parquet")
        frame = read_frame(path, columns)
        with reading(path):
            if frame.empty:
                raise ValueError("it has no rows")
            if columns is LEADERBOARD_COLUMNS and frame["trial"].duplicated().any():
                raise ValueError("it has a trial twice")
            for state in frame["state"].unique():
                check_choice("state", state, list(TrialState))
            for row in frame.drop_duplicates("trial").to_dict("records"):
                config_of_row(row, to_show=True)
        return frame

    def best_configs(self, n: int) -> list[MLPConfig]:
        """Configurations of the best ``n`` trials that have a rank."""
        from parallelmlp_search.search.run.trial import config_of_row

        board = self.leaderboard()
        return [config_of_row(row) for row in board[board["rank"].notna()].head(n).to_dict("records")]

    @property
    def model_folder(self) -> Path:
        """Folder of the trained ensemble, for :meth:`TrainedModel.load`."""
        return self._finished("model/model.json").parent

    def _finished(self, name: str) -> Path:
        """Path of a file that a finished search has written."""
        path = self.path / name
        if not path.is_file():
            status = self.info()["status"]
            if status == "finished":
                raise RunDirectoryError(f"the run in {str(self.path)!r} has lost its {name}: {RESTORE}")
            raise RunDirectoryError(
                f"the run in {str(self.path)!r} is {status} and has no {name} yet: "
                f"resume it with `pmlp resume {self.path}`"
            )
        return path


def _check_kinds(folder: Path) -> None:
    """Check that all in a folder are files, folders, or links to these inside; some may vanish meanwhile."""
    inside = folder.resolve()
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(root, name)
            if path.is_symlink() and not path.resolve().is_relative_to(inside):
                raise RunDirectoryError(
                    f"{str(path)!r} is a link out of the run, to {os.readlink(path)!r}: "
                    "replace it by what it links to"
                )
            if not (path.is_file() or path.is_dir()) and os.path.lexists(path):
                raise RunDirectoryError(f"{str(path)!r} is neither a file nor a folder: remove it")


def _now() -> str:
    return datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="seconds")
