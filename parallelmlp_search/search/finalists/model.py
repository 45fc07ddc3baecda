"""Trained model of the networks that a search has trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from parallelmlp_search.data.encoding import TableEncoder
from parallelmlp_search.data.target_curve import TargetCurve
from parallelmlp_search.inference import FoldModel, TrainedModel
from parallelmlp_search.inference.fold_model import architecture_of
from parallelmlp_search.packing import Head, plan
from parallelmlp_search.packing.pack import write_member
from parallelmlp_search.search.finalists.cross_fitting import CrossFit
from parallelmlp_search.search.problem.preparation import Part, Preparation
from parallelmlp_search.space import MLPConfig

Residuals = Sequence[NDArray[Any] | None]
"""Residuals ``(C, Q)`` of each member, or None."""


def trained_model(
    preparation: Preparation,
    parts: Sequence[Part],
    configs: Mapping[int, MLPConfig],
    vectors: Sequence[Sequence[Tensor]],
    weights: NDArray[Any],
    residuals: Sequence[Residuals] | None = None,
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
    residuals
        Residuals over which the curves of transformed targets are smeared, of each fold in the order of the
        members; None for none.

    Returns
    -------
    TrainedModel
    """
    problem, classes = preparation.problem, preparation.classes
    members = tuple(configs.values())
    known = residuals or [[None] * len(members)] * len(parts)
    folds = [
        fold_model(part.preprocessor.encoder_, part.head, members, mine, _curves(part, members, points))
        for part, mine, points in zip(parts, vectors, known, strict=True)
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
        output_names=tuple(problem.labels) if problem.task == "multilabel" else problem.output_names,
        flat_target=problem.target.ndim == 1,
        target_scaling=preparation.target_scaling,
        reader=problem.reader,
        costs=preparation.costs,
        decision_weights=preparation.decision,
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
    residuals = [[fit.networks[index][fold].residuals for index in chosen] for fold in range(len(parts))]
    return trained_model(fit.preparation, parts, configs, vectors, weights[chosen].numpy(), residuals)


def refitted_model(
    model: TrainedModel,
    part: Part,
    vectors: Sequence[Sequence[Tensor]],
    residuals: Residuals | None = None,
) -> TrainedModel:
    """Return a model with networks that were trained on all rows, several per configuration.

    Parameters
    ----------
    model, part
        Model of the networks of the folds; preprocessing and outputs of all rows.
    vectors
        Canonical vectors of each repetition, in the order of the members.
    residuals
        Residuals over which the curve of each member is smeared, or None; None for none.

    Returns
    -------
    TrainedModel
    """
    encoder, curves = (
        part.preprocessor.encoder_,
        _curves(part, model.configs, residuals or [None] * len(model.configs)),
    )
    folds = [fold_model(encoder, part.head, model.configs, mine, curves) for mine in vectors]
    return replace(model, folds=folds, refitted=True)


def fold_model(
    encoder: TableEncoder,
    head: Head,
    configs: Sequence[MLPConfig],
    vectors: Sequence[Tensor],
    curves: tuple[TargetCurve | None, ...] = (),
) -> FoldModel:
    """Return the packed networks of one fold.

    Parameters
    ----------
    encoder, head
        Preprocessing and outputs.
    configs, vectors
        Configuration and canonical vector of each network.
    curves
        Map from the outputs of each network to the target if that is transformed, or None; empty for none.

    Returns
    -------
    FoldModel
    """
    layout = plan([architecture_of(config, encoder, head) for config in configs])
    parameters = torch.zeros(layout.size, dtype=vectors[0].dtype)
    for member, vector in enumerate(vectors):
        write_member(parameters, layout, member, vector)
    return FoldModel(encoder, head, layout, parameters.numpy(), curves if any(curves) else ())


def _curves(part: Part, configs: Sequence[MLPConfig], residuals: Residuals) -> tuple[TargetCurve | None, ...]:
    """Smeared curves of networks whose target is transformed, None for the others."""
    curves = map(part.data.curve_of, configs)
    pairs = zip(curves, residuals, strict=True)
    return tuple(None if curve is None else curve.smeared(points) for curve, points in pairs)
