"""Training from rung to rung: equal to uninterrupted training, with states of advancing members only."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from parallelmlp_search.distribute import FULL_STATE, MemberOutcome, ShardData, run_shards, shard_tasks
from parallelmlp_search.engine import Head, TrainingRows
from parallelmlp_search.search import RunDirectory
from parallelmlp_search.search.run import journal as journal_module
from parallelmlp_search.search.run.budget import Throughput
from parallelmlp_search.search.run.journal import Journal
from parallelmlp_search.search.screening.rung_loop import Cohort, RungLoop
from parallelmlp_search.selection import get_metric
from parallelmlp_search.space import MLPConfig

CONFIGS = {
    number: MLPConfig(widths=(3 + number % 3,), batch_size=8 if number < 6 else 16, seed=number)
    for number in range(10)
}


def make_data(seed: int = 0) -> ShardData:
    inputs = torch.randn(60, 4, generator=torch.Generator().manual_seed(seed))
    target = (inputs[:, 0] * inputs[:, 1] > 0).long()
    return ShardData(
        rows=TrainingRows(inputs[:40], target[:40]),
        validation_inputs=inputs[40:],
        validation_target=target[40:],
        validation_weight=None,
        prediction_inputs=None,
        head=Head("binary", 2),
        loss="binary_logits",
        metric=get_metric("log_loss", "binary", n_classes=2),
        seed=3,
    )


def make_loop(directory: RunDirectory | None = None, **options: tuple[str, ...]) -> RungLoop:
    return RungLoop(Journal(Throughput(1), directory), **options)


def cohort(
    members: list[int], until: float, *, number: int = 0, room: int | None = None, seed: int = 0
) -> Cohort:
    configs = {member: CONFIGS[member % 10] for member in members}
    return Cohort(number, configs, make_data(seed), until_epoch=until, total_epochs=4.0, room=room)


def train(loop: RungLoop, key: str, *cohorts: Cohort) -> dict[int, MemberOutcome]:
    return {member.trial: member for shard in loop.train(key, cohorts) for member in shard.members}


def uninterrupted_errors(members: list[int], data: ShardData) -> dict[int, float]:
    configs = {member: CONFIGS[member % 10] for member in members}
    tasks = shard_tasks("all", configs, data, until_epoch=4.0, total_epochs=4.0)
    return {one.trial: one.error for shard in run_shards(tasks, n_workers=1) for one in shard.members}


def test_members_that_advance_continue_their_training() -> None:
    loop = make_loop()
    first = train(loop, "round-0", cohort(list(CONFIGS), 1.0))
    assert sorted(first) == list(CONFIGS)
    survivors = sorted(first, key=lambda member: first[member].error)[:4]
    loop.advance(survivors)
    assert all((first[member].state is not None) == (member in survivors) for member in CONFIGS)
    last = train(loop, "round-1", cohort(survivors, 4.0))
    expected = uninterrupted_errors(survivors, make_data())
    assert {member: last[member].error for member in survivors} == pytest.approx(expected, abs=1e-6)
    # a member that did not advance has no state, so its training starts again
    loop.advance([])
    again = train(loop, "round-2", cohort(survivors, 1.0))
    assert again[survivors[0]].error == first[survivors[0]].error


def test_cohorts_of_a_round_have_their_own_data_and_rung() -> None:
    loop = make_loop()
    low, high = cohort([0, 1, 2], 1.0), cohort([10, 11, 12], 2.0, number=1, seed=5)
    shards = list(loop.train("round-0", [low, high]))
    assert [shard.cohort.number for shard in shards] == [1, 0]  # the later epoch runs first
    assert [(shard.done, shard.total) for shard in shards] == [(1, 2), (2, 2)]
    loop.advance([0, 10])
    last = train(loop, "round-1", cohort([0], 4.0), cohort([10], 4.0, number=1, seed=5))
    assert last[0].error == pytest.approx(uninterrupted_errors([0], make_data())[0], abs=1e-6)
    assert last[10].error == pytest.approx(uninterrupted_errors([10], make_data(5))[10], abs=1e-6)
    assert last[0].error != last[10].error


def test_states_are_dropped_as_soon_as_a_member_cannot_advance() -> None:
    loop = make_loop()
    outcomes = train(loop, "round-0", cohort(list(CONFIGS), 1.0, room=3))
    best = sorted(outcomes, key=lambda member: outcomes[member].error)[:3]
    assert sorted(member for member in outcomes if outcomes[member].state is not None) == sorted(best)


def test_a_failed_member_has_no_state() -> None:
    loop = make_loop()
    diverging = replace(
        cohort([0, 1, 2], 1.0),
        configs={
            n: CONFIGS[n].replace(optimizer="sgd", learning_rate=1e30 if n == 1 else 0.01) for n in range(3)
        },
    )
    outcomes = train(loop, "round-0", diverging)
    assert [outcomes[n].failure is None for n in range(3)] == [True, False, True]
    assert [outcomes[n].state is None for n in range(3)] == [False, True, False]


@pytest.mark.parametrize("keep", [(), ("average",)])
def test_the_last_rung_keeps_the_requested_states(keep: tuple[str, ...]) -> None:
    loop = make_loop(keep_last=keep)
    for until, expected in ((2.0, FULL_STATE), (4.0, keep)):
        (outcome,) = train(loop, f"round-{until:.0f}", cohort([0], until)).values()
        assert outcome.state is not None
        assert set(outcome.state.vectors) == set(expected)
        loop.advance([0])


@pytest.mark.parametrize("min_shards", [0, 1])
def test_a_deadline_leaves_shards_out(min_shards: int) -> None:
    loop = make_loop()
    shards = list(
        loop.train(
            "round-0", [cohort(list(CONFIGS), 1.0)], deadline=time.monotonic() - 1, min_shards=min_shards
        )
    )
    assert len(shards) == min_shards
    assert loop.is_incomplete
    assert loop.missing == 10 - sum(len(shard.members) for shard in shards)
    loop.advance([])
    train(loop, "round-1", cohort([3], 1.0))
    assert not loop.is_incomplete
    assert loop.missing == 0


def test_a_finished_round_is_read_from_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = RunDirectory.create(tmp_path / "run")
    first = make_loop(directory)
    one = train(first, "round-0", cohort(list(CONFIGS), 1.0))
    first.advance([2, 7])
    assert [path.stem for path in directory.checkpoints.iterdir()] == ["round-0"]

    def never(*arguments: object, **options: object) -> None:
        raise AssertionError("no shard may be trained")

    again = make_loop(directory)
    with monkeypatch.context() as patch:
        patch.setattr(journal_module, "run_shards", never)
        two = train(again, "round-0", cohort(list(CONFIGS), 1.0))
        again.advance([2, 7])
    assert {n: m.error for n, m in one.items()} == {n: m.error for n, m in two.items()}
    expected, found = (train(loop, "round-1", cohort([2, 7], 4.0)) for loop in (first, again))
    assert [found[n].error for n in (2, 7)] == [expected[n].error for n in (2, 7)]
