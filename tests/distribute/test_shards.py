"""Shards: division of members, training, and recovery from memory exhaustion."""

from __future__ import annotations

import gc
import math
import pickle
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from parallelmlp_search.distribute import (
    ShardData,
    ShardOutcome,
    ShardTask,
    TrainingMemory,
    cut_work,
    shard_cuts,
    shard_tasks,
    shards,
    working_bytes,
)
from parallelmlp_search.distribute.shard_cuts import DEVICE_SHARE
from parallelmlp_search.distribute.shards import one_thread, train_shard
from parallelmlp_search.packing.pack import build_module
from parallelmlp_search.space import ColumnGroups, MLPConfig
from parallelmlp_search.space.config import SHARINGS

Make = Callable[..., Any]


def _vectors(outcome: ShardOutcome) -> dict[int, dict[str, torch.Tensor]]:
    return {member.trial: member.state.vectors for member in outcome.members if member.state is not None}


def _same(first: ShardOutcome, second: ShardOutcome) -> bool:
    """Return True if both outcomes hold the same members with the same bits."""
    a, b = _vectors(first), _vectors(second)
    errors = [{m.trial: m.error for m in outcome.members} for outcome in (first, second)]
    return (
        a.keys() == b.keys()
        and errors[0] == errors[1]
        and all(torch.equal(a[trial][name], b[trial][name]) for trial in a for name in a[trial])
    )


# ---------------------------------------------------------------------- division into shards


@given(batch_sizes=st.lists(st.sampled_from([1, 8, 16, 64, 500]), min_size=1, max_size=40))
def test_every_member_is_in_one_shard_with_members_of_its_batch_size(
    make_data: Make, batch_sizes: list[int]
) -> None:
    data = make_data()
    configs = [MLPConfig(widths=(4,), batch_size=batch, seed=n) for n, batch in enumerate(batch_sizes)]
    parts = cut_work(configs, data)
    assert sorted(member for shard in parts for member in shard) == list(range(len(configs)))
    for shard in parts:
        assert len({data.batch_rows(configs[member]) for member in shard}) == 1


@pytest.mark.parametrize("n_fitting", [1, 3, 100])
def test_shards_of_several_members_keep_to_their_memory(make_data: Make, n_fitting: int) -> None:
    configs = dict(enumerate([MLPConfig(widths=(64, 64), batch_size=8, seed=seed) for seed in range(20)]))
    epochs = {"until_epoch": 1.0, "total_epochs": 1.0}
    (free,) = shard_tasks("key", configs, make_data(), **epochs)
    room = working_bytes(make_data()) + n_fitting * max(free.member_bytes())
    limited = replace(make_data(), memory=TrainingMemory(process=10**12, shard=room))
    tasks = shard_tasks("key", configs, limited, **epochs)
    assert max(len(task.trials) for task in tasks) == min(n_fitting, 20)
    assert all(task.predicted_bytes <= room for task in tasks)
    assert sorted(trial for task in tasks for trial in task.trials) == list(configs)
    # snapshots are part of the memory
    values = epochs | {"evaluate_every": 0.1}
    predicting = replace(limited, validation_inputs=None, snapshot_inputs=limited.validation_inputs)
    if n_fitting == 3:
        assert max(len(task.trials) for task in shard_tasks("key", configs, predicting, **values)) < 3


def test_batches_larger_than_the_table_share_a_shard(make_data: Make) -> None:
    configs = [MLPConfig(widths=(4,), batch_size=batch) for batch in (96, 500, 4096)]
    assert cut_work(configs, make_data()) == [(0, 1, 2)]
    # one row less than all is another batch size
    configs[0] = configs[0].replace(batch_size=95)
    assert len(cut_work(configs, make_data())) == 2


def test_members_with_different_columns_are_in_different_shards(make_data: Make) -> None:
    data = replace(make_data(), columns=ColumnGroups(n_pieces=2))
    embeddings = ["none", "piecewise", "none", "piecewise"]
    configs = [MLPConfig(widths=(4,), numeric_embedding=name) for name in embeddings]
    assert sorted(cut_work(configs, data)) == [(0, 2), (1, 3)]
    assert cut_work(configs, replace(data, columns=ColumnGroups())) == [(0, 1, 2, 3)]


