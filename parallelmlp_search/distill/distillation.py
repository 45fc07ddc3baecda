"""Distillation of a run: search for a student, score it out of fold, train it on all rows, write a run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parallelmlp_search._checks import check_seconds
from parallelmlp_search.distill.soft_targets import SoftRows, out_of_fold_targets, rows_of
from parallelmlp_search.distill.students import Lesson, Student, predict_rows, train_students
from parallelmlp_search.distribute import one_thread, worker_count
from parallelmlp_search.exceptions import RunDirectoryError
from parallelmlp_search.inference import TrainedModel
from parallelmlp_search.inference.latency import seconds_of
from parallelmlp_search.search import Problem, RunDirectory, SearchResult, SearchSettings
from parallelmlp_search.search import run as search
from parallelmlp_search.search.finalists.cross_fitting import CrossFit
from parallelmlp_search.search.finalists.evaluation import evaluate, honest_score, make_leaderboard
from parallelmlp_search.search.finalists.model import refitted_model
from parallelmlp_search.search.finalists.postprocessing import comparison_weights, postprocess
from parallelmlp_search.search.finalists.result import save_result, trials_frame
from parallelmlp_search.search.finalists.snapshot_selection import FoldNetwork
from parallelmlp_search.search.problem.preparation import Part, Preparation, seed_of
from parallelmlp_search.search.run.trial import RungRecord, Trial, TrialState
from parallelmlp_search.space import Categorical, Float, MLPConfig, SearchSpace

DEFAULT_TRIALS = 30
N_FINALISTS, N_FOLDS = 3, 2
"""Finalists and folds of the search for the student."""

SPACE = SearchSpace(
    {
        "depth": Categorical((1, 2, 3)),
        "width": Categorical((32, 64, 128, 256)),
        "activation": Categorical(("relu", "silu")),
        "learning_rate": Float(1e-3, 2e-2, log=True),
        "numeric_embedding": Categorical(("none", "piecewise")),
        "batch_size": Categorical((128, 256)),
    }
)
"""Space of the students: without dropout, since soft targets leave little to overfit."""

OnProgress = Callable[[str], None]


@dataclass(frozen=True)
class DistillSettings:
    """Settings of a distillation.

    Attributes
    ----------
    infer_limit, infer_batch_size
        Most seconds per row of the student, or a text such as ``"20us"``; rows that are predicted at once.
    n_trials
        Configurations of students to try.
    time_limit
        Seconds of the search for the student; None for no limit. Training and scoring it come on top.
    seed
        Seed of everything random.
    """

    infer_limit: float | str | None = None
    infer_batch_size: int = 1000
    n_trials: int = DEFAULT_TRIALS
    time_limit: float | str | None = None
    seed: int = 0

    def of_search(self, monotonic: Mapping[str, int] | None = None) -> SearchSettings:
        """Return the settings of the search for the student, which keeps to the monotone columns of the run.

        Raises
        ------
        InvalidParameterError
            If a setting breaks its rule.
        """
        return SearchSettings(
            search_space=SPACE,
            n_trials=self.n_trials,
            time_limit=None if self.time_limit is None else check_seconds("time_limit", self.time_limit),
            metric="rmse",
            n_folds=N_FOLDS,
            n_finalists=min(N_FINALISTS, self.n_trials),
            monotonic=monotonic,
            baselines=False,
            seed=self.seed,
            device="cpu",
            infer_limit=self.infer_limit,
            infer_batch_size=self.infer_batch_size,
        )


def check_distillable(directory: RunDirectory) -> None:
    """Check that a run is finished and has a target that can be distilled.

    Raises
    ------
    RunDirectoryError
        If it is not, or predicts several labels.
    """
    if directory.result()["task"] == "multilabel":
        raise RunDirectoryError(
            f"the run in {str(directory.path)!r} predicts several labels, which cannot be distilled: search "
            "with a limit of the latency instead"
        )


def distill(
    directory: RunDirectory,
    problem: Problem,
    output: RunDirectory,
    settings: DistillSettings | None = None,
    *,
    n_jobs: int | None = None,
    progress: OnProgress = lambda _: None,
) -> SearchResult:
    """Distill the ensemble of a run into one network, and write it as a run of its own.

    Students learn what the ensemble predicts: for the rows of the table by the networks that have not seen
    them, and for augmented rows. A search chooses a configuration. It is then trained once for each fold of
    the run, on what the networks of that fold predict for the other rows, and predicts the rows of the fold.
    These predictions give its honest score. The model is trained on all rows.

    Parameters
    ----------
    directory, problem
        Finished run and its problem.
    output
        New run, which is finished by this call.
    settings
        Settings; the defaults if None.
    n_jobs
        Number of workers; None for all cores.
    progress
        Called repeatedly with a short description of the current work.

    Returns
    -------
    SearchResult

    Raises
    ------
    RunDirectoryError
        If the run is unfinished, too small to hold rows back, or of other data, or if it does not hold the
        networks of all folds.
    InvalidParameterError
        If a setting breaks its rule, or no student keeps to the limit of the latency.
    SearchFailedError
        If no student could be trained.
    """
    started, settings = time.monotonic(), settings or DistillSettings()
    check_distillable(directory)
    with output.locked(), one_thread():
        spent = output.begin(problem, replace(directory.settings(), n_trials=settings.n_trials))
        with output.recording_status(started, spent):
            work = _Distillation(directory, problem, settings, worker_count(n_jobs), progress)
            result, facts = work.run(started)
            save_result(output, work.fit, result)
            output.update(distilled_from=str(directory.path), splits=directory.info().get("splits", {}))
            output.finish(result.to_dict() | {"distilled": facts})
    return result


class _Distillation:
    """Work of :func:`distill`.

    Attributes
    ----------
    fit
        Cross-fitted student, after :meth:`run`.
    """

    fit: CrossFit

    def __init__(
        self,
        directory: RunDirectory,
        problem: Problem,
        settings: DistillSettings,
        n_workers: int,
        progress: OnProgress,
    ) -> None:
        self._settings, self._n_workers, self._progress = settings, n_workers, progress
        self._problem = problem
        self._of_search = settings.of_search(directory.settings().monotonic)
        self._result, self._model = directory.result(), TrainedModel.load(directory.model_folder)
        path = str(directory.path)
        if directory.info().get("fingerprint") != problem.fingerprint():
            raise RunDirectoryError(
                f"the run in {path!r} was searched on other data: distill it with the same table"
            )
        self._preparation = Preparation(problem, replace(directory.settings(), device="cpu", refit=False))
        if self._preparation.is_tiny:
            raise RunDirectoryError(
                f"the run in {path!r} has too few rows to hold some back for a score: search a larger table"
            )
        if self._model.refitted or len(self._model.folds) != self._result["n_folds"]:
            raise RunDirectoryError(
                f"the run in {path!r} does not hold the networks of all folds, which teach the student: "
                "search without refit and without a limit of the latency to distill"
            )

    def run(self, started: float) -> tuple[SearchResult, dict[str, Any]]:
        """Return the result and facts about teacher and student."""
        n_folds, preparation = int(self._result["n_folds"]), self._preparation
        parts = preparation.folds(n_folds, hold_out_validation=False, n_workers=self._n_workers)
        folds = self._fold_of_rows(parts)
        self._progress("predicting soft targets")
        whole = self._lesson(
            preparation.whole(),
            np.arange(self._problem.n_rows),
            out_of_fold_targets(self._model, self._problem.frame, folds),
        )
        self._progress("searching for the student")
        config, epochs, n_trials = self._choose(whole.rows)
        lessons = [
            self._lesson(part, self._rows_before(part), None, number) for number, part in enumerate(parts)
        ]
        self._progress("training the student")
        *students, last = train_students([*lessons, whole], config, epochs, n_workers=self._n_workers)
        trial = self._trial(config, students, epochs)
        self.fit = self._cross_fit(trial, parts, lessons, students)
        evaluation = evaluate(self.fit, comparison_weights(self.fit), n_workers=self._n_workers)
        model = postprocess(self.fit, evaluation.ensemble, 1)
        honest = honest_score(self.fit, evaluation, model)
        model = refitted_model(model, whole.part, [[last.vector]])
        metric = preparation.metric
        result = SearchResult(
            leaderboard=make_leaderboard([trial], self.fit, evaluation),
            model=model,
            honest=honest,
            metric=metric.name,
            best_trial=0,
            best_config=config,
            n_trials=n_trials,
            max_epochs=int(epochs),
            n_folds=n_folds,
            member_steps=0,
            elapsed_seconds=time.monotonic() - started,
            trials=trials_frame([trial], metric),
            oof_folds=self.fit.oof_folds,
            fingerprint=self._problem.fingerprint(),
        )
        return result, self._facts(model)

    def _rows_before(self, part: Part) -> NDArray[np.intp]:
        """Rows that a fold does not predict; with a time column, those of earlier times."""
        rows = np.setdiff1d(np.arange(self._problem.n_rows), part.predicted_rows)
        if self._problem.time is None:
            return rows
        times = np.asarray(self._problem.time)
        earlier: NDArray[np.intp] = rows[times[rows] < times[part.predicted_rows].min()]
        return earlier

    def _fold_of_rows(self, parts: Sequence[Part]) -> NDArray[np.intp]:
        """Fold whose networks have not seen each row; -1 for rows that all have seen."""
        folds = np.full(self._problem.n_rows, -1)
        for number, part in enumerate(parts):
            folds[part.predicted_rows] = number
        return folds

    def _lesson(
        self, part: Part, rows: NDArray[np.intp], target: NDArray[np.float64] | None, fold: int | None = None
    ) -> Lesson:
        """Soft targets of some rows, by the networks of one fold or by all."""
        model = self._model if fold is None else self._model.of_fold(fold)
        seed = seed_of(self._settings.seed, 9, len(self._model.folds) if fold is None else fold)
        frame = self._problem.frame.iloc[rows].reset_index(drop=True)
        return Lesson(rows_of(model, frame, target, np.random.default_rng(seed)), part, seed)

    def _choose(self, rows: SoftRows) -> tuple[MLPConfig, float, int]:
        """Configuration of the student, its epochs, and the number of configurations that were tried."""
        problem = Problem(
            frame=rows.frame, target=rows.target, task="regression", column_types=self._problem.column_types
        )
        found = search(problem, self._of_search, n_jobs=self._n_workers)
        best = found.leaderboard[0]
        return found.best_config, float(max(best.epochs, 1.0)), found.n_trials

    def _trial(self, config: MLPConfig, students: Sequence[Student], epochs: float) -> Trial:
        n_parameters = len(students[0].vector)
        seconds, loss = sum(one.seconds for one in students), float(np.mean([one.loss for one in students]))
        record = RungRecord(0, 0, epochs, float("nan"), loss, seconds)
        return Trial(
            0, config, "distilled", 0, TrialState.COMPLETE, n_parameters=n_parameters, records=[record]
        )

    def _cross_fit(
        self, trial: Trial, parts: Sequence[Part], lessons: Sequence[Lesson], students: Sequence[Student]
    ) -> CrossFit:
        """Out-of-fold predictions of the students, as of a finalist."""
        networks = []
        for part, lesson, student in zip(parts, lessons, students, strict=True):
            frame = self._problem.frame.iloc[part.predicted_rows]
            prediction = predict_rows(student, trial.config, lesson, frame)
            networks.append(FoldNetwork(student.vector, prediction, trial.records[-1].epochs))
        return CrossFit.of_networks(self._preparation, parts, [trial], [networks])

    def _facts(self, model: TrainedModel) -> dict[str, Any]:
        """Score of the teacher, and the seconds per row of teacher and student."""
        batch = self._settings.infer_batch_size
        table = self._problem.frame.iloc[np.arange(batch) % self._problem.n_rows]
        seconds = {
            name: seconds_of(partial(one.predictions_of_read, table)) / batch
            for name, one in (("teacher_seconds", self._model), ("student_seconds", model))
        }
        return {"teacher_honest": self._result["honest"], "batch": batch} | seconds
