"""Checkpoints of a distributed run: one safetensors file a slice, and one JSON file that says which are
whole.

A step counts only once every slice has been written and ``latest.json`` names it, so whoever is killed when,
all ranks go on from the same step. Ranks on several hosts need a folder that all of them see.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from torch import Tensor

from parallelmlp_search._files import load_tensors, read_json, save_tensors, write_json
from parallelmlp_search.exceptions import RunDirectoryError
from parallelmlp_search.parareal.ranks.distributed import DistributedParareal

__all__ = ["Keeper"]

LATEST = "latest.json"


class Keeper:
    """Saves and restores a run.

    Parameters
    ----------
    folder
        Where the files lie; made on the first save.
    identity
        JSON-able facts that a run must share with its checkpoint, such as its configuration.
    """

    def __init__(self, folder: Path, identity: dict[str, Any] | None = None) -> None:
        self.folder = Path(folder)
        self.identity = identity or {}

    def _path(self, number: int, step: int) -> Path:
        return self.folder / f"slice-{number}-step-{step}.safetensors"

    def save(self, engine: DistributedParareal, notes: Any = None, **more: Tensor) -> None:
        """Write the state after the engine's last step; every rank calls it.

        Parameters
        ----------
        notes
            JSON-able facts that come back from :meth:`load`, the same on every rank.
        more
            Tensors of this rank's own, such as its best weights.
        """
        step = engine.optimizer.step_number
        world = engine.world
        if world.replica == 0:
            number = engine.numbers[0]
            content = {name: value.detach().cpu() for name, value in engine.optimizer.state().items()}
            content |= {f"more.{name}": value.detach().cpu() for name, value in more.items()}
            save_tensors(self._path(number, step), content)
        world.barrier()
        if world.rank == 0:
            write_json(
                self.folder / LATEST,
                {"step": step, "slices": engine.n_slices, "identity": self.identity, "notes": notes},
            )
        world.barrier()
        if world.replica == 0:
            for path in self.folder.glob(f"slice-{engine.numbers[0]}-step-*.safetensors"):
                if path != self._path(engine.numbers[0], step):
                    path.unlink(missing_ok=True)

    def load(self, engine: DistributedParareal) -> tuple[Any, dict[str, Tensor]] | None:
        """Restore the engine; the notes and further tensors of its last checkpoint, or None without one.

        Raises
        ------
        RunDirectoryError
            If the checkpoint is damaged, or belongs to another run.
        """
        if not (self.folder / LATEST).is_file():
            return None
        latest = read_json(self.folder / LATEST)
        wanted = {"slices": engine.n_slices, "identity": self.identity}
        for name, value in wanted.items():
            if latest.get(name) != value:
                raise RunDirectoryError(
                    f"the checkpoint in {str(self.folder)!r} was written with {name}={latest.get(name)!r}, "
                    f"but this run has {value!r}: remove it, or go on with the same settings"
                )
        tensors, _ = load_tensors(self._path(engine.numbers[0], latest["step"]))
        own = {name: value for name, value in tensors.items() if not name.startswith("more.")}
        engine.optimizer.load({name: value.to(engine.world.device) for name, value in own.items()})
        more = {
            name.removeprefix("more."): value.to(engine.world.device)
            for name, value in tensors.items()
            if name.startswith("more.")
        }
        return latest["notes"], more

    def forget(self) -> None:
        """Remove the files, once they are not needed any more."""
        (self.folder / LATEST).unlink(missing_ok=True)
        for path in self.folder.glob("slice-*-step-*.safetensors"):
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()