def test_quantile_columns_replace_numeric_columns(make_data: Make, make_task: Make) -> None:
    """Training on quantile columns equals training on a table whose numbers are those quantiles."""
    data = make_data(predict=True)
    config = MLPConfig(widths=(6,), numeric_embedding="periodic", batch_size=16, numeric_scaling="quantile")

    def select(columns: list[int], groups: ColumnGroups) -> ShardData:
        return replace(
            data,
            rows=replace(data.rows, inputs=data.rows.inputs[:, columns].contiguous()),
            validation_inputs=data.validation_inputs[:, columns].contiguous(),
            prediction_inputs=data.prediction_inputs[:, columns].contiguous(),
            columns=groups,
        )

    # two quantiles, one piece, two numbers and one other column
    full = select([0, 1, 2, 2, 3, 4], ColumnGroups(n_quantiles=2, n_pieces=1, n_numbers=2))
    expected = {
        "periodic": [0, 1, 4],
        "none": [0, 1, 4],
        "piecewise": [0, 1, 2, 4],
    }
    for embedding, columns in expected.items():
        member = config.replace(numeric_embedding=embedding)
        separate = select(columns, ColumnGroups(n_numbers=2))
        outcome = train_shard(make_task([member], data=full))
        assert _same(outcome, train_shard(make_task([member], data=separate))), embedding
        other = train_shard(make_task([member.replace(numeric_scaling="common")], data=full))
        assert not _same(outcome, other)
    # without quantile columns both settings are the same
    numbers = select([2, 3, 4], ColumnGroups(n_numbers=2))
    plain = config.replace(numeric_scaling="common")
    assert _same(
        train_shard(make_task([config], data=numbers)), train_shard(make_task([plain], data=numbers))
    )


def test_a_network_without_embedding_ignores_piecewise_columns(make_data: Make, make_task: Make) -> None:
    """Piecewise columns come first; training without them equals training on a table without them."""
    data = make_data()
    plain = MLPConfig(widths=(6,), numeric_embedding="none")

    def trained(columns: slice, n_pieces: int, config: MLPConfig) -> ShardOutcome:
        selected = replace(
            data,
            rows=replace(data.rows, inputs=data.rows.inputs[:, columns].contiguous()),
            validation_inputs=data.validation_inputs[:, columns].contiguous(),
            columns=ColumnGroups(n_pieces=n_pieces),
        )
        return train_shard(make_task([config], data=selected, until_epoch=2.0))

    without = trained(slice(None), 2, plain)
    assert _same(without, trained(slice(2, None), 0, plain))
    with_pieces = trained(slice(None), 2, plain.replace(numeric_embedding="piecewise"))
    assert with_pieces.members[0].n_parameters > without.members[0].n_parameters


@pytest.mark.parametrize("sharing", SHARINGS)
def test_submembers_predict_the_mean_of_their_probabilities(
    make_data: Make, make_task: Make, sharing: str
) -> None:
    data = make_data(predict=True)
    config = MLPConfig(widths=(6,), submembers=3, sharing=sharing, learning_rate=0.05, batch_size=16)
    (outcome,) = train_shard(make_task((config,), data=data, keep=("best",))).members
    assert outcome.n_parameters == config.n_parameters(5, 1)
    assert outcome.state is not None
    module = build_module(data.architecture(config), outcome.state.vectors["best"])
    each = torch.sigmoid(module[:-1](data.prediction_inputs)[:, :, 0].detach())
    torch.testing.assert_close(outcome.prediction[1], each.mean(1), rtol=1e-5, atol=1e-6)
    assert float(each.std(1).max()) > 0.01


def test_periodic_and_no_embedding_use_the_same_columns(make_data: Make, make_task: Make) -> None:
    """Numbers follow the pieces; training with their embedding equals training on numbers only."""
    data = make_data(predict=True)
    periodic = MLPConfig(widths=(6,), numeric_embedding="periodic", batch_size=16)
    configs = [
        periodic,
        periodic.replace(numeric_embedding="none"),
        periodic.replace(numeric_embedding="piecewise"),
    ]
    full = replace(data, columns=ColumnGroups(n_pieces=2, n_numbers=2))
    assert sorted(sorted(shard) for shard in cut_work(configs, full)) == [[0, 1], [2]]

    def trained(first: int, config: MLPConfig, n_numbers: int = 2) -> ShardOutcome:
        selected = replace(
            data,
            rows=replace(data.rows, inputs=data.rows.inputs[:, first:].contiguous()),
            validation_inputs=data.validation_inputs[:, first:].contiguous(),
            prediction_inputs=data.prediction_inputs[:, first:].contiguous(),
            columns=ColumnGroups(n_pieces=2 - first, n_numbers=n_numbers),
        )
        return train_shard(make_task((config,), data=selected))

    outcome = trained(0, periodic)
    assert _same(outcome, trained(2, periodic))
    assert outcome.members[0].n_parameters == periodic.n_parameters(3, 1, n_numbers=2)
    # one number less gives another network
    assert trained(0, periodic, 1).members[0].n_parameters < outcome.members[0].n_parameters
    assert _same(trained(0, periodic, 0), trained(0, configs[1]))
    # column counts are pickled too
    assert pickle.loads(pickle.dumps(full)).columns == full.columns


