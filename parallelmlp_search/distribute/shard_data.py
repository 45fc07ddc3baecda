"""Training and validation rows of shards, as tensors that worker processes can read from one file."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from parallelmlp_search._files import save_tensors
from parallelmlp_search._reading import load_tensors
from parallelmlp_search.engine import Head, TrainingRows
from parallelmlp_search.engine.rows import Rows, RowView, as_tensor, select
from parallelmlp_search.packing import Architecture, DataShape, member_seconds
from parallelmlp_search.selection import Metric
from parallelmlp_search.space import NO_GROUPS, ColumnGroups, MLPConfig

_TENSORS = (
    "validation_inputs",
    "validation_target",
    "validation_weight",
    "prediction_inputs",
    "snapshot_inputs",
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

    def seen_by(self, config: MLPConfig) -> ShardData:
        """The same rows with the columns that a configuration uses, without a copy."""
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
