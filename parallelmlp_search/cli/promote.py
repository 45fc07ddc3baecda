"""The options of ``pmlp promote``; what it does is in :mod:`parallelmlp_search.cli.promotion`."""

from __future__ import annotations

from typing import Annotated

import typer

from parallelmlp_search.cli.options import Json, Quiet, RunPath

__all__ = ["promote"]

WHAT, WHERE, COST = "What to train", "Where", "Cost model"


def promote(
    run: RunPath,
    top: Annotated[int, typer.Option(metavar="K", help="Finalists to promote.", rich_help_panel=WHAT)] = 1,
    slices: Annotated[
        int | None,
        typer.Option(
            metavar="T", help="Slices of depth; as predicted to be best by default.", rich_help_panel=WHAT
        ),
    ] = None,
    depth_factor: Annotated[
        int | None,
        typer.Option(metavar="F", help="Times as deep; by default 32 hidden layers.", rich_help_panel=WHAT),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(metavar="E", help="Epochs; those of the finalists by default.", rich_help_panel=WHAT),
    ] = None,
    launch: Annotated[
        bool, typer.Option("--launch", help="Train over ranks, one a slice.", rich_help_panel=WHERE)
    ] = False,
    devices: Annotated[
        str, typer.Option(help="auto, cpu or cuda, for the ranks.", rich_help_panel=WHERE)
    ] = "auto",
    replicas: Annotated[
        int, typer.Option(metavar="R", help="Copies that share each minibatch.", rich_help_panel=WHERE)
    ] = 1,
    restarts: Annotated[
        int, typer.Option(metavar="N", help="Restarts after a rank has died.", rich_help_panel=WHERE)
    ] = 0,
    timeout: Annotated[
        float, typer.Option(metavar="S", help="Seconds of silence that mean death.", rich_help_panel=WHERE)
    ] = 20.0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Predict only, for 2 to 64 slices.", rich_help_panel=COST)
    ] = False,
    gflops: Annotated[
        float | None,
        typer.Option(metavar="G", help="Speed of a device; measured here by default.", rich_help_panel=COST),
    ] = None,
    latency: Annotated[
        float, typer.Option(metavar="US", help="Microseconds of a message.", rich_help_panel=COST)
    ] = 80.0,
    bandwidth: Annotated[
        float, typer.Option(metavar="GB/S", help="Gigabytes a second of a link.", rich_help_panel=COST)
    ] = 4.0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Deepen the best networks of a run and train them over several devices, in slices of depth."""
    from parallelmlp_search.cli.promotion import promote_run, show_forecast

    if dry_run:
        show_forecast(
            run,
            top=top,
            depth_factor=depth_factor,
            gflops=gflops,
            latency=latency,
            bandwidth=bandwidth,
            as_json=as_json,
        )
        return
    promote_run(
        run,
        top=top,
        slices=slices,
        depth_factor=depth_factor,
        epochs=epochs,
        launch=launch,
        replicas=replicas,
        restarts=restarts,
        device=devices,
        timeout=timeout,
        latency=latency,
        bandwidth=bandwidth,
        as_json=as_json,
        quiet=quiet,
    )
