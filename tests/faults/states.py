"""All states of a folder between the writes of a program, and comparison of finished runs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

State = dict[str, bytes | None]
"""Content of each file of a folder by its relative path, None for a folder."""

EVENTS = {
    "open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink",
}  # fmt: skip
"""Audit events of operations that may change files."""

MEASURED = {
    "created", "finished", "seconds", "spent_seconds", "elapsed_seconds", "training_seconds", "phases",
    "peak",
}  # fmt: skip
"""Entries of JSON files with measured times and memory."""

_recorders: list[Callable[[str], None]] = []


def read_state(folder: Path) -> State:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def write_state(folder: Path, state: State) -> None:
    folder.mkdir()
    for name, content in state.items():  # folders come before their files
        if content is None:
            (folder / name).mkdir()
        else:
            (folder / name).write_bytes(content)


def _audit(event: str, _: tuple[Any, ...]) -> None:
    if _recorders and event in EVENTS:
        record = _recorders.pop()  # recording opens files too
        record(event)
        _recorders.append(record)


sys.addaudithook(_audit)  # a hook cannot be removed


@contextmanager
def recorded_states(folder: Path) -> Iterator[list[tuple[State, str]]]:
    """Record a folder before every operation that may change it, with the name of the operation."""
    states: list[tuple[State, str]] = []

    def record(event: str) -> None:
        if folder.is_dir():
            state = read_state(folder)
            if not states or state != states[-1][0]:
                states.append((state, event))

    _recorders.append(record)
    try:
        yield states
    finally:
        _recorders.clear()
        states.append((read_state(folder), "end"))


def with_torn_writes(states: list[tuple[State, str]]) -> list[State]:
    """All states, and those in which the last write that is not a rename got only half way.

    A file that is renamed onto its final name is complete, since its content is on the disk before.
    """
    found: list[State] = []
    for (before, _), (after, _) in zip([states[0], *states], states, strict=False):
        for name, content in after.items():
            old = before.get(name)
            if content and content != old and content not in before.values():
                start = len(old) if old and content.startswith(old) else 0
                found.append({**after, name: content[: (start + len(content)) // 2]})
        found.append(after)
    return found


def visible(state: State) -> tuple[tuple[str, bytes | None], ...]:
    """Content that a resumed search can depend on: without locks and files that are being written."""
    return tuple((name, content) for name, content in state.items() if not Path(name).name.startswith("."))


def outcome(run: Path) -> dict[str, Any]:
    """Everything in a finished run except measured times and memory."""
    found: dict[str, Any] = {}
    for path in sorted(run.rglob("*")):
        name = str(path.relative_to(run))
        if path.name in (".lock", "log.jsonl", "data.parquet") or path.is_dir():
            continue
        if path.suffix == ".parquet":
            frame = pd.read_parquet(path)
            frame = frame.drop(columns=[column for column in frame if column.endswith("_seconds")])
            found[name] = repr(frame.to_dict("list"))  # as a text, since NaN is not equal to itself
        elif path.suffix == ".json":
            found[name] = _without_measured(json.loads(path.read_text(encoding="utf-8")))
        else:
            found[name] = path.read_bytes()
    return found


def _without_measured(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_measured(inner) for name, inner in value.items() if name not in MEASURED}
    return value
