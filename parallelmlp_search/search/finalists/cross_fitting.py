"""Finalists are trained anew on every fold and predict the rows that they have not seen.

Where the choosing rows train as well, nobody can judge a network while it trains: it has seen most of them.
So each fold keeps what its networks weighed and predicted at some moments, and once all folds have been
trained, a finalist gets the moment at which its out-of-fold predictions of the choosing rows were best, the
same for all its folds. The reporting rows have no say in it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parallelmlp_search.distribute import ShardOutcome, ShardTask, shard_tasks
from parallelmlp_search.search.finalists.snapshot_selection import FoldNetwork, SnapshotSelection
from parallelmlp_search.search.problem.preparation import Part, Preparation
from parallelmlp_search.search.run.budget import Throughput
from parallelmlp_search.search.run.journal import Journal
from parallelmlp_search.search.run.reporting import Reporter
from parallelmlp_search.search.run.trial import RungRecord, Trial, TrialState

__all__ = ["CrossFit", "cross_fit", "snapshots_fit"]

GROUP = 2
"""Under a time limit finalists are cross-fitted this many at a time, best first, so that little time is left
over; packing more of them gains little, since they are wide and train on several folds at once."""

UNTIMED_GROUP = 8
"""Without a time limit, so many are cross-fitted at a time: their moments are kept until all folds are in."""

EVALUATIONS = 20
"""Snapshots of a finalist's training at which its best epoch may lie."""

N_SNAPSHOTS = 10
"""The same where weights and predictions of every moment are kept."""


MAX_SNAPSHOT_VALUES = 1 << 25
"""Predictions of one finalist at all moments that may be kept, in numbers: 128 MiB."""


def snapshots_fit(preparation: Preparation) -> bool:
    """Whether finalists can train on the choosing rows too, and choose their moments afterwards.

    Where rows are so many that the moments would not fit, the choosing rows are few among them.
    """
    values = N_SNAPSHOTS * preparation.problem.head.n_predictions * preparation.problem.n_rows
    return preparation.trains_on_validation_rows and values <= MAX_SNAPSHOT_VALUES


@dataclass
class CrossFit:
    """Out-of-fold predictions and networks of the finalists.

    Attributes
    ----------
    trials
        Finalists whose every fold was trained, best of screening first.
    predictions
        ``(P, C, n)`` for the reporting rows, in the order of the table.
    covered
        ``(n,)`` bool: rows that some fold predicts (all, unless rows are ordered in time).
    vectors
        For each finalist, one canonical vector per fold.
    cut
        Sentences on what the time limit left out.
    choosing, validation_covered
        The same as `predictions` and `covered` for the choosing rows, where they train too; None where they
        are held out of every fold.
    epochs
        For each finalist, epochs at the moment that was chosen, the mean of the folds.
    """

    trials: list[Trial]
    predictions: Tensor
    covered: Tensor
    vectors: list[list[Tensor]]
    cut: list[str] = field(default_factory=list)
    choosing: Tensor | None = None
    validation_covered: Tensor | None = None
    epochs: list[float] = field(default_factory=list)


