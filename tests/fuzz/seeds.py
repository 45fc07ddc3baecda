"""First inputs of the fuzzers: small valid files of every kind."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import sqlite3
import zipfile
from collections.abc import Iterator

import numpy as np
import pandas as pd

from parallelmlp_search.space import SearchSpace
from tests.faults.small import small_table
from tests.fuzz.harnesses import RUN_FILES, SHEET, SPACES, TABLES, finished_run, scratch, workbook

TEXTS = (
    "a,b,y\n1,x,0\n2,y,1\n3,x,0\n4,,1\n",
    'a;b;y\n1,5;"x;1";0\n2,25;y;1\n-3;"x\n""q""";0\n',
    "a\tb\ty\n1\tx\tno\n2\t?\tyes\n",
    "\ufeffa|b|y\n1e300|2024-01-01|0\n-1e-300|2024-02-30|1\n",
    '"a","b"\n"r1",1,2\n"r2",3,4\n',
    "a,a,y\n1,2,3,\n4,5,6,\n",
    "t,y\n" + "12:30,1\n1:2:3,0\n" * 3,
    "n,y\n" + "9" * 400 + ",1\ninf,0\nnan,1\n",
    "größe,y\nKöln,1\nŁódź,0\n",
)

SPACE_TEXTS = (
    ("s.yaml", "width: &w [32, 64]\ndropout: {type: float, low: 0, high: 0.5, step: 0.1}\n"),
    ("s.yaml", "depth: {type: int, low: 1, high: 3}\nresidual: {choices: [no, yes], when: {name: depth}}\n"),
    ("s.yaml", "width_1: 3\nwidth_2: {type: int, low: 1, high: 9, log: true}\ndepth: 2\nseed: 7\n"),
    ("s.yaml", "widths: [[8, 8], [16]]\nclip_norm: [null, 1e-3]\n? batch_size\n: !!int '32'\n"),
    ("s.toml", "width = [32, 64]\nlearning_rate = {type = 'float', low = 1e-4, high = 0.1, log = true}\n"),
    ("s.toml", "[depth]\ntype = 'int'\nlow = 1\nhigh = 3\n[residual]\nchoices = [true]\n"),
    ("s.json", '{"activation": ["relu", "tanh"], "batch_size": {"type": "int", "low": 8, "high": 64}}'),
)


def _frames() -> Iterator[pd.DataFrame]:
    yield small_table(12)
    dates = pd.date_range("2024-01-01", periods=6)
    yield pd.DataFrame(
        {
            "s": ["x", None, "y", "x", "", "z"],
            "c": pd.Categorical(["u", "v", None, "u", "v", "u"]),
            "t": dates.tz_localize("UTC"),
            "d": dates - dates[0],
            "b": [True, False, None, True, False, True],
            "i": pd.array([1, None, 2**53 + 1, -1, 0, 5], dtype="Int64"),
            "l": [[1, 2], None, [], [3], [4], [5]],
            "y": np.arange(6) % 2,
        }
    )


JSON_ROWS = (
    '{"a": 1, "b": "x", "y": 0}\n{"a": 2.5, "b": null, "y": 1}\n{"b": "z", "y": 0}\n{"a": 4, "y": 1}\n',
    '{"l": [1, "x"], "o": {"p": 1, "q": {"r": 2}}, "y": "no"}\n{"l": [], "o": {"p": 2}, "y": "yes"}\n',
    '{"a": 1e300, "t": "2024-01-01", "y": true}\n{"a": -5e-324, "t": "12:30", "y": false}\n',
)


def _databases() -> Iterator[bytes]:
    path = scratch() / "seed.sqlite"
    for frame in (small_table(6), _frames_of_sqlite()):
        path.unlink(missing_ok=True)
        with contextlib.closing(sqlite3.connect(path)) as connection:
            frame.to_sql("t", connection, index=False)
        yield path.read_bytes()


def _frames_of_sqlite() -> pd.DataFrame:
    return pd.DataFrame(
        {"b": [b"\0x", None, b"y"], "i": [2**62, -1, 0], "s": ["x", "", None], "y": [0, 1, 0]}
    )


def _other_tables(name: str, number: int) -> Iterator[bytes]:
    """Files of a kind that is no text."""
    if name.endswith((".json", ".jsonl")):
        for rows in JSON_ROWS:
            whole = "[" + ",".join(rows.strip().split("\n")) + "]"
            yield (whole if name == "t.json" else rows).encode()
    elif name == "t.orc":
        buffer = io.BytesIO()
        small_table(12).to_orc(buffer)
        yield buffer.getvalue()
    elif name == "t.xlsx" and TABLES[number][1] is bytes:
        yield workbook()
    elif name == "t.xlsx":
        with zipfile.ZipFile(io.BytesIO(workbook())) as file:
            yield file.read(SHEET)
    else:
        yield from _databases()


def tables() -> Iterator[bytes]:
    """Yield inputs of the harness of tables."""
    for number, (name, _) in enumerate(TABLES):
        kind = bytes([number])
        if name.endswith((".json", ".jsonl", ".orc", ".xlsx", ".sqlite")):
            yield from (kind + data for data in _other_tables(name, number))
            continue
        if name.endswith((".parquet", ".feather")):
            for frame in _frames():
                for compression in ("uncompressed", "lz4"):
                    buffer = io.BytesIO()
                    if name.endswith(".parquet"):
                        frame.to_parquet(
                            buffer, compression=None if compression == "uncompressed" else "snappy"
                        )
                    else:
                        frame.to_feather(buffer, compression=compression)
                    yield kind + buffer.getvalue()
            continue
        pack = {"t.csv.gz": gzip.compress, "t.bz2": bz2.compress, "t.xz": lzma.compress}.get(name, bytes)
        for text in TEXTS:
            yield kind + pack(text.encode())
        yield kind + pack(TEXTS[0].encode("utf-16"))
        yield kind + pack(TEXTS[-1].encode("cp1250"))
    path = scratch() / "seed.zip"
    small_table(6).to_csv(path, index=False, compression={"method": "zip", "archive_name": "t.csv"})
    yield bytes([3]) + path.read_bytes()


def spaces() -> Iterator[bytes]:
    """Yield inputs of the harness of search spaces."""
    for preset in ("paper", "small", "default", "deep"):
        for number, name in enumerate(SPACES):
            if (preset, name) != ("deep", "s.toml"):  # TOML has no null
                SearchSpace.preset(preset).save(scratch() / name)
                yield bytes([number]) + (scratch() / name).read_bytes()
    for name, text in SPACE_TEXTS:
        yield bytes([SPACES.index(name)]) + text.encode()


def runs() -> Iterator[bytes]:
    """Yield inputs of the harness of run directories."""
    for number, name in enumerate(RUN_FILES):
        path = finished_run() / name
        yield bytes([number]) + (path.read_bytes() if path.is_file() else b'{"plan": {"rungs": [1.0, 3.0]}}')


SEEDS = {"tables": tables, "spaces": spaces, "runs": runs}
"""Functions that yield the first inputs of each harness."""
