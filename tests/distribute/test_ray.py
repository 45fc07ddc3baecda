"""Shards on a ray cluster: equal results, killed workers, and errors."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from parallelmlp_search.distribute import active_cluster, connected, run_shards, worker_count
from parallelmlp_search.distribute.shards import train_shard
from parallelmlp_search.distribute.software import Software
from parallelmlp_search.exceptions import DistributedError

ray = pytest.importorskip("ray")

Make = Callable[..., Any]

pytestmark = [
    pytest.mark.alone,
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL"),
    # of ray, while a cluster starts and ends
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture(scope="module")
def connection() -> Iterator[None]:
    """A cluster with two workers, of which only the processes of its own end with it."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    try:
        with connected("ray", cluster.address):
            yield
    finally:
        cluster.shutdown()


def _tasks(make_data: Make, make_configs: Make, make_task: Make, count: int, epochs: int) -> list[Any]:
    data = make_data()
    return [
        make_task(make_configs(4, seed=seed), data, first=4 * seed, until_epoch=epochs, total_epochs=epochs)
        for seed in range(count)
    ]


def _vectors(outcomes: Any) -> dict[int, torch.Tensor]:
    members = [member for outcome in outcomes for member in outcome.members]
    return {member.trial: member.state.vectors["parameters"] for member in members}


def _worker_pids() -> list[int]:
    """Processes that train a shard now; ray names a process after its task."""
    pids = []
    for status in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if b"ray::train_message" in status.read_bytes():
                pids.append(int(status.parent.name))
        except OSError:
            continue
    return pids


@pytest.mark.usefixtures("connection")
def test_a_worker_that_is_killed_three_times_loses_nothing(
    make_data: Make, make_configs: Make, make_task: Make
) -> None:
    assert active_cluster() is not None
    assert (worker_count(None), worker_count(1)) == (2, 1)
    tasks = _tasks(make_data, make_configs, make_task, 12, 400)
    outcomes, killed = [], 0
    for outcome in run_shards(tasks, n_workers=2):
        outcomes.append(outcome)
        until = time.monotonic() + 30
        while killed < 3 and len(outcomes) % 3 == 1 and time.monotonic() < until:
            if pids := _worker_pids():
                os.kill(pids[0], signal.SIGKILL)
                killed += 1
                break
            time.sleep(0.01)
    assert killed == 3
    found = _vectors(outcomes)
    expected = _vectors(map(train_shard, tasks))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[trial], expected[trial]) for trial in expected)


@pytest.mark.usefixtures("connection")
def test_an_error_of_a_worker_is_raised(
    make_data: Make, make_configs: Make, make_task: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = replace(Software.here("plain"), torch="1.0")
    monkeypatch.setattr(Software, "here", lambda path: wanted)
    with pytest.raises(DistributedError, match=r"^the worker on \S+ has torch .* the search runs with 1\.0"):
        list(run_shards(_tasks(make_data, make_configs, make_task, 4, 2), n_workers=2))


def test_a_missing_cluster_is_an_error() -> None:
    with (
        pytest.raises(DistributedError, match=r"no ray cluster answers at '127\.0\.0\.1:1' .*ray start"),
        connected("ray", "127.0.0.1:1"),
    ):
        pass
