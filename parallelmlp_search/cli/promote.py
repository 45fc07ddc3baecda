"""Options of ``pmlp promote``; :mod:`parallelmlp_search.cli.promotion` runs it."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from parallelmlp_search.cli.options import Json, Quiet, RunPath

network_option = partial(typer.Option, rich_help_panel="Networks")
device_option = partial(typer.Option, rich_help_panel="Devices")
cost_option = partial(typer.Option, rich_help_panel="Cost model")


def promote(
    run: RunPath,
    top: Annotated[int, network_option(metavar="K", help="Number of finalists to promote.")] = 1,
    slices: Annotated[
        int | None,
        network_option(metavar="T", help="Slices of depth. Default: recommended by the cost model."),
    ] = None,
    depth_factor: Annotated[
        int | None,
        network_option(metavar="F", help="Factor of depth. Default: one that gives 32 hidden layers."),
    ] = None,
    epochs: Annotated[
        int | None,
        network_option(metavar="E", help="Epochs. Default: those of the finalists."),
    ] = None,
    launch: Annotated[
        bool, device_option("--launch", help="Train over several processes (ranks), one per slice.")
    ] = False,
    devices: Annotated[
        str, device_option(metavar="NAME", help="Device of the ranks: auto, cpu or cuda.")
    ] = "auto",
    replicas: Annotated[
        int, device_option(metavar="R", help="Copies of the network that share each minibatch.")
    ] = 1,
    restarts: Annotated[int, device_option(metavar="N", help="Restarts after a rank has died.")] = 0,
    timeout: Annotated[
        str,
        device_option(metavar="TIME", help="Time without a message until a rank counts as lost."),
    ] = "20s",
    dry_run: Annotated[
        bool, cost_option("--dry-run", help="Only predict the step times of 2 to 64 slices.")
    ] = False,
    gflops: Annotated[
        float | None,
        cost_option(metavar="G", help="Speed of a device. Default: measured here."),
    ] = None,
    latency: Annotated[
        float, cost_option(metavar="US", help="Microseconds per message between devices.")
    ] = 80.0,
    bandwidth: Annotated[
        float, cost_option(metavar="GB/S", help="Gigabytes per second between devices.")
    ] = 4.0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Deepen the best networks of a run and train them layer-parallel over several devices."""
    from parallelmlp_search._checks import check_seconds
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
        timeout=check_seconds("timeout", timeout),
        link=link_of(latency, bandwidth),
    )
    if dry_run:
        show_forecast(run, settings, gflops=gflops, as_json=as_json)
    else:
        promote_run(run, settings, as_json=as_json, quiet=quiet)
