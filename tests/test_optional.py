"""Imports of optional dependencies."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from parallelmlp_search._optional import is_installed, require
from parallelmlp_search.exceptions import MissingDependencyError


def test_a_folder_of_the_same_name_is_no_installed_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "absent").mkdir()
    (tmp_path / "present").mkdir()
    (tmp_path / "present" / "__init__.py").touch()
    assert not is_installed("absent")
    assert is_installed("present")
    assert is_installed("json")
    assert not is_installed("no_such_module")


def test_an_installed_module_is_imported() -> None:
    assert require("json", extra="none", purpose="for a test") is json


@pytest.mark.parametrize("module", ["no_such_module_here", "no_such_module_here.part"])
def test_a_missing_module_raises_an_error_with_purpose_and_extra(module: str) -> None:
    with pytest.raises(MissingDependencyError) as caught:
        require(module, extra="polars", purpose="to read a polars frame")
    assert str(caught.value) == (
        f"{module} is needed to read a polars frame but is not installed; "
        "install it with: pip install 'parallelmlp-search[polars]'"
    )
    assert isinstance(caught.value, ImportError)


def test_a_module_that_lacks_a_dependency_raises_its_own_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_for_test.py").write_text("import no_such_module_here\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="no_such_module_here") as caught:
        require("broken_for_test", extra="polars", purpose="for a test")
    assert not isinstance(caught.value, MissingDependencyError)
