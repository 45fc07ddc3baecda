"""Checkpoints of a distributed run: one safetensors file per slice, and one JSON file with the last step.

A step counts only when every slice is written and ``latest.json`` names it. After an interruption at any time
all ranks therefore resume from the same step. Ranks on several hosts need a shared folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypedDict

from torch import Tensor

from parallelmlp_search._files import make_folder, remove, remove_empty_folder, save_tensors, write_json
from parallelmlp_search._reading import load_tensors, read_json, reading
from parallelmlp_search._schema import Count, Positive
from parallelmlp_search.exceptions import RunDirectoryError
from parallelmlp_search.parareal.ranks.distributed import DistributedParareal

LATEST = "latest.json"


class Latest(TypedDict):
    """Content of ``latest.json``."""

    step: Count
    slices: Positive
    identity: dict[str, Any]
    notes: Any


class Checkpointer:
    """Saves and restores a run.

    Parameters
    ----------
    folder
        Folder of the files; created by the first save.
    identity
        JSON-able facts that a run must share with its checkpoint, such as its configuration.
    """

    def __init__(self, folder: Path, identity: dict[str, Any] | None = None) -> None:
        self.folder = Path(folder)
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self.identity = identity or {}

    def _path(self, number: int, step: int | str) -> Path:
        return self.folder / f"slice-{number}-step-{step}.safetensors"

    def save(self, engine: DistributedParareal, notes: Any = None, **tensors: Tensor) -> None:
        """Write the state after the last step; every rank calls it.

        Parameters
        ----------
        engine
            Training to save.
        notes
            JSON-able values that :meth:`load` returns, the same on every rank.
        tensors
            Additional tensors of this rank, such as its best weights.
        """
        make_folder(self.folder)
        communicator, step, number = engine.communicator, engine.optimizer.step_number, engine.numbers[0]
        if communicator.replica_index == 0:
            state = engine.optimizer.state_dict()
            content = state | {f"more.{name}": value for name, value in tensors.items()}
            save_tensors(
                self._path(number, step), {name: value.detach().cpu() for name, value in content.items()}
            )
        communicator.barrier()
        if communicator.rank == 0:
            write_json(
                self.folder / LATEST,
                {"step": step, "slices": engine.n_slices, "identity": self.identity, "notes": notes},
            )
        communicator.barrier()
        if communicator.replica_index == 0:
            for path in self.folder.glob(self._path(number, "*").name):
                if path != self._path(number, step):
                    remove(path)

    def load(self, engine: DistributedParareal) -> tuple[Any, dict[str, Tensor]] | None:
        """Restore the last checkpoint and return its notes and additional tensors; None without one.

        Raises
        ------
        RunDirectoryError
            If the checkpoint is damaged, or belongs to another run.
        """
        if not (self.folder / LATEST).is_file():
            return None
        remedy = f"delete the folder {str(self.folder)!r} and train again"
        latest = read_json(self.folder / LATEST, Latest, remedy=remedy)
        for name, value in {"slices": engine.n_slices, "identity": self.identity}.items():
            if latest.get(name) != value:
                raise RunDirectoryError(
                    f"the checkpoint in {str(self.folder)!r} was written with {name}={latest.get(name)!r}, "
                    f"but this run has {value!r}: remove it, or resume with the same settings"
                )
        path = self._path(engine.numbers[0], latest["step"])
        stored, _ = load_tensors(path, remedy=remedy)
        tensors = {name: value.to(engine.communicator.device) for name, value in stored.items()}
        more = {name: value for name, value in tensors.items() if name.startswith("more.")}
        with reading(path, remedy):
            engine.optimizer.load_state_dict({name: tensors[name] for name in tensors.keys() - more.keys()})
        return latest["notes"], {name.removeprefix("more."): value for name, value in more.items()}

    def delete(self) -> None:
        """Remove the files."""
        for path in [self.folder / LATEST, *self.folder.glob("slice-*-step-*.safetensors")]:
            remove(path)
        remove_empty_folder(self.folder)
