"""Options of ``pmlp promote``; :mod:`parallelmlp_search.cli.promotion` runs it."""

from __future__ import annotations

from typing import Annotated

import typer

from parallelmlp_search.cli.options import Json, Quiet, RunPath

__all__ = ["promote"]

NETWORKS, DEVICES, COST = "Networks", "Devices", "Cost model"


def promote(
    run: RunPath,
    top: Annotated[
        int, typer.Option(metavar="K", help="Finalists to promote.", rich_help_panel=NETWORKS)
    ] = 1,
    slices: Annotated[
        int | None,
        typer.Option(
            metavar="T",
            help="Slices of depth; by default as the cost model recommends.",
            rich_help_panel=NETWORKS,
        ),
    ] = None,
    depth_factor: Annotated[
        int | None,
        typer.Option(
            metavar="F", help="Factor of depth; by default to 32 hidden layers.", rich_help_panel=NETWORKS
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            metavar="E", help="Epochs; by default those of the finalists.", rich_help_panel=NETWORKS
        ),
    ] = None,
    launch: Annotated[
        bool, typer.Option("--launch", help="Train over ranks, one per slice.", rich_help_panel=DEVICES)
    ] = False,
    devices: Annotated[
        str, typer.Option(help="auto, cpu or cuda, for the ranks.", rich_help_panel=DEVICES)
    ] = "auto",
    replicas: Annotated[
        int, typer.Option(metavar="R", help="Copies that share each minibatch.", rich_help_panel=DEVICES)
    ] = 1,
    restarts: Annotated[
        int, typer.Option(metavar="N", help="Restarts after a rank has died.", rich_help_panel=DEVICES)
    ] = 0,
    timeout: Annotated[
        float,
        typer.Option(
            metavar="S",
            help="Seconds without a message until a rank counts as lost.",
            rich_help_panel=DEVICES,
        ),
    ] = 20.0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Predict only, for 2 to 64 slices.", rich_help_panel=COST)
    ] = False,
    gflops: Annotated[
        float | None,
        typer.Option(metavar="G", help="Speed of a device; measured by default.", rich_help_panel=COST),
    ] = None,
    latency: Annotated[
        float, typer.Option(metavar="US", help="Microseconds per message.", rich_help_panel=COST)
    ] = 80.0,
    bandwidth: Annotated[
        float, typer.Option(metavar="GB/S", help="Gigabytes per second of a link.", rich_help_panel=COST)
    ] = 4.0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Deepen the best networks of a run and train them over several devices, in slices of depth."""
    from parallelmlp_search.cli.promotion import link_of, promote_run, show_forecast
    from parallelmlp_search.parareal import PromotionSettings

    settings = PromotionSettings(
        top=top,
        slices=slices,
        depth_factor=depth_factor,
        epochs=epochs,
        launch=launch,
        replicas=replicas,
        restarts=restarts,
        device=devices,
        timeout=timeout,
        link=link_of(latency, bandwidth),
    )
    if dry_run:
        show_forecast(run, settings, gflops=gflops, as_json=as_json)
    else:
        promote_run(run, settings, as_json=as_json, quiet=quiet)
