"""For those who keep Optuna's own loop: a search that reports to a trial and can be pruned by it."""

from __future__ import annotations

import optuna
from optuna.study import StudyDirection

from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.search import Progress
from parallelmlp_search.selection import METRICS

__all__ = ["OptunaCallback"]


class OptunaCallback:
    """Callback of an estimator inside an objective: reports the best score so far after every rung.

    Parameters
    ----------
    trial
        The trial that the objective was called with.

    Raises
    ------
    optuna.TrialPruned
        Out of ``fit``, if the study's pruner says so; Optuna takes it from there.
    InvalidParameterError
        If the study looks for the worst score.

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
            self._check(progress.metric)
        self.trial.report(progress.best_score, self._step)
        self._step += 1
        if self.trial.should_prune():
            raise optuna.TrialPruned(
                f"after {self._step} rungs at {progress.metric} {progress.best_score:.4g}"
            )

    def _check(self, name: str) -> None:
        metric = METRICS.get(name.partition(":")[0])
        direction = self.trial.study.direction
        if metric is not None and (direction is StudyDirection.MAXIMIZE) != metric.greater_is_better:
            wanted = "maximize" if metric.greater_is_better else "minimize"
            raise InvalidParameterError(
                f"the study must {wanted} {name}, but its direction is {direction.name.lower()}: "
                f"create it with {wanted!r}"
            )
