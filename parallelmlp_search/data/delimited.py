"""Delimited text tables: encodings, delimiters, decimal commas, headers."""

from __future__ import annotations

import codecs
import csv
import io
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, Literal

import pandas as pd

from parallelmlp_search.data.chunks import CHUNK_FIELDS, ColumnChunks
from parallelmlp_search.data.compression import decompressed
from parallelmlp_search.data.frames import unique_names
from parallelmlp_search.data.memory_share import MemoryShare
from parallelmlp_search.exceptions import DataError

MISSING_MARKERS = ("", "NA", "NaN", "nan", "null", "NULL", "N/A", "?")
"""Texts that are read as missing values. ``None``, ``-`` and ``n/a`` may be names of classes."""

_DELIMITERS = (",", ";", "\t", "|")
_SAMPLE_BYTES = 1 << 18
_SAMPLE_RECORDS = 200
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_OPTIONS: dict[str, Any] = {
    "header": 0,
    "index_col": False,
    "skipinitialspace": True,
    "keep_default_na": False,
    "na_values": list(MISSING_MARKERS),
    "low_memory": False,
}
_FIELD_BYTES = 24  # pandas keeps a pointer, a position and a value of each field while it parses


@dataclass(frozen=True)
class _Dialect:
    """Format of a text table, found from its first records."""

    delimiter: str
    decimal: str
    names: list[str]
    surplus: Literal["none", "front", "back"]  # one field more than the header has


def read_delimited(
    stream: IO[bytes], share: MemoryShare, delimiter: str | None, encoding: str | None
) -> pd.DataFrame:
    """Read a text table, plain or compressed.

    Parameters
    ----------
    stream
        File at any position; it must be seekable.
    share
        Name of the file in messages, and memory that reading it may take.
    delimiter, encoding
        As in :func:`~parallelmlp_search.data.read_table`.

    Returns
    -------
    pandas.DataFrame of shape (rows, columns)

    Raises
    ------
    DataError
        If the text is no table, or needs too much memory.
    """
    with decompressed(stream, share.label) as content:
        sample = content.read(_SAMPLE_BYTES)
    if not sample.strip():
        raise DataError(f"{share.label!r} is empty")
    marked = [name for mark, name in _BYTE_ORDER_MARKS.items() if sample.startswith(mark)]
    encodings = [encoding] if encoding is not None else marked or ["utf-8", "latin-1"]
    for name in encodings:
        try:
            return _parse(stream, name, _dialect_of(sample, name, delimiter, share.label), share)
        except UnicodeError as error:
            failure = error
    reason = str(failure).splitlines()[0]
    raise DataError(f"{share.label!r} cannot be read as {name!r} text: {reason}") from failure


class _Text(io.TextIOWrapper):
    """Text of a table, checked piece by piece as pandas reads it.

    Attributes
    ----------
    kept
        Memory of the chunks that are parsed already.
    """

    def __init__(self, stream: IO[bytes], encoding: str, delimiter: str, share: MemoryShare) -> None:
        super().__init__(stream, encoding=encoding, newline="")
        self._delimiter, self._share = delimiter, share
        self.kept = self._pending = 0

    def read(self, size: int | None = -1, /) -> str:
        text = super().read(size)
        _refuse_zero_bytes(text, self._share.label)
        n_fields = text.count(self._delimiter) + text.count("\n")
        self._pending += len(text) + _FIELD_BYTES * n_fields
        self._share.require(self.kept + self._pending)
        return text

    def keep(self, n_bytes: int) -> None:
        """Count the memory of all chunks so far instead of that of their text."""
        self.kept, self._pending = n_bytes, 0


def _refuse_zero_bytes(text: str, label: str) -> None:
    if "\x00" in text:
        raise DataError(f"{label!r} cannot be read: it holds zero bytes, so it is no text table")


def _parse(stream: IO[bytes], encoding: str, dialect: _Dialect, share: MemoryShare) -> pd.DataFrame:
    names = list(dialect.names)
    if dialect.surplus == "front":
        names.insert(0, "index")  # R writes no name for the column of row names
    elif dialect.surplus == "back":
        names.append("")
    names = [name if name else f"Unnamed: {position}" for position, name in enumerate(names)]
    names = unique_names(names, share.label)
    options = _OPTIONS | {"sep": dialect.delimiter, "decimal": dialect.decimal, "names": names}
    chunks = ColumnChunks(names)
    with _text(stream, encoding, dialect, share) as text:
        rows = max(1, CHUNK_FIELDS // len(names))
        for chunk in pd.read_csv(text, chunksize=rows, **options):
            chunks.add(chunk)
            text.keep(chunks.n_bytes)
    others = None
    if mixed := chunks.mixed():
        # the dtype of a column depends on all of its rows
        with _text(stream, encoding, dialect, share) as text:
            others = pd.read_csv(text, usecols=mixed, **options)
    frame = chunks.joined(others)
    if frame.empty:
        raise DataError(f"{share.label!r} has a header, but no rows")
    return frame.iloc[:, :-1] if dialect.surplus == "back" else frame


@contextmanager
def _text(stream: IO[bytes], encoding: str, dialect: _Dialect, share: MemoryShare) -> Iterator[_Text]:
    with decompressed(stream, share.label) as content, warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)  # else fields are lost
        text = _Text(content, encoding, dialect.delimiter, share)
        try:
            yield text
        finally:
            text.detach()  # else the stream is closed, and a second encoding could not be tried


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


def _dialect_of(sample: bytes, encoding: str, delimiter: str | None, label: str) -> _Dialect:
    whole = len(sample) < _SAMPLE_BYTES
    # an incremental decoder drops an incomplete character at the end of the sample
    text = codecs.getincrementaldecoder(encoding)().decode(sample, final=whole).lstrip("\ufeff")
    _refuse_zero_bytes(text, label)
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
