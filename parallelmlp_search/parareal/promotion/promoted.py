"""What a promotion leaves in a run: deep networks of every fold that predict, alone or in the ensemble."""

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
from parallelmlp_search.parareal.method.network import PararealNetwork
from parallelmlp_search.parareal.ranks.jobs import build_network
from parallelmlp_search.parareal.ranks.training import member_outputs
from parallelmlp_search.search import RunDirectory, TrainedModel
from parallelmlp_search.space import MLPConfig

__all__ = ["PromotedMember", "PromotedModel", "load_model", "load_promoted", "plain_decision"]

FOLDER = "promoted"
FORMAT = 1
WINDOW = 4096


@dataclass(frozen=True)
class PromotedMember:
    """A deep network, trained once per fold.

    Attributes
    ----------
    trial
        Trial of the finalist that it was made from.
    config
        Its configuration, as deep as it was trained.
    slices
        Slices ``T``; 1 for a serial network.
    cuts
        Hidden layers at which slices 2 to ``T`` begin.
    weights
        State dict of each fold's network.
    """

    trial: int
    config: MLPConfig
    slices: int
    cuts: tuple[int, ...]
    weights: tuple[dict[str, Tensor], ...]

    def network(self, fold: int, *, n_inputs: int, n_outputs: int, n_numbers: int = 0) -> PararealNetwork:
        """The network of a fold, ready to predict."""
        network = build_network(
            self.config,
            self.slices,
            n_inputs=n_inputs,
            n_outputs=n_outputs,
            n_numbers=n_numbers,
            cuts=self.cuts,
        )
        network.load_state_dict(self.weights[fold])
        return network.eval()


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
        """An ensemble with other weights, and promoted networks beside its members.

        The decision of ``base`` stays. Its temperature does not: it was fitted without the promoted networks,
        which are surer of themselves, and no row is left that could fit another.
        """
        values = {field.name: getattr(base, field.name) for field in fields(TrainedModel)}
        return cls(
            **{**values, "weights": weights, "temperature": 1.0, "decision": plain_decision(base)},
            promoted=tuple(promoted),
            promoted_weights=tuple(float(weight) for weight in promoted_weights),
        )

    def _averages(self, frame: pd.DataFrame) -> Tensor:
        """Weighted mean over networks, promoted ones among them, and folds."""
        total = torch.zeros(self.folds[0].head.n_predictions, len(frame), dtype=torch.float64)
        for number, fold in enumerate(self.folds):
            if bool((self.weights > 0).any()):
                total += fold.combine(frame, self.weights).double()
            inputs = torch.from_numpy(fold.preprocessor.transform(frame))
            for member, weight in zip(self.promoted, self.promoted_weights, strict=True):
                if weight == 0 or len(frame) == 0:
                    continue
                own = fold.seen(member.config, inputs)
                network = member.network(
                    number,
                    n_inputs=own.shape[1],
                    n_outputs=fold.head.n_outputs,
                    n_numbers=fold.preprocessor.columns_.n_numbers,
                )
                with torch.no_grad():
                    outputs = torch.cat(
                        [network(own[first : first + WINDOW]) for first in range(0, len(own), WINDOW)]
                    )
                total += weight * fold.head.predictions(member_outputs(outputs))[0].double()
        return total / len(self.folds)

    def save(self, folder: Path) -> None:
        """Write what the promotion adds to a model: JSON and safetensors, no code."""
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


def plain_decision(model: TrainedModel) -> tuple[float, ...] | None:
    """The decision of a model, for probabilities before they are brought to its temperature.

    The largest of ``p ** (1 / T) * w`` is where the largest of ``p * w ** T`` is.
    """
    if model.decision is None:
        return None
    return tuple(weight**model.temperature for weight in model.decision)


def load_model(directory: RunDirectory) -> TrainedModel:
    """The model of a run that predicts: with promoted networks where they are part of the ensemble."""
    found = _read(directory)
    if found is None or not any(weight > 0 for weight in found.promoted_weights):
        return TrainedModel.load(directory.model_folder)
    return found


def load_promoted(directory: RunDirectory, member: int = 0) -> PromotedModel:
    """A promoted network alone as a model, whether or not the ensemble uses it.

    The decision of the run is that of its ensemble and does not come along.

    Raises
    ------
    RunDirectoryError
        If the run has none of that number.
    """
    found = _read(directory)
    if found is None or not 0 <= member < len(found.promoted):
        count = 0 if found is None else len(found.promoted)
        raise RunDirectoryError(
            f"the run in {str(directory.path)!r} has {count} promoted networks, "
            f"but number {member} was asked "
            f"for: promote with `pmlp promote {directory.path}`"
        )
    return replace(
        found,
        weights=torch.zeros_like(found.weights),
        promoted=(found.promoted[member],),
        promoted_weights=(1.0,),
        decision=None,
    )


def _read(directory: RunDirectory) -> PromotedModel | None:
    folder = directory.path / FOLDER
    if not (folder / "promoted.json").is_file():
        return None
    values: dict[str, Any] = read_json(folder / "promoted.json")
    if values.get("format") != FORMAT:
        raise RunDirectoryError(
            f"{str(folder)!r} holds promoted networks of format {values.get('format')!r}, "
            f"but this version reads "
            f"format {FORMAT}: use the version of parallelmlp-search that wrote them"
        )
    base = TrainedModel.load(directory.model_folder)
    # copies, since the memory of a file is not aligned
    tensors = {name: value.clone() for name, value in load_tensors(folder / "weights.safetensors")[0].items()}
    members = []
    for number, member in enumerate(values["members"]):
        states = []
        for fold in range(len(base.folds)):
            prefix = f"{number}.{fold}."
            states.append(
                {
                    name.removeprefix(prefix): value
                    for name, value in tensors.items()
                    if name.startswith(prefix)
                }
            )
        config = MLPConfig.from_dict(member["config"])
        members.append(
            PromotedMember(member["trial"], config, member["slices"], tuple(member["cuts"]), tuple(states))
        )
    shares = [member["weight"] for member in values["members"]]
    return PromotedModel.of(base, tensors["weights"], members, shares)
