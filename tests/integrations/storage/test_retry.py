"""Transient errors are retried, others are raised at once, and not forever."""

from __future__ import annotations

import pytest

from parallelmlp_search.integrations.optuna.storage import retry
from parallelmlp_search.integrations.optuna.storage.retry import MAX_ATTEMPTS, call_with_retry


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "MAX_PAUSE_SECONDS", 0.0)


class FlakyCall:
    """Fails a number of times, then succeeds."""

    def __init__(self, n_failures: int) -> None:
        self.n_calls = 0
        self.n_failures = n_failures

    def __call__(self) -> str:
        self.n_calls += 1
        if self.n_calls <= self.n_failures:
            raise TimeoutError(f"failure {self.n_calls}")
        return "done"


def _is_timeout(error: Exception) -> bool:
    return isinstance(error, TimeoutError)


@pytest.mark.parametrize("n_failures", range(MAX_ATTEMPTS))
def test_a_call_is_repeated_until_it_succeeds(n_failures: int) -> None:
    call = FlakyCall(n_failures)
    assert call_with_retry(call, _is_timeout) == "done"
    assert call.n_calls == n_failures + 1


def test_the_last_failure_is_raised() -> None:
    call = FlakyCall(MAX_ATTEMPTS)
    with pytest.raises(TimeoutError, match=f"failure {MAX_ATTEMPTS}"):
        call_with_retry(call, _is_timeout)
    assert call.n_calls == MAX_ATTEMPTS


def test_other_errors_are_raised_at_once() -> None:
    call = FlakyCall(1)
    with pytest.raises(TimeoutError, match="failure 1"):
        call_with_retry(call, lambda error: isinstance(error, KeyError))
    assert call.n_calls == 1
