"""Ranks that hold slices: who is who, and every word they exchange, none of them without a time limit.

Rank ``r`` of a world of ``R T`` ranks holds slice ``r mod T`` of replica ``r div T``. Along a replica's chain
a corrected output passes from each slice to the next and a gradient back: ``2 (T - 1)`` messages a step,
point to point, which is the least that a sweep over ``T`` devices can do, and neither weights nor coarse
networks ever travel. Replicas add up their gradients.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from parallelmlp_search.exceptions import DistributedError, InvalidParameterError
from parallelmlp_search.parareal.ranks.unix_transport import MAX_BYTES, Neighbour

__all__ = ["Alone", "World"]

NOTE_BYTES = 2048
"""Room for what each rank says about its plan."""


class Alone:
    """The world of a single process that holds every slice."""

    def __init__(self, device: str | torch.device = "cpu") -> None:
        self.rank = self.slice = self.replica = 0
        self.slices = self.replicas = 1
        self.device = torch.device(device)

    def expect_forward(self, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        """Nothing ever arrives."""

    expect_backward = expect_forward

    def receive(self) -> Tensor:
        """Never called."""
        raise DistributedError("a single process receives nothing")

    def send_forward(self, corrected: Tensor) -> None:
        """Never called."""

    send_backward = send_forward

    def end_step(self) -> None:
        """Nothing is under way."""

    def agree(self, note: Mapping[str, Any], *, in_chain: bool = False) -> None:
        """Always."""

    def share_input(self, inputs: Tensor | None, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """The input itself."""
        if inputs is None:
            raise InvalidParameterError("inputs must be a tensor on the first slice, but got None")
        return inputs

    def share_from_last(self, values: list[float]) -> list[float]:
        """The values themselves."""
        return values

    def sum_over_slices(self, value: Tensor) -> Tensor:
        """The value itself."""
        return value

    def sum_over_replicas(self, gradients: Tensor) -> None:
        """There are no others."""

    def barrier(self) -> None:
        """Nobody to wait for."""

    def leave(self) -> None:
        """Nothing to close."""


class World(Alone):
    """This process as one rank of many; made by :func:`join`.

    Parameters
    ----------
    rank, size
        Number of this rank, and how many there are.
    slices
        Slices ``T`` of a network.
    device
        Where this rank computes.

    Attributes
    ----------
    slice, replica, replicas
        Slice and replica of this rank, from 0, and how many replicas there are.
    mesh
        The ranks as a device mesh with the dimensions ``replica`` and ``slice``; None with one replica.
    neighbours
        By rank, those next in the chain that are reached without gloo, which are those on the same host.
    chained
        Whether that holds for the whole chain.
    """

    def __init__(self, rank: int, size: int, slices: int, device: torch.device) -> None:
        super().__init__(device)
        self.rank, self.size, self.slices = rank, size, slices
        self.replica, self.slice = divmod(rank, slices)
        self.replicas = size // slices
        self.mesh: DeviceMesh | None = None
        self.slice_group: dist.ProcessGroup | None = None
        self.replica_group: dist.ProcessGroup | None = None
        self.neighbours: dict[int, Neighbour] = {}
        self.chained = False
        self.step = 0
        self._under_way: list[tuple[dist.Work, Tensor]] = []
        self._expected: list[tuple[dist.Work | None, Tensor, int]] = []
        self._buffers: dict[tuple[Any, ...], Tensor] = {}

    # ------------------------------------------------------------------ along the chain

    def expect_forward(self, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        """Be ready for the corrected output of the slice before, while this rank still computes."""
        self._expect(self.rank - 1, shape, dtype)

    def expect_backward(self, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        """Be ready for the gradient from the slice behind."""
        self._expect(self.rank + 1, shape, dtype)

    def _expect(self, peer: int, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        key = (peer, shape, dtype)
        if key not in self._buffers:
            self._buffers[key] = torch.empty(shape, dtype=dtype, device=self.device)
        buffer = self._buffers[key]
        work = None
        if not self._is_near(peer, buffer):
            with self._told(peer):
                work = dist.irecv(buffer, peer)
            assert work is not None
        self._expected.append((work, buffer, peer))

    def _is_near(self, peer: int, tensor: Tensor) -> bool:
        """Whether a message goes from socket to socket; both ends find the same."""
        return peer in self.neighbours and tensor.nbytes <= MAX_BYTES

    def receive(self) -> Tensor:
        """What was expected first."""
        work, buffer, peer = self._expected.pop(0)
        with self._told(peer):
            if work is None:
                self.neighbours[peer].receive(buffer)
            else:
                work.wait()
        return buffer

    def send_forward(self, corrected: Tensor) -> None:
        """Pass a corrected output on."""
        self._send(corrected, self.rank + 1)

    def send_backward(self, gradient: Tensor) -> None:
        """Pass a gradient back."""
        self._send(gradient, self.rank - 1)

    def _send(self, tensor: Tensor, peer: int) -> None:
        tensor = tensor.contiguous()
        if self._is_near(peer, tensor):
            with self._told(peer):
                self.neighbours[peer].send(tensor)
            return
        with self._told(peer):
            work = dist.isend(tensor, peer)
        assert work is not None
        self._under_way.append((work, tensor))  # which must live until it has gone

    def end_step(self) -> None:
        """See everything off that was sent in this step."""
        for work, _ in self._under_way:
            with self._told(None):
                work.wait()
        self._under_way.clear()
        self.step += 1

    # ------------------------------------------------------------------ together

    def share_input(self, inputs: Tensor | None, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """The first slice's input on every rank of the replica."""
        first = self.replica * self.slices
        if self.slice == 0:
            if inputs is None or tuple(inputs.shape) != shape:
                found = None if inputs is None else tuple(inputs.shape)
                raise InvalidParameterError(
                    f"inputs must have shape {shape} on rank {self.rank}, but got {found}"
                )
            tensor = inputs.to(self.device, dtype).contiguous()
        else:
            tensor = torch.empty(shape, dtype=dtype, device=self.device)
        with self._told(first):
            dist.broadcast(tensor, first, group=self.slice_group)
        return tensor

    def share_from_last(self, values: list[float]) -> list[float]:
        """Numbers of the last slice's rank on every rank of the replica."""
        last = self.replica * self.slices + self.slices - 1
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        with self._told(last):
            dist.broadcast(tensor, last, group=self.slice_group)
        return [float(value) for value in tensor.tolist()]

    def sum_over_slices(self, value: Tensor) -> Tensor:
        """Sum over the slices of a replica, such as of squared norms; the same bits on every rank."""
        if not self.chained:
            with self._told(None):
                dist.all_reduce(value, group=self.slice_group)
            return value
        before, after = self.rank - 1, self.rank + 1  # to the last slice and back, 3 us from each to the next
        heard = torch.empty_like(value)
        if self.slice > 0:
            with self._told(before):
                self.neighbours[before].receive(heard)
            value = value + heard
        if self.slice < self.slices - 1:
            with self._told(after):
                self.neighbours[after].send(value)
                self.neighbours[after].receive(heard)
            value = heard
        if self.slice > 0:
            with self._told(before):
                self.neighbours[before].send(value)
        return value

    def sum_over_replicas(self, gradients: Tensor) -> None:
        """Add up the gradients of the same slice in all replicas, in place."""
        if self.replicas > 1:
            with self._told(None):
                dist.all_reduce(gradients, group=self.replica_group)

    def barrier(self) -> None:
        """Wait until every rank is here."""
        ready = torch.zeros(1, device=self.device)
        with self._told(None):
            dist.all_reduce(ready)

    def agree(self, note: Mapping[str, Any], *, in_chain: bool = False) -> None:
        """Compare what every rank believes about the run.

        Parameters
        ----------
        note
            JSON-able facts that must be the same everywhere: shapes, dtype, number of slices, ...
        in_chain
            Only among the slices of this replica.

        Raises
        ------
        DistributedError
            If two ranks differ; the message names the fact, the ranks and both values.
        """
        text = json.dumps(dict(note), sort_keys=True).encode()
        if len(text) > NOTE_BYTES:
            raise InvalidParameterError(f"a note must be at most {NOTE_BYTES} bytes, but has {len(text)}")
        mine = torch.zeros(NOTE_BYTES, dtype=torch.uint8)
        mine[: len(text)] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        mine = mine.to(self.device)
        first, count = (self.replica * self.slices, self.slices) if in_chain else (0, self.size)
        notes = [torch.empty_like(mine) for _ in range(count)]
        with self._told(None):
            dist.all_gather(notes, mine, group=self.slice_group if in_chain else None)
        read = [json.loads(bytes(other.tolist()).rstrip(b"\0")) for other in notes]
        for rank, other in enumerate(read, start=first):
            for name in sorted({*read[0], *other}):
                if other.get(name) != read[0].get(name):
                    raise DistributedError(
                        f"ranks must agree on {name}, but rank {first} has {read[0].get(name)!r} "
                        f"and rank {rank} has {other.get(name)!r}"
                    )

    def leave(self) -> None:
        """Close all connections."""
        for neighbour in self.neighbours.values():
            neighbour.close()
        self.neighbours = {}
        if dist.is_initialized():
            dist.destroy_process_group()

    @contextlib.contextmanager
    def _told(self, peer: int | None) -> Iterator[None]:
        """Turn what the transport says of a lost peer into one sentence."""
        try:
            yield
        except (RuntimeError, OSError) as error:
            if isinstance(error, DistributedError):
                raise
            whom = "the other ranks" if peer is None else f"rank {peer} (slice {peer % self.slices + 1})"
            reason = " ".join(str(error).split())
            late = "imed out" in reason or "timeout" in reason.lower()
            what = "has heard nothing from" if late else "has lost"
            raise DistributedError(
                f"rank {self.rank} (slice {self.slice + 1} of {self.slices}) {what} {whom} "
                f"at step {self.step}: see what ended it, and start again to go on from the last checkpoint "
                f"({reason[:160]})"
            ) from error
