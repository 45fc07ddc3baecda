"""Several target columns on the command line: labels, numbers, and mixtures."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from parallelmlp_search import load
from parallelmlp_search.cli.source import target_of_table
from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.search.problem.problem import TargetColumns
from tests.cli.test_commands import BUDGET, mistake, pmlp
from tests.search.test_multilabel import table


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("several")
    frame = table()
    frame["buys"] = np.where(frame["buys"] == 1, "yes", "no")
    frame.to_csv(folder / "labels.csv", index=False)
    frame["price, net"], frame["rent"] = 5 + 2 * frame["p"], frame["q"] - frame["r"]
    frame.to_csv(folder / "all.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def labels(folder: Path) -> Path:
    run = folder / "labels"
    arguments = ["--target", "likes,buys,leaves", "--metric", "f1_macro", *BUDGET]
    pmlp("search", folder / "labels.csv", *arguments, "--output", run)
    return run


@pytest.fixture(scope="module")
def numbers(folder: Path) -> Path:
    run = folder / "numbers"
    ignored = ["--columns", "ignore=likes,buys,leaves"]
    pmlp("search", folder / "all.csv", "--target", '"price, net", rent', *ignored, *BUDGET, "--output", run)
    return run


def predicted(run: Path, data: Path, *arguments: object) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(pmlp("predict", run, data, *arguments).stdout))


def test_names_of_targets() -> None:
    frame = pd.DataFrame(columns=["a", "b", "a,b", "c, d"])
    assert target_of_table("a", frame) == "a"
    assert target_of_table("a,b", frame) == "a,b"  # a column of that name
    assert target_of_table("b, a", frame) == TargetColumns(["b", "a"])
    assert target_of_table('a,"c, d"', frame) == TargetColumns(["a", "c, d"])
    assert target_of_table('"c, d"', frame) == "c, d"
    with pytest.raises(InvalidParameterError, match="but got 'a,a'"):
        target_of_table("a,a", frame)
    with pytest.raises(InvalidParameterError, match="but got 'a,'"):
        target_of_table("a,", frame)


def test_labels_are_predicted_column_by_column(labels: Path, folder: Path) -> None:
    data = folder / "labels.csv"
    found, probabilities = predicted(labels, data), predicted(labels, data, "--proba")
    assert list(found) == list(probabilities) == ["likes", "buys", "leaves"]
    assert set(np.unique(found)) <= {0, 1}
    model, frame = load(labels), pd.read_csv(data).drop(columns=["likes", "buys", "leaves"])
    np.testing.assert_array_equal(found, model.predict(frame))
    np.testing.assert_allclose(probabilities, model.predict_proba(frame), rtol=1e-12)
    # the targets are not needed, and are not read if they are there
    frame.to_csv(folder / "new.csv", index=False)
    pd.testing.assert_frame_equal(predicted(labels, folder / "new.csv"), found)


def test_labels_are_evaluated_and_described(labels: Path, folder: Path) -> None:
    evaluation = json.loads(pmlp("evaluate", labels, folder / "labels.csv", "--json").stdout)
    assert next(iter(evaluation["scores"])) == "f1_macro"
    assert "hamming_loss" in evaluation["scores"]
    assert set(evaluation["thresholds"]) == {"likes", "buys", "leaves"}
    assert (
        "a label is predicted above its probability" in pmlp("evaluate", labels, folder / "labels.csv").stdout
    )
    page = pmlp("inspect", folder / "labels.csv", "--target", "likes,buys,leaves").stdout
    assert "multilabel classification" in page
    assert "3 labels" in page
    result = json.loads((labels / "result.json").read_text())
    assert (result["task"], result["metric"]) == ("multilabel", "f1_macro")
    assert "leaves" in pmlp("explain", labels).stdout
    assert "error" not in pmlp("leaderboard", labels).output
    pytest.importorskip("plotly")
    pmlp("report", labels)
    assert "those of several labels are left out" in (labels / "report.html").read_text()


def test_what_labels_do_not_support_is_refused_before_anything_is_written(labels: Path, folder: Path) -> None:
    before = sorted(path.name for path in folder.iterdir())
    assert "predicts several labels, which cannot be distilled" in mistake(
        "distill", labels, "--output", folder / "small"
    )
    assert "predicts several labels, which promoted networks" in mistake("promote", labels)
    assert "sets of classes need a target of classes" in mistake(
        "predict", labels, folder / "labels.csv", "--interval", 90
    )
    balanced = ["--class-weight", "balanced", "--output", folder / "run"]
    data = ["search", folder / "labels.csv", "--target", "likes,buys,leaves"]
    assert "makes the task one of several labels" in mistake(*data, *balanced)
    assert sorted(path.name for path in folder.iterdir()) == before
    assert not (labels / "promotion").exists()


def test_numbers_are_predicted_with_intervals(numbers: Path, folder: Path) -> None:
    found = predicted(numbers, folder / "all.csv", "--interval", 80)
    names = ["price, net", "rent"]
    assert list(found) == names + [f"{name}_{end}_80" for name in names for end in ("lower", "upper")]
    truth = pd.read_csv(folder / "all.csv")
    assert np.corrcoef(found["rent"], truth["rent"])[0, 1] > 0.5
    np.testing.assert_array_equal(load(numbers).predict(truth.drop(columns=names)), found[names])
    evaluation = json.loads(pmlp("evaluate", numbers, folder / "all.csv", "--json").stdout)
    assert next(iter(evaluation["scores"])) == "rmse"
    assert len(evaluation["uncertainty"]["levels"][0]["width"]) == 2


def test_mixtures_and_mistakes(folder: Path) -> None:
    data = folder / "all.csv"
    error = mistake("search", data, "--target", "rent,buys", "--output", folder / "mixed")
    assert error.startswith(
        "several target columns must all hold labels (such as 0 and 1) or all hold numbers"
    )
    assert "labels are in 'buys' and numbers are in 'rent': start one search per target" in error
    assert not (folder / "mixed").exists()
    assert "no column 'rant'" in mistake("search", data, "--target", "rant,buys")
    assert "'rent' has two" in mistake("search", data, "--target", "rent,p", "--weights", "rent")
