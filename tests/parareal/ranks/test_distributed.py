"""Ranks over torch.distributed: the weights of one process, and errors instead of hanging."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import random
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

import parallelmlp_search
from parallelmlp_search._files import save_tensors, write_json
from parallelmlp_search._reading import load_tensors, read_json
from parallelmlp_search.distribute import ShardData
from parallelmlp_search.engine import Head, TrainingRows
from parallelmlp_search.exceptions import DistributedError, InvalidParameterError, RunDirectoryError
from parallelmlp_search.parareal import (
    Checkpointer,
    Communicator,
    DistributedParareal,
    Recipe,
    init_communicator,
)
from parallelmlp_search.parareal.ranks.jobs import Job, Task, build_network
from parallelmlp_search.parareal.ranks.launch import launch_job
from parallelmlp_search.selection import get_metric
from parallelmlp_search.space import MLPConfig

RANKS = Path(__file__).parent


def start_ranks(n_ranks: int, script: str, *arguments: object, hosted: bool = True) -> None:
    """Run a script on ranks as torchrun does, from a fork server that has imported everything.

    The store is hosted here, as torchrun does, or by rank 0, at a port that is never given to connections.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["parallelmlp_search.parareal"])
    host, wait = "127.0.0.1", False
    store = dist.TCPStore(host, 0, n_ranks, is_master=True, wait_for_workers=wait) if hosted else None
    port = free_port() if store is None else store.port
    processes = []
    for rank in range(n_ranks):
        environment = {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(n_ranks),
            "LOCAL_WORLD_SIZE": str(n_ranks), "MASTER_ADDR": host, "MASTER_PORT": str(port),
            "TORCHELASTIC_USE_AGENT_STORE": str(hosted), "TORCHELASTIC_RESTART_COUNT": "0",
        }  # fmt: skip
        given = {"ENVIRONMENT": environment, "ARGUMENTS": [str(argument) for argument in arguments]}
        processes.append(context.Process(target=runpy.run_path, args=(str(RANKS / script), given)))
    for process in processes:
        process.start()
    until = time.monotonic() + 300
    for process in processes:
        process.join(max(0.0, until - time.monotonic()))
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
        process.join()
    assert codes == [0] * n_ranks


def free_port() -> int:
    """Return a port below those that the system gives to connections."""
    for port in random.sample(range(20_000, 30_000), 100):
        with socket.socket() as free, contextlib.suppress(OSError):
            free.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


@pytest.mark.parametrize(
    ("ranks", "slices", "sockets"),
    [
        pytest.param(2, 2, True, id="T=2"),
        pytest.param(3, 3, True, id="T=3"),  # a middle slice receives and sends
        pytest.param(3, 3, False, id="T=3 over gloo", marks=pytest.mark.slow),
        pytest.param(4, 4, True, id="T=4", marks=pytest.mark.slow),
        pytest.param(4, 2, True, id="T=2 twice"),  # with data parallelism
    ],
)
def test_ranks_reach_the_weights_of_one_process(
    ranks: int, slices: int, sockets: bool, tmp_path: Path
) -> None:
    start_ranks(ranks, "rank_training.py", slices, tmp_path, sockets)
    for rank in range(ranks):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        normalized = found.pop("batch normalization")
        # the same products, rounded alike; the optimizer works in float32
        assert found.pop("autocast", 0.0) < 1e-6 < found.pop("autocast on ranks alone", 1.0)
        assert len(found) >= 5
        assert max(found.values()) < 1e-10, (rank, found)
        if ranks == slices:
            assert normalized < 1e-10
        else:  # each replica normalizes by its own rows, as in all data-parallel training
            assert normalized > 1e-10


