"""The commands of ``pmlp``, run on tiny tables with tiny budgets."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

import parallelmlp_search
from parallelmlp_search.cli import runs
from parallelmlp_search.cli.app import app
from parallelmlp_search.cli.environment import EXTRAS
from parallelmlp_search.cli.source import Source
from parallelmlp_search.engine import ExecutionPath, execution_path
from parallelmlp_search.exceptions import SearchFailedError
from parallelmlp_search.search import RunDirectory, TrainedModel

ROOT = Path(__file__).parents[2]
BUDGET = ["--trials", "6", "--max-epochs", "4", "--folds", "3", "--space", "small"]


def pmlp(*arguments: object, code: int = 0, **options: Any) -> Result:
    """Run a command in this process and check its exit code."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], **options)
    assert result.exit_code == code, (result.output, result.exception)
    if code:
        assert "Traceback" not in result.output
    return result


def mistake(*arguments: object, **options: Any) -> str:
    """Run a command with a mistake of the user; return its error, which must be a single line."""
    result = pmlp(*arguments, code=2, **options)
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    return lines[0].removeprefix("error: ")


def interrupted_search(*arguments: object) -> Result:
    """Run a search that Ctrl-C stops after its first rung."""
    whole = runs.run

    def stop(progress: Any) -> None:
        if progress.rung_completed:
            raise KeyboardInterrupt

    def interrupt(*arguments: Any, callbacks: Any = (), **options: Any) -> object:
        return whole(*arguments, callbacks=[*callbacks, stop], **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "run", interrupt)
        return pmlp("search", *arguments, code=130)


