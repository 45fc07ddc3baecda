"""Result of a search."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from parallelmlp_search.inference import TrainedModel
from parallelmlp_search.search.finalists.baselines import Baseline
from parallelmlp_search.search.finalists.cross_fitting import CrossFit
from parallelmlp_search.search.finalists.latency import Latency
from parallelmlp_search.search.run.run_directory import RunDirectory
from parallelmlp_search.search.run.tables import write_tables
from parallelmlp_search.search.run.trial import Trial
from parallelmlp_search.selection import HonestScore, Leaderboard, Metric
from parallelmlp_search.space import MLPConfig

TABLES = ("leaderboard", "model", "trials", "oof_folds", "fingerprint")
"""Fields of a result that have files of their own."""


@dataclass(frozen=True)
class SearchResult:
    """Result of a search.

    Attributes
    ----------
    leaderboard
        All trials, best first.
    model
        Ensemble that predicts.
    honest
        Expected score of the model on new rows; None for tables too small to hold rows back.
    metric
        Name of the metric.
    best_trial, best_config
        Best single network.
    n_trials, max_epochs, n_folds
        Trials, epochs of full training, folds of cross-fitting.
    member_steps
        Training steps, summed over networks.
    path_shares
        Share of these steps that each path of training took: ``persistent``, ``graph``, ``compiled``,
        ``plain``.
    elapsed_seconds
        Duration.
    phases
        Seconds, seconds inside the training loop (summed over workers) and member-steps of each phase.
    latency
        Measured latency under a limit, or None.
    left_out
        Sentences on work that the time limit left out.
    baselines
        Scores of the prior, a linear model and gradient boosting on the same rows.
    beats_prior
        True if the 95 % interval of the honest score excludes the score of the prior; None if it is unknown.
    trials
        One row per trial and rung.
    oof_folds
        For each row of the problem ``(n,)``, the fold whose networks have not seen it and give its part of
        the honest score; -1 for the other rows.
    uncertainty
        Number of rows behind the intervals or sets of the model, and measured coverages with the mean widths
        or sizes; None for tables too small to hold rows back.
    fingerprint
        Fingerprint of the problem.
    """

    leaderboard: Leaderboard
    model: TrainedModel
    honest: HonestScore | None
    metric: str
    best_trial: int
    best_config: MLPConfig
    n_trials: int
    max_epochs: int
    n_folds: int
    member_steps: int
    elapsed_seconds: float
    latency: Latency | None = None
    left_out: list[str] = field(default_factory=list)
    path_shares: dict[str, float] = field(default_factory=dict)
    phases: dict[str, dict[str, float]] = field(default_factory=dict)
    baselines: list[Baseline] = field(default_factory=list)
    beats_prior: bool | None = None
    trials: pd.DataFrame = field(default_factory=pd.DataFrame, repr=False)
    oof_folds: NDArray[np.int16] = field(default_factory=lambda: np.empty(0, dtype=np.int16), repr=False)
    uncertainty: dict[str, Any] | None = None
    fingerprint: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-able summary."""
        kept = {name: value for name, value in vars(self).items() if name not in TABLES}
        members = zip(self.model.trials, self.model.weights.tolist(), strict=True)
        return {
            **kept,
            **self.model.postprocessing(),
            "task": self.model.task,
            "baselines": [asdict(one) for one in self.baselines],
            "latency": None if self.latency is None else self.latency.to_dict(),
            "honest": None if self.honest is None else asdict(self.honest),
            "best_config": self.best_config.to_dict(),
            "ensemble": [{"trial": trial, "weight": weight} for trial, weight in members],
        }


def trials_frame(trials: list[Trial], metric: Metric) -> pd.DataFrame:
    """One row per trial and rung, in this order."""
    frame = pd.DataFrame([row for trial in trials for row in trial.rows()])
    error = frame["error"].astype("float64")
    frame.insert(5, "score", metric.to_score(error))
    frame["failure"] = frame["failure"].astype("string")
    return frame


def save_result(directory: RunDirectory, fit: CrossFit, result: SearchResult) -> None:
    """Write tables, out-of-fold predictions and model of a search into its run.

    Parameters
    ----------
    directory, fit, result
        Run, cross-fitted finalists, result.
    """
    tables = {"trials": result.trials, "leaderboard": result.leaderboard.to_frame()}
    write_tables(directory, fit.preparation.problem, **tables)
    directory.write_tensors(
        "oof",
        {
            "predictions": fit.predictions,
            "covered": fit.covered,
            "rows": torch.from_numpy(fit.preparation.oof_rows),
            "trials": torch.tensor([trial.number for trial in fit.trials]),
            "folds": torch.from_numpy(result.oof_folds[fit.preparation.oof_rows]),
        },
    )
    result.model.save(directory.path / "model")
