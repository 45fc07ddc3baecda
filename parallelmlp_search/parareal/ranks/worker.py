"""Program of a rank: ``torchrun --nproc-per-node T -m parallelmlp_search.parareal.ranks.worker JOB``.

The ranks train the tasks of a job one after the other. A rank that fails writes the reason in one sentence to
``failure-RANK.txt`` and as its last line of output.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import NoReturn

import torch

from parallelmlp_search.exceptions import DistributedError, PMLPError
from parallelmlp_search.parareal.ranks.jobs import LAUNCHER_PID, Job
from parallelmlp_search.parareal.ranks.process_group import exit_rank, init_communicator

LOST_PEER_SECONDS = 1.0
"""Delay of a rank that has lost a peer, so that torchrun sees the end of the peer first and reports it."""


def _end_with(pid: int) -> None:
    """End this rank within a second after another process, such as the command that launched it."""

    def watch() -> None:
        while True:
            time.sleep(0.5)
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                os._exit(1)
            except PermissionError:
                return

    threading.Thread(target=watch, daemon=True).start()


def main(arguments: list[str]) -> NoReturn:
    """Run a job as one rank, and end this process."""
    folder = Path(arguments[0])
    rank = int(os.environ.get("RANK", "0"))
    torch.set_num_threads(1)
    if launcher := os.environ.get(LAUNCHER_PID):
        _end_with(int(launcher))
    try:
        job = Job.load(folder)
        (folder / f"rank-{rank}.pid").write_text(str(os.getpid()), encoding="ascii")
        communicator = init_communicator(job.slices, device=job.device, timeout=job.timeout)
        # before any rank trains, so that all ranks see the same files
        todo = [task for task in job.tasks if not job.is_done(task)]
        communicator.barrier()
        for task in todo:
            job.run(task, communicator)
    except PMLPError as error:
        sentence = " ".join(str(error).split())
        (folder / f"failure-{rank}.txt").write_text(sentence, encoding="utf-8")
        print(f"error: {sentence}", file=sys.stderr, flush=True)
        if isinstance(error, DistributedError):
            time.sleep(LOST_PEER_SECONDS)
        exit_rank(1)  # closing connections to a dead peer may wait for it
    except Exception:  # a bug, which the launcher finds in the log
        traceback.print_exc()
        exit_rank(1)
    exit_rank()


if __name__ == "__main__":
    main(sys.argv[1:])
