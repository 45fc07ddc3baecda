"""Trained model of the networks that a search has trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from parallelmlp_search.data.encoding import TableEncoder
from parallelmlp_search.inference import FoldModel, TrainedModel
from parallelmlp_search.inference.model import architecture_of
from parallelmlp_search.packing import Head, plan
from parallelmlp_search.packing.pack import write_member
from parallelmlp_search.search.finalists.cross_fitting import CrossFit
from parallelmlp_search.search.problem.preparation import Part, Preparation
from parallelmlp_search.space import MLPConfig


def trained_model(
    preparation: Preparation,
    parts: Sequence[Part],
    configs: Mapping[int, MLPConfig],
    vectors: Sequence[Sequence[Tensor]],
    weights: NDArray[Any],
) -> TrainedModel:
    """Return the model of trained networks, without postprocessing.

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
        fold_model(part.preprocessor.encoder_, part.head, members, mine)
        for part, mine in zip(parts, vectors, strict=True)
    ]
    return TrainedModel(
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
        reader=problem.reader,
    )


def ensemble_model(fit: CrossFit, weights: Tensor, n_folds: int | None = None) -> TrainedModel:
    """Return the model of all finalists with a weight, without postprocessing.

    Parameters
    ----------
    fit, weights
        Finalists, and their weights ``(P,)``.
    n_folds
        Folds whose networks predict; None for all.

    Returns
    -------
    TrainedModel
    """
    chosen = [index for index, weight in enumerate(weights.tolist()) if weight > 0]
    configs = {fit.trials[index].number: fit.trials[index].config for index in chosen}
    parts = fit.parts[:n_folds]
    vectors = [[fit.networks[index][fold].vector for index in chosen] for fold in range(len(parts))]
    return trained_model(fit.preparation, parts, configs, vectors, weights[chosen].numpy())


def refitted_model(model: TrainedModel, part: Part, vectors: Sequence[Sequence[Tensor]]) -> TrainedModel:
    """Return a model with networks that were trained on all rows, several per configuration.

    Parameters
    ----------
    model, part
        Model of the networks of the folds; preprocessing and outputs of all rows.
    vectors
        Canonical vectors of each repetition, in the order of the members.

    Returns
    -------
    TrainedModel
    """
    encoder = part.preprocessor.encoder_
    folds = [fold_model(encoder, part.head, model.configs, mine) for mine in vectors]
    return replace(model, folds=folds, refitted=True)


def fold_model(
    encoder: TableEncoder, head: Head, configs: Sequence[MLPConfig], vectors: Sequence[Tensor]
) -> FoldModel:
    """Return the packed networks of one fold.

    Parameters
    ----------
    encoder, head
        Preprocessing and outputs.
    configs, vectors
        Configuration and canonical vector of each network.

    Returns
    -------
    FoldModel
    """
    layout = plan([architecture_of(config, encoder, head) for config in configs])
    parameters = torch.zeros(layout.size, dtype=vectors[0].dtype)
    for member, vector in enumerate(vectors):
        write_member(parameters, layout, member, vector)
    return FoldModel(encoder, head, layout, parameters.numpy())
