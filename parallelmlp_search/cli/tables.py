"""Tables on the command line: from a file and its roles to a problem, and from predictions to a file."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from parallelmlp_search.data import ClassTarget, infer_task, split_target
from parallelmlp_search.data.coercion import as_numbers, as_seconds
from parallelmlp_search.exceptions import DataError, InvalidParameterError, RunDirectoryError, near_miss
from parallelmlp_search.search import Problem, TrainedModel
from parallelmlp_search.selection import METRICS, get_metric, weight_classes

__all__ = [
    "Source",
    "check_output",
    "evaluate",
    "parse_bytes",
    "plain",
    "prediction_table",
    "records",
    "write_table",
]

STORED_TABLE = "data"
"""Name, without its suffix, of the table that a run keeps where it came through standard input."""

OUTPUTS = (".csv", ".csv.gz", ".parquet", ".feather")


@dataclass(frozen=True)
class Source:
    """Where a table is and what its columns are; kept in ``run.json`` so that a run can go on later.

    Attributes
    ----------
    data
        Path of the table, or ``-`` for standard input.
    target
        Column to predict.
    task
        Task, or None to infer it.
    groups, time_column, weights
        Columns that are no features, or None.
    class_weight
        ``balanced`` or None.
    """

    data: str
    target: str
    task: str | None = None
    groups: str | None = None
    time_column: str | None = None
    weights: str | None = None
    class_weight: str | None = None

    def __post_init__(self) -> None:
        if self.groups is not None and self.time_column is not None:
            raise InvalidParameterError(
                "only one of --groups and --time-column can part the rows, but got both"
            )
        if self.class_weight not in (None, "balanced"):
            raise InvalidParameterError(
                f"class_weight must be 'balanced', but got {self.class_weight!r}"
                f"{near_miss(self.class_weight, ['balanced'])}"
            )
        roles = [
            name for name in (self.target, self.groups, self.time_column, self.weights) if name is not None
        ]
        for name in roles:
            if roles.count(name) > 1:
                raise InvalidParameterError(
                    f"every column can have one role only, but {name!r} was given two"
                )

    @classmethod
    def of_run(cls, info: Mapping[str, Any], run: str | os.PathLike[str]) -> Source:
        """What ``run.json`` says.

        Raises
        ------
        RunDirectoryError
            If the run was not started on the command line.
        """
        source = info.get("source")
        if not source:
            raise RunDirectoryError(
                f"the run in {os.fspath(run)!r} does not say how its table was read, "
                "since it was not started by `pmlp search`: resume it from where it was started"
            )
        return cls(**{field.name: source.get(field.name) for field in fields(cls)})

    @property
    def is_stdin(self) -> bool:
        """Whether the table comes through standard input."""
        return self.data == "-"

    @property
    def name(self) -> str:
        """What to call the table."""
        return "standard input" if self.is_stdin else Path(self.data).name

    @property
    def stem(self) -> str:
        """Name of the table without its suffixes."""
        return "stdin" if self.is_stdin else Path(self.data).name.split(".")[0] or "table"

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form; the table's path is made absolute, that of a stored copy stays inside the run."""
        data = f"{STORED_TABLE}.parquet" if self.is_stdin else str(Path(self.data).absolute())
        return asdict(self) | {"data": data}

    def path(self, run: Path) -> Path:
        """Where the table of a run is: a stored copy lies inside the run and moves with it."""
        return run / self.data  # an absolute path wins over the folder

    def problem(self, frame: pd.DataFrame) -> Problem:
        """The problem that a table poses.

        Raises
        ------
        DataError
            If a column is missing, the target does not fit the task, or a role's column has unusable values.
        """
        roles = [name for name in (self.groups, self.time_column, self.weights) if name is not None]
        features, target = split_target(frame, self.target, drop=roles)
        if pd.api.types.is_float_dtype(target.dtype):
            infinite = np.isinf(as_numbers(target))
            _refuse(infinite, target, f"target {self.target!r} must hold finite numbers")
        task = infer_task(target, self.task)
        if task == "regression" and self.class_weight is not None:
            raise InvalidParameterError(
                f"class_weight needs classes, but the target {self.target!r} makes the task a regression"
            )
        rows = frame.loc[target.index]
        return Problem(
            frame=features.reset_index(drop=True),
            target=as_numbers(target) if task == "regression" else _labels(target),
            task=task,
            weight=None if self.weights is None else _weights(rows[self.weights], self.weights),
            groups=None if self.groups is None else _groups(rows[self.groups], self.groups),
            time=None if self.time_column is None else _times(rows[self.time_column], self.time_column),
            class_weight=self.class_weight,
            target_name=self.target,
        )


def _labels(target: pd.Series) -> NDArray[Any]:
    if isinstance(target.dtype, pd.CategoricalDtype):
        target = target.astype(target.cat.categories.dtype)
    values = target.to_numpy()
    return pd.Series(values).infer_objects().to_numpy() if values.dtype == object else values


def _weights(column: pd.Series, name: str) -> NDArray[np.float64]:
    values = as_numbers(column)
    _refuse(~(np.isfinite(values) & (values >= 0)), column, f"weights column {name!r} must hold numbers >= 0")
    if not values.any():
        raise DataError(f"weights column {name!r} must be positive in at least one row, but is 0 in all")
    return values


def _groups(column: pd.Series, name: str) -> NDArray[np.int64]:
    codes = pd.factorize(column)[0]
    _refuse(codes < 0, column, f"groups column {name!r} must have a value in every row")
    return codes.astype(np.int64)


