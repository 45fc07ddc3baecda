"""Launches the ranks of a job with ``torchrun`` and reports a failure in one sentence."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from parallelmlp_search.exceptions import DistributedError
from parallelmlp_search.parareal.ranks.jobs import LAUNCHER_PID, Job

POLL_SECONDS = 0.25

_FAILURE = re.compile(r"rank\s*:\s*(\d+) \(local_rank.*?exitcode\s*:\s*(-?\d+)", re.DOTALL)


def launch_job(job: Job, on_progress: Callable[[int], object] = lambda _: None) -> None:
    """Run all tasks of a saved job over ranks of this host.

    ``on_progress`` is called repeatedly with the number of finished tasks.

    Raises
    ------
    DistributedError
        If ranks died more often than they are restarted; the message names the rank and says how to resume.
    """
    for path in job.folder.glob("failure-*.txt"):
        path.unlink()
    log = job.folder / "ranks.log"
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone",
        "--nproc-per-node", str(job.slices * job.replicas),
        "--max-restarts", str(job.restarts), "--monitor-interval", "0.2",
        "-m", "parallelmlp_search.parareal.ranks.worker", str(job.folder.absolute()),
    ]  # fmt: skip
    # ranks must import the package that this process has imported
    python_path = [str(Path(__file__).parents[3]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(python_path),
        LAUNCHER_PID: str(os.getpid()),
    }

    def n_done() -> int:
        return sum(job.is_done(task) for task in job.tasks)

    with open(log, "w", encoding="utf-8") as output:
        torchrun = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
        try:
            running = True
            while running:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    torchrun.wait(POLL_SECONDS)
                    running = False
                on_progress(n_done())
        except BaseException:
            _terminate(torchrun)
            raise
    # the outcome is written last: a rank that dies after it loses nothing
    if torchrun.returncode != 0 and n_done() < len(job.tasks):
        raise DistributedError(_reason(job, log.read_text(encoding="utf-8", errors="replace")))
    for path in job.folder.glob("rank-*.pid"):
        path.unlink()


def _terminate(torchrun: subprocess.Popen[bytes]) -> None:
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
    # torchrun sends SIGTERM to the remaining ranks, so another signal came first
    killed = [end for end in ends if end[1] < 0 and end[1] != -signal.SIGTERM]
    first = next(iter([*killed, *reversed(ends)]), None)
    remedy = "run the same command again to resume from the last checkpoint"
    files = {int(path.stem.removeprefix("failure-")): path for path in job.folder.glob("failure-*.txt")}
    sentences = {rank: path.read_text(encoding="utf-8") for rank, path in sorted(files.items())}
    if first is None:
        last = next(iter(sentences.values()), log.strip().splitlines()[-1] if log.strip() else "no output")
        return f"torchrun could not run {job.slices} ranks ({last}): {remedy}"
    rank, code = first
    name = f"rank {rank} (slice {rank % job.slices + 1} of {job.slices})"
    if code < 0:
        return f"{name} was killed by signal {-code}, which ended the job: {remedy}"
    if rank in sentences:
        return sentences[rank]
    lines = [line for line in log.splitlines() if re.match(r"(\[.*?\]:)?\w*(Error|Exception)\b", line)]
    why = lines[0].strip() if lines else f"exit code {code}"
    return f"{name} failed ({why}); see {str(job.folder / 'ranks.log')!r}: {remedy}"
