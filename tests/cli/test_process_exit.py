"""How the program ends: what is due at exit is done, the code is right, and nothing is taken apart slowly."""

from __future__ import annotations

import subprocess
import sys

import pytest

BEGINNING = """
import sys
from parallelmlp_search.cli.session import Ending

ending = Ending()

class Slow:
    def __del__(self):
        print("taken apart")

kept = Slow()
"""


def _run(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BEGINNING + script], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("code", [0, 2])
def test_what_is_due_at_exit_is_done_but_nothing_is_taken_apart(code: int) -> None:
    ended = _run(f"import atexit; atexit.register(print, 'due'); print('said'); ending.leave({code})")
    assert ended.stdout.split() == ["said", "due"]  # though nobody has flushed it
    assert ended.returncode == code
    assert ended.stderr == ""


def test_threads_may_finish_their_work_after_a_success() -> None:
    script = """
import threading, time
threading.Thread(target=lambda: (time.sleep(0.3), print("worked"))).start()
ending.leave(0)
"""
    ended = _run(script)
    assert ended.stdout.split() == ["worked"]
    assert ended.returncode == 0


def test_a_failure_waits_for_no_thread() -> None:
    script = """
import threading, time
threading.Thread(target=lambda: (time.sleep(30), print("worked"))).start()
ending.leave(130)
"""
    ended = _run(script)
    assert ended.stdout == ""
    assert ended.returncode == 130


def test_a_traceback_ends_as_ever() -> None:
    ended = _run("raise RuntimeError('a fault of ours')")
    assert "a fault of ours" in ended.stderr
    assert ended.stdout.split() == ["taken", "apart"]
    assert ended.returncode == 1
