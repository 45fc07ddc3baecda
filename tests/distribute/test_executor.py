"""Execution of shards: results do not depend on workers and backends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import joblib
import pytest
import torch

from parallelmlp_search.distribute import (
    ShardOutcome,
    ShardTask,
    TrainingMemory,
    executor,
    run_shards,
    worker_count,
)
from parallelmlp_search.exceptions import InvalidParameterError

Make = Callable[..., Any]


@pytest.fixture(scope="module")
def tasks(make_data: Make, make_configs: Make, make_task: Make) -> list[ShardTask]:
    data = make_data(predict=True)
    return [
        make_task(make_configs(3, batch_size=batch, seed=seed), data, first=10 * seed)
        for seed, batch in enumerate((8, 16, 32, 96, 16))
    ]


@pytest.fixture(scope="module")
def sequential(tasks: list[ShardTask]) -> dict[str, ShardOutcome]:
    return {outcome.key: outcome for outcome in run_shards(tasks, n_workers=1)}


def _assert_same(outcomes: dict[str, ShardOutcome], expected: dict[str, ShardOutcome]) -> None:
    assert outcomes.keys() == expected.keys()
    for key, outcome in outcomes.items():
        assert outcome.member_steps == expected[key].member_steps
        for member, other in zip(outcome.members, expected[key].members, strict=True):
            assert member.trial == other.trial
            assert (member.error, member.train_loss) == (other.error, other.train_loss)
            assert torch.equal(member.prediction, other.prediction)
            for name, vector in member.state.vectors.items():
                assert torch.equal(vector, other.state.vectors[name])


def test_two_threads_give_the_same_bits_as_one(
    tasks: list[ShardTask], sequential: dict[str, ShardOutcome]
) -> None:
    _assert_same({outcome.key: outcome for outcome in run_shards(tasks, n_workers=2)}, sequential)
    # shards differ, so the test can detect an exchange
    errors = {outcome.members[0].error for outcome in sequential.values()}
    assert len(errors) == len(sequential)


@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_every_backend_gives_the_same_bits(
    backend: str, tasks: list[ShardTask], sequential: dict[str, ShardOutcome]
) -> None:
    with joblib.parallel_config(backend, n_jobs=2):
        outcomes = {outcome.key: outcome for outcome in run_shards(tasks, n_workers=2)}
    _assert_same(outcomes, sequential)


def test_tasks_are_taken_as_workers_become_free(tasks: list[ShardTask]) -> None:
    taken: list[str] = []

    def iterate() -> Iterator[ShardTask]:
        for task in tasks:
            taken.append(task.key)
            yield task

    outcomes = run_shards(iterate(), n_workers=1)
    next(outcomes)
    assert len(taken) <= 3
    assert len(list(outcomes)) == len(tasks) - 1
    assert len(taken) == len(tasks)


def test_an_iterable_may_end_early(tasks: list[ShardTask]) -> None:
    assert [outcome.key for outcome in run_shards(tasks[:1], n_workers=2)] == [tasks[0].key]
    assert list(run_shards([], n_workers=2)) == []


@pytest.mark.parametrize("n_workers", [1, 2])
def test_an_error_of_a_shard_is_raised(
    n_workers: int, tasks: list[ShardTask], monkeypatch: pytest.MonkeyPatch
) -> None:
    from parallelmlp_search.distribute import shards

    def broken(task: ShardTask) -> ShardOutcome:
        raise RuntimeError("a shard is broken")

    monkeypatch.setattr(shards, "_train_whole", broken)
    with pytest.raises(RuntimeError, match="a shard is broken"):
        list(run_shards(tasks, n_workers=n_workers))


class TestWorkerCount:
    def test_none_means_all_cores(self) -> None:
        assert worker_count(None) == joblib.cpu_count()

    @pytest.mark.parametrize("n_jobs", [1, 2, 7])
    def test_positive_numbers_are_kept(self, n_jobs: int) -> None:
        assert worker_count(n_jobs) == n_jobs

    def test_negative_numbers_count_from_all_cores(self) -> None:
        assert worker_count(-1) == joblib.cpu_count()
        assert worker_count(-2) == max(1, joblib.cpu_count() - 1)

    def test_zero_is_an_error(self) -> None:
        with pytest.raises(InvalidParameterError, match=r"n_jobs must not be 0"):
            worker_count(0)
        with pytest.raises(InvalidParameterError, match="n_jobs must be at most 10000, but got 1000000"):
            worker_count(10**20)

    @pytest.mark.parametrize("n_jobs", [1, 3])
    def test_none_follows_the_active_configuration(self, n_jobs: int) -> None:
        with joblib.parallel_config("threading", n_jobs=n_jobs):
            assert worker_count(None) == n_jobs
            assert worker_count(2) == 2

    def test_a_backend_without_a_number_means_all_cores(self) -> None:
        with joblib.parallel_config("threading"):
            assert worker_count(None) == joblib.cpu_count()

    def test_a_nested_parallel_call_has_one_worker(self) -> None:
        counts = joblib.Parallel(n_jobs=2, backend="threading")(
            joblib.delayed(worker_count)(None) for _ in range(2)
        )
        assert counts == [1, 1]


@pytest.mark.parametrize(("n_fitting", "most"), [(1, 1), (2, 2), (9, 3), (0, 1)])
def test_as_many_shards_as_fit_into_memory_train_at_once(
    n_fitting: int, most: int, tasks: list[ShardTask], monkeypatch: pytest.MonkeyPatch
) -> None:
    counts, now, lock = [], 0, threading.Lock()

    def train(task: ShardTask) -> ShardOutcome:
        nonlocal now
        with lock:
            now += 1
            counts.append(now)
        time.sleep(0.05)
        with lock:
            now -= 1
        return ShardOutcome(task.key)

    monkeypatch.setattr(executor, "train_shard", train)
    used = 500 * 10**6
    monkeypatch.setattr(executor, "resident_bytes", lambda: used)
    needed = max(task.predicted_bytes for task in tasks)
    memory = TrainingMemory(process=used + n_fitting * needed, shard=needed)
    limited = [replace(task, data=replace(task.data, memory=memory)) for task in tasks]
    assert len(list(run_shards(limited, n_workers=3))) == len(tasks)
    assert max(counts) == most


def test_too_little_memory_for_threads_is_the_error(
    tasks: list[ShardTask], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python's pool then fails as well, when it ends the threads that it could start."""
    start, started = threading.Thread.start, []

    def start_one(thread: threading.Thread) -> None:
        if started:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_one)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        list(run_shards(tasks, n_workers=3))
