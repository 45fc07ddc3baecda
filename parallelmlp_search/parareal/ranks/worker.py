"""What every rank runs: ``torchrun --nproc-per-node T -m parallelmlp_search.parareal.ranks.worker JOB``.

Works through the tasks of a job, each over all ranks. A rank that fails leaves its reason in one sentence, in
``failure-RANK.json`` and as the last line that it says.
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

from parallelmlp_search._files import write_json
from parallelmlp_search.exceptions import DistributedError, PMLPError
from parallelmlp_search.parareal.ranks.jobs import LAUNCHER, Job, run_task
from parallelmlp_search.parareal.ranks.process_group import end_rank, join

__all__ = ["main"]

PATIENCE_SECONDS = 1.0
"""Whoever has lost a peer waits so long, so that torchrun sees the peer's end first and names that."""


def end_with(pid: int) -> None:
    """End this rank within a second after a process has gone, such as the command that has launched it."""

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
    """Work through a job as one rank, and end this process."""
    folder = Path(arguments[0])
    rank = int(os.environ.get("RANK", "0"))
    torch.set_num_threads(1)
    if launcher := os.environ.get(LAUNCHER):
        end_with(int(launcher))
    try:
        job = Job.load(folder)
        (folder / f"rank-{rank}.pid").write_text(str(os.getpid()), encoding="ascii")
        world = join(job.slices, device=job.device, timeout=job.timeout)
        # asked before anybody works, so that all ranks see the same files
        todo = [task for task in job.tasks if not job.is_done(task)]
        world.barrier()
        for task in todo:
            run_task(job, task, world)
    except PMLPError as error:
        sentence = " ".join(str(error).split())
        write_json(folder / f"failure-{rank}.json", {"rank": rank, "sentence": sentence})
        print(f"error: {sentence}", file=sys.stderr, flush=True)
        if isinstance(error, DistributedError):
            time.sleep(PATIENCE_SECONDS)
        end_rank(1)  # closing connections to a dead peer may wait for it
    except Exception:  # a mistake of ours, whose words the launcher finds in the log
        traceback.print_exc()
        end_rank(1)
    end_rank()


if __name__ == "__main__":
    main(sys.argv[1:])
