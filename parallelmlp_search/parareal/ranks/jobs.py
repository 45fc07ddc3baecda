"""One network to train, as files: what ranks are told, and what they leave behind.

A job is a folder: ``job.json`` says what to train, ``rows-FOLD.safetensors`` holds the rows, and every
finished task leaves ``TASK/outcome.json``, ``TASK/slice-J.safetensors`` and ``TASK/prediction.safetensors``.
Whoever opens an unfinished job goes on with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from parallelmlp_search._files import load_tensors, read_json, save_tensors, write_json
from parallelmlp_search.distribute import ShardData
from parallelmlp_search.engine import BatchStream, Head, TrainingRows
from parallelmlp_search.engine.initialization import initial_vector
from parallelmlp_search.packing import Architecture
from parallelmlp_search.parareal.architectures.networks import deep_mlp
from parallelmlp_search.parareal.method.decompose import decompose
from parallelmlp_search.parareal.method.network import PararealNetwork
from parallelmlp_search.parareal.method.recipe import Recipe
from parallelmlp_search.parareal.ranks.checkpoint import Keeper
from parallelmlp_search.parareal.ranks.communicator import Alone
from parallelmlp_search.parareal.ranks.distributed import DistributedParareal
from parallelmlp_search.parareal.ranks.training import Trained, member_outputs, train_network
from parallelmlp_search.selection import get_metric
from parallelmlp_search.space import ColumnGroups, MLPConfig

__all__ = ["LAUNCHER", "Job", "Task", "build_network", "load_rows", "run_task", "save_rows"]

LAUNCHER = "PMLP_LAUNCHER"
"""Environment variable with the number of the process that ranks are not to outlive."""


@dataclass(frozen=True)
class Task:
    """One network on one fold.

    Attributes
    ----------
    key
        Its name and folder.
    config
        What to train.
    fold
        Number of the rows.
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
        """JSON-able form."""
        return {**asdict(self), "config": self.config.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Task:
        """What :meth:`to_dict` wrote."""
        return cls(**{**values, "config": MLPConfig.from_dict(values["config"])})


@dataclass(frozen=True)
class Job:
    """Tasks that share a folder, and how ranks are to work on them."""

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
        """Whether a task has left its outcome."""
        return (self.folder / task.key / "outcome.json").is_file()

    def outcome(self, task: Task) -> dict[str, Any]:
        """What a finished task has come to."""
        return dict(read_json(self.folder / task.key / "outcome.json"))

    def prediction(self, task: Task) -> Tensor:
        """Predictions ``(C, n)`` of the fold's rows."""
        return load_tensors(self.folder / task.key / "prediction.safetensors")[0]["prediction"]

    def weights(self, task: Task) -> dict[str, Tensor]:
        """State dict of the best weights, all slices together."""
        tensors: dict[str, Tensor] = {}
        for path in sorted((self.folder / task.key).glob("weights-*.safetensors")):
            tensors |= load_tensors(path)[0]
        return tensors


def save_rows(folder: Path, fold: int, data: ShardData, n_classes: int | None) -> None:
    """Write the rows of a fold, with what ranks need to know of head, loss and metric."""
    tensors = {
        "inputs": data.rows.inputs,
        "target": data.rows.target,
        "weight": data.rows.weight,
        "validation_inputs": data.validation_inputs,
        "validation_target": data.validation_target,
        "validation_weight": data.validation_weight,
        "prediction_inputs": data.prediction_inputs,
    }
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
    """What :func:`save_rows` wrote, on a device."""
    tensors, facts = load_tensors(folder / f"rows-{fold}.safetensors")
    # copies, since the memory of a file is not aligned
    placed = {name: tensor.clone().to(device) for name, tensor in tensors.items()}
    known: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in facts["head"].items()}
    head = Head(**known)
    return ShardData(
        rows=TrainingRows(placed["inputs"], placed["target"], placed.get("weight")),
        validation_inputs=placed["validation_inputs"],
        validation_target=placed["validation_target"],
        validation_weight=placed.get("validation_weight"),
        prediction_inputs=placed.get("prediction_inputs"),
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
    """The network of a configuration in slices, the same on every rank.

    Fine networks start from the weights of the serial twin, which are those that a member of a population
    would start from; preprocessors and coarse networks from torch's generator, seeded by the configuration.
    """
    sizes: dict[str, Any] = {"n_inputs": n_inputs, "n_outputs": n_outputs}
    architecture = Architecture.of(config, **sizes, columns=ColumnGroups(n_numbers=n_numbers))
    vector = initial_vector(architecture, config, repeat=repeat).float()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed * 1_000_003 + repeat)
        model: nn.Sequential = deep_mlp(config, vector=vector, n_numbers=n_numbers, **sizes)
        rows = max(2, min(config.batch_size, 256))
        return decompose(model, slices, torch.zeros(rows, n_inputs), share=True, cuts=cuts)


def run_task(
    job: Job,
    task: Task,
    world: Alone,
    *,
    on_step: Callable[[int], object] | None = None,
    data: ShardData | None = None,
) -> Trained:
    """Train one task in this process, or as one rank of many, and leave its outcome in the job's folder."""
    config = task.config
    data = (load_rows(job.folder, task.fold, world.device) if data is None else data).seen_by(config)
    inputs = data.rows.inputs
    network = build_network(
        config,
        task.slices,
        n_inputs=data.n_inputs,
        n_outputs=data.head.n_outputs,
        n_numbers=data.columns.n_numbers,
        repeat=task.fold + 1,
    )
    stream = BatchStream(inputs.shape[0], config.batch_size, data.seed)
    n_parameters, cuts = sum(p.numel() for p in network.parameters()), network.cuts
    engine = DistributedParareal(
        network, world, Recipe.of(config, stream.steps(task.epochs)), inputs[:2].cpu(), seed=config.seed
    )
    folder = job.folder / task.key
    keeper = Keeper(folder / "checkpoint", {"task": task.to_dict(), "replicas": world.replicas})
    found = train_network(
        engine,
        data,
        batch_size=config.batch_size,
        epochs=task.epochs,
        smoothing=config.label_smoothing,
        keeper=keeper,
        on_step=on_step,
    )
    wanted = data.validation_inputs if data.prediction_inputs is None else data.prediction_inputs
    assert wanted is not None
    with engine.weights(found.weights):
        outputs = engine.predict(wanted)
        weights = {name: value.cpu() for name, value in engine.state_dict().items()}
    if world.replica == 0:
        save_tensors(folder / f"weights-{engine.numbers[0]}.safetensors", weights)
        if outputs is not None:
            prediction = data.head.predictions(member_outputs(outputs))[0].cpu()
            save_tensors(folder / "prediction.safetensors", {"prediction": prediction})
    world.barrier()
    if world.rank == 0:
        write_json(
            folder / "outcome.json",
            {
                "error": found.best_error,
                "epoch": found.best_epoch,
                "epochs": found.epochs,
                "errors": found.errors,
                "losses": found.losses,
                "steps": found.steps,
                "seconds": found.seconds,
                "step_seconds": found.step_seconds,
                "waited": found.waited,
                "parameters": n_parameters,
                "cuts": list(cuts),
                "ranks": world.slices * world.replicas,
                "failure": found.failure,
            },
        )
        keeper.forget()
    world.barrier()
    return found
