"""What a run leaves on disk, safe to open, and enough to resume: JSON, Parquet, safetensors."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout
from torch import Tensor

from parallelmlp_search._files import (
    load_metadata,
    load_tensors,
    read_json,
    save_tensors,
    write_atomic,
    write_json,
)
from parallelmlp_search.exceptions import RunDirectoryError, near_miss
from parallelmlp_search.search.problem.problem import Problem
from parallelmlp_search.search.problem.settings import SearchSettings
from parallelmlp_search.search.run.trial import config_of_row
from parallelmlp_search.space import MLPConfig

__all__ = ["RunDirectory"]

PACKAGES = ("parallelmlp-search", "torch", "numpy", "pandas", "scikit-learn")


class RunDirectory:
    """A folder that belongs to one search.

    Use :meth:`create` or :meth:`open`. ``run.json`` holds the settings and how the run stands;
    ``checkpoints/`` what has been computed, pruned to what resuming needs; ``journal.json`` values
    that depend on the clock, so that a resumed run uses the same; ``trials.parquet``,
    ``leaderboard.parquet``, ``oof.safetensors``, ``result.json`` and ``model/`` the outcome; ``log.jsonl``
    what happened when.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: str | os.PathLike[str]) -> RunDirectory:
        """A new run in a folder that does not exist or is empty.

        Raises
        ------
        RunDirectoryError
            If the folder holds anything.
        """
        folder = Path(path)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise RunDirectoryError(
                f"{str(folder)!r} already exists and is not empty: choose another folder, "
                "or resume the run in it"
            )
        folder.mkdir(parents=True, exist_ok=True)
        directory = cls(folder)
        directory._write_info({"created": _now(), "status": "running", "versions": _versions()})
        return directory

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> RunDirectory:
        """The run in an existing folder.

        Raises
        ------
        RunDirectoryError
            If there is none.
        """
        folder = Path(path)
        if not (folder / "run.json").is_file():
            parent = folder.parent
            neighbours = [p.name for p in parent.iterdir() if p.is_dir()] if parent.is_dir() else []
            raise RunDirectoryError(
                f"{str(folder)!r} is not a run: it holds no run.json{near_miss(folder.name, neighbours)}"
            )
        return cls(folder)

    # ------------------------------------------------------------------ run.json

    def info(self) -> dict[str, Any]:
        """Contents of ``run.json``."""
        return dict(read_json(self.path / "run.json"))

    def update(self, **changes: Any) -> None:
        """Change entries of ``run.json``."""
        self._write_info(self.info() | changes)

    def _write_info(self, info: Mapping[str, Any]) -> None:
        write_json(self.path / "run.json", dict(info))

    def set_source(self, source: Mapping[str, Any]) -> None:
        """Remember how the table was read, so that a resumed run can read it again."""
        self.update(source=dict(source))

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
        return SearchSettings.from_dict(info["settings"])

    # ------------------------------------------------------------------ from the start to the end

    def begin(self, problem: Problem, settings: SearchSettings) -> float:
        """Mark the run as running, if it is one of this search.

        Returns
        -------
        float
            Seconds that it has used before it was interrupted.

        Raises
        ------
        RunDirectoryError
            If it is finished, or was started on other data or with other settings.
        """
        info = self.info()
        if info.get("status") == "finished":
            raise RunDirectoryError(f"the run in {str(self.path)!r} is finished: choose another folder")
        print_of_data = problem.fingerprint()
        if "settings" in info:
            if info["fingerprint"] != print_of_data:
                raise RunDirectoryError(
                    f"the run in {str(self.path)!r} was started on other data: "
                    "resume it with the same table, or choose another folder"
                )
            # what an older version did not know yet has its default
            before, now = self.settings().to_dict(), settings.to_dict()
            for name, value in now.items():
                if before[name] != value:
                    raise RunDirectoryError(
                        f"the run in {str(self.path)!r} was started with {name}={before[name]!r}, "
                        f"but got {value!r}: resume it with the same settings, or choose another folder"
                    )
        self.update(settings=settings.to_dict(), fingerprint=print_of_data, status="running")
        return float(info.get("spent_seconds", 0.0))

    @contextlib.contextmanager
    def status_kept(self, started: float, spent: float) -> Iterator[None]:
        """Write how the run ended, whatever ends it.

        Parameters
        ----------
        started
            Reading of :func:`time.monotonic` at its start.
        spent
            Seconds that it had used before.
        """
        try:
            yield
        except BaseException as error:
            status = "interrupted" if isinstance(error, KeyboardInterrupt | SystemExit) else "failed"
            with contextlib.suppress(Exception):
                # once everything is saved, whatever comes afterwards does not undo it
                if self.info().get("status") != "finished":
                    self.update(status=status, spent_seconds=spent + time.monotonic() - started)
                    self.log(status, reason=repr(error))
            raise

    # ------------------------------------------------------------------ lock and log

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other writer out.

        Raises
        ------
        RunDirectoryError
            If another process is at work here.
        """
        lock = FileLock(self.path / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise RunDirectoryError(
                f"another process is writing to {str(self.path)!r}: wait for it, or choose another folder"
            ) from None
        try:
            yield
        finally:
            lock.release()

    def log(self, event: str, **details: Any) -> None:
        """Append a line to ``log.jsonl``."""
        line = json.dumps({"time": _now(), "event": event} | details, default=str)
        path = self.path / "log.jsonl"
        try:
            with open(path, "a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise RunDirectoryError(
                f"could not write {str(path)!r} ({error}): free some space there and resume"
            ) from error

    # ------------------------------------------------------------------ checkpoints

    @property
    def checkpoints(self) -> Path:
        """Folder of what resuming needs."""
        return self.path / "checkpoints"

    def recall(self, key: str) -> tuple[dict[str, Tensor], Any] | None:
        """Tensors and metadata that were remembered under a key, or None."""
        path = self.checkpoints / f"{key}.safetensors"
        return load_tensors(path) if path.is_file() else None

    def remember(self, key: str, tensors: Mapping[str, Tensor], metadata: Any) -> None:
        """Keep tensors and metadata under a key."""
        save_tensors(self.checkpoints / f"{key}.safetensors", tensors, metadata)

    def shrink(self, key: str, change: Callable[[Any], Any]) -> None:
        """Drop the tensors that were remembered under a key and change its metadata, if it is there."""
        path = self.checkpoints / f"{key}.safetensors"
        if path.is_file():
            save_tensors(path, {}, change(load_metadata(path)))

    def forget(self, prefix: str) -> None:
        """Drop everything whose key begins with ``prefix``."""
        for path in self.checkpoints.glob(f"{prefix}*.safetensors"):
            path.unlink(missing_ok=True)

    def entries(self) -> dict[str, Any]:
        """Entries of the journal: values that depend on the clock, by key."""
        for name in ("journal.json", "decisions.json"):  # the second is that of older versions
            if (self.path / name).is_file():
                return dict(read_json(self.path / name))
        return {}

    def record(self, key: str, value: Any) -> None:
        """Add an entry to the journal."""
        write_json(self.path / "journal.json", self.entries() | {key: value})

    # ------------------------------------------------------------------ outcome

    def write_table(self, name: str, frame: pd.DataFrame) -> None:
        """Write a table as Parquet."""
        write_atomic(self.path / f"{name}.parquet", lambda path: frame.to_parquet(path, index=False))

    def write_tensors(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Write tensors."""
        save_tensors(self.path / f"{name}.safetensors", tensors)

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write the summary, mark the run as finished, and drop what only resuming needs."""
        write_json(self.path / "result.json", dict(result))
        self.update(status="finished", finished=_now())
        shutil.rmtree(self.checkpoints, ignore_errors=True)

    def result(self) -> dict[str, Any]:
        """Summary of a finished search.

        Raises
        ------
        RunDirectoryError
            If the search has not finished.
        """
        self._require("result.json")
        return dict(read_json(self.path / "result.json"))

    def leaderboard(self) -> pd.DataFrame:
        """The leaderboard, best first."""
        self._require("leaderboard.parquet")
        return pd.read_parquet(self.path / "leaderboard.parquet")

    def trials(self) -> pd.DataFrame:
        """One row a trial and rung."""
        self._require("trials.parquet")
        return pd.read_parquet(self.path / "trials.parquet")

    def best_configs(self, n: int) -> list[MLPConfig]:
        """Configurations of up to ``n`` trials, best first, without those that have no rank."""
        board = self.leaderboard()
        return [config_of_row(row) for row in board[board["rank"].notna()].head(n).to_dict("records")]

    @property
    def model_folder(self) -> Path:
        """Folder of the trained ensemble, for :meth:`TrainedModel.load`.

        Raises
        ------
        RunDirectoryError
            If the search has not finished.
        """
        self._require("model/model.json")
        return self.path / "model"

    def _require(self, name: str) -> None:
        if not (self.path / name).is_file():
            status = self.info().get("status", "unfinished")
            raise RunDirectoryError(
                f"the run in {str(self.path)!r} is {status} and has no {name} yet: "
                f"let it go on with `pmlp resume {self.path}`"
            )


def _now() -> str:
    return datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="seconds")


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions
