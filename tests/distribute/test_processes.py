"""Worker processes: equal results, rows in files, and removal of files and workers."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import joblib
import pytest
import torch

from parallelmlp_search.distribute import (
    ShardOutcome,
    executor,
    may_start_processes,
    run_shards,
    worker_processes,
)
from parallelmlp_search.exceptions import DistributedError, PMLPWarning

Make = Callable[..., Any]


def _states(outcomes: dict[str, ShardOutcome]) -> dict[int, torch.Tensor]:
    members = [member for outcome in outcomes.values() for member in outcome.members]
    return {m.trial: m.state.vectors["parameters"] for m in members if m.state is not None}


@pytest.mark.parametrize("predict", [False, True])
def test_stored_rows_round_trip(make_data: Make, tmp_path: Path, predict: bool) -> None:
    data = make_data(5000, predict=predict)
    stored = data.store(tmp_path)
    text = pickle.dumps(stored)
    assert len(text) < 3000 < 5000 * 5 * 4 < len(pickle.dumps(data))
    back = pickle.loads(text)
    assert torch.equal(back.rows.inputs, data.rows.inputs)
    assert torch.equal(back.rows.target, data.rows.target)
    assert torch.equal(back.validation_inputs, data.validation_inputs)
    assert back.rows.weight is None
    assert (back.prediction_inputs is None) is not predict
    assert (back.head, back.loss, back.seed) == (data.head, data.loss, data.seed)
    # a loaded object can be pickled again
    assert torch.equal(pickle.loads(pickle.dumps(back)).rows.inputs, data.rows.inputs)


def test_data_without_a_file_can_be_pickled(make_data: Make) -> None:
    data = make_data()
    assert torch.equal(pickle.loads(pickle.dumps(data)).rows.inputs, data.rows.inputs)


def test_processes_give_the_same_bits(make_data: Make, make_configs: Make, make_task: Make) -> None:
    data, configs = make_data(), make_configs(12)

    def run(shared: Any) -> dict[str, ShardOutcome]:
        tasks = [make_task(configs[first : first + 3], shared, first=first) for first in range(0, 12, 3)]
        return {outcome.key: outcome for outcome in run_shards(tasks, n_workers=2)}

    in_threads = _states(run(data))
    with worker_processes(2) as share:
        assert not may_start_processes()
        stored = share(data)
        assert stored.stored is not None
        in_processes = _states(run(stored))
    assert not stored.stored.exists()
    assert in_threads.keys() == in_processes.keys()
    assert all(torch.equal(in_threads[trial], in_processes[trial]) for trial in in_threads)


class Bomb:
    """Value that kills the first worker processes that read it, and is None in all others."""

    def __init__(self, counter: Path, kills: int) -> None:
        self.counter, self.kills = counter, kills

    def __reduce__(self) -> tuple[Any, ...]:
        code = f"""
import os
with open({str(self.counter)!r}, "a+") as file:
    file.write(".")
    file.flush()
    if file.tell() <= {self.kills}:
        os.kill(os.getpid(), 9)
"""
        return exec, (code,)


def _with_bomb(task: Any, counter: Path, kills: int) -> Any:
    # a state of None is that of a fresh member
    return replace(task, states=(Bomb(counter, kills), *task.states[1:]))


@pytest.mark.alone
def test_shards_of_a_killed_worker_are_trained_again(
    make_data: Make, make_configs: Make, make_task: Make, tmp_path: Path
) -> None:
    data, configs = make_data(), make_configs(12)
    tasks = [make_task(configs[first : first + 3], data, first=first) for first in range(0, 12, 3)]
    expected = _states({outcome.key: outcome for outcome in run_shards(tasks, n_workers=1)})
    tasks[1] = _with_bomb(tasks[1], tmp_path / "counter", 1)
    with worker_processes(2), pytest.warns(PMLPWarning, match="was killed; its shards are trained again"):
        found = list(run_shards(iter(tasks), n_workers=2))
    assert len(found) == len({outcome.key for outcome in found}) == 4
    states = _states({outcome.key: outcome for outcome in found})
    assert all(torch.equal(states[trial], expected[trial]) for trial in expected)


@pytest.mark.alone
@pytest.mark.filterwarnings("ignore::parallelmlp_search.exceptions.PMLPWarning")
def test_workers_that_are_killed_again_and_again_end_the_run(
    make_data: Make,
    make_configs: Make,
    make_task: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(executor, "MAX_LOSSES", 1)
    task = _with_bomb(make_task(make_configs(3), make_data(), first=0), tmp_path / "counter", 99)
    with (
        worker_processes(2),
        pytest.raises(DistributedError, match="killed 2 times in a row"),
    ):
        list(run_shards([task], n_workers=2))


def test_an_active_joblib_configuration_is_kept() -> None:
    assert may_start_processes()
    with joblib.parallel_config("threading", n_jobs=2):
        assert not may_start_processes()
    assert joblib.Parallel(2)(joblib.delayed(may_start_processes)() for _ in range(2)) == [False, False]


PARENT = """
import os, time, joblib
from parallelmlp_search.distribute import worker_processes
with worker_processes(2) as share:
    folder = share.__closure__[0].cell_contents
    pids = set(joblib.Parallel()(joblib.delayed(os.getpid)() for _ in range(20)))
    print(folder, *pids, flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_workers_of_a_killed_parent_end_and_delete_its_files() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert parent.stdout is not None
    folder, *pids = parent.stdout.readline().split()
    assert Path(folder).is_dir()
    assert pids
    assert all(_is_alive(int(pid)) for pid in pids)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    until = time.monotonic() + 15
    while time.monotonic() < until and (Path(folder).exists() or any(_is_alive(int(pid)) for pid in pids)):
        time.sleep(0.1)
    assert not Path(folder).exists()
    assert not any(_is_alive(int(pid)) for pid in pids)


STARTING = """
import joblib, sys
from parallelmlp_search.distribute import worker_processes
from parallelmlp_search.distribute.shards import train_shard
print("ready", flush=True)
with worker_processes(2):
    joblib.Parallel()(joblib.delayed(train_shard)(None) for _ in range(20))
"""
"""Workers import torch before they run a task."""


@pytest.mark.alone
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
@pytest.mark.parametrize("delay", [0.0, 0.3, 0.8])
def test_workers_that_are_still_importing_end_with_their_parent(delay: float) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", STARTING], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == "ready\n"
    until = time.monotonic() + 30
    while len(workers := _children(parent.pid)) < 2:  # joblib's resource tracker and a worker
        assert time.monotonic() < until
        time.sleep(0.01)
    time.sleep(delay)
    workers = {*workers, *_children(parent.pid)}
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    until = time.monotonic() + 2
    while time.monotonic() < until and any(map(_is_alive, workers)):
        time.sleep(0.02)
    assert not any(map(_is_alive, workers))


def _children(parent: int) -> set[int]:
    """Processes that a process has started."""
    found = set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(status.read_text().rpartition(")")[2].split()[1]) == parent:
                found.add(int(status.parent.name))
    return found


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        # a zombie has ended
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return False
