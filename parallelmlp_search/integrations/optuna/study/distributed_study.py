"""One screening shared by several workers, on one machine or many: a study in a storage is what they share.

Each worker asks for batches, trains them packed and tells the outcome; a storage of Optuna is all that they
need in common. Workers may come and go: the trials of one that was killed are trained by another. When the
study has all its trials, every worker that stays goes on to finalists from all of them.
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

from parallelmlp_search.distribute import ShardData
from parallelmlp_search.exceptions import InvalidParameterError, RunDirectoryError
from parallelmlp_search.integrations.optuna.sampler.refinement import RefinementSampler
from parallelmlp_search.integrations.optuna.storage.storages import open_storage
from parallelmlp_search.integrations.optuna.study.heartbeat import RETRY_OF, retried, superfluous, surplus
from parallelmlp_search.integrations.optuna.study.objective import PreparedObjective
from parallelmlp_search.integrations.optuna.study.pruner import RungPruner
from parallelmlp_search.integrations.optuna.study.run_study import config_of_trial
from parallelmlp_search.integrations.optuna.study.trainer import Trainer
from parallelmlp_search.search import Problem, SearchSettings, Trial
from parallelmlp_search.search import TrialState as State
from parallelmlp_search.search.proposals.distributions import asked_of
from parallelmlp_search.search.proposals.optuna_sampler import named_sampler, quiet
from parallelmlp_search.search.run.budget import Throughput
from parallelmlp_search.search.run.reporting import Reporter
from parallelmlp_search.search.run.trial import RungRecord
from parallelmlp_search.search.screening.screening import ScreeningPlan
from parallelmlp_search.selection import Metric

__all__ = ["SharedStudy", "check_shareable"]

TERMS = "question"
"""User attribute of the study: what all its workers must agree on."""

PATIENCE_SECONDS = 30.0
"""How long a worker waits for the one that made the study to write its terms."""

PAUSE_SECONDS = 0.5

SMALLEST, LARGEST = 4, 128
"""Trials of a batch."""

FRESH_WITHOUT_END = 64
"""Random trials before refinement where no number of trials is given."""


@dataclass
class SharedStudy:
    """Screens together with whoever works on the same study.

    Parameters
    ----------
    storage
        URL of a storage of Optuna, or ``journal:FILE``.
    name
        Name of the study.
    heartbeat
        Seconds between signs of life.
    n_jobs
        Workers inside this process; None for all cores.
    must_exist
        Whether the study has to be there already, as when a run is resumed.
    """

    storage: str
    name: str
    heartbeat: float = 10.0
    n_jobs: int | None = None
    must_exist: bool = False

    def agree(
        self, problem: Problem, settings: SearchSettings, metric: Metric, rungs: tuple[float, ...]
    ) -> tuple[float, ...]:
        """Make the study, or join it if it asks the same question; the rungs are those of its maker.

        Raises
        ------
        InvalidParameterError
            If the study has other data, another space, metric or seed, or was not made by a search; or if
            the sampler cannot be shared.
        RunDirectoryError
            If it has to be there and is not.
        """
        check_shareable(settings)
        self._metric, self._settings = metric, settings
        terms: dict[str, Any] = {
            "data": problem.fingerprint(),
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
                self._check(terms, self._terms(study))
            else:
                for config in settings.initial:
                    params, _ = asked_of(settings.space, config)
                    study.enqueue_trial(params, user_attrs={"origin": "initial"})
                study.set_user_attr(TERMS, terms)
        study.pruner = RungPruner(settings.reduction_factor)
        self._study = study
        return tuple(study.user_attrs[TERMS]["rungs"])

    def _terms(self, study: optuna.Study) -> dict[str, Any]:
        until = time.monotonic() + PATIENCE_SECONDS
        while TERMS not in study.user_attrs:
            # whoever makes a study enqueues initial trials before it writes the terms
            foreign = any(
                trial.user_attrs.get("origin") != "initial" for trial in study.get_trials(deepcopy=False)
            )
            if foreign or time.monotonic() > until:
                raise InvalidParameterError(
                    f"the study {self.name!r} in {self.storage!r} was not made by a shared search: "
                    "choose another name"
                )
            time.sleep(PAUSE_SECONDS)
        return dict(study.user_attrs[TERMS])

    def _check(self, mine: dict[str, Any], theirs: dict[str, Any]) -> None:
        for name, value in mine.items():
            if name != "rungs" and theirs.get(name) != value:
                short = name in ("metric", "seed", "reduction_factor")
                detail = f": {theirs.get(name)!r}, but got {value!r}" if short else ""
                raise InvalidParameterError(
                    f"the study {self.name!r} was started with another {name.replace('_', ' ')}{detail}; "
                    "join it with the same, or choose another name"
                )

    # ------------------------------------------------------------------ screening

    def screen(
        self,
        data: ShardData,
        settings: SearchSettings,
        plan: ScreeningPlan,
        throughput: Throughput,
        reporter: Reporter,
    ) -> tuple[list[Trial], list[str]]:
        """Train batches until the study has its trials, or the deadline is reached."""
        study = self._study
        self._wanted = target = self._target(settings, plan)
        with quiet():
            study.sampler = _sampler(settings, target)
        objective = PreparedObjective(data, settings.space, self._metric, plan.rungs, settings.seed)
        trainer = Trainer(
            study,
            objective,
            self.n_jobs,
            heartbeat=self.heartbeat,
            deadline=plan.deadline,
            alone_with_ours=True,
        )

        def over() -> bool:
            late = plan.deadline is not None and time.monotonic() >= plan.deadline
            return late or reporter.stopped

        n_batches = 0
        with quiet(), trainer:
            while not over():
                trainer.attendance.sweep()
                trials = study.get_trials(deepcopy=False)
                count = self._share(trials, target, trainer.attendance.others())
                if count == 0:
                    if all(trial.state.is_finished() for trial in trials):
                        break
                    with trainer.interrupts.allowed():
                        time.sleep(PAUSE_SECONDS)  # others are still at work, and may yet be killed
                    continue
                before = trainer.member_steps
                trainer.run(count, over, remaining=max(0.0, target - len(trials)), wanted=target)
                throughput.member_steps += trainer.member_steps - before
                n_batches += 1
                self._report(reporter, self._trials(objective), plan, n_batches, target, final=False)
        found = self._trials(objective)
        self._report(reporter, found, plan, n_batches, target, final=True)
        for trial in found:
            if trial.state is State.WAITING:
                trial.state = State.PRUNED
        cut = []
        if plan.deadline is not None and len(found) < target < math.inf:
            cut.append(f"{len(found)} of {target:.0f} trials were begun in the time for screening")
        return found, cut

    def _target(self, settings: SearchSettings, plan: ScreeningPlan) -> float:
        wanted = math.inf if plan.deadline is not None and settings.n_trials is None else 0.0
        return min(max(wanted, float(plan.n_fresh + plan.n_refined)), settings.space.size())

    def _share(self, trials: list[FrozenTrial], target: float, others: int) -> int:
        """Trials of the next batch: at first a good many, in the end this worker's part of what is left."""
        waiting = sum(trial.state is TrialState.WAITING for trial in trials)
        own = sum(RETRY_OF not in trial.user_attrs for trial in trials)
        left = max(0.0, target - own + waiting)
        if left == 0:
            return waiting and math.ceil(waiting / (others + 1))
        wanted = LARGEST if left == math.inf else math.ceil(left / (2 * (others + 1)))
        return int(min(left, max(SMALLEST, min(LARGEST, wanted))))

    def _report(
        self,
        reporter: Reporter,
        trials: list[Trial],
        plan: ScreeningPlan,
        n_batches: int,
        target: float,
        *,
        final: bool,
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
            total=len(trials) if target == math.inf else int(target),
        )

    def _trials(self, objective: PreparedObjective) -> list[Trial]:
        """The trials of the study as those of a search, numbered anew without lost and surplus ones."""
        frozen = self._study.get_trials(deepcopy=False)
        left_out = retried(frozen) | superfluous(frozen) | surplus(frozen, self._wanted)
        found: list[Trial] = []
        for one in frozen:
            config = config_of_trial(one, objective.space)  # type: ignore[arg-type]
            if one.number in left_out or config is None:
                continue
            found.append(_as_trial(len(found), one, config, objective, self._settings.sampler_name))
        return found


def check_shareable(settings: SearchSettings) -> None:
    """Refuse settings that several workers cannot share.

    Raises
    ------
    InvalidParameterError
        If the sampler draws a grid, of which each worker would draw every point.
    """
    if settings.sampler == "grid":
        raise InvalidParameterError("sampler 'grid' cannot be shared: use random, qmc, tpe, cmaes or gp")


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


def _sampler(settings: SearchSettings, target: float) -> BaseSampler:
    """The sampler of this worker: seeded by chance, so that workers do not draw alike."""
    name = settings.sampler_name
    seed = int(np.random.SeedSequence().generate_state(1)[0] >> 1)
    if name == "random":
        fresh = FRESH_WITHOUT_END if target == math.inf else round((1 - settings.refinement) * target)
        return RefinementSampler(n_startup_trials=fresh, seed=seed)
    if name == "qmc":
        return QMCSampler(scramble=True, seed=settings.seed, warn_independent_sampling=False)
    return named_sampler(name, seed)
