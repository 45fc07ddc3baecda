"""Storages and studies opened by URL or name, with a one-sentence error where that fails."""

from __future__ import annotations

import json
import os

import optuna
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend

from parallelmlp_search.exceptions import InvalidParameterError, near_miss
from parallelmlp_search.integrations.optuna.storage.retry import call_with_retry

JOURNAL = "journal:"

SQLITE = "sqlite:///"


def open_storage(storage: str | BaseStorage | None, *, must_exist: bool = False) -> BaseStorage | None:
    """Open a storage for Optuna; ``journal:FILE`` is a journal file.

    Parameters
    ----------
    storage
        A string is opened; everything else is returned as it is.
    must_exist
        If True, a file must exist already, as when a study is read; else it is created.

    Returns
    -------
    optuna.storages.BaseStorage or None

    Raises
    ------
    InvalidParameterError
        If a string is neither a URL nor ``journal:FILE``, or the storage cannot be opened.
    """
    if not isinstance(storage, str):
        return storage
    if storage == JOURNAL or not (storage.startswith(JOURNAL) or "://" in storage):
        raise InvalidParameterError(
            f"storage must be a URL such as sqlite:///study.db, or journal:FILE, but got {storage!r}"
        )
    file = _file_of(storage)
    if file is not None:
        folder = os.path.dirname(file) or "."
        if must_exist and not os.path.exists(file):
            raise InvalidParameterError(f"cannot open the storage {storage!r}: there is no file {file!r}")
        if not os.path.isdir(folder):
            raise InvalidParameterError(
                f"cannot open the storage {storage!r}: there is no folder {folder!r}, make it first"
            )
    try:
        if storage.startswith(JOURNAL):
            assert file is not None
            if os.path.exists(file):
                _check_journal(file)
            return JournalStorage(JournalFileBackend(file))
        # Several workers may create the tables of an empty database at the same time. Errors of the database
        # itself have an attribute `orig`.
        return call_with_retry(
            lambda: optuna.storages.get_storage(storage), lambda error: hasattr(error, "orig")
        )
    except Exception as error:  # databases, drivers and files raise different errors
        reason = _reason(storage, error)
        raise InvalidParameterError(f"cannot open the storage {storage!r}: {reason}") from error


def open_study(storage: str | BaseStorage, name: str | None = None) -> optuna.Study:
    """Open an existing study; without a name, the only one in the storage.

    Raises
    ------
    InvalidParameterError
        If the storage or the study does not exist, or the name is missing and there is not exactly one study.
    """
    opened = open_storage(storage, must_exist=True)
    assert opened is not None
    names = sorted(optuna.get_all_study_names(opened))
    if name is None and len(names) == 1:
        name = names[0]
    if name is None:
        raise InvalidParameterError(
            f"the study must be named, since {storage!r} holds {len(names)}: {', '.join(names) or 'none'}"
        )
    if name not in names:
        raise InvalidParameterError(f"there is no study {name!r} in {storage!r}{near_miss(name, names)}")
    return optuna.load_study(study_name=name, storage=opened)


def _check_journal(file: str) -> None:
    """Raise an error for another kind of file, because a journal would be appended to it."""
    with open(file, "rb") as lines:
        first = lines.readline()
    if first and "op_code" not in json.loads(first):
        raise ValueError(f"{file} is not a journal")


def _file_of(storage: str) -> str | None:
    """Return the file of a journal or of an SQLite database; None for other databases."""
    if storage.startswith(JOURNAL):
        return storage.removeprefix(JOURNAL)
    file = storage.removeprefix(SQLITE).partition("?")[0]
    return file if storage.startswith(SQLITE) and file not in ("", ":memory:") else None


def _reason(storage: str, error: Exception) -> str:
    """Return a short reason for the failure to open a storage."""
    if isinstance(error, ImportError):
        missing = next((e.name for e in _causes(error) if isinstance(e, ModuleNotFoundError)), None)
        package = f"the package that provides {missing!r}" if missing else "it"
        return f"the driver of this database is not installed: install {package} with pip"
    if isinstance(error, ValueError | KeyError | TypeError | AssertionError) and storage.startswith(JOURNAL):
        return "the file is not an Optuna journal, choose another"
    if type(error).__name__ == "NoSuchModuleError":
        kind = storage.partition("://")[0]
        return f"there is no database {kind!r}; use sqlite, mysql, postgresql, or journal:FILE"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _causes(error: BaseException | None) -> list[BaseException]:
    """Return an error and the errors that it came from."""
    found = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found
