"""Tables of JSON lines: one object per line."""

from __future__ import annotations

from typing import IO, Any

import pandas as pd

from parallelmlp_search.data.compression import decompressed
from parallelmlp_search.data.frames import unique_names
from parallelmlp_search.data.memory_share import MemoryShare
from parallelmlp_search.exceptions import DataError

CHUNK_LINES = 10_000


def read_json_lines(stream: IO[bytes], share: MemoryShare) -> pd.DataFrame:
    """Read a table of JSON lines, plain or compressed. Values keep their types; lists and objects are kept.

    Raises
    ------
    DataError
        If the file has no rows, a line is no object, or it needs too much memory.
    """
    chunks: list[pd.DataFrame] = []
    n_bytes = 0
    options: dict[str, Any] = {"encoding": "utf-8", "lines": True, "dtype": False, "chunksize": CHUNK_LINES}
    # types are those of JSON: a conversion would depend on the values of a chunk
    with decompressed(stream, share.label) as content, pd.read_json(content, **options) as reader:
        for chunk in reader:
            if not all(isinstance(name, str) for name in chunk.columns):
                raise DataError(f"{share.label!r} cannot be read: each line must be a JSON object")
            chunks.append(chunk)
            n_bytes += int(chunk.memory_usage(deep=True).sum())
            share.require(2 * n_bytes)  # chunks are copied when they are joined
    if not sum(map(len, chunks)):
        raise DataError(f"{share.label!r} has no rows")
    frame: pd.DataFrame = pd.concat(chunks, ignore_index=True)
    frame.columns = pd.Index(unique_names([name.strip() for name in frame.columns], share.label))
    return frame
