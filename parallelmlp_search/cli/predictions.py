"""Predictions and scores of the model of a run, and the files that they are written to."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from parallelmlp_search._files import write_atomic
from parallelmlp_search.cli.plain_values import plain
from parallelmlp_search.data import infer_task, split_target
from parallelmlp_search.data.frames import as_frame
from parallelmlp_search.data.row_values import row_weights
from parallelmlp_search.exceptions import InvalidParameterError, RunDirectoryError, near_miss
from parallelmlp_search.inference import TrainedModel
from parallelmlp_search.inference.intervals import predicted_intervals, predicted_sets
from parallelmlp_search.report.wording import SHOWN_COVERAGE
from parallelmlp_search.runs import load_model
from parallelmlp_search.search import RunDirectory
from parallelmlp_search.search.run.tables import column_shifts

if TYPE_CHECKING:
    from parallelmlp_search.selection import Metric

SUFFIXES = (".csv", ".csv.gz", ".parquet", ".feather")


def check_output(output: str) -> str:
    """Return the suffix of a file for predictions.

    Raises
    ------
    InvalidParameterError
        If the suffix is not supported, or the folder does not exist.
    """
    if output == "-":
        return ".csv"
    suffix = next((one for one in sorted(SUFFIXES, key=len, reverse=True) if output.endswith(one)), None)
    if suffix is None:
        raise InvalidParameterError(
            f"output must be '-' or end in one of {', '.join(SUFFIXES)}, but got {output!r}"
            f"{near_miss(''.join(Path(output).suffixes), SUFFIXES)}"
        )
    if not Path(output).absolute().parent.is_dir():
        raise InvalidParameterError(f"output must be in a folder that exists, but got {output!r}")
    return suffix


def write_table(frame: pd.DataFrame, output: str) -> None:
    """Write predictions. A file is replaced as a whole or not at all."""
    suffix = check_output(output)
    if output == "-":
        sys.stdout.flush()
        frame.to_csv(sys.stdout.buffer, index=False)  # UTF-8, as in a file
        return

    def write(path: Path) -> None:
        if suffix == ".parquet":
            frame.to_parquet(path, index=False)
        elif suffix == ".feather":
            frame.to_feather(path)
        else:
            frame.to_csv(path, index=False, compression="gzip" if suffix == ".csv.gz" else None)

    write_atomic(Path(output), write)


def target_of(directory: RunDirectory, model: TrainedModel) -> str | None:
    """Return the name of the target column, or None if the run does not know it."""
    source = directory.info().get("source") or {}
    name = source.get("target") or model.target_name
    return None if name is None else str(name)


def target_columns(directory: RunDirectory, model: TrainedModel) -> list[str]:
    """Return the names of the columns of the target, none if the run does not know them."""
    if model.output_names is not None:
        return list(model.output_names)
    name = target_of(directory, model)
    return [] if name is None else [name]


def prediction_table(
    model: TrainedModel, frame: pd.DataFrame, target: str, *, proba: bool, coverages: Sequence[float] = ()
) -> pd.DataFrame:
    """Return the predictions for the rows of a table, or with ``proba`` probabilities of classes or labels.

    The columns are named after the target or its columns, numbered if it has several without names, or after
    the classes. For each of ``coverages`` follow the ends of intervals, or sets of classes as JSON lists.

    Raises
    ------
    InvalidParameterError
        If probabilities of a regression are requested, or a coverage is not possible.
    DataError
        If the model cannot make intervals.
    """
    features = frame.drop(columns=[target, *model.target_columns], errors="ignore")
    if proba:
        if model.classes is None:
            raise InvalidParameterError("--proba needs classes, but this run is a regression: leave it out")
        found = pd.DataFrame(model.predictions(features).T, columns=[str(name) for name in model.classes])
    else:
        values = model.predict(features)
        found = pd.DataFrame(values.reshape(len(values), -1), columns=model.output_columns(target))
    for name, column in _uncertain_columns(model, features, target, coverages):
        found[name] = column
    return found


def check_percents(percents: Sequence[float]) -> tuple[float, ...]:
    """Return coverages in percent as shares.

    Raises
    ------
    InvalidParameterError
        If one is below 1, which would be a share, or not below 100.
    """
    for percent in percents:
        if not 1.0 <= percent < 100.0:
            raise InvalidParameterError(
                f"--interval must be a percentage from 1 to below 100, such as 90, but got {percent:g}"
            )
    return tuple(percent / 100 for percent in percents)


def _uncertain_columns(
    model: TrainedModel, features: pd.DataFrame, target: str, coverages: Sequence[float]
) -> Iterator[tuple[str, Any]]:
    """Names and values of the columns of intervals or sets."""
    if not coverages:
        return
    if model.classes is not None:
        labels = model.classes.tolist()
        for coverage, members in zip(coverages, predicted_sets(model, features, coverages), strict=True):
            texts = [[plain(labels[number]) for number in np.flatnonzero(row)] for row in members.T]
            yield f"{target}_set_{100 * coverage:g}", [json.dumps(one, ensure_ascii=False) for one in texts]
        return
    for coverage, ends in zip(coverages, predicted_intervals(model, features, coverages), strict=True):
        for output, name in enumerate(model.output_columns(target)):
            for side, values in zip(("lower", "upper"), ends[:, output], strict=True):
                yield f"{name}_{side}_{100 * coverage:g}", values


def _applies(metric: Metric, model: TrainedModel, result: dict[str, Any], truth: NDArray[Any]) -> bool:
    """False for a metric of another task, of costs that the model lacks, or for a deviance.

    Deviances are shown if the metric of the search is one and the target has them.
    """
    from parallelmlp_search.selection.costs import fits_costs
    from parallelmlp_search.selection.deviance import Deviance

    if model.task not in metric.tasks or not fits_costs(metric, model.costs):
        return False
    if not isinstance(metric.formula, Deviance) or metric.name == result["metric"]:
        return True
    try:
        metric.formula.check_target(truth, metric.name)
    except InvalidParameterError:
        return False
    return "_deviance" in result["metric"] or result["metric"].startswith("d2_")


def _measured_coverage(
    model: TrainedModel, features: pd.DataFrame, truth: NDArray[Any], weight: NDArray[Any] | None
) -> dict[str, Any] | None:
    """Coverage of 90 % intervals or sets on rows with known targets; None for a model without them."""
    level: dict[str, Any] = {"coverage": SHOWN_COVERAGE}
    known = model.uncertainty
    if known is None or known.conformal[0].max_coverage < SHOWN_COVERAGE:
        return None
    if model.classes is not None:
        sets = predicted_sets(model, features, (SHOWN_COVERAGE,))[0]
        covered = sets[truth, np.arange(len(truth))]
        level["size"] = float(np.average(sets.sum(axis=0), weights=weight))
    else:
        lower, upper = predicted_intervals(model, features, (SHOWN_COVERAGE,))[0]
        covered = ((lower <= truth.T) & (upper >= truth.T)).mean(axis=0)
        level["width"] = np.average(upper - lower, axis=1, weights=weight).tolist()
    level["measured"] = float(np.average(covered, weights=weight))
    return {"measured_on": "these rows", "levels": [level]}


def evaluation_of(directory: RunDirectory, frame: pd.DataFrame) -> dict[str, Any]:
    """Score the model of a run on a table with known targets.

    All metrics of the task are computed, that of the search first. Metrics of labels use the predicted
    classes. Rows are weighted if the search had weights and the table has their column.

    Raises
    ------
    RunDirectoryError
        If the run does not know its target column.
    """
    # metrics take tensors; predictions alone do without torch
    import torch

    from parallelmlp_search.explain.rows import encoded_target
    from parallelmlp_search.selection import get_metric, metrics_of, weight_classes, with_costs
    from parallelmlp_search.selection.scorers import PYTHON

    model, result = load_model(directory), directory.result()
    targets = target_columns(directory, model)
    if not targets:
        raise RunDirectoryError(f"the run in {str(directory.path)!r} does not know the name of its target")
    weights = (directory.info().get("source") or {}).get("weights")
    weights = weights if weights in frame.columns else None
    if model.reader is not None:
        frame = model.reader.with_numbers(frame, targets[0])
    features, column = split_target(frame, targets if len(targets) > 1 else targets[0])
    weight = None
    if weights is not None:
        weight = row_weights(frame.loc[column.index, weights], len(column), f"weights column {weights!r}")
    if model.task in ("regression", "multilabel"):
        infer_task(column, model.task)
    truth = encoded_target(model, column)
    table = model.read(features)
    shifts = column_shifts(directory, model, as_frame(table))
    predictions = np.ascontiguousarray(model.predictions_of_read(table))
    covered = _measured_coverage(model, features, truth, weight)
    units: tuple[float, ...] = (1.0,)
    center: tuple[float, ...] = (0.0,)
    if (scaling := model.target_scaling) is not None:
        predictions, truth = scaling.apply(predictions.T).T, scaling.apply(truth)
        units, center = scaling.unit, scaling.center
    probabilities = torch.from_numpy(predictions)[None]
    weighted = weight_classes(probabilities, model.decision_weights)
    known = metrics_of(model.task)
    own = [with_costs(one, model.costs) for one in known if _applies(one, model, result, truth)]
    if result["metric"] not in [one.name for one in known] and not directory.metric().startswith(PYTHON):
        metric = get_metric(result["metric"], model.task, classes=model.classes)
        own.append(metric.in_units(units, center).checked_on(truth, weight))
    own.sort(key=lambda one: one.name != result["metric"])
    scores = {}
    for one in own:
        rows = weighted if one.needs == "label" else probabilities
        wanted = torch.from_numpy(np.array(truth.T))
        scores[one.name] = plain(float(one.in_units(units, center)(rows, wanted, weight)[0]))
    return {
        "n_rows": len(column),
        "weights": weights,
        "metric": result["metric"],
        "scores": scores,
        **model.postprocessing(),
        "drift": None if shifts is None else [plain(one.to_dict()) for one in shifts],
        "uncertainty": covered,
        "honest": plain(result["honest"]),
    }
