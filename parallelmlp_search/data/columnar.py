"""Columnar tables: Parquet and Feather (Arrow IPC)."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
from pyarrow import feather, parquet

from parallelmlp_search.data.frames import unique_names
from parallelmlp_search.data.memory_share import MemoryShare
from parallelmlp_search.exceptions import DataError

_VALUE_BYTES = 8
_FILE_MAGIC = b"ARROW1"


def read_parquet(path: Path, share: MemoryShare) -> pd.DataFrame:
    """Read a Parquet file.

    Raises
    ------
    DataError
        If it needs too much memory.
    """
    with parquet.ParquetFile(path) as file:
        n_values = file.metadata.num_rows * file.metadata.num_columns
    # a run of equal values takes some bytes of the file, whatever its length
    share.require(_VALUE_BYTES * n_values)
    return _plain_columns(pd.read_parquet(path), share.label)


def read_feather(path: Path, share: MemoryShare) -> pd.DataFrame:
    """Read a Feather file.

    Raises
    ------
    DataError
        If it is damaged or needs too much memory.
    """
    table = _arrow_table(path, share)
    try:
        # Arrow trusts the positions of texts in a file and reads outside of its memory if they are wrong
        table.validate(full=True)
    except pa.ArrowInvalid as error:
        raise DataError(f"{share.label!r} cannot be read: it is damaged ({_first_line(error)})") from error
    return _plain_columns(table.to_pandas(), share.label)


def _arrow_table(path: Path, share: MemoryShare) -> pa.Table:
    with path.open("rb") as stream:
        if stream.read(len(_FILE_MAGIC)) != _FILE_MAGIC:
            return feather.read_table(path, memory_map=False)  # version 1, which has no compression
    batches, n_bytes = [], 0
    # threads that read ahead can outlive an error, and abort the process when it ends
    with pa.ipc.open_file(path, options=pa.ipc.IpcReadOptions(use_threads=False)) as file:
        for number in range(file.num_record_batches):
            batches.append(file.get_batch(number))
            n_bytes += batches[-1].nbytes
            share.require(n_bytes)
        return pa.Table.from_batches(batches, schema=file.schema)


def _plain_columns(frame: pd.DataFrame, label: str) -> pd.DataFrame:
    """Turn a named index into columns, drop an unnamed one, and make the names unique texts."""
    named = [name for name in frame.index.names if name is not None]
    frame = frame.reset_index(level=named).reset_index(drop=True) if named else frame.reset_index(drop=True)
    frame.columns = pd.Index(unique_names([str(name) for name in frame.columns], label))
    if frame.empty:
        raise DataError(f"{label!r} has no rows")
    return frame


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
