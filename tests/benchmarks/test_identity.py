"""Identity check: planted differences are found, and the code of the checkout runs."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import identity
from benchmarks.identity import CASES, Comparison, compare_frames, compare_values, main, table
from benchmarks.publishing import ROOT, git_output


def trials() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "trial": [0, 1, 2],
            "score": [0.5, np.nan, 0.7],
            "failure": pd.array([None, "diverged", None], dtype="string"),
            "config_widths": [np.array([4]), np.array([8, 8]), [16]],
            "train_seconds": [1.0, 2.0, 3.0],
        }
    )


def test_equal_tables_are_identical() -> None:
    later = trials().assign(train_seconds=9.0)
    assert compare_frames(later, trials()) == Comparison(n_columns=4, n_rows=3)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("score", [0.5, np.nan, np.nextafter(0.7, 1.0)]),  # one bit
        ("score", [0.5, 0.0, 0.7]),  # a missing value
        ("trial", [0, 2, 1]),
        ("failure", [None, "diverged", "diverged"]),
        ("config_widths", [[4], [8, 9], [16]]),
    ],
)
def test_a_planted_difference_is_found(column: str, value: list[object]) -> None:
    found = compare_frames(trials().assign(**{column: value}), trials())
    assert [text.split(",")[0] for text in found.differences] == [column]


def test_predictions_may_differ_by_rounding() -> None:
    later = trials().assign(score=[0.5 + 9e-7, np.nan, 0.7])
    assert compare_frames(later, trials(), tolerance=1e-6).differences == ()
    assert len(compare_frames(later, trials(), tolerance=1e-7).differences) == 1
    missing = trials().assign(score=[0.5, 0.0, 0.7])
    assert len(compare_frames(missing, trials(), tolerance=1e-6).differences) == 1


def test_a_missing_row_and_a_missing_column_are_found() -> None:
    shorter = compare_frames(trials().head(2), trials())
    assert shorter.differences == ("2 rows instead of 3",)
    fewer = compare_frames(trials().drop(columns="score").assign(depth=1), trials())
    assert (fewer.differences, fewer.removed, fewer.added) == ((), ("score",), ("depth",))
    assert compare_frames(trials()[["trial"]], trials()[["score"]]).differences == ("no column in common",)


def test_values_of_both_sides_are_compared() -> None:
    old = {"score": 0.5, "low": None, "elapsed_seconds": 1.0, "gone": 1}
    assert compare_values(old | {"elapsed_seconds": 2.0}, old).differences == ()
    assert compare_values({"score": 0.6, "low": None}, old).differences == (
        "score, row 0: 0.6 instead of 0.5",
    )


def test_the_table_shows_each_comparison() -> None:
    found = {
        "letter": {"trials": Comparison(40, 80, ("score, row 1: 1 instead of 2",), ("feature_share",), ())}
    }
    assert table(found).splitlines()[2:] == [
        "| letter | trials | 40 | 80 | score, row 1: 1 instead of 2 |",
        "",
        "letter, trials: only the old code has feature_share",
    ]


@pytest.mark.parametrize(("differences", "status"), [((), 0), (("score, row 0: 1 instead of 2",), 1)])
def test_a_difference_sets_the_exit_status(
    differences: tuple[str, ...],
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(identity, "worktree", lambda commit: nullcontext(ROOT))
    monkeypatch.setattr(
        identity, "compare_case", lambda *arguments: {"trials": Comparison(1, 1, differences)}
    )
    assert main(["--only", "spambase"]) == status
    assert ("identical" in capsys.readouterr().out) == (status == 0)


def test_searches_name_columns_of_their_tables() -> None:
    for name, case in CASES.items():
        header = pd.read_csv(ROOT / "datasets" / f"{name}.csv.gz", nrows=5)
        assert case.target in header.columns
        assert case.is_regression == (name == "diamonds")


def test_another_installed_package_is_an_error(tmp_path: Path) -> None:
    identity._check_package(ROOT)
    with pytest.raises(SystemExit, match="instead of the package"):
        identity._check_package(tmp_path)


@pytest.mark.skipif(not git_output("rev-parse", "HEAD"), reason="not a git checkout")
def test_an_unknown_commit_is_an_error() -> None:
    with pytest.raises(SystemExit, match="cannot be checked out"), identity.worktree("no-such-commit"):
        pass


def test_a_missing_git_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SystemExit, match="needs git"), identity.worktree("HEAD"):
        pass
