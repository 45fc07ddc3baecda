"""Promoted networks of every fold as a model, alone or in the ensemble of a run."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from parallelmlp_search._files import make_folder, remove, save_tensors, write_json
from parallelmlp_search._reading import load_arrays, reading
from parallelmlp_search.engine.heads import head_predictions
from parallelmlp_search.inference import FoldModel, TrainedModel
from parallelmlp_search.inference.model_format import stored_numbers
from parallelmlp_search.packing.pack import select_columns
from parallelmlp_search.parareal.method.network import PararealNetwork
from parallelmlp_search.parareal.promotion.stored import FOLDER, FORMAT, stored_promotion
from parallelmlp_search.parareal.ranks.jobs import build_network
from parallelmlp_search.parareal.ranks.training import member_outputs
from parallelmlp_search.search import RunDirectory
from parallelmlp_search.selection import Decision
from parallelmlp_search.space import MLPConfig

MAX_PREDICTION_ROWS = 4096


@dataclass(frozen=True)
class PromotedMember:
    """A deep network, trained once per fold."""

    trial: int
    config: MLPConfig  # deepened
    slices: int  # 1 for a serial network
    cuts: tuple[int, ...]  # hidden layers at which slices 2 to T begin
    states: tuple[dict[str, Tensor], ...]  # state dict of each fold's network
    weight: float = 0.0  # in the ensemble


@dataclass(frozen=True, eq=False)
class PromotedModel(TrainedModel):
    """An ensemble with promoted networks among its members; all weights sum to 1.

    Promoted networks predict with torch.
    """

    promoted: tuple[PromotedMember, ...] = ()

    @property
    def n_members(self) -> int:
        """Networks in the ensemble, folds not counted."""
        return int((self.weights > 0).sum()) + sum(member.weight > 0 for member in self.promoted)

    @classmethod
    def of(
        cls, base: TrainedModel, weights: NDArray[Any], promoted: Sequence[PromotedMember]
    ) -> PromotedModel:
        """Return an ensemble of the members of a model and promoted networks.

        The class weights of ``base`` stay. The temperature becomes 1: it was fitted without the promoted
        networks, which are more confident, and no rows are left to fit another.

        Parameters
        ----------
        base
            Model of the search.
        weights
            New weights ``(P,)`` of its members.
        promoted
            Promoted networks.

        Returns
        -------
        PromotedModel
        """
        values = {field.name: getattr(base, field.name) for field in fields(TrainedModel)}
        return cls(
            **{
                **values,
                "weights": weights,
                "temperature": 1.0,
                "decision_weights": untempered_decision_weights(base),
                "uncertainty": None,  # these are the errors of the ensemble without promoted networks
            },
            promoted=tuple(promoted),
        )

    def of_fold(self, number: int) -> Self:
        """Return the model with the networks of one fold only, promoted ones included."""
        promoted = tuple(replace(member, states=(member.states[number],)) for member in self.promoted)
        return replace(super().of_fold(number), promoted=promoted)

    def _averages(self, X: pd.DataFrame | NDArray[Any]) -> NDArray[np.float64]:
        """Weighted mean over networks, promoted ones included, and folds."""
        total: NDArray[np.float64] | float = 0.0
        if self.weights.any():
            total = super()._averages(X)
        for number, fold in enumerate(self.folds):
            inputs = torch.from_numpy(fold.encoder.encode(X))
            for member in (member for member in self.promoted if member.weight > 0):
                predictions = head_predictions(fold.head, _outputs(member, fold, number, inputs))[0]
                total = total + member.weight / len(self.folds) * predictions.double().numpy()
        assert not isinstance(total, float)
        return total

    def save(self, folder: str | Path) -> None:
        """Write the promoted networks and all weights: JSON and safetensors, no code."""
        folder = Path(folder)
        tensors = {"weights": torch.from_numpy(self.weights)}
        for number, member in enumerate(self.promoted):
            for fold, state in enumerate(member.states):
                tensors |= {f"{number}.{fold}.{name}": value for name, value in state.items()}
        make_folder(folder)
        # a new name, so that at any time promoted.json names the weights that belong to it
        digest = hashlib.sha256()
        for name, tensor in tensors.items():
            digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
        weights = folder / f"weights-{digest.hexdigest()[:12]}.safetensors"
        older = set(folder.glob("*.safetensors")) - {weights}
        save_tensors(weights, tensors)
        members = [
            {
                "trial": member.trial,
                "config": member.config.to_dict(),
                "slices": member.slices,
                "cuts": list(member.cuts),
                "weight": member.weight,
            }
            for member in self.promoted
        ]
        content = {"format": FORMAT, "weights": weights.name, "members": members}
        write_json(folder / "promoted.json", content)
        for path in older:
            remove(path)


@torch.no_grad()
def _outputs(member: PromotedMember, fold: FoldModel, number: int, inputs: Tensor) -> Tensor:
    """Outputs ``(1, C, n)`` of the network of a fold for preprocessed rows ``(n, D)``."""
    seen = select_columns(inputs, fold.architecture(member.config).columns)
    network = _network(member, fold)
    network.load_state_dict(member.states[number])
    network.eval()
    return member_outputs(torch.cat([network(rows) for rows in torch.split(seen, MAX_PREDICTION_ROWS)]))


def _network(member: PromotedMember, fold: FoldModel) -> PararealNetwork:
    """Return the network of a fold with initial weights."""
    return build_network(
        member.config,
        member.slices,
        n_inputs=sum(stop - start for start, stop in fold.architecture(member.config).columns),
        n_outputs=fold.head.n_outputs,
        n_numbers=fold.encoder.groups.n_numbers,
        cuts=member.cuts,
    )


def _shapes(member: PromotedMember, fold: FoldModel) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors of the network of a fold."""
    return {name: tuple(tensor.shape) for name, tensor in _network(member, fold).state_dict().items()}


def untempered_decision_weights(model: TrainedModel) -> Decision | None:
    """Return the decision of a model for probabilities without its temperature.

    The largest of ``p ** (1 / T) * w`` is at the largest of ``p * w ** T``. Costs apply to any probabilities.
    """
    weights = model.decision_weights
    if weights is None or model.costs is not None:
        return weights
    return tuple((np.array(weights) ** model.temperature).tolist())


def load_promoted(directory: RunDirectory) -> PromotedModel | None:
    """Load the ensemble of a run with all networks of its last promotion; None without one.

    Raises
    ------
    RunDirectoryError
        If files are missing, damaged, or of a newer format.
    """
    values = stored_promotion(directory)
    if values is None:
        return None
    folder = directory.path / FOLDER
    path = folder / "promoted.json"
    base = TrainedModel.load(directory.model_folder)
    with reading(path):
        shells = [
            PromotedMember(
                **{**member, "config": MLPConfig.from_dict(member["config"]), "cuts": tuple(member["cuts"])},
                states=(),
            )
            for member in values["members"]
        ]
        shapes = [[_shapes(shell, fold) for fold in base.folds] for shell in shells]
    weights = folder / values.get("weights", "weights.safetensors")
    arrays = load_arrays(weights)
    with reading(weights):
        states = [
            tuple(
                {
                    name: torch.from_numpy(stored_numbers(arrays, f"{number}.{fold}.{name}", shape))
                    for name, shape in one.items()
                }
                for fold, one in enumerate(of_folds)
            )
            for number, of_folds in enumerate(shapes)
        ]
        members = [replace(shell, states=mine) for shell, mine in zip(shells, states, strict=True)]
        return PromotedModel.of(
            base, stored_numbers(arrays, "weights", (len(base.configs),), np.float64), members
        )
