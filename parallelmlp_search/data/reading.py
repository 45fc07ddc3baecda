"""Reading of tables: files of all formats, standard input, and queries of databases."""

from __future__ import annotations

import csv
import errno
import glob
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pyarrow as pa

from parallelmlp_search._memory import available_bytes, resident_bytes
from parallelmlp_search.data import compression
from parallelmlp_search.data.columnar import read_feather, read_orc, read_parquet
from parallelmlp_search.data.databases import is_query, read_query
from parallelmlp_search.data.delimited import read_delimited
from parallelmlp_search.data.json_tables import read_json_table
from parallelmlp_search.data.memory_share import MemoryShare
from parallelmlp_search.data.workbooks import SUFFIXES as _WORKBOOKS
from parallelmlp_search.data.workbooks import read_workbook
from parallelmlp_search.exceptions import DataError, InvalidParameterError, near_miss, one_line

_TEXT = {".csv": None, ".tsv": "\t", ".tab": "\t", ".txt": None, ".dat": None, ".data": None}
_JSON = (".json", ".jsonl", ".ndjson")
_COLUMNAR = {".parquet": read_parquet, ".pq": read_parquet, ".orc": read_orc} | dict.fromkeys(
    (".feather", ".arrow", ".ipc"), read_feather
)
_UNREADABLE = (
    *compression.DAMAGED,
    OSError,
    ValueError,
    csv.Error,
    pa.ArrowException,
    pd.errors.ParserWarning,
)
_PIECE_BYTES = 1 << 20


def read_table(
    source: str | os.PathLike[str],
    *,
    delimiter: str | None = None,
    encoding: str | None = None,
    memory_limit: int | None = None,
    sheet: str | None = None,
    database: str | None = None,
) -> pd.DataFrame:
    """Read a table with a header from a file, from standard input, or from a database.

    Parameters
    ----------
    source
        Path of a ``.csv``, ``.tsv``, ``.txt``, ``.tab``, ``.dat`` or ``.data`` file, plain or as ``.gz``,
        ``.bz2``, ``.xz`` or ``.zip``; of a ``.json``, ``.jsonl`` or ``.ndjson`` file of JSON objects, plain
        or compressed; of a ``.parquet``, ``.orc`` or ``.feather`` file; of an Excel or OpenDocument workbook
        (``.xlsx``, ``.xls``, ``.xlsb``, ``.ods``, extra ``excel``); a pattern such as ``"part-*.csv"`` for
        several files of the same columns, which are joined in the order of their names; ``"-"`` for
        delimited text on standard input; or a query such as ``"SELECT * FROM 'sales/*.parquet'"``.
    delimiter
        One character. By default comma, semicolon, tab or bar, found from the first records. With semicolons
        or tabs, numbers with a decimal comma are recognised.
    encoding
        By default that of a byte order mark, else UTF-8, else Latin-1.
    memory_limit
        Most bytes of the memory of this process, or None. Reading may take half of what is left.
    sheet
        Sheet of a workbook; needed if several have rows.
    database
        File of an SQLite or DuckDB database, of which `source` is a query or a table. It is opened for
        reading only. Without one, DuckDB runs queries.

    Returns
    -------
    pandas.DataFrame of shape (rows, columns)
        Column names are unique texts (repeated ones are numbered, with a `DataWarning`). The index counts the
        rows from 0. Only the texts in `MISSING_MARKERS` are missing values.

    Raises
    ------
    DataError
        If the file does not exist, has no rows or an unknown suffix, is damaged, or needs more than half of
        the available memory to be read.
    InvalidParameterError
        If `delimiter` is not a single character, `encoding` is not known, or `sheet` is given for a file
        without sheets.
    """
    if delimiter is not None and len(delimiter) != 1:
        raise InvalidParameterError(f"delimiter must be a single character, but got {delimiter!r}")
    if encoding is not None:
        try:
            io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        except LookupError:
            raise InvalidParameterError(
                f"encoding must be one that Python knows, but got {encoding!r}"
            ) from None
    is_stdin = os.fspath(source) == "-"
    queried = database is not None or is_query(source)
    name = "standard input" if is_stdin else database or (one_line(source) if queried else str(Path(source)))
    share = MemoryShare(name, _available(memory_limit))
    if sheet is not None and (is_stdin or queried or Path(source).suffix.lower() not in _WORKBOOKS):
        raise InvalidParameterError(f"sheet is for workbooks, but got {sheet!r} for {share.label!r}")
    with _naming(share):
        if queried:
            return read_query(os.fspath(source), database, share)
        if is_stdin:
            return read_delimited(_standard_input(share), share, delimiter, encoding)
        paths = _matching(Path(source))
        frames = [_read_file(path, share, delimiter, encoding, sheet) for path in paths]
        return _joined(frames, paths, share)


