"""Shards on the workers of a ray cluster."""

from __future__ import annotations

import contextlib
from typing import Any

from parallelmlp_search._optional import require
from parallelmlp_search.distribute.cluster import MAX_LOSSES, Cluster
from parallelmlp_search.distribute.remote import Message, train_message
from parallelmlp_search.exceptions import DistributedError, one_line


class RayCluster(Cluster):
    """Workers of the ray cluster to which this process is connected, one for each CPU."""

    no_workers = "the ray cluster has no CPU: add machines with: ray start --address HOST:6379"

    def __init__(self) -> None:
        super().__init__()
        self._ray = require("ray", extra="ray", purpose="for workers of ray")
        if not self._ray.is_initialized():
            self._ray.init()
        # sent again if its worker or machine dies
        self._train = self._ray.remote(num_cpus=1, max_retries=MAX_LOSSES)(train_message)

    def count(self) -> int:
        return int(self._ray.cluster_resources().get("CPU", 0))

    def put(self, value: Any) -> Any:
        return self._ray.put(value)

    def is_stored(self, reference: Any) -> bool:
        return True

    def submit(self, message: Message, parts: list[Any]) -> Any:
        return self._train.remote(message, *parts)

    def wait(self, pending: list[Any], seconds: float | None) -> Any | None:
        return next(iter(self._ray.wait(pending, timeout=seconds)[0]), None)

    def fetch(self, reference: Any) -> bytes:
        """Return a finished result.

        Raises
        ------
        DistributedError
            If workers died too often while they trained the shard, or the cluster is gone.
        """
        errors = self._ray.exceptions
        try:
            result: bytes = self._ray.get(reference)
        except errors.RayTaskError as error:
            raise error.cause from None
        except errors.RayError as error:
            raise DistributedError(f"a shard was given up, because ray reports: {one_line(error)}") from None
        return result

    def cancel(self, pending: list[Any]) -> None:
        for reference in pending:
            with contextlib.suppress(self._ray.exceptions.RayError):
                self._ray.cancel(reference)
