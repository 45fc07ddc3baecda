"""Result of a search from the files of its run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parallelmlp_search._reading import load_arrays, reading
from parallelmlp_search.inference import TrainedModel
from parallelmlp_search.runs import load_model
from parallelmlp_search.search import RunDirectory, SearchResult
from parallelmlp_search.search.finalists.baselines import Baseline
from parallelmlp_search.search.run.leaderboard_view import best_config
from parallelmlp_search.search.run.trial import config_of_row
from parallelmlp_search.selection import Entry, HonestScore, Leaderboard


def read_result(directory: RunDirectory, model: TrainedModel | None = None) -> SearchResult:
    """Return the result of a finished run.

    Parameters
    ----------
    directory
        The run.
    model
        Its model, if it is loaded already.

    Returns
    -------
    SearchResult

    Raises
    ------
    RunDirectoryError
        If the run is not finished, or a file is missing or damaged.
    """
    result, board, info = directory.result(), directory.leaderboard(), directory.info()
    values = {field.name: result[field.name] for field in fields(SearchResult) if field.name in result}
    leaderboard = Leaderboard(_entry(row) for row in board.to_dict("records"))
    with reading(directory.path / "result.json"):
        return SearchResult(
            **values
            | {
                "leaderboard": leaderboard,
                "model": load_model(directory) if model is None else model,
                "honest": _honest(result["honest"]),
                "best_config": best_config(board, result["best_trial"]),
                "left_out": result.get("left_out") or [],
                "baselines": [Baseline(**one) for one in result.get("baselines") or ()],
                "trials": directory.trials(),
                "oof_folds": _oof_folds(directory, info),
                "fingerprint": info.get("fingerprint", ""),
            }
        )


def _entry(row: Mapping[Any, Any]) -> Entry:
    """Return the entry of a row of ``leaderboard.parquet``."""
    names = {field.name for field in fields(Entry)} - {"config"}
    values = {str(name): value for name, value in row.items() if name in names}
    values |= {name: None for name, value in values.items() if value is None or value != value}
    return Entry(**values, config=config_of_row(row, to_show=True))


def _honest(stored: Mapping[str, Any] | None) -> HonestScore | None:
    if stored is None:
        return None
    defaults = {"n_bootstraps": 0, "averaging": 0.0}
    values: dict[str, Any] = {}
    for field in fields(HonestScore):
        value = stored.get(field.name)
        values[field.name] = defaults.get(field.name, math.nan) if value is None else value
    return HonestScore(**values)


def _oof_folds(directory: RunDirectory, info: Mapping[str, Any]) -> NDArray[np.int16]:
    """Return the fold that predicts each row out of fold, or -1; empty for runs of older versions."""
    path = directory.path / "oof.safetensors"
    found = load_arrays(path, names=("rows", "folds"))
    n_rows = (info.get("splits") or {}).get("rows")
    if "folds" not in found or n_rows is None:
        return np.empty(0, dtype=np.int16)
    folds = np.full(n_rows, -1, dtype=np.int16)
    with reading(path):
        folds[found["rows"]] = found["folds"]
    return folds
