"""Threads or processes, and that a search does not care."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from parallelmlp_search.search import Problem, SearchSettings, workers
from parallelmlp_search.search.preparation import Preparation
from parallelmlp_search.search.workers import WORTH_PROCESSES_SECONDS, Workers


@pytest.mark.parametrize(
    ("seconds", "n_workers", "values", "on_gpu", "starts"),
    [
        (WORTH_PROCESSES_SECONDS, 2, {}, False, True),
        (0.99 * WORTH_PROCESSES_SECONDS, 2, {}, False, False),
        (1e6, 1, {}, False, False),
        (1e6, 2, {"memory_limit": 10**9}, False, False),
        (1e6, 2, {}, True, False),
    ],
)
def test_processes_are_for_long_work_on_several_cores(
    seconds: float, n_workers: int, values: dict[str, Any], on_gpu: bool, starts: bool, spam: Problem
) -> None:
    data = Preparation(spam, SearchSettings()).screening().data
    with contextlib.ExitStack() as stack:
        chosen = Workers(stack, n_workers, on_gpu=on_gpu, **values)
        assert chosen.share(data) is data
        chosen.expect(seconds)
        shared = chosen.share(data)
        assert (shared.stored is not None) is starts
        assert chosen.share(shared) is shared


def test_a_search_in_processes_ends_the_same(
    spam: Problem, make_settings: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from parallelmlp_search.search import run

    settings = make_settings(n_trials=12, max_epochs=3)
    threads = run(spam, settings, n_jobs=2)
    monkeypatch.setattr(workers, "WORTH_PROCESSES_SECONDS", 0.0)
    processes = run(spam, settings, n_jobs=2)
    columns = [name for name in threads.trials if not name.endswith("_seconds")]
    assert threads.trials[columns].equals(processes.trials[columns])
    assert threads.honest == processes.honest
