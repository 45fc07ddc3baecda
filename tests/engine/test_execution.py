"""Name of the code path, and the advice on a faster one."""

from __future__ import annotations

from pathlib import Path

import pytest

from parallelmlp_search.engine import execution_path
from parallelmlp_search.kernels.numba import library
from parallelmlp_search.kernels.triton import availability


def set_loops(monkeypatch: pytest.MonkeyPatch, rule: str | None, *, stored: bool, numba: bool) -> None:
    """Set the rule of ``PMLP_COMPILED``, and what this machine has."""
    monkeypatch.delenv("PMLP_COMPILED", raising=False)
    if rule is not None:
        monkeypatch.setenv("PMLP_COMPILED", rule)
    monkeypatch.setattr(library, "find", lambda: Path("loops.o") if stored else None)
    monkeypatch.setattr(library, "can_compile", lambda: numba)


def test_the_compiled_loops_need_no_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    set_loops(monkeypatch, None, stored=True, numba=False)
    path = execution_path("cpu")
    assert path.name == str(path) == f"compiled loops for {library.target()}"


@pytest.mark.parametrize(
    ("rule", "stored", "numba", "name", "advice"),
    [
        (None, False, True, "compiled loops", "compiled once, before the first search"),
        ("ready", False, True, "plain tensor operations", "take over once they have been compiled"),
        ("0", True, True, "plain tensor operations", "PMLP_COMPILED=0 disables them"),
        (None, False, False, "plain tensor operations", "pip install numba"),
        ("ready", False, False, "plain tensor operations", "pip install numba"),
    ],
)
def test_advice(
    rule: str | None, stored: bool, numba: bool, name: str, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_loops(monkeypatch, rule, stored=stored, numba=numba)
    path = execution_path("cpu")
    assert path.name == name
    assert advice in path.advice
    assert str(path) == f"{path.name} ({path.advice})"


@pytest.mark.parametrize(("installed", "words"), [(True, "Triton"), (False, "CUDA graphs")])
def test_a_device(installed: bool, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(availability, "_is_installed", lambda: installed)
    path = execution_path("cuda:1")
    assert words in path.name
    assert bool(path.advice) is not installed
