"""Start of this process, from which a time limit counts."""

from __future__ import annotations

import os
import time
from pathlib import Path

_IMPORTED = time.monotonic()
_STAT = Path("/proc/self/stat")


def process_start() -> float:
    """Return the reading of :func:`time.monotonic` at which this process started.

    Where the system does not tell, it is that of the first import of this package's commands.
    """
    try:
        # the name of the program, in parentheses, may hold spaces; the start is the 20th field after it
        ticks = int(_STAT.read_text(encoding="utf-8").rpartition(")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return _IMPORTED
    return min(_IMPORTED, time.monotonic() - age)
