"""Finished runs on disk, from Python."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from parallelmlp_search.parareal.promotion.stored import stored_promotion
from parallelmlp_search.search import RunDirectory

if TYPE_CHECKING:
    from pathlib import Path

    import optuna
    import pandas as pd

    from parallelmlp_search.explain import Explanation
    from parallelmlp_search.inference import TrainedModel

EXPLANATION = "explain"
"""Folder of the explanation of a run."""


def load_model(directory: RunDirectory) -> TrainedModel:
    """Load the model of a run, with promoted networks if they are part of the ensemble.

    Only promoted networks need torch.

    Raises
    ------
    RunDirectoryError
        If the run is not finished, or files are missing, damaged or of another format.
    """
    promotion = stored_promotion(directory)
    if promotion is not None and any(member["weight"] > 0 for member in promotion["members"]):
        from parallelmlp_search.parareal.promotion.model import load_promoted

        promoted = load_promoted(directory)
        assert promoted is not None
        return promoted
    from parallelmlp_search.inference import TrainedModel

    return TrainedModel.load(directory.model_folder)


class Run:
    """A finished run in a folder.

    Parameters
    ----------
    path
        The folder.

    Raises
    ------
    RunDirectoryError
        If the folder holds no run. All methods raise it if the run is not finished.

    Examples
    --------
    >>> run = Run("runs/adult")
    >>> run.leaderboard().head()
    >>> run.to_study("sqlite:///study.db")
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.directory = RunDirectory.open(path)

    def __repr__(self) -> str:
        return f"Run({str(self.directory.path)!r})"

    def _repr_html_(self) -> str:
        status = self.directory.info()["status"]
        if status != "finished":
            from parallelmlp_search._html import card, text

            return card(text(repr(self), "t"), " ", text(f"is {status}", "warn"))
        from parallelmlp_search.report.notebook import search_card

        board = self.directory.leaderboard()
        return search_card(repr(self), self.result(), board, columns=self.directory.columns())

    def result(self) -> dict[str, Any]:
        """Return the result: metric, honest score, best configuration, ensemble."""
        return self.directory.result()

    def leaderboard(self, *, details: bool = False) -> pd.DataFrame:
        """Return one row per trial, best first.

        Parameters
        ----------
        details
            False for ten columns; True for all, with the fields of the configurations.
        """
        from parallelmlp_search.search.run.leaderboard_view import main_columns

        board = self.directory.leaderboard()
        return board if details else main_columns(board)

    def trials(self) -> pd.DataFrame:
        """Return one row per trial and rung."""
        return self.directory.trials()

    def model(self) -> TrainedModel:
        """Return the ensemble that predicts, with the promoted networks if there are any."""
        return load_model(self.directory)

    def explanation(self) -> Explanation:
        """Return the explanation that ``pmlp explain`` or ``estimator.explain`` has saved."""
        from parallelmlp_search.explain import Explanation

        return Explanation.load(self.directory.path / EXPLANATION)

    def export(self, path: str | os.PathLike[str], *, format: str = "onnx") -> Path:
        """Write the model to a file that does not need this package.

        Parameters
        ----------
        path, format
            As of :meth:`ParallelMLPClassifier.export`.

        Returns
        -------
        pathlib.Path
            What was written.
        """
        from parallelmlp_search.export import export_model

        result = self.result()
        honest = None if result["honest"] is None else result["honest"]["score"]
        return export_model(self.model(), path, format, {"metric": result["metric"], "honest_score": honest})

    def to_study(self, storage: Any = None, *, study_name: str | None = None) -> optuna.Study:
        """Copy the run to an Optuna study.

        Parameters
        ----------
        storage, study_name
            See :func:`~parallelmlp_search.integrations.optuna.study_from_run`.
        """
        from parallelmlp_search.integrations.optuna import study_from_run

        return study_from_run(self.directory, storage, study_name=study_name)