def test_the_division_is_a_function_of_members_and_data(make_data: Make, make_configs: Make) -> None:
    configs = list(make_configs(50))
    assert cut_work(configs, make_data()) == cut_work(list(configs), make_data())


def test_shards_on_a_device_fill_its_memory(make_data: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    configs = dict(enumerate(MLPConfig(widths=(512,), batch_size=96, seed=seed) for seed in range(64)))
    epochs = {"until_epoch": 1.0, "total_epochs": 1.0}
    data = make_data()
    assert len(shard_tasks("key", configs, data, **epochs)) > 1
    elsewhere = replace(data, rows=replace(data.rows, inputs=data.rows.inputs.to("meta")))
    (whole,) = shard_tasks("key", configs, elsewhere, **epochs)
    # activations stay on the device
    assert sum(whole.member_bytes()) > 64 * 96 * 512 * 4
    used = sum(whole.member_bytes())
    for part in (2, 7):
        room = working_bytes(data) + used // part
        monkeypatch.setattr(shard_cuts, "device_bytes", lambda _, room=room: int(room / DEVICE_SHARE))
        tasks = shard_tasks("key", configs, elsewhere, **epochs)
        assert part <= len(tasks) <= part + 1
        assert all(task.predicted_bytes <= room for task in tasks)


def test_tasks_hold_every_member_with_its_state_and_the_options(make_data: Make, make_configs: Make) -> None:
    data, configs = make_data(), dict(zip(range(40, 52), make_configs(12), strict=True))
    configs[41] = configs[41].replace(batch_size=8)
    first = shard_tasks("first", configs, data, until_epoch=1, total_epochs=4)
    assert [task.key for task in first] == [f"first-{place:04d}" for place in range(len(first))]
    assert len(first) > 1
    states = {m.trial: m.state for task in first for m in train_shard(task).members if m.trial != 45}
    second = shard_tasks("second", configs, data, until_epoch=2, total_epochs=4, states=states, repeat=3)
    for task in second:
        assert task.configs == tuple(configs[trial] for trial in task.trials)
        assert task.states == tuple(states.get(trial) for trial in task.trials)
        assert (task.until_epoch, task.total_epochs, task.repeat, task.data) == (2, 4, 3, data)
    assert sorted(trial for task in second for trial in task.trials) == sorted(configs)
    with pytest.raises(TypeError, match="unknown"):
        shard_tasks("third", configs, data, until_epoch=2, total_epochs=4, unknown=1)


# ---------------------------------------------------------------------- predicted cost


def test_predicted_seconds_grow_with_epochs_members_and_rows(
    make_data: Make, make_configs: Make, make_task: Make
) -> None:
    task: ShardTask = make_task(make_configs(4), make_data())
    assert task.predicted_seconds > 0
    assert replace(task, until_epoch=4).predicted_seconds == pytest.approx(
        2 * task.predicted_seconds, rel=0.01
    )
    assert make_task(make_configs(8), make_data()).predicted_seconds > task.predicted_seconds
    assert make_task(make_configs(4), make_data(200)).predicted_seconds > task.predicted_seconds


def test_predicted_seconds_count_only_remaining_epochs(
    make_data: Make, make_configs: Make, make_task: Make
) -> None:
    task: ShardTask = make_task(make_configs(3), make_data())
    states = tuple(member.state for member in train_shard(task).members)
    further = replace(task, states=states, until_epoch=4)
    assert further.predicted_seconds == pytest.approx(task.predicted_seconds, rel=0.01)
    # only the evaluation remains
    assert replace(further, until_epoch=2).predicted_seconds < 0.01 * task.predicted_seconds


# ---------------------------------------------------------------------- training


def test_an_outcome_describes_every_member(make_data: Make, make_configs: Make, make_task: Make) -> None:
    configs = make_configs(5)
    outcome = train_shard(make_task(configs, make_data(predict=True), first=10))
    assert [member.trial for member in outcome.members] == [10, 11, 12, 13, 14]
    assert outcome.member_steps == 5 * 2 * 6  # members, epochs, batches of 16 in 96 rows
    assert not outcome.cut
    for member, config in zip(outcome.members, configs, strict=True):
        assert member.failure is None
        assert 0 < member.error < 2
        assert member.epochs == 2
        assert member.n_parameters == make_data().architecture(config).n_parameters
        assert member.prediction.shape == (2, 7)
        assert torch.allclose(member.prediction.sum(0), torch.ones(7))
        assert set(member.state.vectors) == {"parameters", "first_moment", "second_moment", "average"}
    assert outcome.seconds == pytest.approx(sum(member.seconds for member in outcome.members))
    assert train_shard(make_task(configs, make_data())).members[0].prediction is None


def test_training_in_two_parts_equals_training_at_once(
    make_data: Make, make_configs: Make, make_task: Make
) -> None:
    task: ShardTask = make_task(make_configs(4), make_data())
    half = train_shard(replace(task, until_epoch=1))
    resumed = train_shard(replace(task, states=tuple(member.state for member in half.members)))
    assert _same(resumed, train_shard(task))
    assert not _same(half, resumed)


def test_another_fold_starts_from_other_weights(make_data: Make, make_configs: Make, make_task: Make) -> None:
    task = make_task(make_configs(3), make_data())
    assert _same(train_shard(task), train_shard(task))
    assert not _same(train_shard(task), train_shard(replace(task, repeat=1)))


def test_a_deadline_in_the_past_stops_after_one_step(
    make_data: Make, make_configs: Make, make_task: Make
) -> None:
    outcome = train_shard(make_task(make_configs(3), make_data(), deadline=time.monotonic() - 1))
    assert outcome.cut
    assert outcome.member_steps == 3
    assert all(member.epochs < 1 and math.isfinite(member.error) for member in outcome.members)
    assert not train_shard(make_task(make_configs(3), make_data(), deadline=time.monotonic() + 600)).cut


def test_a_diverged_member_fails_and_the_others_are_unchanged(
    make_data: Make, make_configs: Make, make_task: Make
) -> None:
    configs = make_configs(4, optimizer="sgd", activation="relu")
    expected = train_shard(make_task(configs, make_data()))
    diverging = (*configs[:2], configs[2].replace(learning_rate=1e30), configs[3])
    outcome = train_shard(make_task(diverging, make_data()))
    assert outcome.members[2].failure is not None
    assert "stopped being finite at step" in outcome.members[2].failure
    for member in (0, 1, 3):
        assert outcome.members[member].failure is None
        assert outcome.members[member].error == pytest.approx(expected.members[member].error, abs=1e-6)


# ---------------------------------------------------------------------- out of memory


def _failing_above(limit: int, error: Exception, sizes: list[int]) -> Callable[[ShardTask], ShardOutcome]:
    train = shards._train_whole

    def failing(task: ShardTask) -> ShardOutcome:
        sizes.append(len(task.configs))
        if len(task.configs) > limit:
            raise error
        return train(task)

    return failing


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: 9 bytes"),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("Triton Error [CUDA]: out of memory"),
    ],
    ids=["python", "torch-cpu", "cuda", "cublas", "triton"],
)
def test_out_of_memory_halves_the_shard(
    error: Exception, make_data: Make, make_configs: Make, make_task: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task(make_configs(7), make_data(), first=20)
    whole = train_shard(task)
    sizes: list[int] = []
    monkeypatch.setattr(shards, "_train_whole", _failing_above(2, error, sizes))
    outcome = train_shard(task)
    assert sizes == [7, 3, 1, 2, 4, 2, 2]
    assert outcome.key == task.key
    assert [member.trial for member in outcome.members] == list(range(20, 27))
    assert outcome.member_steps == whole.member_steps
    for halved, member in zip(outcome.members, whole.members, strict=True):
        assert halved.failure is None
        assert halved.error == pytest.approx(member.error, abs=1e-5)


def test_a_single_member_out_of_memory_fails_with_the_reason(
    make_data: Make, make_configs: Make, make_task: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = shards._train_whole

    def failing(task: ShardTask) -> ShardOutcome:
        if 2 in task.trials:
            raise RuntimeError("can't allocate memory: you tried to allocate 1 byte.\nsecond line")
        return train(task)

    monkeypatch.setattr(shards, "_train_whole", failing)
    outcome = train_shard(make_task(make_configs(4), make_data()))
    assert [member.trial for member in outcome.members] == [0, 1, 2, 3]
    assert [member.failure is None for member in outcome.members] == [True, True, False, True]
    failed = outcome.members[2]
    assert failed.failure == "out of memory: can't allocate memory: you tried to allocate 1 byte."
    assert math.isnan(failed.error)
    assert failed.state is None
    assert failed.n_parameters > 0


def test_a_single_member_out_of_memory_is_tried_again(
    make_data: Make, make_configs: Make, make_task: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The garbage of the members before it can have taken the memory."""
    train, errors = shards._train_whole, [MemoryError()]

    def failing(task: ShardTask) -> ShardOutcome:
        if errors:
            raise errors.pop()
        return train(task)

    task = make_task(make_configs(1), make_data())
    monkeypatch.setattr(shards, "_train_whole", failing)
    (member,) = train_shard(task).members
    assert member.failure is None
    assert member.error == train(task).members[0].error


def test_other_errors_are_raised(
    make_data: Make, make_configs: Make, make_task: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "_train_whole", _failing_above(0, RuntimeError("shapes do not match"), []))
    with pytest.raises(RuntimeError, match="shapes do not match"):
        train_shard(make_task(make_configs(2), make_data()))
    # a kernel that is too large stays too large for half the members
    error = RuntimeError("out of resource: shared memory, Required: 300000, Hardware limit: 232448")
    monkeypatch.setattr(shards, "_train_whole", _failing_above(0, error, []))
    with pytest.raises(RuntimeError, match="out of resource"):
        train_shard(make_task(make_configs(2), make_data()))


# ---------------------------------------------------------------------- threads


def test_one_thread_applies_only_inside_the_context() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 3
        with pytest.raises(KeyError), one_thread():
            raise KeyError
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_workers_do_not_change_the_threads_of_others(
    make_data: Make, make_configs: Make, make_task: Make
) -> None:
    """The main thread and threads started later keep their number of threads."""
    from parallelmlp_search.distribute import run_shards

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        tasks = [make_task(make_configs(2), make_data(), first=10 * n) for n in range(6)]
        assert len(list(run_shards(tasks, n_workers=2))) == 6
        assert torch.get_num_threads() == 3
        seen: list[int] = []
        thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert seen == [3]
    finally:
        torch.set_num_threads(before)


def test_rows_of_a_batch_never_exceed_the_table(make_data: Make) -> None:
    data: ShardData = make_data(30)
    assert data.batch_rows(MLPConfig(widths=(2,), batch_size=256)) == 30
    assert data.batch_rows(MLPConfig(widths=(2,), batch_size=29)) == 29


def test_without_validation_rows_the_final_weights_predict(
    make_data: Make, make_configs: Make, make_task: Make
) -> None:
    data = make_data(predict=True)
    unscored_data = replace(data, validation_inputs=None, validation_target=None)
    configs = make_configs(6)
    scored = train_shard(make_task(configs, data, until_epoch=4))
    outcome = train_shard(make_task(configs, unscored_data, until_epoch=4))
    assert all(member.failure is None and math.isnan(member.error) for member in outcome.members) or all(
        math.isinf(member.error) for member in outcome.members
    )
    for with_rows, without in zip(scored.members, outcome.members, strict=True):
        # scored once, at the end, so the best weights are the final ones
        assert with_rows.prediction is not None
        assert without.prediction is not None
        assert torch.equal(with_rows.prediction, without.prediction)
    early = train_shard(make_task(configs, unscored_data, until_epoch=2))
    assert early.members[0].prediction is not None
    assert scored.members[0].prediction is not None
    assert not torch.equal(early.members[0].prediction, scored.members[0].prediction)


@pytest.mark.parametrize("compiled", ["0", "1"])
def test_the_memory_of_a_shard_does_not_wait_for_the_garbage_collector(
    compiled: str, make_data: Make, make_configs: Make, make_task: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PMLP_COMPILED", compiled)
    task = make_task(make_configs(3), make_data())
    train_shard(task)  # imports and caches
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        train_shard(task)
        gc.collect()
        left = {type(thing).__name__ for thing in gc.garbage}
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert not left & {"Tensor", "ndarray", "Population", "PackedOptimizer"}
