"""Fingerprint of tables."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from parallelmlp_search.data.coercion import as_codes
from parallelmlp_search.data.frames import as_frame


def fingerprint(*tables: Any) -> str:
    """Return the SHA-256, in hexadecimal, of the values, names, dtypes and order of the columns of tables.

    It does not depend on the machine, the version of pandas, the index, or the text dtype (object or string).

    Parameters
    ----------
    tables
        Tables that `as_frame` accepts, or None.
    """
    digest = hashlib.sha256()
    for table in tables:
        if table is None:
            _feed(digest, "none")
            continue
        frame = as_frame(table)
        _feed(digest, "table", str(len(frame)), str(frame.shape[1]))
        for position, name in enumerate(frame.columns):
            _add_column(digest, frame.iloc[:, position], str(name))
    return digest.hexdigest()


def _feed(digest: Any, *texts: str) -> None:
    for text in texts:
        content = text.encode("utf-8", errors="surrogatepass")
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)


def _feed_array(digest: Any, values: npt.NDArray[Any]) -> None:
    little = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    digest.update(little.view(np.uint8).reshape(-1) if little.size else b"")


def _add_column(digest: Any, column: pd.Series, name: str) -> None:
    dtype = column.dtype
    if isinstance(dtype, np.dtype) and dtype.kind in "biuf":
        _feed(digest, name, dtype.name)
        values = column.to_numpy()
        if dtype.kind == "f":  # give every NaN the same bits
            values = np.where(np.isnan(values), np.nan, values).astype(dtype)
        _feed_array(digest, values)
    elif isinstance(dtype, np.dtype) and dtype.kind in "mM":
        _feed(digest, name, dtype.name)
        _feed_array(digest, column.to_numpy().view(np.int64))
    else:
        text = pd.api.types.is_object_dtype(dtype) or isinstance(dtype, pd.StringDtype)
        codes, distinct = as_codes(column)
        _feed(digest, name, "text" if text else str(dtype).partition("(")[0], str(len(distinct)))
        for value in distinct:
            _feed(digest, "str" if isinstance(value, str) else type(value).__name__, str(value))
        _feed_array(digest, codes.astype(np.int64))