def table(rows: int = 240) -> pd.DataFrame:
    """Numbers, a category, groups, days and weights; two classes, three classes and a quantity."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(rows, 3)), columns=["a", "b", "c"])
    frame["colour"] = rng.choice(["red", "green", "blue"], rows)
    signal_ = frame["a"] - frame["b"] + (frame["colour"] == "red")
    frame["site"] = rng.integers(0, 12, rows)
    frame["day"] = pd.date_range("2024-01-01", periods=rows).strftime("%Y-%m-%d")
    frame["weight"] = rng.integers(1, 4, rows)
    frame["sold"] = np.where(signal_ + rng.normal(size=rows) > 0.4, "yes", "no")
    frame["grade"] = np.select([signal_ > 1, signal_ > 0], ["high", "middle"], "low")
    frame["price"] = 100 + 10 * signal_ + rng.normal(size=rows)
    return frame


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    frame = table()
    frame.drop(columns=["site", "day", "weight", "grade", "price"]).to_csv(folder / "sold.csv", index=False)
    frame.to_csv(folder / "all.csv", index=False)
    frame[["a", "b", "price"]].to_parquet(folder / "price.parquet")
    return folder


@pytest.fixture(scope="module")
def finished(folder: Path) -> Path:
    run = folder / "finished"
    pmlp("search", folder / "sold.csv", "--target", "sold", *BUDGET, "--output", run)
    return run


# ---------------------------------------------------------------------------- search


def test_search_shows_its_result_and_the_next_commands(folder: Path) -> None:
    run = folder / "shown"
    result = pmlp("search", folder / "sold.csv", "--target", "sold", *BUDGET, "--output", run)
    assert "honest score" in result.stdout
    assert "roc_auc 0." in result.stdout
    assert f"pmlp predict {run} NEW.csv" in " ".join(result.stdout.split())
    lines = result.stderr.splitlines()
    assert any(" screening rung 1/2: " in line for line in lines)
    assert any(" cross-fitting: 3/3 shards" in line for line in lines)
    assert "\x1b" not in result.output
    assert RunDirectory.open(run).info()["status"] == "finished"


def test_search_prints_only_json(folder: Path) -> None:
    run = folder / "json"
    result = pmlp(
        "search", folder / "sold.csv", "--target", "sold", *BUDGET, "--output", run, "--json", "--quiet"
    )
    summary = json.loads(result.stdout)
    assert summary["run"] == str(run)
    assert summary["metric"] == "roc_auc"
    assert summary["n_trials"] == 6
    assert summary["max_epochs"] == 4
    assert summary["honest"]["low"] <= summary["honest"]["score"] <= summary["honest"]["high"]
    assert sum(member["weight"] for member in summary["ensemble"]) == pytest.approx(1)
    assert result.stderr == ""


def test_a_quiet_search_prints_only_its_folder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = pmlp("search", folder / "sold.csv", "--target", "sold", *BUDGET, "--quiet")
    assert result.stderr == ""
    run = Path(result.stdout.strip())
    assert run.parent == Path("runs")
    assert run.name.startswith("sold-20")
    assert RunDirectory.open(run).result()["n_trials"] == 6


def test_options_arrive_in_source_and_settings(folder: Path) -> None:
    run = folder / "roles"
    pmlp(
        "search", folder / "all.csv", "--target", "grade", "--task", "multiclass", "--metric", "accuracy",
        "--groups", "site", "--weights", "weight", "--class-weight", "balanced", "--seed", "3", "--jobs", "1",
        "--memory-limit", "1.5GB", "--device", "cpu", "--finalists", "3", *BUDGET, "--output", run, "--quiet",
    )  # fmt: skip
    directory = RunDirectory.open(run)
    model, settings = TrainedModel.load(directory.model_folder), directory.settings()
    assert model.feature_names == ["a", "b", "c", "colour", "day", "sold", "price"]
    assert list(model.classes) == ["high", "low", "middle"]
    assert (settings.seed, settings.metric, settings.n_folds) == (3, "accuracy", 3)
    assert (settings.memory_limit, settings.device, settings.n_finalists) == (1_500_000_000, "cpu", 3)
    assert directory.info()["source"] == {
        "data": str(folder / "all.csv"),
        "target": "grade",
        "task": "multiclass",
        "groups": "site",
        "time_column": None,
        "weights": "weight",
        "class_weight": "balanced",
        "columns": None,
        "sheet": None,
        "query": None,
        "database": None,
    }
    assert json.loads(pmlp("evaluate", run, folder / "all.csv", "--json").stdout)["weights"] == "weight"


def test_evaluate_uses_thresholds_temperature_and_refit_of_the_run(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = ["search", folder / "sold.csv", "--target", "sold", "--metric", "f1", "--refit", *BUDGET]
    found = json.loads(pmlp(*arguments, "--output", run, "--json", "--quiet").stdout)
    assert found["refitted"] >= 1
    evaluation = json.loads(pmlp("evaluate", run, folder / "sold.csv", "--json").stdout)
    assert {name: evaluation[name] for name in ("temperature", "decision_weights", "refitted")} == {
        name: found[name] for name in ("temperature", "decision_weights", "refitted")
    }
    # the score is that of the classes that `pmlp predict` writes
    pmlp("predict", run, folder / "sold.csv", "--output", tmp_path / "named.csv")
    truth = pd.read_csv(folder / "sold.csv")["sold"] == "yes"
    named = pd.read_csv(tmp_path / "named.csv")["sold"] == "yes"
    f1 = 2 * (truth & named).sum() / (truth.sum() + named.sum())
    assert evaluation["scores"]["f1"] == pytest.approx(f1)
    settings = RunDirectory.open(run).settings()
    assert (settings.refit, settings.tune_thresholds, settings.calibration) == (True, True, "auto")
    assert "refit on all rows" in " ".join(pmlp("evaluate", run, folder / "sold.csv").stdout.split())


def test_a_regression_in_the_order_of_time(folder: Path) -> None:
    run = folder / "time"
    arguments = ["--target", "price", "--time-column", "day", "--loss", "huber", "--output", run, "--quiet"]
    pmlp("search", folder / "all.csv", *BUDGET, *arguments)
    directory = RunDirectory.open(run)
    assert "day" not in TrainedModel.load(directory.model_folder).feature_names
    assert (directory.result()["metric"], directory.settings().loss) == ("rmse", "huber")
    result = pmlp("predict", run, folder / "all.csv", "--output", "-")
    frame = pd.read_csv(io.StringIO(result.stdout))
    assert list(frame) == ["price"]
    assert np.corrcoef(frame["price"], table()["price"])[0, 1] > 0.5
    assert "needs classes" in mistake("predict", run, folder / "all.csv", "--proba", "--output", "-")


def test_a_table_on_standard_input_is_kept_for_later(folder: Path) -> None:
    run = folder / "piped"
    text = (folder / "sold.csv").read_text()
    pmlp("search", "-", "--target", "sold", *BUDGET, "--output", run, "--quiet", input=text)
    kept = pd.read_parquet(run / "data.parquet")
    pd.testing.assert_frame_equal(kept, pd.read_csv(folder / "sold.csv"))
    assert RunDirectory.open(run).info()["source"]["data"] == "data.parquet"
    assert Source.of_run(RunDirectory.open(run)).path(run) == run / "data.parquet"


def test_rows_without_a_target_are_left_out_with_a_warning(folder: Path) -> None:
    frame = table()[["a", "b", "sold"]]
    frame.loc[:4, "sold"] = None
    frame.to_csv(folder / "gaps.csv", index=False)
    arguments = ["--target", "sold", *BUDGET, "--output", folder / "gaps"]
    result = pmlp("search", folder / "gaps.csv", *arguments)
    warned = [line for line in result.stderr.splitlines() if line.startswith("warning: ")]
    assert warned == ["warning: 5 rows are left out: the target 'sold' is missing"]
    assert ".py" not in result.stderr


def test_a_search_says_how_it_reads_the_table(folder: Path) -> None:
    frame = table()[["a", "b", "sold"]].assign(cost=[f"${row}.50" for row in range(240)])
    frame.to_csv(folder / "costs.csv", index=False)
    run = folder / "costs"
    arguments = ["--target", "sold", *BUDGET, "--columns", "ignore=b", "--output", run]
    lines = pmlp("search", folder / "costs.csv", *arguments).stderr.splitlines()
    assert lines[0] == "costs.csv: 240 rows, 3 columns: 1 numeric, 1 currency, 1 identifier"
    assert lines[1].startswith("target sold: 2 classes: ")
    assert lines[2].startswith("task: binary classification; networks are ranked by roc_auc (area under")
    assert Source.of_run(RunDirectory.open(run)).columns == {"b": "ignore"}
    predicted = pmlp("predict", run, folder / "costs.csv", "--output", "-")
    assert len(predicted.stdout.splitlines()) == 241


# ---------------------------------------------------------------------------- inspection


def test_inspect_shows_columns_task_and_warnings(folder: Path) -> None:
    frame = table()[["a", "colour", "sold"]]
    frame = frame.assign(copy=frame["sold"].map(str), id=range(240), half=["$5", "ask"] * 120)
    frame.to_csv(folder / "messy.csv", index=False)
    shown = pmlp("inspect", folder / "messy.csv", "--target", "sold").stdout
    assert "messy.csv, 240 rows, 5 columns" in shown
    assert "binary classification; networks are ranked by roc_auc" in shown
    assert "left out: row number" in shown
    assert "column 'copy' alone predicts the target" in shown
    found = json.loads(pmlp("inspect", folder / "messy.csv", "--target", "sold", "--json").stdout)
    assert [column["kind"] for column in found["columns"]] == [
        "numeric", "categorical", "categorical", "identifier", "categorical",
    ]  # fmt: skip
    assert {finding["topic"] for finding in found["warnings"]} == {"leakage", "unparsed"}
    plain = json.loads(pmlp("inspect", folder / "messy.csv", "--json").stdout)
    assert plain["target"] is None
    assert len(plain["columns"]) == 6


def test_mistakes_in_kinds_of_columns(folder: Path) -> None:
    data = folder / "sold.csv"
    assert "--columns must be KIND=NAME,..., but got 'a'" in mistake("inspect", data, "--columns", "a")
    broken = mistake("inspect", data, "--columns", "numeric=a\nb")
    assert "but got 'numeric=a\\nb': put a name with a line break in quotes" in broken
    assert "there is no such column" in mistake("inspect", data, "--columns", 'numeric="a\nb"')
    assert "write currency=a" in mistake("inspect", data, "--columns", "a=currency")
    assert "did you mean 'currency'?" in mistake("inspect", data, "--columns", "curency=a")
    assert "two kinds of 'a'" in mistake("inspect", data, "--columns", "text=a", "--columns", "list=a")
    assert "there is no such column" in mistake("inspect", data, "--columns", "text=nothing")


# ---------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "sodl"], "no column 'sodl' in the table; did you mean 'sold'?"),
        (["--target", "sold", "--groups", "colou"], "no column 'colou' in the table; did you mean 'colour'?"),
        (["--target", "sold", "--groups", "sold"], "a column can have only one role, but 'sold' has two"),
        (
            ["--target", "sold", "--groups", "a", "--time-column", "b"],
            "--groups and --time-column cannot be used together",
        ),
        (["--target", "sold", "--weights", "a"], "weight column 'a' must hold numbers >= 0, but row "),
        (
            ["--target", "sold", "--time-column", "colour"],
            "time column 'colour' must hold a number or a date",
        ),
        (["--target", "sold", "--metric", "rocauk"], "did you mean 'rocauc'?"),
        (["--target", "sold", "--metric", "rmse"], "--metric must fit the task 'binary'"),
        (["--target", "sold", "--task", "binari"], "did you mean 'binary'?"),
        (["--target", "sold", "--task", "regression"], "task 'regression' takes numbers"),
        (["--target", "sold", "--space", "smal"], "did you mean 'small'?"),
        (["--target", "sold", "--space", "nowhere.yaml"], "search space file 'nowhere.yaml' cannot be read"),
        (["--target", "sold", "--calibration", "temprature"], "did you mean 'temperature'?"),
        (
            ["--target", "sold", "--precision", "tf16"],
            "--precision must be one of ieee, tf32, but got 'tf16'",
        ),
        (["--target", "a", "--calibration", "temperature"], "--calibration needs classes, but got"),
        (["--target", "sold", "--trials", "0"], "--trials must be an integer >= 1, but got 0"),
        (["--target", "sold", "--trials", "many"], "'--trials'"),
        (["--target", "sold", "--time-limit", "-3"], "--time-limit must be > 0 seconds or a duration"),
        (["--target", "sold", "--time-limit", "1h30"], "such as '90s', '10m' or '1h30m', but got '1h30'"),
        (
            ["--target", "sold", "--memory-limit", "lots"],
            "--memory-limit must be bytes > 0 or a size",
        ),
        (["--target", "sold", "--class-weight", "balance"], "did you mean 'balanced'?"),
        (["--target", "a", "--class-weight", "balanced"], "--class-weight needs classes"),
        (["--target", "sold", "--loss", "huber"], "--loss must be one of binary_logits"),
        (["--target", "a", "--loss", "gamma"], "--loss 'gamma' needs a target > 0, but row"),
        (["--target", "sold", "--costs", "yes=5"], "--costs must be TRUE:PREDICTED=COST"),
        (["--target", "sold", "--costs", "yes:maybe=5"], "--costs names the class 'maybe'"),
        (["--target", "sold", "--ordinal", "yes"], "--ordinal must be True or different classes"),
        (["--target", "sold", "--metric", "qwk"], "--metric 'quadratic_kappa' needs ordered classes"),
        (["--target", "a", "--loss", "hubr"], "did you mean 'huber'?"),
        (["--target", "sold", "--finalists", "0"], "--finalists must be an integer >= 1, but got 0"),
        (["--target", "sold", "--device", "gpu"], "--device must be"),
        (["--target", "sold", "--monotonic", "a"], "--monotonic must be NAME=SIGN,... with the signs"),
        (["--target", "sold", "--monotonic", "aa=1"], "--monotonic must name columns of the table"),
        (["--target", "sold", "--monotonic", "colour=1"], "but 'colour' is categorical"),
        (["--target", "sold", "--jobs", "0"], "--jobs must not be 0"),
        (["--target", "sold", "--trails", "9"], "no option --trails; did you mean '--trials'?"),
        ([], "missing option '--target'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_sentence_and_leaves_no_folder(
    folder: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    run = tmp_path / "run"
    assert message in mistake("search", folder / "sold.csv", *arguments, "--output", run)
    assert not run.exists()


def test_mistakes_about_files(folder: Path, finished: Path, tmp_path: Path) -> None:
    assert "did you mean 'sold.csv'?" in mistake("search", folder / "sould.csv", "--target", "sold")
    assert "resume the run" in mistake(
        "search", folder / "sold.csv", "--target", "sold", "--output", finished
    )
    assert "did you mean 'finished'?" in mistake("leaderboard", folder / "finishd")
    assert "'search'" in mistake("serach")
    message = mistake("predict", finished, folder / "sold.csv", "--output", "out.xlsx")
    assert "must be '-' or end in one of .csv" in message
    message = mistake("predict", finished, folder / "sold.csv", "--output", tmp_path / "no" / "out.csv")
    assert "a folder that exists" in message
    pd.read_csv(folder / "sold.csv").drop(columns="b").to_csv(tmp_path / "less.csv", index=False)
    assert "'b'" in mistake("predict", finished, tmp_path / "less.csv", "--output", "-")
    assert "no column 'sold'" in mistake("evaluate", finished, folder / "price.parquet")


def test_a_failed_search_exits_with_1(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise SearchFailedError("none of 6 configurations could be trained")

    monkeypatch.setattr(runs, "run", fail)
    result = pmlp("search", folder / "sold.csv", "--target", "sold", "--output", tmp_path / "run", code=1)
    assert result.stderr == "error: none of 6 configurations could be trained\n"


# ---------------------------------------------------------------------------- predictions and results


@pytest.mark.parametrize(
    ("suffix", "read"),
    [
        (".csv", pd.read_csv),
        (".csv.gz", pd.read_csv),
        (".parquet", pd.read_parquet),
        (".feather", pd.read_feather),
    ],
)
def test_predictions_in_every_format(
    finished: Path, folder: Path, tmp_path: Path, suffix: str, read: Callable[[Path], pd.DataFrame]
) -> None:
    frame = pd.read_csv(folder / "sold.csv")
    model = TrainedModel.load(RunDirectory.open(finished).model_folder)
    labels, shares = tmp_path / f"labels{suffix}", tmp_path / f"shares{suffix}"
    assert pmlp("predict", finished, folder / "sold.csv", "--output", labels).output == ""
    pmlp("predict", finished, folder / "sold.csv", "--proba", "--output", shares)
    assert list(read(labels)) == ["sold"]
    assert list(read(labels)["sold"]) == list(model.predict(frame))
    assert list(read(shares)) == ["no", "yes"]
    np.testing.assert_allclose(read(shares).to_numpy(), model.predictions(frame).T, rtol=1e-12)
    assert sorted(path.name for path in tmp_path.iterdir()) == [labels.name, shares.name]


def test_predictions_ignore_the_target_column(finished: Path, folder: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(folder / "sold.csv")
    frame.drop(columns="sold").to_csv(tmp_path / "new.csv", index=False)
    with_target = pmlp("predict", finished, folder / "sold.csv", "--output", "-").stdout
    assert pmlp("predict", finished, tmp_path / "new.csv").stdout == with_target
    piped = pmlp("predict", finished, "-", "--output", "-", input=(tmp_path / "new.csv").read_text())
    assert piped.stdout == with_target
    frame.assign(a=-frame["a"]).to_csv(tmp_path / "new.csv", index=False)
    assert pmlp("predict", finished, tmp_path / "new.csv", "--output", "-").stdout != with_target


def test_standard_output_holds_only_a_table(finished: Path, tmp_path: Path) -> None:
    frame = table()
    frame["a"] = "n/k"
    frame.to_csv(tmp_path / "new.csv", index=False)
    with process("predict", finished, tmp_path / "new.csv", "--proba") as command:
        out, err = command.communicate()
    assert pd.read_csv(io.StringIO(out)).shape == (240, 2)
    assert err.startswith("warning: ")
    assert "'a'" in err


def test_predictions_on_standard_output_are_utf_8(
    finished: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TrainedModel, "predict", lambda model, frame: np.array(["é"] * len(frame)))
    result = CliRunner(charset="ascii").invoke(app, ["predict", str(finished), str(folder / "sold.csv")])
    assert result.stdout_bytes.decode("utf-8").splitlines()[:2] == ["sold", "é"]


def test_commands_on_models_print_no_warning_of_a_library(finished: Path, folder: Path) -> None:
    """In a new process, since torch warns of a read-only array once per process."""
    for command in ("evaluate", "predict"):
        words = [sys.executable, "-W", "default", "-W", "ignore::DeprecationWarning", "-m"]
        words += ["parallelmlp_search", command, str(finished), str(folder / "sold.csv")]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


def test_evaluate(finished: Path, folder: Path) -> None:
    from sklearn.metrics import accuracy_score, roc_auc_score

    found = json.loads(pmlp("evaluate", finished, folder / "sold.csv", "--json").stdout)
    frame = pd.read_csv(folder / "sold.csv")
    model = TrainedModel.load(RunDirectory.open(finished).model_folder)
    assert found["n_rows"] == len(frame)
    assert found["scores"]["accuracy"] == pytest.approx(accuracy_score(frame["sold"], model.predict(frame)))
    area = roc_auc_score(frame["sold"] == "yes", model.predictions(frame)[1])
    assert found["scores"]["roc_auc"] == pytest.approx(area)
    assert next(iter(found["scores"])) == "roc_auc"
    assert "rmse" not in found["scores"]
    assert found["honest"] == RunDirectory.open(finished).result()["honest"]
    assert "honest score" in pmlp("evaluate", finished, folder / "sold.csv").stdout


def test_evaluate_lists_columns_that_differ_from_training(
    finished: Path, folder: Path, tmp_path: Path
) -> None:
    frame = pd.read_csv(folder / "sold.csv")
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    number = next(name for name in frame.columns if name != "sold" and frame[name].dtype.kind == "f")
    frame.assign(**{number: frame[number] + 9.0}).to_csv(tmp_path / "later.csv", index=False)
    assert json.loads(pmlp("evaluate", run, folder / "sold.csv", "--json").stdout)["drift"] == []
    (found,) = json.loads(pmlp("evaluate", run, tmp_path / "later.csv", "--json").stdout)["drift"]
    assert (found["name"], found["distance"], found["unseen"]) == (number, 1.0, 0.0)
    assert (
        f"{number} " in pmlp("evaluate", run, tmp_path / "later.csv").stdout.split("differs from training")[1]
    )
    summary = json.loads((run / "columns.json").read_text())
    summary["columns"][number]["shares"].pop()
    (run / "columns.json").write_text(json.dumps(summary))
    assert "columns.json" in mistake("evaluate", run, tmp_path / "later.csv")
    (run / "columns.json").unlink()
    assert json.loads(pmlp("evaluate", run, tmp_path / "later.csv", "--json").stdout)["drift"] is None


def test_leaderboard(finished: Path) -> None:
    rows = json.loads(pmlp("leaderboard", finished, "--json", "--top", "0").stdout)
    assert len(rows) == 6
    assert rows[0]["rank"] == 1
    assert sum(row["ensemble_weight"] for row in rows) == pytest.approx(1)
    assert isinstance(rows[0]["config_widths"], list)
    shown = pmlp("leaderboard", finished, "--top", "2")
    assert len(shown.stdout.splitlines()) == 3
    assert "4 more trials: pmlp leaderboard" in shown.stderr


def test_show(finished: Path) -> None:
    best = json.loads(pmlp("leaderboard", finished, "--json").stdout)[0]
    found = json.loads(pmlp("show", finished, best["trial"], "--json").stdout)
    assert found["rank"] == 1
    assert found["score"] == best["score"]
    assert found["configuration"]["widths"] == best["config_widths"]
    assert found["ensemble_weight"] == best["ensemble_weight"]
    assert [rung["rung"] for rung in found["rungs"]] == sorted(rung["rung"] for rung in found["rungs"])
    assert "learning rate" in pmlp("show", finished, best["trial"]).stdout
    assert "has no trial 77: give one from 0 to 5" in mistake("show", finished, 77)


def test_info() -> None:
    found = json.loads(pmlp("info", "--json").stdout)
    assert found["versions"]["parallelmlp-search"] == parallelmlp_search.__version__
    assert found["cores"] >= 1
    assert found["device"] in ("cpu", "cuda")
    assert found["path"]["name"] == execution_path(found["device"]).name
    page = pmlp("info").stdout
    assert "extra polars" in page
    assert found["path"]["name"] in page


def test_info_says_how_to_get_a_faster_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "parallelmlp_search.cli.environment.execution_path", lambda _: ExecutionPath("slow", "pip install it")
    )
    lines = [line.strip() for line in pmlp("info").stdout.splitlines()]
    assert lines[lines.index("training             slow") + 1] == "pip install it"


def test_info_knows_the_extras_of_the_distribution() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(EXTRAS) == set(project["optional-dependencies"]) - {"test", "dev", "docs", "fuzz"}


def test_version_and_help() -> None:
    assert pmlp("--version").stdout == f"pmlp {parallelmlp_search.__version__}\n"
    commands = ("search", "predict", "evaluate", "leaderboard", "show", "resume", "info")
    assert all(command in pmlp().stdout for command in commands)
    assert all("Usage: pmlp" in pmlp(command, "--help", prog_name="pmlp").stdout for command in commands)


# ---------------------------------------------------------------------------- resume


@pytest.fixture
def interrupted(folder: Path, tmp_path: Path) -> Path:
    """A run that Ctrl-C stopped after its first rung."""
    run = tmp_path / "run"
    result = interrupted_search(folder / "sold.csv", "--target", "sold", *BUDGET, "--output", run)
    assert result.stderr.splitlines()[-1].endswith(f"continue with: pmlp resume {run}")
    assert result.stdout == ""
    return run


def test_a_resumed_run_has_the_same_result(interrupted: Path, finished: Path) -> None:
    assert "pmlp resume" in mistake("leaderboard", interrupted)
    found = json.loads(pmlp("resume", interrupted, "--json", "--quiet").stdout)
    wanted = RunDirectory.open(finished).result()
    for name in ("honest", "ensemble", "best_config", "n_trials"):
        assert found[name] == wanted[name]


def test_resuming_with_another_table_is_refused(interrupted: Path, folder: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(folder / "sold.csv")
    frame.loc[3, "a"] += 1
    frame.to_csv(tmp_path / "other.csv", index=False)
    directory = RunDirectory.open(interrupted)
    directory.update(source=directory.info()["source"] | {"data": str(tmp_path / "other.csv")})
    assert "other data" in mistake("resume", interrupted)
    assert interrupted.exists()


def test_resuming_a_finished_run_shows_its_result(finished: Path) -> None:
    result = pmlp("resume", finished)
    assert "already finished" in result.stderr
    assert "honest score" in result.stdout


def test_a_run_of_another_program_is_not_resumed(tmp_path: Path) -> None:
    RunDirectory.create(tmp_path / "run")
    assert "not started by `pmlp search`" in mistake("resume", tmp_path / "run")


# ---------------------------------------------------------------------------- separate processes


def process(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "parallelmlp_search", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        **options,
    )


def test_sigterm_keeps_the_run(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = ["--target", "sold", "--trials", "300", "--max-epochs", "200", "--output", run]
    search = process("search", folder / "sold.csv", *arguments)
    assert search.stderr is not None
    lines = [search.stderr.readline() for _ in range(6)]
    assert lines[3].startswith("training with "), lines
    assert lines[4].startswith("forecast: about "), lines
    assert "screening" in lines[5], lines
    search.send_signal(signal.SIGTERM)
    _, message = search.communicate(timeout=30)
    assert search.returncode == 130, message
    assert message.splitlines()[-1].endswith(f"pmlp resume {run}"), message
    assert "Traceback" not in message
    assert RunDirectory.open(run).info()["status"] == "interrupted"


def test_a_closed_pipe_is_not_an_error(finished: Path) -> None:
    board = process("leaderboard", finished)
    predictions = process("predict", finished, finished.parent / "sold.csv")
    for command in (board, predictions):
        with command:
            assert command.stdout is not None
            assert command.stderr is not None
            command.stdout.close()
            assert command.stderr.read() == ""
        assert command.returncode == 0


@pytest.mark.alone
def test_help_is_fast_and_imports_no_heavy_package() -> None:
    code = """
import sys, time
start = time.perf_counter()
from parallelmlp_search.cli.app import app
try:
    app(["--help"])
except SystemExit as end:
    print(end.code)
print(time.perf_counter() - start)
print([name for name in ("torch", "pandas", "numpy", "sklearn", "pyarrow") if name in sys.modules])
"""
    seconds = []
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
        )
        *_, exit_code, taken, heavy = done.stdout.splitlines()
        assert (exit_code, heavy) == ("0", "[]")
        seconds.append(float(taken))
        if seconds[-1] < 0.5:
            break
        time.sleep(0.5)  # another process may have used the processor
    assert min(seconds) < 0.5


def test_the_resource_tracker_cleans_up_silently(tmp_path: Path) -> None:
    left = tmp_path / "left"
    left.mkdir()
    code = f"""
import os
from parallelmlp_search.cli.terminal import guarded
@guarded
def command():
    from joblib.externals.loky.backend import resource_tracker
    resource_tracker.register({str(left)!r}, "folder")
    os._exit(0)
command()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    for _ in range(100):
        if not left.exists():
            break
        time.sleep(0.1)
    assert not left.exists()  # removed by a process that outlives the command
    assert done.stderr == ""
