"""Tables of JSON: one object per line, or an array of objects."""

from __future__ import annotations

import io
from typing import IO, Any

import pandas as pd

from parallelmlp_search.data.compression import decompressed
from parallelmlp_search.data.frames import unique_names
from parallelmlp_search.data.memory_share import MemoryShare
from parallelmlp_search.exceptions import DataError

CHUNK_LINES = 10_000
_PIECE_BYTES = 1 << 20
_PARSED_BYTES = {b"": 4, b"{": 280, b":": 70}
"""Memory of an array while it is parsed, per byte, object and value: in all 6 to 14 times the text."""

# types are those of JSON: a conversion would depend on the values of a chunk
_OPTIONS: dict[str, Any] = {"encoding": "utf-8-sig", "dtype": False}


def read_json_table(stream: IO[bytes], share: MemoryShare) -> pd.DataFrame:
    """Read a JSON table, plain or compressed. Values keep their types; lists and objects are kept.

    Raises
    ------
    DataError
        If the file has no rows, a row is no object, or it needs too much memory.
    """
    with decompressed(stream, share.label) as content:
        start = content.read(1 << 12).removeprefix(b"\xef\xbb\xbf").lstrip()
    chunks = _array(stream, share) if start.startswith(b"[") else _lines(stream, share)
    if not sum(chunk.size for chunk in chunks):
        raise DataError(f"{share.label!r} has no rows")
    frame: pd.DataFrame = pd.concat(chunks, ignore_index=True)
    frame.columns = pd.Index(unique_names([name.strip() for name in frame.columns], share.label))
    return frame


def _lines(stream: IO[bytes], share: MemoryShare) -> list[pd.DataFrame]:
    chunks: list[pd.DataFrame] = []
    n_bytes = 0
    options = _OPTIONS | {"lines": True, "chunksize": CHUNK_LINES}
    with decompressed(stream, share.label) as content, pd.read_json(content, **options) as reader:
        for chunk in reader:
            chunks.append(_checked(chunk, "line", share))
            n_bytes += int(chunk.memory_usage(deep=True).sum())
            share.require(2 * n_bytes)  # chunks are copied when they are joined
    return chunks


def _array(stream: IO[bytes], share: MemoryShare) -> list[pd.DataFrame]:
    text, n_bytes = io.BytesIO(), 0
    with decompressed(stream, share.label) as content:
        while piece := content.read(_PIECE_BYTES):
            text.write(piece)
            n_bytes += sum(size * piece.count(mark) for mark, size in _PARSED_BYTES.items())
            share.require(n_bytes)
    text.seek(0)
    try:
        frame = pd.read_json(text, orient="records", **_OPTIONS)
    except TypeError:  # pandas takes the first element for all
        raise DataError(f"{share.label!r} cannot be read: each element must be a JSON object") from None
    return [_checked(frame, "element", share)]


def _checked(chunk: pd.DataFrame, row: str, share: MemoryShare) -> pd.DataFrame:
    if not all(isinstance(name, str) for name in chunk.columns):
        raise DataError(f"{share.label!r} cannot be read: each {row} must be a JSON object")
    return chunk
