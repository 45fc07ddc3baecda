"""Storages and studies are opened by URL and name, or refused with a one-sentence error."""

from __future__ import annotations

from pathlib import Path

import optuna
import pandas as pd
import pytest
from sqlalchemy.exc import IntegrityError
from typer.testing import CliRunner

from parallelmlp_search.cli.app import app
from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.integrations.optuna import open_storage, open_study
from tests.integrations.conftest import Table

MISTAKES = {
    "study.db": "must be a URL such as sqlite:///study.db, or journal:FILE, but got 'study.db'",
    "journal:": "but got 'journal:'",
    "": "but got ''",
    "sqlite:///{}/none/s.db": "there is no folder '{}/none', make it first",
    "journal:{}/none/s.log": "there is no folder '{}/none', make it first",
    "sqlite:///{}/words": "file is not a database",
    "journal:{}/words": "the file is not an Optuna journal",
    "journal:{}/numbers": "the file is not an Optuna journal",
    "journal:{}": "directory",
    "oracal://host/db": "there is no database 'oracal'; use sqlite, mysql, postgresql, or journal:FILE",
    "mysql://host/db": "this database is not installed: install the package that provides 'MySQLdb'",
    "redis://host": "JournalRedisBackend",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "words").write_text("neither a database\nnor a journal\n")
    (tmp_path / "numbers").write_text("1\n2\n")
    return tmp_path


@pytest.mark.parametrize("storage", MISTAKES)
def test_invalid_storages_are_refused_in_one_sentence(folder: Path, storage: str) -> None:
    before = sorted(folder.iterdir())
    with pytest.raises(InvalidParameterError) as caught:
        open_storage(storage.format(folder))
    sentence = str(caught.value)
    assert MISTAKES[storage].format(folder) in sentence
    assert "\n" not in sentence
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("storage", ["sqlite:///{}/s.db", "journal:{}/s.log"])
def test_reading_creates_no_file(folder: Path, storage: str) -> None:
    with pytest.raises(InvalidParameterError, match="there is no file"):
        open_study(storage.format(folder))
    assert not (folder / "s.db").exists()
    assert not (folder / "s.log").exists()
    study = optuna.create_study(storage=open_storage(storage.format(folder)), study_name="mine")
    assert open_study(storage.format(folder)).study_name == study.study_name


def test_creation_of_tables_by_several_workers_is_retried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_failures, real = [2], optuna.storages.get_storage

    def fail_first(url: str) -> optuna.storages.BaseStorage:
        if n_failures[0] > 0:
            n_failures[0] -= 1
            raise IntegrityError("", None, Exception("UNIQUE constraint failed: alembic_version.version_num"))
        return real(url)

    monkeypatch.setattr(optuna.storages, "get_storage", fail_first)
    assert open_storage(f"sqlite:///{tmp_path}/s.db") is not None
    n_failures[0] = 99
    with pytest.raises(InvalidParameterError, match=r"cannot open the storage .*UNIQUE"):
        open_storage(f"sqlite:///{tmp_path}/s.db")
    assert 90 < n_failures[0] < 99


@pytest.mark.parametrize("storage", ["sqlite:///{}/none/s.db", "mysql://host/db", "journal:{}/words"])
def test_the_command_line_prints_the_error(folder: Path, table: Table, storage: str) -> None:
    pd.DataFrame(table[0], columns=list("abcde")).assign(y=table[1]).to_csv(folder / "t.csv", index=False)
    url = storage.format(folder)
    search = ["search", str(folder / "t.csv"), "--target", "y", "--trials", "4", "--output", f"{folder}/run"]
    for more in (["--storage", url, "--study", "s"], ["--start-from", url]):
        result = CliRunner().invoke(app, [*search, *more])
        assert result.exit_code == 2, result.output
        assert result.output.splitlines()[-1].startswith(f"error: cannot open the storage {url!r}")
        assert not (folder / "run").exists()
