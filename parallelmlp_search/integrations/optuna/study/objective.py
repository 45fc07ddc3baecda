"""Objective of a study: networks trained on one part of a table and scored on its validation rows."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.trial import Trial

from parallelmlp_search.data import Scaling
from parallelmlp_search.distribute import ShardData
from parallelmlp_search.exceptions import InvalidParameterError, SearchFailedError
from parallelmlp_search.integrations.optuna.compatibility import CONSTRAINTS_ATTR, HAS_TRIAL_CONSTRAINTS
from parallelmlp_search.integrations.optuna.study.batch import Batch, Result
from parallelmlp_search.integrations.optuna.study.candidate import (
    Candidate,
    Objective,
    check_direction,
    check_objective,
    evaluate_objective,
)
from parallelmlp_search.integrations.optuna.study.heartbeat import FIRST_TRY_ATTR, SEED_ATTR
from parallelmlp_search.integrations.optuna.study.suggest import resolve_space, suggest
from parallelmlp_search.search import Problem, SearchSettings
from parallelmlp_search.search.problem.devices import resolve_device
from parallelmlp_search.search.problem.preparation import Preparation
from parallelmlp_search.search.problem.settings import implied_task
from parallelmlp_search.search.problem.target_transforms import transforms_of
from parallelmlp_search.search.run.budget import Throughput, default_epochs
from parallelmlp_search.search.screening.rungs import ladder
from parallelmlp_search.selection import Costs, Metric
from parallelmlp_search.space import MLPConfig, SearchSpace, monotone_space
from parallelmlp_search.space.config import TARGET_TRANSFORMS

Space = SearchSpace | str | os.PathLike[str] | Mapping[str, Any] | Callable[[Trial], MLPConfig]
"""Search space, name of a preset, file, mapping, or function from a trial to a configuration."""


@dataclass(eq=False)
class PreparedObjective:
    """Objective of a study on prepared tensors."""

    data: ShardData  # training and validation rows
    space: SearchSpace | Callable[[Trial], MLPConfig]
    metric: Metric  # reported in its own orientation
    rungs: tuple[float, ...]  # epochs at which trials report
    seed: int  # seed of the weights, together with the number of the trial
    objectives: tuple[Objective, ...] = ("score",)
    constraints: Mapping[str, Callable[[Candidate], float]] = field(default_factory=dict)

    @property
    def steps(self) -> tuple[int, ...]:
        """Optuna steps of the rungs: their epochs, or 1, 2, ... if these are not whole."""
        if all(epochs == int(epochs) for epochs in self.rungs):
            return tuple(int(epochs) for epochs in self.rungs)
        return tuple(range(1, len(self.rungs) + 1))

    def configure(self, trial: Trial) -> MLPConfig:
        """Return the configuration that a trial suggests.

        Raises
        ------
        InvalidParameterError
            If a user-defined space returns something else.
        """
        if not isinstance(self.space, SearchSpace):
            config = self.space(trial)
            if not isinstance(config, MLPConfig):
                raise InvalidParameterError(f"space must return an MLPConfig, but got {config!r}")
            return config
        attributes = trial.user_attrs
        seed = self.seed + attributes.get(FIRST_TRY_ATTR, trial.number)
        if FIRST_TRY_ATTR in attributes:  # the retry of a lost trial trains the same network
            seed = attributes.get(SEED_ATTR, seed)
        return suggest(trial, self.space, seed=seed)

    def check(self, study: optuna.Study) -> None:
        """Check that a study fits the objectives and constraints.

        Raises
        ------
        InvalidParameterError
            If the number of directions differs from the number of objectives, a direction is wrong, or the
            sampler would ignore the constraints.
        """
        # samplers of Optuna 4 that know constraints have `_constraints_func`
        ignores_constraints = getattr(study.sampler, "_constraints_func", True) is None
        if self.constraints and not HAS_TRIAL_CONSTRAINTS and ignores_constraints:
            raise InvalidParameterError(
                f"constraints under Optuna {optuna.__version__} need a sampler that asks for them: create "
                f"{type(study.sampler).__name__} with constraints_func=constraints_of"
            )
        directions = study.directions
        if len(directions) != len(self.objectives):
            raise InvalidParameterError(
                f"objectives must be as many as the study has directions ({len(directions)}), "
                f"but got {len(self.objectives)}"
            )
        for objective, direction in zip(self.objectives, directions, strict=True):
            if objective == "score":
                verb = "maximize" if self.metric.greater_is_better else "minimize"
                check_direction(direction, f"{verb} {self.metric.name}")
            elif not callable(objective):
                check_direction(direction, f"minimize {objective}")

    def score(self, result: Result) -> float:
        """Return the score of a network, in the metric's own orientation."""
        return self.metric.to_score(result.outcome.error)

    def values(self, result: Result) -> list[float]:
        """Return the values of a completely trained trial."""
        candidate = self._candidate(result)
        return [evaluate_objective(objective, candidate) for objective in self.objectives]

    def set_attributes(self, trial: Trial, result: Result) -> None:
        """Write the size, times, seed, failure and constraints of a network on its trial."""
        outcome = result.outcome
        trial.set_user_attr("n_parameters", outcome.n_parameters)
        trial.set_user_attr("epochs", outcome.epochs)
        trial.set_user_attr("train_seconds", outcome.seconds)
        trial.set_user_attr(SEED_ATTR, result.config.seed)
        if outcome.failure is not None:
            trial.set_user_attr("failure", outcome.failure)
            return
        candidate = self._candidate(result)
        violations = {name: float(constraint(candidate)) for name, constraint in self.constraints.items()}
        if HAS_TRIAL_CONSTRAINTS:
            for name, violation in violations.items():
                trial.set_constraint(name, violation)
        elif violations:
            trial.storage.set_trial_system_attr(trial._trial_id, CONSTRAINTS_ATTR, list(violations.values()))

    def _candidate(self, result: Result) -> Candidate:
        return Candidate(result.config, self.score(result), self.data.architecture(result.config))

    def __call__(self, trial: Trial) -> float | tuple[float, ...]:
        """Train the network of one trial alone.

        Raises
        ------
        optuna.TrialPruned
            If the study's pruner ends the trial.
        SearchFailedError
            If the network diverged.
        """
        self.check(trial.study)
        batch = Batch({trial.number: self.configure(trial)}, self.data, self.rungs, Throughput(1))
        for rung, step in enumerate(self.steps):
            (result,) = batch.train(rung, [trial.number]).values()
            if result.outcome.failure is not None:
                self.set_attributes(trial, result)
                raise SearchFailedError(f"trial {trial.number} failed: {result.outcome.failure}")
            if len(self.objectives) > 1:
                continue
            trial.report(self.score(result), step)
            if step != self.steps[-1] and trial.should_prune():
                self.set_attributes(trial, result)
                raise optuna.TrialPruned
        self.set_attributes(trial, result)
        values = self.values(result)
        return values[0] if len(values) == 1 else tuple(values)


