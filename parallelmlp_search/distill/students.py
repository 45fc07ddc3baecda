"""Students: networks that are trained on soft targets and predict like those of a search."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from parallelmlp_search.data import RegressionTarget
from parallelmlp_search.data.encoding import TableEncoder
from parallelmlp_search.distill.soft_targets import SoftRows
from parallelmlp_search.distribute import ShardData, predict_network, run_shards, shard_tasks
from parallelmlp_search.engine import TrainingRows
from parallelmlp_search.exceptions import SearchFailedError
from parallelmlp_search.inference.fold_model import architecture_of
from parallelmlp_search.packing import Head
from parallelmlp_search.search.problem.preparation import Part
from parallelmlp_search.selection import get_metric
from parallelmlp_search.space import MLPConfig


@dataclass(frozen=True)
class Student:
    """Network that was trained on soft targets.

    Attributes
    ----------
    vector
        Canonical vector ``(n_parameters,)``; its outputs are those of the head of the search.
    seconds, loss
        Seconds of training, and its last loss.
    """

    vector: Tensor
    seconds: float
    loss: float


@dataclass(frozen=True)
class Lesson:
    """Soft targets and the preprocessing of one student.

    Attributes
    ----------
    rows
        Rows and soft targets.
    part
        Part of the search whose preprocessing and head the student has.
    seed
        Seed of its batches.
    """

    rows: SoftRows
    part: Part
    seed: int

    @property
    def encoder(self) -> TableEncoder:
        """Preprocessing of the part."""
        return self.part.preprocessor.encoder_

    def data(self) -> tuple[ShardData, RegressionTarget]:
        """Return rows, head and loss of the training, and the standardization of the soft targets."""
        scaler = RegressionTarget.fit(self.rows.target)
        target = np.atleast_2d(scaler.encode(self.rows.target).T)
        n_outputs = len(target)
        data = ShardData(
            rows=TrainingRows(
                torch.from_numpy(self.encoder.encode(self.rows.frame)),
                torch.from_numpy(np.ascontiguousarray(target)),
                None,
            ),
            validation_inputs=None,
            validation_target=None,
            validation_weight=None,
            prediction_inputs=None,
            head=Head("regression", n_outputs, *([0.0] * n_outputs, [1.0] * n_outputs)),
            loss="squared_error",
            metric=get_metric("rmse", "regression"),
            seed=self.seed,
            columns=self.encoder.groups,
        )
        return data, scaler


def train_students(
    lessons: Sequence[Lesson], config: MLPConfig, epochs: float, *, n_workers: int
) -> Iterator[Student]:
    """Train a network of a configuration for each lesson.

    Parameters
    ----------
    lessons
        Soft targets.
    config
        Configuration without submembers.
    epochs
        Epochs of training.
    n_workers
        Networks that are trained at once.

    Yields
    ------
    Student
        In the order of the lessons.

    Raises
    ------
    SearchFailedError
        If the loss of a network became infinite or NaN.
    """
    scalers, tasks = [], []
    for number, lesson in enumerate(lessons):
        data, scaler = lesson.data()
        scalers.append(scaler)
        tasks += shard_tasks(
            f"student-{number}", {number: config}, data,
            until_epoch=epochs, total_epochs=epochs, keep=("average",),
        )  # fmt: skip
    shards = run_shards(tasks, n_workers=n_workers)
    members = {member.trial: member for shard in shards for member in shard.members}
    for number, (lesson, scaler) in enumerate(zip(lessons, scalers, strict=True)):
        member = members[number]
        if member.failure is not None or member.state is None:
            raise SearchFailedError(f"the network could not be distilled: {member.failure}; try another seed")
        vector = with_scaled_outputs(member.state.vectors["average"], config, lesson, scaler)
        yield Student(vector, member.seconds, member.train_loss)


def with_scaled_outputs(
    vector: Tensor, config: MLPConfig, lesson: Lesson, scaler: RegressionTarget
) -> Tensor:
    """Return a network whose outputs are what the head of the search takes, and not standardized ones.

    Parameters
    ----------
    vector, config
        Canonical vector of a network with standardized outputs; its configuration.
    lesson, scaler
        Its soft targets, and their standardization.

    Returns
    -------
    Tensor
        Canonical vector.
    """
    scale, shift = torch.from_numpy(scaler.scale_), torch.from_numpy(scaler.mean_)
    head = lesson.part.head
    if head.link == "log":  # which multiplies by its scale after the exponential
        shift = shift - torch.tensor(head.scale, dtype=torch.float64).log()
    elif head.task == "regression":  # which standardizes outputs in its own way
        own = torch.tensor(head.scale, dtype=torch.float64)
        scale, shift = scale / own, (shift - torch.tensor(head.location, dtype=torch.float64)) / own
    architecture = architecture_of(config, lesson.encoder, lesson.part.head)
    changed, start = vector.double(), 0
    for layer, kind, n_rows, n_columns in architecture.block_shapes():
        end = start + n_rows * n_columns
        if layer == architecture.depth and kind in ("weight", "bias"):
            block = changed[start:end].reshape(n_rows, n_columns) * scale[:, None]
            changed[start:end] = (block + shift[:, None] if kind == "bias" else block).flatten()
        start = end
    return changed.to(vector.dtype)


def predict_rows(student: Student, config: MLPConfig, lesson: Lesson, frame: pd.DataFrame) -> Tensor:
    """Return the predictions ``(C, n)`` of a student for rows of plain numbers and categories.

    Parameters
    ----------
    student, config, lesson
        Student, its configuration and its soft targets.
    frame
        Rows.

    Returns
    -------
    Tensor
    """
    data = replace(
        lesson.part.data,
        prediction_inputs=torch.from_numpy(lesson.encoder.encode(frame)),
        columns=lesson.encoder.groups,
    )
    return predict_network(data, config, student.vector)
