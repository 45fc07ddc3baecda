"""A search over two hosts, network namespaces: a link that is cut for 5 s, and killed workers."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest

from parallelmlp_search.search import RunDirectory

pytest.importorskip("distributed")

ROOT = Path(__file__).parents[2]
SCHEDULER = "tcp://10.213.77.1:8786"
SEARCH = [
    *("search", str(ROOT / "datasets" / "credit_g.csv.gz"), "--target", "class"),
    *("--trials", "120", "--max-epochs", "27", "--no-baselines", "--quiet"),
]
CUT_SECONDS = 5.0

pytestmark = [pytest.mark.alone, pytest.mark.slow]


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


class Hosts:
    """Two namespaces with a cable between them; the first is the host of the search and the scheduler."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        number = os.getpid()
        self.names = (f"pmlp-a{number}", f"pmlp-b{number}")
        self._links = (f"pa{number}"[:15], f"pb{number}"[:15])
        for name in self.names:
            _ip("netns", "add", name)
            stack.callback(_ip, "netns", "del", name)
        (first, second), (here, there) = self._links, self.names
        peer = ("peer", "name", second, "netns", there)
        _ip("link", "add", first, "netns", here, "type", "veth", *peer)
        for place, (link, name) in enumerate(zip(self._links, self.names, strict=True), start=1):
            _ip("-n", name, "addr", "add", f"10.213.77.{place}/24", "dev", link)
            _ip("-n", name, "link", "set", link, "up")
            _ip("-n", name, "link", "set", "lo", "up")

    def start(self, host: int, *command: str) -> subprocess.Popen[bytes]:
        """Start a command on a host; it ends with the test."""
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            ["ip", "netns", "exec", self.names[host], *command],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

        def end() -> None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()

        self._stack.callback(end)
        return process

    def cut(self, seconds: float) -> None:
        """Pull the cable out of the second host for a while."""
        _ip("-n", self.names[1], "link", "set", self._links[1], "down")
        time.sleep(seconds)
        _ip("-n", self.names[1], "link", "set", self._links[1], "up")


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    if sys.platform != "linux" or shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("network namespaces need Linux, iproute2 and root")
    with contextlib.ExitStack() as stack:
        try:
            found = Hosts(stack)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"network namespaces are not permitted: {error.stderr.strip()}")
        yield found


def _children(parent: int) -> list[int]:
    threads = Path(f"/proc/{parent}/task").glob("*/children")  # any thread can start a process
    return [int(pid) for thread in threads for pid in thread.read_text().split()]


def _worker_process(nanny: int) -> int:
    """The process that trains: the child of the nanny that is not a resource tracker."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        for pid in _children(nanny):
            with contextlib.suppress(OSError):
                if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    return pid
        time.sleep(0.1)
    raise AssertionError("the nanny has started no worker")


def _wait_for(condition: Callable[[], bool], search: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 240
    while not condition():
        assert search.poll() is None, search.communicate()[0].decode()
        assert time.monotonic() < until
        time.sleep(0.2)


def _events(folder: Path) -> int:
    """Number of lines in the log of a run: its start, and each round."""
    with contextlib.suppress(OSError):
        return len((folder / "log.jsonl").read_text().splitlines())
    return 0


def test_a_cut_link_and_killed_workers_change_nothing(hosts: Hosts, tmp_path: Path) -> None:
    dask = str(Path(sys.executable).with_name("dask"))
    pmlp = (sys.executable, "-m", "parallelmlp_search")
    hosts.start(0, dask, "scheduler", "--host", SCHEDULER, "--no-dashboard")
    worker = ("worker", SCHEDULER, "--nthreads", "1", "--no-dashboard")
    hosts.start(0, dask, *worker)
    nanny = hosts.start(1, dask, *worker)
    there = tmp_path / "there"
    on_cluster = ("--backend", "dask", "--scheduler", SCHEDULER)
    search = hosts.start(0, *pmlp, *SEARCH, "--output", str(there), *on_cluster)
    _wait_for(lambda: _events(there) >= 2, search)
    hosts.cut(CUT_SECONDS)
    for _ in range(3):
        assert search.poll() is None, "the search ended before the faults: give it more trials"
        os.kill(_worker_process(nanny.pid), signal.SIGKILL)
        time.sleep(4)  # until the next one has started
    output = search.communicate(timeout=300)[0].decode()
    assert search.returncode == 0, output
    here = tmp_path / "here"
    subprocess.run([*pmlp, *SEARCH, "--output", str(here)], cwd=ROOT, check=True, capture_output=True)
    boards = [RunDirectory.open(run).leaderboard().drop(columns="train_seconds") for run in (here, there)]
    pd.testing.assert_frame_equal(*boards)