@pytest.mark.parametrize(
    "sockets", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["sockets", "gloo"]
)
def test_disagreement_and_silence_are_errors(tmp_path: Path, sockets: bool) -> None:
    start_ranks(2, "rank_errors.py", tmp_path / "errors.json", sockets, hosted=sockets)
    errors = json.loads((tmp_path / "errors.json").read_text())
    assert errors["shapes"].startswith("ranks must agree on shapes, but rank 0 has [[8], [8]]")
    assert "rank 1 has [[9], [9]]" in errors["shapes"]
    assert "ranks must agree on recipe" in errors["recipe"]
    rows = "ranks must agree on the rows of a minibatch, but rank 0 has 8 and rank 1 has 7"
    assert errors["rows"] == errors["rows, later"] == rows
    assert errors["prediction"].startswith("ranks must agree on the rows to predict, but rank 0 has 4")
    assert "rank 0 (slice 1 of 2) has heard nothing from rank 1 (slice 2)" in errors["silence"]
    assert 6 < errors["seconds"] < 25


# ---------------------------------------------------------------------- jobs, checkpoints, killed ranks


def data(n_rows: int = 320) -> ShardData:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(n_rows, 6, generator=generator)
    target = (inputs[:, 0] * inputs[:, 1] > 0).long() + (inputs[:, 2] > 1).long()
    return ShardData(
        rows=TrainingRows(inputs[100:], target[100:], torch.rand(n_rows - 100, generator=generator)),
        validation_inputs=inputs[:100],
        validation_target=target[:100],
        validation_weight=None,
        prediction_inputs=inputs[:50],
        head=Head("multiclass", 3),
        loss="cross_entropy",
        metric=get_metric("log_loss", "multiclass", n_classes=3),
        seed=4,
    )


CONFIG = MLPConfig(
    widths=(12,) * 8,
    residual=True,
    normalization="layer",
    dropout=0.1,
    batch_size=32,
    label_smoothing=0.05,
    learning_rate=3e-3,
    schedule="cosine",
)


def job(
    folder: Path, slices: int = 2, epochs: float = 3, timeout: float = 20.0, config: MLPConfig = CONFIG
) -> Job:
    task = Task("network", config, 0, slices, epochs)
    made = Job(folder, (task,), slices, "cpu", timeout)
    made.save()
    made.save_rows(0, data())
    return made


def test_rows_and_jobs_are_restored_from_files(tmp_path: Path) -> None:
    made = job(tmp_path)
    assert Job.load(tmp_path) == made
    before, after = data(), made.load_rows(0)
    assert torch.equal(before.rows.inputs, after.rows.inputs)
    assert after.rows.weight is not None
    assert (after.head, after.loss, after.seed) == (before.head, before.loss, before.seed)
    assert after.metric.name == "log_loss"


def test_jobs_of_earlier_versions_are_read(tmp_path: Path) -> None:
    """Without replicas and restarts, and with the number of classes beside the rows."""
    made = job(tmp_path)
    values = read_json(tmp_path / "job.json")
    write_json(
        tmp_path / "job.json", {name: values[name] for name in ("slices", "device", "timeout", "tasks")}
    )
    assert Job.load(tmp_path) == made
    tensors, facts = load_tensors(tmp_path / "rows-0.safetensors")
    save_tensors(tmp_path / "rows-0.safetensors", tensors, facts | {"n_classes": 3})
    assert made.load_rows(0).metric.name == "log_loss"


