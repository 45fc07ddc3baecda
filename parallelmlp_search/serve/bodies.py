"""Bodies of requests: rows as JSON or CSV, with limits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from starlette.requests import Request

from parallelmlp_search._memory import available_bytes
from parallelmlp_search.data.reading import read_text
from parallelmlp_search.exceptions import DataError, near_miss, one_line
from parallelmlp_search.serve.errors import RequestError

JSON, CSV = "application/json", "text/csv"
FORM = "application/x-www-form-urlencoded"  # of `curl --data` unless told otherwise

LABEL = "body"
"""Name of a body in messages."""

_MAX_GROWTH = 64
"""Memory that reading a CSV body may take, in bytes per byte of the limit of bodies."""


@dataclass(frozen=True)
class Limits:
    """Limits of a request.

    Attributes
    ----------
    max_bytes, max_rows
        Most bytes of its body, and most rows.
    """

    max_bytes: int
    max_rows: int

    def check_rows(self, n_rows: int) -> None:
        """Check the number of rows of a request.

        Raises
        ------
        RequestError
            If there are none, or too many.
        """
        if not n_rows:
            raise RequestError("rows", "the body has no rows: send at least one")
        if n_rows > self.max_rows:
            raise RequestError(
                "row_count",
                f"a request may have {self.max_rows:,} rows, but this one has {n_rows:,}: "
                "send them in several requests, or raise --max-rows",
            )


async def read_body(request: Request, limits: Limits) -> bytes:
    """Return the body of a request.

    Raises
    ------
    RequestError
        If it is too large, or compressed.
    """
    headers = request.headers
    if (coding := headers.get("content-encoding", "identity").lower()) != "identity":
        raise RequestError("content_type", f"the body must not be compressed, but is {coding[:20]!r}")
    declared = headers.get("content-length", "")
    if declared.isdecimal() and len(declared) < 20:
        _check_bytes(int(declared), limits)
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        _check_bytes(size, limits)
        parts.append(part)
    return b"".join(parts)


def _check_bytes(size: int, limits: Limits) -> None:
    if size > limits.max_bytes:
        raise RequestError(
            "body_size",
            f"a body may have {limits.max_bytes:,} bytes, but this one has {size:,} or more: "
            "send its rows in several requests, or raise --max-body",
        )


def content_type(request: Request) -> str:
    """Return the type of the body, JSON if it is not given.

    Raises
    ------
    RequestError
        If it is neither JSON nor CSV.
    """
    given = request.headers.get("content-type")
    kind = JSON if given is None else given.partition(";")[0].strip().lower()
    if kind in (JSON, CSV):
        return kind
    if kind == FORM or (kind.startswith("application/") and kind.endswith("+json")):
        return JSON
    raise RequestError("content_type", f"the body must be {JSON} or {CSV}, but is {kind[:60]!r}")


def answer_type(request: Request) -> str:
    """Return the type of the answer, JSON or CSV, that the client prefers.

    Raises
    ------
    RequestError
        If it accepts neither.
    """
    accept = request.headers.get("accept", "*/*")
    if accept in ("*/*", JSON):
        return JSON
    ranges = [one.split(";") for one in accept.lower().split(",")]
    quality = {kind.strip(): _quality(parameters) for kind, *parameters in ranges}
    best = {
        kind: next((quality[one] for one in (kind, f"{kind.split('/')[0]}/*", "*/*") if one in quality), 0.0)
        for kind in (JSON, CSV)
    }
    kind = max(best, key=best.__getitem__)
    if not best[kind]:
        raise RequestError("accept", f"answers are {JSON} or {CSV}, but the client accepts {accept[:60]!r}")
    return kind


def _quality(parameters: Sequence[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0


def json_rows(body: bytes) -> list[dict[str, Any]]:
    """Return the rows of a JSON body: an object, or an array of objects.

    Raises
    ------
    RequestError
        If it is no JSON, or holds anything else.
    """
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestError("malformed", f"the body is not JSON: {one_line(error)}") from None
    rows = content if isinstance(content, list) else [content]
    for number, row in enumerate(rows):
        if type(row) is not dict:
            what = f"element {number + 1} of the array" if rows is content else "the body"
            raise RequestError(
                "rows", f"{what} must be a JSON object with a value for each column, but is {_kind(row)}"
            )
    return rows


def _kind(value: Any) -> str:
    names = {list: "an array", str: "a text", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def check_columns(rows: Sequence[dict[str, Any]], needed: Sequence[str]) -> Sequence[dict[str, Any]]:
    """Return rows of which each needed column is in at least one; blanks around names do not count.

    Raises
    ------
    RequestError
        If a column is missing.
    """
    missing = _missing(rows, needed)
    if missing:
        rows = [{name.strip(): cell for name, cell in row.items()} for row in rows]
        missing = _missing(rows, needed)
    if missing:
        others = {name for row in rows for name in row}.difference(needed)
        rest = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        hint = near_miss(missing[0], sorted(others)) or ": write null for a value that is not known"
        raise RequestError("rows", f"no column {missing[0]!r}{rest} in the rows{hint}")
    return rows


def _missing(rows: Sequence[dict[str, Any]], needed: Sequence[str]) -> list[str]:
    absent = [name for name in needed if name not in rows[0]]
    return [name for name in absent if not any(name in row for row in rows)]


def csv_frame(body: bytes, limits: Limits) -> pd.DataFrame:
    """Return the table of a CSV body, read like a file.

    Raises
    ------
    RequestError
        If it is no table.
    """
    available, most = available_bytes(), _MAX_GROWTH * limits.max_bytes
    try:
        return read_text(body, LABEL, most if available is None else min(available, most))
    except DataError as error:
        raise RequestError("malformed", one_line(error)) from None
