"""Starts the ranks of a job with ``torchrun`` and says in one sentence how they ended."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from parallelmlp_search._files import read_json
from parallelmlp_search.exceptions import DistributedError, RunDirectoryError
from parallelmlp_search.parareal.ranks.jobs import LAUNCHER, Job

__all__ = ["launch"]

POLL_SECONDS = 0.25

_FAILURE = re.compile(r"rank\s*:\s*(\d+) \(local_rank.*?exitcode\s*:\s*(-?\d+)", re.DOTALL)


def launch(
    job: Job,
    *,
    replicas: int = 1,
    restarts: int = 0,
    on_progress: Callable[[int], object] | None = None,
) -> None:
    """Run all tasks of a job over ranks of this host.

    Parameters
    ----------
    job
        What to do; it must have been saved.
    replicas
        Copies of the network, each over ``job.slices`` ranks of its own, each with its part of every
        minibatch.
    restarts
        How often all ranks are started again, from the last checkpoint, after one of them has died.
    on_progress
        Called now and then with the number of finished tasks.

    Raises
    ------
    DistributedError
        If a rank died more often than that; the message names it and says how to go on.
    """
    ranks = job.slices * replicas
    for path in job.folder.glob("failure-*.json"):
        path.unlink()
    log = job.folder / "ranks.log"
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks),
        "--max-restarts", str(restarts), "--monitor-interval", "0.2",
        "-m", "parallelmlp_search.parareal.ranks.worker", str(job.folder.absolute()),
    ]  # fmt: skip
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": _python_path(),
        LAUNCHER: str(os.getpid()),
    }
    with open(log, "w", encoding="utf-8") as output:
        torchrun = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    torchrun.wait(POLL_SECONDS)
                    break
                if on_progress is not None:
                    on_progress(sum(job.is_done(task) for task in job.tasks))
        except BaseException:
            _end(torchrun)
            raise
    if on_progress is not None:
        on_progress(sum(job.is_done(task) for task in job.tasks))
    # an outcome is the last thing that a task writes: a rank that dies after that takes nothing with it
    if torchrun.returncode != 0 and not all(job.is_done(task) for task in job.tasks):
        raise DistributedError(_reason(job, log.read_text(encoding="utf-8", errors="replace")))
    for path in job.folder.glob("rank-*.pid"):
        path.unlink()


def _python_path() -> str:
    """Where this package comes from, so that ranks import the same one."""
    home = str(Path(__file__).parents[2])
    others = os.environ.get("PYTHONPATH", "")
    return f"{home}{os.pathsep}{others}" if others else home


def _end(torchrun: subprocess.Popen[bytes]) -> None:
    """Stop torchrun, which stops its ranks."""
    torchrun.terminate()
    try:
        torchrun.wait(10)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(torchrun.pid, signal.SIGKILL)
        torchrun.wait()


def _reason(job: Job, log: str) -> str:
    """One sentence on the rank that ended first."""
    ends = [(int(rank), int(code)) for rank, code in _FAILURE.findall(log)]
    # whom a signal ended first was not stopped by torchrun, which sends SIGTERM to those that are left
    killed = [end for end in ends if end[1] < 0 and end[1] != -signal.SIGTERM]
    found = next(iter([*killed, *reversed(ends)]), None)
    onward = "run the same command again to go on from the last checkpoint"
    sentences = {}
    for path in sorted(job.folder.glob("failure-*.json")):
        with contextlib.suppress(RunDirectoryError, KeyError, TypeError):
            failure = read_json(path)
            sentences[int(failure["rank"])] = str(failure["sentence"])
    if found is None:
        last = next(iter(sentences.values()), log.strip().splitlines()[-1] if log.strip() else "no output")
        return f"torchrun could not run {job.slices} ranks ({last}): {onward}"
    rank, code = found
    whom = f"rank {rank} (slice {rank % job.slices + 1} of {job.slices})"
    if code < 0:
        return f"{whom} was killed by signal {-code}, and with it the job: {onward}"
    if rank in sentences:
        return sentences[rank]
    lines = [line for line in log.splitlines() if re.match(r"(\[.*?\]:)?\w*(Error|Exception)\b", line)]
    why = lines[0].strip() if lines else f"exit code {code}"
    return f"{whom} failed ({why}); its words are in {str(job.folder / 'ranks.log')!r}: {onward}"
