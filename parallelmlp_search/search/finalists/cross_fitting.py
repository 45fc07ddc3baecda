"""Cross-fitting: finalists are trained on every fold and predict the rows that they have not seen.

Validation rows train too where memory allows. Then no network can be evaluated during its training, because
it has seen most validation rows. Each fold keeps snapshots instead. Once all folds are trained, a finalist
gets the snapshot with the lowest error of the out-of-fold predictions of the validation rows, the same in all
folds. The out-of-fold rows that give the score are not used for this choice.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parallelmlp_search.distribute import ShardOutcome, ShardTask, network_residuals, predict_network
from parallelmlp_search.search.finalists.fold_tasks import grouped_tasks
from parallelmlp_search.search.finalists.schedule import Deadline, Schedule
from parallelmlp_search.search.finalists.snapshot_selection import FoldNetwork, SnapshotSelection
from parallelmlp_search.search.problem.preparation import Part, Preparation, ScoredRows
from parallelmlp_search.search.run.budget import FinalistPlan
from parallelmlp_search.search.run.context import SearchContext
from parallelmlp_search.search.run.trial import RungRecord, Trial, TrialState

SHORT_SHARE = 0.6
"""Share of the planned epochs below which a finalist counts as shortened by the time limit."""


@dataclass
class CrossFit:
    """Out-of-fold predictions and networks of the finalists.

    Attributes
    ----------
    preparation, parts
        Target and metric; one part per fold.
    trials
        Finalists that were trained on every fold, best of screening first.
    networks
        For each finalist, one network per fold.
    predictions
        ``(P, C, n)`` of the out-of-fold rows, in the order of the table.
    covered
        ``(n,)`` bool: rows that a fold predicts. With a time column, the first rows are not predicted.
    left_out
        Sentences on work that the time limit left out.
    validation_predictions, validation_covered
        The same as `predictions` and `covered` for the validation rows, where they train too; None where they
        are held out of every fold.
    total_epochs
        Epochs of the schedules of each finalist, by the number of its trial. Finalists that train in the last
        seconds before a time limit have fewer.
    """

    preparation: Preparation
    parts: Sequence[Part]
    trials: list[Trial]
    networks: list[list[FoldNetwork]]
    predictions: Tensor
    covered: Tensor
    left_out: list[str] = field(default_factory=list)
    validation_predictions: Tensor | None = None
    validation_covered: Tensor | None = None
    total_epochs: dict[int, float] = field(default_factory=dict)

    @classmethod
    def of_networks(
        cls,
        preparation: Preparation,
        parts: Sequence[Part],
        trials: list[Trial],
        networks: list[list[FoldNetwork]],
    ) -> CrossFit:
        """Gather the out-of-fold predictions of networks.

        Parameters
        ----------
        preparation, parts, trials, networks
            Attributes of the result.

        Returns
        -------
        CrossFit
        """
        predictions, covered = _out_of_fold(networks, parts, preparation.oof_rows)
        found = cls(preparation, parts, trials, networks, predictions, covered)
        if parts[0].data.validation_inputs is None and not preparation.is_tiny:
            found.validation_predictions, found.validation_covered = _out_of_fold(
                networks, parts, preparation.validation_rows
            )
        return found

    @property
    def epochs(self) -> dict[int, float]:
        """Mean epochs of the networks of each finalist, by the number of its trial."""
        return {
            trial.number: sum(network.epoch for network in folds) / len(folds)
            for trial, folds in zip(self.trials, self.networks, strict=True)
        }

    @property
    def residuals(self) -> dict[int, NDArray[np.float64] | None]:
        """Mean residuals ``(C, Q)`` of the networks of each finalist, or None, by the number of its trial."""
        found: dict[int, NDArray[np.float64] | None] = {}
        for trial, folds in zip(self.trials, self.networks, strict=True):
            known = [network.residuals for network in folds if network.residuals is not None]
            found[trial.number] = np.mean(known, axis=0) if known else None
        return found

    @property
    def oof_folds(self) -> NDArray[np.int16]:
        """Fold that predicts each row of the table ``(n,)`` out of fold; -1 for rows that are not scored."""
        folds = np.full(self.preparation.problem.n_rows, -1, dtype=np.int16)
        if not self.preparation.is_tiny:  # its only part predicts the rows that it was trained on
            for fold, part in enumerate(self.parts):
                folds[part.predicted_rows] = fold
            folds[self.preparation.validation_rows] = -1
        return folds

    @property
    def scored_rows(self) -> ScoredRows:
        """Out-of-fold rows that a fold predicts."""
        return self.preparation.scored_rows(self.preparation.oof_rows[self.covered.numpy()])

    @property
    def scored_predictions(self) -> Tensor:
        """Predictions ``(P, C, n)`` of :attr:`scored_rows`."""
        return self.predictions[:, :, self.covered]


def cross_fit(
    context: SearchContext,
    finalists: Sequence[Trial],
    parts: Sequence[Part],
    plan: FinalistPlan,
    *,
    rung: int,
    trials: Sequence[Trial],
    deadline: Deadline | None = None,
) -> CrossFit:
    """Train finalists on every fold.

    Parameters
    ----------
    context
        Context of the search.
    finalists, parts
        Finalists, best first; one part per fold.
    plan
        Epochs, size of groups, and with a deadline the number of finalists that were planned; further ones
        are not missed.
    rung
        Number of the rung of the results, above all rungs of screening.
    trials
        All trials, for reports.
    deadline
        Reading of the monotonic clock at which training ends, given the number of finalists, or None. The
        first group of finalists always trains. Another group begins only if it can end in time.

    Returns
    -------
    CrossFit
    """
    required = None if deadline is None else min(plan.n_finalists, len(finalists))
    groups: Iterable[list[ShardTask]] = grouped_tasks(finalists, parts, plan, required)
    total = len(finalists) * len(parts)
    if deadline is None:
        groups = list(groups)
        total = sum(len(tasks) for tasks in groups)
    results = _Results(context.preparation, finalists, parts, rung)
    fold_of: dict[str, int] = {}

    def begun() -> Iterator[ShardTask]:
        for task in Schedule(context, groups, deadline, stretches=context.settings.max_epochs is None):
            fold_of[task.key] = task.repeat - 1
            results.begin(task)
            yield task

    shards = context.journal.run(begun(), _drop_failures)
    for done, outcome in enumerate(shards, start=1):
        results.add(fold_of[outcome.key], outcome)
        values = {"rung": rung, "n_rungs": rung, "alive": len(finalists), "done": done, "total": total}
        context.reporter.report("cross-fitting", trials, rung_completed=done == total, **values)
    return results.collect(min(plan.n_finalists, len(finalists)), plan.max_epochs)


def _drop_failures(outcome: ShardOutcome) -> None:
    for member in outcome.members:
        if member.failure is not None:
            member.state = member.prediction = member.snapshots = None


class _Results:
    """Networks and records of finalists, collected shard by shard."""

    def __init__(
        self, preparation: Preparation, finalists: Sequence[Trial], parts: Sequence[Part], rung: int
    ) -> None:
        self._preparation = preparation
        self._finalists = finalists
        self._parts = parts
        self._rung = rung
        self._selection = SnapshotSelection(preparation, parts)
        self._trials = {trial.number: trial for trial in finalists}
        self._networks: dict[int, dict[int, FoldNetwork]] = {trial.number: {} for trial in finalists}
        self._records: dict[int, list[RungRecord]] = {trial.number: [] for trial in finalists}
        self._stopped: set[int] = set()
        self.total_epochs: dict[int, float] = {}

    def begin(self, task: ShardTask) -> None:
        """Note the epochs of a task; the folds of a finalist can differ, and the most count."""
        for trial in task.trials:
            self.total_epochs[trial] = max(task.total_epochs, self.total_epochs.get(trial, 0.0))

    def add(self, fold: int, outcome: ShardOutcome) -> None:
        """Add the members of a shard of one fold."""
        if outcome.cut:
            self._stopped.update(member.trial for member in outcome.members)
        for member in outcome.members:
            record = RungRecord(0, self._rung, member.epochs, member.error, member.train_loss, member.seconds)
            self._records[member.trial].append(record)
            networks, config = self._networks[member.trial], self._trials[member.trial].config
            if member.failure is not None:
                trial = self._trials[member.trial]
                trial.state, trial.failure = TrialState.FAILED, member.failure
            elif member.snapshots is not None:
                transform = self._parts[fold].data.transform_of(config)
                chosen = self._selection.add(member.trial, fold, member.snapshots, transform)
                for number, (vector, epoch, residuals) in chosen.items():
                    prediction = predict_network(self._parts[number].data, config, vector, residuals)
                    networks[number] = FoldNetwork(vector, prediction, epoch, residuals)
            elif member.state is not None and member.prediction is not None:
                vector, prediction = member.state.vectors["best"], member.prediction
                data = self._parts[fold].data
                if (residuals := network_residuals(data, config, vector)) is not None:
                    prediction = predict_network(data, config, vector, residuals)
                networks[fold] = FoldNetwork(vector, prediction, member.best_epoch, residuals)

    def collect(self, planned: int, max_epochs: int) -> CrossFit:
        """Mark finalists that are complete, and gather their predictions."""
        n_folds = len(self._parts)
        sound = [trial for trial in self._finalists if trial.state is not TrialState.FAILED]
        complete = [trial for trial in sound if len(self._networks[trial.number]) == n_folds]
        networks = [[self._networks[trial.number][fold] for fold in range(n_folds)] for trial in complete]
        for trial in complete:
            trial.state = TrialState.COMPLETE
            trial.records.append(self._mean_record(trial))
        found = CrossFit.of_networks(self._preparation, self._parts, complete, networks)
        found.left_out = self._left_out(complete, planned, max_epochs)
        found.total_epochs = {trial.number: self.total_epochs[trial.number] for trial in complete}
        return found

    def _mean_record(self, trial: Trial) -> RungRecord:
        """One record for all folds; evaluation replaces its error by that of the out-of-fold predictions."""
        records = self._records[trial.number]
        return RungRecord(
            trial.records[-1].round,
            self._rung,
            max(record.epochs for record in records),
            sum(sorted(record.error for record in records)) / len(records),
            sum(sorted(record.train_loss for record in records)) / len(records),
            sum(record.seconds for record in records),
        )

    def _left_out(self, complete: Sequence[Trial], planned: int, max_epochs: int) -> list[str]:
        sentences = []
        expected = {t.number for t in self._finalists[:planned] if t.state is not TrialState.FAILED}
        missing = len(expected) - len(complete)
        if missing > 0:
            sentences.append(f"{missing} of {planned} finalists were not cross-fitted before the time limit")
        few = {number for number, epochs in self.total_epochs.items() if epochs < SHORT_SHARE * max_epochs}
        short = sum(trial.number in expected & (self._stopped | few) for trial in complete)
        if short:
            sentences.append(
                f"{short} of {planned} finalists trained for less than {max_epochs} epochs "
                "because of the time limit"
            )
        return sentences


def _out_of_fold(
    networks: Sequence[Sequence[FoldNetwork]], parts: Sequence[Part], rows: NDArray[np.intp]
) -> tuple[Tensor, Tensor]:
    """Out-of-fold predictions ``(P, C, n)`` of sorted rows, or NaN, and rows ``(n,)`` that have one."""
    predictions = torch.full(
        (len(networks), parts[0].head.n_predictions, len(rows)), math.nan, dtype=torch.float32
    )
    covered = torch.zeros(len(rows), dtype=torch.bool)
    for fold, part in enumerate(parts):
        mask = np.isin(part.predicted_rows, rows)
        places = torch.from_numpy(np.searchsorted(rows, part.predicted_rows[mask]))
        covered[places] = True
        columns = torch.from_numpy(mask)
        for index, folds in enumerate(networks):
            predictions[index][:, places] = folds[fold].prediction[:, columns]
    return predictions, covered
