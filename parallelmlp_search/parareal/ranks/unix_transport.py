"""Ranks next to each other on one host: a Unix socket between each two, read by a short spin.

Interfaces of deep narrow networks are small, and every step waits for each of them twice. gloo hands a
message from thread to thread, and a core that sleeps takes long to wake: 35 us one way for 48 KiB without a
pause, 66 to 104 us in training (two cores of an AMD EPYC). A socket that its reader asks again and again
takes 6 us. The kernel orders what is written and read, and a peer that dies closes its end, which is heard at
once.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import socket
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.distributed_c10d import Store

__all__ = ["MAX_BYTES", "Neighbour", "meet"]

MAX_BYTES = 1 << 17
"""Longer messages go over gloo, whose threads take them along while the receiver still computes; so much fits
into the buffer of a socket."""

SPIN_SECONDS = 2e-3
"""How long to ask before sleeping: longer than a sweep takes, and less than who waits longer would notice."""

BUFFER_BYTES = 1 << 20


class Neighbour:
    """The rank before or behind this one.

    Parameters
    ----------
    connection
        A connected stream socket.
    patience
        Seconds of silence that mean death.
    spin
        Seconds for which a waiting rank keeps its core awake; 0 where ranks share cores.
    """

    def __init__(self, connection: socket.socket, patience: float, spin: float = SPIN_SECONDS) -> None:
        connection.setblocking(False)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
        self._connection, self._patience, self._spin = connection, patience, spin

    def send(self, tensor: Tensor) -> None:
        """Pass a contiguous tensor on; back as soon as the kernel has it.

        Raises
        ------
        OSError
            If the other end is closed, or does not read in time (TimeoutError).
        """
        view, done, until = _bytes(tensor), 0, None
        while done < len(view):
            try:
                done += self._connection.send(view[done:])
            except BlockingIOError:
                until = self._wait(select.POLLOUT, until)

    def receive(self, into: Tensor) -> None:
        """Fill a contiguous tensor with what was sent first; errors as for :meth:`send`."""
        view, done, until = _bytes(into), 0, None
        while done < len(view):
            try:
                count = self._connection.recv_into(view[done:])
            except BlockingIOError:
                until = self._wait(select.POLLIN, until)
                continue
            if count == 0:
                raise ConnectionResetError("the other end is closed")
            done += count

    def _wait(self, event: int, until: float | None) -> float:
        """Let others have the core for a moment, or sleep; the time until which there is no sleep."""
        now = time.monotonic()
        if until is None:
            until = now + self._spin
        if now < until:
            os.sched_yield()
            return until
        waiting = select.poll()
        waiting.register(self._connection, event)
        if not waiting.poll(1000.0 * self._patience):
            raise TimeoutError(f"timed out after {self._patience:g} s")
        return until

    def close(self) -> None:
        """Hang up."""
        self._connection.close()


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.detach().view(-1).view(torch.uint8).numpy().data


def meet(
    store: Store, rank: int, *, before: bool, after: bool, patience: float, spin: float = SPIN_SECONDS
) -> tuple[Neighbour | None, Neighbour | None]:
    """Connect with the neighbours on the same host; every rank of a chain calls it.

    Parameters
    ----------
    store
        Where ranks leave word for each other.
    rank
        Number of this rank; the one before it is ``rank - 1``.
    before, after
        Whether there is a rank before it, and one behind it.
    patience, spin
        See :class:`Neighbour`.

    Returns
    -------
    (Neighbour or None, Neighbour or None)
        The rank before and the rank behind; None where there is none, or where it is on another host. Both
        ends of a pair find the same.
    """
    found: list[Neighbour | None] = [None, None]
    with contextlib.ExitStack() as stack:
        listener, token = None, secrets.token_hex(16)
        if after:
            path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pmlp-"))) / "s"
            listener = _listen(path)
            if listener is not None:
                stack.enter_context(listener)
            address = "" if listener is None else str(path)
            store.set(f"neighbour-{rank}", json.dumps([address, token]))
        if before:
            address, theirs = json.loads(store.get(f"neighbour-{rank - 1}"))
            connection = _call(address, theirs)
            store.set(f"neighbour-{rank - 1}-answers", "no" if connection is None else "yes")
            if connection is not None:
                found[0] = Neighbour(connection, patience, spin)
        if after and store.get(f"neighbour-{rank}-answers") == b"yes":
            assert listener is not None
            found[1] = near = Neighbour(listener.accept()[0], patience, spin)
            heard = torch.zeros(len(token), dtype=torch.uint8)
            near.receive(heard)
            if bytes(heard.tolist()) != token.encode():
                near.close()
                raise ConnectionRefusedError(f"a stranger has called rank {rank}")
    return found[0], found[1]


def _listen(path: Path) -> socket.socket | None:
    """A socket to be called at, or None where the system has none, or not at such a long path."""
    if not (hasattr(socket, "AF_UNIX") and hasattr(select, "poll") and hasattr(os, "sched_yield")):
        return None
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(str(path))
        listener.listen(1)
    except OSError:
        listener.close()
        return None
    return listener


def _call(address: str, token: str) -> socket.socket | None:
    """A connection to the socket at a path, or None where there is none, as on another host."""
    if not address:
        return None
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(address)
        connection.sendall(token.encode())
    except OSError:
        connection.close()
        return None
    return connection
