"""The networks of the ensemble, trained anew on all rows, to predict instead of those of the folds.

Each configuration is trained up to the moment that cross-fitting chose for it, on the same schedule, from new
initial weights each time. Nobody judges these networks: no row is left that they have not seen. What is
reported is still the score of the folds' networks, which saw fewer rows; so it is slightly pessimistic.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from parallelmlp_search.distribute import ShardData, ShardOutcome, ShardTask, shard_tasks
from parallelmlp_search.search.finalists.cross_fitting import CrossFit
from parallelmlp_search.search.finalists.model import FoldModel, TrainedModel
from parallelmlp_search.search.problem.preparation import Part, Preparation, seed_of
from parallelmlp_search.search.run.budget import Throughput
from parallelmlp_search.search.run.journal import Journal
from parallelmlp_search.space import MLPConfig

__all__ = ["REFIT_SHARE", "Refit", "refit"]

REFIT_SHARE = 0.2
"""Under a time limit, share of what the finalists would get that is kept for training the ensemble anew."""

SAFETY = 0.85
"""Of the time that is left, what training is planned to take."""


@dataclass(frozen=True)
class Refit:
    """One network of the ensemble to be trained on all rows.

    Attributes
    ----------
    trial
        Its trial.
    config
        Its configuration.
    epochs
        Epochs at the moment that cross-fitting chose.
    """

    trial: int
    config: MLPConfig
    epochs: float


def refit(
    preparation: Preparation,
    model: TrainedModel,
    fit: CrossFit,
    *,
    n_folds: int,
    max_epochs: int,
    journal: Journal,
    throughput: Throughput,
    share: Callable[[ShardData], ShardData],
    deadline: float | None = None,
) -> tuple[TrainedModel, list[str]]:
    """Replace the folds' networks by networks that were trained on all rows.

    As many of each configuration are averaged as take about the time of one fold of cross-fitting, at least
    one and at most the number of folds.

    Parameters
    ----------
    preparation
        Knows all rows.
    model
        The ensemble of the folds' networks.
    fit
        Knows the moments of all finalists, and how many there were.
    n_folds, max_epochs
        Folds, and epochs of full training, of cross-fitting.
    share
        Puts data where all workers find them.
    deadline
        Reading of the monotonic clock at which training has to have ended, or None.

    Returns
    -------
    (TrainedModel, list of str)
        The new model and nothing; or the old one, and a sentence on why there is none. For tiny tables the
        old one already was trained on all rows.
    """
    if preparation.is_tiny:
        return model, []
    part = preparation.whole()
    data = share(part.data)
    epochs = {trial.number: moment for trial, moment in zip(fit.trials, fit.epochs, strict=True)}
    members = [
        Refit(trial, config, epochs[trial]) for trial, config in zip(model.trials, model.configs, strict=True)
    ]
    once = sum(data.epoch_seconds(member.config) * member.epochs for member in members)
    fold = max_epochs * (1.0 - 1.0 / n_folds) * sum(data.epoch_seconds(trial.config) for trial in fit.trials)
    wanted = max(1, min(n_folds, int(fold / max(once, 1e-9))))

    def affordable() -> int:
        if deadline is None:
            return wanted
        left = SAFETY * (deadline - time.monotonic())
        return max(0, min(wanted, int(left / max(throughput.wall_seconds(once), 1e-9))))

    repeats = int(journal.entry("refit", affordable))
    if repeats == 0:
        return model, ["the ensemble was not trained anew on all rows, since there was no time left for it"]
    tasks = [
        task
        for repeat in range(repeats)
        for task in _tasks(members, data, repeat, n_folds, max_epochs, preparation.settings.seed, deadline)
    ]
    repeat_of = {task.key: task.repeat - n_folds - 1 for task in tasks}
    vectors: list[dict[int, Tensor]] = [{} for _ in range(repeats)]
    for outcome in journal.run(tasks, _drop_failures):
        for member in outcome.members:
            # networks that a deadline has stopped are not what was chosen
            if member.state is not None and not outcome.cut:
                vectors[repeat_of[outcome.key]][member.trial] = member.state.vectors["average"]
    whole = [found for found in vectors if len(found) == len(members)]
    if not whole:
        return model, [
            "the ensemble could not be trained anew on all rows, so the networks of the folds stay"
        ]
    return replace(model, folds=[_packed(part, members, found) for found in whole], refitted=True), []


def _tasks(
    members: Sequence[Refit],
    data: ShardData,
    repeat: int,
    n_folds: int,
    max_epochs: int,
    seed: int,
    deadline: float | None,
) -> list[ShardTask]:
    """Shards of all members once: those that stop at the same moment train together."""
    # batches of their own: otherwise the repeats would differ by their initial weights alone
    data = replace(data, seed=seed_of(seed, 4, repeat))
    tasks: list[ShardTask] = []
    for place, until in enumerate(sorted({member.epochs for member in members})):
        tasks += shard_tasks(
            f"refit-{repeat:02d}-{place:02d}",
            {member.trial: member.config for member in members if member.epochs == until},
            data,
            until_epoch=until,
            total_epochs=max_epochs,
            repeat=n_folds + 1 + repeat,
            keep=("average",),
            deadline=deadline,
        )
    return tasks


def _drop_failures(outcome: ShardOutcome) -> None:
    for member in outcome.members:
        if member.failure is not None:
            member.state = None


def _packed(part: Part, members: Sequence[Refit], vectors: dict[int, Any]) -> FoldModel:
    return FoldModel.pack(
        part.preprocessor,
        part.head,
        [part.data.architecture(member.config) for member in members],
        [vectors[member.trial] for member in members],
    )
