"""Training and validation rows of shards, as tensors that worker processes can read from one file."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parallelmlp_search._files import save_tensors
from parallelmlp_search._reading import load_tensors
from parallelmlp_search.data.target_curve import TargetCurve, residual_points
from parallelmlp_search.engine import Head, TrainingRows
from parallelmlp_search.engine.heads import curve_predictions, head_predictions, stable_head_predictions
from parallelmlp_search.engine.rows import Rows, RowView, as_tensor, select
from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.packing import Architecture, DataShape, member_seconds
from parallelmlp_search.selection import Metric
from parallelmlp_search.space import NO_GROUPS, ColumnGroups, MLPConfig

Floats = NDArray[np.float64]

_TENSORS = (
    "validation_inputs",
    "validation_target",
    "validation_weight",
    "prediction_inputs",
    "snapshot_inputs",
    "transformed_targets",
)


class TrainingMemory(NamedTuple):
    """Memory that training may use.

    Attributes
    ----------
    process
        Most bytes of the process. Shards wait for each other where they would exceed it together.
    shard
        Most bytes of a shard of several members.
    """

    process: int
    shard: int


@dataclass(frozen=True)
class ShardData:
    """Rows, loss and metric of shards.

    Attributes
    ----------
    validation_inputs, validation_target, validation_weight
        Inputs ``(n, D)``, target as the metric takes it, and weights ``(n,)`` or None of the rows that
        evaluate members. All None: members are not evaluated, and the weights at the end predict.
    prediction_inputs
        Rows ``(n, D)`` to predict after training, or None.
    snapshot_inputs
        Rows ``(n, D)`` to predict at every evaluation, or None. If there are any, members are not scored:
        averaged weights and these predictions are kept, and the rows to predict are left to
        :func:`~parallelmlp_search.distribute.predict_network`.
    head, loss, metric
        Turns outputs into predictions; name of the training loss; metric of the validation rows.
    seed, columns
        Seed of the batches and of dropout; groups of columns, of which configurations can leave some out.
    memory
        Memory that training may use, or None for no limit.
    path
        Training path that all workers take, see
        :func:`parallelmlp_search.kernels.numba.dispatch.following`; None for the rule of the environment.
    precision
        One of :data:`~parallelmlp_search.kernels.precision.PRECISIONS`.
    transformed_targets, curves
        Transformed training targets ``(T, C, n)`` of a regression, and the curves of the transformations.
    transform
        Transformation of the training target in ``rows``.
    smears
        True if the metric asks for means, see :meth:`~parallelmlp_search.data.TargetCurve.smeared`.
    stored
        File with the tensors, which other processes read instead of receiving them with each task.
    """

    rows: TrainingRows
    validation_inputs: Rows | None
    validation_target: Tensor | None
    validation_weight: Tensor | None
    prediction_inputs: Rows | None
    head: Head
    loss: str
    metric: Metric
    seed: int
    columns: ColumnGroups = NO_GROUPS
    memory: TrainingMemory | None = None
    path: str | None = None
    precision: str = "ieee"
    snapshot_inputs: Rows | None = None
    transformed_targets: Tensor | None = None
    curves: Mapping[str, TargetCurve] = field(default_factory=dict)
    transform: str = "none"
    smears: bool = False
    stored: Path | None = field(default=None, compare=False)

    def store(self, folder: Path) -> ShardData:
        """Write the tensors into a new file of the folder and return data that refers to it.

        A table of which parts are used is written into a file of its own, once for all data.
        """
        path = folder / f"rows-{uuid.uuid4().hex}.safetensors"
        tensors, tables = self.split()
        names = {name: _store_table(table, folder) for name, table in tables.items()}
        # safetensors refuses tensors that overlap, hence the clones
        copies = {name: tensor if name in tables else tensor.clone() for name, tensor in tensors.items()}
        save_tensors(path, copies, names, durable=False)  # of no use after a power failure
        return replace(self, stored=path)

    def split(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the tensors by name, and by the same names the tables of which some are numbers of rows."""
        parts = {f"rows.{name}": part for name, part in vars(self.rows).items()}
        parts |= {name: getattr(self, name) for name in _TENSORS}
        tensors, tables = {}, {}
        for name, part in parts.items():
            if isinstance(part, RowView) and part.index is not None and part.columns is None:
                tensors[name], tables[name] = part.index, part.table
                if part.own is not None:
                    tensors[f"{name}.own"] = part.own
            elif part is not None:
                tensors[name] = as_tensor(part)
        return tensors, tables

    def settings(self) -> dict[str, Any]:
        """Return all fields but the tensors."""
        return {name: value for name, value in vars(self).items() if name not in ("rows", *_TENSORS)}

    @classmethod
    def joined(
        cls, settings: dict[str, Any], tensors: dict[str, Tensor], tables: dict[str, Tensor]
    ) -> ShardData:
        """Data from its parts.

        Parameters
        ----------
        settings
            Result of :meth:`settings`.
        tensors, tables
            Results of :meth:`split`.

        Returns
        -------
        ShardData
        """
        return cls(**settings, **_rows(tensors, tables))

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) if self.stored is None else self.settings()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state if state["stored"] is None else state | _stored_rows(state["stored"]))

    @property
    def n_rows(self) -> int:
        """Number of training rows."""
        return self.rows.inputs.shape[0]

    @property
    def n_inputs(self) -> int:
        """Number of inputs ``D``."""
        return self.rows.inputs.shape[1]

    @property
    def device(self) -> torch.device:
        """Device of the rows, on which members train."""
        return self.rows.inputs.device

    @property
    def shape(self) -> DataShape:
        """Inputs and outputs of all networks."""
        return self.head.data_shape(self.n_inputs, self.columns)

    def architecture(self, config: MLPConfig) -> Architecture:
        """Architecture of a configuration on this data."""
        return Architecture.of(config, self.shape)

    def transform_of(self, config: MLPConfig) -> str:
        """Transformation of the target that a configuration learns; ``none`` for classes."""
        return config.target_transform if self.head.task == "regression" else "none"

    def curve_of(self, config: MLPConfig) -> TargetCurve | None:
        """Map from the outputs of a configuration to the target, if it learns a transformed one."""
        return self.curves.get(self.transform_of(config))

    @property
    def curve(self) -> TargetCurve | None:
        """Map from outputs to the target, if the target in ``rows`` is transformed."""
        return self.curves.get(self.transform)

    def _transformed(self, transform: str) -> ShardData:
        """The same rows with another target."""
        names = list(self.curves)
        if transform not in names or self.transformed_targets is None:
            raise InvalidParameterError(
                f"target_transform {transform!r} is not among those that were prepared, which are "
                f"{', '.join(['none', *names])}"
            )
        target = self.transformed_targets[names.index(transform)]
        return replace(self, rows=replace(self.rows, target=target), transform=transform, stored=None)

    def seen_by(self, config: MLPConfig) -> ShardData:
        """The same rows with the columns that a configuration uses and its target, without a copy."""
        if (transform := self.transform_of(config)) != self.transform:
            return self._transformed(transform).seen_by(config)
        runs = self.architecture(config).columns
        if runs == ((0, self.n_inputs),):
            return self

        def seen(inputs: Rows | None) -> Rows | None:
            return None if inputs is None else select(inputs, runs)

        inputs = select(self.rows.inputs, runs)
        return replace(
            self,
            rows=replace(self.rows, inputs=inputs),
            validation_inputs=seen(self.validation_inputs),
            prediction_inputs=seen(self.prediction_inputs),
            snapshot_inputs=seen(self.snapshot_inputs),
            columns=self.columns.kept_by(config, self.n_inputs),
            stored=None,
        )

    def predictions(self, outputs: Tensor, residuals: Floats | None = None) -> Tensor:
        """Map outputs to predictions, with the same bits for a row at any place.

        Parameters
        ----------
        outputs
            Outputs ``(P, C, n)`` of networks that learn the target in ``rows``.
        residuals
            Residuals ``(C, Q)`` of a transformed target over which the curve is smeared, or None.

        Returns
        -------
        Tensor of shape (P, n_predictions, n)
        """
        if self.curve is None:
            return stable_head_predictions(self.head, outputs)
        return curve_predictions(self.curve.smeared(residuals), outputs)

    def validation_predictions(self, outputs: Tensor) -> Tensor:
        """Predictions of the validation rows, given outputs ``(P, C, n)``.

        The curve of each member is smeared over its own residuals if the metric asks for means.
        """
        if self.curve is None:
            return head_predictions(self.head, outputs)
        if not self.smears:
            return self.predictions(outputs)
        assert self.validation_target is not None
        residuals = self.residuals(outputs, self.validation_target, self.validation_weight)
        found = [self.predictions(outputs[[place]], points) for place, points in enumerate(residuals)]
        return torch.cat(found)

    def residuals(self, outputs: Tensor, target: Tensor, weight: Tensor | None) -> list[Floats]:
        """Return the quantiles of the residuals of each member.

        Parameters
        ----------
        outputs
            Outputs ``(P, C, n)`` of networks that learn the target in ``rows``.
        target, weight
            Target ``(C, n)`` in its own units, and weights ``(n,)`` or None.

        Returns
        -------
        list of array of shape (C, Q)
        """
        assert self.curve is not None
        encoded = self.curve.encode(target.cpu().numpy())
        weights = None if weight is None else weight.cpu().numpy()
        return [residual_points(encoded - own, weights) for own in outputs.detach().cpu().numpy()]

    def batch_rows(self, config: MLPConfig) -> int:
        """Rows of a batch: at most the training rows."""
        return min(config.batch_size, self.n_rows)

    def step_seconds(self, config: MLPConfig) -> float:
        """Predicted seconds of one training step of a member in a full bucket, on one core."""
        return member_seconds(self.architecture(config), self.batch_rows(config))

    def epoch_seconds(self, config: MLPConfig) -> float:
        """Predicted seconds of one epoch of a member on one core."""
        return self.step_seconds(config) * self.n_rows / self.batch_rows(config)

    def evaluation_seconds(self, config: MLPConfig) -> float:
        """Predicted seconds of one evaluation of a member."""
        rows = self.validation_inputs
        return 0.0 if rows is None else self.forward_seconds(config, rows.shape[0])

    def forward_seconds(self, config: MLPConfig, n_rows: int) -> float:
        """Predicted seconds of a forward pass of a member: a third of a step on the same number of rows."""
        return self.step_seconds(config) * n_rows / (3.0 * self.batch_rows(config))


