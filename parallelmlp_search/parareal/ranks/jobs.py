"""Training jobs as files: instructions for the ranks, and their results.

A job is a folder: ``job.json`` lists the tasks, ``rows-FOLD.safetensors`` holds the rows, and each finished
task leaves ``TASK/outcome.json``, ``TASK/weights-J.safetensors`` and ``TASK/prediction.safetensors``. An
unfinished job is resumed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import torch
from torch import Tensor

from parallelmlp_search._files import make_folder, save_tensors, write_json
from parallelmlp_search._reading import load_tensors, read_json, reading
from parallelmlp_search._schema import Count, Positive
from parallelmlp_search.distribute import ShardData
from parallelmlp_search.engine import BatchStream, Head, TrainingRows
from parallelmlp_search.engine.heads import head_predictions
from parallelmlp_search.engine.initialization import initial_vector
from parallelmlp_search.engine.rows import as_tensor
from parallelmlp_search.packing import Architecture, DataShape
from parallelmlp_search.parareal.architectures.residual_mlp import deep_mlp
from parallelmlp_search.parareal.method.decompose import decompose
from parallelmlp_search.parareal.method.network import PararealNetwork
from parallelmlp_search.parareal.method.optimizer import Recipe
from parallelmlp_search.parareal.ranks.checkpoint import Checkpointer
from parallelmlp_search.parareal.ranks.communicator import Communicator
from parallelmlp_search.parareal.ranks.distributed import DistributedParareal
from parallelmlp_search.parareal.ranks.training import TrainingResult, member_outputs, train_network
from parallelmlp_search.selection import Metric, decided_by, get_metric, with_costs
from parallelmlp_search.space import ColumnGroups, MLPConfig

LAUNCHER_PID = "PMLP_LAUNCHER"
"""Environment variable with the id of the process whose end also ends the ranks."""

OTHER_ROWS = ("validation_inputs", "validation_target", "validation_weight", "prediction_inputs")
"""Tensors of a fold beside its training rows."""


class Outcome(TypedDict):
    """Content of ``outcome.json``."""

    error: float
    epoch: float
    seconds: float
    step_seconds: float
    waited: NotRequired[float]
    failure: str | None
    parameters: Count
    cuts: list[Count]
    ranks: Positive


@dataclass(frozen=True)
class Task:
    """Training of one network on one fold."""

    key: str  # also the name of its folder
    config: MLPConfig
    fold: int
    slices: int  # 1 for the serial twin
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
    """Tasks that share a folder, and settings of the ranks that run them."""

    folder: Path
    tasks: tuple[Task, ...]
    slices: int  # ranks per network
    device: str = "auto"
    timeout: float = 20.0
    replicas: int = 1  # copies of the network, each over ``slices`` ranks, which share each minibatch
    restarts: int = 0  # of all ranks from the last checkpoint after one has died

    def save(self) -> None:
        """Write ``job.json``."""
        make_folder(self.folder)
        names = ("slices", "device", "timeout", "replicas", "restarts")
        values = {name: getattr(self, name) for name in names}
        write_json(self.folder / "job.json", {**values, "tasks": [task.to_dict() for task in self.tasks]})

    @classmethod
    def load(cls, folder: Path) -> Job:
        """Read ``job.json``."""
        path = folder / "job.json"
        values = read_json(path, dict[str, Any])
        with reading(path):
            tasks = tuple(Task.from_dict(task) for task in values.pop("tasks"))
            return cls(folder=folder, tasks=tasks, **values)

    def save_rows(self, fold: int, data: ShardData) -> None:
        """Write the rows of a fold with head, loss and metric, if they are not there."""
        path = self.folder / f"rows-{fold}.safetensors"
        if path.is_file():
            return
        rows = {name: getattr(data.rows, name) for name in ("inputs", "target", "weight")}
        rows |= {name: getattr(data, name) for name in OTHER_ROWS}
        tensors = {name: as_tensor(part) for name, part in rows.items() if part is not None}
        facts = {
            "head": asdict(data.head),
            "loss": data.loss,
            "metric": data.metric.name,
            "decision": getattr(data.metric.formula, "decision", None),
            "costs": getattr(getattr(data.metric.formula, "formula", None), "costs", None),
            "seed": data.seed,
            "columns": data.columns.to_dict(),
        }
        save_tensors(path, {name: tensor.cpu().clone() for name, tensor in tensors.items()}, facts)

    def load_rows(self, fold: int, device: torch.device | str = "cpu") -> ShardData:
        """Read the rows of a fold, onto a device."""
        path = self.folder / f"rows-{fold}.safetensors"
        tensors, facts = load_tensors(path, dict[str, Any], self._remedy)
        with reading(path, self._remedy):
            return self._rows(tensors, facts, device)

    @property
    def _remedy(self) -> str:
        return f"delete the folder {str(self.folder)!r} and promote again"

    @staticmethod
    def _rows(
        tensors: Mapping[str, Tensor], facts: Mapping[str, Any], device: torch.device | str
    ) -> ShardData:
        # copies, since the memory of a file is not aligned
        placed = {name: tensor.clone().to(device) for name, tensor in tensors.items()}
        known: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in facts["head"].items()}
        others: dict[str, Any] = {name: placed.get(name) for name in OTHER_ROWS}
        return ShardData(
            rows=TrainingRows(placed["inputs"], placed["target"], placed.get("weight")),
            **others,
            head=Head(**known),
            loss=facts["loss"],
            metric=_metric(facts, known["task"]),
            seed=facts["seed"],
            columns=ColumnGroups.from_dict(facts["columns"]),
        )

    def run(self, task: Task, communicator: Communicator) -> None:
        """Train one task in this process, or as one rank of many, and write its outcome."""
        config = task.config
        data = self.load_rows(task.fold, communicator.device).seen_by(config)
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
        make_folder(self.folder / task.key)
        identity = {"task": task.to_dict(), "replicas": communicator.n_replicas}
        checkpointer = Checkpointer(self.folder / task.key / "checkpoint", identity)
        result = train_network(
            engine,
            data,
            batch_size=config.batch_size,
            epochs=task.epochs,
            smoothing=config.label_smoothing,
            checkpointer=checkpointer,
        )
        _write_outcome(self.folder / task.key, engine, data, result, facts)
        if communicator.rank == 0:
            checkpointer.delete()
        communicator.barrier()

    def is_done(self, task: Task) -> bool:
        """Return True if a task has an outcome."""
        return (self.folder / task.key / "outcome.json").is_file()

    def outcome(self, task: Task) -> dict[str, Any]:
        """Return the outcome of a finished task."""
        return dict(read_json(self.folder / task.key / "outcome.json", Outcome, remedy=self._remedy))

    def prediction(self, task: Task) -> Tensor:
        """Return the predictions ``(C, n)`` of the fold's rows."""
        path = self.folder / task.key / "prediction.safetensors"
        tensors, _ = load_tensors(path, remedy=self._remedy)
        with reading(path, self._remedy):
            return tensors["prediction"]

    def weights(self, task: Task) -> dict[str, Tensor]:
        """Return the state dict of the best weights of all slices."""
        tensors: dict[str, Tensor] = {}
        for path in sorted((self.folder / task.key).glob("weights-*.safetensors")):
            tensors |= load_tensors(path, remedy=self._remedy)[0]
        return tensors


