"""A limit of the address space: one sentence instead of libraries that fail to load."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, ({limit}, {limit}))
sys.argv = ["pmlp", "leaderboard", "no-such-run"]
from parallelmlp_search.cli.app import main
main()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux enforces a limit of the address space")
@pytest.mark.parametrize(
    ("limit", "message"),
    [(1_500_000_000, "limited to 1.5 GB, but"), (8_000_000_000, "'no-such-run' is not a run")],
)
def test_a_small_address_space_is_refused_in_one_sentence(limit: int, message: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(limit=limit)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
