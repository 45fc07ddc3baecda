"""Intervals, exported files and distilled networks: coverage, size, latency and error.

``python -m benchmarks.shipping`` measures the parts one after the other, ``--part NAME`` one of them:
``coverage``, ``export`` (:mod:`benchmarks.export_size`) and ``distillation``
(:mod:`benchmarks.distillation`).

``--part coverage`` makes 90 % intervals for the rows that are held out of seven tables:
``predict_interval`` after a search of 60 trials with at most 14 epochs, and CV+ of MAPIE with five folds
around ``HistGradientBoostingRegressor`` of scikit-learn with its defaults. ``heteroscedastic`` and
``friedman`` are made: the noise of the first depends on a column, that of the second does not.

Each row is written to ``benchmarks/results/shipping.json`` as it is measured; a second call measures what is
missing, or what another version of the package has measured. Once all rows are there, the table of
``docs/uncertainty.md`` is written. ``--runs N`` measures at most N rows. MAPIE is a part of the extra
``benchmark``.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.datasets import make_friedman1

from benchmarks import distillation, export_size
from benchmarks.publishing import ROOT, between, current_commit, describe_machine, fill, git_output, marks
from benchmarks.quality.sets import Table, load, split
from parallelmlp_search._files import write_json

__all__ = ["TOOLS", "between", "figures", "load_table", "main", "marks", "missing", "summary"]

RESULTS = ROOT / "benchmarks" / "results" / "shipping.json"
PAGE = ROOT / "docs" / "uncertainty.md"
TABLES = (
    "heteroscedastic",
    "friedman",
    "diabetes",
    "concrete",
    "communities",
    "wine_quality",
    "diamonds",
)
SEEDS = tuple(range(10))
COVERAGE = 0.9
N_TRIALS, MAX_EPOCHS = 60, 14
"""Budget of a search. It is no time, so that coverage and width are the same on a slower machine."""

MADE_ROWS = 3000

KEY = ("part", "table", "tool", "seed")
"""What identifies a row."""

Ends = NDArray[np.float64]


def load_table(name: str) -> Table:
    """Return a regression table of the package or of scikit-learn, or one that is made."""
    rng = np.random.default_rng(0)
    if name == "friedman":
        features, target = make_friedman1(MADE_ROWS, noise=1.0, random_state=0)
    elif name == "heteroscedastic":
        features = rng.uniform(-1.0, 1.0, (MADE_ROWS, 6))
        noise = 0.1 + 0.9 * np.abs(features[:, 1])
        target = np.sin(3.0 * features[:, 0]) + features[:, 2] + noise * rng.normal(size=MADE_ROWS)
    else:
        return load(name)
    frame = pd.DataFrame(features, columns=[f"x{number}" for number in range(features.shape[1])])
    return Table(name, "regression", frame, target, ())


def _ours(table: Table, train: NDArray[np.intp], test: NDArray[np.intp], seed: int) -> Ends:
    """Ends ``(n, 2)`` of the intervals of a search."""
    from parallelmlp_search import ParallelMLPRegressor

    model = ParallelMLPRegressor(
        n_trials=N_TRIALS, max_epochs=MAX_EPOCHS, n_jobs=1, random_state=seed, baselines=False
    )
    model.fit(table.rows(train), table.target[train])
    return model.predict_interval(table.rows(test), coverage=COVERAGE)


def _mapie(table: Table, train: NDArray[np.intp], test: NDArray[np.intp], seed: int) -> Ends:
    """Ends ``(n, 2)`` of CV+ around histogram gradient boosting."""
    from mapie.regression import CrossConformalRegressor
    from sklearn.ensemble import HistGradientBoostingRegressor

    features = table.features.copy()
    for column in table.categorical:
        codes, _ = pd.factorize(features[column], sort=True)
        features[column] = np.where(codes < 0, np.nan, codes)
    numbers = features.to_numpy(dtype=np.float64)
    is_category = [column in table.categorical for column in features.columns]
    booster = HistGradientBoostingRegressor(categorical_features=is_category, random_state=seed)
    model = CrossConformalRegressor(
        booster, confidence_level=COVERAGE, method="plus", cv=5, n_jobs=1, random_state=seed
    )
    model.fit_conformalize(numbers[train], table.target[train])
    ends: Ends = model.predict_interval(numbers[test])[1][:, :, 0]
    return ends


TOOLS: Mapping[str, Callable[..., Ends]] = {"ours": _ours, "mapie": _mapie}


def figures(ends: Ends, target: NDArray[np.float64]) -> dict[str, float]:
    """Return the coverage, and the mean width in standard deviations of the target.

    Parameters
    ----------
    ends, target
        Lower and upper ends ``(n, 2)``, and targets ``(n,)``.

    Returns
    -------
    dict
    """
    inside = (ends[:, 0] <= target) & (target <= ends[:, 1])
    width = float(np.mean(ends[:, 1] - ends[:, 0]) / np.std(target))
    return {"coverage": round(float(inside.mean()), 4), "width": round(width, 4)}


def measure(name: str, tool: str, seed: int) -> dict[str, Any]:
    """Return the figures of a tool on the held-out rows of a table."""
    table = load_table(name)
    train, test = split(table, seed)
    started = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ends = TOOLS[tool](table, train, test, seed)
    seconds = round(time.monotonic() - started, 1)
    return figures(ends, table.target[test]) | {"seconds": seconds, "held_out": len(test)}


# ---------------------------------------------------------------------- rows


def cases() -> Iterator[dict[str, Any]]:
    """Yield what identifies each row; the tools one after the other on the same rows."""
    for seed in SEEDS:
        for name in TABLES:
            for tool in TOOLS:
                yield {"part": "coverage", "table": name, "tool": tool, "seed": seed}


def missing(rows: Sequence[Mapping[str, Any]], version: str) -> list[dict[str, Any]]:
    """Return the cases without a row of this version of the package."""
    known = [tuple(map(row.get, KEY)) for row in rows if row["package"] == version]
    return [case for case in cases() if tuple(map(case.get, KEY)) not in known]


def _read_rows() -> list[dict[str, Any]]:
    if not RESULTS.is_file():
        return []
    rows: list[dict[str, Any]] = json.loads(RESULTS.read_text(encoding="utf-8"))["rows"]
    return rows


def measure_rows(most: int | None) -> None:
    """Measure the rows that are missing, at most so many, and write each into the file of results."""
    version = git_output("rev-parse", "HEAD:parallelmlp_search")
    left = missing(_read_rows(), version)
    machine = describe_machine() | {"commit": current_commit()}
    for case in left[:most]:
        stamp = {"date": f"{datetime.now(UTC):%Y-%m-%d %H:%M}", "package": version, "machine": machine}
        row = case | measure(case["table"], case["tool"], case["seed"]) | stamp
        row["load"] = round(os.getloadavg()[0], 1)  # 1 on a machine that does nothing else
        others = [one for one in _read_rows() if any(one[name] != case[name] for name in KEY)]
        write_json(RESULTS, {"rows": [*others, row]})
        print(json.dumps({**case, "coverage": row["coverage"], "width": row["width"]}), flush=True)
    if most is not None and len(left) > most:
        print(f"{len(left) - most} rows are left: run the same command again")


def summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the table of the page: means over the seeds of each table, and over the tables.

    That of relative widths is geometric.

    Parameters
    ----------
    rows
        Rows of the file of results.

    Returns
    -------
    str
        Table in Markdown.
    """
    frame = pd.DataFrame(rows)
    means = frame.groupby(["table", "tool"])[["coverage", "width"]].mean().unstack()
    lines = [
        "| table | coverage | coverage of MAPIE | width | width of MAPIE | relative width |",
        "|---|---|---|---|---|---|",
    ]
    names = [name for name in TABLES if name in means.index]
    ratios = means["width", "ours"] / means["width", "mapie"]
    pairs = [*((name, means.loc[name], ratios[name]) for name in names)]
    pairs.append(("mean", means.mean(), float(np.exp(np.log(ratios).mean()))))
    for name, own, ratio in pairs:
        coverages = [f"{100 * own['coverage', tool]:.1f} %" for tool in TOOLS]
        widths = [f"{own['width', tool]:.3f}" for tool in TOOLS]
        lines.append(f"| {' | '.join([name, *coverages, *widths, f'{ratio:.2f}'])} |")
    return "\n".join(lines)


def publish_coverage(most: int | None) -> None:
    """Measure at most so many rows, print the table, and write it into the page once it is complete."""
    measure_rows(most)
    rows = _read_rows()
    table = summary(rows)
    if not missing(rows, rows[0]["package"] if rows else ""):
        fill(PAGE, marks("coverage"), table)
    print(table)


PARTS: Mapping[str, Callable[[int | None], None]] = {
    "coverage": publish_coverage,
    "export": lambda _: export_size.publish(),
    "distillation": lambda most: distillation.publish(distillation.BUNDLED[:most]),
}
"""What measures each part, given the most rows to measure."""


def main() -> None:
    """Measure the parts that are asked for, print their tables and write them into the pages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=PARTS, action="append", help="default: all")
    parser.add_argument("--runs", type=int, metavar="N", help="rows to measure now; default: all missing")
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):  # all tools on one core
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    for part in options.part or PARTS:
        PARTS[part](options.runs)


if __name__ == "__main__":
    main()
