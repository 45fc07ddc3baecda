"""Check that two commits give identical results: the same seeded searches, compared value by value.

``python -m benchmarks.identity`` runs three searches with the code of the checkout and with that of an older
commit (``--against``, by default the last one before the restructuring), each in a new process. It
compares all trials and the honest score bit for bit. Then it loads each run directory of the older commit
with both versions and compares their predictions to 1e-6, since libraries of products round differently. It
prints a table and exits with 1 if anything differs.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.publishing import ROOT

__all__ = ["CASES", "Case", "Comparison", "compare_frames", "compare_values", "main"]

BASELINE = "11b9c02"
"""Last commit before the modules were moved into sub-packages."""

PREDICTION_TOLERANCE = 1e-6
"""Difference of predictions, relative to numbers above 1, that products in single precision explain."""


@dataclass(frozen=True)
class Case:
    """One seeded search on a bundled table."""

    target: str
    trials: int
    epochs: int
    is_regression: bool = False


CASES: Mapping[str, Case] = {
    "spambase": Case("type", trials=60, epochs=9),
    "letter": Case("lettr", trials=40, epochs=3),
    "diamonds": Case("price", trials=24, epochs=3, is_regression=True),
}


@dataclass(frozen=True)
class Comparison:
    """Outcome of comparing two tables.

    Attributes
    ----------
    n_columns, n_rows
        Columns that both tables have, timings left out, and rows of the newer one.
    differences
        One sentence for each column that differs; empty if the tables are identical.
    removed, added
        Columns that only the older or only the newer table has.
    """

    n_columns: int
    n_rows: int
    differences: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()


def _is_missing(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value))


def _plain(value: Any) -> Any:
    """Return a value as Python's own type: arrays become lists, NumPy's numbers become numbers."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _equal(new: Any, old: Any, tolerance: float) -> bool:
    new, old = _plain(new), _plain(old)
    if _is_missing(new) or _is_missing(old):
        return _is_missing(new) and _is_missing(old)
    if isinstance(new, float) and isinstance(old, float) and tolerance:
        return abs(new - old) <= tolerance * max(1.0, abs(old))
    return bool(new == old)


def compare_frames(new: pd.DataFrame, old: pd.DataFrame, *, tolerance: float = 0.0) -> Comparison:
    """Compare two tables value by value in the columns that both have.

    Missing values are equal to each other. Columns with ``second`` in their names are timings, which are
    ignored.

    Parameters
    ----------
    new, old
        Tables of the newer and of the older code, rows in the same order.
    tolerance
        Largest difference of floats, relative to numbers above 1; 0 compares every bit.

    Returns
    -------
    Comparison
        With the first difference of each column that differs.
    """
    shared = [name for name in old.columns if name in new.columns and "second" not in name]
    differences = []
    if len(new) != len(old):
        differences.append(f"{len(new)} rows instead of {len(old)}")
    if not shared:
        differences.append("no column in common")
    for name in shared:
        for row, (value, expected) in enumerate(zip(new[name], old[name], strict=False)):
            if not _equal(value, expected, tolerance):
                differences.append(f"{name}, row {row}: {value!r} instead of {expected!r}")
                break
    return Comparison(
        len(shared),
        len(new),
        tuple(differences),
        tuple(name for name in old.columns if name not in new.columns),
        tuple(name for name in new.columns if name not in old.columns),
    )


def compare_values(new: Mapping[str, Any], old: Mapping[str, Any]) -> Comparison:
    """Compare the values that two mappings share, as a table of one row."""
    return compare_frames(pd.DataFrame([dict(new)], dtype=object), pd.DataFrame([dict(old)], dtype=object))


@contextmanager
def worktree(commit: str) -> Iterator[Path]:
    """Check a commit out into a temporary folder.

    Raises
    ------
    SystemExit
        If git is missing or does not know the commit.
    """
    with tempfile.TemporaryDirectory(prefix="identity-") as folder:
        path = Path(folder) / "checkout"
        try:
            subprocess.run(
                ["git", "worktree", "add", "--detach", str(path), commit],
                cwd=ROOT,
                check=True,
                capture_output=True,
                text=True,
            )
        except FileNotFoundError:
            raise SystemExit("benchmarks.identity needs git to check out the older commit") from None
        except subprocess.CalledProcessError as error:
            raise SystemExit(f"commit {commit!r} cannot be checked out: {error.stderr.strip()}") from None
        try:
            yield path
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(path)], cwd=ROOT, check=False)


