"""Choice of threads or processes, and equal results with both."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from parallelmlp_search.search import Problem, SearchSettings
from parallelmlp_search.search.problem.preparation import Preparation
from parallelmlp_search.search.run import workers
from parallelmlp_search.search.run.workers import (
    COMPILED_FACTOR,
    FEW_WORKERS,
    MIN_PROCESS_SECONDS,
    PROCESS_BYTES,
    Workers,
)


@pytest.mark.parametrize(
    ("seconds", "n_workers", "values", "on_gpu", "load", "starts"),
    [
        (MIN_PROCESS_SECONDS, 2, {}, False, 0.0, True),
        (0.99 * MIN_PROCESS_SECONDS, 2, {}, False, 0.0, False),
        (5 * MIN_PROCESS_SECONDS, 2, {}, False, 1e9, False),
        (20 * MIN_PROCESS_SECONDS, 2, {}, False, 1e9, True),
        (20 * MIN_PROCESS_SECONDS, 3, {}, False, 1e9, True),
        (1e6, 1, {}, False, 0.0, False),
        (1e6, 2, {"memory_limit": 2 * PROCESS_BYTES - 1}, False, 0.0, False),
        (1e6, 2, {"memory_limit": 2 * PROCESS_BYTES}, False, 0.0, True),
        (1e6, 2, {}, True, 0.0, False),
    ],
)
def test_processes_are_for_long_work_on_several_cores(
    seconds: float,
    n_workers: int,
    values: dict[str, Any],
    on_gpu: bool,
    load: float,
    starts: bool,
    spam: Problem,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setenv("PMLP_COMPILED", "0")
    data = Preparation(spam, SearchSettings()).screening().data
    with contextlib.ExitStack() as stack:
        chosen = Workers(stack, n_workers, on_gpu=on_gpu, **values)
        assert chosen.share(data) is data
        chosen.expect(seconds)
        shared = chosen.share(data)
        assert (shared.stored is not None) is starts
        assert chosen.share(shared) is shared


@pytest.mark.parametrize(
    ("seconds", "n_workers", "compiled", "starts"),
    [
        (2 * MIN_PROCESS_SECONDS, FEW_WORKERS, True, False),
        (COMPILED_FACTOR * MIN_PROCESS_SECONDS, FEW_WORKERS, True, True),
        (2 * MIN_PROCESS_SECONDS, FEW_WORKERS + 1, True, True),
        (2 * MIN_PROCESS_SECONDS, FEW_WORKERS, False, True),
    ],
)
def test_few_workers_with_compiled_loops_stay_threads_for_longer(
    seconds: float, n_workers: int, compiled: bool, starts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (0.0, 0.0, 0.0))
    monkeypatch.setattr(workers, "uses_compiled", lambda *_: compiled)
    started: list[int] = []
    monkeypatch.setattr(workers, "worker_processes", lambda n: started.append(n) or contextlib.nullcontext())
    with contextlib.ExitStack() as stack:
        Workers(stack, n_workers).expect(seconds)
    assert started == ([n_workers] if starts else [])


def test_a_search_in_processes_has_the_same_result(
    spam: Problem, make_settings: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from parallelmlp_search.search import run

    settings = make_settings(n_trials=12, max_epochs=3)
    threads = run(spam, settings, n_jobs=2)
    monkeypatch.setattr(workers, "MIN_PROCESS_SECONDS", 0.0)
    processes = run(spam, settings, n_jobs=2)
    columns = [name for name in threads.trials if not name.endswith("_seconds")]
    assert threads.trials[columns].equals(processes.trials[columns])
    assert threads.honest == processes.honest
