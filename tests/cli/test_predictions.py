"""Files of predictions, and plain values of results."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from parallelmlp_search.cli.app import app
from parallelmlp_search.cli.plain_values import plain, records
from parallelmlp_search.cli.predictions import check_output, write_table
from parallelmlp_search.exceptions import InvalidParameterError


def test_plain_values_are_json() -> None:
    frame = pd.DataFrame(
        {
            "n": pd.array([1, None], dtype="Int64"),
            "x": [np.nan, np.inf],
            "t": ["a", None],
            "w": [[64, 32], np.array([1])],
            "d": pd.to_datetime(["2024-01-01", None]),
        }
    )
    rows = json.loads(json.dumps(records(frame), allow_nan=False))
    assert rows[0] == {"n": 1, "x": None, "t": "a", "w": [64, 32], "d": "2024-01-01 00:00:00"}
    assert rows[1] == {"n": None, "x": None, "t": None, "w": [1], "d": None}
    assert plain({"a": (np.float32(0.5), np.bool_(True))}) == {"a": [0.5, True]}


def test_output_suffixes(tmp_path: Path) -> None:
    assert check_output("-") == ".csv"
    assert check_output(str(tmp_path / "a.csv.gz")) == ".csv.gz"
    with pytest.raises(InvalidParameterError, match=r"did you mean '\.parquet'"):
        check_output(str(tmp_path / "a.parqet"))


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    write_table(pd.DataFrame({"a": [1]}), str(path))
    with pytest.raises((ValueError, TypeError)):
        write_table(pd.DataFrame({"a": [1, "x"]}, dtype=object), str(path))
    assert list(pd.read_parquet(path)["a"]) == [1]
    assert [p.name for p in tmp_path.iterdir()] == ["out.parquet"]


def _small_run(folder: Path, target: str) -> tuple[Path, Path]:
    """Finished run on a small table, and the path of the table."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=150), "b": rng.choice(["x", "y"], 150)})
    frame["price"] = 3 * frame["a"] + rng.normal(size=150)
    frame["colour"] = np.where(frame["a"] > 0.5, "red", np.where(frame["a"] < -0.5, "blue, dark", "green"))
    path = folder / "table.csv"
    frame[["a", "b", target]].to_csv(path, index=False)
    options = ["--trials", "4", "--max-epochs", "3", "--folds", "2", "--no-baselines", "--quiet"]
    result = CliRunner().invoke(
        app, ["search", str(path), "--target", target, *options, "--output", str(folder / "run")]
    )
    assert result.exit_code == 0, result.output
    return folder / "run", path


def _predicted(*arguments: object) -> pd.DataFrame:
    result = CliRunner().invoke(app, ["predict", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return pd.read_csv(io.StringIO(result.stdout))


def test_intervals_are_columns(tmp_path: Path) -> None:
    run, table = _small_run(tmp_path, "price")
    found = _predicted(run, table, "--interval", 90, "--interval", 50)
    names = ["price", "price_lower_90", "price_upper_90", "price_lower_50", "price_upper_50"]
    assert list(found) == names
    assert (np.diff(found[[names[1], names[3], names[0], names[4], names[2]]], axis=1) >= 0).all()
    truth = pd.read_csv(table)["price"]
    assert truth.between(found["price_lower_90"], found["price_upper_90"]).mean() > 0.85
    plain_columns = _predicted(run, table)
    assert list(plain_columns) == ["price"]
    result = CliRunner().invoke(app, ["evaluate", str(run), str(table)])
    assert "90 % intervals hold" in result.stdout
    assert "of these rows" in result.stdout
    summary = CliRunner().invoke(app, ["resume", str(run)]).stdout
    assert re.search(r"coverage +90 % intervals hold \d+\.\d % of out-of-fold rows, mean width", summary)


def test_sets_are_lists_of_labels(tmp_path: Path) -> None:
    run, table = _small_run(tmp_path, "colour")
    found = _predicted(run, table, "--interval", 99)
    sets = [json.loads(text) for text in found["colour_set_99"]]
    assert all(label in own for label, own in zip(found["colour"], sets, strict=True))
    truth = pd.read_csv(table)["colour"]
    assert np.mean([label in own for label, own in zip(truth, sets, strict=True)]) > 0.9
    assert list(_predicted(run, table, "--proba", "--interval", 90)) == [
        "blue, dark", "green", "red", "colour_set_90",
    ]  # fmt: skip


@pytest.mark.parametrize("percent", ["0.9", "100", "-5"])
def test_a_wrong_percentage_is_named(percent: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["predict", "run", "table.csv", "--interval", percent])
    assert result.exit_code == 2
    assert "--interval must be a percentage from 1 to below 100, such as 90" in " ".join(
        result.stderr.split()
    )
