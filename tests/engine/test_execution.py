"""Name of the code path, and the advice on a faster one."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from parallelmlp_search.engine import execution_path
from parallelmlp_search.kernels.numba import dispatch
from parallelmlp_search.kernels.triton import availability

HAS_NUMBA = importlib.util.find_spec("numba") is not None


@pytest.mark.skipif(not HAS_NUMBA, reason="needs numba")
def test_the_compiled_loops_need_no_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PMLP_COMPILED", raising=False)
    path = execution_path("cpu")
    assert str(path) == path.name == "compiled loops"
    assert dispatch.uses_compiled(torch.float32, "cpu")


@pytest.mark.skipif(not HAS_NUMBA, reason="needs numba")
def test_a_variable_that_disables_them_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PMLP_COMPILED", "0")
    assert "PMLP_COMPILED=0" in execution_path("cpu").advice


def test_without_numba_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parallelmlp_search.engine.execution.uses_compiled", lambda *_: False)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    path = execution_path("cpu")
    assert path.name == "plain tensor operations"
    assert "pip install numba" in path.advice
    assert str(path) == f"{path.name} ({path.advice})"


@pytest.mark.parametrize(("installed", "words"), [(True, "Triton"), (False, "CUDA graphs")])
def test_a_device(installed: bool, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(availability, "_is_installed", lambda: installed)
    path = execution_path("cuda:1")
    assert words in path.name
    assert bool(path.advice) is not installed