@lru_cache(maxsize=3)
def _stored_rows(path: Path) -> dict[str, Any]:
    """Fields of a :class:`ShardData` from its file; the last few are cached, since tasks share them."""
    tensors, names = load_tensors(path, dict[str, str])
    return _rows(tensors, {name: _stored_table(path.with_name(table)) for name, table in names.items()})


def _rows(tensors: dict[str, Tensor], tables: dict[str, Tensor]) -> dict[str, Any]:
    """Fields of a :class:`ShardData` from the results of :meth:`ShardData.split`."""
    views = {
        name: RowView(table, tensors[name], own=tensors.get(f"{name}.own")) for name, table in tables.items()
    }
    parts: dict[str, Any] = tensors | views
    rows = TrainingRows(parts["rows.inputs"], parts["rows.target"], parts.get("rows.weight"))
    return {"rows": rows} | {name: parts.get(name) for name in _TENSORS}


def _store_table(table: Tensor, folder: Path) -> str:
    """Write a table into a file of the folder, unless it is there, and return the name of the file."""
    path = folder / f"table-{table.data_ptr():x}.safetensors"
    if not path.exists():
        save_tensors(path, {"table": table}, durable=False)
    return path.name


@lru_cache(maxsize=1)
def _stored_table(path: Path) -> Tensor:
    return load_tensors(path)[0]["table"]
