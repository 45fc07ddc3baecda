"""Sockets between neighboring ranks: complete messages, and errors if the other end is closed or silent."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from parallelmlp_search.parareal.ranks import unix_transport
from parallelmlp_search.parareal.ranks.unix_transport import PeerConnection, connect_peers


@contextlib.contextmanager
def pair(timeout: float = 5.0, spin: float = 1e-3) -> Iterator[tuple[PeerConnection, PeerConnection]]:
    first, second = socket.socketpair()
    with first, second:
        yield PeerConnection(first, timeout, spin), PeerConnection(second, timeout, spin)


@pytest.mark.parametrize("spin", [0.0, 1e-3, 5.0], ids=["blocking", "both", "polling"])
@pytest.mark.parametrize(
    "shape",
    [
        pytest.param((), id="a number"),
        pytest.param((128, 96), id="an interface"),
        pytest.param((2_000, 1_000), id="longer than any buffer"),
    ],
)
def test_messages_arrive_complete_and_in_order(shape: tuple[int, ...], spin: float) -> None:
    sent = [torch.randn(shape, dtype=torch.float64) for _ in range(3)]

    def send(here: PeerConnection) -> None:
        for number, message in enumerate(sent):
            time.sleep(0.01 * number)  # the reader has to wait
            here.send(message)

    with pair(spin=spin) as (here, there):
        thread = threading.Thread(target=send, args=(here,))
        thread.start()
        for message in sent:
            found = torch.empty(shape, dtype=torch.float64)
            there.receive(found)
            assert torch.equal(found, message)
        thread.join()
    assert not torch.equal(sent[0], sent[1])


def test_a_closed_end_is_an_error_at_once() -> None:
    began = time.monotonic()
    with pair(timeout=60.0) as (here, there):
        timer = threading.Timer(0.1, there.close)
        timer.start()
        with pytest.raises(ConnectionResetError, match="the other end is closed"):
            here.receive(torch.empty(4))
        with pytest.raises(BrokenPipeError):
            here.send(torch.zeros(4))
        timer.join()
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("spin", [0.0, 0.05])
def test_silence_is_an_error_after_the_timeout(spin: float) -> None:
    with pair(timeout=0.2, spin=spin) as (here, _):
        began = time.monotonic()
        with pytest.raises(TimeoutError, match=r"timed out after 0.2 s"):
            here.receive(torch.empty(4))
        assert 0.2 <= time.monotonic() - began < 10
        with pytest.raises(TimeoutError, match="timed out"):
            here.send(torch.zeros(1_000_000))  # the other end does not read


def connect_chain(n_ranks: int) -> list[dict[int, PeerConnection]]:
    store = dist.HashStore()
    store.set_timeout(timedelta(seconds=20))

    def connect(rank: int) -> dict[int, PeerConnection]:
        return connect_peers(store, rank, {rank - 1, rank + 1} & {*range(n_ranks)}, timeout=5.0)

    with ThreadPoolExecutor(n_ranks) as threads:
        return list(threads.map(connect, range(n_ranks)))


@pytest.mark.parametrize("n_ranks", [1, 2, 5])
def test_neighbors_are_connected(n_ranks: int) -> None:
    found = connect_chain(n_ranks)
    expected = [{rank - 1, rank + 1} & {*range(n_ranks)} for rank in range(n_ranks)]
    assert [peers.keys() for peers in found] == expected
    for rank in range(n_ranks - 1):
        here, there = found[rank][rank + 1], found[rank + 1][rank]
        received = torch.empty(1)
        here.send(torch.full((1,), float(rank)))
        there.receive(received)
        assert float(received) == rank
        there.send(torch.full((1,), -1.0))
        here.receive(received)
        assert float(received) == -1.0
        here.close()
        there.close()


def no_socket(path: Path) -> None:
    return None


def removed(path: Path) -> socket.socket:
    """A path that does not exist on the other host."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(1)
    path.unlink()
    return listener


@pytest.mark.parametrize("listen", [no_socket, removed])
def test_both_ends_agree_that_they_are_on_different_hosts(
    monkeypatch: pytest.MonkeyPatch, listen: Callable[[Path], socket.socket | None]
) -> None:
    monkeypatch.setattr(unix_transport, "_listen", listen)
    assert connect_chain(3) == [{}] * 3


def test_a_path_that_is_too_long_is_no_address(tmp_path: Path) -> None:
    assert unix_transport._listen(tmp_path / ("x" * 120)) is None
