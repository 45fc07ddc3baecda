"""Command ``pmlp distill``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from parallelmlp_search.cli.options import Jobs, Json, Quiet, RunPath


def distill(
    run: RunPath,
    output: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of the new run. Default: that of the run with -distilled."),
    ] = None,
    latency: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Most time of a prediction per row on one core, such as 20us."),
    ] = None,
    batch: Annotated[
        int, typer.Option(metavar="N", help="Rows that are predicted at once, for --latency.")
    ] = 1000,
    trials: Annotated[int, typer.Option(metavar="N", min=1, help="Configurations to try.")] = 30,
    time_limit: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Time of the search for the network, such as 2m. Default: no limit."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Random seed.")] = 0,
    jobs: Jobs = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train one small network on what the ensemble of a run predicts, as a run of its own."""
    from parallelmlp_search._checks import check_seconds
    from parallelmlp_search.cli.runs import removed_unless_begun, show_result
    from parallelmlp_search.cli.source import STORED_FILE, STORED_TABLE, Source
    from parallelmlp_search.cli.terminal import terminal
    from parallelmlp_search.data import read_table
    from parallelmlp_search.distill import DistillSettings
    from parallelmlp_search.distill import distill as distill_run
    from parallelmlp_search.distill.distillation import check_distillable
    from parallelmlp_search.search import RunDirectory

    settings = DistillSettings(
        infer_limit=None if latency is None else check_seconds("latency", latency),
        infer_batch_size=batch,
        n_trials=trials,
        time_limit=None if time_limit is None else check_seconds("time_limit", time_limit),
        seed=seed,
    )
    settings.of_search()
    directory = RunDirectory.open(run)
    check_distillable(directory)  # before its table is read
    folder = output or run.with_name(f"{run.resolve().name}-distilled")
    RunDirectory(folder).check_free()
    screen = terminal()
    problem = Source.of_run(directory).problem_of_run(directory)
    new = RunDirectory.create(folder, source=directory.info().get("source", {}))
    with removed_unless_begun(new):
        if (directory.path / STORED_FILE).is_file():
            new.write_table(STORED_TABLE, read_table(directory.path / STORED_FILE))
        progress = (lambda _: None) if quiet else screen.note
        distill_run(directory, problem, new, settings, n_jobs=jobs, progress=progress)
    show_result(new, as_json=as_json, quiet=quiet)
