"""``pmlp promote``: predict, train in slices of depth, compare, and keep what helps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from parallelmlp_search._files import read_json
from parallelmlp_search.cli.session import terminal
from parallelmlp_search.cli.tables import Source, plain
from parallelmlp_search.data import read_table
from parallelmlp_search.distribute import one_thread
from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.parareal import Link, promote
from parallelmlp_search.parareal.promotion.candidates import candidates, forecast
from parallelmlp_search.parareal.promotion.promoted import FOLDER
from parallelmlp_search.report import forecast_page, promotion_page
from parallelmlp_search.search import Problem, RunDirectory
from parallelmlp_search.search.problem.preparation import Preparation

__all__ = ["link_of", "promote_run", "show_forecast"]


def link_of(latency: float, bandwidth: float) -> Link:
    """A link from microseconds and gigabytes a second."""
    if not (latency >= 0 and bandwidth > 0):
        raise InvalidParameterError(
            f"--latency must be >= 0 and --bandwidth > 0, but got {latency:g} and {bandwidth:g}"
        )
    return Link(latency * 1e-6, bandwidth * 1e9)


def problem_of(directory: RunDirectory) -> Problem:
    """The problem of a run that ``pmlp search`` has started."""
    source = Source.of_run(directory.info(), directory.path)
    return source.problem(read_table(source.path(directory.path)))


def measured_steps(directory: RunDirectory) -> dict[tuple[int, int, int], float]:
    """Seconds of a step by trial, depth and slices of what was promoted last, where devices were measured."""
    path = directory.path / FOLDER / "promotion.json"
    if not path.is_file():
        return {}
    rows = read_json(path)["contenders"]
    found = [row for row in rows if row["slices"] == 1 or row["ranks"] > 1]
    return {(row["trial"], row["depth"], row["slices"]): row["step_seconds"] for row in found}


def with_measured(forecast: dict[str, Any], measured: dict[tuple[int, int, int], float]) -> dict[str, Any]:
    """A forecast with the measured steps beside the predicted ones, None where there are none."""

    def step(slices: int) -> float | None:
        return measured.get((forecast["trial"], forecast["depth"], slices))

    rows = [row | {"measured": step(row["slices"])} for row in forecast["predictions"]]
    return forecast | {"measured_serial": step(1), "predictions": rows}


def show_forecast(
    run: Path,
    *,
    top: int,
    depth_factor: int | None,
    gflops: float | None,
    latency: float,
    bandwidth: float,
    as_json: bool,
) -> None:
    """Tell what slices over devices would do for the best finalists; nothing is trained or written."""
    directory = RunDirectory.open(run)
    directory.result()
    link = link_of(latency, bandwidth)
    if gflops is not None and not gflops > 0:
        raise InvalidParameterError(f"--gflops must be > 0, but got {gflops:g}")
    chosen = candidates(directory, top, depth_factor)
    with one_thread():
        data = Preparation(problem_of(directory), directory.settings()).screening().data
        found = forecast(
            chosen,
            data=data,
            device_flops=None if gflops is None else gflops * 1e9,
            link=link,
        )
    measured = measured_steps(directory)
    rows = [plain(with_measured(item.to_dict(), measured)) for item in found]
    screen = terminal()
    if as_json:
        screen.json(rows)
    else:
        screen.show(forecast_page(rows, f"messages of {latency:g} us, {bandwidth:g} GB/s"))


def promote_run(
    run: Path,
    *,
    top: int,
    slices: int | None,
    depth_factor: int | None,
    epochs: int | None,
    launch: bool,
    replicas: int,
    restarts: int,
    device: str,
    timeout: float,
    latency: float,
    bandwidth: float,
    as_json: bool,
    quiet: bool,
) -> None:
    """Promote finalists of a run and tell the outcome."""
    directory = RunDirectory.open(run)
    directory.result()  # an unfinished run is refused before its table is read
    screen = terminal()
    said: set[str] = set()

    def progress(words: str) -> None:
        if not quiet and words not in said:
            said.add(words)
            screen.note(words)

    outcome, _ = promote(
        directory,
        problem_of(directory),
        top=top,
        slices=slices,
        depth_factor=depth_factor,
        epochs=epochs,
        launch=launch,
        replicas=replicas,
        restarts=restarts,
        device=device,
        timeout=timeout,
        link=link_of(latency, bandwidth),
        progress=progress,
    )
    found = plain(outcome.to_dict())
    if as_json:
        screen.json({"run": str(run)} | found)
    elif quiet:
        screen.line(str(run))
    else:
        screen.show(promotion_page(found))