def read_text(content: bytes, label: str, available: int | None) -> pd.DataFrame:
    """Read a delimited text table from memory, as `read_table` reads one from a file.

    Parameters
    ----------
    content, label
        The text, and its name in messages.
    available
        Memory in bytes of which reading may take half, or None.

    Returns
    -------
    pandas.DataFrame of shape (rows, columns)

    Raises
    ------
    DataError
        If the text is no table, has no rows, or needs too much memory.
    """
    share = MemoryShare(label, available)
    with _naming(share):
        return read_delimited(io.BytesIO(content), share, None, None)


@contextmanager
def _naming(share: MemoryShare) -> Iterator[None]:
    """Raise errors of readers as a `DataError` with the name of the table."""
    try:
        yield
    except DataError:
        raise
    except MemoryError as error:
        raise DataError(f"{share.label!r} cannot be read: the memory does not suffice") from error
    except _UNREADABLE as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(f"{share.label!r} cannot be read: {reason}") from error


def _available(memory_limit: int | None) -> int | None:
    available, used = available_bytes(), resident_bytes()
    if memory_limit is None or used is None:
        return available
    return max(0, memory_limit - used if available is None else min(available, memory_limit - used))


def _standard_input(share: MemoryShare) -> io.BytesIO:
    stream, content = getattr(sys.stdin, "buffer", sys.stdin), io.BytesIO()
    while piece := stream.read(_PIECE_BYTES):
        content.write(piece.encode("utf-8") if isinstance(piece, str) else piece)
        share.require(content.tell())
    return content


def _read_file(
    path: Path, share: MemoryShare, delimiter: str | None, encoding: str | None, sheet: str | None
) -> pd.DataFrame:
    _check_file(path)
    suffixes = [suffix.lower() for suffix in path.suffixes]
    compressed = bool(suffixes) and suffixes[-1] in compression.SUFFIXES
    inner = suffixes[:-1] if compressed else suffixes
    suffix = inner[-1] if inner else ""
    if suffix in _JSON:
        with path.open("rb") as stream:
            return read_json_table(stream, share)
    if suffix in _TEXT or compressed:  # a compressed file without a known suffix is text
        with path.open("rb") as stream:
            return read_delimited(stream, share, delimiter or _TEXT.get(suffix), encoding)
    if suffix in _COLUMNAR:
        return _COLUMNAR[suffix](path, share)
    if suffix in _WORKBOOKS:
        return read_workbook(path, share, sheet)
    known = [*_TEXT, *_JSON, *sorted(compression.SUFFIXES), *_COLUMNAR, *_WORKBOOKS]
    found = f"the unknown suffix {suffix!r}{near_miss(suffix, known)}" if suffix else "no suffix"
    raise DataError(f"{str(path)!r} has {found}; a table must end in one of {', '.join(known)}")


def _matching(source: Path) -> list[Path]:
    """Files that match a pattern, in the order of their names; a path without a pattern is returned alone."""
    if source.exists() or not glob.has_magic(str(source)):
        return [source]
    paths = [Path(path) for path in sorted(glob.glob(str(source)))]
    if not paths:
        raise DataError(f"no file matches {str(source)!r}")
    return paths


def _joined(frames: list[pd.DataFrame], paths: list[Path], share: MemoryShare) -> pd.DataFrame:
    """Join the tables of several files, which must have the same columns."""
    if len(frames) == 1:
        return frames[0]
    first = list(frames[0].columns)
    for frame, path in zip(frames, paths, strict=True):
        if odd := set(first) ^ set(frame.columns):
            name = min(odd)
            has, lacks = (path, paths[0]) if name in frame.columns else (paths[0], path)
            raise DataError(f"{str(lacks)!r} has no column {name!r}, but {str(has)!r} has one")
    share.require(2 * sum(int(frame.memory_usage(deep=True).sum()) for frame in frames))
    return pd.concat([frame[first] for frame in frames], ignore_index=True)


def _check_file(path: Path) -> None:
    label = str(path)
    if path.is_dir():
        raise DataError(f"source must be a file, but {label!r} is a folder")
    if path.is_symlink() and not path.exists():
        raise DataError(f"{label!r} is a symbolic link {_end_of_link(path)}")
    if not path.exists():
        siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(f"no file {label!r}{near_miss(path.name, siblings)}")
    if path.stat().st_size == 0:
        raise DataError(f"{label!r} is empty")


def _end_of_link(path: Path) -> str:
    try:
        path.stat()
    except OSError as error:
        if error.errno == errno.ELOOP:
            return "that leads back to itself"
    return f"to {os.readlink(path)!r}, which does not exist"
