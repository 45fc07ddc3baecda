"""Functions that read bytes as a user's file and allow only the errors of this package.

The first byte of an input chooses the kind of file, the others are its content.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import math
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import numpy as np

from parallelmlp_search.data import TablePreprocessor, read_table
from parallelmlp_search.exceptions import PMLPError, PMLPWarning
from parallelmlp_search.inference.intervals import predicted_sets
from parallelmlp_search.runs import Run
from parallelmlp_search.search import Problem
from parallelmlp_search.space import SearchSpace
from tests.faults.small import small_table

MAX_CELLS = 20_000
"""Cells of the largest table that is also preprocessed."""


def _zipped(content: bytes) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("t.csv", content)
    return archive.getvalue()


@cache
def workbook() -> bytes:
    """A small workbook of Excel."""
    buffer = io.BytesIO()
    small_table(6).to_excel(buffer, index=False)
    return buffer.getvalue()


SHEET = "xl/worksheets/sheet1.xml"
"""Sheet of :func:`workbook`."""


def _with_sheet(content: bytes) -> bytes:
    """A workbook whose sheet has the given XML."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(workbook())) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            new.writestr(name, content if name == SHEET else old.read(name))
    return buffer.getvalue()


TABLES: tuple[tuple[str, Callable[[bytes], bytes]], ...] = (
    ("t.csv", bytes),
    ("t.tsv", bytes),
    ("t.csv.gz", bytes),
    ("t.csv.zip", bytes),
    ("t.bz2", bytes),
    ("t.xz", bytes),
    ("t.parquet", bytes),
    ("t.feather", bytes),
    # mutations of the text inside, which a checksum would refuse
    ("t.csv", gzip.compress),
    ("t.csv", bz2.compress),
    ("t.csv", lzma.compress),
    ("t.zip", _zipped),
    ("t.json", bytes),
    ("t.jsonl", bytes),
    ("t.jsonl", gzip.compress),
    ("t.orc", bytes),
    ("t.xlsx", bytes),
    ("t.xlsx", _with_sheet),
    ("t.sqlite", bytes),
)
"""Names of tables, with the compression of their content."""

SPACES = ("s.json", "s.yaml", "s.toml")
"""Names of search spaces."""


def _predict(run: Run) -> None:
    predictions = run.model().predictions(small_table(8))
    assert all(map(math.isfinite, predictions.ravel()))


def _predict_sets(run: Run) -> None:
    model = run.model()
    if model.uncertainty is not None:
        predicted_sets(model, small_table(8), (0.5,))


RUN_FILES: Mapping[str, Callable[[Run], object]] = {
    "run.json": lambda run: run.directory.settings(),
    "journal.json": lambda run: run.directory.entries(),
    "result.json": Run.result,
    "leaderboard.parquet": lambda run: run.directory.best_configs(2),
    "trials.parquet": Run.trials,
    "model/model.json": _predict,
    "model/weights.safetensors": _predict,
    "model/uncertainty.safetensors": _predict_sets,
}
"""Files of a run directory that are replaced, and the way that each is read."""


@cache
def scratch() -> Path:
    """Folder of this process for its files."""
    return Path(tempfile.mkdtemp(prefix="fuzz-"))


def clean_up() -> None:
    """Remove the folder of this process."""
    shutil.rmtree(scratch(), ignore_errors=True)
    scratch.cache_clear()


def fuzz_table(data: bytes) -> None:
    """Read a table, recognise its columns, make a problem of its last column, and encode it."""
    if not data:
        return
    name, compress = TABLES[data[0] % len(TABLES)]
    path = scratch() / name
    path.write_bytes(compress(data[1:]))
    frame = read_table("t", database=str(path)) if name == "t.sqlite" else read_table(path)
    if frame.size > MAX_CELLS:
        return
    problem = Problem.from_table(frame, str(frame.columns[-1]))
    if problem.has_usable_column:
        encoded = TablePreprocessor(quantiles=True, numeric_bins=4).fit_transform(problem.frame)
        assert np.isfinite(encoded).all()


def fuzz_space(data: bytes) -> None:
    """Read a search space, draw from it, and write it."""
    if not data:
        return
    path = scratch() / SPACES[data[0] % len(SPACES)]
    path.write_bytes(data[1:])
    space = SearchSpace.load(path)
    assert space.size() >= 1
    assert space.grid_size(2) >= 1
    generator = np.random.default_rng(0)
    for config in space.sample(3, generator):
        assert space.contains(config)
        space.mutate(config, generator)
    assert SearchSpace.from_dict(space.to_dict()) == space


def fuzz_run(data: bytes) -> None:
    """Replace a file of a finished run and read it."""
    if not data:
        return
    run = finished_run()
    name, read = list(RUN_FILES.items())[data[0] % len(RUN_FILES)]
    path = run / name
    whole = path.read_bytes() if path.exists() else None
    path.write_bytes(data[1:])
    try:
        read(Run(run))
    finally:
        if whole is None:
            path.unlink()
        else:
            path.write_bytes(whole)


@cache
def finished_run() -> Path:
    """A small finished run in the folder of this process."""
    from typer.testing import CliRunner

    from parallelmlp_search.cli.app import app
    from tests.faults.small import SEARCH

    table, run = scratch() / "sold.csv", scratch() / "run"
    small_table().to_csv(table, index=False)
    result = CliRunner().invoke(app, ["search", str(table), *SEARCH, "--output", str(run)])
    assert result.exit_code == 0, result.output
    return run


HARNESSES: Mapping[str, Callable[[bytes], None]] = {
    "tables": fuzz_table,
    "spaces": fuzz_space,
    "runs": fuzz_run,
}
"""Harnesses by name."""


def check(name: str, data: bytes) -> bool:
    """Run a harness; return True if the input was accepted, False if it was refused.

    Every exception that is no `PMLPError` is a defect and is not caught, numerical warnings included.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", PMLPWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            HARNESSES[name](data)
        except PMLPError:
            return False
    return True
