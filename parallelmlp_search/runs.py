"""Runs on disk from Python: what a search on the command line has left, to look at and to go on from."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pandas as pd

from parallelmlp_search.parareal import load_model
from parallelmlp_search.search import RunDirectory, TrainedModel

if TYPE_CHECKING:
    import optuna

__all__ = ["Run"]


class Run:
    """A finished run.

    Parameters
    ----------
    path
        Its folder.

    Raises
    ------
    RunDirectoryError
        If the folder holds no run; and from every method, if the run has not finished.

    Examples
    --------
    >>> run = Run("runs/adult")
    >>> run.leaderboard().head()
    >>> run.to_study("sqlite:///study.db")
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.directory = RunDirectory.open(path)

    def result(self) -> dict[str, Any]:
        """Summary: metric, honest score, best configuration, ensemble."""
        return self.directory.result()

    def leaderboard(self) -> pd.DataFrame:
        """One row a trial, best first."""
        return self.directory.leaderboard()

    def trials(self) -> pd.DataFrame:
        """One row a trial and rung."""
        return self.directory.trials()

    def model(self) -> TrainedModel:
        """The ensemble that predicts, promoted networks included."""
        return load_model(self.directory)

    def to_study(self, storage: Any = None, *, study_name: str | None = None) -> optuna.Study:
        """The run as a study of Optuna.

        Parameters
        ----------
        storage, study_name
            As of :func:`~parallelmlp_search.integrations.optuna.study_from_run`.
        """
        from parallelmlp_search.integrations.optuna import study_from_run

        return study_from_run(self.directory, storage, study_name=study_name)
