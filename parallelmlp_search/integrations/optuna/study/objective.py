"""What a trial is worth: its network trained on one part of a table and judged by another."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial

from parallelmlp_search.data import Scaling, as_frame, infer_task
from parallelmlp_search.distribute import MemberOutcome, ShardData
from parallelmlp_search.exceptions import InvalidParameterError, SearchFailedError
from parallelmlp_search.integrations.optuna.study.batch import Batch
from parallelmlp_search.integrations.optuna.study.candidate import (
    Candidate,
    Objective,
    checked_objective,
    value_of,
)
from parallelmlp_search.integrations.optuna.study.heartbeat import FIRST, SEED
from parallelmlp_search.integrations.optuna.study.suggest import resolved, suggest
from parallelmlp_search.search import Problem, SearchSettings
from parallelmlp_search.search.problem.devices import resolve_device
from parallelmlp_search.search.problem.preparation import Preparation
from parallelmlp_search.search.run.budget import default_epochs
from parallelmlp_search.search.screening.rungs import ladder
from parallelmlp_search.selection import Metric
from parallelmlp_search.space import MLPConfig, SearchSpace

__all__ = ["PackedObjective", "PreparedObjective", "Space", "constraints_of"]

KNOWS_CONSTRAINTS = hasattr(Trial, "set_constraint")
"""Whether a trial has constraints of its own, as from Optuna 5 on; before, samplers asked for them."""

CONSTRAINTS = "constraints"
"""System attribute under which Optuna 4 keeps the constraints of a trial."""

Space = SearchSpace | str | os.PathLike[str] | Mapping[str, Any] | Callable[[Trial], MLPConfig]
"""A space, or what names one, or a function that lets a trial suggest a configuration."""


def constraints_of(trial: FrozenTrial) -> list[float]:
    """Constraints of a packed trial, for the ``constraints_func`` of samplers of Optuna 4."""
    if KNOWS_CONSTRAINTS:
        return list(trial.constraints.values())
    return list(trial.system_attrs.get(CONSTRAINTS, ()))


def _is_blind(sampler: BaseSampler) -> bool:
    """Whether a sampler could ask for constraints, and does not."""
    return getattr(sampler, "_constraints_func", True) is None


class PreparedObjective:
    """The question that the trials of a study answer, on tensors that are prepared already.

    Parameters
    ----------
    data
        What networks train on and are judged by.
    space
        A search space, or a function from a trial to a configuration.
    metric
        What is reported, in its own orientation.
    rungs
        Epochs at which trials report.
    seed
        Seed of the weights, together with the number of the trial.
    objectives, constraints
        As of :class:`PackedObjective`.
    """

    def __init__(
        self,
        data: ShardData,
        space: SearchSpace | Callable[[Trial], MLPConfig],
        metric: Metric,
        rungs: tuple[float, ...],
        seed: int,
        *,
        objectives: tuple[Objective, ...] = ("score",),
        constraints: Mapping[str, Callable[[Candidate], float]] | None = None,
    ) -> None:
        self.data = data
        self.space = space
        self.metric = metric
        self.rungs = rungs
        self.seed = seed
        self.objectives = objectives
        self.constraints = dict(constraints or {})

    @property
    def steps(self) -> tuple[int, ...]:
        """Steps under which the rungs report: their epochs, or 1, 2, ... where those are not whole."""
        if all(epochs == int(epochs) for epochs in self.rungs):
            return tuple(int(epochs) for epochs in self.rungs)
        return tuple(range(1, len(self.rungs) + 1))

    def configure(self, trial: Trial) -> MLPConfig:
        """The configuration that a trial suggests."""
        if not isinstance(self.space, SearchSpace):
            config = self.space(trial)
            if not isinstance(config, MLPConfig):
                raise InvalidParameterError(f"space must return an MLPConfig, but got {config!r}")
            return config
        attributes = trial.user_attrs
        seed = self.seed + attributes.get(FIRST, trial.number)
        if FIRST in attributes:  # a trial that is tried again because its worker died is the same network
            seed = attributes.get(SEED, seed)
        return suggest(trial, self.space, seed=seed)

    def check(self, study: optuna.Study) -> None:
        """Refuse a study that looks for something else.

        Raises
        ------
        InvalidParameterError
            If the study has not one direction for each objective, or looks for the worst score; or if its
            sampler would not see the constraints.
        """
        if self.constraints and not KNOWS_CONSTRAINTS and _is_blind(study.sampler):
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
            if callable(objective):
                continue
            up = objective == "score" and self.metric.greater_is_better
            if (direction is StudyDirection.MAXIMIZE) != up:
                name = self.metric.name if objective == "score" else objective
                wanted = "maximize" if up else "minimize"
                raise InvalidParameterError(
                    f"the study must {wanted} {name}, but its direction is {direction.name.lower()}: "
                    f"create it with {wanted!r}"
                )

    def score(self, outcome: MemberOutcome) -> float:
        """Score of a member, in the metric's own orientation."""
        return self.metric.to_score(outcome.error)

    def values(self, config: MLPConfig, outcome: MemberOutcome) -> list[float]:
        """Values of a trial whose training is complete."""
        candidate = self._candidate(config, outcome)
        return [value_of(objective, candidate) for objective in self.objectives]

    def note(self, trial: Trial, config: MLPConfig, outcome: MemberOutcome) -> None:
        """Keep on a trial what its values do not say."""
        trial.set_user_attr("n_parameters", outcome.n_parameters)
        trial.set_user_attr("epochs", outcome.epochs)
        trial.set_user_attr("train_seconds", outcome.seconds)
        trial.set_user_attr(SEED, config.seed)
        if outcome.failure is not None:
            trial.set_user_attr("failure", outcome.failure)
            return
        candidate = self._candidate(config, outcome)
        violations = {name: float(constraint(candidate)) for name, constraint in self.constraints.items()}
        if KNOWS_CONSTRAINTS:
            for name, violation in violations.items():
                trial.set_constraint(name, violation)
        elif violations:
            trial.storage.set_trial_system_attr(trial._trial_id, CONSTRAINTS, list(violations.values()))

    def _candidate(self, config: MLPConfig, outcome: MemberOutcome) -> Candidate:
        return Candidate(config, self.score(outcome), self.data.architecture(config))

    def __call__(self, trial: Trial) -> float | tuple[float, ...]:
        """Train the network of one trial alone.

        Raises
        ------
        optuna.TrialPruned
            If the study's pruner says so.
        SearchFailedError
            If the network diverged.
        """
        self.check(trial.study)
        config = self.configure(trial)
        batch = Batch([config], self.data, self.rungs[-1], n_workers=1)
        for rung, epochs in enumerate(self.rungs):
            (outcome,) = batch.advance([0], epochs).values()
            if outcome.failure is not None:
                self.note(trial, config, outcome)
                raise SearchFailedError(f"trial {trial.number} failed: {outcome.failure}")
            if len(self.objectives) > 1:
                continue
            trial.report(self.score(outcome), self.steps[rung])
            if rung < len(self.rungs) - 1 and trial.should_prune():
                self.note(trial, config, outcome)
                raise optuna.TrialPruned
        self.note(trial, config, outcome)
        values = self.values(config, outcome)
        return values[0] if len(values) == 1 else tuple(values)


