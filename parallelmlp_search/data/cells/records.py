"""Objects in cells: JSON objects and Python mappings, whose keys become columns."""

from __future__ import annotations

import ast
import json
from collections import Counter
from typing import Any

import pandas as pd

MAX_KEYS = 32
"""Most frequent keys that become columns."""

MIN_KEY_SHARE = 0.01
"""Minimum share of rows with a key that becomes a column."""

_MAX_DEPTH = 3


def parse_record(cell: Any) -> dict[str, Any] | None:
    """Return the object in a cell with its inner keys joined by dots; None if there is none."""
    if isinstance(cell, str):
        text = cell.strip()
        if not (text.startswith("{") and text.endswith("}")):
            return None
        try:
            cell = json.loads(text)
        except (ValueError, RecursionError):
            try:
                cell = ast.literal_eval(text)  # a dictionary as Python prints it
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                return None
    return _flat(cell, 1) if isinstance(cell, dict) else None


def _flat(record: dict[Any, Any], depth: int) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in record.items():
        if isinstance(value, dict) and depth < _MAX_DEPTH:
            flat |= {f"{key}.{inner}": one for inner, one in _flat(value, depth + 1).items()}
        else:
            flat[str(key)] = value
    return flat


def frequent_keys(records: list[dict[str, Any] | None]) -> tuple[str, ...]:
    """Return the keys that enough records have, in order of appearance."""
    counts = Counter(key for record in records if record for key in record)
    enough = [key for key, count in counts.items() if count >= MIN_KEY_SHARE * len(records)]
    kept = set(sorted(enough, key=lambda key: -counts[key])[:MAX_KEYS])
    return tuple(key for key in counts if key in kept)


def record_frame(records: list[dict[str, Any] | None], keys: tuple[str, ...], index: Any) -> pd.DataFrame:
    """Return a column for each key.

    Parameters
    ----------
    records
        Object of each row, or None.
    keys
        Keys that become columns.
    index
        Index of the rows.

    Returns
    -------
    pandas.DataFrame of shape (rows, keys)
    """
    columns = {key: [None if record is None else record.get(key) for record in records] for key in keys}
    frame = pd.DataFrame(
        {key: pd.Series(values, dtype=object, index=index) for key, values in columns.items()}, index=index
    )
    return frame.infer_objects()
