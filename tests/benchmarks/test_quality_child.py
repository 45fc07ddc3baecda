from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import sklearn

from benchmarks.quality.child import processor_seconds, version_of

ROOT = Path(__file__).parents[2]
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")

BUSY = "import time\nend = time.process_time() + 0.5\nwhile time.process_time() < end: pass\n"
CHILD = (
    "import time\nfrom benchmarks.quality.child import end_with_parent\n"
    "end_with_parent()\nprint('ready', flush=True)\ntime.sleep(60)\n"
)
PARENT = (
    f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {CHILD!r}], start_new_session=True)\n"
)


def test_versions() -> None:
    assert version_of("sklearn") == sklearn.__version__
    with pytest.raises(ModuleNotFoundError):
        version_of("abacus")


@LINUX
def test_cpu_seconds_include_running_and_ended_children() -> None:
    before = processor_seconds(os.getpid())
    subprocess.run([sys.executable, "-c", BUSY], check=True)
    assert processor_seconds(os.getpid()) - before >= 0.4
    after = processor_seconds(os.getpid())
    alive = subprocess.Popen([sys.executable, "-c", BUSY + "time.sleep(60)\n"])
    try:
        limit = time.monotonic() + 30.0
        while processor_seconds(os.getpid()) - after < 0.4:
            assert time.monotonic() < limit, "a child that is alive was not counted"
            time.sleep(0.05)
    finally:
        alive.kill()
        alive.wait()


@LINUX
def test_a_fit_ends_when_its_parent_is_killed() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "ready\n"
    parent.kill()
    parent.wait()
    started = time.monotonic()
    # the fit holds the other end of the pipe, so this returns when it has ended
    parent.stdout.read()
    parent.stdout.close()
    assert time.monotonic() - started < 15.0
