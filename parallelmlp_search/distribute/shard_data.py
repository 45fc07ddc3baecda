"""Training and validation rows of shards, as tensors that worker processes can read from one file."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from parallelmlp_search._files import save_tensors
from parallelmlp_search._reading import load_tensors
from parallelmlp_search.engine import Head, TrainingRows
from parallelmlp_search.packing import Architecture, DataShape, member_seconds
from parallelmlp_search.packing.pack import select_columns
from parallelmlp_search.selection import Metric
from parallelmlp_search.space import NO_GROUPS, ColumnGroups, MLPConfig

_TENSORS = ("validation_inputs", "validation_target", "validation_weight", "prediction_inputs")


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
    head, loss, metric
        Turns outputs into predictions; name of the training loss; metric of the validation rows.
    seed, columns
        Seed of the batches and of dropout; groups of columns, of which configurations can leave some out.
    stored
        File with the tensors, which other processes read instead of receiving them with each task.
    """

    rows: TrainingRows
    validation_inputs: Tensor | None
    validation_target: Tensor | None
    validation_weight: Tensor | None
    prediction_inputs: Tensor | None
    head: Head
    loss: str
    metric: Metric
    seed: int
    columns: ColumnGroups = NO_GROUPS
    stored: Path | None = field(default=None, compare=False)

    def store(self, folder: Path) -> ShardData:
        """Write the tensors into a new file of the folder and return data that refers to it."""
        path = folder / f"rows-{uuid.uuid4().hex}.safetensors"
        tensors = {f"rows.{name}": tensor for name, tensor in vars(self.rows).items()}
        tensors |= {name: getattr(self, name) for name in _TENSORS}
        # safetensors refuses tensors that overlap, hence the clones
        copies = {name: t.clone() for name, t in tensors.items() if t is not None}
        save_tensors(path, copies, durable=False)  # of no use after a power failure
        return replace(self, stored=path)

    def __getstate__(self) -> dict[str, Any]:
        left_out = () if self.stored is None else ("rows", *_TENSORS)
        return {name: value for name, value in vars(self).items() if name not in left_out}

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
        """The same rows with the columns that a configuration uses; adjacent columns are not copied."""
        runs = self.architecture(config).columns
        if runs == ((0, self.n_inputs),):
            return self

        def seen(inputs: Tensor | None) -> Tensor | None:
            return None if inputs is None else select_columns(inputs, runs)

        inputs = select_columns(self.rows.inputs, runs)
        return replace(
            self,
            rows=replace(self.rows, inputs=inputs),
            validation_inputs=seen(self.validation_inputs),
            prediction_inputs=seen(self.prediction_inputs),
            columns=self.columns.without(self.n_inputs - inputs.shape[1]),
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
    tensors, _ = load_tensors(path)
    rows = TrainingRows(tensors["rows.inputs"], tensors["rows.target"], tensors.get("rows.weight"))
    return {"rows": rows} | {name: tensors.get(name) for name in _TENSORS}
