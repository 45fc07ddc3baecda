"""Finished search as figures and pages read it, from a run directory or from a result in memory."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from parallelmlp_search.packing import member_seconds
from parallelmlp_search.search.run.trial import CONFIG_PREFIX, config_of_row, widths_of_cell

if TYPE_CHECKING:
    from parallelmlp_search.inference import TrainedModel
    from parallelmlp_search.search import RunDirectory, SearchResult

PREDICTED_ROWS = 256
"""Rows of a batch whose prediction is timed by the cost model."""

FORWARD_SHARE = 1 / 3
"""Share of a training step that the forward pass takes."""


@dataclass(frozen=True, eq=False)
class FinishedSearch:
    """Result, leaderboard and trials of a finished search.

    Attributes
    ----------
    result
        Content of ``result.json``.
    leaderboard
        One row per trial, best first.
    trials
        One row per trial and rung.
    """

    result: dict[str, Any]
    leaderboard: pd.DataFrame
    trials: pd.DataFrame

    @classmethod
    def of_directory(cls, directory: RunDirectory) -> Self:
        """Read a finished run.

        Raises
        ------
        RunDirectoryError
            If the run is not finished, or a file is missing or damaged.
        """
        return cls(directory.result(), directory.leaderboard(), directory.trials())

    @classmethod
    def of_result(cls, result: SearchResult) -> Self:
        """Return the search of a result in memory."""
        return cls(result.to_dict(), result.leaderboard.to_frame(), result.trials)

    @property
    def metric(self) -> str:
        """Name of the metric."""
        return str(self.result["metric"])

    @cached_property
    def greater_is_better(self) -> bool:
        """True if a higher score is a lower error."""
        score, error = self.ranked["score"].to_numpy(float), self.ranked["error"].to_numpy(float)
        return not np.array_equal(score, error)

    @cached_property
    def ranked(self) -> pd.DataFrame:
        """Trials with a rank, best first, with ``member``, True for those of the ensemble."""
        board = self.leaderboard[self.leaderboard["rank"].notna()].reset_index(drop=True)
        return board.assign(member=board["ensemble_weight"] > 0)

    @cached_property
    def hyperparameters(self) -> pd.DataFrame:
        """Fields of the configurations that differ between ranked trials, in the order of the leaderboard.

        Widths are replaced by the number of layers and the width of the first. Values that a configuration
        does not use are missing.
        """
        board = self.ranked
        fields = {
            name.removeprefix(CONFIG_PREFIX): board[name]
            for name in board.columns
            if name.startswith(CONFIG_PREFIX)
            and name not in (f"{CONFIG_PREFIX}widths", f"{CONFIG_PREFIX}seed")
        }
        widths = [widths_of_cell(value) for value in board[f"{CONFIG_PREFIX}widths"]]
        depth = pd.Series([len(one) for one in widths])
        first = pd.Series([one[0] if one else 0 for one in widths])
        found = pd.DataFrame({"layers": depth, "width": first, **fields})
        submembers = found.get("submembers")
        if submembers is not None and "sharing" in found:
            found["sharing"] = found["sharing"].where(submembers > 1)
        if "numeric_embedding" in found:
            for name in ("frequency_scale", "embedding_rate"):
                if name in found:
                    found[name] = found[name].where(found["numeric_embedding"] == "periodic")
        return found.loc[:, [found[name].nunique(dropna=True) > 1 for name in found.columns]]

    @cached_property
    def at_random(self) -> NDArray[np.bool_]:
        """True for each ranked trial that was drawn from the whole space at random."""
        origin = self.trials.drop_duplicates("trial").set_index("trial")["origin"]
        return self.ranked["trial"].map(origin).isin(("random", "qmc")).to_numpy(dtype=bool)

    def latencies(self, model: TrainedModel) -> NDArray[np.float64]:
        """Predicted microseconds on one core in which each ranked trial predicts a row, in batches of 256."""
        fold, found = model.folds[0], []
        for row in self.ranked.to_dict("records"):
            architecture = fold.architecture(config_of_row(row, to_show=True))
            found.append(FORWARD_SHARE * member_seconds(architecture, PREDICTED_ROWS) / PREDICTED_ROWS)
        return 1e6 * np.array(found)
