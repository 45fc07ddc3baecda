"""Promotion: the best finalists of a run, deepened, trained in slices of depth, and compared.

Each candidate is trained twice on the folds that the finalists were trained on, to the same number of epochs:
as its serial twin in one process, and as a parareal network. Both are judged by their out-of-fold
predictions, on the rows that report; the choosing rows choose the epoch, as for finalists. The ensemble is
then chosen anew from its members and the promoted networks, and what it is worth is corrected for that
choice.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from parallelmlp_search._files import write_json
from parallelmlp_search.distribute import one_thread
from parallelmlp_search.exceptions import InvalidParameterError, RunDirectoryError
from parallelmlp_search.parareal.method.cost import LOOPBACK, Link
from parallelmlp_search.parareal.promotion.candidates import Candidate, candidates, devices_here, forecast
from parallelmlp_search.parareal.promotion.comparison import Promotion, judge
from parallelmlp_search.parareal.promotion.promoted import FOLDER, PromotedModel
from parallelmlp_search.parareal.ranks.communicator import Alone
from parallelmlp_search.parareal.ranks.jobs import Job, Task, load_rows, run_task, save_rows
from parallelmlp_search.parareal.ranks.launch import launch as launch_ranks
from parallelmlp_search.parareal.ranks.process_group import DEVICES
from parallelmlp_search.search import Problem, RunDirectory, TrainedModel
from parallelmlp_search.search.problem.preparation import Part, Preparation

__all__ = ["promote"]


def promote(
    directory: RunDirectory,
    problem: Problem,
    *,
    top: int = 1,
    slices: int | None = None,
    depth_factor: int | None = None,
    epochs: int | None = None,
    launch: bool = False,
    replicas: int = 1,
    restarts: int = 0,
    device: str = "auto",
    timeout: float = 20.0,
    link: Link = LOOPBACK,
    progress: Callable[[str], object] = lambda _: None,
) -> tuple[Promotion, TrainedModel]:
    """Deepen the best finalists of a run, train them serially and in slices, and keep them if they help.

    Parameters
    ----------
    directory
        A finished run.
    problem
        The table and target that it was searched on.
    top
        Finalists to promote.
    slices
        Slices ``T``, >= 2; by default what the cost model recommends, for the devices of this host if ranks
        are launched, and 2 where it recommends none.
    depth_factor
        See :func:`candidates`.
    epochs
        Passes over the rows, for both forms; by default those of the finalists.
    launch
        Train the parareal networks over ``slices * replicas`` ranks started by torchrun. Without it they are
        trained in this process, slice after slice, to the same weights.
    replicas, restarts, timeout
        See :func:`~parallelmlp_search.parareal.launch` and :func:`parallelmlp_search.parareal.join`.
    device
        ``auto``, ``cpu`` or ``cuda``, for ranks.
    link
        Connection between devices, for the predictions.
    progress
        Called with a few words now and then.

    Returns
    -------
    (Promotion, TrainedModel)
        What came of it, and the model of the run that predicts from now on.

    Raises
    ------
    RunDirectoryError
        If the run is unfinished, too small to hold rows back, or of other data.
    InvalidParameterError
        If a parameter breaks its rule.
    DistributedError
        If a rank died; the same call goes on from its last checkpoint.
    SearchFailedError
        If no network could be trained.
    """
    started = time.monotonic()
    _check(slices, epochs, replicas, restarts, timeout, launch, device)
    with directory.locked(), one_thread():
        result = directory.result()
        settings = directory.settings()
        if directory.info().get("fingerprint") != problem.fingerprint():
            raise RunDirectoryError(
                f"the run in {str(directory.path)!r} was searched on other data: "
                "promote it with the same table"
            )
        if result.get("refitted"):
            raise RunDirectoryError(
                f"the run in {str(directory.path)!r} was refitted and holds no networks of folds, which "
                "promoted ones would join: search without refit to promote"
            )
        chosen = candidates(directory, top, depth_factor)
        preparation = Preparation(problem, replace(settings, device="cpu"))
        if preparation.is_tiny:
            raise RunDirectoryError(
                f"the run in {str(directory.path)!r} has too few rows to hold some back, "
                "so that nothing can say whether depth helps: search a larger table"
            )
        parts = preparation.folds(int(result["n_folds"]))
        data = parts[0].data
        progress("measuring this device")
        forecasts = forecast(
            chosen,
            data=data,
            link=link,
            devices=devices_here() if launch else None,
            slices=slices,
        )
        count = slices or max(2, forecasts[0].recommended)
        tasks = _tasks(chosen, len(parts), count, float(epochs or result["max_epochs"]))
        job = _job(directory, tasks, parts, preparation, count, device, timeout)
        _train(job, tasks, launch, replicas, restarts, progress)
        progress("choosing the ensemble")
        promotion, model = judge(directory, preparation, parts, chosen, job, tasks, forecasts)
        promotion = replace(promotion, seconds=time.monotonic() - started)
        model.save(directory.path / FOLDER)
        _record(directory, promotion, model)
    base = TrainedModel.load(directory.model_folder)
    return promotion, model if promotion.used else base


def _check(
    slices: int | None,
    epochs: int | None,
    replicas: int,
    restarts: int,
    timeout: float,
    launch: bool,
    device: str,
) -> None:
    for name, value, least in (
        ("slices", slices, 2),
        ("epochs", epochs, 1),
        ("replicas", replicas, 1),
        ("restarts", restarts, 0),
    ):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
            raise InvalidParameterError(f"{name} must be an integer >= {least}, but got {value!r}")
    if device not in DEVICES:
        raise InvalidParameterError(
            f"device must be {', '.join(DEVICES[:-1])} or {DEVICES[-1]}, but got {device!r}"
        )
    if not timeout > 0:
        raise InvalidParameterError(f"timeout must be > 0 seconds, but got {timeout!r}")
    if not launch and (replicas > 1 or restarts > 0):
        raise InvalidParameterError("replicas and restarts are for ranks: launch them, or leave both out")


def _tasks(chosen: Sequence[Candidate], n_folds: int, slices: int, epochs: float) -> list[Task]:
    for candidate in chosen:
        if candidate.config.depth < slices:
            raise InvalidParameterError(
                f"slices must be at most the {candidate.config.depth} hidden layers of trial "
                f"{candidate.trial}, "
                f"but got {slices}: deepen it, or cut it less"
            )
    return [
        Task(f"trial-{c.trial}-{count}-slices-fold-{fold}", c.config, fold, count, epochs)
        for c in chosen
        for count in (1, slices)
        for fold in range(n_folds)
    ]


def _job(
    directory: RunDirectory,
    tasks: Sequence[Task],
    parts: Sequence[Part],
    preparation: Preparation,
    slices: int,
    device: str,
    timeout: float,
) -> Job:
    """The job of these tasks, in a folder named after what it is to do, so that the same call finds it
    again."""
    text = json.dumps([task.to_dict() for task in tasks], sort_keys=True)
    folder = directory.path / "promotion" / hashlib.sha256(text.encode()).hexdigest()[:12]
    sliced = tuple(task for task in tasks if task.slices > 1)
    job = Job(folder, sliced, slices, device, timeout)
    n_classes = None if preparation.classes is None else len(preparation.classes)
    for fold, part in enumerate(parts):
        if not (folder / f"rows-{fold}.safetensors").is_file():
            save_rows(folder, fold, part.data, n_classes)
    job.save()
    return job


def _train(
    job: Job,
    tasks: Sequence[Task],
    launch: bool,
    replicas: int,
    restarts: int,
    progress: Callable[[str], object],
) -> None:
    """Serial twins here; parareal networks over ranks, or here as well."""
    here = [task for task in tasks if task.slices == 1 or not launch]
    for number, task in enumerate(here, start=1):
        if not job.is_done(task):
            form = "serial" if task.slices == 1 else f"{task.slices} slices"
            progress(f"training here, {form}, {number} of {len(here)}")
            run_task(job, task, Alone(), data=load_rows(job.folder, task.fold))
    if launch and not all(job.is_done(task) for task in job.tasks):
        ranks = job.slices * replicas
        progress(f"training over {ranks} ranks")
        total = len(job.tasks)
        launch_ranks(
            job,
            replicas=replicas,
            restarts=restarts,
            on_progress=lambda done: progress(f"training over {ranks} ranks, {done} of {total} done"),
        )


def _record(directory: RunDirectory, promotion: Promotion, model: PromotedModel) -> None:
    """Write the outcome into the run; its honest score becomes that of the model that predicts."""
    result = directory.result()
    first = (result.get("promotion") or {}).get("honest_of_search", result.get("honest"))
    honest = directory.info().get("promoted_honest") if promotion.used else first
    promoted = [
        {"trial": member.trial, "slices": member.slices, "depth": member.config.depth, "weight": weight}
        for member, weight in zip(model.promoted, model.promoted_weights, strict=True)
    ]
    write_json(
        directory.path / "result.json",
        result
        | (model if promotion.used else TrainedModel.load(directory.model_folder)).treatment()
        | {
            "honest": honest,
            "promotion": {"used": promotion.used, "members": promoted, "honest_of_search": first},
        },
    )
    write_json(directory.path / FOLDER / "promotion.json", promotion.to_dict())
    directory.log("promoted", used=promotion.used, seconds=promotion.seconds)
