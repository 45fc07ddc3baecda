"""Communication between the ranks that hold slices; every operation has a time limit.

Rank ``r`` of ``R T`` ranks holds slice ``r mod T`` of replica ``r div T``. In each step a corrected output
passes from each slice of a replica to the next and a gradient back: ``2 (T - 1)`` point-to-point messages,
the minimum for a sweep over ``T`` devices. Weights and coarse networks are never sent. Replicas sum their
gradients.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from parallelmlp_search.exceptions import DistributedError
from parallelmlp_search.parareal.ranks.unix_transport import MAX_MESSAGE_BYTES, PeerConnection


class Communicator:
    """Connection of this process with the other ranks.

    ``Communicator()`` is that of a single process, which holds every slice. The one of a rank is made by
    :func:`~parallelmlp_search.parareal.init_communicator`.

    Parameters
    ----------
    rank, world_size
        Number of this rank, and number of ranks.
    n_slices
        Ranks that hold one network: its number ``T`` of slices, or 1 if each rank holds all slices.
    device
        Device of this rank.

    Attributes
    ----------
    slice_index, replica_index, n_replicas
        Slice and replica of this rank, from 0, and number of replicas.
    mesh
        The ranks as a device mesh with the dimensions ``replica`` and ``slice``; None with one replica.
    peers
        Connections to neighboring ranks on the same host, by rank. All other messages use gloo or NCCL.
    all_connected
        True if all ranks of the replica have such connections to their neighbors.
    """

    def __init__(
        self, rank: int = 0, world_size: int = 1, n_slices: int = 1, device: str | torch.device = "cpu"
    ) -> None:
        self.rank, self.world_size, self.n_slices = rank, world_size, n_slices
        self.replica_index, self.slice_index = divmod(rank, n_slices)
        self.n_replicas = world_size // n_slices
        self.device = torch.device(device)
        self.mesh: DeviceMesh | None = None
        self.slice_group: dist.ProcessGroup | None = None
        self.replica_group: dist.ProcessGroup | None = None
        self.peers: dict[int, PeerConnection] = {}
        self.all_connected = False
        self.step = 0
        self._sending: list[tuple[dist.Work, Tensor]] = []
        self._receiving: list[tuple[dist.Work | None, Tensor, int]] = []

    # ------------------------------------------------------------------ point to point

    def start_receive(self, offset: int, buffer: Tensor) -> None:
        """Prepare to receive a tensor of the previous (-1) or next (1) slice while this rank computes."""
        peer, work = self.rank + offset, None
        if not self._uses_socket(peer, buffer):
            with self._translated_errors(peer):
                work = dist.irecv(buffer, peer)
            assert work is not None
        self._receiving.append((work, buffer, peer))

    def _uses_socket(self, peer: int, tensor: Tensor) -> bool:
        """True for short messages between connected peers; both ends decide alike."""
        return peer in self.peers and tensor.nbytes <= MAX_MESSAGE_BYTES

    def wait_receive(self) -> Tensor:
        """Return the tensor of the oldest :meth:`start_receive`."""
        work, buffer, peer = self._receiving.pop(0)
        with self._translated_errors(peer):
            if work is None:
                self.peers[peer].receive(buffer)
            else:
                work.wait()
        return buffer

    def send(self, offset: int, tensor: Tensor) -> None:
        """Send a tensor to the previous (-1) or next (1) slice."""
        tensor, peer = tensor.contiguous(), self.rank + offset
        with self._translated_errors(peer):
            if self._uses_socket(peer, tensor):
                self.peers[peer].send(tensor)
                return
            work = dist.isend(tensor, peer)
        assert work is not None
        self._sending.append((work, tensor))  # the tensor must live until it is sent

    def end_step(self) -> None:
        """Wait until everything is sent."""
        for work, _ in self._sending:
            with self._translated_errors():
                work.wait()
        self._sending.clear()
        self.step += 1

    # ------------------------------------------------------------------ collective

    def broadcast(self, tensor: Tensor, slice_index: int) -> None:
        """Copy a contiguous tensor of one slice to all ranks of the replica, in place."""
        source = self.rank - self.slice_index + slice_index
        if self.n_slices > 1:
            with self._translated_errors(source):
                dist.broadcast(tensor, source, group=self.slice_group)

    def broadcast_from_last(self, values: list[float]) -> list[float]:
        """Return the numbers of the last slice's rank on every rank of the replica."""
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        self.broadcast(tensor, self.n_slices - 1)
        return [float(value) for value in tensor.tolist()]

    def sum_over_slices(self, value: Tensor) -> Tensor:
        """Return the sum over the slices of a replica; bitwise equal on every rank."""
        if self.n_slices > 1 and not self.all_connected:
            with self._translated_errors():
                dist.all_reduce(value, group=self.slice_group)
            return value
        # to the last slice and back, 3 us per message
        if self.slice_index > 0:
            self.start_receive(-1, torch.empty_like(value))
            value = value + self.wait_receive()
        if self.slice_index < self.n_slices - 1:
            self.send(1, value)
            self.start_receive(1, torch.empty_like(value))
            value = self.wait_receive()
        if self.slice_index > 0:
            self.send(-1, value)
        return value

    def sum_over_replicas(self, gradients: Tensor) -> None:
        """Sum the gradients of a slice over all replicas, in place."""
        if self.n_replicas > 1:
            with self._translated_errors():
                dist.all_reduce(gradients, group=self.replica_group)

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self.world_size > 1:
            with self._translated_errors():
                dist.all_reduce(torch.zeros(1, device=self.device))

    def check_equal(self, facts: Mapping[str, Any], *, in_replica: bool = False) -> None:
        """Check that all ranks have the same settings.

        Parameters
        ----------
        facts
            Values by name, such as shapes, dtype, number of slices.
        in_replica
            Compare only the ranks of this replica.

        Raises
        ------
        DistributedError
            If two ranks differ; the message names the fact, the ranks and both values.
        """
        count = self.n_slices if in_replica else self.world_size
        if count == 1:
            return
        first = self.rank - self.slice_index if in_replica else 0
        gathered: list[Any] = [None] * count
        with self._translated_errors():
            dist.all_gather_object(gathered, dict(facts), group=self.slice_group if in_replica else None)
        for rank, other in enumerate(gathered, start=first):
            for name, value in gathered[0].items():
                if other.get(name) != value:
                    raise DistributedError(
                        f"ranks must agree on {name}, but rank {first} has {value!r} "
                        f"and rank {rank} has {other.get(name)!r}"
                    )

    def close(self) -> None:
        """Close all connections."""
        for peer in self.peers.values():
            peer.close()
        self.peers = {}
        if dist.is_initialized():
            dist.destroy_process_group()

    @contextlib.contextmanager
    def _translated_errors(self, peer: int | None = None) -> Iterator[None]:
        """Raise errors of the transport as a DistributedError with one sentence."""
        try:
            yield
        except (RuntimeError, OSError) as error:
            if isinstance(error, DistributedError):
                raise
            name = "the other ranks" if peer is None else f"rank {peer} (slice {peer % self.n_slices + 1})"
            reason = " ".join(str(error).split())
            late = "imed out" in reason or "timeout" in reason.lower()
            event = "has heard nothing from" if late else "has lost"
            raise DistributedError(
                f"rank {self.rank} (slice {self.slice_index + 1} of {self.n_slices}) {event} {name} "
                f"at step {self.step}: see what ended it, and start again to resume from the last checkpoint "
                f"({reason[:160]})"
            ) from error
