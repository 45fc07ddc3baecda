"""Memory that this process can still use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_PROC, _CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")


def available_bytes() -> int | None:
    """Return the memory that the system, its control groups and ``ulimit -v`` leave, or None if unknown."""
    known = [*_of_system(), *_of_control_groups(), *_of_address_space()]
    return max(0, min(known)) if known else None


def _of_system() -> Iterator[int]:
    for line in _lines(_PROC / "meminfo"):
        if line.startswith("MemAvailable:"):
            yield 1024 * int(line.split()[1])
            return
    try:
        yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return


def _of_control_groups() -> Iterator[int]:
    """Limits of the control group of this process and of those above it, less what they use."""
    for line in _lines(_PROC / "self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers == "":  # version 2
            root, names = _CGROUPS, ("memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            root, names = _CGROUPS / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        folder = root / path.lstrip("/")
        for group in (folder, *folder.parents):
            limit, used = (next(_lines(group / name), "") for name in names)
            if limit.isdigit() and used.isdigit():
                # pages of files count as used, but the system frees them on demand
                statistics = dict(line.split() for line in _lines(group / "memory.stat"))
                yield int(limit) - int(used) + int(statistics.get("inactive_file", 0))


def _of_address_space() -> Iterator[int]:
    try:
        import resource
    except ImportError:  # not on Windows
        return
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    pages = next(_lines(_PROC / "self/statm"), "").split()
    if limit != resource.RLIM_INFINITY and pages:
        yield limit - int(pages[0]) * resource.getpagesize()


def _lines(file: Path) -> Iterator[str]:
    try:
        yield from file.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return
