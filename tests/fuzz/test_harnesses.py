"""Harnesses of the fuzzers on their first inputs, on inputs of past defects, and on random changes."""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from parallelmlp_search.exceptions import DataError
from tests.faults.damage import change_value
from tests.fuzz import harnesses
from tests.fuzz.harnesses import HARNESSES, check
from tests.fuzz.seeds import SEEDS

REGRESSIONS = sorted(path for path in (Path(__file__).parent / "regressions").rglob("*") if path.is_file())
N_CHANGES = {"tables": 150, "spaces": 300, "runs": 60}


@pytest.fixture(scope="module", autouse=True)
def _clean() -> Iterator[None]:
    yield
    harnesses.clean_up()


@pytest.mark.parametrize("name", HARNESSES)
def test_valid_files_are_accepted(name: str) -> None:
    accepted = [check(name, data) for data in SEEDS[name]()]
    assert sum(accepted) >= 0.9 * len(accepted)


@pytest.mark.parametrize("path", REGRESSIONS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_past_defects_are_refused(path: Path) -> None:
    assert check(path.parent.name, path.read_bytes()) is False


def changed(data: bytes, rng: random.Random) -> bytes:
    """Change a value of a JSON file, or some bytes."""
    if data[1:2] == b"{" and rng.random() < 0.7:
        with contextlib.suppress(ValueError):  # JSON lines
            value, _ = change_value(json.loads(data[1:]), rng)
            return data[:1] + json.dumps(value).encode()
    content = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        content[rng.randrange(1, len(content))] = rng.choice([rng.randrange(256), *b'",;:[]{}\n\0'])
    return bytes(content[: rng.choice([len(content), rng.randrange(1, len(content))])])


@pytest.mark.parametrize("name", HARNESSES)
def test_random_changes_are_accepted_or_refused(name: str) -> None:
    rng, seeds = random.Random(0), list(SEEDS[name]())
    results = {check(name, changed(rng.choice(seeds), rng)) for _ in range(N_CHANGES[name])}
    assert results == {True, False}


def test_other_exceptions_are_defects(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: Path) -> None:
        raise error

    monkeypatch.setattr(harnesses, "read_table", broken)
    for error in (TypeError("unhashable type"), RuntimeWarning("overflow")):
        with pytest.raises(type(error)):
            check("tables", b"\0a,b\n1,2\n")
    error = DataError("no rows")
    assert check("tables", b"\0a,b\n1,2\n") is False


@pytest.mark.alone
def test_the_fuzzer_runs(tmp_path: Path) -> None:
    pytest.importorskip("atheris")
    command = [sys.executable, "-m", "tests.fuzz", "--minutes", "0.05", "--folder", str(tmp_path), "spaces"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    assert "0 inputs broke the code" in result.stdout
    assert len(list((tmp_path / "corpus" / "spaces").iterdir())) > len(list(SEEDS["spaces"]()))
