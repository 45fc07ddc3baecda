"""Machine code of the compiled loops: found, compiled, loaded, and used without numba."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from parallelmlp_search.exceptions import CompilationError, PMLPWarning
from parallelmlp_search.kernels.numba import dispatch, library
from parallelmlp_search.kernels.numba.arguments import ActivationRows, pack
from parallelmlp_search.kernels.numba.dispatch import PLAIN, prepared_loops

ROOT = Path(__file__).parents[2]


def _python(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | variables
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )


FIT_WITHOUT_NUMBA = """
import sys
import warnings

import numpy as np
import torch
from sklearn.datasets import load_diabetes, load_wine

sys.modules["numba"] = None  # importing it raises ImportError
from parallelmlp_search import ParallelMLPClassifier, ParallelMLPRegressor
from parallelmlp_search.kernels.numba import compiled_members
from parallelmlp_search.kernels.numba.library import Loops

calls = []
run = Loops.run
Loops.run = lambda self, name, arguments: calls.append(name) or run(self, name, arguments)
warnings.simplefilter("ignore")
X, y = load_wine(return_X_y=True)
settings = {"n_trials": 6, "max_epochs": 3, "random_state": 0, "n_jobs": 1}
model = ParallelMLPClassifier(**settings)
predicted = model.fit(X, y).predict_proba(X)  # few rows: windows of one step
features, target = load_diabetes(return_X_y=True)
weights = np.linspace(0.5, 1.5, len(target))
ParallelMLPRegressor(**settings).fit(features, target, sample_weight=weights)
torch.set_default_dtype(torch.float64)
assert np.array_equal(model.fit(X, y).predict_proba(X), predicted)
print(calls.count("member_steps") > 10)
"""


def test_a_fit_imports_no_numba_and_compiles_nothing() -> None:
    library.ensure_compiled()
    done = _python(FIT_WITHOUT_NUMBA)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "True\n"


def test_loading_imports_neither_torch_nor_numba() -> None:
    library.ensure_compiled()
    code = (
        "import sys; from parallelmlp_search.kernels.numba.library import loops; loops(); "
        "print([name for name in ('torch', 'numba', 'sklearn') if name in sys.modules])"
    )
    assert _python(code).stdout == "[]\n"


@pytest.mark.skipif(library.target() != "x86-64-v4", reason="the narrower loops are the ones of this machine")
def test_loops_for_vectors_of_eight_agree_with_the_plain_path(tmp_path: Path) -> None:
    """Compiles them into an empty cache, as the first search of a machine without a fitting wheel does."""
    tests = ["tests/engine/test_member_bucket.py", "tests/engine/test_member_shapes.py"]
    code = f"""
