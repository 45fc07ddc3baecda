"""Shards on a dask cluster: equal results, rows once per worker, killed workers, and errors."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from parallelmlp_search.cli.app import app
from parallelmlp_search.distribute import (
    ShardOutcome,
    active_cluster,
    connected,
    dask_cluster,
    run_shards,
    worker_count,
)
from parallelmlp_search.distribute import cluster as cluster_module
from parallelmlp_search.distribute.cluster import TaskLost
from parallelmlp_search.distribute.dask_cluster import DaskCluster
from parallelmlp_search.distribute.remote import Rows
from parallelmlp_search.distribute.software import Software
from parallelmlp_search.exceptions import DistributedError
from parallelmlp_search.search import RunDirectory
from parallelmlp_search.search.problem.devices import resolve_device

distributed = pytest.importorskip("distributed")
CommClosedError = pytest.importorskip("distributed.comm").CommClosedError

Make = Callable[..., Any]

pytestmark = [
    pytest.mark.alone,
    # of dask and tornado, while a cluster starts and ends
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two worker processes that are started again when they die."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=50
        ) as cluster:
            yield cluster


@pytest.fixture
def client(cluster: Any) -> Iterator[Any]:
    with distributed.Client(cluster, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)  # killed ones start again
        yield client


@pytest.fixture
def on_cluster(client: Any) -> Iterator[Any]:
    with joblib.parallel_config("dask", client=client):
        yield client
    client.wait_for_workers(2, timeout=60)  # a cluster does not end while workers start


def _vectors(outcomes: Any) -> dict[int, torch.Tensor]:
    members = [member for outcome in outcomes for member in outcome.members]
    return {member.trial: member.state.vectors["parameters"] for member in members}


def _assert_same(found: dict[int, torch.Tensor], expected: dict[int, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[trial], expected[trial]) for trial in expected)
    assert len({vector.sum().item() for vector in found.values()}) > 1


def _tasks(make_data: Make, make_configs: Make, make_task: Make, count: int, epochs: int) -> list[Any]:
    data = make_data()
    return [
        make_task(make_configs(4, seed=seed), data, first=4 * seed, until_epoch=epochs, total_epochs=epochs)
        for seed in range(count)
    ]


def test_a_search_on_a_cluster_gives_the_same_leaderboard(cluster: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(240, 3)), columns=["a", "b", "c"])
    frame["y"] = np.where(frame["a"] * frame["b"] + 0.3 * rng.normal(size=240) > 0, "yes", "no")
    frame.to_csv(tmp_path / "table.csv", index=False)

    def search(name: str, *options: str) -> pd.DataFrame:
        arguments = ["search", str(tmp_path / "table.csv"), "--target", "y", "--trials", "12", "--quiet"]
        arguments += ["--max-epochs", "6", "--folds", "3", "--space", "small", "--output", name, *options]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
        return RunDirectory.open(Path(name)).leaderboard().drop(columns="train_seconds")

    here = search(str(tmp_path / "here"))
    address = cluster.scheduler_address
    there = search(str(tmp_path / "there"), "--backend", "dask", "--scheduler", address)
    pd.testing.assert_frame_equal(here, there)
    log = (tmp_path / "there" / "log.jsonl").read_text()
    assert '"workers": 2' in log


@pytest.mark.parametrize(("frees", "most"), [(False, 1), (True, 2)])
def test_every_worker_receives_the_rows_once(
    frees: bool, most: int, on_cluster: Any, make_data: Make, make_configs: Make, make_task: Make
) -> None:
    """Unless dask's memory manager frees a copy that no waiting shard needs, between two rounds."""

    def count_arrivals() -> None:
        def arrive(self: Any, state: dict[str, Any]) -> None:
            Rows.arrivals += 1
            self.__dict__.update(state)

        from parallelmlp_search.distribute.remote import Rows

        Rows.arrivals = 0
        Rows.__setstate__ = arrive

    on_cluster.run(count_arrivals)
    on_cluster.amm.stop()  # it runs every 2 s
    tasks = _tasks(make_data, make_configs, make_task, 12, 40)
    found = {}
    for part in (tasks[:6], tasks[6:]):  # two rounds of a search
        found |= _vectors(run_shards(part, n_workers=2))
        if frees:
            on_cluster.amm.run_once()
    on_cluster.amm.start()
    _assert_same(found, _vectors(_local(tasks)))
    arrivals = on_cluster.run(lambda: Rows.arrivals)  # of six shards or so each
    assert sorted(arrivals.values()) == [1, most]


def _local(tasks: list[Any]) -> Iterator[ShardOutcome]:
    with joblib.parallel_config("threading"):
        yield from run_shards(tasks, n_workers=1)


