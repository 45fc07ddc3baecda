"""How a process becomes one rank of a world that ``torchrun`` has started."""

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

from parallelmlp_search.exceptions import DistributedError, InvalidParameterError
from parallelmlp_search.parareal.ranks.communicator import World
from parallelmlp_search.parareal.ranks.unix_transport import SPIN_SECONDS, meet

__all__ = ["DEVICES", "end_rank", "join"]

DEVICES = ("auto", "cpu", "cuda")

TIMEOUT_SECONDS = 20.0


def _store(rank: int, size: int, patience: timedelta) -> Store:
    """Where ranks find each other: that of torchrun if there is one, else rank 0's.

    A restart has keys of its own, or its ranks would look for those that have died.
    """
    hosted = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    store = dist.TCPStore(  # type: ignore[attr-defined]
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        size,
        is_master=rank == 0 and not hosted,
        timeout=patience,
    )
    return PrefixStore(f"restart-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)


def join(
    slices: int | None = None,
    *,
    device: str = "auto",
    timeout: float = TIMEOUT_SECONDS,
    sockets: bool = True,
) -> World:
    """Become one rank of the world that ``torchrun`` has started.

    Parameters
    ----------
    slices
        Slices ``T``; the number of ranks must be a multiple of it, and is the default.
    device
        ``auto`` (a GPU of its own for each rank where there are as many, else the CPU), ``cpu`` or ``cuda``.
        Ranks on GPUs talk over NCCL, others over gloo.
    timeout
        Seconds after which silence counts as death.
    sockets
        Whether neighbours on one host pass short messages over a Unix socket, at a fifth of gloo's latency;
        the same bits arrive either way. Ranks on GPUs do without.

    Raises
    ------
    DistributedError
        If this process was not started by ``torchrun``, or the others cannot be reached.
    InvalidParameterError
        If the number of ranks is no multiple of ``slices``.
    """
    missing = [
        name for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ
    ]
    if missing:
        raise DistributedError(
            f"ranks are started by torchrun, but the variable {missing[0]} is not set: "
            "use `torchrun --nproc-per-node T SCRIPT`"
        )
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    local, on_host = int(os.environ.get("LOCAL_RANK", rank)), int(os.environ.get("LOCAL_WORLD_SIZE", size))
    slices = size if slices is None else slices
    if slices < 1 or size % slices:
        raise InvalidParameterError(
            f"the number of ranks must be a multiple of slices={slices}, but torchrun has started {size}"
        )
    if device not in DEVICES:
        raise InvalidParameterError(f"device must be auto, cpu or cuda, but got {device!r}")
    on_gpu = device == "cuda" or (device == "auto" and torch.cuda.device_count() >= on_host)
    if on_gpu and torch.cuda.device_count() < on_host:
        raise InvalidParameterError(
            f"device is 'cuda', but {on_host} ranks share {torch.cuda.device_count()} GPUs: use cpu"
        )
    place = torch.device("cuda", local) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(place)
    patience = timedelta(seconds=timeout)
    world = World(rank, size, slices, place)
    try:
        store = _store(rank, size, patience)
        dist.init_process_group(
            "nccl" if on_gpu else "gloo", store=store, rank=rank, world_size=size, timeout=patience
        )
        _group(world, patience)
        if sockets and not on_gpu:
            _meet(world, store, timeout, on_host)
    except (RuntimeError, ValueError, OSError) as error:
        raise DistributedError(
            f"rank {rank} could not reach the others: {' '.join(str(error).split())}"
        ) from error
    return world


def _group(world: World, patience: timedelta) -> None:
    """Groups of the slices of each replica and of the same slice in all replicas."""
    if world.replicas == 1:
        world.slice_group = dist.group.WORLD
        return
    size, slices = world.size, world.slices
    chains = [list(range(r * slices, (r + 1) * slices)) for r in range(size // slices)]
    columns = [list(range(j, size, slices)) for j in range(slices)]
    for ranks in chains:
        group = dist.new_group(ranks, timeout=patience)
        if world.rank in ranks:
            world.slice_group = group
    for ranks in columns:
        group = dist.new_group(ranks, timeout=patience)
        if world.rank in ranks:
            world.replica_group = group
    assert world.slice_group is not None
    assert world.replica_group is not None
    world.mesh = DeviceMesh.from_group(
        [world.replica_group, world.slice_group],
        world.device.type,
        mesh=torch.arange(size).view(-1, slices),
        mesh_dim_names=("replica", "slice"),
    )


def _meet(world: World, store: Store, timeout: float, on_host: int) -> None:
    """Sockets to the neighbours on this host."""
    before, after = world.slice > 0, world.slice < world.slices - 1
    # who waits for a rank that wants the same core had better sleep
    spin = SPIN_SECONDS if on_host <= joblib.cpu_count() else 0.0
    first, second = meet(store, world.rank, before=before, after=after, patience=timeout, spin=spin)
    pairs = ((world.rank - 1, first), (world.rank + 1, second))
    world.neighbours = {rank: near for rank, near in pairs if near is not None}
    missing = torch.tensor(int(before and first is None) + int(after and second is None))
    dist.all_reduce(missing, group=world.slice_group)
    world.chained = world.slices > 1 and int(missing) == 0


def end_rank(code: int = 0) -> NoReturn:
    """End this process at once, as the last thing that a rank does.

    What it has said is flushed; nothing else is tidied up. An interpreter that is taken down while threads of
    the transport still run may abort (seen once in some hundred runs, on two busy cores), and ``torchrun``
    would call a job failed that has done all of its work.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
