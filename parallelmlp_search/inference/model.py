"""Trained ensemble: networks of every fold, with preprocessing, that predict from a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from parallelmlp_search._files import make_folder, remove, save_arrays, write_json
from parallelmlp_search._reading import load_arrays, read_json, reading
from parallelmlp_search.data.encoding import USED_KINDS, TableEncoder
from parallelmlp_search.data.target_curve import N_KNOTS, TargetCurve
from parallelmlp_search.data.target_scaling import TargetScaling
from parallelmlp_search.data.targets import ClassTarget
from parallelmlp_search.exceptions import RunDirectoryError
from parallelmlp_search.inference.ensemble import Ensemble
from parallelmlp_search.inference.fold_model import FoldModel, architecture_of
from parallelmlp_search.inference.model_format import (
    CURVE_FORMAT,
    FORMAT,
    PLAIN_FORMAT,
    READER_FORMAT,
    SCALED_FORMAT,
    StoredModel,
    check_head,
    check_length,
    checked_tuple,
    stored_numbers,
)
from parallelmlp_search.inference.outputs import calibrated, decided
from parallelmlp_search.inference.uncertainty import FILE as UNCERTAINTY
from parallelmlp_search.inference.uncertainty import Uncertainty
from parallelmlp_search.packing import Head, plan
from parallelmlp_search.space import MLPConfig

if TYPE_CHECKING:
    from parallelmlp_search.data.cells.table import TableReader

PLAIN_FIELDS = (
    "task", "trials", "feature_names", "target_name", "flat_target", "temperature", "decision_weights",
    "refitted", "costs",
)  # fmt: skip
"""Fields of a model that JSON holds as they are."""

CACHED = ("ensemble", "single_folds")
"""Attributes of a model that are computed anew in another process."""


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """Ensemble of configurations, each with one network per fold, that predicts from a table.

    Predictions are the weighted mean over configurations of the mean over folds; a temperature is applied to
    probabilities. The predicted class has the largest product of probability and decision weight. A label is
    predicted if this product exceeds 0.5.

    Attributes
    ----------
    task
        ``binary``, ``multiclass``, ``multilabel`` or ``regression``.
    classes
        Class labels in the order of the probabilities, or names of the labels of a multilabel
        classification; None for a regression.
    configs, trials, weights
        Configuration, trial number and weight of each member.
    folds
        Networks of each fold, or of each refit.
    feature_names
        Columns of the training table.
    target_name
        Name of the target, or None.
    output_names
        Names of the columns of a target with several, if they are known.
    flat_target
        True for a target of shape (n,), False for (n, outputs).
    temperature
        Temperature of the probabilities.
    decision_weights
        Weight of each class or label for predicted ones, or a decision matrix ``(C, C)`` of costs; None
        predicts the most probable class, and labels of a probability above 0.5.
    costs
        Costs of true classes (rows) and predicted classes (columns) that the predictions minimise, or None.
    refitted
        True if ``folds`` holds networks that were trained on all rows.
    target_scaling
        Map from the target of a regression to the numbers that the networks predict; None without one.
    reader
        Readers of money, dates, texts and other cells of the table; None if all columns are used as they are.
    uncertainty
        Errors on out-of-fold rows for intervals and sets of classes, or None.
    """

    task: str
    classes: NDArray[Any] | None
    configs: tuple[MLPConfig, ...]
    trials: tuple[int, ...]
    weights: NDArray[Any]
    folds: list[FoldModel]
    feature_names: list[str]
    target_name: str | None = None
    output_names: tuple[str, ...] | None = None
    flat_target: bool = True
    temperature: float = 1.0
    decision_weights: tuple[float, ...] | tuple[tuple[float, ...], ...] | None = None
    refitted: bool = False
    target_scaling: TargetScaling | None = None
    reader: TableReader | None = None
    uncertainty: Uncertainty | None = None
    costs: tuple[tuple[float, ...], ...] | None = None

    @property
    def n_members(self) -> int:
        """Number of configurations."""
        return len(self.configs)

    @property
    def target_columns(self) -> list[str]:
        """Names of the columns of the target in a table, as far as they are known."""
        if self.output_names is not None:
            return list(self.output_names)
        return [] if self.target_name is None else [self.target_name]

    def output_columns(self, name: str) -> list[str]:
        """Return the names of the columns of predictions, given one for the target."""
        if self.output_names is not None:
            return list(self.output_names)
        if self.flat_target or self.classes is not None:
            return [name]
        return [f"{name}_{output}" for output in range(self.folds[0].head.n_predictions)]

    @property
    def column_parts(self) -> dict[str, tuple[str, ...]]:
        """Columns of the table that the networks use, each with the plain columns that are made of it."""
        schemas = [fold.encoder.schema for fold in self.folds]
        used = {name for schema in schemas for name in schema.of_kind(*USED_KINDS)}
        readings = () if self.reader is None else self.reader.columns
        parts = {one.name: tuple(name for _, name in one.outputs) or (one.name,) for one in readings}
        parts = parts or {name: (name,) for name in schemas[0].names}
        return {name: made for name, made in parts.items() if used.intersection(made)}

    def of_fold(self, number: int) -> Self:
        """Return the model with the networks of one fold only, without intervals."""
        return replace(self, folds=[self.folds[number]], uncertainty=None)

    @cached_property
    def single_folds(self) -> list[Self]:
        """The model with the networks of each fold only."""
        return [self.of_fold(number) for number in range(len(self.folds))]

    @cached_property
    def ensemble(self) -> Ensemble:
        """The networks as plain layers, which predict."""
        return Ensemble([fold.networks() for fold in self.folds], self.weights)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in CACHED}

    def predictions(self, X: pd.DataFrame | NDArray[Any]) -> NDArray[np.float64]:
        """Probabilities ``(classes, n)`` or values ``(outputs, n)`` of the rows of a table.

        Parameters
        ----------
        X
            Table with the columns of training by name, or an array of shape (n, columns of training).

        Raises
        ------
        DataError
            If a column that the model needs is missing, or an array has another number of columns.
        """
        return self.predictions_of_read(self.read(X))

    def read(self, X: pd.DataFrame | NDArray[Any]) -> pd.DataFrame | NDArray[Any]:
        """Return the table of plain numbers, dates and categories that is encoded for the networks.

        Raises
        ------
        DataError
            If a column that is read is missing.
        """
        return X if self.reader is None or self.reader.is_plain else self.reader.read(X)

    def predictions_of_read(self, table: pd.DataFrame | NDArray[Any]) -> NDArray[np.float64]:
        """Return :meth:`predictions` of a table that :meth:`read` has returned."""
        return self.postprocessed(self._averages(table))

    def postprocessed(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return averages ``(C, n)`` of the networks as probabilities, or in the units of the target."""
        values = self._tempered(values)
        return values if self.target_scaling is None else self.target_scaling.restore(values)

    def scaled_predictions(self, table: pd.DataFrame | NDArray[Any]) -> NDArray[np.float64]:
        """Return predictions of a read table; those of a scaled target are not restored."""
        return self._tempered(self._averages(table))

    def _tempered(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probabilities ``(C, n)`` with the temperature; values of a regression stay."""
        return calibrated(self.task, values, self.temperature)

    def _averages(self, X: pd.DataFrame | NDArray[Any]) -> NDArray[np.float64]:
        """Weighted mean over networks and folds ``(C, n)``."""
        return self.ensemble.predictions(X)

    def class_numbers(self, probabilities: NDArray[np.float64]) -> NDArray[np.intp]:
        """Numbers ``(n,)`` of the predicted classes, given probabilities ``(classes, n)``."""
        return decided(probabilities, self.decision_weights)

    def has_labels(self, probabilities: NDArray[np.float64]) -> NDArray[np.int64]:
        """Labels ``(labels, n)`` of a multilabel classification as 0 and 1, given their probabilities."""
        weights = 1.0 if self.decision_weights is None else np.array(self.decision_weights)[:, None]
        return (probabilities * weights > 0.5).astype(np.int64)

    def predict(self, X: pd.DataFrame | NDArray[Any]) -> NDArray[Any]:
        """Classes ``(n,)``, 0 and 1 of labels ``(n, labels)``, or values ``(n,)`` or ``(n, outputs)``."""
        values = self.predictions(X)
        if self.task == "multilabel":
            return np.ascontiguousarray(self.has_labels(values).T)
        if self.classes is not None:
            labels: NDArray[Any] = self.classes[self.class_numbers(values)]
            return labels
        return values[0] if self.flat_target else np.ascontiguousarray(values.T)

    def postprocessing(self) -> dict[str, Any]:
        """Temperature, decision weights, thresholds or costs by class or label, and number of refits."""
        names = [] if self.classes is None else [str(name) for name in self.classes]
        weights, of_labels = self.decision_weights, self.task == "multilabel"

        def named(values: Any) -> Any:
            return dict(zip(names, values, strict=True))

        found: dict[str, Any] = {"temperature": self.temperature}
        if of_labels and weights is not None:
            found["thresholds"] = named((0.5 / np.array(weights)).tolist())
        return found | {
            "decision_weights": None if self.costs or of_labels else weights and named(weights),
            "costs": self.costs and named(map(named, self.costs)),
            "refitted": len(self.folds) if self.refitted else None,
        }

    def save(self, folder: str | Path) -> None:
        """Write the model as JSON and safetensors; the folder is created if needed."""
        folder = Path(folder)
        make_folder(folder)
        arrays = {f"fold{number}": fold.parameters for number, fold in enumerate(self.folds)}
        for number, fold in enumerate(self.folds):
            if curves := [curve.to_array() for curve in fold.curves if curve is not None]:
                arrays[f"curves{number}"] = np.stack(curves)
        save_arrays(folder / "weights.safetensors", arrays | {"weights": self.weights})
        if self.uncertainty is None:
            remove(folder / UNCERTAINTY)  # of another model in the same folder
        else:
            self.uncertainty.save(folder)
        parts = {"target_scaling": self.target_scaling, "reader": self.reader}
        stored = {name: None if part is None else part.to_dict() for name, part in parts.items()}
        newer: dict[str, Any] = {name: values for name, values in stored.items() if values is not None}
        version = READER_FORMAT if "reader" in newer else SCALED_FORMAT if newer else PLAIN_FORMAT
        version = CURVE_FORMAT if "curves0" in arrays else version
        if self.output_names is not None:
            newer["output_names"] = list(self.output_names)
        is_newest = self.folds[0].head.link == "log" or self.costs or "output_names" in newer
        version = FORMAT if is_newest or self.task == "multilabel" else version
        write_json(
            folder / "model.json",
            {"format": version}
            | newer
            | {name: getattr(self, name) for name in PLAIN_FIELDS}
            | {
                "classes": None if self.classes is None else ClassTarget(self.classes).to_dict(),
                "configs": [config.to_dict() for config in self.configs],
                "folds": [
                    {"preprocessor": fold.encoder.to_dict(), "head": fold.head.to_dict()}
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
        arrays = load_arrays(path)
        with reading(path):
            weights = stored_numbers(arrays, "weights", (model.n_members,), np.float64)
            folds = [
                replace(
                    fold,
                    parameters=stored_numbers(arrays, f"fold{number}", (fold.layout.size,)),
                    curves=_stored_curves(arrays, f"curves{number}", model),
                )
                for number, fold in enumerate(model.folds)
            ]
        model = replace(model, weights=weights, folds=folds)
        n_outputs = folds[0].head.n_predictions if model.task == "regression" else None
        uncertainty = Uncertainty.load(folder, folds[0].encoder, len(folds), n_outputs)
        return replace(model, uncertainty=uncertainty)

    @classmethod
    def _of_json(cls, values: dict[str, Any]) -> TrainedModel:
        """Model of ``model.json``, without weights and parameters."""
        configs = tuple(_stored_config(config) for config in values["configs"])
        stored = None if values["classes"] is None else ClassTarget.from_dict(values["classes"])
        n_classes = None if stored is None else len(stored)
        plain = {name: values[name] for name in PLAIN_FIELDS if name in values}
        plain.setdefault("decision_weights", values.get("decision"))  # the name in older versions
        lengths = {"trials": len(configs), "decision_weights": n_classes or 0, "costs": n_classes or 0}
        plain |= {name: checked_tuple(name, plain.get(name), length) for name, length in lengths.items()}
        folds: list[FoldModel] = []
        for number, fold in enumerate(values["folds"]):
            if number and fold["preprocessor"] == values["folds"][number - 1]["preprocessor"]:
                encoder = folds[-1].encoder  # networks that share it encode the rows once
            else:
                encoder = TableEncoder.from_dict(fold["preprocessor"])
            head = Head(**fold["head"])
            check_head(head, values["task"], n_classes)
            layout = plan([architecture_of(config, encoder, head) for config in configs])
            folds.append(FoldModel(encoder, head, layout, np.empty(0, dtype=np.float32)))
        if not (configs and folds):
            raise ValueError("it holds no network")
        if (names := values.get("output_names")) is not None:
            check_length("output_names", names, folds[0].head.n_predictions)
            plain["output_names"] = tuple(names)
        reader = None
        if "reader" in values:
            from parallelmlp_search.data.cells.table import TableReader  # 5 ms that few models need

            reader = TableReader.from_dict(values["reader"])
        scaling = values.get("target_scaling")
        if scaling is not None:
            scaling = TargetScaling.from_dict(scaling)
            for name in ("center", "unit"):
                check_length(
                    f"the {name} of target_scaling", getattr(scaling, name), folds[0].head.n_predictions
                )
        return cls(
            classes=None if stored is None else stored.classes_,
            configs=configs,
            weights=np.empty(0),
            folds=folds,
            target_scaling=scaling,
            reader=reader,
            **plain,
        )


def _stored_curves(
    arrays: Mapping[str, NDArray[Any]], name: str, model: TrainedModel
) -> tuple[TargetCurve | None, ...]:
    """Curves of the networks of a fold, of those whose configurations transform the target."""
    is_curved = [model.task == "regression" and one.target_transform != "none" for one in model.configs]
    if not any(is_curved):
        return ()
    shape = (sum(is_curved), model.folds[0].head.n_predictions, 2 + N_KNOTS)
    curves = map(TargetCurve.from_array, stored_numbers(arrays, name, shape, np.float64))
    return tuple(next(curves) if curved else None for curved in is_curved)


def _stored_config(values: dict[str, Any]) -> MLPConfig:
    """Configuration of a stored network, also of one of version 0.1.0 that saw only a share of its inputs.

    The scales of its other inputs are zero. They become scales with a learning rate that moves nothing.
    """
    if values.get("feature_share", 1.0) < 1.0:
        rate = values["input_scale_rate"] or 1e-30
        values = {**values, "feature_share": 1.0, "input_scale_rate": rate}
    return MLPConfig.from_dict(values)