def test_a_worker_with_another_version_is_refused(
    on_cluster: Any,
    make_data: Make,
    make_configs: Make,
    make_task: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted = replace(Software.here("plain"), torch="1.0")
    monkeypatch.setattr(Software, "here", lambda path: wanted)
    with pytest.raises(DistributedError, match=r"the worker on .* has torch .* the search runs with 1\.0"):
        list(run_shards(_tasks(make_data, make_configs, make_task, 4, 2), n_workers=2))


def test_the_configuration_decides(on_cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert active_cluster() is active_cluster() is not None
    assert (worker_count(None), worker_count(-1), worker_count(1)) == (2, 2, 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto") == "cpu"

    def inside() -> bool:
        with joblib.parallel_config("dask"):
            return active_cluster() is None

    assert on_cluster.submit(inside).result()
    with joblib.parallel_config("threading"):
        assert active_cluster() is None


def test_a_cluster_without_workers_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_cluster, "WORKER_SECONDS", 0.2)
    with (
        distributed.LocalCluster(n_workers=0, dashboard_address=":0", silence_logs=50) as empty,
        connected("dask", empty.scheduler_address),
        pytest.raises(DistributedError, match=r"has no worker: start one .* dask worker tcp://127"),
    ):
        worker_count(None)


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_worker_that_is_killed_three_times_loses_nothing(
    on_cluster: Any, make_data: Make, make_configs: Make, make_task: Make
) -> None:
    tasks = _tasks(make_data, make_configs, make_task, 12, 200)
    outcomes, killed = [], 0
    for outcome in run_shards(tasks, n_workers=2):
        outcomes.append(outcome)
        if killed < 3 and len(outcomes) % 4 == 1:
            (pid, *_) = on_cluster.run(os.getpid).values()
            os.kill(pid, signal.SIGKILL)
            killed += 1
    assert killed == 3
    assert len(outcomes) == len(tasks)
    _assert_same(_vectors(outcomes), _vectors(_local(tasks)))


class _Failed:
    """A future whose result raises an error."""

    def __init__(self, error: Exception, status: str = "finished") -> None:
        self._error, self.status = error, status

    def result(self) -> None:
        raise self._error


def _unconnected(status: str, **methods: Any) -> DaskCluster:
    scheduler = SimpleNamespace(address="tcp://host:8786")
    return DaskCluster(SimpleNamespace(scheduler=scheduler, status=status, **methods))


def test_a_shard_that_kills_its_workers_is_an_error() -> None:
    error = distributed.KilledWorker("shard", SimpleNamespace(address="tcp://host:4000"), 3)
    with pytest.raises(DistributedError, match=r"its worker died 4 times, the last one at tcp://host:4000"):
        _unconnected("running").fetch(_Failed(error))


def test_a_lost_connection_sends_the_task_again_or_is_an_error() -> None:
    lost = _Failed(distributed.CancelledError("lost"))
    with pytest.raises(TaskLost):
        _unconnected("running").fetch(lost)
    with pytest.raises(DistributedError, match=r"scheduler at tcp://host:8786 cannot be reached any more"):
        _unconnected("closed").fetch(lost)


def test_a_result_that_cannot_be_fetched_sends_the_task_again() -> None:
    error = CommClosedError("in <TCP>: Stream is closed")
    with pytest.raises(TaskLost, match="Stream is closed"):
        _unconnected("running").fetch(_Failed(error))
    with pytest.raises(DistributedError, match="cannot be reached any more"):
        _unconnected("closed").fetch(_Failed(error))
    with pytest.raises(OSError, match="disk full"):  # of the task itself
        _unconnected("running").fetch(_Failed(OSError("disk full"), "error"))


class _Counting:
    """Counts two workers after some errors."""

    def __init__(self, errors: int) -> None:
        self.errors = errors

    def __call__(self) -> dict[str, int]:
        self.errors -= 1
        if self.errors >= 0:
            raise CommClosedError("in <TCP>: Stream is closed")
        return {"tcp://a": 1, "tcp://b": 1}


@pytest.mark.parametrize("errors", [0, 1, 9])
def test_a_lost_connection_while_workers_are_counted_is_tried_again(
    errors: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dask_cluster, "RETRY_SECONDS", 0.0)
    counting = _Counting(errors)
    assert _unconnected("running", nthreads=counting).n_workers == 2
    assert counting.errors == -1


def test_a_lost_connection_does_not_change_an_earlier_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_module, "COUNT_SECONDS", 0.0)
    counting = _Counting(0)
    found = _unconnected("running", nthreads=counting)
    assert found.n_workers == 2
    counting.errors = 1
    assert found.n_workers == 2
    assert counting.errors == 0  # asked, and not again


@pytest.mark.parametrize(
    ("status", "message"), [("running", "lost the connection 10 times"), ("closed", "cannot be reached any")]
)
def test_a_connection_that_is_lost_for_good_is_an_error(
    status: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dask_cluster, "RETRY_SECONDS", 0.0)
    with pytest.raises(DistributedError, match=rf"scheduler at tcp://host:8786 {message}"):
        _ = _unconnected(status, nthreads=_Counting(1000)).n_workers


def test_a_task_for_a_scheduler_that_is_gone_is_an_error() -> None:
    with distributed.LocalCluster(
        n_workers=0, dashboard_address=":0", silence_logs=50, processes=False
    ) as empty:
        client = distributed.Client(empty, set_as_default=False)
        found = DaskCluster(client)
        client.close()
        with pytest.raises(DistributedError, match="cannot be reached any more: start it, and search again"):
            found.put(1)