def _times(column: pd.Series, name: str) -> NDArray[Any]:
    numbers = as_numbers(column)
    if not np.isnan(numbers).any():
        return numbers
    moments = as_seconds(column)
    _refuse(np.isnat(moments), column, f"time column {name!r} must hold a number or a date in every row")
    return moments


def _refuse(wrong: NDArray[np.bool_], column: pd.Series, rule: str) -> None:
    if wrong.any():
        row = int(np.argmax(wrong))
        found = column.iloc[row]
        shown = (
            "nothing" if pd.isna(found) else repr(found.item() if isinstance(found, np.generic) else found)
        )
        raise DataError(f"{rule}, but row {column.index[row]} has {shown}")


def check_output(output: str) -> str:
    """Suffix of a file for predictions.

    Raises
    ------
    InvalidParameterError
        If it is none that can be written, or the folder does not exist.
    """
    if output == "-":
        return ".csv"
    suffix = next(
        (suffix for suffix in sorted(OUTPUTS, key=len, reverse=True) if output.endswith(suffix)), None
    )
    if suffix is None:
        raise InvalidParameterError(
            f"output must be '-' or end in one of {', '.join(OUTPUTS)}, but got {output!r}"
            f"{near_miss(''.join(Path(output).suffixes), OUTPUTS)}"
        )
    if not Path(output).absolute().parent.is_dir():
        raise InvalidParameterError(f"output must lie in a folder that exists, but got {output!r}")
    return suffix


def write_table(frame: pd.DataFrame, output: str) -> None:
    """Write predictions; the file appears whole or not at all."""
    suffix = check_output(output)
    if output == "-":
        frame.to_csv(sys.stdout, index=False)
        return
    path = Path(output)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}{suffix}")
    try:
        if suffix == ".parquet":
            frame.to_parquet(unfinished, index=False)
        elif suffix == ".feather":
            frame.to_feather(unfinished)
        else:
            frame.to_csv(unfinished, index=False)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def prediction_table(model: TrainedModel, frame: pd.DataFrame, target: str, *, proba: bool) -> pd.DataFrame:
    """Predictions of the rows of a table.

    Returns
    -------
    pandas.DataFrame of shape (rows, 1), (rows, outputs) or (rows, classes)
        One column named after the target (numbered where there are several outputs), or with `proba` one
        column a class, named by the class.

    Raises
    ------
    InvalidParameterError
        If probabilities are asked of a regression.
    """
    features = frame.drop(columns=[target], errors="ignore")
    if proba:
        if model.classes is None:
            raise InvalidParameterError("--proba needs classes, but this run is a regression")
        return pd.DataFrame(model.predictions(features).T, columns=[str(name) for name in model.classes])
    values = model.predict(features)
    if values.ndim == 1:
        return pd.DataFrame({target: values})
    return pd.DataFrame(values, columns=[f"{target}_{output}" for output in range(values.shape[1])])


def evaluate(
    model: TrainedModel, frame: pd.DataFrame, target: str, metric: str, weights: str | None
) -> dict[str, Any]:
    """Every metric that fits the task, on a table that holds the target; the search's own metric first.

    Metrics that look at labels see the classes that the model names. Rows are weighted if the search had
    weights and the table has that column.
    """
    weighted = weights if weights in frame.columns else None
    features, column = split_target(frame, target)
    weight = None if weighted is None else _weights(frame.loc[column.index, weighted], weighted)
    if model.classes is None:
        infer_task(column, "regression")
        truth: NDArray[Any] = as_numbers(column)
    else:
        truth = ClassTarget(model.classes).encode(column)
    predictions = torch.from_numpy(np.ascontiguousarray(model.predictions(features)))[None]
    named = weight_classes(predictions, model.decision)
    chosen = get_metric(metric, model.task)
    fitting = [chosen, *(m for m in METRICS.values() if model.task in m.tasks and m.name != chosen.name)]
    scores = {
        m.name: plain(
            float(m(named if m.needs == "label" else predictions, torch.from_numpy(truth), weight)[0])
        )
        for m in fitting
    }
    return {"n_rows": len(column), "weights": weighted, "metric": chosen.name, "scores": scores}


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as mappings of plain values that JSON can hold."""
    columns = [[plain(value) for value in frame[name]] for name in frame.columns]
    return [dict(zip(map(str, frame.columns), row, strict=True)) for row in zip(*columns, strict=True)]


def plain(value: Any) -> Any:
    """A value that JSON can hold; a gap or a number that is not finite becomes None."""
    if isinstance(value, np.ndarray):
        return [plain(item) for item in value.tolist()]
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or value is pd.NaT or value is pd.NA:
        return None
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value if isinstance(value, (bool, int, str)) else str(value)


def parse_bytes(text: str) -> int:
    """Bytes in a text such as ``2GB``, ``512 MiB`` or ``3e9``.

    >>> parse_bytes("2GB"), parse_bytes("1.5 GiB")
    (2000000000, 1610612736)

    Raises
    ------
    InvalidParameterError
        If it is no size.
    """
    found = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([kmgt]?)(i?)b?\s*", text, re.IGNORECASE)
    try:
        number = float(found[1]) if found else 0.0
    except ValueError:
        number = 0.0
    if not found or not number > 0:
        raise InvalidParameterError(f"memory_limit must be a size such as 2GB or 512MiB, but got {text!r}")
    power = " kmgt".index(found[2].lower() or " ")
    return int(number * (1024 if found[3] else 1000) ** power)
