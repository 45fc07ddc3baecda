"""Exit of the program: exit functions run, the code is right, and the interpreter is not torn down."""

from __future__ import annotations

import subprocess
import sys

import pytest

START = """
import sys
from parallelmlp_search.cli.process_exit import ProcessExit

process_exit = ProcessExit()

class Slow:
    def __del__(self):
        print("torn down")

kept = Slow()
"""


def _run(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", START + script], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("code", [0, 2])
def test_exit_functions_run_but_there_is_no_teardown(code: int) -> None:
    ended = _run(f"import atexit; atexit.register(print, 'exit'); print('done'); process_exit.leave({code})")
    assert ended.stdout.split() == ["done", "exit"]  # standard output is flushed
    assert ended.returncode == code
    assert ended.stderr == ""


def test_threads_finish_after_a_success() -> None:
    script = """
import threading, time
threading.Thread(target=lambda: (time.sleep(0.3), print("worked"))).start()
process_exit.leave(0)
"""
    ended = _run(script)
    assert ended.stdout.split() == ["worked"]
    assert ended.returncode == 0


def test_a_failure_does_not_wait_for_threads() -> None:
    script = """
import threading, time
threading.Thread(target=lambda: (time.sleep(30), print("worked"))).start()
process_exit.leave(130)
"""
    ended = _run(script)
    assert ended.stdout == ""
    assert ended.returncode == 130


def test_a_traceback_ends_as_usual() -> None:
    ended = _run("raise RuntimeError('a bug')")
    assert "a bug" in ended.stderr
    assert ended.stdout.split() == ["torn", "down"]
    assert ended.returncode == 1