def _python(code: Path, *arguments: str) -> str:
    """Run the interpreter with the package of one checkout and return the standard output.

    Raises
    ------
    SystemExit
        If the process fails.
    """
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=code,
        env=os.environ | {"PYTHONPATH": str(code)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed in {code}:\n{done.stderr[-3000:]}")
    return done.stdout


def _check_package(code: Path) -> None:
    """Check that the interpreter imports the package of this checkout and not an installed one."""
    found = _python(code, "-c", "import parallelmlp_search; print(parallelmlp_search.__file__)").strip()
    if not Path(found).is_relative_to(code):
        raise SystemExit(f"the interpreter imports {found} instead of the package in {code}")


def search(code: Path, name: str, output: Path, jobs: int | None = None) -> None:
    """Run the search of a case with one version of the code.

    Parameters
    ----------
    code
        Root of a checkout.
    name
        Key of :data:`CASES`.
    output
        Run directory to make.
    jobs
        Workers; all cores by default.
    """
    case = CASES[name]
    arguments = [str(_data(name)), "--target", case.target, "--seed", "0", "--device", "cpu"]
    arguments += ["--trials", str(case.trials), "--max-epochs", str(case.epochs)]
    arguments += ["--output", str(output), "--quiet"]
    if jobs is not None:
        arguments += ["--jobs", str(jobs)]
    _python(code, "-m", "parallelmlp_search", "search", *arguments)


def predictions(code: Path, run: Path, name: str, output: Path) -> pd.DataFrame:
    """Predict the whole table of a case with a run.

    Parameters
    ----------
    code
        Root of a checkout.
    run
        Run directory, made by any version.
    name
        Key of :data:`CASES`.
    output
        Parquet file to write, which keeps every bit.

    Returns
    -------
    DataFrame
        One row for each row of the table.
    """
    arguments = ["predict", str(run), str(_data(name)), "--output", str(output)]
    if not CASES[name].is_regression:
        arguments.append("--proba")
    _python(code, "-m", "parallelmlp_search", *arguments)
    return pd.read_parquet(output)


def _data(name: str) -> Path:
    return ROOT / "datasets" / f"{name}.csv.gz"


def _result(run: Path) -> dict[str, Any]:
    """Return the honest score and what belongs to it from ``result.json``."""
    return dict(json.loads((run / "result.json").read_text(encoding="utf-8"))["honest"])


def compare_case(name: str, old_code: Path, folder: Path, jobs: int | None) -> dict[str, Comparison]:
    """Search and predict with both versions of the code.

    Parameters
    ----------
    name
        Key of :data:`CASES`.
    old_code
        Root of the checkout of the older commit; the newer code is that of this repository.
    folder
        Empty folder for both runs.
    jobs
        Workers of each search; all cores by default.

    Returns
    -------
    dict
        Comparisons by what was compared.
    """
    new, old = folder / "new", folder / "old"
    search(old_code, name, old, jobs)
    search(ROOT, name, new, jobs)
    expected = predictions(old_code, old, name, folder / "old.parquet")
    loaded = predictions(ROOT, old, name, folder / "loaded.parquet")
    predicted = predictions(ROOT, new, name, folder / "new.parquet")
    rounding = {"tolerance": PREDICTION_TOLERANCE}
    return {
        "trials": compare_frames(
            pd.read_parquet(new / "trials.parquet"), pd.read_parquet(old / "trials.parquet")
        ),
        "honest score": compare_values(_result(new), _result(old)),
        "predictions of the old run": compare_frames(loaded, expected, **rounding),
        "predictions of the new run": compare_frames(predicted, expected, **rounding),
    }


def table(found: Mapping[str, Mapping[str, Comparison]]) -> str:
    """Return all comparisons as a Markdown table, and the columns that only one side has."""
    lines = ["| search | compared | columns | rows | result |", "|---|---|---|---|---|"]
    notes = []
    for name, comparisons in found.items():
        for what, one in comparisons.items():
            result = "; ".join(one.differences) or "identical"
            lines.append(f"| {name} | {what} | {one.n_columns} | {one.n_rows:,} | {result} |")
            if one.removed:
                notes.append(f"{name}, {what}: only the old code has {', '.join(one.removed)}")
            if one.added:
                notes.append(f"{name}, {what}: only the new code has {', '.join(one.added)}")
    return "\n".join([*lines, "", *notes]).rstrip("\n")


def main(words: Sequence[str] | None = None) -> int:
    """Run the searches and print the table; return 1 if anything differs."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.identity",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--against", default=BASELINE, metavar="COMMIT", help=f"default: {BASELINE}")
    parser.add_argument("--only", action="append", choices=list(CASES), help="one of the searches")
    parser.add_argument("--jobs", type=int, help="workers of each search; default: all cores")
    arguments = parser.parse_args(words)
    found = {}
    with worktree(arguments.against) as old_code, tempfile.TemporaryDirectory() as folder:
        for code in (old_code, ROOT):
            _check_package(code)
        for name in arguments.only or CASES:
            (Path(folder) / name).mkdir()
            found[name] = compare_case(name, old_code, Path(folder) / name, arguments.jobs)
            print(table({name: found[name]}), "\n", flush=True)
    if len(found) > 1:
        print(table(found))
    return int(any(one.differences for comparisons in found.values() for one in comparisons.values()))


if __name__ == "__main__":
    # SIGTERM ends the program normally, so that the temporary worktree is removed
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
