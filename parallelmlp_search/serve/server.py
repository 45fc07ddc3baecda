"""The server: its socket and its worker processes."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import socket
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from threadpoolctl import threadpool_limits

from parallelmlp_search._worker import end_with
from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.runs import load_model
from parallelmlp_search.search import RunDirectory
from parallelmlp_search.serve.app import create_app
from parallelmlp_search.serve.bodies import Limits
from parallelmlp_search.serve.metrics import Metrics

BACKLOG = 2048
RESTART_SECONDS = 1.0
GRACE_SECONDS = 10
"""Time that requests have left to finish when the server ends."""


logger = logging.getLogger("uvicorn.error")


@dataclass(frozen=True)
class ServerSettings:
    """Settings of a server.

    Attributes
    ----------
    run
        Folder of the run.
    max_bytes, max_rows
        Limits of a request.
    folder
        Folder of the counters, which all workers share.
    parent
        Process that started the workers.
    """

    run: str
    max_bytes: int
    max_rows: int
    folder: str
    parent: int

    def app(self) -> FastAPI:
        """Return the application of this process, which it prepares for many small requests."""
        # more requests need more workers; and the bits of a product may depend on its threads
        threadpool_limits(1, user_api="blas")
        app = create_app(Path(self.run), Limits(self.max_bytes, self.max_rows), Metrics(Path(self.folder)))
        gc.collect()
        gc.freeze()  # a full collection of all libraries takes 0.1 s, in which no request is answered
        return app


def run_worker(settings: ServerSettings, listener: socket.socket) -> None:
    """Serve in a process that ends with its parent."""
    end_with(settings.parent, settings.folder)
    run(settings.app(), listener)


def run(app: FastAPI, listener: socket.socket) -> None:
    """Serve until a signal; requests in progress are answered."""
    config = uvicorn.Config(
        app,
        access_log=False,
        backlog=BACKLOG,
        lifespan="off",
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
        ws="none",
    )
    uvicorn.Server(config).run(sockets=[listener])


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens, so that clients can connect before the workers have started.

    Parameters
    ----------
    host, port
        Name or address, and port; 0 for a free one.

    Raises
    ------
    InvalidParameterError
        If the address is not one of this machine, or the port is not free.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise InvalidParameterError(
            f"host must be a name or an address, but got {host!r}: {error.strerror}"
        ) from None
    listener = socket.socket(family, kind, protocol)
    if os.name == "posix":  # elsewhere it would allow two servers on one port
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise InvalidParameterError(
            f"port must be one that can be opened, but got {port} of {host!r} ({error.strerror}): "
            "choose another, or 0 for a free one"
        ) from None
    listener.set_inheritable(True)
    return listener


def url_of(listener: socket.socket) -> str:
    """Return the address of a server."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(
    folder_of_run: Path, limits: Limits, listener: socket.socket, workers: int, ready: Callable[[], None]
) -> None:
    """Serve the model of a run until Ctrl-C or SIGTERM; requests in progress are answered.

    Parameters
    ----------
    folder_of_run, limits
        Folder of the run, and limits of a request.
    listener
        Socket that listens.
    workers
        Number of processes.
    ready
        Function that is called once the model has been read.
    """
    with (
        tempfile.TemporaryDirectory(prefix="pmlp-serve-", ignore_cleanup_errors=True) as folder,
        contextlib.suppress(KeyboardInterrupt),  # uvicorn repeats the signal that ended it
    ):
        settings = ServerSettings(str(folder_of_run), limits.max_bytes, limits.max_rows, folder, os.getpid())
        if workers == 1:
            app = settings.app()
            ready()
            run(app, listener)
            return
        load_model(RunDirectory.open(folder_of_run))  # a damaged run ends the command here, not each worker
        ready()
        _supervise(settings, listener, workers)


def _supervise(settings: ServerSettings, listener: socket.socket, workers: int) -> None:
    """Keep worker processes running until a signal."""
    context = get_context("spawn")

    def start() -> SpawnProcess:
        process = context.Process(target=run_worker, args=(settings, listener))
        process.start()
        return process

    processes: list[SpawnProcess] = []
    try:
        processes += [start() for _ in range(workers)]
        while True:
            wait([process.sentinel for process in processes])
            for place, process in enumerate(processes):
                if process.exitcode is not None:
                    logger.error("a worker has ended with exit code %d: another one starts", process.exitcode)
                    time.sleep(RESTART_SECONDS)
                    processes[place] = start()
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()
