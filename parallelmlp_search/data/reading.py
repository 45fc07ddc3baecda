"""Reading of tables: delimited text (plain or compressed), Parquet, Feather and standard input."""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
import lzma
import os
import re
import sys
import warnings
import zipfile
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import pandas as pd

from parallelmlp_search.data.frames import unique_names
from parallelmlp_search.exceptions import DataError, InvalidParameterError, near_miss

MISSING_MARKERS = ("", "NA", "NaN", "nan", "null", "NULL", "N/A", "?")
"""Texts that are read as missing values. ``None``, ``-`` and ``n/a`` may be names of classes."""

_TEXT = {".csv": None, ".tsv": "\t", ".tab": "\t", ".txt": None, ".dat": None, ".data": None}
_PARQUET = {".parquet", ".pq"}
_FEATHER = {".feather", ".arrow", ".ipc"}
_COMPRESSED = {".gz", ".bz2", ".xz", ".zip"}
_DELIMITERS = (",", ";", "\t", "|")
_SAMPLE_BYTES = 1 << 18
_SAMPLE_RECORDS = 200
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    pd.errors.ParserWarning,
)

Compression = Literal["gzip", "bz2", "xz", "zip"] | None
_FIRST_BYTES: dict[bytes, Compression] = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bz2",
    b"\xfd7zXZ\x00": "xz",
    b"PK\x03\x04": "zip",
}
_OPENERS: dict[str, Any] = {"gzip": gzip.open, "bz2": bz2.open, "xz": lzma.open}


@dataclass(frozen=True)
class _Dialect:
    """Format of a text table, found from its first records."""

    delimiter: str
    decimal: str
    names: list[str]
    surplus: Literal["none", "front", "back"]  # one field more than the header has


def read_table(
    source: str | os.PathLike[str], *, delimiter: str | None = None, encoding: str | None = None
) -> pd.DataFrame:
    """Read a table with a header from a file or from standard input.

    Parameters
    ----------
    source
        Path of a ``.csv``, ``.tsv``, ``.txt``, ``.tab``, ``.dat`` or ``.data`` file, plain or as ``.gz``,
        ``.bz2``, ``.xz`` or ``.zip``; of a ``.parquet`` or ``.feather`` file; or ``"-"`` for delimited text
        on standard input.
    delimiter
        One character. By default comma, semicolon, tab or bar, found from the first records. With semicolons
        or tabs, numbers with a decimal comma are recognised.
    encoding
        By default that of a byte order mark, else UTF-8, else Latin-1.

    Returns
    -------
    pandas.DataFrame of shape (rows, columns)
        Column names are unique texts (repeated ones are numbered, with a `DataWarning`). The index counts the
        rows from 0. Only the texts in `MISSING_MARKERS` are missing values.

    Raises
    ------
    DataError
        If the file does not exist, has no rows or an unknown suffix, or cannot be read.
    InvalidParameterError
        If `delimiter` is not a single character or `encoding` is not known.
    """
    if delimiter is not None and len(delimiter) != 1:
        raise InvalidParameterError(f"delimiter must be a single character, but got {delimiter!r}")
    if encoding is not None:
        try:
            codecs.lookup(encoding)
        except LookupError:
            raise InvalidParameterError(
                f"encoding must be one that Python knows, but got {encoding!r}"
            ) from None
    is_stdin = os.fspath(source) == "-"
    label = "standard input" if is_stdin else str(Path(source))
    try:
        if is_stdin:
            content = getattr(sys.stdin, "buffer", sys.stdin).read()
            data = content.encode("utf-8") if isinstance(content, str) else content
            return _read_text(io.BytesIO(data), label, delimiter, encoding)
        return _read_file(Path(source), delimiter, encoding)
    except DataError:
        raise
    except (*_UNREADABLE, csv.Error) as error:
        raise DataError(f"{label!r} cannot be read: {_first_line(error)}") from error


def _read_file(path: Path, delimiter: str | None, encoding: str | None) -> pd.DataFrame:
    label = str(path)
    if path.is_dir():
        raise DataError(f"source must be a file, but {label!r} is a folder")
    if not path.exists():
        siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(f"no file {label!r}{near_miss(path.name, siblings)}")
    if path.stat().st_size == 0:
        raise DataError(f"{label!r} is empty")
    suffixes = [suffix.lower() for suffix in path.suffixes]
    compressed = bool(suffixes) and suffixes[-1] in _COMPRESSED
    inner = suffixes[:-1] if compressed else suffixes
    suffix = inner[-1] if inner else ""
    if suffix in _TEXT or compressed:  # a compressed file without a known suffix is text
        with path.open("rb") as stream:
            return _read_text(stream, label, delimiter or _TEXT.get(suffix), encoding)
    if suffix in _PARQUET:
        frame = _plain_columns(pd.read_parquet(path), label)
    elif suffix in _FEATHER:
        frame = _plain_columns(pd.read_feather(path), label)
    else:
        known = [*_TEXT, *sorted(_COMPRESSED), *sorted(_PARQUET), *sorted(_FEATHER)]
        found = f"the unknown suffix {suffix!r}{near_miss(suffix, known)}" if suffix else "no suffix"
        raise DataError(f"{label!r} has {found}; a table must end in one of {', '.join(known)}")
    if frame.empty:
        raise DataError(f"{label!r} has no rows")
    return frame


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _plain_columns(frame: pd.DataFrame, label: str) -> pd.DataFrame:
    """Turn a named index into columns, drop an unnamed one, and make the names unique texts."""
    named = [name for name in frame.index.names if name is not None]
    frame = frame.reset_index(level=named).reset_index(drop=True) if named else frame.reset_index(drop=True)
    frame.columns = pd.Index(unique_names([str(name) for name in frame.columns], label))
    return frame