class PackedObjective(PreparedObjective):
    """Objective of a study on a table, for single trials or packed batches.

    Called with a trial, it is an ordinary Optuna objective: it trains one network, reports its score at every
    rung, and obeys the study's pruner. With :func:`~parallelmlp_search.integrations.optuna.optimize`, many
    trials are trained together. Each gets the result that it would get alone, up to rounding.

    Parameters
    ----------
    X, y
        Features ``(n_samples, n_features)`` and target, as for the estimators; or a table and the name of its
        target column.
    space
        Search space, name of a preset, file, mapping, or function from a trial to a configuration.
    task
        ``binary``, ``multiclass``, ``regression``, ``classification``, or None to infer it from ``y``.
    metric
        Metric to report, in its own orientation; None for the default of the task.
    loss
        Training loss; None for the default of the task.
    cost_matrix, ordinal
        Costs of errors, or ordered classes, as for :class:`~parallelmlp_search.ParallelMLPClassifier`.
    max_epochs
        Epochs of full training; None chooses by the size of the table.
    reduction_factor
        Ratio of the epochs of successive rungs, at which scores are reported.
    objectives
        Values of a trial: names among :data:`OBJECTIVES` or functions of a :class:`Candidate`, one per
        direction of the study.
    constraints
        Functions of a :class:`Candidate`, by name. A trial is feasible if none is above zero. With Optuna 4,
        create the sampler with ``constraints_func=constraints_of``.
    sample_weight, groups, time
        One value per row, or None: weight, group that stays in one part, time by which rows are split. Names
        of columns if `y` is one.
    class_weight
        None, ``balanced`` or a mapping from class to weight.
    scaling, numeric_bins
        Scaling of numeric columns, and the number of bins that they are also encoded in; 0 for none.
    monotonic
        1 or -1 by the name of a column in which predictions may only grow or fall; the space is limited to
        networks that can be monotone, and a function must return such configurations.
    seed
        Seed of the split, of the batches, and, together with the number of the trial, of the weights.
    device
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Attributes
    ----------
    rungs
        Epochs at which trials report.
    metric
        The metric.

    Raises
    ------
    InvalidParameterError
        If a parameter is invalid.
    DataError
        If the table or the target is unusable.
    """

    def __init__(
        self,
        X: Any,
        y: Any,
        space: Space = "default",
        *,
        task: str | None = None,
        metric: str | None = None,
        loss: str | None = None,
        cost_matrix: Any = None,
        ordinal: bool | Sequence[Any] = False,
        max_epochs: int | None = None,
        reduction_factor: int = 3,
        objectives: Sequence[Objective] = ("score",),
        constraints: Mapping[str, Callable[[Candidate], float]] | None = None,
        sample_weight: Any = None,
        groups: Any = None,
        time: Any = None,
        class_weight: str | Mapping[Any, float] | None = None,
        scaling: Scaling = "robust",
        numeric_bins: int | None = None,
        monotonic: Mapping[str, int] | None = None,
        seed: int = 0,
        device: str = "auto",
    ) -> None:
        costs = Costs.of(cost_matrix, ordinal)
        settings = SearchSettings(
            metric=metric,
            loss=loss,
            costs=costs,
            max_epochs=max_epochs,
            reduction_factor=reduction_factor,
            scaling=scaling,
            numeric_bins=numeric_bins,
            monotonic=monotonic,
            tune_thresholds=False,  # trials report the plain metric
            seed=seed,
            device=device,
        )
        space = space if callable(space) else resolve_space(space)
        if settings.monotonic is not None and isinstance(space, SearchSpace):
            space = monotone_space(space)
        objectives = tuple(check_objective(objective) for objective in objectives)
        if not objectives:
            raise InvalidParameterError("objectives must hold at least one, but got none")
        task = implied_task(task, loss, costs)
        problem = Problem.from_table(
            X, y, task=task, weight=sample_weight, groups=groups, time=time, class_weight=class_weight
        )
        transforms = TARGET_TRANSFORMS if callable(space) else transforms_of(space)
        preparation = Preparation(problem, settings, resolve_device(device), transforms=transforms)
        data = preparation.screening().data
        rungs = ladder(max_epochs or default_epochs(data.n_rows / 128), reduction_factor)
        super().__init__(data, space, preparation.metric, rungs, seed, objectives, dict(constraints or {}))
