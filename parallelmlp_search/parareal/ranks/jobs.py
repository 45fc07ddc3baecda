"""Training jobs as files: instructions for the ranks, and their results.

A job is a folder: ``job.json`` lists the tasks, ``rows-FOLD.safetensors`` holds the rows, and each finished
task leaves ``TASK/outcome.json``, ``TASK/weights-J.safetensors`` and ``TASK/prediction.safetensors``. An
unfinished job is resumed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from parallelmlp_search._files import load_tensors, read_json, save_tensors, write_json
from parallelmlp_search.distribute import ShardData
from parallelmlp_search.engine import BatchStream, Head, TrainingRows
from parallelmlp_search.engine.initialization import initial_vector
from parallelmlp_search.packing import Architecture
from parallelmlp_search.parareal.architectures.residual_mlp import deep_mlp
from parallelmlp_search.parareal.method.decompose import decompose
from parallelmlp_search.parareal.method.network import PararealNetwork
from parallelmlp_search.parareal.method.optimizer import Recipe
from parallelmlp_search.parareal.ranks.checkpoint import Checkpointer
from parallelmlp_search.parareal.ranks.communicator import Communicator
from parallelmlp_search.parareal.ranks.distributed import DistributedParareal
from parallelmlp_search.parareal.ranks.training import TrainingResult, member_outputs, train_network
from parallelmlp_search.selection import get_metric
from parallelmlp_search.space import ColumnGroups, MLPConfig

__all__ = ["LAUNCHER_PID", "Job", "Task", "build_network", "load_rows", "run_task", "save_rows"]

LAUNCHER_PID = "PMLP_LAUNCHER"
"""Environment variable with the id of the process whose end also ends the ranks."""


@dataclass(frozen=True)
class Task:
    """Training of one network on one fold.

    Attributes
    ----------
    key
        Name of the task and of its folder.
    config
        Configuration to train.
    fold
        Number of the fold.
    slices
        Slices ``T``; 1 is the serial twin.
    epochs
        Passes over the rows.
    """

    key: str
    config: MLPConfig
    fold: int
    slices: int
    epochs: float

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able form."""
        return {**asdict(self), "config": self.config.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Task:
        """Return the task that :meth:`to_dict` described."""
        return cls(**{**values, "config": MLPConfig.from_dict(values["config"])})


@dataclass(frozen=True)
class Job:
    """Tasks that share a folder, and settings of the ranks.

    Attributes
    ----------
    folder
        Folder of all files.
    tasks
        Tasks of the ranks.
    slices
        Ranks per network.
    device, timeout
        As for :func:`~parallelmlp_search.parareal.init_communicator`.
    """

    folder: Path
    tasks: tuple[Task, ...]
    slices: int
    device: str = "auto"
    timeout: float = 20.0

    def save(self) -> None:
        """Write ``job.json``."""
        values = {name: getattr(self, name) for name in ("slices", "device", "timeout")}
        write_json(self.folder / "job.json", {**values, "tasks": [task.to_dict() for task in self.tasks]})

    @classmethod
    def load(cls, folder: Path) -> Job:
        """Read ``job.json``."""
        values = read_json(folder / "job.json")
        tasks = tuple(Task.from_dict(task) for task in values.pop("tasks"))
        return cls(folder=folder, tasks=tasks, **values)

    def is_done(self, task: Task) -> bool:
        """Return True if a task has an outcome."""
        return (self.folder / task.key / "outcome.json").is_file()

    def outcome(self, task: Task) -> dict[str, Any]:
        """Return the outcome of a finished task."""
        return dict(read_json(self.folder / task.key / "outcome.json"))

    def prediction(self, task: Task) -> Tensor:
        """Return the predictions ``(C, n)`` of the fold's rows."""
        return load_tensors(self.folder / task.key / "prediction.safetensors")[0]["prediction"]

    def weights(self, task: Task) -> dict[str, Tensor]:
        """Return the state dict of the best weights of all slices."""
        tensors: dict[str, Tensor] = {}
        for path in sorted((self.folder / task.key).glob("weights-*.safetensors")):
            tensors |= load_tensors(path)[0]
        return tensors


VALIDATION = ("validation_inputs", "validation_target", "validation_weight", "prediction_inputs")


def save_rows(folder: Path, fold: int, data: ShardData, n_classes: int | None) -> None:
    """Write the rows of a fold with head, loss and metric.

    Parameters
    ----------
    folder
        Folder of the job.
    fold
        Number of the fold.
    data
        Its rows.
    n_classes
        Number of classes, or None for regression.
    """
    tensors = {name: getattr(data.rows, name) for name in ("inputs", "target", "weight")}
    tensors |= {name: getattr(data, name) for name in VALIDATION}
    facts = {
        "head": asdict(data.head),
        "loss": data.loss,
        "metric": data.metric.name,
        "n_classes": n_classes,
        "seed": data.seed,
        "columns": data.columns.to_dict(),
    }
    present = {name: tensor.cpu().clone() for name, tensor in tensors.items() if tensor is not None}
    save_tensors(folder / f"rows-{fold}.safetensors", present, facts)


def load_rows(folder: Path, fold: int, device: torch.device | str = "cpu") -> ShardData:
    """Read the rows of a fold.

    Parameters
    ----------
    folder, fold
        As for :func:`save_rows`.
    device
        Device of the tensors.

    Returns
    -------
    ShardData
    """
    tensors, facts = load_tensors(folder / f"rows-{fold}.safetensors")
    # copies, since the memory of a file is not aligned
    placed = {name: tensor.clone().to(device) for name, tensor in tensors.items()}
    known: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in facts["head"].items()}
    head = Head(**known)
    validation: dict[str, Any] = {name: placed.get(name) for name in VALIDATION}
    return ShardData(
        rows=TrainingRows(placed["inputs"], placed["target"], placed.get("weight")),
        **validation,
        head=head,
        loss=facts["loss"],
        metric=get_metric(facts["metric"], head.task, n_classes=facts["n_classes"]),
        seed=facts["seed"],
        columns=ColumnGroups.from_dict(facts["columns"]),
    )


