"""Memory that this process uses and can still use, and errors of too little memory."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

_PROC, _CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")


_WORDS = (
    "allocate memory", "out of memory", "status_alloc_failed", "start new thread", "failed to map segment",
    "bad_alloc",
)  # fmt: skip
"""Words in messages of torch, CUDA, threads, the loader of compiled modules, and C++."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return True for an out-of-memory error of the CPU, of CUDA, or of a library.

    Triton's "out of resource" is not one: it names a kernel that is too large for any number of members.
    """
    # torch.OutOfMemoryError by its name: this module does not import torch
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error).lower()
    return any(words in text for words in _WORDS)


def resident_bytes(process: int | None = None) -> int | None:
    """Return the physical memory of a process and of the processes that it started, or None if unknown.

    Memory that several processes share, such as libraries, counts for each of them. ``process`` is the id of
    a process, None for this one.
    """
    own = _resident("self" if process is None else str(process))
    if own is None:
        return None
    return own + sum(_resident(child) or 0 for child in _descendants(str(process or os.getpid())))


def peak_bytes() -> int | None:
    """Return the most physical memory that this process has used so far, or None if unknown."""
    for line in _lines(_PROC / "self/status"):
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _resident(process: str) -> int | None:
    pages = next(_lines(_PROC / process / "statm"), "").split()
    if pages:
        return int(pages[1]) * os.sysconf("SC_PAGE_SIZE")
    return peak_bytes() if process == "self" else None


def _descendants(process: str) -> Iterator[str]:
    for task in _children_files(process):
        for child in next(_lines(task), "").split():
            yield child
            yield from _descendants(child)


def _children_files(process: str) -> Iterator[Path]:
    try:
        yield from (_PROC / process / "task").glob("*/children")
    except OSError:  # the process has ended
        return


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
