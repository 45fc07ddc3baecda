"""Messages to workers on other machines: equal bits, rows apart, deadlines, and workers that differ."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from parallelmlp_search.distribute import ShardData, ShardOutcome
from parallelmlp_search.distribute.remote import Message, Rows, read_outcome, train_message
from parallelmlp_search.distribute.shards import train_shard
from parallelmlp_search.distribute.software import Software
from parallelmlp_search.engine.rows import RowView
from parallelmlp_search.exceptions import DistributedError
from parallelmlp_search.kernels.numba import dispatch, library
from parallelmlp_search.kernels.numba.dispatch import PLAIN, READY, training_path

Make = Callable[..., Any]
HERE = Software.here(PLAIN)


def _train(task: Any, software: Software = HERE) -> ShardOutcome:
    rows, tables = Rows.of(task.data)
    message = Message.of(task, software)
    return read_outcome(train_message(message, rows, *(table.numpy() for table in tables)))


def _view_of_table(data: ShardData) -> ShardData:
    """The same rows as parts of one table in another order."""
    assert data.validation_inputs is not None
    table = torch.cat([data.validation_inputs[:], data.rows.inputs[:]])
    n_validation = len(data.validation_inputs)
    return replace(
        data,
        rows=replace(data.rows, inputs=RowView(table, torch.arange(n_validation, len(table)))),
        validation_inputs=RowView(table, torch.arange(n_validation)),
    )


@pytest.mark.parametrize("is_table", [False, True])
@pytest.mark.parametrize("path", [PLAIN, None])
def test_a_message_gives_the_same_bits(
    make_data: Make, make_configs: Make, make_task: Make, is_table: bool, path: str | None
) -> None:
    path = path or training_path("cpu")
    data = replace(make_data(predict=True), path=path)
    task = make_task(make_configs(4), _view_of_table(data) if is_table else data)
    expected = train_shard(make_task(make_configs(4), data))
    first = _train(task, Software.here(path))
    # a second task continues from the states of the first, as on the next rung
    states = tuple(member.state for member in first.members)
    second = _train(replace(task, states=states, until_epoch=3), Software.here(path))
    reference = train_shard(
        replace(
            task, states=tuple(member.state for member in expected.members), until_epoch=3, data=task.data
        )
    )
    for outcome, wanted in ((first, expected), (second, reference)):
        for member, other in zip(outcome.members, wanted.members, strict=True):
            assert member.error == other.error
            assert torch.equal(member.prediction, other.prediction)
            assert member.state.vectors.keys() == other.state.vectors.keys()
            for name, vector in member.state.vectors.items():
                assert torch.equal(vector, other.state.vectors[name])
    assert first.members[0].error != second.members[0].error


def test_a_message_holds_no_rows(make_data: Make, make_configs: Make, make_task: Make) -> None:
    data = make_data(20_000)
    few, many = (
        Message.of(make_task(make_configs(2), one), HERE).task for one in (make_data(), make_data(20_000))
    )
    assert len(few) == len(many) < 3000
    rows, tables = Rows.of(data)
    assert sum(array.nbytes for array in rows.arrays.values()) > 20_000 * 5 * 4
    assert tables == []


def test_parts_of_a_table_are_sent_as_numbers_of_rows(make_data: Make) -> None:
    data = _view_of_table(make_data())
    rows, tables = Rows.of(data)
    assert rows.tables == ("rows.inputs", "validation_inputs")
    assert tables[0] is tables[1]
    joined = rows.data(tuple(table.numpy() for table in tables))
    assert torch.equal(joined.rows.inputs[:], data.rows.inputs[:])
    assert torch.equal(joined.validation_inputs[:], data.validation_inputs[:])
    assert (joined.head, joined.metric, joined.seed) == (data.head, data.metric, data.seed)


class TestDeadline:
    def _left(self, make_data: Make, make_configs: Make, make_task: Make, late: float) -> float:
        task = make_task(make_configs(1), make_data(), deadline=time.monotonic() + 10)
        message = Message.of(task, HERE)
        opened = replace(message, sent=message.sent - late).open(task.data)
        assert opened.deadline is not None
        return opened.deadline - time.monotonic()

    @pytest.mark.parametrize(
        ("late", "left"),
        [
            (0.0, 10.0),
            (6.0, 4.0),  # sent again after its worker died
            (30.0, -20.0),
            (-100.0, 10.0),  # a clock that is behind
        ],
    )
    def test_it_counts_from_the_sending(
        self, make_data: Make, make_configs: Make, make_task: Make, late: float, left: float
    ) -> None:
        assert self._left(make_data, make_configs, make_task, late) == pytest.approx(left, abs=1.0)

    def test_none_stays_none(self, make_data: Make, make_configs: Make, make_task: Make) -> None:
        task = make_task(make_configs(1), make_data())
        assert Message.of(task, HERE).open(task.data).deadline is None


class TestSoftware:
    def test_this_process_agrees_with_itself(self) -> None:
        for path in (PLAIN, READY, training_path("cpu")):
            Software.here(path).check()

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"package": "0.0.1"}, r"has parallelmlp-search .*, but the search runs with 0\.0\.1: install"),
            ({"torch": "2.0.1"}, r"has torch .*, but the search runs with 2\.0\.1: install torch==2\.0\.1"),
            (
                {"cpu": "x86_64 AVX9"},
                r"computes for .*, but the search for x86_64 AVX9, so results would differ",
            ),
            ({"path": "x86-64-v9"}, "x86-64-v9|no compiled loops"),
        ],
    )
    def test_a_worker_that_differs_is_refused(self, change: dict[str, str], message: str) -> None:
        with pytest.raises(DistributedError, match=message):
            replace(HERE, **change).check()

    def test_with_a_time_limit_only_the_package_matters(self) -> None:
        timed = replace(HERE, path=READY, torch="2.0.1", cpu="x86_64 AVX9")
        timed.check()
        with pytest.raises(DistributedError, match=r"0\.0\.1"):
            replace(timed, package="0.0.1").check()

    def test_a_worker_without_loops_is_told_the_remedy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        wanted = replace(HERE, path="x86-64-v3")
        monkeypatch.setattr(library, "find", lambda: None)
        monkeypatch.setattr(library, "can_compile", lambda: False)
        with pytest.raises(
            DistributedError, match=r"no compiled loops.*install numba there, or set PMLP_COMP"
        ):
            wanted.check()
        HERE.check()  # the plain path needs none

    def test_the_variable_of_the_worker_does_not_count(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The path travels with the rows, not with the environment."""
        monkeypatch.delenv("PMLP_COMPILED", raising=False)
        with dispatch.following(PLAIN):
            assert training_path("cpu") == PLAIN
        found = training_path("cpu")
        monkeypatch.setenv("PMLP_COMPILED", "0")
        assert training_path("cpu") == PLAIN
        with dispatch.following(found):
            assert training_path("cpu") == found
        Software.here(found).check()


@pytest.mark.skipif(not library.can_compile(), reason="compares with the compiled loops")
def test_the_path_of_the_rows_is_taken(
    make_data: Make, make_configs: Make, make_task: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PMLP_COMPILED", raising=False)
    configs = make_configs(6, widths=(40, 30))
    task = make_task(configs, replace(make_data(), path=PLAIN), until_epoch=4)
    sent = [member.error for member in _train(task).members]
    assert sent == [member.error for member in train_shard(task).members]
    monkeypatch.setenv("PMLP_COMPILED", "0")
    unset = replace(task, data=replace(task.data, path=None))
    assert sent == [member.error for member in train_shard(unset).members]
    compiled = replace(task, data=replace(task.data, path=library.target()))
    assert sent != [member.error for member in train_shard(compiled).members]
