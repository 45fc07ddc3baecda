"""Start-up: what is imported by the package, the estimators, the command line and a prediction."""

from __future__ import annotations

import ast
import pickle
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pandas as pd
import pytest

from parallelmlp_search import ParallelMLPClassifier

HEAVY = (
    "torch", "optuna", "numba", "plotly", "matplotlib", "sqlalchemy", "pyarrow.dataset", "pyarrow.parquet",
    "sklearn.ensemble", "sklearn.model_selection", "sklearn.metrics", "rich", "typer",
)  # fmt: skip
"""Modules that importing an estimator does not need."""

ROOT = Path(__file__).parents[1]
LAZY_PACKAGES = ["", ".data", ".estimators", ".parareal", ".search"]


def imported(code: str, *arguments: object) -> set[str]:
    """Modules that a fresh interpreter has imported after some code, which may read ``sys.argv``."""
    code += '\nimport sys\nprint("\\n", *sys.modules, sep="\\n")'
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def roots(modules: set[str]) -> set[str]:
    return {module.split(".")[0] for module in modules}


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    whole = pd.read_csv(ROOT / "datasets" / "credit_g.csv.gz")
    return whole.head(300)


@pytest.fixture(scope="module")
def fitted(table: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> ParallelMLPClassifier:
    folder = tmp_path_factory.mktemp("runs") / "run"
    model = ParallelMLPClassifier(
        "small", n_trials=4, max_epochs=2, n_finalists=2, n_folds=2, random_state=0, run_directory=folder
    )
    return model.fit(table.drop(columns="class"), table["class"])


def test_estimators_import_little_more_than_the_base_of_scikit_learn() -> None:
    code = """
from parallelmlp_search import ParallelMLPClassifier, ParallelMLPRegressor
from parallelmlp_search import SingleMLPClassifier, SingleMLPRegressor
for kind in (ParallelMLPClassifier, ParallelMLPRegressor, SingleMLPClassifier, SingleMLPRegressor):
    kind()
"""
    assert imported(code).isdisjoint(HEAVY)


def test_runs_and_the_command_line_import_little() -> None:
    assert roots(imported("from parallelmlp_search import Run")).isdisjoint({"pandas", "torch"})
    help_page = """
import sys
from parallelmlp_search.cli.app import app
sys.argv = ["pmlp", "--help"]
try:
    app()
except SystemExit as end:
    assert not end.code
"""
    assert roots(imported(help_page)).isdisjoint({"numpy", "pandas", "pyarrow", "sklearn", "torch"})


def test_a_run_predicts_without_torch(
    fitted: ParallelMLPClassifier, table: pd.DataFrame, tmp_path: Path
) -> None:
    table.to_csv(tmp_path / "rows.csv", index=False)
    expected = fitted.predict_proba(table.drop(columns="class"))
    unwanted = {"torch", "sklearn", "scipy", "joblib", "optuna", "numba"}
    python = """
import sys
import pandas as pd
from parallelmlp_search import Run
run, rows, out = sys.argv[1:]
pd.DataFrame(Run(run).model().predictions(pd.read_csv(rows)).T).to_csv(out, index=False)
"""
    arguments = [fitted.run_directory, tmp_path / "rows.csv", tmp_path / "out.csv"]
    assert roots(imported(python, *arguments)).isdisjoint(unwanted)
    assert abs(pd.read_csv(tmp_path / "out.csv").to_numpy() - expected).max() < 1e-6
    command = """
import sys
from parallelmlp_search.cli.app import app
run, rows, out = sys.argv[1:]
try:
    app(["predict", run, rows, "--proba", "--output", out])
except SystemExit as end:
    assert not end.code
"""
    assert roots(imported(command, *arguments)).isdisjoint(unwanted)
    assert abs(pd.read_csv(tmp_path / "out.csv").to_numpy() - expected).max() < 1e-6


def test_a_loaded_estimator_predicts_without_torch(
    fitted: ParallelMLPClassifier, table: pd.DataFrame, tmp_path: Path
) -> None:
    table.to_csv(tmp_path / "rows.csv", index=False)
    code = """
import sys
import pandas as pd
from parallelmlp_search import load
run, rows = sys.argv[1:]
model = load(run)
X = pd.read_csv(rows).drop(columns="class")
assert model.predict_proba(X).shape == (len(X), 2)
assert len(model.predict(X)) == len(X) and len(model.leaderboard_) == 4
assert model.honest_score_ and model.best_config_ and len(model.columns_) == 20
"""
    found = imported(code, str(fitted.run_directory), tmp_path / "rows.csv")
    assert roots(found).isdisjoint({"torch", "optuna", "numba", "rich"})


def test_a_pickled_estimator_predicts_without_torch(
    fitted: ParallelMLPClassifier, table: pd.DataFrame, tmp_path: Path
) -> None:
    (tmp_path / "model.pickle").write_bytes(pickle.dumps(fitted.model_))
    table.drop(columns="class").to_pickle(tmp_path / "rows.pickle")
    code = """
import pickle, sys
from pathlib import Path
model, rows = (pickle.loads(Path(path).read_bytes()) for path in sys.argv[1:])
assert len(model.predict(rows)) == len(rows)
"""
    found = imported(code, tmp_path / "model.pickle", tmp_path / "rows.pickle")
    assert "torch" not in found
    assert "parallelmlp_search.inference.model" in found


def test_the_search_needs_torch_and_its_functions_hide_modules() -> None:
    code = """
import parallelmlp_search.data.fingerprint
import parallelmlp_search.search.run.context
from parallelmlp_search.data import fingerprint
from parallelmlp_search.search import run
assert callable(run) and callable(fingerprint)  # not the modules of these names
"""
    assert "torch" in imported(code)


@pytest.mark.parametrize("name", LAZY_PACKAGES)
def test_lists_of_lazy_packages_agree(name: str) -> None:
    package = import_module(f"parallelmlp_search{name}")
    assert package.__file__ is not None
    tree = ast.parse(Path(package.__file__).read_text(encoding="utf-8"))
    blocks = [node for node in tree.body if isinstance(node, ast.If)]
    imports = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)]
    typed = {alias.name: node.module for node in imports for alias in node.names}
    assert typed.keys() | {"__version__"} == set(package.__all__) | {"__version__"}
    for exported, module in typed.items():
        assert getattr(package, exported) is getattr(import_module(str(module)), exported)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = package.nothing
    assert set(package.__all__) <= set(dir(package))
