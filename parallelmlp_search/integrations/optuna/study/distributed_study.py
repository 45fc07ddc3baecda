"""Screening shared by several workers, on one machine or many, through a study in a storage.

Each worker asks for batches, trains them packed and tells the results. Workers may come and go: the trials of
a killed worker are trained by another. Once the study has all its trials, each remaining worker selects
finalists from all of them.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler, QMCSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from parallelmlp_search.exceptions import InvalidParameterError, RunDirectoryError
from parallelmlp_search.integrations.optuna.sampler.refinement import RefinementSampler
from parallelmlp_search.integrations.optuna.storage.storages import open_storage
from parallelmlp_search.integrations.optuna.study.heartbeat import (
    RETRY_OF_ATTR,
    duplicate_retries,
    excess_trials,
    retried_trials,
)
from parallelmlp_search.integrations.optuna.study.objective import PreparedObjective
from parallelmlp_search.integrations.optuna.study.pruner import RungPruner
from parallelmlp_search.integrations.optuna.study.run_study import config_of_trial
from parallelmlp_search.integrations.optuna.study.trainer import Trainer, TrainingOptions
from parallelmlp_search.search import SearchSettings, Trial
from parallelmlp_search.search import TrialState as State
from parallelmlp_search.search.proposals.distributions import asked_of
from parallelmlp_search.search.proposals.optuna_sampler import named_sampler, quiet
from parallelmlp_search.search.run.budget import SearchPlan
from parallelmlp_search.search.run.context import SearchContext
from parallelmlp_search.search.run.progress import Reporter
from parallelmlp_search.search.run.trial import RungRecord

TERMS_ATTR = "question"
"""User attribute of the study: the settings on which all its workers must agree."""

MAX_WAIT_SECONDS = 30.0
"""Longest wait of a worker for the creator of the study to write its settings."""

POLL_SECONDS = 0.5

MIN_BATCH_SIZE, MAX_BATCH_SIZE = 4, 128

N_STARTUP_TRIALS = 64
"""Random trials before refinement if the number of trials is not given."""


@dataclass
class SharedStudy:
    """Screening together with the other workers of a study.

    Parameters
    ----------
    storage
        URL of an Optuna storage, or ``journal:FILE``.
    name
        Name of the study.
    heartbeat
        Seconds between heartbeats.
    must_exist
        If True, the study must exist already, as when a run is resumed.
    """

    storage: str
    name: str
    heartbeat: float = 10.0
    must_exist: bool = False

    def agree(self, context: SearchContext, rungs: tuple[float, ...]) -> tuple[float, ...]:
        """Create the study with these rungs, or join it if it has the same settings; return its rungs.

        Raises
        ------
        InvalidParameterError
            If the study has other data, another space, metric or seed, or was not created by a search, or if
            the sampler cannot be shared.
        RunDirectoryError
            If the study must exist and does not.
        """
        settings, metric = context.settings, context.preparation.metric
        check_shareable(settings)
        self._metric, self._settings = metric, settings
        terms: dict[str, Any] = {
            "data": context.preparation.problem.fingerprint(),
            "search_space": settings.space.to_dict(),
            "metric": metric.name,
            "seed": settings.seed,
            "reduction_factor": settings.reduction_factor,
            "rungs": list(rungs),
        }
        direction = StudyDirection.MAXIMIZE if metric.greater_is_better else StudyDirection.MINIMIZE
        storage = open_storage(self.storage, must_exist=self.must_exist)
        assert storage is not None
        with quiet():
            if self.must_exist and self.name not in optuna.get_all_study_names(storage):
                raise RunDirectoryError(
                    f"there is no study {self.name!r} in {self.storage!r} any more: start the search anew"
                )
            try:
                study = optuna.create_study(storage=storage, study_name=self.name, direction=direction)
            except optuna.exceptions.DuplicatedStudyError:
                study = optuna.load_study(study_name=self.name, storage=storage)
                self._check_terms(terms, self._wait_for_terms(study))
            else:
                for config in settings.initial:
                    params, _ = asked_of(settings.space, config)
                    study.enqueue_trial(params, user_attrs={"origin": "initial"})
                study.set_user_attr(TERMS_ATTR, terms)
        study.pruner = RungPruner(settings.reduction_factor)
        self._study = study
        return tuple(study.user_attrs[TERMS_ATTR]["rungs"])

    def _wait_for_terms(self, study: optuna.Study) -> dict[str, Any]:
        until = time.monotonic() + MAX_WAIT_SECONDS
        while TERMS_ATTR not in study.user_attrs:
            # the creator of a study enqueues initial trials before it writes the terms
            foreign = any(
                trial.user_attrs.get("origin") != "initial" for trial in study.get_trials(deepcopy=False)
            )
            if foreign or time.monotonic() > until:
                raise InvalidParameterError(
                    f"the study {self.name!r} in {self.storage!r} was not made by a shared search: "
                    "choose another name"
                )
            time.sleep(POLL_SECONDS)
        return dict(study.user_attrs[TERMS_ATTR])

    def _check_terms(self, own: dict[str, Any], terms: dict[str, Any]) -> None:
        for name, value in own.items():
            if name != "rungs" and terms.get(name) != value:
                short = name in ("metric", "seed", "reduction_factor")
                detail = f": {terms.get(name)!r}, but got {value!r}" if short else ""
                raise InvalidParameterError(
                    f"the study {self.name!r} was started with another {name.replace('_', ' ')}{detail}; "
                    "join it with the same, or choose another name"
                )

    def screen(self, context: SearchContext, plan: SearchPlan) -> tuple[list[Trial], list[str]]:
        """Train batches until the study has its trials, or the deadline is reached.

        Returns
        -------
        tuple of (list of Trial, list of str)
            Trials of all workers, numbered from 0, and sentences on work that a deadline left out.
        """
        study, settings, reporter = self._study, context.settings, context.reporter
        self._n_trials = n_trials = _number_of_trials(settings, plan)
        with quiet():
            study.sampler = _sampler(settings, n_trials)
        objective = PreparedObjective(context.data, settings.space, self._metric, plan.rungs, settings.seed)
        trainer = Trainer(
            study,
            objective,
            TrainingOptions(heartbeat=self.heartbeat),
            plan.deadline,
            throughput=context.throughput,
            all_workers_beat=True,
        )

        def is_over() -> bool:
            late = plan.deadline is not None and time.monotonic() >= plan.deadline
            return late or reporter.stopped

        n_batches = 0
        with quiet(), trainer:
            while not is_over():
                trainer.heartbeat.retry_lost_trials()
                trials = study.get_trials(deepcopy=False)
                count = _batch_size(trials, n_trials, trainer.heartbeat.n_other_workers())
                if count == 0:
                    if all(trial.state.is_finished() for trial in trials):
                        break
                    with trainer.interrupts.allowed():
                        time.sleep(POLL_SECONDS)  # other workers still train, and may be killed
                    continue
                n_remaining = max(0.0, n_trials - len(trials))
                trainer.run_batch(count, is_over, n_remaining=n_remaining, max_trials=n_trials)
                n_batches += 1
                self._report(reporter, self._trials(objective), plan, n_batches, final=False)
        found = self._trials(objective)
        self._report(reporter, found, plan, n_batches, final=True)
        for trial in found:
            if trial.state is State.WAITING:
                trial.state = State.PRUNED
        left_out = []
        if plan.deadline is not None and len(found) < n_trials < math.inf:
            left_out.append(f"{len(found)} of {n_trials:.0f} trials were begun in the time for screening")
        return found, left_out

    def _report(
        self, reporter: Reporter, trials: list[Trial], plan: SearchPlan, n_batches: int, *, final: bool
    ) -> None:
        finished = sum(trial.state is not State.WAITING for trial in trials)
        reporter.report(
            "screening",
            trials,
            rung_completed=not final,
            round=n_batches,
            rung=len(plan.rungs) - 1,
            n_rungs=len(plan.rungs),
            alive=len(trials) - finished,
            done=finished,
            total=len(trials) if self._n_trials == math.inf else int(self._n_trials),
        )

    def _trials(self, objective: PreparedObjective) -> list[Trial]:
        """Return the study's trials as trials of a search, numbered anew without lost and excess ones."""
        frozen = self._study.get_trials(deepcopy=False)
        left_out = retried_trials(frozen) | duplicate_retries(frozen) | excess_trials(frozen, self._n_trials)
        found: list[Trial] = []
        for one in frozen:
            config = config_of_trial(one, self._settings.space)
            if one.number in left_out or config is None:
                continue
            found.append(_as_trial(len(found), one, config, objective, self._settings.sampler_name))
        return found


