"""Trained ensemble: networks of every fold, with preprocessing, that predict from a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from parallelmlp_search._files import make_folder, save_tensors, write_json
from parallelmlp_search._reading import load_tensors, read_json, reading
from parallelmlp_search.data import ClassTarget, TablePreprocessor, TargetScaling
from parallelmlp_search.engine import Head
from parallelmlp_search.engine.network import PackedNetwork, window_rows
from parallelmlp_search.exceptions import RunDirectoryError
from parallelmlp_search.packing import Architecture, Layout, plan
from parallelmlp_search.packing.pack import select_columns, write_member
from parallelmlp_search.search.finalists.model_format import (
    FORMAT,
    PLAIN_FORMAT,
    StoredModel,
    check_head,
    check_length,
    stored_numbers,
)
from parallelmlp_search.search.problem.preparation import Part, Preparation
from parallelmlp_search.selection import apply_temperature, weight_classes
from parallelmlp_search.space import MLPConfig

PREDICTION_ROWS = 1024

PLAIN_FIELDS = (
    "task", "trials", "feature_names", "target_name", "flat_target", "temperature", "decision_weights",
    "refitted",
)  # fmt: skip
"""Fields of a model that JSON holds as they are."""


@dataclass
class FoldModel:
    """Packed networks of one fold, and the preprocessing that was fitted on it."""

    preprocessor: TablePreprocessor
    head: Head
    layout: Layout
    parameters: Tensor

    def seen(self, config: MLPConfig, inputs: Tensor) -> Tensor:
        """Columns of preprocessed rows ``(n, *)`` that the network of a configuration uses."""
        return select_columns(inputs, self.architecture(config).columns)

    def architecture(self, config: MLPConfig) -> Architecture:
        """Architecture of a configuration on rows of this fold."""
        return _architecture(config, self.preprocessor, self.head)

    def combine(self, frame: pd.DataFrame, weights: Tensor) -> Tensor:
        """Weighted mean ``(C, n)`` of the members' predictions; ``weights`` (P,) in member order."""
        inputs = torch.from_numpy(self.preprocessor.transform(frame))
        n_rows = window_rows(inputs.shape[0], PREDICTION_ROWS)
        network = PackedNetwork(self.layout, n_rows)
        shares = weights[torch.tensor(self.layout.members)].to(inputs.dtype)
        pieces = []
        # windows of rows limit the memory, which grows with members times rows
        for start in range(0, inputs.shape[0], 8 * n_rows):
            outputs = network.predict(self.parameters, inputs[start : start + 8 * n_rows])
            pieces.append(torch.einsum("p,pcn->cn", shares, self.head.stable_predictions(outputs)))
        return torch.cat(pieces, dim=1) if pieces else torch.empty(self.head.n_predictions, 0)


