"""Command ``pmlp serve``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from parallelmlp_search.cli.options import RunPath
from parallelmlp_search.cli.terminal import terminal


def serve(
    run: RunPath,
    host: Annotated[
        str,
        typer.Option(metavar="HOST", help="Address to listen at. 0.0.0.0 lets other machines connect."),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="N", min=0, max=65535, help="Port; 0 for a free one, which is printed.")
    ] = 8000,
    workers: Annotated[int, typer.Option(metavar="N", min=1, help="Processes, each with the model.")] = 1,
    max_rows: Annotated[int, typer.Option(metavar="N", min=1, help="Most rows of a request.")] = 10_000,
    max_body: Annotated[
        str, typer.Option(metavar="SIZE", help="Most bytes of a request, such as 500kB.")
    ] = "16MB",
) -> None:
    """Answer predictions over HTTP: rows as JSON or CSV to /predict."""
    from parallelmlp_search._checks import check_size
    from parallelmlp_search._optional import require

    for module in ("fastapi", "uvicorn"):
        require(module, extra="serve", purpose="to serve predictions")
    from parallelmlp_search.serve.bodies import Limits
    from parallelmlp_search.serve.server import listen, url_of
    from parallelmlp_search.serve.server import serve as run_server

    limits = Limits(check_size("max_body", max_body), max_rows)
    screen = terminal()
    with listen(host, port) as listener:

        def ready() -> None:
            url = url_of(listener)
            screen.note(f"serving the model of {run}: {url}/docs describes it, Ctrl-C ends")
            if host not in ("127.0.0.1", "localhost", "::1"):
                screen.warning("other machines can connect, and requests need no password")
            screen.line(url)
            sys.stdout.flush()

        run_server(run, limits, listener, workers, ready)
    screen.note("stopped")
