"""Coverage-guided fuzzing of readers, search spaces and run directories with atheris.

``python -m tests.fuzz --minutes 5 tables spaces runs`` fuzzes each harness in a process of its own. Inputs
that reached new code are kept in ``.fuzz/corpus``, and inputs that broke the code in ``.fuzz/crashes``. The
exit code is 1 if there is one; ``python -m tests.fuzz --replay FILE`` shows its traceback. The input of a
fixed defect is kept in ``tests/fuzz/regressions``.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parents[2] / ".fuzz"
HARNESSES = ("tables", "spaces", "runs")
MAX_BYTES = 100_000
OPTIONS = (
    "-timeout=30", "-rss_limit_mb=4096", f"-max_len={MAX_BYTES}", f"-dict={Path(__file__).parent}/tokens.dict"
)  # fmt: skip
"""Limits of one input in seconds, megabytes and bytes; and words to insert."""


def main() -> int:
    """Fuzz the harnesses named on the command line; return 1 if there are defects, else 0."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument(
        "harnesses", nargs="*", default=HARNESSES, metavar="HARNESS", help=", ".join(HARNESSES)
    )
    parser.add_argument("--minutes", type=float, default=5.0, help="minutes of each harness")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="corpus and crashes; default: .fuzz")
    parser.add_argument("--replay", type=Path, help="file of an input, in a folder named after its harness")
    options = parser.parse_args()
    if options.replay is not None:
        from tests.fuzz.harnesses import check

        print("accepted" if check(options.replay.parent.name, options.replay.read_bytes()) else "refused")
        return 0
    found = 0
    for name in options.harnesses:
        found += _fuzz(name, options.folder, max(1, round(60 * options.minutes)))
    print(f"{found} inputs broke the code" + (f": see {options.folder / 'crashes'}" if found else ""))
    return int(found > 0)


def _fuzz(name: str, folder: Path, seconds: int) -> int:
    """Fuzz a harness in a new process until the time is over; return the number of defects."""
    corpus, crashes = folder / "corpus" / name, folder / "crashes" / name
    corpus.mkdir(parents=True, exist_ok=True)
    crashes.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "tests.fuzz.worker", name, str(corpus), str(crashes), *OPTIONS]
    before = set(crashes.iterdir())
    print(f"{name}: {seconds} s", flush=True)
    with tempfile.TemporaryDirectory() as scratch:  # libFuzzer ends the process without cleaning up
        environment = os.environ | {"TMPDIR": scratch}
        ended = subprocess.run([*command, f"-max_total_time={seconds}"], check=False, env=environment)
    found = len(set(crashes.iterdir()) - before)
    if ended.returncode and not found:
        sys.exit(f"the fuzzer of {name} ended with code {ended.returncode}")
    return found


if __name__ == "__main__":
    sys.exit(main())
