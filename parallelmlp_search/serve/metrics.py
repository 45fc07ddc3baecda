"""Counters and histograms of a server in the text format of Prometheus, summed over its workers.

A worker keeps its numbers in a file that is mapped into memory. Any worker can thus answer for all of them,
and the numbers of a worker that has ended are not lost.
"""

from __future__ import annotations

import math
import mmap
import os
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

from parallelmlp_search.serve.errors import KINDS, STATUSES

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"

COUNTERS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "pmlp_requests_total": (
        "Requests to /predict by status of the answer.",
        "status",
        ("200", *sorted({str(status) for status in STATUSES.values()})),
    ),
    "pmlp_errors_total": ("Requests to /predict that were not answered, by kind.", "kind", KINDS),
    "pmlp_rows_total": ("Rows that were predicted.", "", ("",)),
    "pmlp_warnings_total": ("Requests with cells that could not be read, or another warning.", "", ("",)),
}
"""Help, label and values of the label of each counter."""

HISTOGRAMS: dict[str, tuple[str, tuple[float, ...]]] = {
    "pmlp_request_seconds": (
        "Time from the headers of a request to /predict to its answer.",
        (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, math.inf),
    ),
    "pmlp_batch_rows": (
        "Rows that were predicted together, of one or more requests.",
        (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024, 4096, math.inf),
    ),
}
"""Help, and upper limits of the buckets, of each histogram."""


def _keys() -> Iterator[tuple[str, str | float]]:
    for name, (_, _, values) in COUNTERS.items():
        yield from ((name, value) for value in values)
    for name, (_, limits) in HISTOGRAMS.items():
        yield from ((name, limit) for limit in limits)
        yield name, "sum"


PLACES = {key: place for place, key in enumerate(_keys())}
"""Place of each number in a file."""


class Metrics:
    """Numbers of this process, and the sum over those of all processes that share a folder.

    Parameters
    ----------
    folder
        Folder of the files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        size = 8 * len(PLACES)
        with (folder / f"{os.getpid()}.counters").open("w+b") as file:
            file.truncate(size)
            self._numbers = memoryview(mmap.mmap(file.fileno(), size)).cast("d")

    def count(self, name: str, label: str = "", amount: float = 1.0) -> None:
        """Add to a counter.

        Parameters
        ----------
        name, label
            Counter, and the value of its label.
        amount
            What is added.
        """
        self._numbers[PLACES[name, label]] += amount

    def observe(self, name: str, value: float) -> None:
        """Add a value to a histogram."""
        limits = HISTOGRAMS[name][1]
        self._numbers[PLACES[name, limits[bisect_left(limits, value)]]] += 1.0
        self._numbers[PLACES[name, "sum"]] += value

    def text(self) -> str:
        """Return the numbers of all processes in the text format of Prometheus."""
        total = [0.0] * len(PLACES)
        for path in self._folder.glob("*.counters"):
            content = path.read_bytes()
            if len(content) == 8 * len(total):  # else its worker has just made it
                total = [one + other for one, other in zip(total, array("d", content), strict=True)]
        return "\n".join([*_lines(total), ""])


def _lines(total: list[float]) -> Iterator[str]:
    for name, (text, label, values) in COUNTERS.items():
        yield f"# HELP {name} {text}"
        yield f"# TYPE {name} counter"
        for value in values:
            labels = f'{{{label}="{value}"}}' if label else ""
            yield f"{name}{labels} {_number(total[PLACES[name, value]])}"
    for name, (text, limits) in HISTOGRAMS.items():
        yield f"# HELP {name} {text}"
        yield f"# TYPE {name} histogram"
        counts = list(accumulate(total[PLACES[name, limit]] for limit in limits))
        for limit, count in zip(limits, counts, strict=True):
            shown = "+Inf" if limit == math.inf else _number(limit)
            yield f'{name}_bucket{{le="{shown}"}} {_number(count)}'
        yield f"{name}_sum {_number(total[PLACES[name, 'sum']])}"
        yield f"{name}_count {_number(counts[-1])}"


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(value)
