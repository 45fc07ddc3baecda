"""Messages about the begin, the plan and the result of a search, for the logger ``parallelmlp_search``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from parallelmlp_search.search.run.messages import LOGGER, counted

if TYPE_CHECKING:
    from parallelmlp_search.engine import ExecutionPath
    from parallelmlp_search.search.finalists.result import SearchResult
    from parallelmlp_search.search.problem.preparation import Preparation
    from parallelmlp_search.search.run.budget import SearchPlan

_TASKS = {
    "binary": "binary classification",
    "multiclass": "classification",
    "multilabel": "multilabel classification",
    "regression": "regression",
}


def log_start(preparation: Preparation, path: ExecutionPath, n_workers: int) -> None:
    """Log what is searched, and how networks are trained.

    Parameters
    ----------
    preparation, path
        Problem and settings; code path of the training.
    n_workers
        Number of workers.
    """
    problem = preparation.problem
    LOGGER.info(
        "%s rows, %s columns: %s, metric %s, %s rows for validation",
        f"{problem.n_rows:,}",
        f"{problem.frame.shape[1]:,}",
        _TASKS[problem.task],
        preparation.metric.name,
        f"{len(preparation.validation_rows):,}",
    )
    if preparation.transforms:
        LOGGER.info("networks may learn a transformed target: %s", ", ".join(preparation.transforms))
    LOGGER.info("training with %s, %s", path, counted(n_workers, "worker"))


def log_plan(plan: SearchPlan) -> None:
    """Log the sizes of a search."""
    rungs = ", ".join(f"{epochs:g}" for epochs in plan.rungs)
    more = " or more" if plan.fills_time else ""
    LOGGER.info(
        "plan: %s%s, rungs of %s epochs, %s on %d folds",
        counted(plan.n_fresh + plan.n_refined, "trial"),
        more,
        rungs,
        counted(plan.n_finalists, "finalist"),
        plan.n_folds,
    )


def log_result(result: SearchResult) -> None:
    """Log the ensemble, the baselines, the honest score, failures, and what was left out."""
    failed = [entry for entry in result.leaderboard if entry.state == "failed"]
    if failed:
        LOGGER.info("%s failed, the first because: %s", counted(len(failed), "trial"), failed[0].failure)
    for sentence in result.left_out:
        LOGGER.info("left out: %s", sentence)
    for baseline in result.baselines:
        score = f"left out, {baseline.left_out}"
        if baseline.score is not None:
            score = f"{result.metric} {baseline.score:.5g}"
        LOGGER.info("baseline %s: %s", baseline.name, score)
    members = sum(entry.ensemble_weight > 0 for entry in result.leaderboard)
    LOGGER.info(
        "ensemble of %s, best single network: trial %d", counted(members, "network"), result.best_trial
    )
    honest = result.honest
    if honest is not None and math.isfinite(honest.score):
        LOGGER.info(
            "honest score: %s %.5g, 95 %% interval %.5g to %.5g",
            result.metric,
            honest.score,
            honest.low,
            honest.high,
        )
    LOGGER.info("finished after %.1f s", result.elapsed_seconds)