@pytest.mark.parametrize("slices", [1, 2])
def test_interrupted_training_resumes_to_the_same_weights(
    slices: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = job(tmp_path / "a", slices), job(tmp_path / "b", slices)
    whole.run(whole.tasks[0], Communicator())

    class Interrupted(Exception):
        pass

    steps: list[int] = []
    step = DistributedParareal.step

    def interrupted_step(self: DistributedParareal, *arguments: Any) -> torch.Tensor | None:
        steps.append(self.optimizer.step_number)
        if len(steps) == 17:  # between two checkpoints
            raise Interrupted
        return step(self, *arguments)

    monkeypatch.setattr(DistributedParareal, "step", interrupted_step)
    with pytest.raises(Interrupted):
        broken.run(broken.tasks[0], Communicator())
    assert not broken.is_done(broken.tasks[0])
    assert (tmp_path / "b" / "network" / "checkpoint" / "latest.json").is_file()
    broken.run(broken.tasks[0], Communicator())
    assert 0 < steps[17] < steps[16] == 16  # it resumes
    assert not (tmp_path / "b" / "network" / "checkpoint").exists()
    assert_same_weights(whole, broken)
    outcomes = [made.outcome(made.tasks[0]) for made in (whole, broken)]
    assert outcomes[0]["errors"] == outcomes[1]["errors"]
    assert len(outcomes[0]["errors"]) == 3


def test_a_checkpoint_of_another_run_is_rejected(tmp_path: Path) -> None:
    def engine(width: int = 12) -> DistributedParareal:
        config = CONFIG.replace(widths=(width,) * 4)
        network = build_network(config, 2, n_inputs=6, n_outputs=3)
        return DistributedParareal(network, Communicator(), Recipe(total_steps=5), torch.zeros(2, 6))

    checkpointer = Checkpointer(tmp_path, {"name": "ours"})
    assert checkpointer.load(engine()) is None
    checkpointer.save(engine(), {"best": 1})
    assert Checkpointer(tmp_path, {"name": "ours"}).load(engine()) == ({"best": 1}, {})
    with pytest.raises(RunDirectoryError, match="was written with identity"):
        Checkpointer(tmp_path, {"name": "theirs"}).load(engine())
    with pytest.raises(RunDirectoryError, match="a checkpoint must hold"):
        Checkpointer(tmp_path, {"name": "ours"}).load(engine(9))
    assert sorted({path.suffix for path in tmp_path.iterdir()}) == [".json", ".safetensors"]


EPOCHS = 120
"""840 steps, or 1.5 seconds, so that a rank can be killed before the end."""


def kill_once_checkpointed(made: Job, rank: int) -> tuple[threading.Thread, list[float]]:
    """Kill a rank after the first checkpoint; the list receives the time."""
    times: list[float] = []

    def wait_and_kill() -> None:
        latest = made.folder / "network" / "checkpoint" / "latest.json"
        until = time.monotonic() + 120
        while not latest.is_file() and time.monotonic() < until:
            time.sleep(0.01)
        os.kill(int((made.folder / f"rank-{rank}.pid").read_text()), signal.SIGKILL)
        times.append(time.monotonic())

    thread = threading.Thread(target=wait_and_kill)
    thread.start()
    return thread, times


def test_replicas_share_the_minibatches_of_a_job(tmp_path: Path) -> None:
    """Rows have weights, and a replica's share of the loss is that of its weights."""
    plain = CONFIG.replace(dropout=0.0)
    alone, shared = job(tmp_path / "a", config=plain), job(tmp_path / "b", config=plain)
    alone.run(alone.tasks[0], Communicator())
    start_ranks(4, "rank_worker.py", shared.folder)
    outcomes = [made.outcome(made.tasks[0]) for made in (alone, shared)]
    assert [outcome["ranks"] for outcome in outcomes] == [1, 4]
    assert outcomes[0]["errors"] == pytest.approx(outcomes[1]["errors"], rel=1e-4)
    assert outcomes[0]["losses"] == pytest.approx(outcomes[1]["losses"], rel=1e-4)


def assert_same_weights(one: Job, other: Job) -> None:
    first, second = (made.weights(made.tasks[0]) for made in (one, other))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
def test_a_killed_rank_ends_the_job_with_one_sentence_and_a_restart_resumes(tmp_path: Path) -> None:
    whole, broken = job(tmp_path / "a", epochs=EPOCHS), job(tmp_path / "b", epochs=EPOCHS)
    start_ranks(2, "rank_worker.py", whole.folder)
    thread, killed = kill_once_checkpointed(broken, 1)
    with pytest.raises(DistributedError) as caught:
        launch_job(broken)
    reported = time.monotonic()
    thread.join()
    assert 0 < reported - killed[0] < 30
    message = str(caught.value)
    assert "\n" not in message
    assert "rank 1 (slice 2 of 2) was killed by signal 9" in message
    assert "run the same command again" in message
    step = json.loads((tmp_path / "b" / "network" / "checkpoint" / "latest.json").read_text())["step"]
    assert 0 < step < EPOCHS * 7
    launch_job(broken)
    assert_same_weights(whole, broken)
    # the weights of one process, to rounding of float32
    alone = job(tmp_path / "c", epochs=EPOCHS)
    alone.run(alone.tasks[0], Communicator())
    assert alone.outcome(alone.tasks[0])["errors"][0] == pytest.approx(
        whole.outcome(whole.tasks[0])["errors"][0], rel=1e-4
    )


@pytest.mark.slow
def test_torchrun_restarts_the_ranks(tmp_path: Path) -> None:
    whole, broken = job(tmp_path / "a", epochs=EPOCHS), job(tmp_path / "b", epochs=EPOCHS)
    start_ranks(2, "rank_worker.py", whole.folder)
    thread, killed = kill_once_checkpointed(broken, 0)
    launch_job(replace(broken, restarts=1))
    thread.join()
    assert killed
    assert_same_weights(whole, broken)


@pytest.mark.slow
def test_ranks_do_not_outlive_the_command(tmp_path: Path) -> None:
    made = job(tmp_path, epochs=4000)
    code = (
        "from pathlib import Path; from parallelmlp_search.parareal.ranks.jobs import Job; "
        "from parallelmlp_search.parareal.ranks.launch import launch_job; "
        f"launch_job(Job.load(Path({str(tmp_path)!r})))"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(parallelmlp_search.__file__).parents[1])}
    command = subprocess.Popen([sys.executable, "-c", code], env=environment)
    latest = made.folder / "network" / "checkpoint" / "latest.json"
    until = time.monotonic() + 60
    while not latest.is_file() and time.monotonic() < until:
        time.sleep(0.1)
    pids = [int(path.read_text()) for path in made.folder.glob("rank-*.pid")]
    assert len(pids) == 2
    command.kill()
    command.wait()
    until = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < until:
        time.sleep(0.1)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_a_failure_of_a_rank_is_reported_with_its_message(tmp_path: Path) -> None:
    made = job(tmp_path)
    (tmp_path / "rows-0.safetensors").write_bytes(b"damaged")
    with pytest.raises(DistributedError, match=r"could not read .*rows-0"):
        launch_job(made)


