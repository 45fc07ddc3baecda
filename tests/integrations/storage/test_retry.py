"""Another try: only after refusals that may pass, and not for ever."""

from __future__ import annotations

import pytest

from parallelmlp_search.integrations.optuna.storage import retry as insistence
from parallelmlp_search.integrations.optuna.storage.retry import TRIES, insist


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(insistence, "PAUSE_SECONDS", 0.0)


class Stubborn:
    """Refuses so many times, then gives in."""

    def __init__(self, refusals: int) -> None:
        self.asked = 0
        self.refusals = refusals

    def __call__(self) -> str:
        self.asked += 1
        if self.asked <= self.refusals:
            raise TimeoutError(f"refused {self.asked}")
        return "done"


def _is_timeout(error: Exception) -> bool:
    return isinstance(error, TimeoutError)


@pytest.mark.parametrize("refusals", range(TRIES))
def test_what_gives_in_is_done(refusals: int) -> None:
    work = Stubborn(refusals)
    assert insist(work, _is_timeout) == "done"
    assert work.asked == refusals + 1


def test_the_last_refusal_is_told() -> None:
    work = Stubborn(TRIES)
    with pytest.raises(TimeoutError, match=f"refused {TRIES}"):
        insist(work, _is_timeout)
    assert work.asked == TRIES


def test_other_errors_are_told_at_once() -> None:
    work = Stubborn(1)
    with pytest.raises(TimeoutError, match="refused 1"):
        insist(work, lambda error: isinstance(error, KeyError))
    assert work.asked == 1