def build_network(
    config: MLPConfig,
    slices: int,
    *,
    n_inputs: int,
    n_outputs: int,
    n_numbers: int = 0,
    repeat: int = 0,
    cuts: Sequence[int] | None = None,
) -> PararealNetwork:
    """Build the network of a configuration in slices, the same on every rank.

    Fine networks have the initial weights of the serial twin, which are those of a population's member.
    Preprocessors and coarse networks are drawn from torch's generator, seeded by the configuration.

    Parameters
    ----------
    config
        Configuration of the serial twin.
    slices
        Slices ``T``.
    n_inputs, n_outputs, n_numbers
        As for :func:`~parallelmlp_search.parareal.deep_mlp`.
    repeat
        Number of the repetition; each has its own initial weights.
    cuts
        Hidden layers at which slices 2 to ``T`` begin; balanced by default.

    Returns
    -------
    PararealNetwork
    """
    sizes: dict[str, Any] = {"n_inputs": n_inputs, "n_outputs": n_outputs}
    architecture = Architecture.of(config, **sizes, columns=ColumnGroups(n_numbers=n_numbers))
    vector = initial_vector(architecture, config, repeat=repeat).float()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed * 1_000_003 + repeat)
        model = deep_mlp(config, vector=vector, n_numbers=n_numbers, **sizes)
        rows = max(2, min(config.batch_size, 256))
        return decompose(model, slices, torch.zeros(rows, n_inputs), cuts="counted" if cuts is None else cuts)


def run_task(
    job: Job,
    task: Task,
    communicator: Communicator,
    *,
    on_step: Callable[[int], object] | None = None,
) -> TrainingResult:
    """Train one task in this process, or as one rank of many, and write its outcome.

    Parameters
    ----------
    job
        Job of the task.
    task
        Network to train.
    communicator
        Connection with the other ranks.
    on_step
        Called with the number of steps after each.

    Returns
    -------
    TrainingResult
    """
    config = task.config
    data = load_rows(job.folder, task.fold, communicator.device).seen_by(config)
    inputs = data.rows.inputs
    network = build_network(
        config,
        task.slices,
        n_inputs=data.n_inputs,
        n_outputs=data.head.n_outputs,
        n_numbers=data.columns.n_numbers,
        repeat=task.fold + 1,
    )
    facts = {
        "parameters": sum(p.numel() for p in network.parameters()),
        "cuts": list(network.cuts),
        "ranks": communicator.world_size,
    }
    steps = BatchStream(inputs.shape[0], config.batch_size, data.seed).steps(task.epochs)
    engine = DistributedParareal(
        network, communicator, Recipe.of(config, steps), inputs[:2].cpu(), seed=config.seed
    )
    identity = {"task": task.to_dict(), "replicas": communicator.n_replicas}
    checkpointer = Checkpointer(job.folder / task.key / "checkpoint", identity)
    result = train_network(
        engine,
        data,
        batch_size=config.batch_size,
        epochs=task.epochs,
        smoothing=config.label_smoothing,
        checkpointer=checkpointer,
        on_step=on_step,
    )
    _write_outcome(job.folder / task.key, engine, data, result, facts)
    if communicator.rank == 0:
        checkpointer.delete()
    communicator.barrier()
    return result


def _write_outcome(
    folder: Path, engine: DistributedParareal, data: ShardData, result: TrainingResult, facts: dict[str, Any]
) -> None:
    """Write best weights and predictions of every slice, and then the outcome."""
    communicator = engine.communicator
    wanted = data.validation_inputs if data.prediction_inputs is None else data.prediction_inputs
    assert wanted is not None
    with engine.weights(result.weights):
        outputs = engine.predict(wanted)
        weights = {name: value.cpu() for name, value in engine.state_dict().items()}
    if communicator.replica_index == 0:
        save_tensors(folder / f"weights-{engine.numbers[0]}.safetensors", weights)
        if outputs is not None:
            prediction = data.head.predictions(member_outputs(outputs))[0].cpu()
            save_tensors(folder / "prediction.safetensors", {"prediction": prediction})
    communicator.barrier()
    if communicator.rank == 0:
        names = ("epochs", "errors", "losses", "steps", "seconds", "step_seconds", "waited", "failure")
        best = {"error": result.best_error, "epoch": result.best_epoch}
        write_json(folder / "outcome.json", best | result.values(*names) | facts)
