"""Shards on a cluster, with a cluster inside this process that can lose and delay tasks."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from parallelmlp_search.distribute import ShardTask, cluster, run_shards
from parallelmlp_search.distribute.cluster import Cluster, TaskLost
from parallelmlp_search.distribute.remote import Message, train_message
from parallelmlp_search.engine.rows import RowView
from parallelmlp_search.exceptions import DistributedError, InvalidParameterError

Make = Callable[..., Any]


class LocalTasks(Cluster):
    """A cluster in this process, which trains a task when it is waited for.

    Parameters
    ----------
    n_workers
        Number of workers.
    losses
        Number of tasks that are lost before the first result.
    hangs
        True if no task ever finishes.
    """

    def __init__(self, n_workers: int = 2, *, losses: int = 0, hangs: bool = False) -> None:
        super().__init__()
        self.size, self.losses, self.hangs = n_workers, losses, hangs
        self.values: dict[int, Any] = {}
        self.tasks: dict[int, tuple[Message, list[Any]]] = {}
        self.finished: dict[int, tuple[Message, list[Any]]] = {}
        self.most_at_once = 0
        self.cancelled: list[int] = []
        self._number = 0

    def _next(self) -> int:
        self._number += 1
        return self._number

    def count(self) -> int:
        return self.size

    def put(self, value: Any) -> int:
        self.values[number := self._next()] = value
        return number

    def is_stored(self, reference: int) -> bool:
        return reference in self.values

    def submit(self, message: Message, parts: list[Any]) -> int:
        self.tasks[number := self._next()] = message, parts
        self.most_at_once = max(self.most_at_once, len(self.tasks))
        return number

    def wait(self, pending: list[Any], seconds: float | None) -> Any | None:
        if self.hangs:
            assert seconds is not None
            time.sleep(seconds)
            return None
        last = pending[-1]  # in another order than sent
        self.finished[last] = self.tasks.pop(last)
        return last

    def fetch(self, reference: int) -> bytes:
        message, parts = self.finished.pop(reference)
        if self.losses:
            self.losses -= 1
            raise TaskLost("the test loses it")
        rows, *tables = [self.values[part] for part in parts]
        return train_message(message, rows, *tables)

    def cancel(self, pending: list[Any]) -> None:
        self.cancelled += pending
        for reference in pending:
            del self.tasks[reference]


@pytest.fixture(scope="module")
def tasks(make_data: Make, make_configs: Make, make_task: Make) -> list[ShardTask]:
    data = make_data()
    return [make_task(make_configs(2, seed=seed), data, first=10 * seed) for seed in range(6)]


@pytest.fixture(scope="module")
def errors(tasks: list[ShardTask]) -> dict[int, float]:
    return _errors(run_shards(tasks, n_workers=1))


def _errors(outcomes: Any) -> dict[int, float]:
    return {member.trial: member.error for outcome in outcomes for member in outcome.members}


@pytest.mark.parametrize("losses", [0, 1, 5, 10])
def test_lost_tasks_are_sent_again(losses: int, tasks: list[ShardTask], errors: dict[int, float]) -> None:
    found = LocalTasks(losses=losses)
    assert _errors(found.run(tasks, n_workers=2)) == errors
    assert found.losses == 0
    assert found.tasks == {}


def test_a_task_that_is_lost_too_often_is_an_error(tasks: list[ShardTask]) -> None:
    found = LocalTasks(losses=1000)
    with pytest.raises(DistributedError, match=r"lost the shard shard-\d+ 10 times \(the test loses it\)"):
        list(found.run(tasks, n_workers=2))
    assert found.tasks == {}


def test_tasks_are_taken_as_workers_become_free(tasks: list[ShardTask]) -> None:
    taken: list[str] = []

    def iterate() -> Iterator[ShardTask]:
        for task in tasks:
            taken.append(task.key)
            yield task

    found = LocalTasks(3)
    assert found.n_workers == 3
    outcomes = found.run(iterate(), n_workers=2)  # fewer than there are: n_jobs=2
    next(outcomes)
    assert len(taken) == 3
    assert len(list(outcomes)) == len(tasks) - 1
    assert found.most_at_once == 2


def test_workers_that_join_are_used(tasks: list[ShardTask], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "COUNT_SECONDS", 0.0)
    found = LocalTasks(2)
    outcomes = found.run(tasks, n_workers=found.n_workers)
    next(outcomes)
    found.size = 4
    list(outcomes)
    assert found.most_at_once == 4


def test_a_shard_without_a_worker_is_left_out_after_its_deadline(
    tasks: list[ShardTask], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "GRACE_SECONDS", 0.2)
    found = LocalTasks(hangs=True)
    deadline = time.monotonic() + 0.3
    assert list(found.run([replace(task, deadline=deadline) for task in tasks], n_workers=2)) == []
    assert time.monotonic() < deadline + 1
    assert len(found.cancelled) == 2


def test_a_shard_that_begins_late_has_its_grace(tasks: list[ShardTask]) -> None:
    late = [replace(tasks[0], deadline=time.monotonic() - 100)]
    (outcome,) = LocalTasks().run(late, n_workers=2)
    assert outcome.cut


def test_leaving_early_cancels_the_rest(tasks: list[ShardTask]) -> None:
    found = LocalTasks()
    outcomes = found.run(tasks, n_workers=2)
    next(outcomes)
    outcomes.close()
    assert len(found.cancelled) == 2
    assert found.tasks == {}


class TestRows:
    def test_rows_are_stored_once(self, tasks: list[ShardTask], errors: dict[int, float]) -> None:
        found = LocalTasks()
        assert (
            _errors(found.run(tasks[:3], n_workers=2)) | _errors(found.run(tasks[3:], n_workers=2)) == errors
        )
        assert len(found.values) == 1

    def test_a_table_is_stored_once_for_all_its_parts(
        self, make_data: Make, make_configs: Make, make_task: Make
    ) -> None:
        data, table = make_data(), torch.randn(200, 5)
        parts = [
            replace(data, rows=replace(data.rows, inputs=RowView(table, torch.arange(first, first + 96))))
            for first in (0, 40, 80)
        ]
        found = LocalTasks()
        list(found.run([make_task(make_configs(1), part) for part in parts], n_workers=2))
        assert len(found.values) == len(parts) + 1

    def test_rows_that_the_cluster_forgot_are_stored_again(
        self, tasks: list[ShardTask], errors: dict[int, float]
    ) -> None:
        found = LocalTasks()
        _errors(found.run(tasks[:1], n_workers=2))
        found.values.clear()
        assert _errors(found.run(tasks, n_workers=2)) == errors
        assert len(found.values) == 1

    def test_references_are_dropped_with_the_data(
        self, make_data: Make, make_configs: Make, make_task: Make
    ) -> None:
        found = LocalTasks()
        list(found.run([make_task(make_configs(1), make_data())], n_workers=2))
        gc.collect()
        assert found._stored == {}


def test_rows_on_a_gpu_are_refused(tasks: list[ShardTask], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(tasks[0].data), "device", torch.device("cuda", 0))
    with pytest.raises(InvalidParameterError, match=r"train on their CPUs, but device is 'cuda:0': use cpu"):
        list(LocalTasks().run(tasks, n_workers=2))