def check_shareable(settings: SearchSettings) -> None:
    """Check that several workers can share a search.

    Raises
    ------
    InvalidParameterError
        If the sampler draws a grid, because each worker would draw all of it.
    """
    if settings.sampler == "grid":
        raise InvalidParameterError("sampler 'grid' cannot be shared: use random, qmc, tpe, cmaes or gp")


def _number_of_trials(settings: SearchSettings, plan: SearchPlan) -> float:
    """Return the number of trials of the study; infinite if only the deadline ends it."""
    wanted = math.inf if plan.deadline is not None and settings.n_trials is None else 0.0
    return min(max(wanted, float(plan.n_fresh + plan.n_refined)), settings.space.size())


def _batch_size(trials: list[FrozenTrial], n_trials: float, n_other_workers: int) -> int:
    """Return the size of the next batch: half of this worker's share of what is left, within limits."""
    waiting = sum(trial.state is TrialState.WAITING for trial in trials)
    own = sum(RETRY_OF_ATTR not in trial.user_attrs for trial in trials)
    left = max(0.0, n_trials - own + waiting)
    if left == 0:
        return waiting and math.ceil(waiting / (n_other_workers + 1))
    wanted = MAX_BATCH_SIZE if left == math.inf else math.ceil(left / (2 * (n_other_workers + 1)))
    return int(min(left, max(MIN_BATCH_SIZE, min(MAX_BATCH_SIZE, wanted))))