class PackedObjective(PreparedObjective):
    """The question that the trials of a study answer, asked one at a time or many at once.

    Called with a trial it is an ordinary Optuna objective: the trial's network is trained alone, its score
    is reported at every rung, and the study's pruner may end it. Handed to
    :func:`~parallelmlp_search.integrations.optuna.optimize`, many trials are trained at once, each with the
    result that it would have alone, to rounding.

    Parameters
    ----------
    X, y
        Features and target of ``n`` rows, as the estimators take them.
    space
        A search space, a preset's name, a file, a mapping, or a function from a trial to a configuration.
    task
        ``binary``, ``multiclass``, ``regression``, ``classification``, or None to tell from ``y``.
    metric
        What is reported, in its own orientation; None for the task's default.
    max_epochs
        Epochs of full training; None chooses by the size of the table.
    reduction_factor
        Rungs, at which scores are reported, are this many times apart.
    objectives
        What a trial's values are: names of :data:`OBJECTIVES` or functions of a
        :class:`Candidate`, one for each direction of the study.
    constraints
        Functions of a :class:`Candidate` by name; a trial is feasible where none is above zero. Samplers that
        know constraints read them; under Optuna 4, if they have ``constraints_func=constraints_of``.
    sample_weight, groups, time
        One value a row: its weight, the group that is never torn apart, the moment that orders rows.
    class_weight
        None, ``balanced`` or a mapping.
    scaling, numeric_bins
        How numeric columns are scaled, and into how many pieces they are also encoded; 0 for none.
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
    """

    def __init__(
        self,
        X: Any,
        y: Any,
        space: Space = "default",
        *,
        task: str | None = None,
        metric: str | None = None,
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
        seed: int = 0,
        device: str = "auto",
    ) -> None:
        settings = SearchSettings(
            metric=metric,
            max_epochs=max_epochs,
            reduction_factor=reduction_factor,
            scaling=scaling,
            numeric_bins=numeric_bins,
            tune_thresholds=False,  # trials report the plain metric
            seed=seed,
            device=device,
        )
        space = space if callable(space) else resolved(space)
        objectives = tuple(checked_objective(objective) for objective in objectives)
        if not objectives:
            raise InvalidParameterError("objectives must hold at least one, but got none")
        device = resolve_device(device)
        target = np.asarray(y)
        problem = Problem(
            as_frame(X).reset_index(drop=True),
            target,
            infer_task(target, task),
            weight=_column(sample_weight),
            groups=_column(groups),
            time=_column(time),
            class_weight=class_weight,
        )
        preparation = Preparation(problem, settings, device)
        data = preparation.screening().data
        rungs = ladder(max_epochs or default_epochs(data.rows.inputs.shape[0] / 128), reduction_factor)
        super().__init__(
            data, space, preparation.metric, rungs, seed, objectives=objectives, constraints=constraints
        )


def _column(values: Any) -> Any:
    return None if values is None else np.asarray(values)
