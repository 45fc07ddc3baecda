"""Refit: the networks of the ensemble are trained again on all rows, and replace those of the folds.

Each configuration is trained up to the epoch that cross-fitting chose, on the same schedule, from new initial
weights each time. No row is left to evaluate these networks. The reported score is that of the networks of
the folds, which saw fewer rows, so it is slightly pessimistic.
"""

from __future__ import annotations

import time
from dataclasses import replace

from torch import Tensor

from parallelmlp_search.distribute import ShardOutcome, ShardTask, shard_tasks
from parallelmlp_search.inference import TrainedModel
from parallelmlp_search.search.finalists.cross_fitting import CrossFit
from parallelmlp_search.search.finalists.model import refitted_model
from parallelmlp_search.search.problem.preparation import seed_of
from parallelmlp_search.search.run.context import SearchContext

REFIT_SHARE = 0.2
"""Share of the finalists' time that is kept for the refit under a time limit."""

SAFETY = 0.85
"""Share of the time left that is planned for training."""


def refit(
    context: SearchContext, model: TrainedModel, fit: CrossFit, max_epochs: int, deadline: float | None
) -> tuple[TrainedModel, list[str]]:
    """Replace the networks of the folds by networks trained on all rows.

    The number of networks per configuration is such that they take about as long as one fold of
    cross-fitting, at least 1 and at most the number of folds that predict.

    Parameters
    ----------
    context
        Context of the search.
    model
        Ensemble of the networks of the folds.
    fit
        Finalists and their epochs.
    max_epochs
        Epochs of cross-fitting.
    deadline
        Reading of the monotonic clock at which training ends, or None.

    Returns
    -------
    (TrainedModel, list of str)
        New model, or the given one and the reason. The model of a tiny table is already trained on all rows.
    """
    preparation = context.preparation
    if preparation.is_tiny:
        return model, []
    n_folds, part = len(fit.parts), preparation.whole()
    data = context.share(part.data)
    configs, epochs = dict(zip(model.trials, model.configs, strict=True)), fit.epochs
    trained = {trial: (epochs[trial], fit.total_epochs.get(trial, max_epochs)) for trial in configs}
    once = sum(data.epoch_seconds(config) * epochs[trial] for trial, config in configs.items())
    fold = max_epochs * (1.0 - 1.0 / n_folds) * sum(data.epoch_seconds(trial.config) for trial in fit.trials)
    # a limit of the latency can leave fewer folds in the model
    wanted = max(1, min(len(model.folds), int(fold / max(once, 1e-9))))

    def affordable() -> int:
        if deadline is None:
            return wanted
        left = SAFETY * (deadline - time.monotonic())
        return max(0, min(wanted, int(left / max(context.throughput.wall_seconds(once), 1e-9))))

    n_repeats = int(context.journal.entry("refit", affordable))
    if n_repeats == 0:
        return model, ["the ensemble was not refitted on all rows, because no time was left for it"]
    tasks: list[ShardTask] = []
    for repeat in range(n_repeats):
        # other batches in each repeat, which would differ by their initial weights alone
        repeat_data = replace(data, seed=seed_of(preparation.settings.seed, 4, repeat))
        # members with the same epochs and schedules train together
        for place, (until, total) in enumerate(sorted(set(trained.values()))):
            tasks += shard_tasks(
                f"refit-{repeat:02d}-{place:02d}",
                {trial: config for trial, config in configs.items() if trained[trial] == (until, total)},
                repeat_data,
                until_epoch=until,
                total_epochs=total,
                repeat=n_folds + 1 + repeat,
                keep=("average",),
                deadline=deadline,
            )
    vectors: list[dict[int, Tensor]] = [{} for _ in range(n_repeats)]
    repeat_of = {task.key: task.repeat - n_folds - 1 for task in tasks}
    for outcome in context.journal.run(tasks, _drop_failures):
        for member in outcome.members:
            # a network that a deadline stopped has fewer epochs than were chosen
            if member.state is not None and not outcome.cut:
                vectors[repeat_of[outcome.key]][member.trial] = member.state.vectors["average"]
    whole = [[found[trial] for trial in configs] for found in vectors if len(found) == len(configs)]
    if not whole:
        return model, ["the ensemble could not be refitted on all rows: the networks of the folds predict"]
    residuals = fit.residuals
    return refitted_model(model, part, whole, [residuals[trial] for trial in configs]), []


def _drop_failures(outcome: ShardOutcome) -> None:
    for member in outcome.members:
        if member.failure is not None:
            member.state = None