def test_ranks_must_be_started_by_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(DistributedError, match="started by torchrun, but the variable RANK"):
        init_communicator(2)
    for name, value in {
        "RANK": "0",
        "WORLD_SIZE": "3",
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": "1",
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InvalidParameterError, match="multiple of slices=2, but torchrun has started 3"):
        init_communicator(2)
    with pytest.raises(InvalidParameterError, match="device must be one of auto, cpu, cuda"):
        init_communicator(3, device="tpu")
    if torch.cuda.device_count() < 3:
        with pytest.raises(InvalidParameterError, match="3 ranks share"):
            init_communicator(3, device="cuda")


def test_mistakes_in_a_step_are_named() -> None:
    network = build_network(CONFIG, 2, n_inputs=6, n_outputs=3)
    engine = DistributedParareal(network, Communicator(), Recipe(total_steps=5), torch.zeros(2, 6))
    with pytest.raises(InvalidParameterError, match="inputs must be given"):
        engine.step(None, lambda y: (y.sum(), y))
    with pytest.raises(InvalidParameterError, match="inputs must have rows of shape"):
        engine.step(torch.zeros(3, 5), lambda y: (y.sum(), y))
    engine.broadcast = True
    with pytest.raises(InvalidParameterError, match="must be one function if the input is broadcast"):
        engine.step(torch.zeros(4, 6), [lambda y: (y.sum(), y)] * 2)
