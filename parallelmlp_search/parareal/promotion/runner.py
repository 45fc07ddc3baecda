"""Promotion of the best finalists of a run.

Each candidate is deepened and trained twice on the folds of the finalists, to the same number of epochs: as a
serial twin in one process, and as a parareal network. Validation rows choose the epoch, as for finalists, and
out-of-fold predictions give the score. The ensemble is then selected again from its members and the promoted
networks, and its honest score is corrected for this selection.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

from parallelmlp_search._files import write_json
from parallelmlp_search.distribute import one_thread
from parallelmlp_search.exceptions import InvalidParameterError, RunDirectoryError
from parallelmlp_search.parareal.promotion.candidates import (
    PromotionCandidate,
    forecast,
    select_candidates,
)
from parallelmlp_search.parareal.promotion.comparison import (
    PromotionContext,
    PromotionResult,
    compare_contenders,
)
from parallelmlp_search.parareal.promotion.settings import PromotionSettings
from parallelmlp_search.parareal.promotion.stored import FOLDER
from parallelmlp_search.parareal.ranks.communicator import Communicator
from parallelmlp_search.parareal.ranks.jobs import Job, Task
from parallelmlp_search.parareal.ranks.launch import launch_job
from parallelmlp_search.search import Problem, RunDirectory, TrainedModel
from parallelmlp_search.search.problem.preparation import Preparation
from parallelmlp_search.selection import HonestScore

OnProgress = Callable[[str], object]


def promote(
    directory: RunDirectory,
    problem: Problem,
    settings: PromotionSettings | None = None,
    *,
    progress: OnProgress = lambda _: None,
    **options: Any,
) -> tuple[PromotionResult, TrainedModel]:
    """Deepen the best finalists of a run, train them serially and in slices, and use them if they help.

    Parameters
    ----------
    directory
        A finished run.
    problem
        The table and target of the search.
    settings
        Settings; the defaults if None.
    progress
        Called repeatedly with a short description of the current work.
    **options
        Attributes of :class:`PromotionSettings` that replace those of ``settings``, such as ``slices=2``.

    Returns
    -------
    (PromotionResult, TrainedModel)
        The result, and the model of the run that predicts from now on.

    Raises
    ------
    RunDirectoryError
        If the run is unfinished, too small to hold rows back, refitted, limited in latency, or of other data.
    InvalidParameterError
        If a parameter breaks its rule.
    DistributedError
        If a rank died; the same call resumes from its last checkpoint.
    SearchFailedError
        If no network could be trained.
    """
    started = time.monotonic()
    settings = replace(settings or PromotionSettings(), **options)
    with directory.locked(), one_thread():
        context = _train(directory, problem, settings, progress)
        progress("selecting the ensemble")
        result, model, honest = compare_contenders(context)
        result = replace(result, seconds=time.monotonic() - started)
        model.save(directory.path / FOLDER)
        base = TrainedModel.load(directory.model_folder)
        final = model if result.used else base
        _record(directory, result, final, honest)
    return result, final


def _train(
    directory: RunDirectory, problem: Problem, settings: PromotionSettings, progress: OnProgress
) -> PromotionContext:
    """Train every candidate on every fold, except those that an earlier call has trained."""
    result, path = directory.result(), str(directory.path)
    if directory.info().get("fingerprint") != problem.fingerprint():
        raise RunDirectoryError(
            f"the run in {path!r} was searched on other data: promote it with the same table"
        )
    if problem.task == "multilabel":
        raise RunDirectoryError(
            f"the run in {path!r} predicts several labels, which promoted networks do not support: use the "
            "ensemble of the search"
        )
    if result.get("refitted"):
        raise RunDirectoryError(
            f"the run in {path!r} was refitted and holds no networks of folds, which promoted ones would "
            "join: search without refit to promote"
        )
    if result.get("latency"):
        raise RunDirectoryError(
            f"the run in {path!r} has a limit of the latency, which promoted networks would not keep: search "
            "without it to promote"
        )
    if directory.settings().monotonic is not None:
        raise RunDirectoryError(
            f"the run in {path!r} has monotone columns, which promoted networks would not keep: search "
            "without monotonic to promote"
        )
    candidates = select_candidates(directory, settings)
    preparation = Preparation(problem, replace(directory.settings(), device="cpu"))
    if preparation.is_tiny:
        raise RunDirectoryError(
            f"the run in {path!r} has too few rows to hold some back for a comparison: search a larger table"
        )
    parts = preparation.folds(int(result["n_folds"]))
    progress("measuring this device")
    forecasts = forecast(candidates, parts[0].data, settings)
    slices = settings.slices or max(2, forecasts[0].recommended)
    tasks = _tasks(candidates, len(parts), slices, float(settings.epochs or result["max_epochs"]))
    ranked = tuple(task for task in tasks if task.slices > 1)
    # the folder is named after the tasks, so that the same call finds it again
    digest = hashlib.sha256(json.dumps([task.to_dict() for task in tasks], sort_keys=True).encode())
    folder = directory.folder("promotion") / digest.hexdigest()[:12]
    names = ("device", "timeout", "replicas", "restarts")
    job = Job(folder, ranked, slices, **{name: getattr(settings, name) for name in names})
    job.save()
    for fold, part in enumerate(parts):
        job.save_rows(fold, part.data)
    here = [task for task in tasks if task.slices == 1 or not settings.launch]
    for number, task in enumerate(here, start=1):
        if not job.is_done(task):
            form = "serial" if task.slices == 1 else f"{task.slices} slices"
            progress(f"training here, {form}, {number} of {len(here)}")
            job.run(task, Communicator())
    if settings.launch and not all(job.is_done(task) for task in ranked):
        words = f"training over {slices * settings.replicas} ranks"
        progress(words)
        launch_job(job, lambda done: progress(f"{words}, {done} of {len(ranked)} done"))
    return PromotionContext(directory, preparation, parts, forecasts, job, tasks)


def _tasks(candidates: Sequence[PromotionCandidate], n_folds: int, slices: int, epochs: float) -> list[Task]:
    for candidate in candidates:
        if candidate.config.depth < slices:
            raise InvalidParameterError(
                f"slices must be at most the {candidate.config.depth} hidden layers of trial "
                f"{candidate.trial}, but got {slices}: raise depth_factor, or use fewer slices"
            )
    return [
        Task(f"trial-{c.trial}-{count}-slices-fold-{fold}", c.config, fold, count, epochs)
        for c in candidates
        for count in (1, slices)
        for fold in range(n_folds)
    ]


def _record(
    directory: RunDirectory, result: PromotionResult, model: TrainedModel, honest: HonestScore | None
) -> None:
    """Write the result into the run, with the honest score of the model that predicts."""
    stored = directory.result()
    searched = (stored.get("promotion") or {}).get("honest_of_search", stored.get("honest"))
    names = ("trial", "slices", "depth", "weight")
    members = [{name: getattr(contender, name) for name in names} for contender in result.contenders]
    changes: dict[str, Any] = {
        "honest": searched if honest is None else asdict(honest),
        "promotion": {"used": result.used, "members": members, "honest_of_search": searched},
    }
    if result.used:
        changes["uncertainty"] = None  # that of the ensemble without promoted networks
    write_json(directory.path / "result.json", stored | model.postprocessing() | changes)
    write_json(directory.path / FOLDER / "promotion.json", result.to_dict())
    directory.log("promoted", used=result.used, seconds=result.seconds)
