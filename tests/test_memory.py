"""Available memory, read from files of the system."""

from __future__ import annotations

from pathlib import Path

import pytest

from parallelmlp_search import _memory
from parallelmlp_search._memory import available_bytes


def write(files: dict[str, str], folder: Path) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of a system with 4 GB of available memory and no other limit."""
    monkeypatch.setattr(_memory, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(_memory, "_CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(_memory, "_of_address_space", lambda: iter(()))
    write({"proc/meminfo": "MemTotal: 9000000 kB\nMemAvailable: 4000000 kB\n"}, tmp_path)
    return tmp_path


def test_memory_of_the_system(system: Path) -> None:
    assert available_bytes() == 4_096_000_000


def test_a_group_above_may_leave_less(system: Path) -> None:
    write(
        {
            "proc/self/cgroup": "0::/jobs/mine\n",
            "cgroup/jobs/mine/memory.max": "max\n",
            "cgroup/jobs/mine/memory.current": "5\n",
            "cgroup/jobs/memory.max": "2000000000\n",
            "cgroup/jobs/memory.current": "1500000000\n",
            "cgroup/jobs/memory.stat": "anon 7\ninactive_file 300000000\n",
        },
        system,
    )
    assert available_bytes() == 800_000_000


def test_a_container_of_version_1(system: Path) -> None:
    """The path is that of the host, and the container sees only the root of its group."""
    write(
        {
            "proc/self/cgroup": "5:devices:/\n4:cpu,memory:/docker/abc\n",
            "cgroup/memory/memory.limit_in_bytes": "1000000000\n",
            "cgroup/memory/memory.usage_in_bytes": "1200000000\n",
        },
        system,
    )
    assert available_bytes() == 0


def test_an_address_space_limit(system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    monkeypatch.undo()
    before = available_bytes()
    assert before is not None
    monkeypatch.setattr(resource, "getrlimit", lambda _: (2**50, 2**50))
    assert available_bytes() is not None
    used = 2**50 - next(_memory._of_address_space())
    assert 10**7 < used < 2**46


def test_an_unknown_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_of_system", "_of_control_groups", "_of_address_space"):
        monkeypatch.setattr(_memory, name, lambda: iter(()))
    assert available_bytes() is None
