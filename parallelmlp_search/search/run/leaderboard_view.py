"""The columns of a leaderboard that people read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parallelmlp_search.search.run.trial import config_of_row, describe_widths
from parallelmlp_search.space import MLPConfig

if TYPE_CHECKING:
    import pandas as pd

MAIN_COLUMNS = (
    "rank", "trial", "score", "standard_error", "ensemble_weight", "n_parameters", "train_seconds", "epochs",
    "widths", "activation",
)  # fmt: skip
"""Columns of :func:`main_columns`."""

LATENCY_COLUMNS = ("latency", "pareto")
"""Further columns of a search with a limit of the latency."""


def main_columns(board: pd.DataFrame) -> pd.DataFrame:
    """Return ten columns of a leaderboard with all columns.

    ``widths`` holds texts such as ``128-64``, and ``linear`` for a network without hidden layers. Runs of
    older versions have no standard errors. With a limit of the latency there are two columns more.
    """
    if not len(board):
        return board.reindex(columns=list(MAIN_COLUMNS))
    board = board.assign(
        widths=[describe_widths(widths) for widths in board["config_widths"]],
        activation=board["config_activation"],
    )
    if "standard_error" not in board:
        board["standard_error"] = float("nan")
    timed = [name for name in LATENCY_COLUMNS if name in board]
    return board[[*MAIN_COLUMNS, *timed]]


def best_config(board: pd.DataFrame, trial: int) -> MLPConfig:
    """Return the configuration of a trial of a leaderboard; of the first trial if it has no such trial."""
    rows = board[board["trial"] == trial]
    return config_of_row((rows if len(rows) else board).iloc[0], to_show=True)
