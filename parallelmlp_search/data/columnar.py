"""Columnar tables: Parquet, ORC and Feather (Arrow IPC)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
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
        If it is damaged or needs too much memory.
    """
    with _damage(share.label):
        with parquet.ParquetFile(path) as file:
            # a run of equal values takes some bytes of the file, whatever its length
            share.require(_VALUE_BYTES * file.metadata.num_rows * file.metadata.num_columns)
            table = file.read()
        return checked_frame(table, share)


def read_orc(path: Path, share: MemoryShare) -> pd.DataFrame:
    """Read an ORC file.

    Raises
    ------
    DataError
        If it is damaged or needs too much memory.
    """
    from pyarrow import orc

    with _damage(share.label):
        file = orc.ORCFile(path)
        share.require(_VALUE_BYTES * file.nrows * len(file.schema))
        return checked_frame(file.read(), share)


def read_feather(path: Path, share: MemoryShare) -> pd.DataFrame:
    """Read a Feather file.

    Raises
    ------
    DataError
        If it is damaged or needs too much memory.
    """
    with _damage(share.label):
        return checked_frame(_arrow_table(path, share), share)


@contextmanager
def _damage(label: str) -> Iterator[None]:
    """Replace errors of Arrow and pandas, which meet damaged files with errors of all kinds."""
    try:
        yield
    except (DataError, MemoryError, OSError):
        raise
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(f"{label!r} cannot be read: it is damaged ({reason})") from error


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


def checked_frame(table: pa.Table, share: MemoryShare) -> pd.DataFrame:
    """Return a table of Arrow as a frame: a named index becomes columns, names become unique texts.

    Raises
    ------
    DataError
        If it has no rows or needs too much memory.
    """
    # Arrow trusts a file: it would read outside of its memory where positions of texts are wrong
    table.validate(full=True)
    share.require(table.nbytes)
    frame: pd.DataFrame = table.to_pandas()
    named = [name for name in frame.index.names if name is not None]
    frame = frame.reset_index(level=named).reset_index(drop=True) if named else frame.reset_index(drop=True)
    frame.columns = pd.Index(unique_names([str(name) for name in frame.columns], share.label))
    if frame.empty:
        raise DataError(f"{share.label!r} has no rows")
    return frame