def _read_text(stream: IO[bytes], label: str, delimiter: str | None, encoding: str | None) -> pd.DataFrame:
    compression = _compression(stream)
    sample = _sample(stream, compression)
    if not sample.strip():
        raise DataError(f"{label!r} is empty")
    marked = [name for mark, name in _BYTE_ORDER_MARKS.items() if sample.startswith(mark)]
    encodings = [encoding] if encoding is not None else marked or ["utf-8", "latin-1"]
    for name in encodings:
        stream.seek(0)
        try:
            return _parse(stream, label, sample, delimiter, name, compression)
        except UnicodeError as error:
            failure = error
    raise DataError(f"{label!r} cannot be read as {name!r} text: {_first_line(failure)}") from failure


def _compression(stream: IO[bytes]) -> Compression:
    """Detect compression by the first bytes, not by the name."""
    start = stream.read(6)
    stream.seek(0)
    return next((name for first, name in _FIRST_BYTES.items() if start.startswith(first)), None)


def _sample(stream: IO[bytes], compression: Compression) -> bytes:
    stream.seek(0)
    if compression == "zip":
        with zipfile.ZipFile(stream) as archive:
            members = [entry for entry in archive.namelist() if not entry.endswith("/")]
            if len(members) != 1:
                raise DataError(f"a zip file must hold exactly one table, but holds {len(members)} files")
            with archive.open(members[0]) as member:
                return member.read(_SAMPLE_BYTES)
    if compression is not None:
        stream = _OPENERS[compression](stream)
    return stream.read(_SAMPLE_BYTES)


def _parse(
    stream: IO[bytes],
    label: str,
    sample: bytes,
    delimiter: str | None,
    encoding: str,
    compression: Compression,
) -> pd.DataFrame:
    whole = len(sample) < _SAMPLE_BYTES
    # an incremental decoder drops an incomplete character at the end of the sample
    text = codecs.getincrementaldecoder(encoding)().decode(sample, final=whole).lstrip("\ufeff")
    if "\x00" in text:
        raise DataError(f"{label!r} cannot be read: it holds zero bytes, so it is no text table")
    dialect = _dialect(text, whole, delimiter, label)
    names = list(dialect.names)
    if dialect.surplus == "front":
        names.insert(0, "index")  # R writes no name for the column of row names
    elif dialect.surplus == "back":
        names.append("")
    names = [name if name else f"Unnamed: {position}" for position, name in enumerate(names)]
    names = unique_names(names, label)
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)  # else fields are lost
        frame = pd.read_csv(
            stream,
            sep=dialect.delimiter,
            decimal=dialect.decimal,
            header=0,
            names=names,
            index_col=False,
            skipinitialspace=True,
            keep_default_na=False,
            na_values=list(MISSING_MARKERS),
            low_memory=False,
            encoding=encoding,
            compression=compression,
        )
    if frame.empty:
        raise DataError(f"{label!r} has a header, but no rows")
    return frame.iloc[:, :-1] if dialect.surplus == "back" else frame


def _records(text: str, delimiter: str, whole: bool) -> list[list[str]]:
    """First records of the sample, without the last one if the sample does not hold the whole table."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    records: list[list[str]] = []
    try:
        for record in reader:
            if record:
                records.append(record)
            if len(records) > _SAMPLE_RECORDS:
                break
        else:
            if not whole and len(records) > 1:
                records.pop()
    except csv.Error:
        pass  # a field is too long for the csv module; the records before it suffice
    return records


def _dialect(text: str, whole: bool, delimiter: str | None, label: str) -> _Dialect:
    if delimiter is None:
        delimiter = _sniff(text, whole)
    records = _records(text, delimiter, whole)
    if not records:
        raise DataError(f"{label!r} cannot be read: its first record is not delimited text")
    names = [name.strip() for name in records[0]]
    wider = [record for record in records[1:] if len(record) > len(names)]
    surplus: Literal["none", "front", "back"] = "none"
    if wider:
        row = next(number for number, record in enumerate(records[1:], 1) if len(record) > len(names))
        if len(wider) < len(records) - 1 or any(len(record) != len(names) + 1 for record in wider):
            raise DataError(
                f"{label!r} cannot be read: row {row} has {len(records[row])} fields, "
                f"but the header has {len(names)}"
            )
        surplus = "back" if all(record[-1] == "" for record in wider) else "front"
    fields = [field for record in records[1:] for field in record]
    comma = delimiter in ";\t" and any(re.fullmatch(r"[+-]?\d+,\d+", field) for field in fields)
    point = comma and any(re.fullmatch(r"[+-]?\d+\.\d+", field) for field in fields)
    return _Dialect(delimiter, "," if comma and not point else ".", names, surplus)


def _sniff(text: str, whole: bool) -> str:
    """Find the delimiter with which most records have as many fields as the header, and at least two.

    Delimiters inside quoted fields do not count. In case of a tie the one with more columns is taken. Without
    any of the delimiters the table is a single column.
    """
    best, best_score = ",", (0.0, 1)
    for delimiter in _DELIMITERS:
        records = _records(text, delimiter, whole)
        if not records or len(records[0]) < 2:
            continue
        widths = Counter(len(record) for record in records[1:])
        fitting = max(widths[len(records[0])], widths[len(records[0]) + 1])
        share = fitting / (len(records) - 1) if len(records) > 1 else 1.0
        score = (round(share, 1), len(records[0]))
        if share >= 0.5 and score > best_score:
            best, best_score = delimiter, score
    return best