def _as_trial(
    number: int, frozen: FrozenTrial, config: Any, objective: PreparedObjective, origin: str
) -> Trial:
    trial = Trial(number, config, origin, 0)
    trial.n_parameters = objective.data.architecture(config).n_parameters
    if frozen.state.is_finished():
        trial.state = State.PRUNED
    if frozen.state is TrialState.FAIL:
        trial.state = State.FAILED
        trial.failure = str(frozen.user_attrs.get("failure", "its worker was lost"))
    steps = objective.steps
    seconds = float(frozen.user_attrs.get("train_seconds", 0.0))
    for step, score in sorted(frozen.intermediate_values.items()):
        rung = steps.index(step)
        error = objective.metric.to_error(score)
        last = step == frozen.last_step
        trial.records.append(
            RungRecord(0, rung, objective.rungs[rung], error, math.nan, seconds if last else 0.0)
        )
    return trial


def _sampler(settings: SearchSettings, n_trials: float) -> BaseSampler:
    """Return a sampler with a random seed, so that workers do not draw the same trials."""
    name = settings.sampler_name
    seed = int(np.random.SeedSequence().generate_state(1)[0] >> 1)
    if name == "random":
        n_startup = N_STARTUP_TRIALS if n_trials == math.inf else round((1 - settings.refinement) * n_trials)
        return RefinementSampler(n_startup_trials=n_startup, seed=seed)
    if name == "qmc":
        return QMCSampler(scramble=True, seed=settings.seed, warn_independent_sampling=False)
    return named_sampler(name, seed)