def build_network(
    config: MLPConfig,
    slices: int,
    *,
    n_inputs: int,
    n_outputs: int,
    n_numbers: int = 0,
    repeat: int = 0,
    cuts: Sequence[int] | str = "counted",
) -> PararealNetwork:
    """Build the network of a configuration in slices, the same on every rank.

    Fine networks have the initial weights of the serial twin, which are those of a population's member.
    Preprocessors and coarse networks are drawn from torch's generator, seeded by the configuration.

    Parameters
    ----------
    config, n_inputs, n_outputs, n_numbers
        As for :func:`~parallelmlp_search.parareal.deep_mlp`.
    slices, cuts
        As for :func:`~parallelmlp_search.parareal.decompose`.
    repeat
        Number of the repetition; each has its own initial weights.

    Returns
    -------
    PararealNetwork
    """
    sizes: dict[str, Any] = {"n_inputs": n_inputs, "n_outputs": n_outputs}
    data = DataShape(n_inputs, n_outputs, ColumnGroups(n_numbers=n_numbers))
    architecture = Architecture.of(config, data)
    vector = initial_vector(architecture, config, repeat=repeat).float()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed * 1_000_003 + repeat)
        model = deep_mlp(config, vector=vector, n_numbers=n_numbers, **sizes)
        rows = max(2, min(config.batch_size, 256))
        return decompose(model, slices, torch.zeros(rows, n_inputs), cuts=cuts)


def _metric(facts: Mapping[str, Any], task: str) -> Metric:
    """Metric of stored rows, with its costs."""
    costs, decision = (
        None if facts.get(name) is None else tuple(map(tuple, facts[name])) for name in ("costs", "decision")
    )
    metric = get_metric(facts["metric"], task)
    return decided_by(with_costs(metric, costs) if costs else metric, decision)


def _write_outcome(
    folder: Path, engine: DistributedParareal, data: ShardData, result: TrainingResult, facts: dict[str, Any]
) -> None:
    """Write best weights and predictions of every slice, and then the outcome."""
    communicator = engine.communicator
    wanted = data.validation_inputs if data.prediction_inputs is None else data.prediction_inputs
    assert wanted is not None
    with engine.weights(result.weights):
        outputs = engine.predict(as_tensor(wanted))
        weights = {name: value.cpu() for name, value in engine.state_dict().items()}
    if communicator.replica_index == 0:
        save_tensors(folder / f"weights-{engine.numbers[0]}.safetensors", weights)
        if outputs is not None:
            prediction = head_predictions(data.head, member_outputs(outputs))[0].cpu()
            save_tensors(folder / "prediction.safetensors", {"prediction": prediction})
    communicator.barrier()
    if communicator.rank == 0:
        best = {"error": result.best_error, "epoch": result.best_epoch}
        write_json(folder / "outcome.json", best | result.to_dict() | facts)
