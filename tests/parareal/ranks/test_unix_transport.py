"""Sockets between neighbouring ranks: whole messages, and an error where the other end is gone or silent."""

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

from parallelmlp_search.parareal.ranks import unix_transport as neighbours
from parallelmlp_search.parareal.ranks.unix_transport import Neighbour, meet


@contextlib.contextmanager
def pair(patience: float = 5.0, spin: float = 1e-3) -> Iterator[tuple[Neighbour, Neighbour]]:
    first, second = socket.socketpair()
    with first, second:
        yield Neighbour(first, patience, spin), Neighbour(second, patience, spin)


@pytest.mark.parametrize("spin", [0.0, 1e-3, 5.0], ids=["asleep", "both", "awake"])
@pytest.mark.parametrize(
    "shape",
    [
        pytest.param((), id="a number"),
        pytest.param((128, 96), id="an interface"),
        pytest.param((2_000, 1_000), id="longer than any buffer"),
    ],
)
def test_messages_arrive_whole_and_in_order(shape: tuple[int, ...], spin: float) -> None:
    sent = [torch.randn(shape, dtype=torch.float64) for _ in range(3)]

    def send(here: Neighbour) -> None:
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


def test_an_end_that_is_closed_is_heard_at_once() -> None:
    began = time.monotonic()
    with pair(patience=60.0) as (here, there):
        timer = threading.Timer(0.1, there.close)
        timer.start()
        with pytest.raises(ConnectionResetError, match="the other end is closed"):
            here.receive(torch.empty(4))
        with pytest.raises(BrokenPipeError):
            here.send(torch.zeros(4))
        timer.join()
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("spin", [0.0, 0.05])
def test_silence_is_an_error_after_a_while(spin: float) -> None:
    with pair(patience=0.2, spin=spin) as (here, _):
        began = time.monotonic()
        with pytest.raises(TimeoutError, match=r"timed out after 0.2 s"):
            here.receive(torch.empty(4))
        assert 0.2 <= time.monotonic() - began < 10
        with pytest.raises(TimeoutError, match="timed out"):
            here.send(torch.zeros(1_000_000))  # nobody reads


def chain(n_ranks: int) -> list[tuple[Neighbour | None, Neighbour | None]]:
    store = dist.HashStore()
    store.set_timeout(timedelta(seconds=20))

    def join(rank: int) -> tuple[Neighbour | None, Neighbour | None]:
        return meet(store, rank, before=rank > 0, after=rank < n_ranks - 1, patience=5.0)

    with ThreadPoolExecutor(n_ranks) as threads:
        return list(threads.map(join, range(n_ranks)))


@pytest.mark.parametrize("n_ranks", [1, 2, 5])
def test_ranks_of_a_chain_meet(n_ranks: int) -> None:
    found = chain(n_ranks)
    assert found[0][0] is None is found[-1][1]
    for rank in range(n_ranks - 1):
        here, there = found[rank][1], found[rank + 1][0]
        assert here is not None
        assert there is not None
        heard = torch.empty(1)
        here.send(torch.full((1,), float(rank)))
        there.receive(heard)
        assert float(heard) == rank
        there.send(torch.full((1,), -1.0))
        here.receive(heard)
        assert float(heard) == -1.0
        here.close()
        there.close()


def no_socket(path: Path) -> None:
    return None


def gone(path: Path) -> socket.socket:
    """As from another host: the path leads nowhere there."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(1)
    path.unlink()
    return listener


@pytest.mark.parametrize("listen", [no_socket, gone])
def test_both_ends_know_that_they_are_not_on_one_host(
    monkeypatch: pytest.MonkeyPatch, listen: Callable[[Path], socket.socket | None]
) -> None:
    monkeypatch.setattr(neighbours, "_listen", listen)
    assert chain(3) == [(None, None)] * 3


def test_a_path_that_is_too_long_is_no_address(tmp_path: Path) -> None:
    assert neighbours._listen(tmp_path / ("x" * 120)) is None


def test_a_stranger_is_not_taken_for_a_neighbour(monkeypatch: pytest.MonkeyPatch) -> None:
    call, callers = neighbours._call, contextlib.ExitStack()

    def wrong(address: str, token: str) -> socket.socket | None:
        connection = call(address, token[::-1])
        assert connection is not None
        return callers.enter_context(connection)

    monkeypatch.setattr(neighbours, "_call", wrong)
    with callers, pytest.raises(ConnectionRefusedError, match="a stranger has called rank 0"):
        chain(2)
