"""Interrupts wait until they are allowed; a second one does not wait."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from parallelmlp_search._signals import Interrupts


@pytest.fixture(autouse=True)
def _default_handler() -> Iterator[None]:
    """Handle Ctrl-C even if the tests run in the background, where it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def press() -> None:
    signal.raise_signal(signal.SIGINT)


def test_interrupts_wait_until_they_are_allowed() -> None:
    reached = []
    with Interrupts() as interrupts:
        interrupts.check()
        with interrupts.allowed():
            reached.append("undisturbed")
        press()
        reached.append("written")
        with pytest.raises(KeyboardInterrupt), interrupts.allowed():
            reached.append("too late")
        with pytest.raises(KeyboardInterrupt), interrupts.allowed():
            press()
        interrupts.check()  # each is handled once
    assert reached == ["undisturbed", "written"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_second_interrupt_does_not_wait() -> None:
    with Interrupts():
        press()
        with pytest.raises(KeyboardInterrupt):
            press()


def _interrupted(error: type[Exception] | None) -> None:
    with Interrupts():
        press()
        if error is not None:
            raise error


def test_a_pending_interrupt_is_handled_at_the_end_unless_there_is_an_error() -> None:
    with pytest.raises(KeyboardInterrupt):
        _interrupted(None)
    with pytest.raises(ZeroDivisionError):
        _interrupted(ZeroDivisionError)


def test_a_sigterm_with_a_handler_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        with Interrupts() as interrupts:
            signal.raise_signal(signal.SIGTERM)
            assert seen == []
            interrupts.check()
            assert seen == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)
    with Interrupts():
        assert signal.getsignal(signal.SIGTERM) is before  # the default action stays


def test_other_threads_change_no_handler() -> None:
    handlers: list[Any] = []

    def work() -> None:
        with Interrupts() as interrupts, interrupts.allowed():
            handlers.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert handlers == [signal.default_int_handler]
