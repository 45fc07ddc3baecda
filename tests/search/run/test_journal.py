"""Journal: stored outcomes and entries are read unchanged, and obsolete files are deleted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from parallelmlp_search.distribute import MemberOutcome, ShardOutcome, ShardTask, Snapshots
from parallelmlp_search.engine import MemberState
from parallelmlp_search.exceptions import RunDirectoryError
from parallelmlp_search.search import RunDirectory
from parallelmlp_search.search.run import journal as module
from parallelmlp_search.search.run.budget import Throughput
from parallelmlp_search.search.run.journal import Journal, Sizes


def outcome_of(key: str, n_parameters: int = 1000, snapshot_rows: int = 3) -> ShardOutcome:
    """Outcome of three members: one with a state, one with snapshots and a prediction, one that failed."""
    state = MemberState({"parameters": torch.randn(n_parameters)}, 7, 0.25, 1.5, -1)
    snapshots = Snapshots(
        torch.tensor([1.0, 2.0]).double(),
        torch.randn(2, n_parameters),
        torch.randn(2, 1, snapshot_rows),
    )
    members = [
        MemberOutcome(4, 1.0, 0.5, 0.4, 5, 0.1, best_epoch=1.5, state=state),
        MemberOutcome(14, 1.0, 0.6, 0.3, 5, 0.2, prediction=torch.randn(1, 4), snapshots=snapshots),
        MemberOutcome(1, 0.5, float("nan"), float("nan"), 5, 0.3, failure="out of memory: 9 bytes"),
    ]
    return ShardOutcome(key, members, member_steps=30, seconds=2.0, predicted_seconds=1.0)


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(tmp_path / "run")


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keys of the shards that were trained, each with the outcome of :func:`outcome_of`."""
    keys: list[str] = []

    def train(tasks: Iterable[Any], *, n_workers: int) -> Iterator[ShardOutcome]:
        for task in tasks:
            keys.append(task.key)
            yield outcome_of(task.key)

    monkeypatch.setattr(module, "run_shards", train)
    return keys


DATA: Any = SimpleNamespace(
    prediction_inputs=torch.empty(4, 2),
    snapshot_inputs=torch.empty(3, 2),
    head=SimpleNamespace(n_predictions=1),
    architecture=lambda config: SimpleNamespace(n_parameters=1000),
)
"""Rows to predict and sizes that fit to :func:`outcome_of`."""

CONFIGS: Any = {4: None, 14: None, 1: None}


def task(key: str) -> ShardTask:
    return ShardTask(key, tuple(CONFIGS), tuple(CONFIGS.values()), (), DATA, 1.0, 1.0)


def sizes() -> dict[int, Sizes]:
    return Sizes.of(CONFIGS, DATA)


def assert_same(first: ShardOutcome, second: ShardOutcome) -> None:
    assert (first.member_steps, first.seconds, first.cut) == (second.member_steps, second.seconds, second.cut)
    for one, other in zip(first.members, second.members, strict=True):
        assert (one.trial, one.failure, one.best_epoch) == (other.trial, other.failure, other.best_epoch)
        assert one.error == other.error or one.failure is not None
        assert (one.state is None) == (other.state is None)
        if one.state is not None and other.state is not None:
            assert torch.equal(one.state.vectors["parameters"], other.state.vectors["parameters"])
            assert replace(one.state, vectors={}) == replace(other.state, vectors={})
        if one.snapshots is not None:
            assert other.snapshots is not None
            for name, tensor in vars(one.snapshots).items():
                assert torch.equal(tensor, getattr(other.snapshots, name))
        assert (one.prediction is None) == (other.prediction is None)


def test_a_shard_is_trained_once(directory: RunDirectory, trained: list[str]) -> None:
    (first,) = Journal(Throughput(1), directory).run([task("a")], lambda outcome: None)
    throughput = Throughput(1)
    (second,) = Journal(throughput, directory).run([task("a")], lambda outcome: None)
    assert trained == ["a"]
    assert_same(first, second)
    assert throughput.member_steps == throughput.recalled_steps == 30


@pytest.mark.parametrize(("seconds", "cut"), [(0.1, False), (2.0, True)])
def test_short_and_stopped_shards_are_trained_again(
    directory: RunDirectory, trained: list[str], monkeypatch: pytest.MonkeyPatch, seconds: float, cut: bool
) -> None:
    train = module.run_shards

    def changed(*arguments: Any, **options: Any) -> Iterator[ShardOutcome]:
        for outcome in train(*arguments, **options):
            outcome.seconds, outcome.cut = seconds, cut
            yield outcome

    monkeypatch.setattr(module, "run_shards", changed)
    for _ in range(2):
        list(Journal(Throughput(1), directory).run([task("a")], lambda outcome: None))
    assert trained == ["a", "a"]


