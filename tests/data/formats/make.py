"""Write files in the format of the installed version, to test that later versions read them.

``python tests/data/formats/make.py VERSION`` writes ``VERSION.tar.gz`` beside this file: a finished run with
a promoted network, its predictions, an interrupted run, and a search space in each kind of file. Run it once
before a release, with the package of the release.
"""

from __future__ import annotations

import os
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from typer.testing import CliRunner

from parallelmlp_search import MLPConfig, SearchSpace
from parallelmlp_search.cli import runs
from parallelmlp_search.cli.app import app
from parallelmlp_search.search.run import journal

HERE = Path(__file__).parent
SEARCH = (
    "--target", "sold", "--trials", "4", "--max-epochs", "3", "--folds", "2", "--jobs", "1", "--quiet",
)  # fmt: skip
PROMOTE = ("--top", "1", "--depth-factor", "2", "--slices", "2", "--epochs", "1", "--quiet")
SPACE = {
    "depth": {"type": "int", "low": 1, "high": 2},
    "width": [4, 6],
    "activation": ["relu", "tanh"],
    "learning_rate": {"type": "float", "low": 0.001, "high": 0.03, "log": True},
    "batch_size": 32,
}


def table() -> pd.DataFrame:
    """Numbers, missing values, a category, a date; two classes."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=50).round(3), "b": rng.normal(size=50).round(3)})
    frame["colour"] = rng.choice(["red", "green", "blue"], 50)
    frame["day"] = pd.date_range("2024-01-01", periods=50).strftime("%Y-%m-%d")
    frame["sold"] = np.where(frame["a"] - frame["b"] + 0.5 * rng.normal(size=50) > 0, "yes", "no")
    frame.loc[::11, "b"] = np.nan
    return frame


def pmlp(*arguments: object, code: int = 0) -> None:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exit_code != code:
        raise RuntimeError(result.output) from result.exception


def interrupt(search: Any) -> Any:
    """Search that Ctrl-C ends after its first cross-fitted shard."""

    def stop(progress: Any) -> None:
        if progress.stage == "cross-fitting":
            raise KeyboardInterrupt

    def run(*arguments: Any, callbacks: Any = (), **options: Any) -> Any:
        return search(*arguments, callbacks=[*callbacks, stop], **options)

    return run


def write(folder: Path) -> None:
    """Write all files into the working directory, which is ``folder``."""
    table().to_csv("table.csv", index=False)
    for suffix in ("yaml", "toml", "json"):
        SearchSpace.from_dict(SPACE).save(f"space.{suffix}")
    # a field that was removed after version 0.1.0
    old = {"feature_share": [0.6, 1.0]} if hasattr(MLPConfig(), "feature_share") else {}
    SearchSpace.from_dict(SPACE | old).save("finished.json")
    pmlp("search", "table.csv", *SEARCH, "--space", "finished.json", "--output", "finished")
    pmlp("promote", "finished", *PROMOTE)
    shutil.rmtree("finished/promotion")  # files of the training, which only a second promotion reads
    pmlp("predict", "finished", "table.csv", "--proba", "--output", "predictions.csv")
    # a shard is kept however short it was; the constant had another name in version 0.1.0
    for name in ("MIN_KEPT_SECONDS", "WORTH_KEEPING_SECONDS"):
        if hasattr(journal, name):
            setattr(journal, name, 0.0)
    runs.run = interrupt(runs.run)
    pmlp("search", "table.csv", *SEARCH, "--space", "space.json", "--output", "interrupted", code=130)
    for run in ("finished", "interrupted"):
        path = Path(run, "run.json")
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace(f"{folder}/", "/data/"), encoding="utf-8")


def main(version: str) -> None:
    """Write the files of a version."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        before = Path.cwd()
        os.chdir(folder)
        try:
            write(folder)
        finally:
            os.chdir(before)
        with tarfile.open(HERE / f"{version}.tar.gz", "w:gz") as archive:
            archive.add(folder, arcname=version)


if __name__ == "__main__":
    main(sys.argv[1])
