"""``pmlp promote``: predict, train in slices of depth, compare, and use the networks if they help."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypedDict

from parallelmlp_search._reading import read_json
from parallelmlp_search.cli.plain_values import plain
from parallelmlp_search.cli.source import Source
from parallelmlp_search.cli.terminal import terminal
from parallelmlp_search.distribute import one_thread
from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.parareal import Link, PromotionSettings, promote
from parallelmlp_search.parareal.promotion.candidates import forecast, select_candidates
from parallelmlp_search.parareal.promotion.stored import FOLDER
from parallelmlp_search.report import forecast_page, promotion_page
from parallelmlp_search.search import Problem, RunDirectory
from parallelmlp_search.search.problem.preparation import Preparation


class StoredContender(TypedDict):
    """Network in ``promotion.json``."""

    trial: int
    depth: int
    slices: int
    ranks: int
    step_seconds: float


class StoredContenders(TypedDict):
    """Content of ``promotion.json``."""

    contenders: list[StoredContender]


def link_of(latency: float, bandwidth: float) -> Link:
    """Return a link from microseconds and gigabytes per second."""
    if not (latency >= 0 and bandwidth > 0):
        raise InvalidParameterError(
            f"--latency must be >= 0 and --bandwidth > 0, but got {latency:g} and {bandwidth:g}"
        )
    return Link(latency * 1e-6, bandwidth * 1e9)


def show_forecast(run: Path, settings: PromotionSettings, *, gflops: float | None, as_json: bool) -> None:
    """Predict the step times of the best finalists; nothing is trained or written."""
    directory = RunDirectory.open(run)
    directory.result()
    if gflops is not None and not gflops > 0:
        raise InvalidParameterError(f"--gflops must be > 0, but got {gflops:g}")
    candidates = select_candidates(directory, settings)
    with one_thread():
        data = Preparation(_problem(directory), directory.settings()).screening().data
        flops = None if gflops is None else gflops * 1e9
        forecasts = forecast(candidates, data, settings, device_flops=flops)
    measured = _measured_steps(directory)
    rows = [plain(_with_measured(item.to_dict(), measured)) for item in forecasts]
    screen = terminal()
    if as_json:
        screen.json(rows)
    else:
        link = settings.link
        screen.show(
            forecast_page(rows, f"messages of {1e6 * link.latency:g} us, {1e-9 * link.bandwidth:g} GB/s")
        )


def promote_run(run: Path, settings: PromotionSettings, *, as_json: bool, quiet: bool) -> None:
    """Promote finalists of a run and show the result."""
    directory = RunDirectory.open(run)
    directory.result()  # an unfinished run is rejected before its table is read
    screen = terminal()
    shown: set[str] = set()

    def progress(words: str) -> None:
        if not quiet and words not in shown:
            shown.add(words)
            screen.note(words)

    result, _ = promote(directory, _problem(directory), settings, progress=progress)
    found = plain(result.to_dict())
    if as_json:
        screen.json({"run": str(run)} | found)
    elif quiet:
        screen.line(str(run))
    else:
        screen.show(promotion_page(found))


def _problem(directory: RunDirectory) -> Problem:
    """Return the problem of a run that ``pmlp search`` has started."""
    return Source.of_run(directory).problem_of_run(directory)


def _measured_steps(directory: RunDirectory) -> dict[tuple[int, int, int], float]:
    """Measured seconds per step of the last promotion, by trial, depth and slices."""
    path = directory.path / FOLDER / "promotion.json"
    if not path.is_file():
        return {}
    rows = read_json(path, StoredContenders)["contenders"]
    found = [row for row in rows if row["slices"] == 1 or row["ranks"] > 1]
    return {(row["trial"], row["depth"], row["slices"]): row["step_seconds"] for row in found}


def _with_measured(forecast: dict[str, Any], measured: dict[tuple[int, int, int], float]) -> dict[str, Any]:
    """Add the measured steps, or None, to the predicted ones."""

    def step(slices: int) -> float | None:
        return measured.get((forecast["trial"], forecast["depth"], slices))

    rows = [row | {"measured": step(row["slices"])} for row in forecast["predictions"]]
    return forecast | {"measured_serial": step(1), "predictions": rows}