def test_stripped_states_are_not_written(directory: RunDirectory, trained: list[str]) -> None:
    def strip(outcome: ShardOutcome) -> None:
        outcome.members[0].state = None

    list(Journal(Throughput(1), directory).run([task("a")], strip))
    (again,) = Journal(Throughput(1), directory).run([task("a")], lambda outcome: None)
    assert again.members[0].state is None


def test_a_closed_round_replaces_its_shards_and_the_states_before_it(directory: RunDirectory) -> None:
    journal = Journal(Throughput(1), directory)
    rounds = [outcome_of(f"round-00{number}") for number in range(2)]
    journal.close_round(rounds[0], None)
    size = (directory.checkpoints / "round-000.safetensors").stat().st_size
    for key in ("round-001-0-0000", "round-0010"):
        (directory.checkpoints / f"{key}.safetensors").write_bytes(b"")
    journal.close_round(rounds[1], "round-000")
    names = {path.stem for path in directory.checkpoints.iterdir()}
    assert names == {"round-000", "round-001", "round-0010"}
    assert (directory.checkpoints / "round-000.safetensors").stat().st_size < size - 3900
    recalled = [Journal(Throughput(1), directory).recall_round(outcome.key, sizes) for outcome in rounds]
    assert recalled[0] is not None
    assert recalled[1] is not None
    assert_same(rounds[1], recalled[1])
    assert recalled[0].members[0].state is None
    assert [member.error for member in recalled[0].members[:2]] == [0.5, 0.6]
    assert journal.recall_round("round-002", sizes) is None


def test_a_damaged_checkpoint_is_an_error(directory: RunDirectory) -> None:
    journal = Journal(Throughput(1), directory)
    journal.close_round(outcome_of("round-000"), None)
    path = directory.checkpoints / "round-000.safetensors"
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(
        RunDirectoryError, match=r"could not read .*round-000\.safetensors.*delete the folder '.*checkpoints'"
    ):
        journal.recall_round("round-000", sizes)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (
            {4: Sizes(999, (1, 4)), 14: Sizes(1000, (1, 4), 3), 1: Sizes(9, None)},
            r"'parameters' .* \(1000,\)",
        ),
        ({4: Sizes(1000, (1, 4)), 14: Sizes(1000, (1, 5)), 1: Sizes(9, None)}, r"'prediction' .* \(1, 4\)"),
        ({4: Sizes(1000, (1, 4)), 14: Sizes(999, (1, 4), 3), 1: Sizes(9, None)}, r"'weights' .* \(2, 1000\)"),
        ({4: Sizes(1000, (1, 4)), 14: Sizes(1000, (1, 4), 3)}, "lacks 1"),
    ],
    ids=["state", "prediction", "snapshots", "another member"],
)
def test_a_checkpoint_of_other_members_is_an_error(
    directory: RunDirectory, other: dict[int, Sizes], words: str
) -> None:
    journal = Journal(Throughput(1), directory)
    journal.close_round(outcome_of("round-000"), None)
    with pytest.raises(RunDirectoryError, match=words):
        journal.recall_round("round-000", lambda: other)


@pytest.mark.parametrize("snapshot_rows", [3, 4, 5])
def test_snapshots_hold_the_rows_that_select_one(directory: RunDirectory, snapshot_rows: int) -> None:
    """Or all rows to predict, in runs of version 0.1; other numbers are damage."""
    outcome = outcome_of("round-000", snapshot_rows=snapshot_rows)
    Journal(Throughput(1), directory).close_round(outcome, None)
    journal = Journal(Throughput(1), directory)
    if snapshot_rows == 5:
        with pytest.raises(RunDirectoryError, match=r"'predictions' .* \(2, 1, 5\)"):
            journal.recall_round("round-000", sizes)
        return
    recalled = journal.recall_round("round-000", sizes)
    assert recalled is not None
    assert_same(recalled, outcome)


@pytest.mark.parametrize("kept", [True, False])
def test_an_entry_is_computed_once(directory: RunDirectory, kept: bool) -> None:
    journal = Journal(Throughput(1), directory if kept else None)
    assert "plan" not in journal
    assert journal.entry("draw-0", lambda: 3) == journal.entry("draw-0", lambda: 4) == 3
    assert "draw-0" in journal
    assert ("draw-0" in Journal(Throughput(1), directory)) == kept