def cross_fit(
    finalists: Sequence[Trial],
    parts: Sequence[Part],
    preparation: Preparation,
    *,
    max_epochs: int,
    rung: int,
    journal: Journal,
    throughput: Throughput,
    reporter: Reporter,
    trials: Sequence[Trial],
    deadline: float | None = None,
    required: int | None = None,
) -> CrossFit:
    """Train finalists on every fold.

    Parameters
    ----------
    finalists
        Best first.
    parts
        One per fold.
    preparation
        Knows which rows choose and which report.
    max_epochs
        Epochs of full training.
    rung
        Number under which the results are recorded, above all rungs of screening.
    deadline
        Reading of the monotonic clock at which training ends, or None. A group of finalists begins only if
        it is likely to end in time, the first in any case; one that is too expensive is passed over.
    required
        With a deadline, how many finalists were planned; those beyond are extra and not missed.
    """
    groups = _groups(finalists, None if deadline is None else required or len(finalists))
    tasks_of_group = [_tasks(number, group, parts, max_epochs) for number, group in enumerate(groups)]
    choice = SnapshotSelection(preparation, parts)
    total = sum(len(tasks) for tasks in tasks_of_group)

    def in_time() -> Iterator[ShardTask]:
        for number, tasks in enumerate(tasks_of_group):
            if number > 0 and deadline is not None:
                predicted = throughput.wall_seconds(sum(task.predicted_seconds for task in tasks))
                if time.monotonic() + 0.9 * predicted > deadline:
                    continue  # a cheaper one may still fit
            for task in tasks:
                yield _with_deadline(task, deadline)

    def strip(outcome: ShardOutcome) -> None:
        for member in outcome.members:
            if member.failure is not None:
                member.state = member.prediction = member.snapshots = None

    fold_of = {task.key: task.repeat - 1 for tasks in tasks_of_group for task in tasks}
    results: dict[int, dict[int, FoldNetwork]] = {trial.number: {} for trial in finalists}
    records: dict[int, list[RungRecord]] = {trial.number: [] for trial in finalists}
    by_number = {trial.number: trial for trial in finalists}
    stopped: set[int] = set()
    for done, outcome in enumerate(journal.run(in_time(), strip), start=1):
        if outcome.cut:
            stopped.update(member.trial for member in outcome.members)
        for member in outcome.members:
            trial = by_number[member.trial]
            record = RungRecord(0, rung, member.epochs, member.error, member.train_loss, member.seconds)
            records[member.trial].append(record)
            if member.failure is not None:
                trial.state, trial.failure = TrialState.FAILED, member.failure
            elif member.snapshots is not None:
                chosen = choice.offer(member.trial, fold_of[outcome.key], member.snapshots)
                results[member.trial].update(chosen)
            elif member.state is not None and member.prediction is not None:
                results[member.trial][fold_of[outcome.key]] = FoldNetwork(
                    member.state.vectors["best"], member.prediction, member.best_epoch
                )
        reporter.report(
            "cross-fitting",
            trials,
            rung=rung,
            n_rungs=rung,
            alive=len(finalists),
            done=done,
            total=total,
            rung_completed=done == total,
        )
    complete = [
        trial
        for trial in finalists
        if trial.state is not TrialState.FAILED and len(results[trial.number]) == len(parts)
    ]
    cut = []
    planned = len(finalists) if required is None else min(required, len(finalists))
    missing = sum(trial.state is not TrialState.FAILED for trial in finalists[:planned]) - len(complete)
    if missing > 0:
        cut.append(f"{missing} of {planned} finalists were not cross-fitted when the time was up")
    expected = {trial.number for trial in finalists[:planned]}
    short = sum(trial.number in expected and trial.number in stopped for trial in complete)
    if short:
        cut.append(
            f"{short} of {planned} finalists had not trained for {max_epochs} epochs when the time was up"
        )
    networks = [[results[trial.number][fold] for fold in range(len(parts))] for trial in complete]
    predictions, covered = _out_of_fold(networks, parts, preparation.oof_rows)
    choosing, validation_covered = None, None
    if parts[0].data.validation_inputs is None and not preparation.is_tiny:
        choosing, validation_covered = _out_of_fold(networks, parts, preparation.validation_rows)
    for trial in complete:
        trial.state = TrialState.COMPLETE
        # one record for all folds; its error is set from the out-of-fold predictions
        parts_of_trial = records[trial.number]
        n_parts = len(parts_of_trial)
        trial.records.append(
            RungRecord(
                trial.records[-1].round,
                rung,
                max(record.epochs for record in parts_of_trial),
                sum(sorted(record.error for record in parts_of_trial)) / n_parts,
                sum(sorted(record.train_loss for record in parts_of_trial)) / n_parts,
                sum(record.seconds for record in parts_of_trial),
            )
        )
    return CrossFit(
        trials=complete,
        predictions=predictions,
        covered=covered,
        vectors=[[network.vector for network in folds] for folds in networks],
        cut=cut,
        choosing=choosing,
        validation_covered=validation_covered,
        epochs=[sum(network.epoch for network in folds) / len(folds) for folds in networks],
    )


def _out_of_fold(
    networks: Sequence[Sequence[FoldNetwork]], parts: Sequence[Part], rows: NDArray[np.intp]
) -> tuple[Tensor, Tensor]:
    """Predictions ``(P, C, n)`` of sorted rows by the folds that have not seen them, NaN without one; and
    which rows have one, ``(n,)``."""
    predictions = torch.full((len(networks), parts[0].head.n_predictions, len(rows)), math.nan)
    covered = torch.zeros(len(rows), dtype=torch.bool)
    for fold, part in enumerate(parts):
        wanted = np.isin(part.predicted_rows, rows)
        places = torch.from_numpy(np.searchsorted(rows, part.predicted_rows[wanted]))
        covered[places] = True
        mine = torch.from_numpy(wanted)
        for index, folds in enumerate(networks):
            predictions[index][:, places] = folds[fold].prediction[:, mine]
    return predictions, covered


def _groups(finalists: Sequence[Trial], required: int | None) -> list[list[Trial]]:
    """Those that are planned in groups of at most :data:`GROUP` of like size, then the extra ones.

    Without a deadline (``required`` is None) there is no reason for small ones but memory.
    """
    if required is None:
        starts = range(0, len(finalists), UNTIMED_GROUP)
        return [list(finalists[start : start + UNTIMED_GROUP]) for start in starts]
    n_groups = -(-required // GROUP)
    size = -(-required // n_groups)
    bounds = [*range(0, required, size), *range(required, len(finalists), GROUP)]
    ends = [*bounds[1:], len(finalists)]
    groups = [list(finalists[start:end]) for start, end in zip(bounds, ends, strict=True)]
    return [group for group in groups if group]


def _tasks(number: int, group: Sequence[Trial], parts: Sequence[Part], max_epochs: int) -> list[ShardTask]:
    """Shards of a group on every fold, the most expensive first."""
    tasks: list[ShardTask] = []
    for fold, part in enumerate(parts):
        keep_snapshots = part.data.validation_inputs is None
        tasks += shard_tasks(
            f"finalists-{number:02d}-{fold:02d}",
            {trial.number: trial.config for trial in group},
            part.data,
            until_epoch=max_epochs,
            total_epochs=max_epochs,
            evaluate_every=max(1.0, max_epochs / (N_SNAPSHOTS if keep_snapshots else EVALUATIONS)),
            repeat=fold + 1,
            keep=() if keep_snapshots else ("best",),
            keep_snapshots=keep_snapshots,
        )
    return sorted(tasks, key=lambda task: (-task.predicted_seconds, task.key))


def _with_deadline(task: ShardTask, deadline: float | None) -> ShardTask:
    return task if deadline is None else replace(task, deadline=deadline)
