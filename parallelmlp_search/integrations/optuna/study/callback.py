"""Callback for Optuna's own loop: a search reports to a trial and can be pruned by it."""

from __future__ import annotations

import optuna

from parallelmlp_search.integrations.optuna.study.candidate import check_direction
from parallelmlp_search.search import Progress
from parallelmlp_search.selection import LABEL_METRICS, METRICS


class OptunaCallback:
    """Callback of an estimator inside an objective: reports the best score so far after every rung.

    Parameters
    ----------
    trial
        Trial that the objective was called with.

    Raises
    ------
    optuna.TrialPruned
        From ``fit``, if the study's pruner ends the trial; Optuna handles it.
    InvalidParameterError
        From ``fit``, if the study's direction does not suit the metric.

    Examples
    --------
    >>> def objective(trial):
    ...     model = ParallelMLPClassifier(n_trials=50, callbacks=[OptunaCallback(trial)])
    ...     return model.fit(X, y).honest_score_
    """

    def __init__(self, trial: optuna.Trial) -> None:
        self.trial = trial
        self._step = 0

    def __call__(self, progress: Progress) -> None:
        """Report at the end of a rung."""
        if not progress.rung_completed or progress.best_score is None:
            return
        if self._step == 0:
            metric = METRICS.get(name := progress.metric.partition(":")[0]) or LABEL_METRICS.get(name)
            if metric is not None:
                verb = "maximize" if metric.greater_is_better else "minimize"
                check_direction(self.trial.study.direction, f"{verb} {progress.metric}")
        self.trial.report(progress.best_score, self._step)
        self._step += 1
        if self.trial.should_prune():
            raise optuna.TrialPruned(
                f"after {self._step} rungs at {progress.metric} {progress.best_score:.4g}"
            )
