"""Latency of predictions, measured on this machine with one thread."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from parallelmlp_search.data.encoding import TableEncoder
from parallelmlp_search.inference.encoding import FoldEncoder
from parallelmlp_search.inference.ensemble import MAX_WINDOW_ROWS, EnsembleFold, FoldGroup
from parallelmlp_search.inference.forward import network_outputs
from parallelmlp_search.inference.networks import TrainedNetwork, plain_networks
from parallelmlp_search.inference.threads import one_product_thread
from parallelmlp_search.packing import Architecture, Head

REPEATS = 3
"""Calls of which the fastest counts, after one that does not."""

MAX_REPEATS_SECONDS = 0.2
"""Seconds after which a slow call is not repeated."""


def seconds_of(function: Callable[[], object]) -> float:
    """Return the seconds of the fastest of a few calls with one thread.

    Parameters
    ----------
    function
        Function without parameters.

    Returns
    -------
    float
    """
    found = []
    with one_product_thread():
        began = time.perf_counter()
        for _ in range(1 + REPEATS):
            start = time.perf_counter()
            function()
            found.append(time.perf_counter() - start)
            if time.perf_counter() - began > MAX_REPEATS_SECONDS:
                break
    return min(found)


class EncodingSeconds(NamedTuple):
    """Seconds of making the inputs of networks from a table.

    Attributes
    ----------
    reading
        Reading the columns of the table, which all networks need.
    sections
        Writing each section of the inputs, of which a network may use some.
    """

    reading: float
    sections: tuple[float, ...]


def encoding_seconds(encoder: TableEncoder, table: Any, n_folds: int) -> EncodingSeconds:
    """Return the seconds of reading and encoding a table for some folds.

    Parameters
    ----------
    encoder
        Encoder of a fold; those of the others are expected to be like it.
    table
        Rows as the encoder takes them.
    n_folds
        Number of folds that encode on their own.

    Returns
    -------
    EncodingSeconds
    """
    folds = FoldEncoder([encoder] * n_folds)
    reading = seconds_of(lambda: folds.read(table))
    used = folds.read(table)
    window = used[: min(len(used), MAX_WINDOW_ROWS)]
    out = np.empty((len(window), n_folds, folds.width), dtype=np.float32)
    sections = [
        seconds_of(partial(section.write, window, out[:, :, place])) * len(used) / len(window)
        for section, place in folds.sections
    ]
    return EncodingSeconds(reading, tuple(sections))


def used_sections(architecture: Architecture, encoder: TableEncoder) -> list[bool]:
    """Return for each section of :class:`EncodingSeconds` whether a network uses it."""
    folds = FoldEncoder([encoder])
    used = np.zeros(folds.width, dtype=bool)
    ranges = architecture.columns or ((0, architecture.n_inputs),)
    for first, end in ranges:
        used[folds.places[0][first:end]] = True
    return [bool(used[place].any()) for _, place in folds.sections]


def network_seconds(architecture: Architecture, encoder: TableEncoder, head: Head, n_rows: int) -> float:
    """Return the seconds of one network for some rows that are encoded already.

    Parameters
    ----------
    architecture
        Architecture, whose parameters are drawn at random.
    encoder, head
        Encoder and outputs of a fold.
    n_rows
        Number of rows.

    Returns
    -------
    float
    """
    rng = np.random.default_rng(0)
    blocks = {
        (layer, kind): rng.normal(0.0, 0.1, (rows, columns)).astype(np.float32)
        for layer, kind, rows, columns in architecture.block_shapes()
    }
    fold = EnsembleFold(encoder, head, [(architecture, blocks)])
    group = FoldGroup([fold], np.ones(1))
    window = min(n_rows, group.window)
    networks = plain_networks([TrainedNetwork(architecture, blocks, group.encoder.places[0])])
    rows = rng.normal(size=(1, window, group.encoder.width)).astype(np.float32)
    return seconds_of(lambda: network_outputs(networks, rows)) * n_rows / window
