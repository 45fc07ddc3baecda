"""``pmlp explain`` and ``estimator.explain``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from parallelmlp_search import ParallelMLPClassifier, ParallelMLPRegressor, Run
from parallelmlp_search.cli.app import app
from parallelmlp_search.exceptions import DataError, DataWarning, InvalidParameterError, RunDirectoryError

TABLE = Path(__file__).parents[2] / "datasets" / "credit_g.csv.gz"


def pmlp(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "credit.csv"
    frame = pd.read_csv(TABLE).head(400)
    frame.loc[3, "class"] = None  # a row without a target
    frame.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def run(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    pmlp(
        "search", table, "--target", "class", "--space", "small", "--trials", 4, "--max-epochs", 6,
        "--finalists", 2, "--folds", 2, "--output", folder, "--quiet",
    )  # fmt: skip
    return folder


@pytest.mark.parametrize("width", [80, 120])
def test_the_page_fits_the_terminal(run: Path, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    text = pmlp("explain", run, "--top", 3).stdout
    assert "out-of-fold rows, roc_auc" in text
    for title in ("importance:", "dependence:", "rows with the largest log loss"):
        assert title in text
    assert max(map(len, text.splitlines())) <= width
    assert "tables" in text


def test_the_tables_are_in_the_run(run: Path, table: Path) -> None:
    found = json.loads(pmlp("explain", run, "--json", "--quiet").stdout)
    assert found["rows"] == "out-of-fold"
    assert len(found["importance"]) >= 20
    stored = Run(run).explanation()
    assert stored.importance["name"].tolist() == [row["name"] for row in found["importance"]]
    rows = stored.worst_rows["row"]
    frame = pd.read_csv(table)  # row numbers count the row without a target
    assert frame["class"][rows].tolist() == stored.worst_rows["target"].tolist()
    named = json.loads(pmlp("explain", run, table, "--json", "--quiet").stdout)
    assert named["rows"] == "out-of-fold"  # the table of the run by its name


def test_new_rows_are_explained(run: Path, tmp_path: Path) -> None:
    new = pd.read_csv(TABLE).iloc[400:500]
    new.to_csv(tmp_path / "new.csv", index=False)
    output = tmp_path / "tables"
    found = json.loads(pmlp("explain", run, tmp_path / "new.csv", "--json", "--output", output).stdout)
    assert (found["rows"], found["n_rows"]) == ("new", 100)
    assert (output / "attributions.parquet").is_file()
    new.drop(columns="class").head(1).to_csv(tmp_path / "one.csv", index=False)
    found = json.loads(pmlp("explain", run, tmp_path / "one.csv", "--json", "--output", output).stdout)
    assert found["importance"] == []
    assert {row["row"] for row in found["attributions"]} == {0}
    assert any(abs(row["attribution"]) > 1e-4 for row in found["attributions"])  # the background is the table


def test_mistakes_end_with_one_sentence(run: Path, table: Path, tmp_path: Path) -> None:
    assert "did you mean 'duration'" in pmlp("explain", run, "--columns", "duratoin", code=2).stderr
    assert "is not a run" in pmlp("explain", tmp_path, code=2).stderr
    with pytest.raises(RunDirectoryError, match=r"explanation\.json"):
        Run(_without(run, tmp_path, "explain")).explanation()
    copy = _without(run, tmp_path, "checkpoints")
    info = json.loads((copy / "run.json").read_text())
    changed = tmp_path / "changed.csv"
    pd.read_csv(table).iloc[::-1].to_csv(changed, index=False)
    info["source"]["data"] = str(changed)
    (copy / "run.json").write_text(json.dumps(info))
    assert "has changed since the search" in pmlp("explain", copy, code=2).stderr


def _without(run: Path, folder: Path, name: str) -> Path:
    import shutil

    copy = folder / f"without {name}"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns(name))
    return copy


# ---------------------------------------------------------------------- estimators


def test_an_estimator_explains_the_rows_of_fit_and_other_rows(tmp_path: Path) -> None:
    frame = pd.read_csv(TABLE)
    X, y = frame.drop(columns="class"), frame["class"]
    model = ParallelMLPClassifier(
        "small", n_trials=3, max_epochs=4, n_folds=2, n_finalists=2, random_state=0,
        run_directory=tmp_path / "run",
    ).fit(X[:300], y[:300])  # fmt: skip
    found = model.explain(X[:300], y[:300], n_attributed=4, n_background=4)
    assert found.summary["rows"] == "out-of-fold"
    assert Run(tmp_path / "run").explanation().summary == found.summary
    added = found.attributions.groupby("row")["attribution"].sum() + found.attributions["base"][0]
    assert np.allclose(added, model.predict_proba(X.iloc[added.index])[:, 1], atol=1e-5)
    other = model.explain(X[300:360], y[300:360], n_attributed=2, n_background=4)
    assert (other.summary["rows"], other.summary["n_rows"]) == ("new", 60)
    assert model.classes_.tolist() == ["bad", "good"]
    one = model.explain(X[300:301], background=X[:50], n_attributed=1, n_background=4)
    assert len(one.attributions) == X.shape[1]
    bad = y[300:360] == "bad"
    single = model.explain(X[300:360][bad], y[300:360][bad], n_attributed=0)
    assert single.importance["importance"].isna().all()  # the metric needs two classes
    assert model.classes_.tolist() == ["bad", "good"]
    with pytest.raises(InvalidParameterError, match=r"n_repeat'; did you mean 'n_repeats'"):
        model.explain(X, y, n_repeat=3)


def test_a_refitted_model_needs_new_rows() -> None:
    frame = pd.read_csv(TABLE).head(200)
    X, y = (
        frame[["duration", "credit_amount", "age"]].to_numpy(float),
        frame["class"].eq("good").to_numpy(int),
    )
    model = ParallelMLPRegressor(
        "small", n_trials=2, max_epochs=2, n_folds=2, n_finalists=1, random_state=0, refit=True
    ).fit(X, X[:, 0] + y)
    found = model.explain(X, X[:, 0] + y, n_attributed=2, n_background=4)
    assert found.summary["rows"] == "training"
    assert "not seen" in found.notes[0]
    assert set(found.attributions["column"]) == {"x0", "x1", "x2"}


def test_a_constant_model_has_no_explanation() -> None:
    X, y = np.ones((30, 2)), np.arange(30) % 2
    with pytest.warns(DataWarning):
        model = ParallelMLPClassifier(n_trials=2, random_state=0).fit(X, y)
    with pytest.raises(DataError, match="predicts a constant"):
        model.explain(X, y)
