"""Storages and studies by what a user calls them, with one sentence where they cannot be opened."""

from __future__ import annotations

import json
import os

import optuna
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend

from parallelmlp_search.exceptions import InvalidParameterError, near_miss
from parallelmlp_search.integrations.optuna.storage.retry import insist

__all__ = ["open_storage", "open_study"]

JOURNAL = "journal:"

SQLITE = "sqlite:///"


def open_storage(storage: str | BaseStorage | None, *, must_exist: bool = False) -> BaseStorage | None:
    """A storage as Optuna takes it; ``journal:FILE`` is the file of a journal.

    Parameters
    ----------
    storage
        A text is opened, everything else is returned as it is.
    must_exist
        Whether a file has to be there already, as when a study is to be read; else it is made.

    Raises
    ------
    InvalidParameterError
        If a text is neither a URL nor ``journal:FILE``, or what it names cannot be opened.
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
        return _database(storage)
    except Exception as error:  # databases, their drivers, files: each has errors of its own
        reason = _reason(storage, error)
        raise InvalidParameterError(f"cannot open the storage {storage!r}: {reason}") from error


def _database(url: str) -> BaseStorage:
    """A database; several workers that find it empty at the same time all try to make its tables."""
    # `orig` is what a database itself has said, which it may not say the next time
    return insist(lambda: optuna.storages.get_storage(url), lambda error: hasattr(error, "orig"))


def open_study(storage: str | BaseStorage, name: str | None = None) -> optuna.Study:
    """An existing study; without a name, the only one that the storage holds.

    Raises
    ------
    InvalidParameterError
        If there is no such storage or study, or no name and not exactly one.
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
    """Refuse a file that is something else, to which a journal would be added."""
    with open(file, "rb") as lines:
        first = lines.readline()
    if first and "op_code" not in json.loads(first):
        raise ValueError(f"{file} is no journal")


def _file_of(storage: str) -> str | None:
    """The file that a journal or a database of SQLite lives in; None for databases elsewhere."""
    if storage.startswith(JOURNAL):
        return storage.removeprefix(JOURNAL)
    file = storage.removeprefix(SQLITE).partition("?")[0]
    return file if storage.startswith(SQLITE) and file not in ("", ":memory:") else None


def _reason(storage: str, error: BaseException) -> str:
    """Why a storage could not be opened, in a few words."""
    if isinstance(error, ImportError):
        missing = next((e.name for e in _chain(error) if isinstance(e, ModuleNotFoundError)), None)
        return f"the driver of this database is not installed: pip install what brings {missing or 'it'!r}"
    if isinstance(error, ValueError | KeyError | TypeError | AssertionError) and storage.startswith(JOURNAL):
        return "the file is no journal of Optuna, choose another"
    if type(error).__name__ == "NoSuchModuleError":
        kind = storage.partition("://")[0]
        return f"no database is called {kind!r}; sqlite, mysql and postgresql are, or give journal:FILE"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _chain(error: BaseException | None) -> list[BaseException]:
    """An error, and what it came from."""
    found = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found