import pytest, sys
from parallelmlp_search.kernels.numba import library
assert library.find() is None
library.ensure_compiled()
assert "x86-64-v3" in library.find().name
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", *{tests}]))
"""
    variables = {library.TARGET_VARIABLE: "x86-64-v3", "PMLP_CACHE": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_a_failed_compilation_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PMLP_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(library, "_SHIPPED", tmp_path)
    with pytest.raises(CompilationError, match=r"could not be compiled into .*file.*set PMLP_COMPILED=0"):
        library.ensure_compiled()


def test_object_files_depend_on_all_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "__file__", str(tmp_path / "library.py"))
    digests = []
    for name, text in (("a.py", "x = 1"), ("notes.txt", "x = 1"), ("a.py", "x = 2"), ("b.py", "")):
        (tmp_path / name).write_text(text)
        digests.append(library._digest.__wrapped__())
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_arguments_of_another_type_are_refused() -> None:
    rows = ActivationRows(np.zeros((1, 4)), np.zeros((1, 4), np.float32), np.zeros(1, np.int64), 1, 4)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="source must be a contiguous array of Floats, but is float64"):
        pack(rows)
    strided = np.zeros((2, 4), np.float32)[:, ::2]
    with pytest.raises(TypeError, match="source must be"):
        pack(rows._replace(source=strided))


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """No object file; names of the ways in which one is made."""
    made: list[str] = []
    monkeypatch.delenv("PMLP_COMPILED", raising=False)
    monkeypatch.setattr(library, "find", lambda: None)
    monkeypatch.setattr(library, "can_compile", lambda: True)
    monkeypatch.setattr(library, "ensure_compiled", lambda: made.append("before"))
    monkeypatch.setattr(library, "compile_in_background", lambda: made.append("beside"))
    return made


def _rule() -> str | None:
    return os.environ.get("PMLP_COMPILED")


def test_loops_are_compiled_before_a_search_without_time_limit(missing: list[str]) -> None:
    with prepared_loops("cpu", timed=False) as path:
        assert (path, missing, _rule()) == (library.target(), ["before"], None)
    with prepared_loops("cuda", timed=False) as path:
        assert (path, missing) == (PLAIN, ["before"])


def test_loops_are_compiled_beside_a_search_with_time_limit(
    missing: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with prepared_loops("cpu", timed=True) as path:
        assert (path, missing) == (library.target(), ["beside"])
        assert not dispatch.uses_compiled(torch.float32, "cpu")
        monkeypatch.setattr(library, "find", lambda: Path("x.o"))
        assert dispatch.uses_compiled(torch.float32, "cpu")  # from the moment on when they are ready
    assert _rule() is None


def test_a_search_without_loops_says_so(missing: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "can_compile", lambda: False)
    with pytest.warns(PMLPWarning, match="pip install numba"), prepared_loops("cpu", timed=True) as path:
        assert path == PLAIN
    monkeypatch.setenv("PMLP_COMPILED", "0")  # chosen: no warning
    with prepared_loops("cpu", timed=True) as path:
        assert (path, missing, _rule()) == (PLAIN, [], "0")


def test_an_interrupted_search_keeps_its_path(missing: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with prepared_loops("cpu", timed=False, recorded=PLAIN) as path:
        assert (path, missing) == (PLAIN, [])
        assert not dispatch.uses_compiled(torch.float32, "cpu")
    monkeypatch.setattr(library, "target", lambda: "generic")
    changed = pytest.warns(PMLPWarning, match="began with the x86-64-v4 training path and continues with gen")
    with changed, prepared_loops("cpu", timed=False, recorded="x86-64-v4") as path:
        assert path == "generic"


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="CPUs of another kind")
def test_the_kind_of_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    import llvmlite.binding

    features = dict.fromkeys([*library._FEATURES["x86-64-v3"], *library._FEATURES["x86-64-v4"]], True)
    monkeypatch.delenv(library.TARGET_VARIABLE, raising=False)
    monkeypatch.setattr(llvmlite.binding, "get_host_cpu_features", lambda: features)
    find = library.target.__wrapped__
    assert find() == "x86-64-v4"
    features["avx512vl"] = False
    assert find() == "x86-64-v3"
    features["fma"] = False
    assert find() == "x86-64"
    monkeypatch.setenv(library.TARGET_VARIABLE, "znver4")
    assert find() == "znver4"


def test_compilation_in_the_background(monkeypatch: pytest.MonkeyPatch) -> None:
    """One process is enough, and none is started where it is of no use."""
    started: list[int] = []
    monkeypatch.setattr(library, "_start", lambda errors: started.append(errors))
    monkeypatch.setattr(library, "_background", [])
    library.compile_in_background()
    assert (started == []) is (library.find() is not None)
    monkeypatch.setattr(library, "find", lambda: None)
    monkeypatch.setenv(library.USE_VARIABLE, "0")
    library.compile_in_background()
    assert started == []
    monkeypatch.delenv(library.USE_VARIABLE)
    library.compile_in_background()
    library.compile_in_background()
    assert len(started) == 1
