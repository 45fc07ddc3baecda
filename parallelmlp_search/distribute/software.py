"""Agreement of workers on other machines: package, torch, kind of CPU and training path."""

from __future__ import annotations

import platform
import socket
from dataclasses import dataclass

import torch

from parallelmlp_search import __version__
from parallelmlp_search.exceptions import DistributedError
from parallelmlp_search.kernels.numba import library
from parallelmlp_search.kernels.numba.dispatch import PLAIN, READY, following, training_path

_PACKAGE, _TORCH = "parallelmlp-search", "torch"


@dataclass(frozen=True)
class Software:
    """Versions and kind of CPU with which a search computes.

    Attributes
    ----------
    package
        Version of this package, which all machines need.
    path
        Training path that all workers take. With ``READY``, for a search with a time limit, results depend on
        the clock anyway, and the other attributes do not matter.
    torch
        Version of torch, without the name of the build.
    cpu
        Instructions that torch uses.
    """

    package: str
    path: str
    torch: str
    cpu: str

    @classmethod
    def here(cls, path: str) -> Software:
        """Software of this process, with the training path of the search."""
        cpu = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
        return cls(__version__, path, torch.__version__.partition("+")[0], cpu)

    def check(self) -> None:
        """Refuse to train in this process if it would compute something else than the search.

        Raises
        ------
        DistributedError
            If a version differs, or results would differ by rounding errors.
        """
        here = Software.here(self.path)
        host = socket.gethostname()
        versions = [(_PACKAGE, here.package, self.package)]
        if self.path != READY:
            versions.append((_TORCH, here.torch, self.torch))
        for name, ours, wanted in versions:
            if ours != wanted:
                raise DistributedError(
                    f"the worker on {host} has {name} {ours}, but the search runs with {wanted}: "
                    f"install {name}=={wanted} there"
                )
        if self.path == READY:
            return
        if here.cpu != self.cpu:
            raise DistributedError(_other_results(host, here.cpu, self.cpu))
        with following(self.path):
            found = training_path("cpu")
        if found == self.path:
            return
        if found == PLAIN:
            raise DistributedError(
                f"the worker on {host} has no compiled loops, which the search uses: install numba there, "
                f"or set {library.USE_VARIABLE}=0 for the search"
            )
        raise DistributedError(_other_results(host, found, self.path))


def _other_results(host: str, found: str, wanted: str) -> str:
    return (
        f"the worker on {host} computes for {found}, but the search for {wanted}, so results would differ by "
        "rounding errors: use machines with one kind of CPU, or give a time limit"
    )
