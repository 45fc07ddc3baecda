"""Start and end of a rank that ``torchrun`` has started."""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from typing import NoReturn

import joblib
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from parallelmlp_search._checks import check_choice
from parallelmlp_search.exceptions import DistributedError, InvalidParameterError
from parallelmlp_search.parareal.ranks.communicator import Communicator
from parallelmlp_search.parareal.ranks.unix_transport import SPIN_SECONDS, connect_peers

DEVICES = ("auto", "cpu", "cuda")

DEFAULT_TIMEOUT_SECONDS = 20.0


def init_communicator(
    slices: int | None = None,
    *,
    device: str = "auto",
    timeout: float = DEFAULT_TIMEOUT_SECONDS,
    sockets: bool = True,
) -> Communicator:
    """Connect this process with the other ranks that ``torchrun`` has started.

    Parameters
    ----------
    slices
        Slices ``T``, a divisor of the number of ranks; by default the number of ranks.
    device
        ``auto`` (a GPU per rank if there are enough, else the CPU), ``cpu`` or ``cuda``. Ranks on GPUs
        communicate over NCCL, others over gloo.
    timeout
        Seconds without a message after which a rank counts as lost.
    sockets
        Send short messages between neighbors on one host over a Unix socket, with a fifth of gloo's latency
        and the same results. Ranks on GPUs do not use it.

    Returns
    -------
    Communicator

    Raises
    ------
    DistributedError
        If this process was not started by ``torchrun``, or the other ranks cannot be reached.
    InvalidParameterError
        If the number of ranks is no multiple of ``slices``, or the device does not exist.
    """
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        if name not in os.environ:
            raise DistributedError(
                f"ranks are started by torchrun, but the variable {name} is not set: "
                "use `torchrun --nproc-per-node T SCRIPT`"
            )
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    ranks_on_host = int(os.environ.get("LOCAL_WORLD_SIZE", size))
    slices = size if slices is None else slices
    if slices < 1 or size % slices:
        raise InvalidParameterError(
            f"the number of ranks must be a multiple of slices={slices}, but torchrun has started {size}"
        )
    place = _device_of_rank(device, int(os.environ.get("LOCAL_RANK", rank)), ranks_on_host)
    on_gpu = place.type == "cuda"
    communicator = Communicator(rank, size, slices, place)
    limit = timedelta(seconds=timeout)
    try:
        hosted, _, _ = next(rendezvous("env://", timeout=limit))
        # keys of an earlier start are the addresses of ranks that have died
        store = PrefixStore(f"restart-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", hosted)
        dist.init_process_group(
            "nccl" if on_gpu else "gloo", store=store, rank=rank, world_size=size, timeout=limit
        )
        _create_groups(communicator, limit)
        if sockets and not on_gpu:
            _connect_neighbors(communicator, store, timeout, ranks_on_host)
    except (RuntimeError, ValueError, OSError) as error:
        raise DistributedError(
            f"rank {rank} could not reach the others: {' '.join(str(error).split())}"
        ) from error
    return communicator


def _device_of_rank(device: str, local_rank: int, ranks_on_host: int) -> torch.device:
    check_choice("device", device, DEVICES)
    enough = torch.cuda.device_count() >= ranks_on_host
    if device == "cpu" or (device == "auto" and not enough):
        return torch.device("cpu")
    if not enough:
        raise InvalidParameterError(
            f"device is 'cuda', but {ranks_on_host} ranks share {torch.cuda.device_count()} GPUs: use cpu"
        )
    place = torch.device("cuda", local_rank)
    torch.cuda.set_device(place)
    return place


def _create_groups(communicator: Communicator, timeout: timedelta) -> None:
    """Groups of the slices of each replica, and of the same slice in all replicas."""
    if communicator.n_replicas == 1:
        communicator.slice_group = dist.group.WORLD
        return
    mesh = torch.arange(communicator.world_size).view(-1, communicator.n_slices)
    slice_group, replica_group = (
        dist.new_subgroups_by_enumeration(ranks.tolist(), timeout=timeout)[0]  # type: ignore[no-untyped-call]
        for ranks in (mesh, mesh.T)
    )
    communicator.slice_group, communicator.replica_group = slice_group, replica_group
    communicator.mesh = DeviceMesh.from_group(
        [replica_group, slice_group],
        communicator.device.type,
        mesh=mesh,
        mesh_dim_names=("replica", "slice"),
    )


def _connect_neighbors(communicator: Communicator, store: Store, timeout: float, ranks_on_host: int) -> None:
    """Open sockets to the neighbors on this host."""
    rank, first = communicator.rank, communicator.rank - communicator.slice_index
    neighbors = {rank - 1, rank + 1} & {*range(first, first + communicator.n_slices)}
    # a rank that spins would keep the core that the other rank needs
    spin = SPIN_SECONDS if ranks_on_host <= joblib.cpu_count() else 0.0
    communicator.peers = connect_peers(store, rank, neighbors, timeout=timeout, spin=spin)
    missing = torch.tensor(len(neighbors) - len(communicator.peers))
    dist.all_reduce(missing, group=communicator.slice_group)
    communicator.all_connected = communicator.n_slices > 1 and int(missing) == 0


def exit_rank(code: int = 0) -> NoReturn:
    """Flush the output and end this process at once, as the last action of a rank.

    Shutting down the interpreter while threads of the transport run can abort (seen once in a hundred runs on
    two busy cores), and ``torchrun`` would report a failure after all work is done.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
