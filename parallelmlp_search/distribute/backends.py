"""Clusters behind the active joblib backend, and connections to clusters."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

import joblib
from joblib.parallel import get_active_backend

from parallelmlp_search._optional import require
from parallelmlp_search.distribute.cluster import Cluster
from parallelmlp_search.exceptions import DistributedError, InvalidParameterError, near_miss, one_line

BACKENDS = ("dask", "ray")
"""Kinds of clusters."""

CONNECT_SECONDS = 10.0
"""Seconds to wait for the scheduler."""

_clusters: WeakKeyDictionary[Any, Cluster] = WeakKeyDictionary()


def active_cluster() -> Cluster | None:
    """Return the cluster of the active joblib backend; None without one, and inside a task of a cluster."""
    backend, _ = get_active_backend()
    kind = type(backend).__name__
    if kind == "DaskDistributedBackend" and _in_dask_task():
        return None
    if backend not in _clusters:
        if kind == "DaskDistributedBackend":
            from parallelmlp_search.distribute.dask_cluster import DaskCluster

            _clusters[backend] = DaskCluster(backend.client)
        elif kind == "RayBackend":
            from parallelmlp_search.distribute.ray_cluster import RayCluster

            _clusters[backend] = RayCluster()
    return _clusters.get(backend)


def _in_dask_task() -> bool:
    try:
        _distributed().get_worker()
    except ValueError:
        return False
    return True


@contextlib.contextmanager
def connected(backend: str | None, scheduler: str | None) -> Iterator[None]:
    """Train shards on the workers of a cluster inside the context; without a backend, on this machine.

    Parameters
    ----------
    backend
        One of :data:`BACKENDS`, or None.
    scheduler
        Address. dask: ``tcp://HOST:8786``, or the file of ``dask scheduler --scheduler-file``. ray:
        ``HOST:6379`` or ``ray://HOST:10001``; None for the cluster that runs on this machine.

    Raises
    ------
    InvalidParameterError
        If the backend is unknown, or an address is missing or left over.
    DistributedError
        If nothing answers there.
    """
    if backend is None:
        if scheduler is not None:
            raise InvalidParameterError(
                f"scheduler is {scheduler!r}, but backend is missing: give dask or ray"
            )
        yield
        return
    if backend not in BACKENDS:
        raise InvalidParameterError(
            f"backend must be dask or ray, but got {backend!r}{near_miss(backend, BACKENDS)}"
        )
    with _dask(scheduler) if backend == "dask" else _ray(scheduler):
        yield


def _distributed() -> Any:
    return require("distributed", extra="dask", purpose="for workers of dask")


@contextlib.contextmanager
def _dask(scheduler: str | None) -> Iterator[None]:
    distributed = _distributed()
    if scheduler is None:
        raise InvalidParameterError("scheduler is needed for dask: give its address, such as tcp://HOST:8786")
    # our errors say the same in one sentence
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    where = {"scheduler_file": scheduler} if os.path.isfile(scheduler) else {"address": scheduler}
    try:
        client = distributed.Client(**where, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise DistributedError(
            f"no dask scheduler answers at {scheduler!r} ({one_line(error)}): start one with: dask scheduler"
        ) from None
    with client, joblib.parallel_config("dask", client=client):
        yield


@contextlib.contextmanager
def _ray(address: str | None) -> Iterator[None]:
    ray = require("ray", extra="ray", purpose="for workers of ray")
    require("ray.util.joblib", extra="ray", purpose="for workers of ray").register_ray()
    try:
        if address is not None:
            host, _, port = address.removeprefix("ray://").rpartition(":")
            socket.create_connection(
                (host, int(port)), CONNECT_SECONDS
            ).close()  # ray itself tries for minutes
        ray.init(address=address or "auto", log_to_driver=False, logging_level="ERROR")
    except (OSError, RuntimeError, ValueError) as error:
        where = "runs on this machine" if address is None else f"answers at {address!r}"
        raise DistributedError(
            f"no ray cluster {where} ({one_line(error)}): start one with: ray start --head"
        ) from None
    try:
        with joblib.parallel_config("ray"):
            yield
    finally:
        ray.shutdown()
