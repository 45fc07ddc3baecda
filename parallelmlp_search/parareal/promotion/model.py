"""Promoted networks of every fold as a model, alone or in the ensemble of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from parallelmlp_search._files import load_tensors, read_json, save_tensors, write_json
from parallelmlp_search.exceptions import RunDirectoryError
from parallelmlp_search.parareal.ranks.jobs import build_network
from parallelmlp_search.parareal.ranks.training import member_outputs
from parallelmlp_search.search import RunDirectory, TrainedModel
from parallelmlp_search.search.finalists.model import FoldModel
from parallelmlp_search.space import MLPConfig

__all__ = ["PromotedMember", "PromotedModel", "load_model", "load_promoted", "untempered_decision"]

FOLDER = "promoted"
FORMAT = 1
MAX_PREDICTION_ROWS = 4096


@dataclass(frozen=True)
class PromotedMember:
    """A deep network, trained once per fold."""

    trial: int
    config: MLPConfig  # deepened
    slices: int  # 1 for a serial network
    cuts: tuple[int, ...]  # hidden layers at which slices 2 to T begin
    weights: tuple[dict[str, Tensor], ...]  # state dict of each fold's network

    @torch.no_grad()
    def outputs(self, fold: FoldModel, number: int, inputs: Tensor) -> Tensor:
        """Compute the outputs ``(1, C, n)`` of the network of a fold.

        Parameters
        ----------
        fold, number
            The fold and its number.
        inputs
            Preprocessed rows ``(n, D)``.

        Returns
        -------
        Tensor
        """
        seen = fold.seen(self.config, inputs)
        network = build_network(
            self.config,
            self.slices,
            n_inputs=seen.shape[1],
            n_outputs=fold.head.n_outputs,
            n_numbers=fold.preprocessor.columns_.n_numbers,
            cuts=self.cuts,
        )
        network.load_state_dict(self.weights[number])
        network.eval()
        return member_outputs(torch.cat([network(rows) for rows in torch.split(seen, MAX_PREDICTION_ROWS)]))


@dataclass
class PromotedModel(TrainedModel):
    """An ensemble with promoted networks among its members.

    Attributes
    ----------
    promoted
        The deep networks.
    promoted_weights
        Weight of each; with ``weights`` they sum to 1.
    """

    promoted: tuple[PromotedMember, ...] = ()
    promoted_weights: tuple[float, ...] = ()

    @property
    def n_members(self) -> int:
        """Networks in the ensemble, folds not counted."""
        packed = int((self.weights > 0).sum())
        return packed + sum(weight > 0 for weight in self.promoted_weights)

    @classmethod
    def of(
        cls,
        base: TrainedModel,
        weights: Tensor,
        promoted: Sequence[PromotedMember],
        promoted_weights: Sequence[float],
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
        promoted, promoted_weights
            Promoted networks, and the weight of each.

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
                "decision_weights": untempered_decision(base),
            },
            promoted=tuple(promoted),
            promoted_weights=tuple(float(weight) for weight in promoted_weights),
        )

    def _averages(self, frame: pd.DataFrame) -> Tensor:
        """Weighted mean over networks, promoted ones included, and folds."""
        total = torch.zeros(self.folds[0].head.n_predictions, len(frame), dtype=torch.float64)
        for number, fold in enumerate(self.folds):
            if bool((self.weights > 0).any()):
                total += fold.combine(frame, self.weights).double()
            inputs = torch.from_numpy(fold.preprocessor.transform(frame))
            for member, weight in zip(self.promoted, self.promoted_weights, strict=True):
                if weight > 0:
                    outputs = member.outputs(fold, number, inputs)
                    total += weight * fold.head.predictions(outputs)[0].double()
        return total / len(self.folds)

    def save(self, folder: Path) -> None:
        """Write the promoted networks and all weights: JSON and safetensors, no code."""
        tensors = {"weights": self.weights}
        for number, member in enumerate(self.promoted):
            for fold, state in enumerate(member.weights):
                tensors |= {f"{number}.{fold}.{name}": value for name, value in state.items()}
        save_tensors(folder / "weights.safetensors", tensors)
        members = [
            {
                "trial": member.trial,
                "config": member.config.to_dict(),
                "slices": member.slices,
                "cuts": list(member.cuts),
                "weight": weight,
            }
            for member, weight in zip(self.promoted, self.promoted_weights, strict=True)
        ]
        write_json(folder / "promoted.json", {"format": FORMAT, "members": members})


def untempered_decision(model: TrainedModel) -> tuple[float, ...] | None:
    """Return the class weights of a model for probabilities without its temperature.

    The largest of ``p ** (1 / T) * w`` is at the largest of ``p * w ** T``.
    """
    if model.decision_weights is None:
        return None
    return tuple(weight**model.temperature for weight in model.decision_weights)


def load_model(directory: RunDirectory) -> TrainedModel:
    """Load the model of a run, with promoted networks if they are part of the ensemble."""
    found = _read(directory)
    if found is None or not any(weight > 0 for weight in found.promoted_weights):
        return TrainedModel.load(directory.model_folder)
    return found


def load_promoted(directory: RunDirectory, member: int = 0) -> PromotedModel:
    """Load one promoted network as a model, even if the ensemble does not use it.

    The class weights of the run belong to its ensemble and are not applied.

    Raises
    ------
    RunDirectoryError
        If the run has no promoted network of that number.
    """
    found = _read(directory)
    count = 0 if found is None else len(found.promoted)
    if found is None or not 0 <= member < count:
        raise RunDirectoryError(
            f"the run in {str(directory.path)!r} has {count} promoted networks, but number {member} was "
            f"requested: promote with `pmlp promote {directory.path}`"
        )
    return replace(
        found,
        weights=torch.zeros_like(found.weights),
        promoted=(found.promoted[member],),
        promoted_weights=(1.0,),
        decision_weights=None,
    )


def _read(directory: RunDirectory) -> PromotedModel | None:
    folder = directory.path / FOLDER
    if not (folder / "promoted.json").is_file():
        return None
    values: dict[str, Any] = read_json(folder / "promoted.json")
    if values.get("format") != FORMAT:
        raise RunDirectoryError(
            f"{str(folder)!r} holds promoted networks of format {values.get('format')!r}, but this version "
            f"reads format {FORMAT}: use the version of parallelmlp-search that wrote them"
        )
    base = TrainedModel.load(directory.model_folder)
    tensors, _ = load_tensors(folder / "weights.safetensors")
    members = []
    for number, member in enumerate(values["members"]):
        states: list[dict[str, Tensor]] = []
        for fold in range(len(base.folds)):
            prefix = f"{number}.{fold}."
            names = [name for name in tensors if name.startswith(prefix)]
            # copies, since the memory of a file is not aligned
            states.append({name.removeprefix(prefix): tensors[name].clone() for name in names})
        config = MLPConfig.from_dict(member["config"])
        members.append(
            PromotedMember(member["trial"], config, member["slices"], tuple(member["cuts"]), tuple(states))
        )
    shares = [member["weight"] for member in values["members"]]
    return PromotedModel.of(base, tensors["weights"].clone(), members, shares)
