"""Crash safety: from every state that a killed search leaves behind, resuming leads to the same files."""

from __future__ import annotations

import ast
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

import parallelmlp_search
from parallelmlp_search.search.run import journal
from tests.faults.small import SEARCH
from tests.faults.states import State, outcome, recorded_states, visible, with_torn_writes, write_state

Pmlp = Callable[..., Result]
PACKAGE = Path(parallelmlp_search.__file__).parent
FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


@pytest.fixture(scope="module")
def states(table: Path, pmlp: Pmlp) -> tuple[list[State], Path]:
    """States of a search over standard input, the most different writes, and its finished run."""
    run = table.parent / "recorded"
    with pytest.MonkeyPatch.context() as patch, recorded_states(run) as found:
        patch.setattr(journal, "MIN_KEPT_SECONDS", 0.0)
        result = pmlp("search", "-", *SEARCH, "--output", run, "--quiet", input=table.read_text())
    assert result.exit_code == 0, result.output
    return [{}, *with_torn_writes(found)], run


def finish(run: Path, table: Path, pmlp: Pmlp) -> None:
    """Resume a run as its user would: start it again where it stopped before it began."""
    if (run / "run.json").is_file():
        result = pmlp("resume", run, "--quiet")
        if result.exit_code == 0:
            return
        assert "stopped before it began: start it anew" in result.stderr
    result = pmlp("search", "-", *SEARCH, "--output", run, "--quiet", input=table.read_text())
    assert result.exit_code == 0, result.output


def test_every_state_leads_to_the_same_files(
    states: tuple[list[State], Path],
    table: Path,
    pmlp: Pmlp,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(journal, "MIN_KEPT_SECONDS", 0.0)
    found, recorded = states
    expected = outcome(recorded)
    distinct = {visible(state): state for state in found}
    assert len(distinct) > 40
    for number, state in enumerate(distinct.values()):
        run = tmp_path / str(number)
        write_state(run, state)
        finish(run, table, pmlp)
        assert outcome(run) == expected, f"state {number}: {sorted(state)}"


@pytest.mark.slow
def test_every_state_of_a_promotion_leads_to_the_same_files(
    finished: Path, pmlp: Pmlp, tmp_path: Path
) -> None:
    options = ["--top", 1, "--depth-factor", 2, "--slices", 2, "--epochs", 1, "--quiet"]
    run = Path(shutil.copytree(finished, tmp_path / "recorded"))
    with recorded_states(run) as found:
        result = pmlp("promote", run, *options)
    assert result.exit_code == 0, result.output

    def promoted(run: Path) -> dict[str, Any]:
        """Files that depend on no clock."""
        kept = ("result.json", "promoted/promoted.json", "promoted/weights", "model/")
        return {name: content for name, content in outcome(run).items() if name.startswith(kept)}

    expected = promoted(run)
    assert len(expected) == 5
    distinct = {visible(state): state for state in with_torn_writes(found)}
    for number, state in enumerate(distinct.values()):
        again = tmp_path / str(number)
        write_state(again, state)
        result = pmlp("promote", again, *options)
        assert result.exit_code == 0, result.output
        assert promoted(again) == expected, f"state {number}: {sorted(state)}"


def test_files_that_were_being_written_are_removed(
    states: tuple[list[State], Path], table: Path, pmlp: Pmlp, tmp_path: Path
) -> None:
    parts = [state for state in states[0] if any(name.endswith(".part") for name in state)]
    assert len(parts) > 20
    run = tmp_path / "run"
    write_state(run, {**parts[-1], "model/.tmpAb3dE9": b"of safetensors"})
    finish(run, table, pmlp)
    assert not [path for path in run.rglob(".*") if path.name != ".lock"]


def test_only_complete_files_get_their_names(states: tuple[list[State], Path]) -> None:
    """Between two recorded states, at most one file changes, and it was complete under a temporary name."""
    previous: State = {}
    for state in states[0]:
        changed = [name for name, content in state.items() if content and content != previous.get(name)]
        for name in changed:
            is_temporary = Path(name).name.startswith(".")
            is_log = name == "log.jsonl"
            assert is_temporary or is_log or state[name] in previous.values(), name
        previous = state


# ---------------------------------------------------------------------- one module writes

WRITERS = {
    "_files.py",  # the module
    "_worker.py",  # removes the temporary folder of a killed parent
    "kernels/numba/compilation.py",  # object files of the compiled loops
    "parareal/ranks/worker.py",  # process ids and last words of ranks
    "parareal/ranks/launch.py",  # log of torchrun
    "serve/metrics.py",  # counters that the workers of a server share
}
"""Files that may write; all but the first outside of run directories or files that nobody reads again."""

METHODS = {"write_text", "write_bytes", "unlink", "rmdir", "rename", "touch", "symlink_to", "hardlink_to"}
FUNCTIONS = {"rmtree", "remove", "removedirs", "truncate", "makedirs", "rename", "unlink", "save_file"}


def writes(source: str) -> list[str]:
    """Calls that write files: methods of paths, functions of os and shutil, and open for writing.

    Functions inside a call of ``write_atomic`` write its temporary file.
    """
    found = []
    tree = ast.parse(source)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    atomic = [call for call in calls if getattr(call.func, "id", "") == "write_atomic"]
    temporary = {id(inner) for call in atomic for inner in ast.walk(call)}
    for node in calls:
        if id(node) in temporary:
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        owner = getattr(getattr(node.func, "value", None), "id", "")
        texts = [str(argument.value) for argument in node.args if isinstance(argument, ast.Constant)]
        opens = name == "open" and any(set(text) & set("wax+") and len(text) < 4 for text in texts)
        if name in METHODS or (owner in ("os", "shutil") and name in FUNCTIONS) or opens:
            found.append(f"{name} in line {node.lineno}")
    return found


@pytest.mark.parametrize("file", FILES)
def test_all_writes_go_through_one_module(file: str) -> None:
    if file not in WRITERS:
        found = writes((PACKAGE / file).read_text(encoding="utf-8"))
        # the function inside writes the temporary file of write_atomic
        assert not [one for one in found if not one.startswith("write_text") or file != "space/files.py"]


@pytest.mark.parametrize(
    ("source", "caught"),
    [
        ("path.write_text('x')", True),
        ("write_atomic(path, lambda part: part.write_text('x'))", False),
        ("write_atomic(path, lambda part: part.write_text('x')); path.write_text('x')", True),
        ("open(path, 'a')", True),
        ("path.open('rb+')", True),
        ("os.remove(path)", True),
        ("shutil.rmtree(path)", True),
        ("open(path, 'rb')", False),
        ("remove(path)", False),
        ("text.replace('a', 'b')", False),
    ],
)
def test_the_rule_on_writes_catches_what_it_should(source: str, caught: bool) -> None:
    assert bool(writes(source)) is caught
