"""Figures of the benchmark of whole searches, and its replay of the loops."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmarks.search_efficiency import Recorder, cpu_seconds, loop_rate, missed, summarise, table
from parallelmlp_search.distribute import ShardData, shard_tasks
from parallelmlp_search.engine import Head, TrainingRows
from parallelmlp_search.selection import get_metric
from parallelmlp_search.space import MLPConfig

ROW = {
    "table": "adult",
    "workers": 2,
    "seconds": 60.0,
    "cpu_seconds": 110.0,
    "phases": {
        "reading": {"seconds": 6.0, "loop_seconds": 0.0, "member_steps": 0},
        "screening": {"seconds": 14.0, "loop_seconds": 21.0, "member_steps": 20_000},
        "cross-fitting": {"seconds": 40.0, "loop_seconds": 72.0, "member_steps": 100_000},
    },
    "loop_rate": 3_000.0,
}


def test_shares_and_rates() -> None:
    found = summarise(ROW)
    assert found["share"] == pytest.approx(93 / 120)
    assert found["cpu_share"] == pytest.approx(93 / 110)
    assert found["rate"] == pytest.approx(2_000)
    assert found["ratio"] == pytest.approx(2 / 3)
    assert found["slowdown"] == pytest.approx(3_000 / (2 * 120_000 / 93))


def test_the_table_has_the_share_of_each_phase_that_trains() -> None:
    other = ROW | {"table": "letter", "phases": {**ROW["phases"], "refitting": ROW["phases"]["reading"]}}
    lines = table([ROW, other]).splitlines()
    assert "| 6.0 s | 14.0 s (75%) | 40.0 s (90%) | 0.0 s | 78% | 85% |" in lines[2]
    assert lines[0].count("|") == lines[2].count("|") == lines[3].count("|")


def test_a_missed_target_is_named() -> None:
    assert missed(ROW) == [
        "adult: time inside the loop is 78%, the target is 80%",
        "adult: throughput is 67%, the target is 70%",
    ]
    assert missed(ROW | {"seconds": 58.0, "loop_rate": 2_000.0}) == []


def test_replay_of_the_shards_of_a_search() -> None:
    inputs = torch.randn(200, 5)
    head = Head("binary", 2)
    data = ShardData(
        TrainingRows(inputs, (inputs[:, 0] > 0).long()), None, None, None, None, head, head.default_loss,
        get_metric("log_loss", "binary"), 0,
    )  # fmt: skip
    configs = {number: MLPConfig(widths=(8,), batch_size=32, dropout=0.1) for number in range(3)}
    tasks = shard_tasks("a", configs, data, until_epoch=2, total_epochs=2)
    recorder = Recorder()
    outcomes = list(recorder.run_shards(tasks, n_workers=1))
    assert [steps for _, steps in recorder.shards] == [outcome.member_steps for outcome in outcomes] == [39]
    assert recorder.shards[0][0] == replace(tasks[0], states=(None,) * 3)
    assert 0 < outcomes[0].loop_seconds < outcomes[0].seconds
    rate = loop_rate(recorder.shards, 1)
    # the loop alone is no slower than the loop inside of a training, up to noise
    assert rate > 0.2 * 39 / outcomes[0].loop_seconds
    assert cpu_seconds() > 0