@dataclass
class TrainedModel:
    """Ensemble of configurations, each with one network per fold, that predicts from a table.

    Predictions are the weighted mean over configurations of the mean over folds; a temperature is applied to
    probabilities. The predicted class has the largest product of probability and decision weight.

    Attributes
    ----------
    task
        ``binary``, ``multiclass`` or ``regression``.
    classes
        Class labels in the order of the probabilities, or None.
    configs, trials, weights
        Configuration, trial number and weight of each member.
    folds
        Networks of each fold, or of each refit.
    feature_names
        Columns of the training table.
    target_name
        Name of the target, or None.
    flat_target
        True for a target of shape (n,), False for (n, outputs).
    temperature
        Temperature of the probabilities.
    decision_weights
        Weight of each class for predicted classes, with mean 1; None predicts the most probable class.
    refitted
        True if ``folds`` holds networks that were trained on all rows.
    target_scaling
        Map from the target of a regression to the numbers that the networks predict; None without one.
    """

    task: str
    classes: NDArray[Any] | None
    configs: tuple[MLPConfig, ...]
    trials: tuple[int, ...]
    weights: Tensor
    folds: list[FoldModel]
    feature_names: list[str]
    target_name: str | None = None
    flat_target: bool = True
    temperature: float = 1.0
    decision_weights: tuple[float, ...] | None = None
    refitted: bool = False
    target_scaling: TargetScaling | None = None

    @classmethod
    def pack(
        cls,
        preparation: Preparation,
        parts: Sequence[Part],
        configs: Mapping[int, MLPConfig],
        vectors: Sequence[Sequence[Tensor]],
        weights: Tensor,
    ) -> TrainedModel:
        """Model of trained networks, without postprocessing.

        Parameters
        ----------
        preparation, parts
            Target and classes; preprocessing and outputs of each fold.
        configs
            Configuration of each member, by its trial number.
        vectors
            Canonical vectors of the networks of each fold, in the order of the members.
        weights
            Weights of the members ``(P,)``.

        Returns
        -------
        TrainedModel
        """
        problem, classes = preparation.problem, preparation.classes
        members = tuple(configs.values())
        folds = [
            _packed(part.preprocessor, part.head, members, mine)
            for part, mine in zip(parts, vectors, strict=True)
        ]
        return cls(
            task=problem.task,
            classes=None if classes is None else classes.classes_,
            configs=members,
            trials=tuple(configs),
            weights=weights,
            folds=folds,
            feature_names=[str(name) for name in problem.frame.columns],
            target_name=problem.target_name,
            flat_target=problem.target.ndim == 1,
            target_scaling=preparation.target_scaling,
        )

    def refit(self, part: Part, vectors: Sequence[Sequence[Tensor]]) -> TrainedModel:
        """The same model with networks that were trained on all rows, several per configuration."""
        folds = [_packed(part.preprocessor, part.head, self.configs, mine) for mine in vectors]
        return replace(self, folds=folds, refitted=True)

    @property
    def n_members(self) -> int:
        """Number of configurations."""
        return len(self.configs)

    def predictions(self, frame: pd.DataFrame) -> NDArray[np.float64]:
        """Probabilities ``(classes, n)`` or values ``(outputs, n)`` of the rows of a table.

        Raises
        ------
        DataError
            If a column that the model needs is missing.
        """
        values = self._averages(frame)
        if self.classes is not None:
            values = apply_temperature(values / values.sum(dim=0, keepdim=True), self.temperature)
        found: NDArray[np.float64] = values.numpy()
        return found if self.target_scaling is None else self.target_scaling.restore(found)

    def _averages(self, frame: pd.DataFrame) -> Tensor:
        """Weighted mean over networks and folds, float64 ``(C, n)``."""
        total = torch.zeros(self.folds[0].head.n_predictions, len(frame), dtype=torch.float64)
        for fold in self.folds:
            total += fold.combine(frame, self.weights).double()
        return total / len(self.folds)

    def class_numbers(self, probabilities: NDArray[np.float64]) -> NDArray[np.intp]:
        """Numbers ``(n,)`` of the predicted classes, given probabilities ``(classes, n)``."""
        weighted = weight_classes(torch.from_numpy(probabilities), self.decision_weights)
        numbers: NDArray[np.intp] = weighted.numpy().argmax(0)
        return numbers

    def predict(self, frame: pd.DataFrame) -> NDArray[Any]:
        """Class labels ``(n,)``, or values ``(n,)`` or ``(n, outputs)``."""
        values = self.predictions(frame)
        if self.classes is not None:
            labels: NDArray[Any] = self.classes[self.class_numbers(values)]
            return labels
        return values[0] if self.flat_target else np.ascontiguousarray(values.T)

    def postprocessing(self) -> dict[str, Any]:
        """Temperature, decision weights by class, and number of refits, JSON-able."""
        weights = None
        if self.decision_weights is not None and self.classes is not None:
            weights = {str(name): w for name, w in zip(self.classes, self.decision_weights, strict=True)}
        return {
            "temperature": self.temperature,
            "decision_weights": weights,
            "refitted": len(self.folds) if self.refitted else None,
        }

    def save(self, folder: Path) -> None:
        """Write the model as JSON and safetensors."""
        make_folder(folder)
        tensors = {f"fold{number}": fold.parameters for number, fold in enumerate(self.folds)}
        save_tensors(folder / "weights.safetensors", tensors | {"weights": self.weights})
        scaling = None if self.target_scaling is None else self.target_scaling.to_dict()
        write_json(
            folder / "model.json",
            ({"format": PLAIN_FORMAT} if scaling is None else {"format": FORMAT, "target_scaling": scaling})
            | {name: getattr(self, name) for name in PLAIN_FIELDS}
            | {
                "classes": None if self.classes is None else ClassTarget(self.classes).to_dict(),
                "configs": [config.to_dict() for config in self.configs],
                "folds": [
                    {"preprocessor": fold.preprocessor.to_dict(), "head": asdict(fold.head)}
                    for fold in self.folds
                ],
            },
        )

    @classmethod
    def load(cls, folder: Path) -> TrainedModel:
        """Read a model that :meth:`save` wrote.

        Raises
        ------
        RunDirectoryError
            If files are missing, damaged, of another format, or hold networks that this version cannot
            compute.
        """
        path = folder / "model.json"
        values = read_json(path, StoredModel, newest=FORMAT)
        if values["format"] < PLAIN_FORMAT:
            raise RunDirectoryError(
                f"{str(folder)!r} holds a model of format {values['format']}, but this version reads format "
                f"{FORMAT}: use the version of parallelmlp-search that wrote it"
            )
        with reading(path):
            model = cls._of_json(values)
        path = folder / "weights.safetensors"
        tensors, _ = load_tensors(path)
        with reading(path):
            model.weights = stored_numbers(tensors, "weights", (model.n_members,), torch.float64)
            for number, fold in enumerate(model.folds):
                fold.parameters = stored_numbers(tensors, f"fold{number}", (fold.layout.size,))
        return model

    @classmethod
    def _of_json(cls, values: dict[str, Any]) -> TrainedModel:
        """Model of ``model.json``, without weights and parameters."""
        configs = tuple(_stored_config(config) for config in values["configs"])
        stored = None if values["classes"] is None else ClassTarget.from_dict(values["classes"])
        n_classes = None if stored is None else len(stored)
        plain = {name: values[name] for name in PLAIN_FIELDS if name in values}
        plain.setdefault("decision_weights", values.get("decision"))  # the name in older versions
        for name, expected in (("trials", len(configs)), ("decision_weights", n_classes)):
            if plain[name] is not None:
                plain[name] = tuple(plain[name])
                check_length(name, plain[name], expected or 0)
        folds = []
        for fold in values["folds"]:
            preprocessor, head = TablePreprocessor.from_dict(fold["preprocessor"]), Head(**fold["head"])
            check_head(head, values["task"], n_classes)
            layout = plan([_architecture(config, preprocessor, head) for config in configs])
            folds.append(FoldModel(preprocessor, head, layout, torch.empty(0)))
        if not (configs and folds):
            raise ValueError("it holds no network")
        classes = None if stored is None else stored.classes_
        scaling = values.get("target_scaling")
        if scaling is not None:
            scaling = TargetScaling.from_dict(scaling)
            for name in ("center", "unit"):
                check_length(
                    f"the {name} of target_scaling", getattr(scaling, name), folds[0].head.n_predictions
                )
        return cls(
            classes=classes,
            configs=configs,
            weights=torch.empty(0),
            folds=folds,
            target_scaling=scaling,
            **plain,
        )


def _stored_config(values: dict[str, Any]) -> MLPConfig:
    """Configuration of a stored network, also of one of version 0.1.0 that saw only a share of its inputs.

    The scales of its other inputs are zero. They become scales with a learning rate that moves nothing.
    """
    if values.get("feature_share", 1.0) < 1.0:
        rate = values["input_scale_rate"] or 1e-30
        values = {**values, "feature_share": 1.0, "input_scale_rate": rate}
    return MLPConfig.from_dict(values)


def _packed(
    preprocessor: TablePreprocessor, head: Head, configs: Sequence[MLPConfig], vectors: Sequence[Tensor]
) -> FoldModel:
    layout = plan([_architecture(config, preprocessor, head) for config in configs])
    parameters = torch.zeros(layout.size, dtype=vectors[0].dtype)
    for member, vector in enumerate(vectors):
        write_member(parameters, layout, member, vector)
    return FoldModel(preprocessor, head, layout, parameters)


def _architecture(config: MLPConfig, preprocessor: TablePreprocessor, head: Head) -> Architecture:
    return Architecture.of(config, head.data_shape(preprocessor.n_features_out_, preprocessor.columns_))
